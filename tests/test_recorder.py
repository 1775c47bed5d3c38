"""From failures to findings: which are the same, and how many are kept."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from fuzzserver.findings import FindingStore
from fuzzserver.fuzz import recorder as module
from fuzzserver.fuzz.failure import Failure
from fuzzserver.fuzz.recorder import Recorder
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.fuzz.worker import FuzzTest, WorkerEnd
from fuzzserver.stack import Frame
from fuzzserver.step import FuzzRunStep
from fuzzserver.wire.release import NEWEST, OLDEST

ZIG = SimpleNamespace(release=OLDEST)
COMMAND = TestCommand("main.zig", ("-Mroot=/p/main.zig",), Path("/p"), Path("/p/.zig-cache"))


class NoAnalysis:
    """Notes what it should look at."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def add(self, _command: object, finding, _failure: object, _data: object) -> None:
        """As of ``Analysis``."""
        self.ids.append(finding.id)


def ended(test: str = "main.test.a") -> WorkerEnd:
    """The end of a worker."""
    step = FuzzRunStep("main.zig", Path("/p/test"))
    return WorkerEnd(FuzzTest(step, 0, test), "ended", 1, "exited with code 1", "words", 5, 7)


def failure(kind, function: str | None = None, message: str = "m") -> Failure:
    """A failure in a function, or nobody knows where."""
    frames = () if function is None else (Frame("/p/main.zig", 3, 5, function),)
    return Failure(kind, message, "stack" if frames else "", frames)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """A recorder with an empty store."""
    return Recorder(FindingStore(tmp_path), NoAnalysis(), ZIG)  # type: ignore[arg-type]


def test_place_and_kind_tell_findings_apart(recorder: Recorder, caplog) -> None:
    """Each is told once; how many a test has is returned."""
    assert recorder.note(COMMAND, ended(), failure("panic", "f"), b"1") == 1
    assert recorder.note(COMMAND, ended(), failure("panic", "f", "other text"), b"2") == 1
    assert recorder.note(COMMAND, ended(), failure("panic", "g"), b"3") == 2
    assert recorder.note(COMMAND, ended(), failure("signal", "f"), b"4") == 3
    assert recorder.note(COMMAND, ended("main.test.b"), failure("panic", "f"), b"5") == 1
    assert len(recorder.found) == len(caplog.messages) == 4
    assert caplog.messages[0] == f"finding {recorder.found[0]}: panic in 'main.test.a': m"


def test_place(tmp_path: Path) -> None:
    """A finding says where it is as soon as that is known."""
    store = FindingStore(tmp_path)
    recorder = Recorder(store, NoAnalysis(), ZIG)  # type: ignore[arg-type]
    recorder.note(COMMAND, ended(), failure("hang"), b"")
    assert store.all()[0].place == ""
    recorder.note(COMMAND, ended(), failure("hang", "f"), b"")
    (finding,) = store.all()
    assert (finding.count, finding.place) == (2, "/p/main.zig:3:5")
    assert FindingStore(tmp_path).all()[0].summary()["place"] == "/p/main.zig:3:5"


@pytest.mark.parametrize("kind", ["hang", "out of memory"])
@pytest.mark.parametrize("functions", [("f", None, None), (None, "f", None), (None, None, "f")])
def test_interrupted_nobody_knows_where(recorder: Recorder, kind: str, functions) -> None:
    """A hang whose place Zig could not tell is the one that is known."""
    for function in functions:
        assert recorder.note(COMMAND, ended(), failure(kind, function), b"") == 1


def test_two_places_that_hang(recorder: Recorder) -> None:
    """Where the places are known, they are two findings."""
    assert recorder.note(COMMAND, ended(), failure("hang", "f"), b"") == 1
    assert recorder.note(COMMAND, ended(), failure("hang", "g"), b"") == 2
    assert recorder.note(COMMAND, ended(), failure("hang"), b"") == 2
    assert recorder.note(COMMAND, ended(), failure("out of memory"), b"") == 3


def test_so_many_are_kept(recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    """More findings of one test are told once and not kept; those that are known are counted."""
    monkeypatch.setattr(module, "MAX_FINDINGS", 2)
    for function in ("f", "g", "h", "i", "f"):
        recorder.note(COMMAND, ended(), failure("panic", function), b"")
    assert len(recorder.found) == 2
    assert [text for text in caplog.messages if "are not kept" in text] == [
        "'main.test.a' has 2 findings; new ones are not kept"
    ]
    assert recorder.note(COMMAND, ended("main.test.b"), failure("panic", "f"), b"") == 1


def test_disk_that_takes_nothing(tmp_path: Path, caplog) -> None:
    """What cannot be written is told, kept in memory and looked at."""
    (tmp_path / "file").write_text("")
    analysis = NoAnalysis()
    recorder = Recorder(FindingStore(tmp_path / "file" / "x"), analysis, ZIG)  # type: ignore[arg-type]
    assert recorder.note(COMMAND, ended(), failure("panic", "f"), b"1") == 1
    assert "the finding is kept in memory only" in caplog.text
    assert analysis.ids == recorder.found


def test_form_of_the_input(tmp_path: Path, recorder: Recorder) -> None:
    """Since Zig 0.16, an input is known to its last byte, and is for a Smith."""
    newest = Recorder(FindingStore(tmp_path / "new"), NoAnalysis(), SimpleNamespace(release=NEWEST))  # type: ignore[arg-type]
    known = []
    for each in (recorder, newest):
        each.note(COMMAND, ended(), failure("panic", "f"), b"1")
        known += [(finding.form, finding.exact) for finding in each._findings.all()]
    assert known == [("bytes", False), ("smith", True)]
