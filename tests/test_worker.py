"""One worker: how it fuzzes, how it ends, and that it ends."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from fuzzserver.coverage.queue import CoverageMsg, EntryPointMsg
from fuzzserver.fuzz import worker as module
from fuzzserver.fuzz.said import BURST, RATE
from fuzzserver.fuzz.turns import Turn, Turns
from fuzzserver.fuzz.worker import MAX_STDERR, TICK, FuzzTest, FuzzWorker, WorkerEnd, WorkerLimits
from fuzzserver.step import FuzzRunStep
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.process import ChildGroup
from tests.support_failures import SPINNING, TESTS, build_failing, test_name
from tests.support_fuzzing import PATIENCE, Told, lively
from tests.support_native import coverage_bytes
from tests.support_time import WAIT, Clock, eventually
from tests.support_zig_children import processes_naming
from tests.support_zig_runner import runner

pytestmark = pytest.mark.usefixtures("nothing_left")

MIB = 1 << 20


@dataclass
class Bench:
    """A worker on a thread of its own, and all that it tells."""

    folder: Path
    children: ChildGroup = field(default_factory=ChildGroup)
    told: Told = field(default_factory=Told)
    turns: Turns = field(default_factory=lambda: Turns(1, slice_seconds=0.0))
    ends: list[WorkerEnd] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    looks: int = 0

    def make(self, test: FuzzTest, limits: WorkerLimits | None = None) -> FuzzWorker:
        """A worker in a cache folder that only it has."""
        turn = Turn(self.turns)
        assert turn.take()
        return FuzzWorker(
            self.children,
            test,
            self.folder / "cache",
            self.folder,
            1,
            limits or WorkerLimits(),
            turn,
            self.told,
            self.told,
            self._look,
            self.said.append,
        )

    def start(self, test: FuzzTest, limits: WorkerLimits | None = None) -> FuzzWorker:
        """Start one."""
        self.worker = self.make(test, limits)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return self.worker

    def _look(self) -> None:
        self.looks += 1

    def _run(self) -> None:
        try:
            self.ends.append(self.worker.run())
        except OSError as error:
            self.errors.append(error.with_traceback(None))

    def end(self) -> WorkerEnd:
        """How it ended, once it has."""
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the worker does not end"
        assert processes_naming(str(self.folder / "cache")) == []
        (end,) = self.ends
        return end

    def wait_for_runs(self, count: int = 1) -> None:
        """Wait until it has made so many more runs."""
        enough = self.worker.n_runs + count
        eventually(lambda: self.worker.n_runs >= enough, "the worker does not run")

    def pid(self) -> int:
        """Its process."""
        (pid,) = processes_naming(str(self.folder / "cache"))
        return pid


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says where it is, or just ends, may be slow."""
    monkeypatch.setattr(module, "STACK_WAIT", PATIENCE)
    monkeypatch.setattr(module, "CLOSE_WAIT", PATIENCE)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """That of workers."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A place for a worker, which is ended when the test is over."""
    bench = Bench(tmp_path)
    yield bench
    bench.turns.close()
    bench.children.stop()
    bench.thread.join(PATIENCE)


@pytest.fixture(scope="module")
def failing(client: ZigCompileClient, work: Path) -> Callable[[str], FuzzTest]:
    """The tests that fail."""
    step = FuzzRunStep("failing", build_failing(client, work, "-ffuzz"))
    return lambda test: FuzzTest(step, TESTS.index(test), test_name(test))


@pytest.fixture(scope="module")
def patient(client: ZigCompileClient, work: Path) -> FuzzTest:
    """A test that finds nothing."""
    return lively(client, work, "fuzz patient")[1]


