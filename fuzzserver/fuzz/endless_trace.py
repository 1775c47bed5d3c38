"""Noticing that a process tells of an endless recursion.

Since Zig 0.16, a full stack is told of to its last frame. There may be a hundred thousand, and a debug build
tells some hundred in a second; the first say it all.
"""

import re

from fuzzserver.fuzz.failure import is_frame, without_colors
from fuzzserver.stack import MAX_LINE

__all__ = ["EndlessTrace"]

ENOUGH_FRAMES = 200
"""More of them say nothing new."""
SOURCE_LINES = 2
"""At most so many lines are between two frames of a trace: source and caret."""
MESSAGE_LINES = 20
"""More lines without a frame are no message of a panic, nor what is between its traces."""

# As Zig begins the line. What a test prints of its own panics has other words before.
_CRASH = re.compile(
    r"^(?:(?:thread \d+ )?panic: "
    r"|(?:Segmentation fault|Illegal instruction|Bus error|Arithmetic exception) at address 0x"
    r"|General protection exception \()",
    re.MULTILINE,
)


class EndlessTrace:
    """What one process writes on stderr."""

    def __init__(self) -> None:
        self._begun = ""
        """The line that has not ended, as far as it matters."""
        self._crashed = False
        self._frames = 0
        self._others = 0
        """How many lines followed the last frame, or the first words of a crash."""

    def feed(self, data: bytes) -> bool:
        """Take in what came next; True if it crashed, and has told enough of where."""
        # Each byte is a character: data may end within one of UTF-8.
        text = without_colors(self._begun + data.decode("latin-1"))
        *lines, begun = text.split("\n")
        self._begun = begun[:MAX_LINE]
        if self._crashed or _CRASH.search(text):
            for line in lines:
                self._read(line)
                if self._frames > ENOUGH_FRAMES:
                    return True
        return False

    def _read(self, line: str) -> None:
        if _CRASH.match(line):
            self._crashed, self._frames, self._others = True, 0, 0
        elif self._crashed and is_frame(line):
            self._frames += 1
            self._others = 0
        elif self._crashed:
            self._others += 1
            if self._others > SOURCE_LINES:
                self._frames = 0
            self._crashed = self._others <= MESSAGE_LINES
