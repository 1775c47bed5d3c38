"""Instances at bad moments: a test ends while it is left out, a new build comes in between ..."""

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzserver.coverage.queue import CoverageMsg
from fuzzserver.fuzz import backoff
from fuzzserver.fuzz.shared_test import SharedTest
from fuzzserver.fuzz.worker import WorkerEnd
from tests.support_instances import Group
from tests.support_time import WAIT, eventually

pytestmark = pytest.mark.usefixtures("nothing_left")

BAD = """
if "bad" in names:
    turn("bad")
    run()
    os.write(2, b"thread 1 panic: oops\\n")
    os.abort()
"""
"""An instance that has this test ends at once."""


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    """A place for instances, which are ended when the test is over."""
    group = Group(tmp_path)
    yield group
    group.children.stop()
    group.stop()


class Gate:
    """Where a thread waits until it is let on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()

    def __call__(self) -> None:
        """Wait, in place of a method."""
        self.reached.set()
        assert self._opened.wait(WAIT), "nobody let it on"

    def open(self) -> None:
        """Let it on, once it is there."""
        assert self.reached.wait(WAIT), "it does not come so far"
        self._opened.set()


def test_input_of_the_corpus_that_fails(group: Group) -> None:
    """It is left out of the corpus, which instances run when they begin; else none would come further."""
    code = """
import glob
turn("a")
tried("a", b"poison")
while not os.path.exists("go"):
    run()
    time.sleep(0.01)
if any(open(path, "rb").read() == b"poison" for path in glob.glob(folder + "/f/*/[01]")):
    os.write(2, b"thread 1 panic: poisoned\\n")
    os.abort()
fuzz("a")
"""
    (test,) = group.start(group.script(code), "a", count=1)
    group.wait_for_runs(test)
    folder = test.corpus.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "0").write_bytes(b"poison")
    (folder / "1").write_bytes(b"good")
    (group.folder / "go").touch()
    group.told.wait_for(lambda: group.failures, "it does not fail")
    eventually(lambda: len(group.notes()) == 2, "it is not started again")
    group.wait_for_runs(test)
    assert [each.size for each in test.corpus.inputs()] == [len(b"good")]
    assert test.corpus.input(0) == b"good"
    assert len(group.failures) == 1


def test_end_while_left_out(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time is over for which a test is left out that has ended, the others are not interrupted."""
    monkeypatch.setattr(backoff, "FIRST_DELAY", 30.0)
    bad, good = group.start(group.script(BAD + 'fuzz("good")'), "bad", "good", count=1)
    group.wait_for_runs(good)
    bad.stop()
    group.end_rest(0, bad)
    runs = good.session_runs
    eventually(lambda: good.session_runs > runs + 60, "it does not go on")
    assert [note["names"] for note in group.notes()] == [["bad", "good"], ["good"]]


def test_end_by_its_failure(group: Group) -> None:
    """A test that its own failure ends is not left out for a while, but for good."""

    def failed(end: WorkerEnd, *_: object) -> int:
        bad.stop("Enough.")
        return 1

    wait = 'while not os.path.exists("go"): time.sleep(0.01)\n'
    (bad,) = group.start(group.script(wait + BAD + 'fuzz("good")'), "bad", count=1)
    bad.failed = failed
    group.tests.append(good := group.test(bad.test.step, "good"))
    assert group.instances is not None
    group.instances.go_on(group.tests)
    (group.folder / "go").touch()
    group.wait_for_runs(good)
    (run,) = group.instances._runs
    assert (bad.status.text, run._rests, list(run._backoffs)) == ("Enough.", {}, [good])


def test_talkative_test_makes_room(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that prints all the time is interrupted as any other when one comes back that was left out."""
    monkeypatch.setattr(backoff, "FIRST_DELAY", 30.0)
    code = 'turn("good")\nwhile True:\n    run()\n    os.write(2, b"still here\\n")\n    time.sleep(0.01)'
    bad, _good = group.start(group.script(BAD + code), "bad", "good", count=1)
    eventually(lambda: [text for _, _, text in group.log if "still here" in text], "it does not print")
    group.end_rest(0, bad)
    eventually(lambda: len(group.notes()) >= 3, "it is not interrupted")
    assert group.notes()[2]["names"] == ["bad", "good"]


def test_new_build_just_after_a_failure(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is told though the test is part of another build by then; that one is fuzzed at once."""
    gate = Gate()
    monkeypatch.setattr(SharedTest, "save", gate)
    one, bad = group.start(group.script(BAD), "one", "bad", count=1)
    assert gate.reached.wait(WAIT), "it does not fail"
    step = group.script('fuzz("bad")', "new")
    for test in (one, bad):
        test.move(replace(test.test, step=step))
    assert group.instances is not None
    group.instances.go_on(group.tests)
    gate.open()
    runs = bad.session_runs
    eventually(lambda: bad.session_runs > runs, "the new build is not fuzzed")
    assert [(end.test.name, failure.message) for end, failure, _ in group.failures] == [("bad", "oops")]


def test_thread_that_failed(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fault of our own, the state says so, and the next build is fuzzed."""
    with monkeypatch.context() as patch:
        patch.setattr(SharedTest, "prepare", lambda self: {}["a fault"])
        (test,) = group.start(group.script('fuzz("a")'), "a", count=1)
        group.threads[0].join(WAIT)
    assert (test.status.state, test.status.text) == ("crashed", "internal error: KeyError('a fault')")
    assert group.instances is not None
    group.instances.go_on([test])
    group.wait_for_runs(test)


def test_new_tests_while_the_last_are_tidied(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """New tests wait until the corpus of the old ones is in order: an instance never has two threads."""
    gate = Gate()
    monkeypatch.setattr(SharedTest, "tidy", gate)
    (old,) = group.start(group.script('fuzz("a")'), "a", count=1)
    group.wait_for_runs(old)
    old.stop()
    assert gate.reached.wait(WAIT), "nothing is tidied"
    group.tests.append(new := group.test(old.test.step, "a"))
    assert group.instances is not None
    group.instances.go_on([new])
    assert (len(group.threads), new.status.state) == (1, "never started")
    gate.open()
    group.wait_for_runs(new)
    assert len(group.threads) == 1


def test_pipe_among_coverage_files(group: Group) -> None:
    """Nobody waits for what comes out of it."""
    folder = group.folder / "cache" / "instance0" / "v"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "pipe")
    writer = os.open(folder / "pipe", os.O_RDWR)
    try:
        (test,) = group.start(group.script('fuzz("a")'), "a", count=1)
        group.wait_for_runs(test)
    finally:
        os.close(writer)


def test_coverage_id_again(group: Group, caplog: pytest.LogCaptureFixture) -> None:
    """The same id many times makes no more of it; another one breaks the protocol."""
    code = """
turn("a")
for number in range(300):
    send(7, struct.pack("<4Q", 0x1234, 0, 0, 0))
turn("b")
receive()
send(7, struct.pack("<4Q", 0x9999, 0, 0, 0))
fuzz("b")
"""
    (_, test) = group.start(group.script(code), "a", "b", count=1)
    eventually(lambda: test.status.state == "fuzzing", "it has no turn")
    assert len(group.told.of(CoverageMsg)) == 1
    assert "understood" not in caplog.text
    assert group.instances is not None
    group.instances.broadcast(1, "a", b"go on")
    eventually(lambda: "its coverage id was 1234, and now is 9999" in caplog.text, "it is not noticed")
    group.wait_for_runs(test)
