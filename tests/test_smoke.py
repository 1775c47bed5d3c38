"""``fuzzserver smoke``, as a program: what it finds to be well, and what not."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import fuzzserver
from fuzzserver.report.formats import FORMATS
from fuzzserver.web.api import ROUTES
from tests.support_time import WAIT, eventually
from tests.support_zig_children import is_alive
from tests.support_zig_fake import calls, fake_zig

PACKAGE = Path(fuzzserver.__file__).parent

PROGRAM = """
import sys
import fuzzserver.smoking as smoking
from fuzzserver.cli import main
from fuzzserver.web import server
server.STOP_SECONDS = smoking.LAST_END = {wait}
smoking.LIMIT, smoking.LONGEST = {limit}, {limit} + 5
{patch}
sys.exit(main(["smoke", *sys.argv[1:]]))
"""
BROKEN = """
from fuzzserver.web import gate, routes
routes.metrics = lambda *_: routes.Answer("text/plain", b"nonsense")
gate.Gate.refusal = lambda *_: None
"""
"""A server with a wrong answer to one route, and without a gate."""
OVER = """
from pathlib import Path

class OverSoon(smoking.Deadline):
    @property
    def seconds_left(self):
        calls = Path("zig/calls.jsonl")
        if calls.exists() and '["test"' in calls.read_text():
            self._end = 0.0
        return super().seconds_left

smoking.Deadline = OverSoon
"""
"""A time for all checks that is over as soon as something is compiled."""
STUCK = """
import threading, time
from pathlib import Path

give_up = smoking._give_up

def give_up_soon(checks):
    calls = Path("zig/calls.jsonl")
    while not calls.exists() or '["test"' not in calls.read_text():
        time.sleep(0.01)
    give_up(checks)

smoking.LONGEST, smoking._give_up = 1, give_up_soon
smoking._built = lambda *_: threading.Event().wait()
"""
"""A main thread that waits for ever, and a time that is over as soon as something is compiled."""

LINE = re.compile(r"(ok  |FAIL) +([\d,]+) ms  (.*)")


@dataclass(frozen=True)
class Smoked:
    """What it has said."""

    code: int
    out: str
    err: str

    @property
    def passed(self) -> list[str]:
        """What follows the times of checks that went well."""
        return [text for verdict, _, text in LINE.findall(self.out) if verdict == "ok  "]

    @property
    def failed(self) -> list[str]:
        """The same of the others."""
        return [text for verdict, _, text in LINE.findall(self.out) if verdict == "FAIL"]

    @property
    def verdict(self) -> str:
        """The last line."""
        return self.out.splitlines()[-1]


LIMIT = 10 * WAIT
"""Seconds for all checks: a busy machine gets all the time that it needs."""


def start(folder: Path, *args: object, patch: str = "") -> subprocess.Popen[str]:
    """Start it, with ``folder`` for temporary files."""
    (folder / "tmp").mkdir()
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(limit=LIMIT, wait=WAIT, patch=patch), *map(str, args)],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(PACKAGE.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], folder: Path) -> Smoked:
    """Wait for its end, after which no temporary file is left."""
    out, err = process.communicate(timeout=LIMIT + WAIT)
    assert list((folder / "tmp").iterdir()) == []
    assert "Traceback" not in err
    return Smoked(process.returncode, out, err)


@pytest.fixture(scope="module")
def cache(zig_cache: Path) -> Path:
    """Where what all tests need is compiled already, the page's wasm above all."""
    return zig_cache


def assert_all_named(parts: Sequence[str], lines: list[str]) -> None:
    """There is a line for each."""
    for part in parts:
        assert any(line.startswith(part) for line in lines), part


