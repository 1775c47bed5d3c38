"""Opening files that somebody else made, and removing our own."""

import contextlib
import errno
import os
import re
import stat
from pathlib import Path

__all__ = ["append_regular", "open_regular", "read_end", "read_regular", "remove_oldest"]


def open_regular(path: Path | str, flags: int = 0) -> int:
    """A file descriptor for reading ``path``; OSError if that is no regular file.

    A pipe is refused at once, where a plain open would wait for a writer. ``flags`` are further ones of
    ``os.open``.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return fd


def append_regular(path: Path | str, data: bytes) -> None:
    """Write at the end of a file, which is made if it is not there; OSError if it is no regular file."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    with os.fdopen(fd, "ab") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        file.write(data)


def read_regular(path: Path | str, limit: int, flags: int = 0) -> bytes:
    """All that ``path`` holds; OSError if that is no regular file, or has more than ``limit`` bytes."""
    with os.fdopen(open_regular(path, flags), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"{size} bytes are more than the {limit} that it may have", str(path))
        return file.read(size)


def read_end(path: Path | str, size: int) -> bytes:
    """The last ``size`` bytes of ``path``, or all if it has not so many; OSError if it is no regular file."""
    with os.fdopen(open_regular(path), "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - size))
        return file.read(size)


def remove_oldest(folder: Path, name: re.Pattern[str], files: int, size: int) -> None:
    """Of the files called ``name``, keep the newest: so many, and so many bytes.

    Another process may be at it, too; what cannot be removed stays.
    """
    with contextlib.suppress(OSError):
        found = [(os.lstat(path), path) for path in folder.iterdir() if name.fullmatch(path.name)]
        found.sort(key=lambda item: item[0].st_mtime_ns, reverse=True)
        for number, (status, path) in enumerate(found):
            size -= status.st_size
            if number >= files or size < 0:
                with contextlib.suppress(OSError):
                    path.unlink()
