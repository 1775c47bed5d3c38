"""Everything about one executable: tables, seen bits, entry points (Zig: ``CoverageMap``)."""

from __future__ import annotations

import logging
import os
import struct
from array import array
from bisect import bisect_left
from dataclasses import astuple
from pathlib import Path

from fuzzserver.coverage.executable import PLACEHOLDER_PC, Executable, check_match
from fuzzserver.coverage.info import Info
from fuzzserver.coverage.seen_pcs import JoinedSeenPcs, SeenPcs, SeenPcsSnapshot
from fuzzserver.coverage.tables import Coverage
from fuzzserver.errors import CoverageFileError, InputError
from fuzzserver.step import FuzzRunStep, SourcePath
from fuzzserver.wire.abi import (
    CoverageUpdateHeader,
    EntryPointHeader,
    FileIndex,
    SourceLocation,
    coverage_file_name,
)

__all__ = [
    "CoverageMap",
    "check_inputs",
    "coverage_update_message",
    "debug_info_sources",
    "prepare_tables",
]

log = logging.getLogger(__name__)


class CoverageMap:
    """The coverage of one executable, ready to be sent.

    What changes after construction is ``entry_points`` (replaced as a whole, by the coverage
    thread) and the bits, which ``read`` copies from the file.
    """

    def __init__(
        self,
        coverage_id: int,
        executable: Path,
        seen_pcs: SeenPcs,
        pcs: array[int],
        coverage: Coverage,
        source_locations: array[int],
        start_timestamp: int,
        oddities: tuple[str, ...] = (),
    ) -> None:
        self.coverage_id = coverage_id
        self.executable = executable
        """What the source locations are those of."""
        self.seen_pcs = JoinedSeenPcs(seen_pcs)
        self.coverage = coverage
        self.source_locations = source_locations
        """Three items for each PC, in the order of the coverage file: file, line, column."""
        self.start_timestamp = start_timestamp
        """When fuzzing started, in nanoseconds on the server's clock."""
        self.source_index = coverage.source_index_message(source_locations, start_timestamp)
        """The ``source_index`` message."""
        self.oddities = oddities
        """What people should know of this executable, a sentence each."""
        self.entry_points: tuple[int, ...] = ()
        """Indexes into ``source_locations`` of the tests that are fuzzed."""
        self._pcs = pcs

    @property
    def start_n_runs(self) -> int:
        """Runs that there were before this server looked."""
        return self.seen_pcs.start_n_runs

    def add_coverage_file(self, path: Path) -> None:
        """Show the progress of one more worker, whose coverage file is ``path``.

        Nothing changes if it is shown already. CoverageFileError if it cannot be read or lists other PCs.
        """
        seen_pcs = SeenPcs(path)
        try:
            if self.seen_pcs.holds(seen_pcs):
                seen_pcs.close()
                return
            if seen_pcs.pc_addrs() != self._pcs:
                raise CoverageFileError(
                    f"coverage file '{path}' lists other PCs than the workers before it, though its id is "
                    f"{coverage_file_name(self.coverage_id)}, too; it is not counted"
                )
            self.seen_pcs.add(seen_pcs)
        except BaseException:
            seen_pcs.close()
            raise

    def read(self) -> SeenPcsSnapshot:
        """Counters and bits of all workers as they are now."""
        return self.seen_pcs.read()

    def entry_points_message(self) -> bytes:
        """The ``entry_points`` message."""
        points = self.entry_points[: EntryPointHeader.MAX_LOCS]
        return EntryPointHeader(len(points)).serialize() + struct.pack(f"<{len(points)}I", *points)

    def find_entry_point(self, addr: int) -> int:
        """The index of the source location that stands for the function at ``addr``.

        An exact match wins, else the greatest PC below; among equal ones the lowest index.
        Placeholders and PCs without a source location never answer. InputError if none is left.
        """
        best = -1
        best_pc = 0
        for index, pc in enumerate(self._pcs):
            if best_pc < pc <= addr and pc != PLACEHOLDER_PC and self._has_source(index):
                best, best_pc = index, pc
        if best >= 0:
            return best
        if not self._pcs:
            raise InputError(f"unable to find entry point 0x{addr:x}: the executable has no instrumented PCs")
        known = [pc for index, pc in enumerate(self._pcs) if self._has_source(index)]
        where = f", the lowest of them 0x{min(known):x}" if known else ""
        raise InputError(
            f"unable to find entry point 0x{addr:x}: of {len(self._pcs)} PCs, {len(known)} have a source "
            f"location{where}"
        )

    @property
    def source_locations_len(self) -> int:
        """How many points there are."""
        return len(self.source_locations) // 3

    def describe(self, index: int) -> str:
        """``path:line:column`` of a point that has a source location."""
        file, line, column = self.source_locations[3 * index : 3 * index + 3]
        return f"{self.coverage.file_path(FileIndex(file))}:{line}:{column}"

    def _has_source(self, index: int) -> bool:
        return self.source_locations[3 * index] != SourceLocation.INVALID.file

    def close(self) -> None:
        """Close the coverage files; what they hold now can still be read."""
        self.seen_pcs.close()


