"""The life of a fuzz test: worker after worker, with a pause between them, until it makes no sense."""

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from fuzzserver.corpus import Corpus, SharedCorpus
from fuzzserver.coverage.queue import CoverageMsg
from fuzzserver.fuzz import backoff as module
from fuzzserver.fuzz import worker
from fuzzserver.fuzz.backoff import MAX_DEATHS
from fuzzserver.fuzz.failure import Failure
from fuzzserver.fuzz.test_run import FuzzTestRun
from fuzzserver.fuzz.turns import Turns
from fuzzserver.fuzz.worker import FuzzTest, WorkerEnd, WorkerLimits
from fuzzserver.status import TestStatus
from fuzzserver.step import FuzzRunStep
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.process import ChildGroup
from tests.support_failures import SPINNING, TESTS, build_failing, test_name
from tests.support_fuzzing import PATIENCE, Told, lively
from tests.support_time import Clock, eventually
from tests.support_zig_children import processes_naming
from tests.support_zig_runner import runner

pytestmark = pytest.mark.usefixtures("nothing_left")


@dataclass
class Life:
    """A test's life on a thread of its own, and all that is told of it."""

    folder: Path
    children: ChildGroup = field(default_factory=ChildGroup)
    turns: Turns = field(default_factory=lambda: Turns(1))
    told: Told = field(default_factory=Told)
    log: list[tuple[str, str]] = field(default_factory=list)
    """Level and text."""
    run: FuzzTestRun | None = None

    def start(
        self, test: FuzzTest, limits: WorkerLimits | None = None, shared: SharedCorpus | None = None
    ) -> FuzzTestRun:
        """Begin it, in a cache folder that only it has."""
        cache = self.folder / "cache"
        self.run = FuzzTestRun(
            test,
            Corpus(cache / "f" / test.name, "main.zig", test.name),
            shared,
            self._changed,
            self._failed,
            lambda text, level: self.log.append((level, text)),
            self.children,
            cache,
            self.folder,
            1,
            limits or WorkerLimits(),
            self.turns,
            self.told,
        )
        self.thread = threading.Thread(target=self.run.run)
        self.thread.start()
        return self.run

    def _changed(self) -> None:
        assert self.run is not None
        self.told(self.run.status)

    def _failed(self, end: WorkerEnd, failure: Failure, data: bytes) -> int:
        self.told((end, failure, data))
        return len(self.told.of(tuple))

    def wait_for(self, condition: Callable[[TestStatus], object], what: str) -> TestStatus:
        """Until a status is told for which the condition holds; returns the first."""

        def found() -> list[TestStatus]:
            return [status for status in self.told.of(TestStatus) if condition(status)]

        self.told.wait_for(found, what)
        return found()[0]

    def states(self) -> list[str]:
        """The states in which it was, without repetitions."""
        states = [status.state for status in self.told.of(TestStatus)]
        return [state for number, state in enumerate(states) if states[:number][-1:] != [state]]

    def stop(self) -> None:
        """End it, and wait for the end."""
        assert self.run is not None
        self.run.stop()
        self.join()

    def join(self) -> None:
        """Wait for the end, after which nothing is left."""
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the life does not end"
        assert processes_naming(str(self.folder / "cache")) == []


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says where it is, or just ends, may be slow."""
    monkeypatch.setattr(worker, "STACK_WAIT", PATIENCE)
    monkeypatch.setattr(worker, "CLOSE_WAIT", PATIENCE)


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """A place for it, cleared at the end of the test."""
    life = Life(tmp_path)
    yield life
    life.turns.close()
    life.children.stop()
    if life.run is not None:
        life.stop()


@pytest.fixture(scope="module")
def lives(client: ZigCompileClient, work: Path) -> Callable[[str], FuzzTest]:
    """Tests of ``support_fuzzing``."""
    return lambda test: lively(client, work, test)[1]


@pytest.fixture(scope="module")
def failing(client: ZigCompileClient, work: Path) -> Callable[[str], FuzzTest]:
    """Tests of ``support_failures``."""
    step = FuzzRunStep("failing", build_failing(client, work, "-ffuzz"))
    return lambda test: FuzzTest(step, TESTS.index(test), test_name(test))


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between workers."""
    monkeypatch.setattr(module, "FIRST_DELAY", 0.005)
    monkeypatch.setattr(module, "LONGEST_DELAY", 0.01)


