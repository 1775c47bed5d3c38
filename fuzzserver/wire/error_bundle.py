"""Compile errors as the compiler sends them, and the text that it would print for them.

The body of an ``error_bundle`` message (Zig: ``std/zig/ErrorBundle.zig``) is two u32, ``extra_len``
and ``string_bytes_len``, then that many u32 and bytes. Records lie in ``extra`` and name each other
by index, and strings by offset into the string bytes. A compile without errors sends an empty one.
"""

import struct
from dataclasses import dataclass
from typing import Self

from fuzzserver.errors import MessageError

__all__ = ["ErrorBundle", "ErrorMessage", "ErrorSourceLocation", "ReferenceTrace"]

_HEADER = struct.Struct("<II")

MAX_NOTE_DEPTH = 32
"""Real notes are one or two levels deep; a bundle that names itself would never end."""

MAX_MESSAGES = 100_000
"""More messages than this are no compile errors but a loop."""

MAX_SPAN = 100_000
"""Longest line of blanks or tildes that is drawn: columns and spans are mere numbers of the sender."""


@dataclass(frozen=True, slots=True)
class ReferenceTrace:
    """One line of "referenced by": who refers to the code with the error."""

    decl_name: str
    src_path: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class ErrorSourceLocation:
    """Where an error is. Line and column count from 0; spans are byte offsets in the file."""

    src_path: str
    line: int
    column: int
    span_start: int
    span_main: int
    span_end: int
    source_line: str | None
    reference_trace: tuple[ReferenceTrace, ...]
    hidden_references: int | None
    """How many references the trace leaves out; 0 for an unknown number, None for none."""


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """An error or a note. ``count`` is how often it occurred."""

    msg: str
    count: int
    src_loc: ErrorSourceLocation | None
    notes: tuple["ErrorMessage", ...]


