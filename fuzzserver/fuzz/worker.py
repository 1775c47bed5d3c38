"""One process that fuzzes (Zig: ``fuzzWorkerRun`` and ``rerunInFuzzMode``).

*Runs on* a thread ``fuzz-worker-N``. *Takes* a test executable built in fuzz mode, and a turn. *Gives* a
``CoverageMsg`` and an ``EntryPointMsg``, counts, and, when the process ends, how it ended.

A worker has a coverage file and a ``tmp`` folder of its own. All workers of an executable would otherwise
write the same coverage file, from which nobody could tell which of them makes progress; two that create it
at once make one of them give up; and ``tmp/libfuzzer.log`` would not tell whose last words it holds.

Here is what holds in all releases, and the worker of those until 0.15, which fuzzes one test. That of later
ones is in ``instance``.
"""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from fuzzserver.coverage.queue import CoverageMsg, EntryPointMsg, Msg
from fuzzserver.coverage.seen_pcs import SeenPcs
from fuzzserver.errors import CoverageFileError, MessageError
from fuzzserver.files import read_end
from fuzzserver.fuzz.endless_trace import EndlessTrace
from fuzzserver.fuzz.said import SaidLines
from fuzzserver.fuzz.turns import Turn
from fuzzserver.step import FuzzRunStep
from fuzzserver.wire.messages import ClientTag, CoverageId, ServerTag, client_message, parse_u64
from fuzzserver.wire.release import ServerMessage, ServerReader
from fuzzserver.zig.process import ChildGroup, KeptOutput, PipedChild, describe_exit
from fuzzserver.zig.test_runner import test_runner_argv

__all__ = ["FuzzProcess", "FuzzTest", "FuzzWorker", "Why", "WorkerEnd", "WorkerLimits"]

Why = Literal["ended", "hang", "out of memory", "asked", "protocol"]
"""``asked``: we wanted it to end. ``protocol``: it said what no worker says, and was ended."""

MAX_STDERR = 256 * 1024
"""How much of what a worker writes is kept, in bytes."""

TICK = 0.1
"""Seconds between two looks at a worker that says nothing."""

STACK_WAIT = 30.0
"""Seconds in which a worker that fails may say where it is; Zig reads all debug info for that."""

CLOSE_WAIT = 5.0
"""Seconds for a worker to end that has closed its output."""


MAX_STDOUT = 1024 * 1024
"""Bytes of messages before it fuzzes."""

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class FuzzTest:
    """A fuzz test: which executable, which test in it."""

    step: FuzzRunStep
    index: int
    name: str


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What a worker may use."""

    hang: float = 60.0
    """Seconds without a new run, after which it is ended."""
    memory: int = 2048 * MIB
    """Resident bytes."""


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """How a worker ended."""

    test: FuzzTest
    why: Why
    status: int | None
    """Exit status, negative for a signal, as in ``subprocess``."""
    how: str
    """For people: ``exited with code 1``, say."""
    stderr: str
    n_runs: int
    """Runs that it made."""
    total_runs: int
    """Runs of this test on this executable, earlier workers included."""
    fuzzer_log: str = ""
    """What Zig's fuzzer wrote into ``tmp/libfuzzer.log``: why it gave up, if it did."""


