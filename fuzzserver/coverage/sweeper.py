"""A process that sweeps through line programs for ``sweeping``, which started it.

It imports only what it needs, of this package and of Python. Both directions of the pipe carry ``marshal``
data: in comes one list of parts, out go messages, each with its length before it. A number is a step forward,
bytes are one column of what was found for a part, a tuple is the rest of it and ends the part. None ends a
part that is damaged.
"""

from __future__ import annotations

import _thread
import marshal
import os
import sys
from array import array
from typing import Any, BinaryIO

from fuzzserver.coverage.line_program import NO_FILE, PROGRESS_STEP, LineProgram, sweep
from fuzzserver.errors import DebugInfoError

__all__ = ["GREETING", "main"]

GREETING = b"sweeper"
"""What the process says first, so that nothing is sent to a program that is none."""


def main() -> None:
    """Answer the one list of parts on stdin; end at once when nobody holds the other end of it."""
    out = sys.stdout.buffer
    out.write(GREETING)
    out.flush()
    parts: list[tuple[Any, ...]] = marshal.load(sys.stdin.buffer)
    _thread.start_new_thread(_end_with_the_parent, ())
    while parts:
        _answer(out, *parts.pop(0))


def _end_with_the_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _send(out: BinaryIO, message: int | memoryview | tuple[Any, ...] | None) -> None:
    data = marshal.dumps(message)
    out.write(len(data).to_bytes(8, "little"))
    out.write(data)
    out.flush()


def _answer(out: BinaryIO, program: tuple[Any, ...], pcs: bytes, start: int) -> None:
    """Send what a part of a program, which begins at ``start`` in the whole of it, has for ``pcs``."""
    told = -1

    def progress(count: int) -> None:
        nonlocal told
        _send(out, count - told if told >= 0 else PROGRESS_STEP)
        told = count

    targets = array("Q")
    targets.frombytes(pcs)
    try:
        found = sweep(LineProgram._make(program), targets, progress, start)
    except DebugInfoError:
        _send(out, None)
        return
    # Targets before and behind those that it answers are another part's.
    places = range(len(found.file))
    first = next((place for place in places if found.file[place] != NO_FILE), 0)
    end = next((place + 1 for place in reversed(places) if found.file[place] != NO_FILE), 0)
    for column in found[1:6]:
        _send(out, memoryview(column)[first:end])
    tails = [tuple(tail) for tail in found.tails]
    defined_files = [tuple(entry) for entry in found.defined_files]
    _send(out, (first, tails, defined_files, start + found.sequence_end))
