"""Which source location has this address? (Zig: ``std/debug/Info.zig`` and ``std/debug/Coverage.zig``)

pyelftools reads the containers: units, their ranges, the headers of line programs. The line programs
themselves run in ``line_program``. The order in which tables grow is Zig's, so that the same
executable and coverage file give the same bytes.
"""

from __future__ import annotations

import logging
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field
from io import BytesIO

from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo
from elftools.dwarf.ranges import BaseAddressEntry

from fuzzserver.coverage.executable import Executable
from fuzzserver.coverage.line_program import FileEntry, LineProgram, ResolvedRows, resolve_rows
from fuzzserver.coverage.tables import Coverage
from fuzzserver.errors import DebugInfoError
from fuzzserver.step import SourcePath
from fuzzserver.wire.abi import FileIndex, SourceLocation

__all__ = ["Info", "Progress", "compilation_folder"]

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""

_SECTIONS = (
    "info",
    "abbrev",
    "str",
    "line",
    "line_str",
    "ranges",
    "rnglists",
    "addr",
    "str_offsets",
)
_REQUIRED = (".debug_info", ".debug_abbrev", ".debug_line")


@dataclass(frozen=True, slots=True)
class _Range:
    start: int
    end: int
    unit: int
    """Index into the units."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbours among the sorted PCs that lie in the same unit: items ``[start, end)``."""

    start: int
    end: int
    unit: int


class Info:
    """The debug info of one executable, read as far as needed.

    ``units`` is empty if there is no debug info (ReleaseSmall, or stripped): every address is then
    invalid, which is no error.
    """

    def __init__(self, executable: Executable) -> None:
        """Read units and ranges; DebugInfoError if they contradict themselves."""
        self._executable = executable
        self.units: list[CompileUnit] = []
        self._ranges: list[_Range] = []
        if not all(executable.has_section(name) for name in _REQUIRED):
            return
        self._debug_line = executable.section_data(".debug_line")
        try:
            self._dwarf = _dwarf_info(executable)
            self.units = list(self._dwarf.iter_CUs())
        # pyelftools reports damaged input by whatever its parsers run into.
        except Exception as error:
            raise DebugInfoError(f"debug info of '{executable.path}' is damaged: {error!r}") from error
        for index, unit in enumerate(self.units):
            try:
                self._ranges += [_Range(*pair, index) for pair in _pc_ranges(unit)]
            except Exception as error:
                self._report(unit, "has no readable address ranges", error)
        self._ranges.sort(key=lambda item: item.start)

    def resolve_addresses(
        self, sorted_pcs: array[int], coverage: Coverage, progress: Progress = lambda done, total: None
    ) -> array[int]:
        """Source locations of ``sorted_pcs`` (ascending), three u32 each: file, line, column.

        Directories and files are added to ``coverage`` in the order in which they are first seen.
        ``progress`` is told now and then how many of how many addresses are done.
        """
        locations = array("I", astuple(SourceLocation.INVALID)) * len(sorted_pcs)
        runs = list(self._runs(sorted_pcs))
        targets: dict[int, array[int]] = {}
        for run in runs:
            targets.setdefault(run.unit, array("Q")).extend(sorted_pcs[run.start : run.end])
        resolved: dict[int, _UnitLocations | None] = {}
        behind = 0
        for unit, pcs in targets.items():
            resolved[unit] = self._resolve_unit(unit, pcs, _continued(progress, behind, len(sorted_pcs)))
            behind += len(pcs)
            progress(behind, len(sorted_pcs))
        done = dict.fromkeys(targets, 0)
        for run in runs:
            offset = done[run.unit]
            done[run.unit] += run.end - run.start
            unit_files = resolved[run.unit]
            if unit_files is not None:
                unit_files.write(run, offset, coverage, locations)
        return locations

    def source_paths(self) -> list[SourcePath]:
        """Every file that a line program names, whether it exists or not.

        The names are those of the tables, in which a directory may be relative to its unit's own.
        """
        paths: dict[SourcePath, None] = {}
        for index in range(len(self.units)):
            program = self._line_program(index)
            if program is None:
                continue
            directories = [os.fsdecode(directory) for directory in program.directories]
            comp_dir = directories[0] if directories else ""
            for entry in program.files:
                if entry.path and entry.dir_index < len(directories):
                    directory = directories[entry.dir_index]
                    base_dir = "" if os.path.isabs(directory) else comp_dir
                    paths[SourcePath(directory, os.fsdecode(entry.path), base_dir)] = None
        return list(paths)

    def _runs(self, sorted_pcs: array[int]) -> Iterator[_Run]:
        """Assign PCs to units as Zig does: the first range, by start, that ends above the PC."""
        position = 0
        for item in self._ranges:
            end = bisect_left(sorted_pcs, item.end, position)
            if end <= position:
                continue
            start = bisect_left(sorted_pcs, item.start, position, end)
            if start < end:
                yield _Run(start, end, item.unit)
            position = end

    def _resolve_unit(
        self, index: int, pcs: array[int], progress: Callable[[int], None]
    ) -> _UnitLocations | None:
        program = self._line_program(index)
        if program is None:
            return None
        try:
            return _UnitLocations(program, resolve_rows(program, pcs, progress))
        except DebugInfoError as error:
            self._report(self.units[index], f"resolves none of its {len(pcs)} points", error)
            return None

    def _line_program(self, index: int) -> LineProgram | None:
        """The program of a unit, None if it has none; a damaged one is reported."""
        unit = self.units[index]
        try:
            return _line_program(self._dwarf, unit, self._debug_line)
        except Exception as error:
            self._report(unit, "has no readable line program", error)
            return None

    def _report(self, unit: CompileUnit, what: str, error: Exception) -> None:
        log.warning("'%s': unit at 0x%x %s: %s", self._executable.path, unit.cu_offset, what, error)


