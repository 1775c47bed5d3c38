"""Seeing a failure again, in a process of its own, and making its input small.

The executable is the tests, built without instrumentation and with ``repro_runner.zig``. What a fuzzer
found on its millionth run need not fail in a fresh process; what fails there can be debugged.
"""

import contextlib
import hashlib
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fuzzserver.errors import Stopped, TestRunnerError
from fuzzserver.fuzz.endless_trace import EndlessTrace
from fuzzserver.fuzz.failure import Failure, failure_of
from fuzzserver.zig.process import ChildGroup, ChildTimeout, KeptOutput, PipedChild

__all__ = ["Reproducer"]

MIB = 1 << 20
POLL = 0.05
"""Seconds between two looks at a process."""
STACK_WAIT = 30.0
"""Seconds in which an interrupted process may say where it is; Zig reads all debug info for that."""
KEPT_STDOUT = 64
KEPT_STDERR = 256 * 1024
"""How much of what a process writes is kept, in bytes."""
PASSED = "passed"
"""The runner's last word on stdout; a test may end the process with exit code 0 as well."""
NOT_RUN = 2
"""The runner's exit code when it could not run the test, with a line that begins as follows."""
NOT_RUN_PREFIX = "repro: "
MAX_OTHER_FAILURES = 100
"""Shorter inputs that fail otherwise, after which the search ends: each costs a process and a trace."""
SIMPLE_BYTES = b"0a\0"
"""What bytes are replaced by where it does not matter, the best first."""


class Reproducer:
    """Runs one test on given inputs. Used by one thread at a time."""

    def __init__(
        self,
        children: ChildGroup,
        executable: Path,
        test_name: str,
        cwd: Path,
        *,
        timeout: float = 10.0,
        max_memory: int = 2048 * MIB,
    ) -> None:
        """``timeout`` in seconds and ``max_memory`` in resident bytes are the limits of one run."""
        self._children = children
        self._executable = executable
        self._test_name = test_name
        self._cwd = cwd
        self._timeout = timeout
        self._max_memory = max_memory

    def argv(self, input_file: Path) -> list[str]:
        """The command that runs the test on a file, for people too."""
        return [str(self._executable), self._test_name, str(input_file)]

    def run(self, data: bytes) -> Failure | None:
        """Run the test on ``data`` in a fresh process; None if it passes.

        TestRunnerError if the test cannot be run or somebody ends it; Stopped once the children are.
        """
        with _file_with(data) as path:
            failure, _ = self._execute(self.argv(path))
        return failure

    def shortest_prefix(self, data: bytes, failure: Failure) -> bytes | None:
        """The shortest beginning of ``data`` on which the test fails so; None if it does on none.

        Until 0.15, Zig does not store how long an input is: what follows it in its file are bytes of earlier
        ones. Lengths are tried upwards, in one process as long as the test passes. Errors as of ``run``.
        """
        size = 0
        with _file_with(data) as path, self._children.watched():
            for _ in range(MAX_OTHER_FAILURES):
                found, told = self._execute([*self.argv(path), "--prefixes", str(size)])
                if found is None:
                    return None
                # The runner tells each length before it runs it: the last is the one that failed.
                size = max([size, *(int(word) for word in told if word.isdigit())])
                prefix = data[:size]
                # In a process of its own, because the runs before it may have to do with it.
                if failure.same_as(found):
                    again = self.run(prefix)
                    if again is not None and failure.same_as(again):
                        return prefix
                size += 1
                if size > len(data):
                    return None
        return None

    def minimize(
        self, data: bytes, failure: Failure, progress: Callable[[int, int], None] = lambda runs, size: None
    ) -> bytes:
        """A smaller input on which the test fails in the same way and place; each that was taken was run.

        First chunks are left out, large ones first; then bytes are made simpler; over and over until
        nothing changes. ``data`` itself is returned if the test does not fail so. ``progress`` is told
        the number of runs and the size reached. Errors as of ``run``.
        """
        with self._children.watched():
            return self._minimize(data, failure, progress)

    def _minimize(self, data: bytes, failure: Failure, progress: Callable[[int, int], None]) -> bytes:
        first = self.run(data)
        if first is None or not failure.same_as(first):
            return data
        search = _Search(self.run, failure, first.fingerprint, data, progress)
        before = None
        while search.best != before:
            before = search.best
            _leave_out_chunks(search)
            _simplify_bytes(search)
        return search.best

    def _execute(self, argv: list[str]) -> tuple[Failure | None, list[str]]:
        """Run a command of the runner to its end; returns how it failed, and what it told on stdout."""
        try:
            with self._children.spawn(argv, self._cwd) as child:
                watch = _Watch(child, self._timeout, self._max_memory)
                status = watch.follow()
        except OSError as error:
            self._check_stopped()
            raise TestRunnerError(f"cannot start '{argv[0]}': {error}") from error
        self._check_stopped()
        stderr = watch.stderr.text
        told = watch.stdout.decode("ascii", "replace").split()
        if (status, watch.why, told[-1:]) == (0, "ended", [PASSED]):
            return None, told
        last_line = stderr.rstrip().rpartition("\n")[2]
        if status == NOT_RUN and last_line.startswith(NOT_RUN_PREFIX):
            raise TestRunnerError(f"'{argv[0]}' cannot run the test: {last_line}")
        end = failure_of(watch.why, status, stderr, watch.detail)
        if not isinstance(end, Failure):
            raise TestRunnerError(f"'{argv[0]}' was ended from outside: {end}")
        return end, told

    def _check_stopped(self) -> None:
        if self._children.stopped:
            raise Stopped("the reproduction was stopped")


