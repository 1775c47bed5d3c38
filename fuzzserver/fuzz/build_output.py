"""What matters of the output of ``zig build``: its errors, without its commands and its tree of steps."""

import re
from pathlib import Path

__all__ = ["shorten", "strip_colors"]

MAX_LINES = 40
MAX_COLUMNS = 500

_COLOR = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


def strip_colors(data: bytes) -> bytes:
    """Without the escape sequences of a terminal, which the user's environment may ask for."""
    return _COLOR.sub(b"", data)


def shorten(text: str, zig_lib_dir: Path) -> str:
    """The lines that say what went wrong.

    Left out: the compiler's and the test runner's command lines, the tree of steps, hints at Zig's own
    options, and those parts of stack traces that lie in Zig's library. Cut after ``MAX_LINES`` lines.
    """
    kept = _without_trace(_without_noise(text.splitlines()), f"{zig_lib_dir.resolve()}/")
    lines = [line if len(line) <= MAX_COLUMNS else line[:MAX_COLUMNS] + " ..." for line in kept]
    more = len(lines) - MAX_LINES
    if more > 0:
        lines[MAX_LINES:] = [f"... ({more} more lines)"]
    return "\n".join(lines)


_COMMAND = re.compile(r"--listen=- ?$")
_ANNOUNCEMENT = re.compile(r"the following (?:\w+ )?command .*:$")
_BUILD_COMMAND = re.compile(r"^error: the following build command ")
_BRANCH = re.compile(r"^\s*\+- ")
_NOISE = re.compile(
    r"^\s*$|^Build Summary: |^info\(verbose\): |^\S.* transitive failure$|access the help menu"
    r"|^info: to list available steps|^info: available option: |^error: \d+ compilation errors$"
    r"|^error: configure command (?:exited|terminated) with "
)


def _without_noise(lines: list[str]) -> list[str]:
    kept = []
    skip = False
    for line, following in zip(lines, [*lines[1:], ""], strict=False):
        if skip:
            skip = False
        elif _BUILD_COMMAND.search(line) or (_ANNOUNCEMENT.search(line) and _COMMAND.search(following)):
            skip = True
        elif not (
            _is_noise(line) or _BRANCH.search(following)
        ):  # Above the branches is the root of the tree.
            kept.append(line)
    return kept


def _is_noise(line: str) -> bool:
    return any(pattern.search(line) for pattern in (_COMMAND, _BRANCH, _NOISE))


_FRAME = re.compile(r"^ *(\S.*):\d+:\d+: 0x[0-9a-f]+ in ")
_UNKNOWN_FRAME = "???:?:?: "


def _without_trace(lines: list[str], zig_lib_dir: str) -> list[str]:
    """Without frames in Zig's library: each is a line, mostly with the source line and a caret below."""
    kept = []
    position = 0
    while position < len(lines):
        frame = _FRAME.match(lines[position])
        if frame is not None and frame[1].startswith(zig_lib_dir):
            has_source = "".join(lines[position + 2 : position + 3]).strip() == "^"
            position += 3 if has_source else 1
            continue
        if not lines[position].startswith(_UNKNOWN_FRAME):
            kept.append(lines[position])
        position += 1
    return kept
