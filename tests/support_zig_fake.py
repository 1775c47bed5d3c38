"""A compiler that misbehaves (``fake_zig.py``), set up for one test."""

import json
import shlex
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fuzzserver.zig import compile_client, page_compiler, process
from fuzzserver.zig.installation import Zig

SCRIPT = Path(__file__).with_name("fake_zig.py")


def fake_zig(
    folder: Path,
    *,
    version: dict[str, object] | None = None,
    env: dict[str, object] | None = None,
    compile: str = "ok",
    server_version: str = "0.14.1",
    timeout: float = 60.0,
) -> Zig:
    """An executable ``zig`` in ``folder`` that behaves as the arguments say; see ``fake_zig.py``."""
    folder.mkdir(parents=True, exist_ok=True)
    lib_dir = folder / "lib"
    config = folder / "fake.json"
    settings = {
        "version": version or {"stdout": "0.14.1\n"},
        "env": env or {"stdout": json.dumps({"lib_dir": str(lib_dir)})},
        "compile": compile,
        "server_version": server_version,
    }
    config.write_text(json.dumps(settings))
    # A wrapper rather than a "#!" line, which has a limited length. It takes 15 ms to start.
    command = shlex.join([sys.executable, "-I", "-S", str(SCRIPT), str(config)])
    path = folder / "zig"
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)
    return Zig(path, timeout)


def impatient(zig: Zig, timeout: float) -> Zig:
    """The same compiler with less time, but none of it for questions: what it is, is known already."""
    known = Zig(zig.path, timeout)
    known.__dict__.update(version=zig.version, lib_dir=zig.lib_dir)
    return known


def let_time_run_out(monkeypatch: pytest.MonkeyPatch, zig: Zig) -> None:
    """For a fake compiler, it is over as soon as that has begun what never ends, and not earlier.

    Who closes its pipes first is then waited for: only the time for that is over.
    """

    def clock(*signs: str) -> SimpleNamespace:
        def monotonic() -> float:
            is_over = any(zig.path.with_name(sign).exists() for sign in signs)
            return time.monotonic() + (2 * zig.timeout if is_over else 0.0)

        return SimpleNamespace(monotonic=monotonic, time_ns=time.time_ns)

    monkeypatch.setattr(process, "time", clock("endless"))
    monkeypatch.setattr(compile_client, "time", clock("endless", "closing"))


@pytest.fixture
def no_other_zig(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler is installed beside us that could make the page when the one of the test cannot."""
    monkeypatch.setattr(page_compiler, "packaged_zig", lambda: None)


def calls(zig: Zig) -> list[dict]:
    """All calls of a fake compiler: their ``argv``, ``pid`` and ``cwd``."""
    path = zig.path.with_name("calls.jsonl")
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def compile_calls(zig: Zig) -> list[dict]:
    """Those calls that were compiles."""
    return [call for call in calls(zig) if call["argv"][0] not in ("version", "env")]
