"""What a worker writes on stderr, for the log: in whole lines, some times a second, and within bounds.

*Runs on* the worker's thread. *Takes* bytes as they come. *Gives* text. A fuzz test that prints
something in each run makes hundreds of thousands of lines a second, and people read some of them.
"""

import time
from collections.abc import Callable

__all__ = ["SaidLines"]

INTERVAL = 0.25
"""Seconds between two texts."""

FLOOD_INTERVAL = 2.0
"""Seconds until the next text while there is more than can be kept."""

BURST = 64 * 1024
"""Bytes that may come at once: a stack trace with everything before it."""

RATE = 2 * 1024
"""Bytes a second that are kept in the long run."""

MAX_LINE = 8 * 1024
"""Bytes after which a line without an end is taken for one."""


class SaidLines:
    """Joins lines to texts and hands them on; counts those that are too many."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """``tell`` is called with one or more lines, at most each quarter of a second."""
        self._tell = tell
        self._begun = b""
        self._lines: list[bytes] = []
        self._dropped = 0
        self._budget = float(BURST)
        self._budget_time = time.monotonic()
        self._due = 0.0

    def feed(self, data: bytes) -> None:
        """Take in what came next."""
        whole, end, self._begun = (self._begun + data).rpartition(b"\n")
        if end:
            self._take(whole)
        if len(self._begun) > MAX_LINE:
            self._take(self._begun)
            self._begun = b""
        self.tick()

    def tick(self) -> None:
        """Hand on what waits, if it is time. To be called some times a second."""
        if (self._lines or self._dropped) and time.monotonic() >= self._due:
            self._hand_on()

    def close(self) -> None:
        """Hand on all, a line without an end, too: nothing comes for some time, or ever."""
        if self._begun:
            self._take(self._begun)
            self._begun = b""
        if self._lines or self._dropped:
            self._hand_on()

    def _take(self, lines: bytes) -> None:
        """Keep as many of ``lines`` as the budget allows: the first ones."""
        moment = time.monotonic()
        self._budget = min(BURST, self._budget + RATE * (moment - self._budget_time))
        self._budget_time = moment
        if len(lines) > self._budget:
            fitting = lines[: int(self._budget)].rpartition(b"\n")[0]
            self._dropped += lines.count(b"\n", len(fitting) + 1 if fitting else 0) + 1
            if not fitting:
                return
            lines = fitting
        self._budget -= len(lines) + 1
        self._lines.append(lines)

    def _hand_on(self) -> None:
        self._due = time.monotonic() + (FLOOD_INTERVAL if self._dropped else INTERVAL)
        texts = [lines.decode("utf-8", "replace") for lines in self._lines]
        if self._dropped:
            what = "line was" if self._dropped == 1 else "lines were"
            texts.append(f"… {self._dropped:,} more {what} not kept")
        self._lines, self._dropped = [], 0
        self._tell("\n".join(texts))
