"""One session for each project at a time: two fuzzers on the same corpus folder would spoil it."""

import contextlib
import fcntl
import os
from pathlib import Path

from fuzzserver.errors import InputError

__all__ = ["ProjectLock"]


class ProjectLock:
    """Held from construction to ``release``, or to the end of the process, however that comes."""

    def __init__(self, folder: Path) -> None:
        """Make ``folder`` and take its lock. InputError if another process has it, or it cannot be made."""
        path = folder / "lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InputError(f"cannot keep fuzzing data in '{folder}': {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise InputError(
                f"process {owner or 'unknown'} fuzzes this project already, with its data in '{folder}'; "
                "end it first, or watch it in a browser"
            ) from error
        except OSError as error:  # Some network file systems have no locks.
            os.close(self._fd)
            raise InputError(f"cannot lock '{path}': {error.strerror}") from error
        with contextlib.suppress(OSError):  # On a full disk, others will not be told who has it.
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let others have it. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