def coverage_update_message(snapshot: SeenPcsSnapshot) -> bytes:
    """The ``coverage_update`` message."""
    return CoverageUpdateHeader(snapshot.n_runs, snapshot.unique_runs).serialize() + snapshot.seen_bits


def check_inputs(step: FuzzRunStep, coverage_id: int) -> None:
    """Are executable and coverage file usable, and do they belong together? InputError if not.

    This looks at headers and addresses only, so it is quick; debug info is not read.
    """
    with Executable(step.rebuilt_executable) as executable:
        path = step.coverage_file_path(coverage_id)
        seen_pcs = SeenPcs(path)
        try:
            check_match(executable, seen_pcs.pc_addrs(), path)
        finally:
            seen_pcs.close()


def prepare_tables(
    step: FuzzRunStep, coverage_id: int, start_timestamp: int, cache_root: Path | None = None
) -> CoverageMap:
    """Build the tables for the executable of ``step`` (Zig: ``prepareTables``).

    ``cache_root`` is that of the worker, if it has one of its own. Raises InputError with everything
    that is needed to act on it.
    """
    path = step.coverage_file_path(coverage_id, cache_root)
    with Executable(step.rebuilt_executable) as executable:
        seen_pcs = SeenPcs(path)
        try:
            pcs = seen_pcs.pc_addrs()
            oddities = check_match(executable, pcs, path)
            coverage = Coverage()
            locations = _resolve(executable, pcs, coverage, oddities)
            return CoverageMap(
                coverage_id,
                step.rebuilt_executable,
                seen_pcs,
                pcs,
                coverage,
                locations,
                start_timestamp,
                tuple(oddities),
            )
        except BaseException:
            seen_pcs.close()
            raise


def _resolve(executable: Executable, pcs: array[int], coverage: Coverage, oddities: list[str]) -> array[int]:
    """Source locations in the order of the coverage file, whose PCs are not sorted.

    Without usable debug info all are invalid, which is an oddity and no error: counters can be shown.
    """
    try:
        info = Info(executable)
    except InputError as error:
        oddities.append(f"{error}; counters are shown, source is not")
        return array("I", astuple(SourceLocation.INVALID)) * len(pcs)
    if not info.units and pcs:
        oddities.append(
            f"'{executable.path}' has no debug info (built with ReleaseSmall, or stripped): "
            "counters are shown, source is not"
        )
    sorted_pcs = array("Q", sorted(set(pcs)))
    resolved = info.resolve_addresses(sorted_pcs, coverage)
    locations = array("I", bytes(12 * len(pcs)))
    for index, pc in enumerate(pcs):
        place = 3 * bisect_left(sorted_pcs, pc)
        locations[3 * index : 3 * index + 3] = resolved[place : place + 3]
    return locations


def debug_info_sources(step: FuzzRunStep) -> list[SourcePath]:
    """The files that the debug info of the step's executable names and that are there."""
    try:
        with Executable(step.rebuilt_executable) as executable:
            paths = Info(executable).source_paths()
    except InputError as error:
        log.error("no sources: %s", error)
        return []
    there = [path for path in paths if os.path.isfile(path.location)]
    if len(there) < len(paths):
        log.info(
            "%d of %d source files that '%s' names are not on this machine",
            len(paths) - len(there),
            len(paths),
            step.rebuilt_executable,
        )
    return there
