"""Everything about one executable: tables, seen bits, entry points (Zig: ``CoverageMap``)."""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
from array import array
from bisect import bisect_left
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from fuzzserver import paths
from fuzzserver.coverage.executable import PLACEHOLDER_PC, Executable, FileState, check_match
from fuzzserver.coverage.functions import NO_FUNCTION, Functions, find_functions, points_message
from fuzzserver.coverage.history import History, newly_covered
from fuzzserver.coverage.info import Info, Progress
from fuzzserver.coverage.seen_pcs import JoinedSeenPcs, SeenPcs, SeenPcsSnapshot
from fuzzserver.coverage.tables import Coverage, little_endian_bytes
from fuzzserver.errors import CoverageFileError, ExecutableError, InputError
from fuzzserver.step import FuzzRunStep, SourcePath
from fuzzserver.wire.abi import (
    CoverageDeltaHeader,
    CoverageUpdateHeader,
    EntryPointHeader,
    FileIndex,
    SourceLocation,
    coverage_file_name,
)

__all__ = [
    "CoverageMap",
    "ExecutableFacts",
    "check_inputs",
    "coverage_delta_message",
    "coverage_update_message",
    "debug_info_sources",
    "prepare_tables",
]

log = logging.getLogger(__name__)


PROGRESS_INTERVAL = 0.05
"""Seconds between two reports of progress at least."""


@dataclass(frozen=True, slots=True)
class ExecutableFacts:
    """What is known of an executable besides its points."""

    path: Path
    state: FileState
    has_debug_info: bool
    zig_version: str | None
    """The compiler's, as the debug info tells."""

    @property
    def time(self) -> float:
        """When it was built, in seconds since 1970: its mtime when it was read."""
        return self.state.mtime_ns / 1e9

    @property
    def replaced(self) -> bool:
        """Whether it is gone, or another is in its place, since it was read."""
        try:
            return FileState.of(self.path.stat()) != self.state
        except OSError:
            return True


class CoverageMap:
    """The coverage of one executable, ready to be sent.

    What changes after construction is ``entry_points`` (replaced as a whole, by the coverage
    thread) and the bits, which ``read`` copies from the file.
    """

    def __init__(
        self,
        coverage_id: int,
        facts: ExecutableFacts,
        seen_pcs: SeenPcs,
        pcs: array[int],
        coverage: Coverage,
        source_locations: array[int],
        functions: Functions,
        history: History,
        start_timestamp: int,
        oddities: tuple[str, ...] = (),
    ) -> None:
        self.coverage_id = coverage_id
        self.facts = facts
        """What the source locations are those of."""
        self.functions = functions
        self.history = history
        """How the coverage grew; ``record`` adds to it."""
        self.seen_pcs = JoinedSeenPcs(seen_pcs, pcs)
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
        # Held from reading a snapshot until it is recorded: what is recorded must not be out of order.
        self._history_lock = threading.Lock()
        self._recorded_files = 0

    @property
    def executable(self) -> Path:
        """The executable that was fuzzed when it was read; ``facts`` tell more of it."""
        return self.facts.path

    @property
    def replaced(self) -> bool:
        """Whether the executable is gone, or another is in its place, since it was read."""
        return self.facts.replaced

    def describe_json(self) -> dict[str, Any]:
        """What people should know of the executable and of its coverage files, for JSON."""
        return {
            "executable": str(self.executable),
            "executable_time": self.facts.time,
            "replaced": self.replaced,
            "has_debug_info": self.facts.has_debug_info,
            "zig_version": self.facts.zig_version,
            "oddities": list(self.oddities),
            "fault": self.seen_pcs.fault,
        }

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

    def begin_history(self, kind: str, text: str) -> None:
        """Follow the coverage from now on; ``kind`` and ``text`` are those of a mark."""
        self.history.begin(time.time(), kind, text)
        self.record()

    def record(self) -> None:
        """Add to the history what is new."""
        with self._history_lock:
            snapshot = self.read()
            if snapshot.files != self._recorded_files:
                self._recorded_files = snapshot.files
                self.history.look_anew()
            self.history.record(time.time(), snapshot)
        self.history.save_if_due()

    def points_message(self) -> bytes:
        """The ``points`` answer: addresses, functions and times of first coverage."""
        return points_message(self._pcs, self.history.first_covered, self.functions)

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
        """Close the coverage files; what they hold now can still be read. Keep the history."""
        self.seen_pcs.close()
        self.record()
        self.history.save()


