"""Ends the children of a process that was killed before it could do so itself.

A process that is ended by SIGKILL runs no more code of its own, so another one must: this file is run
as a program, with a token as its argument and a pipe as its stdin that only the watched process holds
open. When that pipe ends, every process that carries the token in its environment is ended. Children
inherit the environment, so this reaches their children too, in whatever process group they are, and
needs no list that a child could be missing from.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time

__all__ = ["TOKEN_VARIABLE", "Watchdog", "end_carriers"]

TOKEN_VARIABLE = "FUZZSERVER_CHILD"
"""Environment variable of all children that are watched."""

PAUSE = 0.05
"""Seconds between two looks."""
QUIET = 40
"""Looks in a row without anybody found, after which there is nobody: a child that was just being started gets
its environment a moment later, on a busy machine perhaps a second. They are counted, since who is paused for
seconds has not looked meanwhile."""
LONGEST = 30.0
"""Seconds after which it gives up on a child that lives on, because it waits for a disk, say."""


class Watchdog:
    """The watching program, running. Owned by one ``ChildGroup``."""

    def __init__(self) -> None:
        """Start it; OSError if that fails."""
        self.token = secrets.token_hex(16)
        # Isolated and without site packages: it starts in 10 ms and depends on nothing.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, self.token],
            bufsize=0,
            cwd="/",
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def close(self) -> None:
        """Have it end what has left its process group and still runs, and then itself."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"\n")
        self._process.stdin.close()
        self._process.wait()


def end_carriers(token: str, longest: float, quiet: int = 1) -> None:
    """End all processes whose token begins so; with a NUL at its end, those that have exactly this one.

    It is over after ``quiet`` looks in a row that found none, or after ``longest`` seconds.
    """
    carried = f"{TOKEN_VARIABLE}={token}".encode()
    deadline = time.monotonic() + longest
    looks = 0
    while True:
        pids = _carriers(carried)
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        looks = 0 if pids else looks + 1
        if looks == quiet or time.monotonic() >= deadline:
            return
        time.sleep(PAUSE)


def _carriers(token: bytes) -> list[int]:
    """Processes with the token in their environment."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if token in file.read():
                    found.append(int(name))
        except OSError:
            pass  # It is gone, or another user's.
    return found


def _main(token: str) -> None:
    # A byte comes from an owner who starts nothing any more; without one, the owner was killed.
    end_carriers(token, LONGEST, 1 if os.read(0, 1) else QUIET)


if __name__ == "__main__":
    _main(sys.argv[1])