@dataclass(slots=True)
class _UnitLocations:
    """The rows of one unit's PCs, in ascending order of the PCs."""

    program: LineProgram
    rows: ResolvedRows
    _interned: dict[int, FileIndex | None] = field(default_factory=dict)
    """File register to index in the tables."""

    def write(self, run: _Run, offset: int, coverage: Coverage, locations: array[int]) -> None:
        """Store the locations of ``run``, whose rows begin at ``offset``."""
        rows = self.rows
        interned = self._interned
        for index in range(offset, offset + run.end - run.start):
            if not rows.found[index]:
                continue
            number = rows.file[index]
            if number not in interned:
                interned[number] = self._intern(number, coverage)
            file = interned[number]
            if file is None:
                continue
            place = 3 * (run.start + index - offset)
            locations[place] = file
            locations[place + 1] = rows.line[index]
            locations[place + 2] = rows.column[index]

    def _intern(self, number: int, coverage: Coverage) -> FileIndex | None:
        """The table's index of the unit's file ``number``; None if there is no such file."""
        index = number - (self.program.version < 5)
        files = self.program.files
        if index >= len(files):
            files = (*files, *self.rows.defined_files)
        if not 0 <= index < len(files):
            return None
        entry = files[index]
        if entry.dir_index >= len(self.program.directories):
            return None
        return coverage.intern_file(self.program.directories[entry.dir_index], entry.path)


def compilation_folder(executable: Executable) -> str | None:
    """The folder of the first unit: that of the root source file, which Zig puts first.

    Only that one unit is read. None if there is no debug info, or none that can be read.
    """
    if not all(executable.has_section(name) for name in _REQUIRED):
        return None
    try:
        unit = next(_dwarf_info(executable).iter_CUs(), None)
        attribute = unit and unit.get_top_DIE().attributes.get("DW_AT_comp_dir")
        return os.fsdecode(attribute.value) if attribute else None
    # pyelftools reports damaged input by whatever its parsers run into.
    except Exception as error:
        log.warning("debug info of '%s' is damaged: %r", executable.path, error)
        return None


def _continued(progress: Progress, behind: int, total: int) -> Callable[[int], None]:
    """Tells the progress of one unit as that of the whole."""
    return lambda count: progress(behind + count, total)


