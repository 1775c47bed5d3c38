"""What ``import fuzzserver`` gives, and what it does not wait for."""

import subprocess
import sys

import pytest

import fuzzserver


def test_all_names_are_there():
    """Each stands for something of the package, and is found by an asterisk."""
    names = {}
    exec("from fuzzserver import *", names)
    assert set(fuzzserver.__all__) <= set(names)
    assert set(fuzzserver.__all__) <= set(dir(fuzzserver))
    for name in set(fuzzserver.__all__) - {"__version__", "Event"}:  # A union has no name of its own.
        value = getattr(fuzzserver, name)
        assert value is names[name]
        assert (value.__name__, value.__module__.split(".")[0]) == (name, "fuzzserver")


def test_other_names_are_not():
    """They fail as in any module."""
    with pytest.raises(AttributeError, match="module 'fuzzserver' has no attribute 'nothing'"):
        _ = fuzzserver.nothing
    with pytest.raises(ImportError):
        exec("from fuzzserver import nothing")


def test_who_needs_a_step_waits_for_no_server():
    """Nor for the parser of executables; and who serves does not wait for what fuzzing takes."""
    code = (
        "import sys, fuzzserver; step = fuzzserver.FuzzRunStep; print(*sys.modules);"
        "import fuzzserver.showing, fuzzserver.cli; print(*sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for_step, for_serve = (set(line.split()) for line in output.splitlines())
    assert "fuzzserver.step" in for_step
    assert for_step.isdisjoint({"fuzzserver.webserver", "elftools", "wsproto", "ssl"})
    assert "fuzzserver.webserver" in for_serve
    assert for_serve.isdisjoint({"fuzzserver.fuzzing", "fuzzserver.fuzz.driver"})