@dataclass
class FuzzProcess:
    """One worker. ``run`` is called once; ``end`` may be called from any thread."""

    children: ChildGroup
    test: FuzzTest
    """What it fuzzes, now."""
    cache_root: Path
    """Its own cache folder."""
    cwd: Path
    seed: int
    limits: WorkerLimits
    turn: Turn
    """Held when ``run`` is called, and given up now and then in favour of others."""
    post: Callable[[Msg], None]
    set_state: Callable[[str], None]
    """Told ``fuzzing`` or ``waiting``, when that changes."""
    look: Callable[[], None]
    """Called some times a second, for whoever wants to see what the fuzzer has written."""
    said: Callable[[str], None]
    """Told what it writes on stderr, some lines at a time; not all if there are too many."""
    total_runs: int = field(default=0, init=False)
    """Kept up to date while it runs."""
    seen_bits: bytes = field(default=b"", init=False)
    """The same; as in ``SeenPcsSnapshot``."""
    max_message: ClassVar[int]
    """Bytes of a message; what a test prints is none."""

    def __post_init__(self) -> None:
        self._asked = threading.Event()
        self._hurry = True
        self._runs_when_asked: int | None = None
        """Those that were counted when it was first looked at after it was asked to end."""
        self._heard: float | None = None
        self._stderr = KeptOutput(MAX_STDERR)
        self._said = SaidLines(self.said)
        self._trace = EndlessTrace()
        self._told_enough = False
        """Whether it was ended because it crashed, and would tell where for minutes."""
        self._reader = ServerReader(max_body=self.max_message)
        self._coverage: SeenPcs | None = None
        self._coverage_id: int | None = None
        self._start_runs = 0
        self._last_progress = time.monotonic()
        self._spoke: float | None = None
        self._fuzzing = False
        self._deaf = False
        """Whether the test itself has written to stdout, which nobody understands from then on."""

    @property
    def n_runs(self) -> int:
        """Runs that it has made."""
        return self.total_runs - self._start_runs

    def end(self, hurry: bool = True) -> None:
        """Have it end, without that being its fault. Without ``hurry``, one that just fails may say how."""
        self._hurry = hurry
        self._asked.set()
        self.turn.cancel()

    def run(self) -> WorkerEnd:
        """Fuzz until the process ends or must be ended. OSError if it cannot be started."""
        log = self.cache_root / "tmp" / "libfuzzer.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        argv = test_runner_argv(self.test.step.rebuilt_executable, self.cache_root, self.seed)
        try:
            with self.children.spawn(argv, self.cwd) as child:
                try:
                    self._begin(child)
                    why, how = self._listen(child)
                finally:
                    self._leave()
                status = child.wait()
            if self._told_enough:
                status = -signal.SIGABRT  # As it would have ended.
            elif why == "ended" and self._asked.is_set() and status == -signal.SIGKILL:
                why, how = "asked", "was ended"  # Along with all others.
            self._count()
        finally:
            self._said.close()
            if self._coverage is not None:
                self._coverage.close()
        return WorkerEnd(
            self.test,
            why,
            status,
            how or describe_exit(status),
            self._stderr.text,
            self.n_runs,
            self.total_runs,
            _last_words(log),
        )

    def _begin(self, child: PipedChild) -> None:
        """It has been started."""

    def _leave(self) -> None:
        """It is not talked to any more."""

    def _handle(self, message: ServerMessage, child: PipedChild) -> None:
        """Do what one message means."""
        raise NotImplementedError

    def _lose(self, why: MessageError) -> None:
        """What it says from now on is not understood; nothing is lost if it had no more to say."""

    def _tick(self) -> None:
        """Called some times a second, after its runs were counted."""
        self._said.tick()
        self.look()

    def _listen(self, child: PipedChild) -> tuple[Why, str]:
        """Follow the worker to its end; returns why it ended, and how if that is not in its exit status."""
        left = MAX_STDOUT
        next_look = self._last_progress = time.monotonic()
        for name, data in child.output(idle=TICK):
            if name == "stderr":
                self._hear(data)
                self._spoke = self._spoke or time.monotonic()
                if self._trace.feed(data):
                    self._told_enough = True
                    child.kill()
            elif name == "stdout" and not self._deaf:
                left -= len(data)
                try:
                    if left < 0 and not self._fuzzing:
                        raise MessageError(f"its messages have more than {MAX_STDOUT} bytes")
                    for message in self._reader.feed(data):
                        self._handle(message, child)
                except MessageError as error:
                    if not self._fuzzing:
                        child.kill()
                        return "protocol", f"broke the protocol ({error}) and was ended"
                    self._deaf = True
                    self._lose(error)
            if self._asked.is_set() and (self._hurry or not self._has_last_words):
                child.kill()
                return "asked", "was ended"
            if time.monotonic() < next_look:
                continue
            next_look = time.monotonic() + TICK
            self._count()
            self._tick()
            if self.limits.memory < (used := child.resident_bytes):
                self._ask_where(child)
                return "out of memory", f"used {used // MIB} MiB of memory, more than {self._memory_limit}"
            if self._hangs:
                self._ask_where(child)
                return "hang", f"made no new run for {self.limits.hang:g} s"
            if self.turn.over and not self._pause(child):
                return "asked", "was ended"
        if not child.ends_within(CLOSE_WAIT):
            child.kill()
            return "protocol", "closed its output and was ended"
        return "ended", ""

    def _hear(self, data: bytes) -> None:
        self._heard = time.monotonic()
        self._stderr += data
        self._said.feed(data)

    @property
    def _memory_limit(self) -> str:
        return f"the limit of {self.limits.memory // MIB} MiB"

    @property
    def _hangs(self) -> bool:
        """No run for too long. One that fails says so, and then needs time for its stack trace."""
        return not self._is_speaking and time.monotonic() - self._last_progress > self.limits.hang

    @property
    def _has_last_words(self) -> bool:
        """Whether it has said something, and makes no more runs since it was asked to end: so it fails."""
        self._count()
        if self._runs_when_asked is None:
            self._runs_when_asked = self.total_runs
        goes_on = self.total_runs > self._runs_when_asked
        return not goes_on and self._heard is not None and time.monotonic() - self._heard < STACK_WAIT

    @property
    def _is_speaking(self) -> bool:
        return self._spoke is not None and time.monotonic() - self._spoke < STACK_WAIT

    def _open_coverage(self, coverage_id: int) -> None:
        """Begin to count; it has made no run yet. To hear the same again changes nothing."""
        if self._coverage is not None:
            if coverage_id != self._coverage_id:
                raise MessageError(f"its coverage id was {self._coverage_id:x}, and now is {coverage_id:x}")
            return
        self._coverage_id = coverage_id
        try:
            path = self.test.step.coverage_file_path(coverage_id, self.cache_root)
            self._coverage = SeenPcs(path)
            self._start_runs = self.total_runs = self._coverage.read().n_runs
        except CoverageFileError as error:
            raise MessageError(str(error)) from error
        self.post(CoverageMsg(coverage_id, self.test.step, self.cache_root))

    def _note_entry_point(self, body: bytes) -> None:
        if self._coverage_id is None:
            raise MessageError("fuzz_start_addr came before coverage_id")
        self.post(EntryPointMsg(self._coverage_id, parse_u64(body, "fuzz_start_addr")))

    def _count(self) -> None:
        """Read how many runs there were, and note whether that is progress."""
        if self._coverage is None:
            return
        try:
            snapshot = self._coverage.read()
        except CoverageFileError:
            return  # Whoever shows the file says so.
        n_runs, self.seen_bits = snapshot.n_runs, snapshot.seen_bits
        if n_runs != self.total_runs:
            self.total_runs = n_runs
            self._last_progress = time.monotonic()
            self._spoke = None

    def _ask_where(self, child: PipedChild) -> None:
        """Have the worker print its stack, then end it.

        Zig's handler for this signal prints where the program was and aborts; nothing that a fuzz test
        does sends it by itself, except a division by zero in C.
        """
        child.kill(signal.SIGFPE)
        child.kill(signal.SIGCONT)  # It may have stopped itself.
        deadline = time.monotonic() + STACK_WAIT
        for name, data in child.output(idle=TICK):
            if name == "stderr":
                self._hear(data)
            if time.monotonic() > deadline or self._asked.is_set():
                break
        child.kill()

    def _pause(self, child: PipedChild) -> bool:
        """Let another worker have the turn; False if there will be no other turn for this one."""
        child.kill(signal.SIGSTOP)
        self._said.close()
        paused = time.monotonic()
        self.set_state("waiting")  # Before the other one says that it is fuzzing.
        self.turn.give_back()
        if not self.turn.take():
            child.kill()
            return False
        self._last_progress += time.monotonic() - paused
        self.set_state("fuzzing")
        child.kill(signal.SIGCONT)
        return True


def _last_words(log: Path) -> str:
    try:
        return read_end(log, MAX_STDERR).decode(errors="replace")
    except OSError:
        return ""


class FuzzWorker(FuzzProcess):
    """A worker of Zig until 0.15, which fuzzes one test. It says its ``coverage_id`` before it is asked."""

    max_message = 64 * 1024

    def _handle(self, message: ServerMessage, child: PipedChild) -> None:
        if message.tag == ServerTag.COVERAGE_ID:
            size = self._reader.release.coverage_id_size
            self._open_coverage(CoverageId.parse(message.body, size).id)
            # Not earlier, so that the count of runs is that of before the first.
            child.send(client_message(ClientTag.START_FUZZING, self.test.index))
        elif message.tag == ServerTag.FUZZ_START_ADDR:
            self._note_entry_point(message.body)
            self._fuzzing = True
            self.set_state("fuzzing")