def ends_at_once(folder: Path, name: str = "fake") -> FuzzTest:
    """A worker that ends before it has said anything."""
    code = "os.write(2, b'cannot go on')\nsys.exit(3)"
    return FuzzTest(FuzzRunStep(name, runner(folder / name, code)), 0, "test.fake")


def test_failure_and_restart(life: Life, lives: Callable[[str], FuzzTest]) -> None:
    """A test that fails is told with its input, fuzzed again, and found again, with counts that add up."""
    run = life.start(lives("fuzz later"))
    life.told.wait_for(lambda: len(life.told.of(tuple)) >= 3, "it fails only once")
    first, second, *_ = life.told.of(tuple)
    for end, failure, data in (first, second):
        assert (failure.kind, failure.message) == ("panic", "there is a b")
        assert b"b" in data
        assert end.n_runs > 0
    assert second[0].total_runs == first[0].total_runs + second[0].n_runs
    crashed = life.wait_for(lambda status: status.state == "crashed" and status.findings == 2, "no status")
    assert crashed.restarts == 1
    assert crashed.text.startswith("Worker was ended by signal SIGABRT: there is a b\n")
    assert life.log.count(("error", "Worker was ended by signal SIGABRT: there is a b")) >= 2
    assert ("info", crashed.text.splitlines()[-1]) in life.log
    assert "in fuzzLater (" in "\n".join(text for level, text in life.log if level == "info")
    life.stop()
    assert run.status.state == "stopped"
    cycle = ["waiting", "fuzzing", "crashed", "restarting", "fuzzing", "crashed", "restarting", "fuzzing"]
    assert life.states()[: len(cycle)] == cycle
    assert len({msg.coverage_id for msg in life.told.of(CoverageMsg)}) == 1


