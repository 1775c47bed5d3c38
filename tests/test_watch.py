"""Watching sources: which changes count, and when they are complete."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuzzserver.fuzz import watch as module
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.fuzz.watch import SourceWatch
from fuzzserver.step import FuzzRunStep, SourcePath
from tests.support_time import WAIT

pytestmark = pytest.mark.usefixtures("nothing_left")

NEVER = 1e12
"""A time after all writes: nothing has changed since then."""


class Looks:
    """Stands for the pause between two looks: does what a test wants to happen in each of them.

    After the last one, the watch is stopped.
    """

    def __init__(self, *happenings: Callable[[], object]) -> None:
        self._happenings: Iterator[Callable[[], object]] = iter(happenings)
        self.count = 0

    def wait(self, _timeout: float) -> bool:
        """As ``threading.Event.wait``."""
        happening = next(self._happenings, None)
        if happening is None:
            return True
        self.count += 1
        happening()
        return False


def nothing() -> None:
    """Let nothing happen."""


def write(path: Path, text: str = "x") -> Path:
    """Write a file, with a time that is that of no earlier write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    now = time.time_ns()
    os.utime(path, ns=(now, now))
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of two folders."""
    project = tmp_path / "project"
    for name in (
        "build.zig",
        "src/main.zig",
        "src/table.csv",
        "docs/readme.zig",
        "failed/root.zig",
        ".zig-cache/o/1/gen.zig",
    ):
        write(project / name)
    write(tmp_path / "other" / "dependency.zig")
    return project


def watch(project: Path, built: float = NEVER) -> SourceWatch:
    """A watch on it, for a build that read these sources."""
    names = ("src/main.zig", "src/table.csv", ".zig-cache/o/1/gen.zig", "../other/dependency.zig")
    step = FuzzRunStep("main", project / "x", inputs=tuple(SourcePath(str(project), name) for name in names))
    command = TestCommand("main", ("-lc", "-Mroot=failed/root.zig"), project, project / ".zig-cache")
    return SourceWatch([command], [step, FuzzRunStep("no inputs", project / "y")], built, threading.Event())


def changed(watch: SourceWatch, change: Callable[[], object]) -> bool:
    """Whether ``change`` counts."""
    return watch.wait(Looks(nothing, change, nothing, nothing))  # type: ignore[arg-type]


CHANGES: dict[str, Callable[[Path], object]] = {
    "edited": lambda project: write(project / "src/main.zig", "y"),
    "written again": lambda project: write(project / "src/main.zig"),
    "data that was compiled in": lambda project: write(project / "src/table.csv", "y"),
    "build.zig": lambda project: write(project / "build.zig", "y"),
    "new beside others": lambda project: write(project / "src/new.zig"),
    "new C file": lambda project: write(project / "src/new.c"),
    "beside the root of what could not be compiled": lambda project: write(project / "failed/other.zig"),
    "removed": lambda project: (project / "src/main.zig").unlink(),
    "replaced by a rename": lambda project: os.replace(write(project / "docs/new"), project / "src/main.zig"),
    "folder gone": lambda project: os.rename(project / "src", project / "old"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changes(project: Path, change: Callable[[Path], object]) -> None:
    """What may make another build is a change."""
    assert changed(watch(project), lambda: change(project))


NO_CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda project: None,
    "read": lambda project: (project / "src/main.zig").read_text(),
    "other kind of file": lambda project: write(project / "src/notes.txt"),
    "an editor's file": lambda project: write(project / "src/main.zig~"),
    "folder without sources of ours": lambda project: write(project / "docs/new.zig"),
    "cache": lambda project: write(project / ".zig-cache/o/1/gen.zig", "y"),
    "outside of the project": lambda project: write(project.parent / "other/dependency.zig", "y"),
    "a folder with the name of a source": lambda project: (project / "src/new.zig").mkdir(),
}


@pytest.mark.parametrize("change", NO_CHANGES.values(), ids=NO_CHANGES.keys())
def test_no_changes(project: Path, change: Callable[[Path], object]) -> None:
    """What cannot make another build is none."""
    assert not changed(watch(project), lambda: change(project))


def test_changed_while_it_was_built(project: Path) -> None:
    """What was written after the build began counts, although nobody watched then."""
    built = time.time() - 10
    for path in project.rglob("*"):
        os.utime(path, (built - 5, built - 5))
    os.utime(project / "src/main.zig", (built + 5, built + 5))
    assert watch(project, built).wait(Looks(nothing))  # type: ignore[arg-type]
    os.utime(project / "src/main.zig", (built - 5, built - 5))
    for path in project.rglob("*"):
        os.utime(path, (built - 5, built - 5))
    assert not watch(project, built).wait(Looks(nothing, nothing))  # type: ignore[arg-type]


def test_times_in_the_future_and_files_that_tests_write(project: Path) -> None:
    """Neither a clock that is ahead nor a file that was not compiled makes it build again and again."""
    built = time.time() - 10
    for path in project.rglob("*"):
        os.utime(path, (built - 5, built - 5))
    os.utime(project / "src/main.zig", (built + 1e6, built + 1e6))
    write(project / "src/output.zig")
    assert not watch(project, built).wait(Looks(nothing, nothing))  # type: ignore[arg-type]


def test_waits_for_the_last_write(project: Path) -> None:
    """As long as something changes from look to look, the change is not complete."""
    looks = Looks(
        nothing,
        lambda: write(project / "src/main.zig", "a"),
        lambda: write(project / "src/new.zig", "b"),
        lambda: write(project / "src/main.zig", "c"),
        nothing,
        nothing,
    )
    assert watch(project).wait(looks)  # type: ignore[arg-type]
    assert looks.count == 5


def test_taken_back(project: Path) -> None:
    """A file that comes and goes again is no change."""
    new = project / "src/new.zig"
    looks = Looks(nothing, lambda: write(new), new.unlink, nothing, nothing)
    assert not watch(project).wait(looks)  # type: ignore[arg-type]


def test_project_behind_a_link(project: Path, tmp_path: Path) -> None:
    """It does not matter by which name a project is known."""
    (tmp_path / "link").symlink_to(project)
    assert changed(watch(tmp_path / "link"), lambda: write(project / "src/main.zig", "y"))


def test_for_real(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a thread, with real pauses: a change is noticed; a stop ends the wait."""
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    answers: list[bool] = []
    stop = threading.Event()
    for act in (lambda: write(project / "src/main.zig", "y"), stop.set):
        sources = watch(project)
        thread = threading.Thread(target=lambda sources=sources: answers.append(sources.wait(stop)))
        thread.start()
        act()
        thread.join(WAIT)
        assert not thread.is_alive()
    assert answers == [True, False]


def test_somebody_asks(project: Path) -> None:
    """That is no change, and it is forgotten when it was found."""
    asked = threading.Event()
    nothing_watched = SourceWatch([], [], NEVER, asked)
    assert nothing_watched.wait(
        Looks(nothing, lambda: write(project / "src/main.zig", "y"), asked.set, nothing)
    )  # type: ignore[arg-type]
    assert nothing_watched.why == "a viewer asks for it"
    assert not SourceWatch([], [], NEVER, asked).wait(Looks(nothing, nothing))  # type: ignore[arg-type]
