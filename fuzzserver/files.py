"""Opening files that somebody else made."""

import errno
import os
import stat
from pathlib import Path

__all__ = ["open_regular", "read_regular"]


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


def read_regular(path: Path | str, limit: int, flags: int = 0) -> bytes:
    """All that ``path`` holds; OSError if that is no regular file, or has more than ``limit`` bytes."""
    with os.fdopen(open_regular(path, flags), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"{size} bytes are more than the {limit} that it may have", str(path))
        return file.read(size)
