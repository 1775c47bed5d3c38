"""Which function has this point? The symbol table of the executable tells.

It is read along with the debug info, while the executable is sure to be the one that is fuzzed. What is
kept is little: a function without any point is of no use to anybody.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass

from fuzzserver.coverage.executable import Executable
from fuzzserver.coverage.tables import little_endian_bytes
from fuzzserver.wire.abi import PointsHeader

__all__ = ["MAX_NAME", "NO_FUNCTION", "Functions", "find_functions", "points_message"]

NO_FUNCTION = 0xFFFFFFFF
"""Stands for the function of a point that is in none."""

MAX_NAME = 300
"""Characters of a name that are kept; that of a C++ template may have thousands."""

TAIL = 100
"""Characters at the end of a name that is cut."""

_INFINITY = 1 << 65
"""Above every address."""


@dataclass(frozen=True, slots=True)
class Functions:
    """The functions that have points, in the order in which the points name them."""

    of_points: array[int]
    """For each point the index of its function, or ``NO_FUNCTION``."""
    names: array[int]
    """For each function where its name begins in ``string_bytes``."""
    string_bytes: bytes
    """Names in UTF-8, each with a NUL at its end."""


def find_functions(executable: Executable, pcs: array[int]) -> Functions:
    """The function that each of ``pcs`` lies in; none for any if there is no symbol table.

    ExecutableError if there is one that cannot be read.
    """
    starts, ends, symbol_names = _functions(executable)
    of_points = array("I")
    names = array("I")
    string_bytes = bytearray()
    known: dict[int, int] = {}
    # The function of the point before: mostly, that of the next, too.
    start, end, index = 0, 0, NO_FUNCTION
    for pc in pcs:
        if not start <= pc < end:
            place = bisect_right(starts, pc) - 1
            # The last block of a function may be empty, and so begin at its end.
            if place < 0 or pc > ends[place]:
                of_points.append(NO_FUNCTION)
                continue
            start, end, index = starts[place], ends[place], known.setdefault(place, len(known))
            if index == len(names):
                names.append(len(string_bytes))
                string_bytes += _shown(symbol_names[place]) + b"\0"
        of_points.append(index)
    return Functions(of_points, names, bytes(string_bytes))


def _functions(executable: Executable) -> tuple[list[int], list[int], list[bytes]]:
    """Start, end and name of each function, by address. Of several at one address, the largest counts."""
    found: dict[int, tuple[int, bytes]] = {}
    for address, size, name in executable.function_symbols():
        if name and (address not in found or size > found[address][0]):
            found[address] = size, name
    starts = sorted(found)
    ends: list[int] = []
    limits = sorted(end for _, end in executable.code_ranges()) if found else []
    for start, following in zip(starts, [*starts, _INFINITY][1:], strict=True):
        size = found[start][0]
        if size == 0:
            # Assembly often tells no size: it goes on to the next function, or to the end of the code.
            above = bisect_right(limits, start)
            size = min(following, limits[above]) - start if above < len(limits) else 0
        ends.append(start + size)
    return starts, ends, [found[start][1] for start in starts]


def _shown(name: bytes) -> bytes:
    """A name as it is sent: valid UTF-8, and not too long.

    The middle of it goes: types and their arguments are there, and the function's own name is at the end.
    """
    text = name.decode("utf-8", "replace")
    if len(text) > MAX_NAME:
        text = f"{text[: MAX_NAME - TAIL - 1]}…{text[-TAIL:]}"
    return text.encode()


def points_message(pcs: array[int], first_covered: array[int], functions: Functions) -> bytes:
    """The ``points`` answer: addresses, times of first coverage and functions of all points."""
    header = PointsHeader(len(pcs), len(functions.names), len(functions.string_bytes))
    return b"".join(
        (
            header.serialize(),
            little_endian_bytes(pcs),
            little_endian_bytes(first_covered),
            little_endian_bytes(functions.of_points),
            little_endian_bytes(functions.names),
            functions.string_bytes,
        )
    )
