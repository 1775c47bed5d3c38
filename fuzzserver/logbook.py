"""What was said, for people to read later: the newest lines of workers, of compilers and of our own log."""

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Level", "LogBook", "LogEntry"]

Level = Literal["info", "warning", "error"]

MAX_ENTRIES = 1000
MAX_SIZE = 512 * 1024
"""Bytes of text that are kept in all."""
MAX_ENTRY = 64 * 1024
"""Bytes of one text; what is longer is cut, and said to be."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One thing that was said, in one or more lines."""

    seq: int
    """Counts from 1, without gaps."""
    time: float
    """Seconds since 1970."""
    source: str
    """The name of a test, ``zig``, or ``fuzzserver``, say."""
    level: Level
    text: str
    """Without line break at the end; it can be encoded, whatever was said."""

    def to_json(self) -> dict[str, Any]:
        """As it is sent."""
        return {"time": self.time, "source": self.source, "level": self.level, "text": self.text}


class LogBook:
    """Keeps the newest entries, within bounds of number and size. May be used from any thread."""

    def __init__(self) -> None:
        # Guards all below.
        self._lock = threading.Lock()
        self._entries: deque[LogEntry] = deque()
        self._size = 0
        self._seq = 0

    def add(self, source: str, level: Level, text: str) -> None:
        """Note a text, unless it is empty. The oldest entries make room for it."""
        text = _bounded(text.rstrip("\n"))
        if not text:
            return
        with self._lock:
            self._seq += 1
            self._entries.append(LogEntry(self._seq, time.time(), source, level, text))
            self._size += _size(text)
            while len(self._entries) > MAX_ENTRIES or self._size > MAX_SIZE:
                self._size -= _size(self._entries.popleft().text)

    def since(self, seq: int) -> tuple[int, bool, list[LogEntry]]:
        """What came after entry ``seq``, for whoever has seen everything up to it; 0 has seen nothing.

        Returns where to go on the next time, whether the entries are all that is kept instead of a
        continuation (at first, or because some that came between are gone), and the entries.
        """
        with self._lock:
            first = self._seq - len(self._entries) + 1
            whole = seq == 0 or seq + 1 < first
            start = 0 if whole else seq + 1 - first
            return self._seq, whole, [self._entries[index] for index in range(start, len(self._entries))]


def _size(text: str) -> int:
    return len(text.encode())


def _bounded(text: str) -> str:
    """``text`` as text that can be encoded, and cut if it is too long."""
    data = text.encode("utf-8", "backslashreplace")
    kept = data[:MAX_ENTRY].decode("utf-8", "ignore")
    left = len(data) - MAX_ENTRY
    return f"{kept}\n… and {left:,} more bytes, which were not kept" if left > 0 else kept