@dataclass(frozen=True, slots=True)
class ErrorBundle:
    """All errors of one compile."""

    messages: tuple[ErrorMessage, ...] = ()
    compile_log_text: str = ""

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read a message body; MessageError if an index or length points outside."""
        if len(body) < _HEADER.size:
            raise MessageError(f"error_bundle needs {_HEADER.size} bytes, got {len(body)}")
        extra_len, string_bytes_len = _HEADER.unpack_from(body)
        if len(body) != _HEADER.size + 4 * extra_len + string_bytes_len:
            raise MessageError(
                f"error_bundle with extra_len {extra_len} and string_bytes_len {string_bytes_len} "
                f"must have {_HEADER.size + 4 * extra_len + string_bytes_len} bytes, got {len(body)}"
            )
        if extra_len == 0:
            return cls()
        extra = struct.unpack_from(f"<{extra_len}I", body, _HEADER.size)
        return cls(*_Reader(extra, body[_HEADER.size + 4 * extra_len :]).error_message_list())

    def render(self) -> str:
        """The text that the compiler prints, without colour; empty if there are no errors."""
        lines: list[str] = []
        for message in self.messages:
            _render_message(message, "error", 0, lines)
        text = "".join(line + "\n" for line in lines)
        if self.compile_log_text:
            text += "\nCompile Log Output:\n" + self.compile_log_text
        return text


class _Reader:
    """Follows the indexes of one bundle."""

    def __init__(self, extra: tuple[int, ...], string_bytes: bytes) -> None:
        self._extra = extra
        self._string_bytes = string_bytes
        self._messages_read = 0

    def error_message_list(self) -> tuple[tuple[ErrorMessage, ...], str]:
        count, start, compile_log_text = self._words(0, 3)
        messages = tuple(self._message(index, 0) for index in self._words(start, count))
        return messages, self._string(compile_log_text) if compile_log_text else ""

    def _words(self, index: int, count: int) -> tuple[int, ...]:
        if index + count > len(self._extra):
            raise MessageError(f"error_bundle index {index} + {count} is beyond its {len(self._extra)} words")
        return self._extra[index : index + count]

    def _string(self, offset: int) -> str:
        end = self._string_bytes.find(b"\0", offset)
        if end < 0:
            raise MessageError(
                f"error_bundle string at {offset} does not end within {len(self._string_bytes)} bytes"
            )
        return self._string_bytes[offset:end].decode("utf-8", "replace")

    def _message(self, index: int, depth: int) -> ErrorMessage:
        self._messages_read += 1
        if depth > MAX_NOTE_DEPTH or self._messages_read > MAX_MESSAGES:
            raise MessageError("error_bundle notes form a loop")
        msg, count, src_loc, notes_len = self._words(index, 4)
        return ErrorMessage(
            msg=self._string(msg),
            count=count,
            src_loc=self._source_location(src_loc) if src_loc else None,
            notes=tuple(self._message(note, depth + 1) for note in self._words(index + 4, notes_len)),
        )

    def _source_location(self, index: int) -> ErrorSourceLocation:
        path, line, column, span_start, span_main, span_end, source_line, trace_len = self._words(index, 8)
        trace = []
        hidden = None
        pairs = self._words(index + 8, 2 * trace_len)
        for decl_name, location in zip(pairs[::2], pairs[1::2], strict=True):
            if location == 0:  # The sentinel: its "name" is the number of references left out.
                hidden = decl_name
                continue
            ref_path, ref_line, ref_column = self._words(location, 3)
            trace.append(
                ReferenceTrace(self._string(decl_name), self._string(ref_path), ref_line, ref_column)
            )
        return ErrorSourceLocation(
            src_path=self._string(path),
            line=line,
            column=column,
            span_start=span_start,
            span_main=span_main,
            span_end=span_end,
            source_line=self._string(source_line) if source_line else None,
            reference_trace=tuple(trace),
            hidden_references=hidden,
        )


def _render_message(message: ErrorMessage, kind: str, indent: int, lines: list[str]) -> None:
    """Append the lines of one message and its notes."""
    times = f" ({message.count} times)" if message.count != 1 else ""
    src = message.src_loc
    if src is None:
        lines.append(" " * indent + f"{kind}: {message.msg}{times}")
        for note in message.notes:
            _render_message(note, "note", indent + 4, lines)
        return
    prefix = " " * indent + f"{src.src_path}:{src.line + 1}:{src.column + 1}: {kind}: "
    # Further lines of a long message stand below its first letter; the compiler counts bytes.
    continuation = "\n" + " " * len(prefix.encode())
    lines.append(prefix + continuation.join(message.msg.split("\n")) + times)
    if src.source_line is not None:
        lines.append(src.source_line.replace("\t", " "))
        lines.append(_caret_line(src))
    for note in message.notes:
        _render_message(note, "note", indent, lines)
    if src.reference_trace or src.hidden_references is not None:
        _render_reference_trace(src, lines)


def _caret_line(src: ErrorSourceLocation) -> str:
    before = max(0, src.span_main - src.span_start)
    blanks = max(0, src.column - before)
    after = max(0, src.span_end - src.span_main - 1)
    blanks, before, after = (min(length, MAX_SPAN) for length in (blanks, before, after))
    return " " * blanks + "~" * before + "^" + "~" * after


def _render_reference_trace(src: ErrorSourceLocation, lines: list[str]) -> None:
    lines.append("referenced by:")
    for ref in src.reference_trace:
        lines.append(f"    {ref.decl_name}: {ref.src_path}:{ref.line + 1}:{ref.column + 1}")
    if src.hidden_references:
        total = src.hidden_references + len(src.reference_trace)
        lines.append(
            f"    {src.hidden_references} reference(s) hidden; "
            f"use '-freference-trace={total}' to see all references"
        )
    elif src.hidden_references == 0:
        lines.append(
            "    remaining reference traces hidden; use '-freference-trace' to see all reference traces"
        )
