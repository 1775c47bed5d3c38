"""Instances of Zig's fuzzer that are scripts: they speak the protocol of 0.17, and do what a test wants."""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzzserver.corpus import SharedCorpus, corpus_of
from fuzzserver.fuzz.failure import Failure
from fuzzserver.fuzz.instances import Instances
from fuzzserver.fuzz.shared_test import SharedTest
from fuzzserver.fuzz.turns import Turns
from fuzzserver.fuzz.worker import FuzzTest, WorkerEnd, WorkerLimits
from fuzzserver.logbook import Level
from fuzzserver.step import FuzzRunStep
from fuzzserver.wire.release import NEWEST
from fuzzserver.zig.process import ChildGroup
from tests.support_fuzzing import Told
from tests.support_time import WAIT, eventually
from tests.support_zig_children import processes_naming
from tests.support_zig_runner import runner

COVERAGE_ID = 0x1234

HELPERS = """
import json, select, signal

folder = next(arg for arg in sys.argv if arg.startswith("--cache-dir="))[12:]
seed = int(next(arg for arg in sys.argv if arg.startswith("--seed="))[7:], 16)

def receive():
    tag, size = struct.unpack("<II", exactly(8))
    return tag, exactly(size)

def exactly(size):
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            os.write(2, b"thread 1 panic: unexpected end of stdin\\n")
            os.abort()
        data += more
    return data

def arrived():
    return select.select([0], [], [], 0)[0]

def open_coverage(points):
    os.makedirs(folder + "/v", exist_ok=True)
    path = folder + "/v/3412000000000000"
    if not os.path.exists(path):
        pcs = struct.pack(f"<{points}Q", *range(1, 1 + points))
        open(path + "~", "wb").write(struct.pack("<4Q", 0, 0, points, 0) + pcs)
        os.rename(path + "~", path)
    return os.open(path, os.O_RDWR)

def run(count=1, points=0):
    # So many more runs, and points that were reached, as bits.
    runs, unique, pcs, bits = struct.unpack("<4Q", os.pread(coverage, 32, 0))
    os.pwrite(coverage, struct.pack("<4Q", runs + count, unique, pcs, bits | points), 0)

def tried(test, data=b""):
    path = f"{folder}/f/in{instance:x}"
    content = struct.pack("<QIII", 0x1234, instance, names.index(test), len(data)) + data
    open(path, "wb").write(content.ljust(4096, b"\\0"))

def turn(test):
    tried(test)
    send(9, struct.pack("<I", names.index(test)))

def found(test, data):
    send(10, struct.pack("<I", names.index(test)) + data)

def note(**what):
    with open("notes", "a") as file:
        file.write(json.dumps({"instance": instance, "pid": os.getpid(), **what}) + "\\n")

def fuzz(test, pause=0.005):
    # For ever.
    turn(test)
    while True:
        run()
        while arrived():
            receive()
        time.sleep(pause)

send(13, b"\\0")
coverage = open_coverage(64)
_, body = receive()
kind, instance, count = struct.unpack_from("<BQI", body)
offset, names = 13, []
for _ in range(count):
    (size,) = struct.unpack_from("<I", body, offset)
    names.append(body[offset + 4 : offset + 4 + size].decode())
    offset += 4 + size
note(names=names, kind=kind, seed=seed)
if instance == 0:
    send(7, struct.pack("<4Q", 0x1234, 0, 0, 0))
    for number in range(count):
        send(8, struct.pack("<Q", 0x1000 + number))
"""


