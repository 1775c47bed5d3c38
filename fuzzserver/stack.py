"""Stack traces as Zig prints them: a line for each frame, most of them followed by source and a caret."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Frame", "frame_of", "frame_of_place", "with_paths"]

MAX_LINE = 4096 + 1024
"""Characters of a frame: of a path, and of the rest. Longer lines are hostile, and are not read."""

# Since Zig 0.16, the column is left out where debug info does not know it. What is before the line then ends
# with no digit: it would be a line itself.
_PLACE = (
    r"(?P<path>\S.*?)(?=:\d{1,9}:\d|(?<!\d):\d{1,9}: )"
    r":(?P<line>\d{1,9})(?::(?P<column>\d{1,9}))?"
)
# The place is atomic: if no function follows the first that fits, none follows a later one. So nothing is
# tried twice, however hostile a line is.
_FRAME = re.compile(rf"(?>{_PLACE}: 0x[0-9a-f]+ in )(?P<function>.+) \((?P<unit>[^()]*)\)")
_ONLY_PLACE = re.compile(r"(?P<path>\S.*):(?P<line>\d{1,9}):(?P<column>\d{1,9})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Frame:
    """A line of a trace: ``/p/f.zig:3:5: 0x10123 in sum (test)``."""

    path: str
    line: int
    column: int
    """1 if it is not known."""
    function: str
    unit: str = field(default="", compare=False)
    """What was compiled at once: ``test``, ``fuzzer``, ``compiler_rt``, say."""


def frame_of(line: str) -> Frame | None:
    """The frame that a line tells of; None if it tells of none, or of one whose place is unknown."""
    match = _match(line)
    return match and Frame(
        match["path"], int(match["line"]), int(match["column"] or 1), match["function"], match["unit"]
    )


def frame_of_place(place: str) -> Frame | None:
    """What ``path:line:column`` says, in no function that is known; None if it says nothing."""
    match = _ONLY_PLACE.fullmatch(place)
    return match and Frame(match["path"], int(match["line"]), int(match["column"]), "")


def _match(line: str) -> re.Match[str] | None:
    return _FRAME.fullmatch(line) if len(line) <= MAX_LINE else None


def with_paths(stack: str, path: Callable[[str], str]) -> str:
    """The same trace with other paths: ``path`` is called with each that is in it."""
    lines = stack.split("\n")
    for index, line in enumerate(lines):
        if match := _match(line):
            lines[index] = path(match["path"]) + line[match.end("path") :]
    return "\n".join(lines)
