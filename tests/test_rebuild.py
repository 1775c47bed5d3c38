"""A viewer who wants the tests built again, while they are fuzzed."""

import time
from pathlib import Path

import pytest

from fuzzserver import FuzzOptions, FuzzProject, FuzzSession
from fuzzserver.errors import InputError
from fuzzserver.observer import Observer
from fuzzserver.zig.installation import Zig
from tests.projects import write_project
from tests.support_time import eventually
from tests.support_zig_cli import BUILD_WAIT


def test_tests_are_built_again_while_they_are_fuzzed(
    zig: Zig, zig_cache: Path, work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where nobody watches the sources; before and after that, it is refused."""
    caplog.set_level("INFO", "fuzzserver")
    project = FuzzProject.of_root(write_project(work / "rebuild-project"))
    options = FuzzOptions(jobs=1, tests=("fuzz sum",))
    with Observer() as observer:
        with pytest.raises(InputError, match="nobody builds here"):
            observer.rebuild()
        with FuzzSession(project, options, observer, zig=zig, cache_dir=zig_cache) as session:
            eventually(lambda: session.started is not None, "it is not fuzzed", BUILD_WAIT)
            (before,) = session.targets
            eventually(lambda: _accepts(observer), "nobody builds")
            is_built = "Fuzzing the build of"
            eventually(lambda: is_built in observer.status.text, "it is not built again", BUILD_WAIT)
            (after,) = session.targets
            assert (after.id, after.earlier) == (before.id or after.id, ())
            assert after.tests[0].restarts == 0
        with pytest.raises(InputError, match="nobody builds here"):
            observer.rebuild()
    assert "a viewer asks for it; building again" in caplog.messages


def _accepts(observer: Observer) -> bool:
    """Ask for a rebuild."""
    try:
        observer.rebuild()
        return True
    except InputError:
        time.sleep(0.05)
        return False