@dataclass
class Group:
    """Instances of a target, the tests they share, and all that is told of them."""

    folder: Path
    told: Told = field(default_factory=Told)
    children: ChildGroup = field(default_factory=ChildGroup)
    threads: list[threading.Thread] = field(default_factory=list)
    log: list[tuple[str, str, str]] = field(default_factory=list)
    """Test, level and text."""
    shared: SharedCorpus | None = None
    """The user's folder, of a group with one test."""
    instances: Instances | None = None

    def script(self, code: str, name: str = "bin") -> FuzzRunStep:
        """An executable whose instances do what ``code`` says, once they know their tests."""
        path = runner(self.folder / name, HELPERS + code)
        script = path.with_name("runner.py")
        script.write_text(script.read_text().replace('send(0, b"0.14.1")', 'send(0, b"0.17.0")'))
        return FuzzRunStep("fake", path)

    def start(
        self, step: FuzzRunStep, *names: str, count: int = 2, turns: Turns | None = None, **limits: float
    ) -> list[SharedTest]:
        """Fuzz the tests with these names."""
        self.instances = Instances(
            self.children,
            self.folder / "cache",
            self.folder,
            1,
            WorkerLimits(**limits),  # type: ignore[arg-type]
            turns or Turns(count),
            count,
            self.told,
            self._start_thread,
        )
        self.tests = [self.test(step, name) for name in names]
        self.instances.go_on(self.tests)
        return self.tests

    def test(self, step: FuzzRunStep, name: str) -> SharedTest:
        """One more test, which nobody fuzzes yet."""
        assert self.instances is not None
        return SharedTest(
            FuzzTest(step, 0, name),
            corpus_of(NEWEST, self.folder / "cache", "fake", name),
            self.shared,
            lambda: None,
            self._failed,
            lambda text, level: self._say(name, text, level),
            self.instances.test_ended,
        )

    def _say(self, name: str, text: str, level: Level) -> None:
        self.log.append((name, level, text))

    def _failed(self, end: WorkerEnd, failure: Failure, data: bytes) -> int:
        self.told((end, failure, data))
        return len(self.failures)

    def _start_thread(self, work) -> None:  # type: ignore[no-untyped-def]
        thread = threading.Thread(target=work)
        thread.start()
        self.threads.append(thread)

    @property
    def failures(self) -> list[tuple[WorkerEnd, Failure, bytes]]:
        """All that were told."""
        return self.told.of(tuple)

    def notes(self, **wanted: object) -> list[dict]:
        """What instances have noted that has all that is ``wanted``, each with its number and process."""
        path = self.folder / "notes"
        text = path.read_text() if path.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()  # The last one may be half written.
        return [note for note in map(json.loads, lines) if wanted.items() <= note.items()]

    def last_names(self, instance: int) -> list[str]:
        """The tests that the newest process of an instance was told; none before the first."""
        return next(
            (note["names"] for note in reversed(self.notes(instance=instance)) if "names" in note), []
        )

    def end_rest(self, instance: int, test: SharedTest) -> None:
        """Have the time be over for which an instance leaves out a test."""
        assert self.instances is not None
        rests = self.instances._runs[instance]._rests
        assert test in rests
        rests[test] = 0.0

    @staticmethod
    def is_crashed(test: SharedTest, text: str) -> bool:
        """Whether that is the state of a test, with words that begin so."""
        status = test.status
        return status.state == "crashed" and status.text.startswith(text)

    def pid(self, instance: int) -> int:
        """The process of an instance."""
        (pid,) = self.pids(instance)
        return pid

    def pids(self, instance: int) -> list[int]:
        """The processes of an instance."""
        return processes_naming(f"--cache-dir={self.folder / 'cache' / f'instance{instance}'}")

    def stop(self, tests: Sequence[SharedTest] | None = None) -> None:
        """End all, as a driver does."""
        for test in self.tests if tests is None else tests:
            test.stop()
        for thread in self.threads:
            thread.join(WAIT)
            assert not thread.is_alive(), "an instance lives on"
        assert processes_naming(str(self.folder / "cache")) == []

    def wait_for_runs(self, *tests: SharedTest) -> None:
        """Wait until each of them makes some more runs."""
        before = [test.session_runs for test in tests]
        eventually(
            lambda: all(test.session_runs > runs for test, runs in zip(tests, before, strict=True)),
            f"no more runs: {[test.status for test in tests]}",
        )