@pytest.mark.usefixtures("fast")
def test_gives_up(
    life: Life, lives: Callable[[str], FuzzTest], monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    """A test that fails on its first input each time is given up, with each failure told."""
    monkeypatch.setattr(module, "MAX_DEATHS", 3)
    run = life.start(lives("fuzz at once"))
    life.join()
    assert len(life.told.of(tuple)) == 3
    assert {failure.message for _, failure, _ in life.told.of(tuple)} == {"error.AtOnce"}
    status = run.status
    assert (status.state, status.restarts, status.n_runs) == ("failed", 2, 0)
    assert status.text.startswith("Gave up after 3 workers that made no run.\nWorker exited")
    assert f"'{status.name}': 3 workers in succession made no run" in caplog.text
    run.stop()
    assert run.status.state == "failed"


def test_backoff(life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pause is twice as long as the one before, and the status says how long it is."""
    monkeypatch.setattr(module, "FIRST_DELAY", 0.125)
    monkeypatch.setattr(module, "LONGEST_DELAY", 0.75)
    life.start(ends_at_once(tmp_path))
    life.join()
    texts = [status.text for status in life.told.of(TestStatus) if status.state == "crashed"]
    assert [text.splitlines()[-1] for text in texts] == [
        f"The next worker starts in {delay} s." for delay in (0.25, 0.5, 0.75, 0.75)
    ]
    assert texts[0].startswith("Worker exited with code 3: exit code 3\n")


def test_pauses_of_those_that_live(
    life: Life, lives: Callable[[str], FuzzTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that makes runs is never given up, and no pause is longer than the last worker lived."""
    monkeypatch.setattr(module, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(module, "LEAST_LONGEST_DELAY", 0.0)
    monkeypatch.setattr(module, "LONGEST_DELAY", 1000.0)
    monkeypatch.setattr(module, "MAX_DEATHS", 2)
    life.start(lives("fuzz later"))
    life.told.wait_for(lambda: len(life.told.of(tuple)) > 2, "it is given up")
    life.stop()
    assert "failed" not in life.states()


@pytest.mark.usefixtures("fast")
def test_fault_of_the_fuzzer(life: Life, lives: Callable[[str], FuzzTest], caplog) -> None:
    """When Zig's fuzzer itself fails, that is said, and is no finding; fuzzing goes on."""
    life.start(lives("fuzz branchless"))
    crashed = life.wait_for(lambda status: status.state == "crashed", "the fuzzer does not fail")
    life.wait_for(lambda status: status.restarts == 1, "there is no restart")
    life.stop()
    assert "Zig's fuzzer itself failed: Segmentation fault at address 0x0, in " in crashed.text
    assert crashed.findings == 0 and life.told.of(tuple) == []
    assert "Zig's fuzzer itself failed" in caplog.text
    assert "fuzzserver.worker" in {record.name for record in caplog.records}
    # That it ended is in the program's own log, and only there.
    assert {level for level, _ in life.log} == {"info"}
    assert not [text for _, text in life.log if text.startswith("Worker")]


def test_hang_is_a_failure(
    life: Life, failing: Callable[[str], FuzzTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that takes too long fails where it was interrupted."""
    clock = Clock()
    monkeypatch.setattr(worker, "time", clock)
    life.start(failing("silent hang"), WorkerLimits(hang=1000.0))
    eventually((life.folder / SPINNING).exists, "it does not hang")
    clock.ahead += 2000.0
    life.told.wait_for(lambda: life.told.of(tuple), "nothing fails")
    _, failure, _ = life.told.of(tuple)[0]
    assert (failure.kind, failure.message) == ("hang", "made no new run for 1000 s")
    assert [frame.function for frame in failure.frames] == ["spinSilently", "neverEndsNorSpeaks"]


@pytest.mark.usefixtures("fast")
def test_executable_that_is_gone(
    life: Life, lives: Callable[[str], FuzzTest], tmp_path: Path, caplog
) -> None:
    """A worker that cannot be started is tried until it can be; that is no finding, and said once."""
    test = lives("fuzz patient")
    life.start(replace(test, step=FuzzRunStep("gone", tmp_path / "gone")))
    crashed = life.wait_for(lambda status: status.restarts > 2 * MAX_DEATHS, "it is given up")
    (text,) = {status.text.split("\n")[0] for status in life.told.of(TestStatus) if status.state == "crashed"}
    assert text.startswith("Worker could not be run: [Errno 2] No such file or directory: ")
    assert (crashed.findings, life.told.of(tuple)) == (0, [])
    assert caplog.messages == [f"fuzz worker for '{test.name}': {text}"]
    shutil.copy2(test.step.rebuilt_executable, tmp_path / "new")
    (tmp_path / "new").rename(tmp_path / "gone")
    life.wait_for(lambda status: status.state == "fuzzing", "it does not recover")
    life.stop()


def test_stop_in_a_pause(life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop does not wait for the end of a pause, nor does another build."""
    monkeypatch.setattr(module, "FIRST_DELAY", 1000.0)
    monkeypatch.setattr(module, "LONGEST_DELAY", 1000.0)
    run = life.start(ends_at_once(tmp_path, "first"))
    life.wait_for(lambda status: status.state == "crashed", "it does not end")
    run.move(ends_at_once(tmp_path, "second"))
    life.wait_for(lambda status: status.state == "crashed" and status.restarts == 1, "it does not go on")
    life.stop()
    assert (run.status.state, run.status.restarts) == ("stopped", 1)


def test_move(life: Life, lives: Callable[[str], FuzzTest], caplog) -> None:
    """With another build, the worker is replaced, without that being a failure."""
    run = life.start(lives("fuzz patient"))
    life.told.wait_for(lambda: len(life.told.of(CoverageMsg)) == 1, "no worker")
    test = lives("fuzz word")
    run.move(test)
    life.told.wait_for(lambda: len(life.told.of(CoverageMsg)) == 2, "no other worker")
    eventually((life.folder / "cache" / "f" / test.name).is_dir, "it does not fuzz")
    life.stop()
    assert (run.status.restarts, life.told.of(tuple), caplog.messages) == (0, [], [])


def test_no_turn(life: Life, lives: Callable[[str], FuzzTest]) -> None:
    """Without a turn there is no worker; when there will be none, it ends."""
    assert life.turns.take()
    run = life.start(lives("fuzz patient"))
    life.wait_for(lambda status: status.state == "waiting", "it does not wait")
    assert processes_naming(str(life.folder / "cache")) == []
    life.turns.close()
    life.join()
    assert run.status.state == "waiting"


def test_seeds(life: Life, lives: Callable[[str], FuzzTest], tmp_path: Path, caplog) -> None:
    """What no fuzzer finds by itself is found with a seed."""
    caplog.set_level(logging.INFO)
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds" / "word").write_bytes(b"-" * 200 + b"canyoufindme")
    test = lives("fuzz word")
    life.start(test, shared=SharedCorpus(tmp_path / "seeds", test.name))
    life.told.wait_for(lambda: life.told.of(tuple), "the seed is not taken in")
    _, failure, data = life.told.of(tuple)[0]
    assert failure.message == "found it" and b"canyoufindme" in data
    assert f"'{test.name}': 1 of 1 inputs in '{tmp_path / 'seeds'}' are new to it" in caplog.text
    crashed = life.wait_for(lambda status: status.state == "crashed", "no status")
    assert (crashed.restarts, life.states()[:3]) == (0, ["waiting", "fuzzing", "crashed"])


SEEDS = {b"seed", b"in the place of a folder"}


def finds(run: FuzzTestRun) -> set[bytes]:
    """What the fuzzer has kept so far."""
    return {run.corpus.input(each.number) for each in run.corpus.inputs()}


def test_finds_are_saved(life: Life, lives: Callable[[str], FuzzTest], tmp_path: Path) -> None:
    """What the fuzzer keeps until the very end is in the user's folder."""
    (tmp_path / "seeds").mkdir()
    test = lives("fuzz many")
    run = life.start(test, shared=SharedCorpus(tmp_path / "seeds", test.name))
    life.told.wait_for(lambda: len(life.told.of(CoverageMsg)) == 2, "the second worker does not come")
    eventually(lambda: finds(run) - SEEDS, "nothing is found")
    life.stop()
    kept = finds(run)
    saved = {path.read_bytes() for path in (tmp_path / "seeds" / test.name).iterdir()}
    assert kept and kept == saved


def test_folder_that_cannot_be_written(
    life: Life, lives: Callable[[str], FuzzTest], tmp_path, caplog
) -> None:
    """That finds cannot be saved is said once; fuzzing goes on. They are saved as soon as they can be."""
    test = lives("fuzz many")
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds" / "seed").write_bytes(b"seed")
    (tmp_path / "seeds" / test.name).write_text("in the place of a folder")
    run = life.start(test, shared=SharedCorpus(tmp_path / "seeds", test.name))
    life.told.wait_for(lambda: len(life.told.of(CoverageMsg)) == 2, "the second worker does not come")
    eventually(lambda: finds(run) - SEEDS, "nothing is found")
    life.stop()
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    (error,) = errors
    assert error.startswith(f"cannot write '{tmp_path / 'seeds' / test.name}/")
    assert error.endswith(f"; inputs of '{test.name}' are not saved until that is mended")
    assert (tmp_path / "seeds" / test.name).read_text() == "in the place of a folder"
    kept = finds(run)
    assert b"seed" in kept
    (tmp_path / "seeds" / test.name).unlink()
    caplog.set_level(logging.INFO)
    assert run.shared is not None
    run.shared.save(run.corpus)
    saved = {path.read_bytes() for path in (tmp_path / "seeds" / test.name).iterdir()}
    assert saved == kept - SEEDS
    assert (
        caplog.messages[-1]
        == f"inputs of '{test.name}' are saved again in '{tmp_path / 'seeds' / test.name}'"
    )