def state_of(pid: int) -> str:
    """The state of a process, as in proc(5): ``T`` if it is paused."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def fake(folder: Path, code: str) -> FuzzTest:
    """A worker that does what ``code`` says, with a coverage file that has one PC."""
    cache = folder / "cache" / "v"
    cache.mkdir(parents=True)
    (cache / "3412000000000000").write_bytes(coverage_bytes([1, 2], n_runs=5))
    return FuzzTest(FuzzRunStep("fake", runner(folder / "bin", code)), 7, "test.fake")


def test_messages_and_counts(bench: Bench, patient: FuzzTest) -> None:
    """What the worker says becomes messages, with its own cache folder; runs are counted."""
    worker = bench.start(patient)
    bench.wait_for_runs(100)
    assert bench.looks > 0
    worker.end()
    end = bench.end()
    assert (end.why, end.how, end.test) == ("asked", "was ended", patient)
    assert end.total_runs == end.n_runs >= 100
    coverage, point, state = bench.told.all
    assert isinstance(coverage, CoverageMsg) and isinstance(point, EntryPointMsg)
    assert coverage == CoverageMsg(coverage.coverage_id, patient.step, bench.folder / "cache")
    assert point.coverage_id == coverage.coverage_id
    assert state == "fuzzing"


def test_counts_go_on(tmp_path: Path, patient: FuzzTest) -> None:
    """A second worker counts its own runs, and those of the first as well."""
    ends = []
    for _ in range(2):
        bench = Bench(tmp_path)
        worker = bench.start(patient)
        bench.wait_for_runs()
        worker.end()
        ends.append(bench.end())
    assert ends[1].total_runs == ends[0].total_runs + ends[1].n_runs
    assert 0 < ends[1].n_runs < ends[1].total_runs


def test_hang(bench: Bench, clock: Clock, failing: Callable[[str], FuzzTest]) -> None:
    """A worker that makes no run is made to say where it is, which is told, and ended."""
    bench.start(failing("silent hang"), WorkerLimits(hang=1000.0))
    eventually((bench.folder / SPINNING).exists, "it does not hang")
    clock.ahead += 2000.0
    end = bench.end()
    assert (end.why, end.how) == ("hang", "made no new run for 1000 s")
    assert "in spinSilently (failing)" in end.stderr
    assert "in neverEndsNorSpeaks (failing)" in end.stderr
    assert "in spinSilently (failing)" in "\n".join(bench.said)


def test_memory(bench: Bench, failing: Callable[[str], FuzzTest]) -> None:
    """A worker that takes too much memory is made to say where it is, and ended."""
    bench.start(failing("memory"), WorkerLimits(memory=100 * MIB))
    end = bench.end()
    assert end.why == "out of memory"
    assert end.how.startswith("used ") and end.how.endswith("MiB of memory, more than the limit of 100 MiB")
    assert "in takesAllMemory (failing)" in end.stderr


def test_exit(bench: Bench, failing: Callable[[str], FuzzTest]) -> None:
    """A test that ends the process is an end like others."""
    bench.start(failing("exit"))
    end = bench.end()
    assert (end.why, end.status, end.how, end.n_runs) == ("ended", 0, "exited with code 0", 0)


def test_panic(bench: Bench, failing: Callable[[str], FuzzTest]) -> None:
    """The last words of a test that panics are kept."""
    bench.start(failing("panic"))
    end = bench.end()
    assert (end.why, end.status, end.how) == ("ended", -6, "was ended by signal SIGABRT")
    assert "panic: boom at " in end.stderr


def test_killed_from_outside(bench: Bench, patient: FuzzTest) -> None:
    """Somebody else's signal is told as what it is."""
    bench.start(patient)
    bench.wait_for_runs()
    os.kill(bench.pid(), signal.SIGKILL)
    end = bench.end()
    assert (end.why, end.status, end.how) == ("ended", -9, "was ended by signal SIGKILL")
    assert end.n_runs > 0


def test_words_of_the_fuzzer(bench: Bench, patient: FuzzTest) -> None:
    """What Zig's fuzzer writes into its log is kept, what an earlier worker wrote there is not."""
    folder = bench.folder / "cache"
    (folder / "tmp").mkdir(parents=True)
    (folder / "tmp" / "libfuzzer.log").write_text("of yesterday")
    (folder / "f").mkdir()
    (folder / "f" / patient.name).write_text("where a folder must be")
    bench.start(patient)
    end = bench.end()
    assert end.status == 1
    assert "unable to open corpus directory" in end.fuzzer_log
    assert "yesterday" not in end.fuzzer_log