def test_all_is_well(tmp_path: Path, cache: Path) -> None:
    """On the example: a line for each route, message and moment, and none of them without an effect."""
    smoked = finish(start(tmp_path, "--cache-dir", cache), tmp_path)
    assert (smoked.code, smoked.failed) == (0, []), smoked.out + smoked.err
    assert re.fullmatch(rf"smoke: all is well: {len(smoked.passed)} checks in [\d.]+ s", smoked.verdict)
    assert_all_named(("compiler  0.14.", "server", "build  2 fuzz tests in 1 executable"), smoked.passed)
    (first,) = [line for line in smoked.passed if line.startswith("first runs")]
    runs, covered, points = (int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", first))
    assert runs > 0 and 0 < covered < points
    assert_all_named(
        ("/  ", "/main.js", "/app.js", "/style.css", "/main.wasm", "/sources.tar"), smoked.passed
    )
    assert_all_named(("/targets.json", "/points/", "/source/", "/metrics"), smoked.passed)
    routes = [route.path for route in ROUTES if "FORMAT" not in route.path and "FINDING" not in route.path]
    assert_all_named([path.replace("ID", "") for path in routes], smoked.passed)
    assert_all_named([f"/report/{name}" for name in (*FORMATS, "html")], smoked.passed)
    assert_all_named(("foreign Origin  403", "foreign Host  421", "foreign WebSocket  403"), smoked.passed)
    messages = ("current_time", "source_index", "coverage_update", "entry_points", "state  fuzzing")
    assert_all_named([f"WebSocket: {message}" for message in messages], smoked.passed)
    (grown,) = [line for line in smoked.passed if line.startswith("WebSocket: runs grow")]
    before, after = (int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", grown))
    assert before < after
    assert smoked.passed[-1] == "stop  nothing is left behind"


def test_what_is_not_well(tmp_path: Path, cache: Path) -> None:
    """Each check that fails says why; the others are made all the same."""
    smoked = finish(start(tmp_path, "--cache-dir", cache, patch=BROKEN), tmp_path)
    assert smoked.code == 3
    assert smoked.failed == [
        "/metrics  these are no metrics of a target: 'nonsense'",
        "foreign Origin  answered with 200 instead of 403",
        "foreign Host  answered with 200 instead of 421",
        "foreign WebSocket  answered with 101 instead of 403",
    ]
    count = len(smoked.passed) + 4
    names = "/metrics, foreign Origin, foreign Host, foreign WebSocket"
    assert re.fullmatch(rf"smoke: 4 of {count} checks failed in [\d.]+ s: {names}", smoked.verdict)
    assert smoked.passed[-1] == "stop  nothing is left behind"


def test_target_that_does_not_compile(tmp_path: Path, cache: Path) -> None:
    """The compiler's words are told, and it ends there."""
    root = tmp_path / "broken.zig"
    root.write_text('test "fuzz" {')
    smoked = finish(start(tmp_path, root, "--cache-dir", cache), tmp_path)
    assert smoked.code == 4
    assert "broken.zig:1:14: error: expected statement" in smoked.err
    (failed,) = smoked.failed
    assert failed.startswith("build  ")
    assert smoked.passed[1:] and re.fullmatch(
        r"smoke: 1 of 3 checks failed in [\d.]+ s: build", smoked.verdict
    )
    assert not (tmp_path / ".zig-cache").exists()


def test_target_without_fuzz_tests(tmp_path: Path, cache: Path) -> None:
    """So it is if there is nothing to fuzz, or no such file."""
    smoked = finish(start(tmp_path, "missing.zig"), tmp_path)
    assert smoked.code == 2 and "'missing.zig' does not exist" in smoked.err
    (tmp_path / "tmp").rmdir()
    smoked = finish(start(tmp_path, "a.zig", "--build", "."), tmp_path)
    assert smoked.code == 2 and "not both" in smoked.err


def test_compiler_that_never_ends(tmp_path: Path) -> None:
    """When the time is over it says so, with all that it has started gone."""
    zig = fake_zig(tmp_path / "zig", compile="hang")
    smoked = finish(start(tmp_path, "--zig", zig.path, patch=OVER), tmp_path)
    assert smoked.code == 4
    (failed,) = smoked.failed
    assert failed.startswith("build  the 600 s for all checks are over, and the build goes on: try again ")
    assert "--cache-dir FOLDER" in failed
    assert_gone([call["pid"] for call in calls(zig)])


def test_what_never_ends(tmp_path: Path) -> None:
    """Whatever it waits for, it ends, takes what it has started with it, and says so once."""
    zig = fake_zig(tmp_path / "zig", compile="hang")
    smoked = finish(start(tmp_path, "--zig", zig.path, patch=STUCK), tmp_path)
    assert smoked.code == 3
    assert re.fullmatch(r"smoke: 1 of 3 checks failed in [\d.]+ s: the end", smoked.verdict)
    assert len(smoked.out.splitlines()) == 3, smoked.out
    assert_gone([call["pid"] for call in calls(zig)])


def test_ctrl_c(tmp_path: Path) -> None:
    """It ends at once, and cleanly."""
    zig = fake_zig(tmp_path / "zig", compile="hang")
    process = start(tmp_path, "--zig", zig.path)
    eventually(
        lambda: len([call for call in calls(zig) if len(call["argv"]) > 1]) >= 2, "nothing is compiled"
    )
    process.send_signal(signal.SIGINT)
    smoked = finish(process, tmp_path)
    assert smoked.code == 130
    assert smoked.failed == []
    assert_gone([call["pid"] for call in calls(zig)])


def assert_gone(pids: list[int]) -> None:
    """None of these processes is there."""
    assert pids and not any(map(is_alive, pids))
