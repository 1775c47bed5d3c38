"""A child process whose two output pipes are drained at once, and which is ended for sure.

A child that fills a pipe that nobody reads would wait for ever, and we for it. And a child may have
children: each runs in a session of its own, so that a signal reaches all of them, and bears a token, by
which those are found that have left the session. Should we be killed ourselves, a watchdog ends them.
"""

import contextlib
import itertools
import os
import resource
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self

from fuzzserver.zig.watchdog import TOKEN_VARIABLE, Watchdog, end_carriers

__all__ = [
    "COMPILER_LIMITS",
    "ChildGroup",
    "ChildTimeout",
    "KeptOutput",
    "PipedChild",
    "child_environment",
    "describe_exit",
]

CHUNK = 64 * 1024
GRACE = 0.3
"""Seconds between the polite signal and the one that cannot be ignored."""

SWEEP = 0.5
"""Seconds at most in which those are looked for that a child has left behind while others go on."""

GIB = 1 << 30

COMPILER_LIMITS: Mapping[int, int] = {
    # Zig takes some hundred MiB for large tests; each of its threads reserves a stack besides.
    resource.RLIMIT_DATA: 8 * GIB + (os.cpu_count() or 1) * (GIB >> 4),
    # The largest executables with debug info have some hundred MiB.
    resource.RLIMIT_FSIZE: 4 * GIB,
}
"""What a compiler that has gone mad may take at most, in bytes, by the names of setrlimit(2): memory that
is its own, and the size of a file."""

