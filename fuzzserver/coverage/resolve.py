"""Source locations and functions of all points, in the order of the coverage file: its PCs are not sorted."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence

from fuzzserver.coverage.executable import Executable
from fuzzserver.coverage.functions import NO_FUNCTION, Functions, find_functions
from fuzzserver.coverage.info import SLICE, Info, Locations, Progress
from fuzzserver.coverage.tables import Coverage
from fuzzserver.errors import ExecutableError

__all__ = ["PROGRESS_INTERVAL", "resolve_functions", "resolve_points"]

PROGRESS_INTERVAL = 0.05
"""Seconds between two reports of progress at least."""


def _ascending(pcs: array[int]) -> array[int]:
    """The indexes of ``pcs`` in ascending order of the PCs."""
    # Slice by slice: other threads wait while a sort runs, and the last one has little left to do.
    key = pcs.__getitem__
    order: list[int] = []
    for start in range(0, len(pcs), SLICE):
        order += sorted(range(start, min(start + SLICE, len(pcs))), key=key)
    order.sort(key=key)
    return array("I", order)


def resolve_points(info: Info | None, pcs: array[int], coverage: Coverage, progress: Progress) -> array[int]:
    """File, line and column of each point; none is known without ``info``."""
    found = Locations.invalid(len(pcs))
    order: Sequence[int] = range(len(pcs))
    if info is not None:
        order = _ascending(pcs)
        sorted_pcs = array("Q")
        for start in range(0, len(order), SLICE):
            sorted_pcs.extend(map(pcs.__getitem__, order[start : start + SLICE]))
        found = info.resolve_addresses(sorted_pcs, coverage, _now_and_then(progress))
    locations = array("I", bytes(12 * len(pcs)))
    for index, file, line, column in zip(order, *found, strict=True):
        place = 3 * index
        locations[place] = file
        locations[place + 1] = line
        locations[place + 2] = column
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


def resolve_functions(executable: Executable, pcs: array[int], oddities: list[str]) -> Functions:
    """The function of each point. If the executable cannot tell, that is an oddity."""
    try:
        return find_functions(executable, pcs)
    except ExecutableError as error:
        oddities.append(f"{error}; functions are not shown")
        return Functions(array("I", [NO_FUNCTION]) * len(pcs), array("I"), b"")
