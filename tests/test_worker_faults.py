"""Fuzz workers that misbehave: what the page and the log say, that nothing is left, and that it recovers."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuzzserver import FuzzRunStep, WebServer
from fuzzserver.corpus import Corpus
from fuzzserver.fuzz import backoff, worker
from fuzzserver.fuzz.backoff import MAX_DEATHS
from fuzzserver.fuzz.failure import Failure
from fuzzserver.fuzz.target import FuzzTarget
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.fuzz.test_run import FuzzTestRun
from fuzzserver.fuzz.turns import Turns
from fuzzserver.fuzz.worker import MIB, FuzzTest, WorkerEnd, WorkerLimits
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.process import ChildGroup
from tests.support_native import coverage_bytes
from tests.support_time import WAIT, eventually
from tests.support_web import viewer
from tests.support_zig_children import processes_naming
from tests.support_zig_runner import runner

GOOD = """
import mmap
folder = next(arg for arg in sys.argv if arg.startswith("--cache-dir="))[12:]
file = open(folder + "/v/3412000000000000", "r+b")
send(6, struct.pack("<Q", 0x1234))
receive()
send(7, bytes(8))
runs = 0
while True:
    runs += 1
    os.pwrite(file.fileno(), struct.pack("<Q", runs), 0)
    time.sleep(0.01)
"""
"""What a worker does that is in good health: it counts runs."""

RECOVERY = """
if os.path.exists("good"):
    exec(open("good").read())
"""
"""In front of what a worker does wrong: it stops doing so when there is a file named ``good``."""


class Session:
    """Fuzz tests whose workers are scripts, shown by a server as a driver does it."""

    def __init__(self, folder: Path, zig: Zig) -> None:
        self.folder = folder
        self.children = ChildGroup()
        self.server = WebServer(zig=zig, cache_dir=folder / "wasm")
        (folder / "main.zig").write_text("")
        self.target = FuzzTarget(TestCommand.of_root(folder / "main.zig"), self.server.set_target)
        self.turns = Turns(4)
        self.failures: list[tuple[WorkerEnd, Failure]] = []
        self._threads: list[threading.Thread] = []

    def start(self, code: str, name: str = "test.fake", **limits: float) -> FuzzTestRun:
        """Fuzz a test with workers that do what ``code`` says."""
        cache = self.folder / f"cache-{name}"
        (cache / "v").mkdir(parents=True)
        (cache / "v" / "3412000000000000").write_bytes(coverage_bytes([1, 2], n_runs=0))
        step = FuzzRunStep("fake", runner(self.folder / f"bin-{name}", RECOVERY + code))
        run = FuzzTestRun(
            FuzzTest(step, 0, name),
            Corpus(cache / "f" / name, "main.zig", name),
            None,
            self.target.tell,
            self._failed,
            lambda text, level: self.server.add_log(name, text, level),
            self.children,
            cache,
            self.folder,
            1,
            WorkerLimits(**limits),  # type: ignore[arg-type]
            self.turns,
            lambda msg: None,
        )
        self.target.add_run(run)
        self.target.set("fuzzing")
        thread = threading.Thread(target=run.run)
        thread.start()
        self._threads.append(thread)
        return run

    def _failed(self, end: WorkerEnd, failure: Failure, _data: bytes) -> int:
        self.failures.append((end, failure))
        return len(self.failures)

    def shown(self, condition: Callable[[dict], object]) -> dict:
        """The first state of the only test that a page is told for which ``condition`` holds."""
        deadline = time.monotonic() + WAIT
        with viewer(self.server.port, subprotocols=["fuzzserver"]) as web_socket:
            while True:
                assert time.monotonic() < deadline, f"{self.target.status()}\n{self.log[-5000:]}"
                message = web_socket.recv(timeout=WAIT)
                if isinstance(message, str) and "targets" in (status := json.loads(message)):
                    for target in status["targets"]:
                        for test in target["tests"]:
                            if condition(test):
                                return test

    def mend(self) -> None:
        """Take away what makes workers misbehave."""
        (self.folder / "new").write_text(GOOD)
        (self.folder / "new").rename(self.folder / "good")

    @property
    def log(self) -> str:
        """What the page's log holds."""
        return "\n".join(entry.text for entry in self.server.log_book.since(0)[2])

    def stop(self) -> None:
        """End all, as a driver does."""
        for run in self.target.runs:
            run.stop()
        self.turns.close()
        self.children.stop()
        for thread in self._threads:
            thread.join(WAIT)
            assert not thread.is_alive()
        self.server.stop()


@pytest.fixture
def session(
    tmp_path: Path, zig: Zig, monkeypatch: pytest.MonkeyPatch, nothing_left: None
) -> Iterator[Session]:
    """A session that leaves nothing; workers that are asked where they are get little time to say so."""
    monkeypatch.setattr(worker, "STACK_WAIT", 0.3)
    monkeypatch.setattr(worker, "CLOSE_WAIT", WAIT)
    monkeypatch.setattr(backoff, "LONGEST_DELAY", 0.3)
    session = Session(tmp_path, zig)
    session.server.start()
    yield session
    session.stop()
    assert processes_naming(str(tmp_path)) == []


FAMILY = """
import signal
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGFPE):
    signal.signal(number, signal.SIG_IGN)
for new_session in (True, False):
    if os.fork() == 0:
        if new_session:
            os.setsid()
        os.fork()
        for descriptor in (0, 1, 2):
            os.close(descriptor)
        while True:
            time.sleep(1000)
"""

SLEEP = "\nwhile True: time.sleep(1000)"

