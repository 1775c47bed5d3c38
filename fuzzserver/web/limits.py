"""What limits are kept with: places of which there are only so many, and a log that nobody can flood."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Load", "Places", "SparseLog"]


class Load(NamedTuple):
    """How much of the server is in use."""

    connections: int
    viewers: int


class Places:
    """So many at once. May be used from any thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Guards ``_free``.
        self._lock = threading.Lock()
        self._free = limit

    @property
    def taken(self) -> int:
        """How many are taken just now."""
        return self._limit - self._free

    @contextlib.contextmanager
    def take(self) -> Iterator[bool]:
        """Take a place for some time, or find that there is none."""
        with self._lock:
            taken = self._free > 0
            self._free -= taken
        try:
            yield taken
        finally:
            with self._lock:
                self._free += taken


class SparseLog:
    """Logs one line a second at most, then how many were left out: clients can cause any number."""

    INTERVAL = 1.0

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        # Guards both below.
        self._lock = threading.Lock()
        self._next = 0.0
        self._left_out = 0

    def __call__(self, level: int, message: str, *args: object) -> None:
        """Log it, or count it."""
        with self._lock:
            if time.monotonic() < self._next:
                self._left_out += 1
                return
            self._next = time.monotonic() + self.INTERVAL
            left_out, self._left_out = self._left_out, 0
        more = f" (and {left_out} such lines before)" if left_out else ""
        self._log.log(level, f"{message}%s", *args, more)
