"""The sweeps through all line programs of an executable, big ones in two processes of their own.

A sweep is Python at work all the time, so threads would gain nothing by it, and lose: the server's other
threads would have to share the interpreter with it.
"""

from __future__ import annotations

import contextlib
import logging
import marshal
import os
import select
import selectors
import subprocess
import sys
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fuzzserver.coverage.line_program import (
    FileEntry,
    LineProgram,
    ResolvedRows,
    Sweep,
    Tail,
    join,
    resolve_rows,
)
from fuzzserver.coverage.sweeper import GREETING
from fuzzserver.errors import DebugInfoError

__all__ = ["PROCESSES_PAY", "Progress", "Sweeping", "sweep_programs"]

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""

PROCESSES_PAY = 6_000_000
"""Bytes of line programs from which on two processes are faster, though they must be started first."""

SEQUENCE_END = b"\0\x01\x01"
"""The opcode that ends a sequence; within other opcodes, the same bytes may mean something else."""

START_TIMEOUT = 10.0
"""Seconds for a process to say its greeting."""

CHECK_INTERVAL = 0.1
"""Seconds without news after which progress is told nevertheless: who is told may want to stop."""

PIPE_SIZE = 1 << 20
"""Bytes that wait in a pipe at most."""

FRAME_HEADER = 8
"""Bytes before each message that tell its length."""

_ENTRY = "import sys; sys.path.append(sys.argv[1]); from fuzzserver.coverage.sweeper import main; main()"


Job = tuple[LineProgram, "array[int]"]
"""A program and the ascending targets whose rows are wanted."""


class _Part(NamedTuple):
    """A stretch of the program of one job, between sequences."""

    job: int
    start: int
    end: int


class Sweeping:
    """The sweeps for one executable: ``begin`` them, do something else, ``finish`` them.

    Leaving the context ends all processes, however far they are.
    """

    def __init__(self) -> None:
        self._jobs: Sequence[Job] = ()
        self._shares: list[list[_Part]] = []
        """What each process has been told to do."""
        self._sweepers: list[_Sweeper] = []

    def __enter__(self) -> Sweeping:
        return self

    def __exit__(self, *_: object) -> None:
        self._shares = []
        self._keep(0)

    def prepare(self, debug_line: bytes) -> None:
        """Start the processes that will be needed: it takes them a while, in which much can be read."""
        if len(debug_line) >= PROCESSES_PAY:
            with contextlib.suppress(OSError):  # ``begin`` will run into it, too.
                self._start(2 if _can_be_halved(debug_line) else 1)

    def begin(self, jobs: Sequence[Job]) -> None:
        """Let processes look for the rows of ``jobs``, if that pays."""
        self._jobs = jobs
        shares: list[list[_Part]] = []
        if sum(program.end - program.start for program, _ in jobs) >= PROCESSES_PAY:
            shares = [share for share in _shares([program for program, _ in jobs]) if share]
        self._keep(len(shares))
        try:
            self._start(len(shares))
            for sweeper, share in zip(self._sweepers, shares, strict=True):
                sweeper.begin([(part, *jobs[part.job]) for part in share])
            self._shares = shares
        except (OSError, EOFError) as error:
            self._give_up(error)

    def finish(self, progress: Progress) -> list[ResolvedRows | DebugInfoError]:
        """What was found for each job, or why nothing was.

        ``progress`` is told how many targets are done, and of how many; what it raises ends everything.
        """
        total = sum(len(targets) for _, targets in self._jobs)
        with self:
            try:
                _wait(self._sweepers, lambda done: progress(min(done, total), total))
            except (OSError, EOFError) as error:
                self._give_up(error)
            swept = self._found()
        results: list[ResolvedRows | DebugInfoError] = []
        behind = 0
        for index, (program, targets) in enumerate(self._jobs):
            try:
                if index in swept:
                    results.append(join(targets, swept.pop(index)))
                else:
                    results.append(resolve_rows(program, targets, _continued(progress, behind, total)))
            except DebugInfoError as error:
                results.append(error)
            behind += len(targets)
            progress(behind, total)
        return results

    def _start(self, count: int) -> None:
        """Have so many processes; OSError if they cannot be started."""
        while len(self._sweepers) < count:
            self._sweepers.append(_Sweeper())

    def _keep(self, count: int) -> None:
        """End all processes but so many."""
        while len(self._sweepers) > count:
            self._sweepers.pop().end()

    def _give_up(self, error: Exception) -> None:
        log.info("debug info is read by this process alone, which takes longer: %s", error)
        self.__exit__()

    def _found(self) -> dict[int, list[Sweep]]:
        """What processes have found for each job, part by part; jobs that they could not do are left out."""
        found: dict[int, list[Sweep]] = {}
        failed: set[int] = set()
        for sweeper, share in zip(self._sweepers, self._shares, strict=True):
            for part, sweep in zip(share, sweeper.answers, strict=True):
                # A part that does not end where a sequence ends was cut in the wrong place.
                whole = self._jobs[part.job][0]
                if sweep is None or (part.end < whole.end and sweep.sequence_end != part.end):
                    failed.add(part.job)
                else:
                    found.setdefault(part.job, []).append(sweep)
        return {job: sweeps for job, sweeps in found.items() if job not in failed}


def sweep_programs(jobs: Sequence[Job], progress: Progress) -> list[ResolvedRows | DebugInfoError]:
    """The rows that answer each of ``jobs``, or why there are none; see ``Sweeping.finish``."""
    with Sweeping() as sweeping:
        sweeping.begin(jobs)
        return sweeping.finish(progress)