@dataclass
class _Watch:
    """Follows one process, and ends it if it takes too long or too much."""

    child: PipedChild
    timeout: float
    max_memory: int
    why: Literal["ended", "hang", "out of memory"] = "ended"
    detail: str = ""
    stdout: bytes = b""
    """Its end."""
    stderr: KeptOutput = field(default_factory=lambda: KeptOutput(KEPT_STDERR))
    trace: EndlessTrace = field(default_factory=EndlessTrace)
    told_enough: bool = False
    """Whether it was ended because it crashed, and would tell where for minutes."""

    def follow(self) -> int:
        """Follow it to its end; returns its exit status, or that of what it was just telling."""
        self._deadline = time.monotonic() + self.timeout
        for name, data in self.child.output(idle=POLL):
            self._note(name, data)
            self._check()
        if self.told_enough:
            self.child.wait()
            return -signal.SIGABRT
        try:
            return self.child.wait(max(POLL, self._deadline - time.monotonic()))
        except ChildTimeout:  # It has closed its output, and runs on.
            if self.why == "ended":
                self.why, self.detail = "hang", self._too_long
            self.child.kill()
            return self.child.wait()

    def _note(self, name: str, data: bytes) -> None:
        if name == "stdout":
            self.stdout = (self.stdout + data)[-KEPT_STDOUT:]
            if self.why == "ended":  # It is a new run that begins.
                self._deadline = time.monotonic() + self.timeout
        elif name == "stderr":
            self.stderr += data
            if self.trace.feed(data):
                self.told_enough = True
                self.child.kill()

    def _check(self) -> None:
        late = time.monotonic() > self._deadline
        if self.why != "ended":
            if late:
                self.child.kill()
        elif self.child.resident_bytes > self.max_memory:
            self._interrupt("out of memory", f"used more than {self.max_memory // MIB} MiB")
        elif late:
            self._interrupt("hang", self._too_long)

    @property
    def _too_long(self) -> str:
        return f"did not end within {self.timeout:g} s"

    def _interrupt(self, why: Literal["hang", "out of memory"], detail: str) -> None:
        """Have it print where it is, for which Zig has a handler that then aborts."""
        self.why, self.detail = why, detail
        self._deadline = time.monotonic() + STACK_WAIT
        self.child.kill(signal.SIGFPE)
        self.child.kill(signal.SIGCONT)  # It may have stopped itself.


@dataclass
class _Search:
    """The smallest input so far, and what was tried."""

    run: Callable[[bytes], Failure | None]
    failure: Failure
    fingerprint: str
    best: bytes
    progress: Callable[[int, int], None]
    _runs: int = 0
    _tried: set[bytes] = field(default_factory=set)
    """Hashes, for inputs may be large and many."""

    def accept(self, candidate: bytes) -> bool:
        """Take ``candidate`` if the test fails on it in the same way and place."""
        digest = hashlib.sha256(candidate).digest()
        if digest in self._tried:
            return False
        self._tried.add(digest)
        found = self.run(candidate)
        same = found is not None and self.failure.same_as(found) and found.fingerprint == self.fingerprint
        if same:
            self.best = candidate
        self._runs += 1
        self.progress(self._runs, len(self.best))
        return same


def _leave_out_chunks(search: _Search) -> None:
    """Leave out all, each half, each quarter, ... each byte."""
    size = len(search.best)
    while size > 0:
        start = 0
        while start < len(search.best):
            if not search.accept(search.best[:start] + search.best[start + size :]):
                start += size
        size //= 2


def _simplify_bytes(search: _Search) -> None:
    for index in range(len(search.best)):
        for byte in SIMPLE_BYTES:
            best = search.best
            if best[index] == byte or search.accept(best[:index] + bytes([byte]) + best[index + 1 :]):
                break


@contextlib.contextmanager
def _file_with(data: bytes) -> Iterator[Path]:
    """A file that only we can read, for a while."""
    with tempfile.TemporaryDirectory(prefix="fuzzserver-") as folder:
        path = Path(folder, "input")
        path.write_bytes(data)
        yield path