FAULTS = {
    "silent": (SLEEP, "Worker made no new run for 1 s: "),
    "ignores signals": (FAMILY + SLEEP, "Worker made no new run for 1 s: "),
    "floods stderr": ('\nwhile True: os.write(2, b"x" * 65535 + b"\\n")', "Worker made no new run for 1 s: "),
    "floods stdout": (
        '\nwhile True: send(99, b"x" * 60000)',
        "Worker broke the protocol (its messages have more than 1048576 bytes) and was ended.",
    ),
    "message of 4 GiB": (
        '\nos.write(1, struct.pack("<II", 6, 0xffffffff))' + SLEEP,
        "Worker broke the protocol (message with tag 6 claims a body of 4294967295 bytes; the limit",
    ),
    "text": (
        '\nos.write(1, b"hello\\n\\n\\n" * 100)' + SLEEP,
        "Worker broke the protocol (message with tag ",
    ),
    "wrong length": (
        '\nsend(6, b"1234")' + SLEEP,
        "Worker broke the protocol (coverage_id must have 8 bytes, got 4) and was ended.",
    ),
    "no coverage file": (
        '\nsend(6, struct.pack("<Q", 0x9999))' + SLEEP,
        "Worker broke the protocol (",
    ),
    "eats memory": ("\ntaken = bytearray(300 << 20)" + SLEEP, "Worker used "),
    "forks and ends": (FAMILY, "Worker exited with code 0: exit code 0"),
    "exits with 0": ("\nsys.exit(0)", "Worker exited with code 0: exit code 0"),
    "exits with words": ('\nsys.exit("no space")', "Worker exited with code 1: exit code 1"),
    "dies": ("\nos.kill(os.getpid(), 11)", "Worker was ended by signal SIGSEGV: SIGSEGV"),
    "is killed": ("\nos.kill(os.getpid(), 9)", "Worker was ended by signal SIGKILL."),
    "closes its output": (
        "\nos.close(1); os.close(2)" + SLEEP,
        "Worker closed its output and was ended.",
    ),
}
"""What workers do, and what is said of it."""


@pytest.mark.parametrize("fault", FAULTS)
def test_fault(session: Session, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """What a worker does wrong is told, it is ended with all that it started, and a good one follows."""
    code, text = FAULTS[fault]
    # Only those that are to hang, or to be waited for: on a busy machine, others may take that long.
    hang = 1.0 if "no new run" in text else 1000.0
    if "closed its output" in text:
        monkeypatch.setattr(worker, "CLOSE_WAIT", 0.3)
    monkeypatch.setattr(backoff, "MAX_DEATHS", 1000)  # Until it is mended.
    run = session.start(code, hang=hang, memory=200 * MIB)
    crashed = session.shown(lambda test: test["state"] == "crashed")
    assert crashed["text"].startswith(text), crashed
    assert len(crashed["text"]) < 10_000
    assert crashed["text"].splitlines()[-1].startswith("The next worker starts in ")
    run.limits = WorkerLimits()
    session.mend()
    session.shown(lambda test: test["state"] == "fuzzing")
    eventually(lambda: run.status.n_runs, "it makes no runs")
    eventually(lambda: len(processes_naming(str(session.folder / "bin"))) == 1, "others live on")
    assert "The next worker starts in " in session.log
    assert len(session.log) < 600_000


def test_children_of_one_do_not_outlive_it_while_others_fuzz(session: Session) -> None:
    """What a worker has started ends with it, though its siblings go on."""
    (session.folder / "good").write_text("if 'test.good' in sys.argv[2]:" + GOOD.replace("\n", "\n    "))
    good = session.start("sys.exit(1)", "test.good")
    eventually(lambda: good.status.n_runs, "the good one does not run")
    session.start(FAMILY + 'os.write(2, b"done")', "test.family")
    family = str(session.folder / "bin-test.family")
    eventually(lambda: len(session.failures) == MAX_DEATHS, "it is not given up")
    eventually(lambda: not processes_naming(family), "a child lives on")
    assert good.status.state == "fuzzing"


def test_storm(session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A test whose workers die at once is given up soon, and says so; it is not started over and over."""
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.01)
    starts = session.folder / "starts"
    session.start(f"\nopen({str(starts)!r}, 'a').write('x'); os.kill(os.getpid(), 11)")
    failed = session.shown(lambda test: test["state"] == "failed")
    assert failed["text"].startswith(
        f"Gave up after {MAX_DEATHS} workers that made no run.\nWorker was ended"
    )
    assert starts.read_text() == "x" * MAX_DEATHS
    assert len(caplog.messages) == 1


def test_storm_that_is_not_the_fault_of_the_test(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Workers that somebody kills are started again, more and more slowly, for as long as it takes."""
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(backoff, "LONGEST_DELAY", 0.05)
    session.start("\nos.kill(os.getpid(), 9)")
    crashed = session.shown(lambda test: test["restarts"] > 2 * MAX_DEATHS and test["state"] == "crashed")
    assert crashed["text"].endswith("The next worker starts in 0.05 s.")
    session.mend()
    session.shown(lambda test: test["state"] == "fuzzing")
    assert all(len(message) < 200 for message in caplog.messages)


def test_stop_of_a_worker_that_ignores_all(session: Session) -> None:
    """A worker with a family that ignores all signals does not keep a session from stopping."""
    session.start(FAMILY + 'os.write(2, b"ready\\n")' + SLEEP, hang=1000.0)
    eventually(lambda: "ready" in session.log, "it does not start")
    session.stop()
    assert processes_naming(str(session.folder)) == []
