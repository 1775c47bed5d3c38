"""Noticing that a process tells of an endless recursion.

Since Zig 0.16, a full stack is told of to its last frame. There may be a hundred thousand, and a debug build
tells some hundred in a second; the first say it all.
"""

from fuzzserver.fuzz.failure import has_told_enough

__all__ = ["EndlessTrace"]

KEPT = 128 * 1024
"""Bytes that are looked at: a trace of as many frames as are enough, and more."""
STEP = 16 * 1024
"""Bytes between two looks."""
LOOKS_LIKE_FRAMES = 10
"""Addresses in the last bytes, fewer of which are no trace that is worth a look."""


class EndlessTrace:
    """What one process writes on stderr."""

    def __init__(self) -> None:
        self._recent = b""
        self._unseen = 0

    def feed(self, data: bytes) -> bool:
        """Take in what came next; True if it crashed, and has told enough of where."""
        self._recent = (self._recent + data)[-KEPT:]
        self._unseen += len(data)
        if self._unseen < STEP:
            return False
        self._unseen = 0
        if self._recent.count(b": 0x", -STEP) < LOOKS_LIKE_FRAMES:
            return False
        return has_told_enough(self._recent.decode("utf-8", "replace"))
