"""A process that sweeps through line programs for ``sweeping``, which started it.

It imports only what it needs, of this package and of Python. In comes the number of parts, then each part: a
tuple, the bytes of the program, those of its targets. Out go messages, each with its length before it. A
number is a step forward; the rest comes when all parts are done, lest this process wait for its parent. Bytes
are one column of what was found for a part, a tuple is the rest of it and ends the part. None ends a part
that is damaged. All but the raw bytes that come in is ``marshal`` data.
"""

from __future__ import annotations

import _thread
import marshal
import os
import sys
from array import array
from itertools import chain
from typing import Any, BinaryIO

from fuzzserver.coverage.line_program import NO_FILE, LineProgram, sweep
from fuzzserver.errors import DebugInfoError

__all__ = ["GREETING", "main"]

GREETING = b"sweeper"
"""What the process says first, so that nothing is sent to a program that is none."""

STEP = 10_000
"""Targets between two reports."""

_Message = int | memoryview | tuple[Any, ...] | None


def main() -> None:
    """Answer the parts on stdin, once; end at once when nobody holds the other end of it."""
    out = sys.stdout.buffer
    out.write(GREETING)
    out.flush()
    source = sys.stdin.buffer
    parts = [_read_part(source) for _ in range(marshal.load(source))]
    _thread.start_new_thread(_end_with_the_parent, ())
    answers = []
    while parts:
        answers.append(_answer(out, *parts.pop(0)))
    for message in chain.from_iterable(answers):
        _send(out, message)


def _read_part(source: BinaryIO) -> tuple[LineProgram, array[int], int]:
    """A part of a program, its targets, and where in the whole of the program it begins."""
    program, start, size, count = marshal.load(source)
    data = source.read(size)
    targets = array("Q")
    targets.fromfile(source, count)
    return LineProgram._make(program)._replace(data=data), targets, start


def _end_with_the_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _send(out: BinaryIO, message: _Message) -> None:
    data = marshal.dumps(message)
    out.write(len(data).to_bytes(8, "little"))
    out.write(data)
    out.flush()


def _answer(out: BinaryIO, program: LineProgram, targets: array[int], start: int) -> list[_Message]:
    """What a part of a program, which begins at ``start`` in the whole of it, has for ``targets``."""
    told = -1

    def progress(count: int) -> None:
        nonlocal told
        if told < 0:
            told = count  # Those before are another part's.
        elif count - told >= STEP:
            _send(out, count - told)
            told = count

    try:
        found = sweep(program, targets, progress, start)
    except DebugInfoError:
        return [None]
    # Targets before and behind those that it answers are another part's.
    places = range(len(found.file))
    first = next((place for place in places if found.file[place] != NO_FILE), 0)
    end = next((place + 1 for place in reversed(places) if found.file[place] != NO_FILE), 0)
    tails = [tuple(tail) for tail in found.tails]
    defined_files = [tuple(entry) for entry in found.defined_files]
    columns = [memoryview(column)[first:end] for column in found[1:6]]
    return [*columns, (first, tails, defined_files, start + found.sequence_end)]
