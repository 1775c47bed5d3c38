"""Whether files are as they were, by what the system notes of them: no content is read."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["SETTLED_NS", "Stamp", "Stamps", "stamp_of"]

UNSURE_NS = 50_000_000
"""Nanoseconds before something began, in which a change may have been noted as if it came earlier: the clock
of file systems ticks more coarsely than others."""

SETTLED_NS = 2_000_000_000
"""Nanoseconds after which a change of a file is sure to change its times, on any file system."""

Stamp = tuple[int, int, int, int, int]
"""Which file it is, how long, and when it was changed last: the last number is that of its latest change."""


@dataclass(frozen=True, slots=True)
class Stamps:
    """What was noted of some files."""

    stamps: tuple[tuple[str, Stamp], ...]

    @classmethod
    def of(cls, paths: Iterable[str], before: int | None = None) -> Self | None:
        """Of files as they are; None if one is missing or may have changed since ``before``."""
        stamps = []
        for path in paths:
            stamp = stamp_of(path)
            if stamp is None or (before is not None and stamp[-1] > before - UNSURE_NS):
                return None
            stamps.append((path, stamp))
        return cls(tuple(stamps))

    def are_current(self) -> bool:
        """Whether all files are as they were."""
        return all(stamp_of(path) == stamp for path, stamp in self.stamps)


def stamp_of(path: str | Path) -> Stamp | None:
    """What is noted of a file; None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in the name.
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
