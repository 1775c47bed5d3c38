"""A compiler that misbehaves (``fake_zig.py``), set up for one test."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from fuzzserver.zig import page_compiler
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


@pytest.fixture
def no_other_zig(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler is installed beside us that could make the page when the one of the test cannot."""
    monkeypatch.setattr(page_compiler, "packaged_zig", lambda: None)


def calls(zig: Zig) -> list[dict]:
    """All calls of a fake compiler: their ``argv``, ``pid`` and ``cwd``."""
    path = zig.path.with_name("calls.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def compile_calls(zig: Zig) -> list[dict]:
    """Those calls that were compiles."""
    return [call for call in calls(zig) if call["argv"][0] not in ("version", "env")]