OURS_ALONE = ("ZIG_PROGRESS", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID")
"""Environment variables that name files and sockets that we were given, and no child has: started by
``zig build``, a compiler would write its progress into whatever file has that number."""

_AUTOGROUP_TRIES, _AUTOGROUP_PAUSE = 5, 0.05
"""How often to say how nice a session is, and the seconds between, while others say it of theirs."""

_LINGER = 0.5
"""Seconds for which output is awaited after the child itself ended, from what it left behind."""


PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


class KeptOutput:
    """The beginning and the end of what a child writes: a trace of an endless recursion has megabytes."""

    def __init__(self, limit: int) -> None:
        """``limit``: bytes that are kept in all."""
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()

    def __iadd__(self, data: bytes) -> Self:
        """Take in what came next."""
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        del self._tail[: -self._half]
        return self

    @property
    def text(self) -> str:
        """What is kept."""
        return (self._head + self._tail).decode("utf-8", "replace")


class ChildTimeout(Exception):
    """The child did not end before its deadline."""


class PipedChild:
    """One child with pipes for stdin, stdout and stderr. It leaves no core file.

    Owned by one thread; only ``kill`` may be called from others, and ``write`` until it is waited for.
    """

    def __init__(
        self,
        argv: Sequence[str],
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        limits: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        """Start it, with our environment unless ``env`` is given; OSError if that fails.

        ``limits`` are as in setrlimit(2); its children have them, too.
        """
        self._process = subprocess.Popen(
            argv,
            bufsize=0,
            cwd=cwd,
            env=child_environment() if env is None else env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        # Who does not read what it is told must not keep us waiting.
        os.set_blocking(self._process.stdin.fileno(), False)
        for which, limit in {resource.RLIMIT_CORE: 0, **limits}.items():
            _limit(self.pid, which, limit)

    @property
    def pid(self) -> int:
        """The process id, which is the id of its group too."""
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        """Memory that it uses, without that of its children; 0 if it is gone (proc(5), ``statm``)."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * PAGE_SIZE
        except (OSError, IndexError, ValueError):
            return 0

    def send(self, data: bytes) -> bool:
        """Write a message to the child; False if it does not listen (its output may say why).

        It takes 64 KiB without reading them.
        """
        return self.write(data) == len(data)

    def write(self, data: bytes | memoryview) -> int:
        """Write what the child has room for; returns how many bytes that were, 0 if it does not listen."""
        assert self._process.stdin is not None
        try:
            return self._process.stdin.write(data) or 0
        except (BrokenPipeError, ValueError):
            return 0

    def output(
        self, deadline: float | Callable[[], float] | None = None, idle: float | None = None
    ) -> Iterator[tuple[Literal["stdout", "stderr", "tick"], bytes]]:
        """What the child writes, as it comes, until it closes both pipes or is gone.

        ``deadline`` is a time of ``time.monotonic``, or a function that gives it; ChildTimeout is
        raised when it passes. With ``idle``, there is a ``("tick", b"")`` at least each time that the
        child was silent for so many seconds.
        """
        longest = _LINGER if idle is None else min(idle, _LINGER)
        assert self._process.stdout is not None and self._process.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ, "stdout")
            selector.register(self._process.stderr, selectors.EVENT_READ, "stderr")
            gone_since: float | None = None
            while selector.get_map():
                limit = deadline() if callable(deadline) else deadline
                remaining = longest if limit is None else limit - time.monotonic()
                if remaining <= 0:
                    raise ChildTimeout
                gone = self._process.poll() is not None
                if gone:
                    # What it left behind may hold the pipes, and write for ever.
                    now = time.monotonic()
                    gone_since = gone_since or now
                    if now - gone_since > _LINGER:
                        return
                ready = selector.select(min(remaining, _LINGER if gone else longest))
                if not ready and gone:
                    return
                if not ready and idle is not None:
                    yield "tick", b""
                for key, _ in ready:
                    data = os.read(key.fd, CHUNK)
                    if data:
                        yield key.data, data
                    else:
                        selector.unregister(key.fileobj)

    def wait(self, timeout: float | None = None) -> int:
        """Close stdin, wait for the end and return the exit status; ChildTimeout when it takes too long.

        The status is negative for a signal, as in ``subprocess``.
        """
        self._close(self._process.stdin)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ChildTimeout from None

    def ends_within(self, timeout: float) -> bool:
        """Whether it ends in so many seconds, with its stdin left open."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        return self._process.poll() is not None

    def kill(self, sig: int = signal.SIGKILL) -> None:
        """Signal the child and all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, sig)

    def set_nice(self, nice: int) -> None:
        """Have it give way to others, or no longer, with all its threads and children.

        Where the system deals out time by sessions (sched(7), autogroup), it is that of ours that must give
        way. Only who may can take back the other: for others, it stays.
        """
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PGRP, self.pid, nice)
        for _ in range(_AUTOGROUP_TRIES):
            try:
                Path(f"/proc/{self.pid}/autogroup").write_text(str(nice))
            except BlockingIOError:  # For most, the system takes it ten times a second, from all together.
                time.sleep(_AUTOGROUP_PAUSE)
            except OSError:
                return
            else:
                return

    def close(self) -> None:
        """End whatever is left of the child and release everything. May be called twice."""
        if self._process.poll() is None:
            self.kill(signal.SIGTERM)
            self.kill(signal.SIGCONT)  # It may be paused, and would not hear of it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE)
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            self._close(pipe)

    @staticmethod
    def _close(pipe: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()  # type: ignore[attr-defined]

    def __enter__(self) -> "PipedChild":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ChildGroup:
    """The children that belong to one owner, so that it can end them all from another thread.

    They do not outlive this process, however it ends.
    """

    def __init__(self) -> None:
        # Guards all below.
        self._lock = threading.Lock()
        self._children: set[PipedChild] = set()
        self._numbers = itertools.count()
        self._watchdog: Watchdog | None = None
        self._holders = 0
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stopped

    @contextlib.contextmanager
    def spawn(
        self,
        argv: Sequence[str],
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        limits: Mapping[int, int] = MappingProxyType({}),
    ) -> Iterator[PipedChild]:
        """A child of the group, closed at the end; OSError if it cannot be started."""
        with self.watched() as token:
            with self._lock:
                if self._stopped:
                    raise OSError("stopped; no more children are started")
                own_token = f"{token}.{next(self._numbers)}"
                environment = {**child_environment(env), TOKEN_VARIABLE: own_token}
                child = PipedChild(argv, cwd, environment, limits)
                self._children.add(child)
            try:
                yield child
            finally:
                child.close()
                with self._lock:
                    self._children.discard(child)
                    others = bool(self._children)
                if others:  # Else the watchdog does it, which ends with the last one.
                    end_carriers(f"{own_token}\0", SWEEP)

    @contextlib.contextmanager
    def watched(self) -> Iterator[str]:
        """Have a watchdog for some time: all children of that time share it. Gives its token.

        ``spawn`` does so for each child; around many short-lived ones, it saves a process for each.
        """
        with self._lock:
            if self._watchdog is None:
                self._watchdog = Watchdog()
            self._holders += 1
            token = self._watchdog.token
        try:
            yield token
        finally:
            with self._lock:
                self._holders -= 1
                unneeded = None
                if self._holders == 0:
                    unneeded, self._watchdog = self._watchdog, None
            if unneeded is not None:
                unneeded.close()

    def stop(self) -> None:
        """End all children, and start no more. Their owners' threads see their output end.

        The signal is the one that cannot be ignored, so that this is bounded; neither compiler nor
        fuzzer has anything to save.
        """
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def child_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """``env``, or our own environment, without what makes no sense for a child."""
    env = os.environ if env is None else env
    return {name: value for name, value in env.items() if name not in OURS_ALONE}


def _limit(pid: int, which: int, limit: int) -> None:
    """Lower a limit of a process, unless it is gone or has a lower one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        soft, hard = resource.prlimit(pid, which)
        lower = [each for each in (soft, hard, limit) if each != resource.RLIM_INFINITY]
        resource.prlimit(pid, which, (min(lower), min(lower)))


def describe_exit(status: int) -> str:
    """``exited with code 1`` or ``was ended by signal SIGABRT``."""
    if status >= 0:
        return f"exited with code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    return f"was ended by signal {name}"
