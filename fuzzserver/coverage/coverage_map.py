"""Everything about one executable: tables, seen bits, entry points (Zig: ``CoverageMap``)."""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fuzzserver import paths
from fuzzserver.coverage.executable import (
    PLACEHOLDER_PC,
    Executable,
    FileState,
    check_match,
)
from fuzzserver.coverage.functions import Functions, points_message
from fuzzserver.coverage.history import History, newly_covered
from fuzzserver.coverage.info import Info, Progress
from fuzzserver.coverage.resolve import resolve_points
from fuzzserver.coverage.seen_pcs import JoinedSeenPcs, SeenPcs, SeenPcsSnapshot
from fuzzserver.coverage.sweeping import Sweeping
from fuzzserver.coverage.tables import Coverage, little_endian_bytes
from fuzzserver.coverage.tables_file import FinishedTables, load_tables, save_tables
from fuzzserver.errors import CoverageFileError, InputError
from fuzzserver.step import FuzzRunStep
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
    "prepare_tables",
]

log = logging.getLogger(__name__)


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
        keep: Callable[[], None] = lambda: None,
    ) -> None:
        """Args:
        keep: called once, when there is time, to write what the next server can use.
        """
        self.coverage_id = coverage_id
        self.index_id = os.urandom(8).hex()
        """Tells this map's ``source_index`` from all others: who has it need not be sent it again."""
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
        self._keep: Callable[[], None] | None = keep

    @property
    def executable(self) -> Path:
        """The executable that was fuzzed when it was read; ``facts`` tell more of it."""
        return self.facts.path

    @property
    def pcs(self) -> array[int]:
        """The address of each point, in the order of the coverage file."""
        return self._pcs

    @property
    def replaced(self) -> bool:
        """Whether the executable is gone, or another is in its place, since it was read."""
        return self.facts.replaced

    def describe_json(self) -> dict[str, Any]:
        """What people should know of the executable and of its coverage files, for JSON."""
        return {
            "index": self.index_id,
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
        self._take_in()

    def record(self) -> None:
        """Add to the history what is new. Write what is to be written, which may take a while."""
        self._take_in()
        self.history.save_if_due()
        self._keep_tables()

    def _take_in(self) -> None:
        with self._history_lock:
            snapshot = self.read()
            if snapshot.files != self._recorded_files:
                self._recorded_files = snapshot.files
                self.history.look_anew()
            self.history.record(time.time(), snapshot)

    def _keep_tables(self) -> None:
        keep, self._keep = self._keep, None
        if keep is not None:
            keep()

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
        pcs, indexes = self._possible_entry_points
        place = bisect_right(pcs, addr)
        if place > 0:
            return indexes[bisect_left(pcs, pcs[place - 1])]
        if not self._pcs:
            raise InputError(f"unable to find entry point 0x{addr:x}: the executable has no instrumented PCs")
        known = [pc for index, pc in enumerate(self._pcs) if self._has_source(index)]
        where = f", the lowest of them 0x{min(known):x}" if known else ""
        raise InputError(
            f"unable to find entry point 0x{addr:x}: of {len(self._pcs)} PCs, {len(known)} have a source "
            f"location{where}"
        )

    @cached_property
    def _possible_entry_points(self) -> tuple[array[int], array[int]]:
        """Those PCs that can answer, ascending, and their indexes. Many tests may ask, of a million PCs."""
        pcs, files, nowhere = self._pcs, self.source_locations[0::3], SourceLocation.INVALID.file
        points = enumerate(zip(pcs, files, strict=True))
        located = [i for i, (pc, file) in points if file != nowhere and pc not in (0, PLACEHOLDER_PC)]
        located.sort(key=pcs.__getitem__)
        return array("Q", map(pcs.__getitem__, located)), array("I", located)

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
    tables_folder = _tables_folder(step)
    with Executable(step.rebuilt_executable) as executable:
        seen_pcs = SeenPcs(path)
        try:
            pcs = seen_pcs.pc_addrs()
            oddities = check_match(executable, pcs, path)
            known = tables_folder and load_tables(tables_folder, coverage_id, executable, pcs)
            flaws: list[str] = []
            tables = known or _make_tables(executable, pcs, flaws, progress)
            facts = ExecutableFacts(
                executable.path,
                executable.state,
                tables.has_debug_info,
                tables.zig_version,
            )

            def keep() -> None:
                # Of what is flawed, people should be told each time.
                if tables_folder is not None and known is None and tables.has_debug_info and not flaws:
                    _keep_tables(tables_folder, coverage_id, facts, pcs, tables)

            return CoverageMap(
                coverage_id,
                facts,
                seen_pcs,
                pcs,
                tables.coverage,
                tables.source_locations,
                tables.functions,
                History(len(pcs), _history_path(step, coverage_id)),
                start_timestamp,
                (*oddities, *flaws),
                keep,
            )
        except BaseException:
            seen_pcs.close()
            raise


def _make_tables(
    executable: Executable, pcs: array[int], flaws: list[str], progress: Progress
) -> FinishedTables:
    """The tables of an executable that nobody has looked at before, and what is wrong with them."""
    coverage = Coverage()
    with Sweeping() as sweeping:
        info = _debug_info(executable, pcs, flaws, sweeping)
        locations, functions = resolve_points(executable, info, pcs, coverage, flaws, progress)
    version = None if info is None else executable.zig_version()
    return FinishedTables(info is not None, version, coverage, locations, functions)


def _keep_tables(
    folder: Path,
    coverage_id: int,
    facts: ExecutableFacts,
    pcs: array[int],
    tables: FinishedTables,
) -> None:
    """Write the tables for the next look at the same executable."""
    try:
        with Executable(facts.path) as executable:
            if executable.state == facts.state:
                save_tables(folder, coverage_id, executable, pcs, tables)
    except InputError as error:
        log.warning("%s; the tables of '%s' are made anew at the next start", error, facts.path)


def _debug_info(
    executable: Executable, pcs: array[int], oddities: list[str], sweeping: Sweeping
) -> Info | None:
    """None without usable debug info, which is an oddity and no error: counters can be shown."""
    try:
        info = Info(executable, sweeping)
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


def _tables_folder(step: FuzzRunStep) -> Path | None:
    """Where finished tables wait for the next look at the same executable; None to forget them."""
    if step.tables_dir is not None or step.cache_root is None:
        return step.tables_dir
    return paths.data_folder(step.cache_root) / "tables"


def _history_path(step: FuzzRunStep, coverage_id: int) -> Path | None:
    """Where the history is kept from one start of the server to the next."""
    if step.cache_root is None:
        log.info(
            "step '%s' has no cache folder: the history is lost when the server stops",
            step.name,
        )
        return None
    return paths.data_folder(step.cache_root) / "history" / coverage_file_name(coverage_id)