def coverage_update_message(snapshot: SeenPcsSnapshot) -> bytes:
    """The ``coverage_update`` message."""
    return CoverageUpdateHeader(snapshot.n_runs, snapshot.unique_runs).serialize() + snapshot.seen_bits


def coverage_delta_message(before: SeenPcsSnapshot, snapshot: SeenPcsSnapshot, moment: float) -> bytes | None:
    """The ``coverage_delta`` message for a client that has the snapshot ``before`` of the same map.

    ``moment`` is when the snapshot was made, in seconds since 1970. None if the client must be sent the
    ``coverage_update`` message: a bit has vanished, or it is no longer than this.
    """
    bits, bits_before = snapshot.seen_bits, before.seen_bits
    new = newly_covered(bits_before, bits)
    size = CoverageDeltaHeader.LAYOUT.size + 4 * len(new)
    if size >= CoverageUpdateHeader.LAYOUT.size + len(bits) or newly_covered(bits, bits_before):
        return None
    header = CoverageDeltaHeader(len(new), snapshot.n_runs, snapshot.unique_runs, moment)
    return header.serialize() + little_endian_bytes(new)


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
    step: FuzzRunStep,
    coverage_id: int,
    start_timestamp: int,
    cache_root: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> CoverageMap:
    """Build the tables for the executable of ``step`` (Zig: ``prepareTables``).

    ``cache_root`` is that of the worker, if it has one of its own. ``progress`` is told how many of how
    many points are done, not too often. Raises InputError with everything that is needed to act on it.
    """
    path = step.coverage_file_path(coverage_id, cache_root)
    with Executable(step.rebuilt_executable) as executable:
        seen_pcs = SeenPcs(path)
        try:
            pcs = seen_pcs.pc_addrs()
            oddities = check_match(executable, pcs, path)
            coverage = Coverage()
            info = _debug_info(executable, pcs, oddities)
            locations = _resolve(info, pcs, coverage, _now_and_then(progress))
            return CoverageMap(
                coverage_id,
                ExecutableFacts(
                    executable.path,
                    executable.state,
                    info is not None,
                    None if info is None else executable.zig_version(),
                ),
                seen_pcs,
                pcs,
                coverage,
                locations,
                _functions(executable, pcs, oddities),
                History(len(pcs), _history_path(step, coverage_id)),
                start_timestamp,
                tuple(oddities),
            )
        except BaseException:
            seen_pcs.close()
            raise


def _debug_info(executable: Executable, pcs: array[int], oddities: list[str]) -> Info | None:
    """None without usable debug info, which is an oddity and no error: counters can be shown."""
    try:
        info = Info(executable)
    except InputError as error:
        oddities.append(f"{error}; counters are shown, source is not")
        return None
    if info.units:
        return info
    if pcs:
        oddities.append(
            f"'{executable.path}' has no debug info (built with ReleaseSmall, or stripped): "
            "counters are shown, source is not"
        )
    return None


def _resolve(info: Info | None, pcs: array[int], coverage: Coverage, progress: Progress) -> array[int]:
    """Source locations in the order of the coverage file, whose PCs are not sorted."""
    if info is None:
        return array("I", astuple(SourceLocation.INVALID)) * len(pcs)
    sorted_pcs = array("Q", sorted(set(pcs)))
    resolved = info.resolve_addresses(sorted_pcs, coverage, progress)
    locations = array("I", bytes(12 * len(pcs)))
    for index, pc in enumerate(pcs):
        place = 3 * bisect_left(sorted_pcs, pc)
        locations[3 * index : 3 * index + 3] = resolved[place : place + 3]
    return locations


def _now_and_then(progress: Progress) -> Progress:
    """Hands on what is new, and not too often."""
    most, due = -1, 0.0

    def tell(done: int, total: int) -> None:
        nonlocal most, due
        moment = time.monotonic()
        if done > most and (moment >= due or done == total):
            most, due = done, moment + PROGRESS_INTERVAL
            progress(done, total)

    return tell


def _functions(executable: Executable, pcs: array[int], oddities: list[str]) -> Functions:
    try:
        return find_functions(executable, pcs)
    except ExecutableError as error:
        oddities.append(f"{error}; functions are not shown")
        return Functions(array("I", [NO_FUNCTION]) * len(pcs), array("I"), b"")


def _history_path(step: FuzzRunStep, coverage_id: int) -> Path | None:
    """Where the history is kept from one start of the server to the next."""
    if step.cache_root is None:
        log.info("step '%s' has no cache folder: the history is lost when the server stops", step.name)
        return None
    return paths.data_folder(step.cache_root) / "history" / coverage_file_name(coverage_id)


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
