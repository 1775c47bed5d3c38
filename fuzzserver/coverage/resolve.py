"""Source locations and functions of all points, in the order of the coverage file: its PCs are not sorted."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from itertools import pairwise

from fuzzserver.coverage.executable import Executable
from fuzzserver.coverage.functions import NO_FUNCTION, Functions, find_functions
from fuzzserver.coverage.info import SLICE, Info, Locations, Progress
from fuzzserver.coverage.tables import Coverage
from fuzzserver.errors import ExecutableError

__all__ = ["PROGRESS_INTERVAL", "resolve_points"]

PROGRESS_INTERVAL = 0.05
"""Seconds between two reports of progress at least."""


def resolve_points(
    executable: Executable,
    info: Info | None,
    pcs: array[int],
    coverage: Coverage,
    oddities: list[str],
    progress: Progress,
) -> tuple[array[int], Functions]:
    """File, line and column of each point, of which none is known without ``info``, and their functions."""
    if info is None:
        unknown = Locations.invalid(len(pcs))
        return _side_by_side(unknown), _functions(executable, pcs, oddities)
    order, sorted_pcs = _ascending(pcs)
    stretches: list[tuple[int, int]] = []
    functions: list[Functions] = []

    def meanwhile() -> None:
        stretches.extend(_stretches(order))
        order.clear()
        functions.append(_functions(executable, pcs, oddities))

    found = info.resolve_addresses(sorted_pcs, coverage, _now_and_then(progress), meanwhile)
    return _scattered(_side_by_side(found), stretches), functions[0]


def _ascending(pcs: array[int]) -> tuple[list[int], array[int]]:
    """The indexes of ``pcs`` in ascending order of the PCs, and the PCs in that order."""
    # Slice by slice: other threads wait while a sort runs, and the last one has little left to do.
    key = pcs.tolist().__getitem__
    order: list[int] = []
    for start in range(0, len(pcs), SLICE):
        order += sorted(range(start, min(start + SLICE, len(pcs))), key=key)
    order.sort(key=key)
    sorted_pcs = array("Q")
    for start in range(0, len(order), SLICE):
        sorted_pcs.extend(map(key, order[start : start + SLICE]))
    return order, sorted_pcs


def _stretches(order: list[int]) -> Iterator[tuple[int, int]]:
    """Start and end of those stretches that are in their place in ``order`` as a whole, one after another."""
    breaks = [place for place in range(1, len(order)) if order[place] != order[place - 1] + 1]
    for start, end in pairwise([0, *breaks, len(order)]):
        if start < end:
            yield order[start], order[start] + end - start


def _side_by_side(found: Locations) -> array[int]:
    """Three items for each location."""
    locations = array("I", bytes(12 * len(found.file)))
    for place, column in enumerate(found):
        locations[place::3] = column
    return locations


def _scattered(sorted_locations: array[int], stretches: list[tuple[int, int]]) -> array[int]:
    """The locations in the order of the points, which are ``stretches`` of theirs."""
    locations = array("I", bytes(4 * len(sorted_locations)))
    place = 0
    for start, end in stretches:
        following = place + 3 * (end - start)
        locations[3 * start : 3 * end] = sorted_locations[place:following]
        place = following
    return locations


def _now_and_then(progress: Progress) -> Progress:
    """Hands on what is not old, and not too often."""
    most, due = -1, 0.0

    def tell(done: int, total: int) -> None:
        nonlocal most, due
        moment = time.monotonic()
        if done >= most and (moment >= due or most < done == total):
            most, due = done, moment + PROGRESS_INTERVAL
            progress(done, total)

    return tell


def _functions(executable: Executable, pcs: array[int], oddities: list[str]) -> Functions:
    """The function of each point. If the executable cannot tell, that is an oddity."""
    try:
        return find_functions(executable, pcs)
    except ExecutableError as error:
        oddities.append(f"{error}; functions are not shown")
        return Functions(array("I", [NO_FUNCTION]) * len(pcs), array("I"), b"")
