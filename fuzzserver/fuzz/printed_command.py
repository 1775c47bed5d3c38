"""From a command line as ``zig build --verbose`` prints it to its arguments.

Three forms are in use. Zig 0.14 puts a space after each argument and quotes nothing, so that where one
ends is lost if there are spaces in it; 0.15 and later quote for a shell; 0.17 prefixes the line. Where
the arguments would be too long for a system, all write them to a file and name that.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from fuzzserver.errors import InputError

__all__ = ["is_test_command", "parse_test_command"]

_PREFIX = re.compile(rb"^info\(verbose\): ")

# Only the build runner's own compiles end like this; a user's step may run "zig test", too.
_CANDIDATE = re.compile(rb'^.+? "?test"? (?:.*--listen=- ?|"?@.+)$')


def is_test_command(line: bytes) -> bool:
    """Whether a line may be a ``zig test`` command. Cheap: it is asked for each line of a build."""
    return _CANDIDATE.match(line) is not None


def parse_test_command(line: bytes, folder: Path) -> list[str] | None:
    """What follows ``zig test`` in a line; None if that is not what it is.

    ``folder`` is where the command ran. InputError if its arguments cannot be told apart, or not be read.
    """
    text = _PREFIX.sub(b"", line)
    args = _split_unquoted(text[:-1], folder) if text.endswith(b" ") else _split_quoted(text)
    if args is not None and len(args) == 1 and args[0].startswith("@"):
        args = _read_response_file(folder / args[0][1:])
    if args is None or not any(arg.startswith("-Mroot=") for arg in args):
        return None
    return args


def _split_quoted(text: bytes) -> list[str] | None:
    """The form of Zig 0.15 and later."""
    words = _words(text)
    return words[2:] if words[1:2] == ["test"] else None


_WORD = re.compile(rb'(?:[^\s"]|"(?:[^"\\]|\\.)*")+', re.DOTALL)
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_CONTROL = {
    b"a": b"\a",
    b"b": b"\b",
    b"t": b"\t",
    b"n": b"\n",
    b"v": b"\v",
    b"f": b"\f",
    b"r": b"\r",
    b"E": b"\x1b",
}


def _words(text: bytes) -> list[str]:
    """Words, quoted or not.

    In quotes, a backslash precedes a character, a letter that stands for one, or its octal number.
    """

    def unescape(escape: re.Match[bytes]) -> bytes:
        what = escape[1]
        return bytes([int(what, 8) & 0xFF]) if len(what) == 3 else _CONTROL.get(what, what)

    def unquote(quoted: re.Match[bytes]) -> bytes:
        return _ESCAPE.sub(unescape, quoted[1])

    return [os.fsdecode(_QUOTED.sub(unquote, word)) for word in _WORD.findall(text)]


def _read_response_file(path: Path) -> list[str]:
    """Each argument in double quotes, with a backslash before a quote or a backslash: in all versions."""
    try:
        return _words(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read arguments that Zig wrote to '{path}': {error.strerror}") from error


_VALUE_OPTIONS = (
    *("-F", "-I", "-L", "-framework", "-headerpad", "-idirafter", "-iframework", "-install_name"),
    *("-isystem", "-mcmodel", "-mcpu", "-needed_framework", "-pagezero_size", "-rcincludes", "-rpath"),
    *("-target", "-weak_framework", "-x", "-z"),
)
"""Options with one dash whose value is the next argument. All with two dashes and no "=" are like that."""

_KEPT_SPACE = "\0"
"""Stands for a space that is part of an argument for sure."""


def _split_unquoted(text: bytes, folder: Path) -> list[str] | None:
    """The form of Zig 0.14, without the last space.

    What begins with a dash begins an argument. What follows is cut so that those parts are files that
    exist that must be.
    """
    command = os.fsdecode(text)
    for known in (str(folder), os.path.realpath(folder)):
        command = command.replace(known, known.replace(" ", _KEPT_SPACE))
    tokens = command.split(" ")
    place = next((i for i, token in enumerate(tokens) if token == "test" and _is_program(tokens[:i])), None)
    if place is None:
        return None
    runs: list[list[str]] = [[]]
    for token in tokens[place + 1 :]:
        if token.startswith("-"):
            runs.append([])
        runs[-1].append(token)
    if runs[0] and runs[0][0].startswith("@"):
        return [_join(runs[0])]
    args = _files(runs[0], folder)
    if args is None:
        raise _ambiguous(runs[0], folder)
    for run in runs[1:]:
        args += _split_run(run[0], run[1:], folder)
    return args


def _split_run(option: str, rest: Sequence[str], folder: Path) -> list[str]:
    """What an option and the parts up to the next option are: its value, then files."""
    takes_value = option in _VALUE_OPTIONS or (
        option.startswith("--") and option != "--" and "=" not in option
    )
    least = min(1, len(rest)) if takes_value else 0
    if option == "--test-filter":  # Any text, and no file follows.
        least = len(rest)
    for count in range(least, len(rest) + 1):
        files = _files(rest[count:], folder)
        own = rest[:count]
        if (
            files is None
            or (option == "--" and own)
            or (rest and not _names_its_file([option, *own], folder))
        ):
            continue
        if takes_value:
            return [option, *([_join(own)] if own else []), *files]
        return [_join([option, *own]), *files]
    raise _ambiguous([option, *rest], folder)


def _names_its_file(tokens: Sequence[str], folder: Path) -> bool:
    """Whether these parts are no module, or a module with its file."""
    _, _, path = _join(tokens).partition("=")
    return not tokens[0].startswith("-M") or not path or (folder / path).is_file()


def _files(tokens: Sequence[str], folder: Path) -> list[str] | None:
    """The files that these parts name one after the other; None if they do not."""
    found: list[str] = []
    start = 0
    while start < len(tokens):
        ends = range(start + 1, len(tokens) + 1)
        end = next((end for end in ends if (folder / _join(tokens[start:end])).is_file()), None)
        if end is None:
            return None
        found.append(_join(tokens[start:end]))
        start = end
    return found


def _is_program(tokens: Sequence[str]) -> bool:
    return os.access(_join(tokens), os.X_OK)


def _join(tokens: Sequence[str]) -> str:
    return " ".join(tokens).replace(_KEPT_SPACE, " ")


def _ambiguous(tokens: Sequence[str], folder: Path) -> InputError:
    return InputError(
        f"cannot tell the arguments apart that 'zig build' printed without quotes in '{folder}': "
        f"'{_join(tokens)}' names no files that exist, however its spaces are read; "
        "rename what has spaces in it"
    )