def _continued(progress: Progress, behind: int, total: int) -> Callable[[int], None]:
    """Tells the progress of one program as that of the whole."""
    return lambda count: progress(behind + count, total)


def _can_be_halved(debug_line: bytes) -> bool:
    """Whether a sequence seems to end somewhere near the middle; Zig's programs are one long sequence."""
    quarter = len(debug_line) // 4
    return debug_line.find(SEQUENCE_END, quarter, 3 * quarter) >= 0


def _shares(programs: Sequence[LineProgram]) -> list[list[_Part]]:
    """All programs in two parts of about the same size; where a sequence ends, one may be cut in two."""
    half = sum(program.end - program.start for program in programs) // 2
    first: list[_Part] = []
    second: list[_Part] = []
    behind = 0
    for job, program in enumerate(programs):
        start, end = program.start, program.end
        missing = half - behind
        behind += end - start
        if missing >= end - start:
            cut = end
        elif missing <= 0:
            cut = start
        else:
            cut = _cut(program, start + missing)
        if start < cut:
            first.append(_Part(job, start, cut))
        if cut < end:
            second.append(_Part(job, cut, end))
    return [first, second]


def _cut(program: LineProgram, middle: int) -> int:
    """The place nearest to ``middle`` where a sequence seems to end; else the nearer end of the program."""
    size = len(SEQUENCE_END)
    below = program.data.rfind(SEQUENCE_END, program.start, middle)
    above = program.data.find(SEQUENCE_END, middle, program.end)
    places = [
        below + size if below >= 0 else program.start,
        above + size if above >= 0 else program.end,
    ]
    return min(places, key=lambda place: abs(place - middle))


class _Sweeper:
    """A process that runs ``sweeper``, until ``end``."""

    def __init__(self) -> None:
        """OSError if it cannot be started."""
        # The program that this library is embedded in would not know what to do with our arguments.
        if "python" not in os.path.basename(sys.executable or "") or getattr(sys, "frozen", False):
            raise FileNotFoundError("there is no Python to be started")
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _ENTRY, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pipesize=PIPE_SIZE,
        )
        self.done = 0
        """Targets that it has passed."""
        self.answers: list[Sweep | None] = []
        """What it has found in those parts that it is ready with; None where one is damaged."""
        self._expected = 0
        self._columns: list[bytes] = []
        self._received = bytearray()

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()
        self._process.wait()

    def begin(self, parts: Sequence[tuple[_Part, LineProgram, array[int]]]) -> None:
        """Have it sweep ``parts`` of programs; EOFError if it is not what it should be."""
        ready, _, _ = select.select([self.stdout], [], [], START_TIMEOUT)
        if not ready or os.read(self.stdout, len(GREETING)) != GREETING:
            raise EOFError(f"'{sys.executable}' is no Python that can import this package")
        stdin = self._process.stdin
        assert stdin is not None
        self._expected = len(parts)
        marshal.dump(len(parts), stdin)
        for part, program, targets in parts:
            size = part.end - part.start
            code = memoryview(program.data)[part.start : part.end]  # If it is damaged, that is not all.
            alone = program._replace(directories=(), files=(), data=b"", start=0, end=size)
            marshal.dump((tuple(alone), part.start, len(code), len(targets)), stdin)
            stdin.write(code)
            stdin.write(targets)
        stdin.flush()

    @property
    def stdout(self) -> int:
        """Where its messages can be read."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    @property
    def is_ready(self) -> bool:
        """Whether it has answered everything."""
        return len(self.answers) == self._expected

    def receive(self) -> None:
        """Take in some of what it says; EOFError if it has ended without an answer."""
        data = os.read(self.stdout, PIPE_SIZE)
        if not data:
            raise EOFError("a process that was to help has ended")
        self._received += data
        while len(self._received) >= FRAME_HEADER:
            end = FRAME_HEADER + int.from_bytes(self._received[:FRAME_HEADER], "little")
            if len(self._received) < end:
                return
            message = marshal.loads(memoryview(self._received)[FRAME_HEADER:end])
            del self._received[:end]
            self._take(message)

    def _take(self, message: int | bytes | tuple[Any, ...] | None) -> None:
        if isinstance(message, int):
            self.done += message
        elif isinstance(message, bytes):
            self._columns.append(message)
        else:
            self.answers.append(None if message is None else _sweep_of(self._columns, *message))
            self._columns.clear()


def _wait(sweepers: Sequence[_Sweeper], progress: Callable[[int], None]) -> None:
    """Wait until each has its answer; ``progress`` is told how many targets they have passed."""
    with selectors.DefaultSelector() as selector:
        for sweeper in sweepers:
            selector.register(sweeper.stdout, selectors.EVENT_READ, sweeper)
        while selector.get_map():
            for key, _ in selector.select(CHECK_INTERVAL):
                key.data.receive()
                if key.data.is_ready:
                    selector.unregister(key.fd)
            progress(sum(sweeper.done for sweeper in sweepers))


def _sweep_of(
    columns: list[bytes],
    first: int,
    tails: list[tuple[int, int, int, int, int]],
    defined_files: list[tuple[int, bytes]],
    sequence_end: int,
) -> Sweep:
    address, stretch, file, line, column = (
        array(kind, data) for kind, data in zip("QIIII", columns, strict=True)
    )
    return Sweep(
        first,
        address,
        stretch,
        file,
        line,
        column,
        [Tail(*tail) for tail in tails],
        [FileEntry(*entry) for entry in defined_files],
        sequence_end,
    )
