"""A child process whose two output pipes are drained at once, and which is ended for sure.

A child that fills a pipe that nobody reads would wait for ever, and we for it. And a child may have
children: each runs in a session of its own, so that a signal reaches all of them.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

__all__ = ["ChildGroup", "ChildTimeout", "PipedChild", "describe_exit"]

CHUNK = 64 * 1024
GRACE = 2.0
"""Seconds between the polite signal and the one that cannot be ignored."""

_LINGER = 0.5
"""Seconds for which output is awaited after the child itself ended, from what it left behind."""


class ChildTimeout(Exception):
    """The child did not end before its deadline."""


class PipedChild:
    """One child with pipes for stdin, stdout and stderr.

    Owned by one thread; only ``kill`` may be called from others.
    """

    def __init__(
        self, argv: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Start it, with our environment unless ``env`` is given; OSError if that fails."""
        self._process = subprocess.Popen(
            argv,
            bufsize=0,
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process id, which is the id of its group too."""
        return self._process.pid

    def send(self, data: bytes) -> bool:
        """Write to the child; False if it does not listen any more (its output says why)."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
        except (BrokenPipeError, ValueError):
            return False
        return True

    def output(
        self, deadline: float | Callable[[], float] | None = None
    ) -> Iterator[tuple[Literal["stdout", "stderr"], bytes]]:
        """What the child writes, as it comes, until it closes both pipes or is gone.

        ``deadline`` is a time of ``time.monotonic``, or a function that gives it; ChildTimeout is
        raised when it passes.
        """
        assert self._process.stdout is not None and self._process.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ, "stdout")
            selector.register(self._process.stderr, selectors.EVENT_READ, "stderr")
            while selector.get_map():
                limit = deadline() if callable(deadline) else deadline
                remaining = _LINGER if limit is None else limit - time.monotonic()
                if remaining <= 0:
                    raise ChildTimeout
                gone = self._process.poll() is not None
                ready = selector.select(min(remaining, _LINGER))
                if not ready and gone:
                    return
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

    def kill(self, sig: int = signal.SIGKILL) -> None:
        """Signal the child and all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, sig)

    def close(self) -> None:
        """End whatever is left of the child and release everything. May be called twice."""
        if self._process.poll() is None:
            self.kill(signal.SIGTERM)
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
    """The children that belong to one owner, so that it can end them all from another thread."""

    def __init__(self) -> None:
        # Guards ``_children`` and ``_stopped``.
        self._lock = threading.Lock()
        self._children: set[PipedChild] = set()
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stopped

    @contextlib.contextmanager
    def spawn(
        self, argv: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> Iterator[PipedChild]:
        """A child of the group, closed at the end; OSError if it cannot be started."""
        with self._lock:
            if self._stopped:
                raise OSError("stopped; no more children are started")
            child = PipedChild(argv, cwd, env)
            self._children.add(child)
        try:
            yield child
        finally:
            child.close()
            with self._lock:
                self._children.discard(child)

    def stop(self) -> None:
        """End all children, and start no more. Their owners' threads see their output end.

        The signal is the one that cannot be ignored, so that this is bounded; neither compiler nor
        fuzzer has anything to save.
        """
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.kill()


def describe_exit(status: int) -> str:
    """``exited with code 1`` or ``was ended by signal SIGABRT``."""
    if status >= 0:
        return f"exited with code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    return f"was ended by signal {name}"