def _dwarf_info(executable: Executable) -> DWARFInfo:
    """pyelftools' view of the sections that we need; its own loader would read all of them."""
    sections: dict[str, DebugSectionDescriptor | None] = {}
    for name in _SECTIONS:
        section = f".debug_{name}"
        if not executable.has_section(section):
            sections[f"debug_{name}_sec"] = None
            continue
        data = executable.section_data(section)
        sections[f"debug_{name}_sec"] = DebugSectionDescriptor(BytesIO(data), section, 0, len(data), 0)
    unused = ("aranges", "frame", "loc", "pubtypes", "pubnames", "loclists", "sup", "types")
    return DWARFInfo(
        config=DwarfConfig(little_endian=True, machine_arch="x64", default_address_size=8),
        eh_frame_sec=None,
        gnu_debugaltlink_sec=None,
        **sections,
        **{f"debug_{name}_sec": None for name in unused},
    )


def _pc_ranges(unit: CompileUnit) -> Iterator[tuple[int, int]]:
    """The address ranges of a unit: low_pc and high_pc if it has both, else its range list."""
    attributes = unit.get_top_DIE().attributes
    low = attributes.get("DW_AT_low_pc")
    high = attributes.get("DW_AT_high_pc")
    if low is not None and high is not None:
        # An address, or, in any form of constant, an offset from low_pc.
        is_address = high.form.startswith("DW_FORM_addr")
        yield low.value, high.value if is_address else low.value + high.value
        return
    ranges = attributes.get("DW_AT_ranges")
    lists = unit.dwarfinfo.range_lists()
    if ranges is None or lists is None:
        return
    base = low.value if low is not None else 0
    for entry in lists.get_range_list_at_offset(ranges.value, unit):
        if isinstance(entry, BaseAddressEntry):
            base = entry.base_address
        elif entry.begin_offset != entry.end_offset:  # LLVM emits empty ranges, too.
            start = 0 if entry.is_absolute else base
            yield start + entry.begin_offset, start + entry.end_offset


def _line_program(dwarf: DWARFInfo, unit: CompileUnit, debug_line: bytes) -> LineProgram | None:
    """The line program that the unit names, its header read by pyelftools."""
    attributes = unit.get_top_DIE().attributes
    comp_dir = attributes.get("DW_AT_comp_dir")
    stmt_list = attributes.get("DW_AT_stmt_list")
    if comp_dir is None or stmt_list is None:
        return None
    parsed = dwarf.line_program_for_CU(unit)
    if parsed is None:
        return None
    header = parsed.header
    version: int = header["version"]
    directories = tuple(header["include_directory"])
    if version < 5:
        directories = (comp_dir.value, *directories)
    files = tuple(FileEntry(entry.dir_index or 0, entry.name or b"") for entry in header["file_entry"])
    _check_names(directories, files)
    # The header's own length says where the program begins: producers may append to the header.
    offset_size = 8 if debug_line[stmt_list.value : stmt_list.value + 4] == b"\xff\xff\xff\xff" else 4
    unit_length_size = 12 if offset_size == 8 else 4
    prologue = stmt_list.value + unit_length_size + 2 + (2 if version >= 5 else 0) + offset_size
    return LineProgram(
        version=version,
        minimum_instruction_length=header["minimum_instruction_length"],
        line_base=header["line_base"],
        line_range=header["line_range"],
        opcode_base=header["opcode_base"],
        standard_opcode_lengths=tuple(header["standard_opcode_lengths"]),
        directories=directories,
        files=files,
        data=debug_line,
        start=prologue + header["header_length"],
        end=stmt_list.value + unit_length_size + header["unit_length"],
    )


def _check_names(directories: tuple[bytes, ...], files: tuple[FileEntry, ...]) -> None:
    """In damaged debug info, a name can have the form of a number, and a number that of a name."""
    names = (*directories, *(entry.path for entry in files))
    if not all(isinstance(name, bytes) for name in names):
        raise DebugInfoError("line program has a directory or file whose name is no string")
    if not all(isinstance(entry.dir_index, int) for entry in files):
        raise DebugInfoError("line program has a file whose directory is no number")