def test_a_paused_worker_does_not_hang(bench: Bench, clock: Clock, patient: FuzzTest) -> None:
    """While another has the turn, the worker is paused, however long; then it goes on."""
    bench.start(patient, WorkerLimits(hang=1000.0))
    bench.wait_for_runs()
    pid = bench.pid()
    assert bench.turns.take()
    # Its process was told to pause before it gave the turn back.
    eventually(lambda: state_of(pid) == "T", "the worker is not paused")
    before = bench.worker.total_runs
    clock.ahead += 2000.0
    time.sleep(3 * TICK)
    assert state_of(pid) == "T"
    bench.turns.give_back()
    eventually(lambda: bench.worker.total_runs > before, "the worker does not go on")
    bench.worker.end()
    end = bench.end()
    assert end.why == "asked"
    assert [what for what in bench.told.all if isinstance(what, str)] == ["fuzzing", "waiting", "fuzzing"]


def test_pause_is_told_first(bench: Bench, patient: FuzzTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gives up a turn says so before another one may have it: never do more fuzz than have turns."""
    bench.start(patient)
    bench.wait_for_runs()
    give_back, told = bench.turns.give_back, []

    def note() -> None:
        told.append([what for what in bench.told.all if isinstance(what, str)])
        give_back()

    monkeypatch.setattr(bench.turns, "give_back", note)
    assert bench.turns.take()
    assert told == [["fuzzing", "waiting"]]


def test_a_paused_worker_can_be_ended(bench: Bench, patient: FuzzTest) -> None:
    """A worker that will get no other turn ends."""
    bench.start(patient)
    bench.wait_for_runs()
    pid = bench.pid()
    assert bench.turns.take()
    eventually(lambda: state_of(pid) == "T", "the worker is not paused")
    bench.turns.close()
    assert bench.end().why == "asked"


def test_a_paused_worker_that_is_killed(bench: Bench, patient: FuzzTest) -> None:
    """What happens to a worker while it is paused is seen when it has the turn again."""
    bench.start(patient)
    bench.wait_for_runs()
    pid = bench.pid()
    assert bench.turns.take()
    eventually(lambda: state_of(pid) == "T", "the worker is not paused")
    os.kill(pid, signal.SIGKILL)
    bench.turns.give_back()
    assert bench.end().status == -9


def test_executable_that_does_not_exist(bench: Bench) -> None:
    """What cannot be started is an OSError that names it."""
    bench.start(FuzzTest(FuzzRunStep("gone", bench.folder / "gone"), 0, "test.gone"))
    bench.thread.join(WAIT)
    assert bench.ends == []
    (error,) = bench.errors
    assert isinstance(error, FileNotFoundError) and str(bench.folder / "gone") in str(error)


def test_what_a_worker_is_told(bench: Bench) -> None:
    """It is told which test to fuzz, in answer to its coverage id; what we do not know is passed over."""
    code = """
    send(6, struct.pack("<Q", 0x1234))
    tag, body = receive()
    send(7, struct.pack("<Q", tag))
    send(99, b"what is this?")
    send(7, struct.pack("<Q", *struct.unpack("<I", body)))
    """
    test = fake(bench.folder, code)
    bench.start(test)
    end = bench.end()
    assert bench.told.all == [
        CoverageMsg(0x1234, test.step, bench.folder / "cache"),
        EntryPointMsg(0x1234, 6),
        "fuzzing",
        EntryPointMsg(0x1234, 7),
        "fuzzing",
    ]
    assert (end.why, end.how, end.stderr, end.n_runs, end.total_runs) == (
        *("ended", "exited with code 0", ""),
        *(0, 5),
    )


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("send(7, bytes(8))", "fuzz_start_addr came before coverage_id"),
        ("send(6, bytes(32))", "coverage_id must have 8 bytes, got 32"),
        ("send(6, bytes(8))", "0000000000000000"),
        ("os.write(1, b'x' * 100)", "claims a body of"),
    ],
)
def test_broken_protocol(bench: Bench, code: str, reason: str) -> None:
    """A worker that says what it must not is ended, and the reason kept."""
    bench.start(fake(bench.folder, f"{code}\ntime.sleep(1000)"))
    end = bench.end()
    assert end.why == "protocol"
    assert end.how.startswith("broke the protocol (") and end.how.endswith(") and was ended")
    assert reason in end.how
    assert bench.told.all == []
    assert processes_naming(str(bench.folder)) == []


def test_silence(bench: Bench, clock: Clock) -> None:
    """A worker that never begins hangs, and is ended though it ignores all signals that it may."""
    code = """
    import signal
    for number in (signal.SIGFPE, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(2, b"no!"))
    os.write(2, b"ready")
    while True: time.sleep(1000)
    """
    bench.start(fake(bench.folder, code), WorkerLimits(hang=1000.0))
    eventually(lambda: bench.worker._spoke and bench.worker._stderr.text == "ready", "it does not begin")
    clock.ahead += 2000.0
    eventually(lambda: bench.worker._stderr.text == "readyno!", "it is not asked where it is")
    clock.ahead += 2000.0
    end = bench.end()
    assert (end.why, end.status) == ("hang", -9)


@dataclass
class Runs:
    """In place of a coverage file."""

    n_runs: int = 0
    seen_bits: bytes = b""

    def read(self) -> Self:
        """What it has now."""
        return self


def test_runs_that_are_counted_late(tmp_path: Path, clock: Clock) -> None:
    """Who says how it fails may go on, though runs from before it was to end are counted afterwards."""
    worker = Bench(tmp_path).make(fake(tmp_path, ""))
    worker._coverage = runs = Runs()  # type: ignore[assignment]
    worker._hear(b"thread 1 panic: last words")
    runs.n_runs += 5
    worker.end(hurry=False)
    clock.ahead += 1.0
    assert worker._has_last_words
    runs.n_runs += 1
    assert not worker._has_last_words


def test_closed_output(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that closes its output and lives on is ended."""
    monkeypatch.setattr(module, "CLOSE_WAIT", 0.2)
    bench.start(fake(bench.folder, "os.close(1); os.close(2)\nwhile True: time.sleep(1000)"))
    end = bench.end()
    assert (end.why, end.how, end.status) == ("protocol", "closed its output and was ended", -9)


def test_much_output(bench: Bench) -> None:
    """Of what a worker writes on stderr, beginning and end are kept, not all."""
    bench.start(fake(bench.folder, "for i in range(40_000): os.write(2, b'%049d\\n' % i)\nsys.exit(1)"))
    end = bench.end()
    assert end.how == "exited with code 1"
    assert len(end.stderr) == MAX_STDERR < 40_000 * 50
    assert end.stderr.startswith("0" * 49 + "\n") and end.stderr.endswith("39999\n")


def test_words_are_told_as_they_come(bench: Bench) -> None:
    """Who wants to know what a worker says need not wait for its end, and misses nothing."""
    code = """
    os.write(2, b"first\\nhalf a ")
    while not os.path.exists("first"): time.sleep(0.01)
    os.write(2, b"line\\n")
    while not os.path.exists("go on"): time.sleep(0.01)
    os.write(2, b"last words")
    """
    bench.start(fake(bench.folder, code))
    eventually(lambda: bench.said == ["first"], "it is not told")
    (bench.folder / "first").touch()
    eventually(lambda: bench.said == ["first", "half a line"], "the rest is not told")
    assert not bench.ends
    (bench.folder / "go on").touch()
    assert bench.end().stderr == "first\nhalf a line\nlast words"
    assert bench.said == ["first", "half a line", "last words"]


def test_flood_of_words(bench: Bench) -> None:
    """Of what floods, little is told; the rest is counted."""
    begin = time.monotonic()
    bench.start(fake(bench.folder, "os.write(2, b'words\\n' * 1_000_000)"))
    bench.end()
    assert sum(map(len, bench.said)) < BURST + 2 * RATE * (time.monotonic() - begin) + 10_000
    lines = "\n".join(bench.said).split("\n")
    notes = [line for line in lines if line.endswith(" more lines were not kept")]
    counts = [int(note.split()[1].replace(",", "")) for note in notes]
    assert lines.count("words") + sum(counts) == 1_000_000


def test_words_without_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that never falls silent is looked at all the same."""
    monkeypatch.setattr(module, "STACK_WAIT", 0.5)
    bench.start(fake(bench.folder, "while True: os.write(2, b'x' * 10000)"), WorkerLimits(hang=0.5))
    assert bench.end().why == "hang"
    assert bench.looks > 0
