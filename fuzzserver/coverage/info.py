"""Which source location has this address? (Zig: ``std/debug/Info.zig`` and ``std/debug/Coverage.zig``)

pyelftools reads the containers: units, their ranges, the headers of line programs. The line programs
themselves run in ``line_program``. The order in which tables grow is Zig's, so that the same
executable and coverage file give the same bytes.
"""

from __future__ import annotations

import logging
import os
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Container, Iterator
from functools import cached_property
from io import BytesIO
from operator import itemgetter
from typing import NamedTuple

from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo
from elftools.dwarf.ranges import BaseAddressEntry

from fuzzserver.coverage.executable import Executable
from fuzzserver.coverage.line_program import FileEntry, LineProgram, ResolvedRows
from fuzzserver.coverage.sweeping import Progress, Sweeping
from fuzzserver.coverage.tables import Coverage
from fuzzserver.errors import DebugInfoError
from fuzzserver.step import SourcePath
from fuzzserver.wire.abi import SourceLocation

__all__ = ["SLICE", "Info", "Locations", "Progress", "compilation_folder"]

log = logging.getLogger(__name__)

INVALID = SourceLocation.INVALID
_ADDRESS_PAIR = struct.Struct("<QQ")
_BASE_ADDRESS_FOLLOWS = (1 << 64) - 1
SLICE = 1 << 16
"""Points that are worked on in one go, some milliseconds of work."""

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


class _Run(NamedTuple):
    """Neighbours among the sorted PCs that lie in the same unit: items ``[start, end)``."""

    start: int
    end: int
    unit: int


class Locations(NamedTuple):
    """Source locations, item i of each array for address i."""

    file: array[int]
    line: array[int]
    column: array[int]

    @classmethod
    def invalid(cls, count: int) -> Locations:
        """Those of ``count`` addresses that nothing is known of."""
        return cls(*(array("I", [number]) * count for number in (INVALID.file, INVALID.line, INVALID.column)))


class Info:
    """The debug info of one executable, read as far as needed.

    ``units`` is empty if there is no debug info (ReleaseSmall, or stripped): every address is then
    invalid, which is no error.
    """

    def __init__(self, executable: Executable, sweeping: Sweeping | None = None) -> None:
        """Read units and ranges; DebugInfoError if they contradict themselves.

        ``sweeping`` is who looks through the line programs; its context is the caller's.
        """
        self._executable = executable
        self._sweeping = sweeping or Sweeping()
        self.units: list[CompileUnit] = []
        self._ranges: list[tuple[int, int, int]] = []
        """Start, end, and index into the units."""
        if not all(executable.has_section(name) for name in _REQUIRED):
            return
        self._debug_line = executable.section_data(".debug_line")
        if sweeping is not None:
            sweeping.prepare(self._debug_line)
        try:
            self._dwarf = _dwarf_info(executable, self._debug_line)
            self.units = list(self._dwarf.iter_CUs())
        # pyelftools reports damaged input by whatever its parsers run into.
        except Exception as error:
            raise DebugInfoError(f"debug info of '{executable.path}' is damaged: {error!r}") from error
        for index, unit in enumerate(self.units):
            try:
                self._ranges += [(start, end, index) for start, end in _pc_ranges(unit)]
            except Exception as error:
                self._report(unit, "has no readable address ranges", error)
        self._ranges.sort(key=itemgetter(0))

    def resolve_addresses(
        self,
        sorted_pcs: array[int],
        coverage: Coverage,
        progress: Progress = lambda done, total: None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Locations:
        """Source locations of ``sorted_pcs``, which must be ascending; the same one may come twice.

        Directories and files are added to ``coverage`` in the order in which they are first seen.
        ``progress`` is told now and then how many of how many addresses are done. ``meanwhile`` is
        called once, while other processes look through the line programs, if they do.
        """
        runs = list(self._runs(sorted_pcs))
        targets: dict[int, array[int]] = {}
        for run in runs:
            targets.setdefault(run.unit, array("Q")).extend(sorted_pcs[run.start : run.end])
        programs = {unit: program for unit in targets if (program := self._line_program(unit)) is not None}
        with self._sweeping as sweeping:
            sweeping.begin([(program, targets[unit]) for unit, program in programs.items()])
            meanwhile()
            found = sweeping.finish(progress)
        locations = Locations.invalid(len(sorted_pcs))
        unit_files: dict[int, _UnitFiles] = {}
        for (unit, program), rows in zip(programs.items(), found, strict=True):
            if isinstance(rows, DebugInfoError):
                self._report(self.units[unit], f"resolves none of its {len(targets[unit])} points", rows)
            else:
                unit_files[unit] = _UnitFiles(program, rows, coverage)
        done = dict.fromkeys(targets, 0)
        for run in runs:
            offset = done[run.unit]
            done[run.unit] += run.end - run.start
            if run.unit in unit_files:
                unit_files[run.unit].write(run, offset, locations)
        return locations

    def source_paths(self) -> list[SourcePath]:
        """Every file that a line program names, whether it exists or not.

        The names are those of the tables, in which a directory may be relative to its unit's own. A unit
        without points is in no table, and its names are absolute: Zig's own parts name their files
        differently from what the tests see of the same library.
        """
        paths: dict[SourcePath, None] = {}
        for index in range(len(self.units)):
            program = self._line_program(index)
            if program is None:
                continue
            directories = [os.fsdecode(directory) for directory in program.directories]
            comp_dir = directories[0] if directories else ""
            if not all(map(os.path.isabs, directories)) and index not in self._units_with_points:
                directories = [os.path.join(comp_dir, directory) for directory in directories]
            for entry in program.files:
                if entry.path and entry.dir_index < len(directories):
                    directory = directories[entry.dir_index]
                    base_dir = "" if os.path.isabs(directory) else comp_dir
                    paths[SourcePath(directory, os.fsdecode(entry.path), base_dir)] = None
        return list(paths)

    @cached_property
    def _units_with_points(self) -> Container[int]:
        """By their indexes; all, if the executable does not tell its points."""
        pcs = self._executable.pc_addrs()
        if pcs is None:
            return range(len(self.units))
        return {run.unit for run in self._runs(array("Q", sorted(pcs)))}

    def _runs(self, sorted_pcs: array[int]) -> Iterator[_Run]:
        """Assign PCs to units as Zig does: the first range, by start, that ends above the PC."""
        position = 0
        run = _Run(0, 0, 0)
        for first, above, unit in self._ranges:
            end = bisect_left(sorted_pcs, above, position)
            if end <= position:
                continue
            start = bisect_left(sorted_pcs, first, position, end)
            # A unit may have a range for each function.
            if start == run.end and unit == run.unit:
                start = run.start
            elif run.start < run.end:
                yield run
            run = _Run(start, end, unit)
            position = end
        if run.start < run.end:
            yield run

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


class _UnitFiles(dict[int, int]):
    """The rows of one unit's PCs, in their order; as a dictionary, table index by file register.

    A file is interned when it is first asked for.
    """

    def __init__(self, program: LineProgram, rows: ResolvedRows, coverage: Coverage) -> None:
        super().__init__()
        self._program = program
        self._rows = rows
        self._coverage = coverage

    def write(self, run: _Run, offset: int, locations: Locations) -> None:
        """Store the locations of ``run``, whose rows begin at ``offset``."""
        rows = self._rows
        # Not all at once: a single call would keep all other threads waiting.
        for place in range(run.start, run.end, SLICE):
            here = slice(place, min(place + SLICE, run.end))
            there = slice(here.start - run.start + offset, here.stop - run.start + offset)
            files = array("I", map(self.__getitem__, rows.file[there]))
            locations.file[here] = files
            locations.line[here] = rows.line[there]
            locations.column[here] = rows.column[there]
            if INVALID.file in files:
                for index, file in enumerate(files, place):
                    if file == INVALID.file:
                        locations.line[index], locations.column[index] = INVALID.line, INVALID.column

    def __missing__(self, number: int) -> int:
        """The table's index of the unit's file ``number``; that of no file if there is none."""
        file = self[number] = self._intern(number)
        return file

    def _intern(self, number: int) -> int:
        index = number - (self._program.version < 5)
        files = self._program.files
        if index >= len(files):
            files = (*files, *self._rows.defined_files)
        if not 0 <= index < len(files):
            return INVALID.file
        entry = files[index]
        if entry.dir_index >= len(self._program.directories):
            return INVALID.file
        return self._coverage.intern_file(self._program.directories[entry.dir_index], entry.path)


def compilation_folder(executable: Executable, address: int) -> str | None:
    """Where the compiler was told to begin for the unit with the code at ``address``.

    For tests, that is the folder of the root source file. Zig mostly puts their unit first, and units
    behind it are not read. None if there is no such unit, or none that can be read.
    """
    if not all(executable.has_section(name) for name in _REQUIRED):
        return None
    try:
        for unit in _dwarf_info(executable, b"").iter_CUs():
            if any(start <= address < end for start, end in _pc_ranges(unit)):
                attribute = unit.get_top_DIE().attributes.get("DW_AT_comp_dir")
                return os.fsdecode(attribute.value) if attribute else None
        return None
    # pyelftools reports damaged input by whatever its parsers run into.
    except Exception as error:
        log.warning("debug info of '%s' is damaged: %r", executable.path, error)
        return None


def _dwarf_info(executable: Executable, debug_line: bytes) -> DWARFInfo:
    """pyelftools' view of the sections that we need; its own loader would read all of them."""
    sections: dict[str, DebugSectionDescriptor | None] = {}
    for name in _SECTIONS:
        section = f".debug_{name}"
        if not executable.has_section(section):
            sections[f"debug_{name}_sec"] = None
            continue
        data = debug_line if name == "line" else executable.section_data(section)
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
    section = unit.dwarfinfo.debug_ranges_sec
    if unit["version"] < 5 and section is not None:
        assert isinstance(section.stream, BytesIO)
        yield from _range_list(section.stream.getbuffer()[ranges.value :], base)
        return
    for entry in lists.get_range_list_at_offset(ranges.value, unit):
        if isinstance(entry, BaseAddressEntry):
            base = entry.base_address
        elif entry.begin_offset != entry.end_offset:  # LLVM emits empty ranges, too.
            start = 0 if entry.is_absolute else base
            yield start + entry.begin_offset, start + entry.end_offset


def _range_list(data: memoryview, base: int) -> Iterator[tuple[int, int]]:
    """The ranges of a list as it was before DWARF 5; it may have one for each function."""
    for start, end in _ADDRESS_PAIR.iter_unpack(data[: len(data) // 16 * 16]):
        if start == _BASE_ADDRESS_FOLLOWS:
            base = end
        elif start != end:  # LLVM emits empty ranges, too.
            yield base + start, base + end
        elif start == 0:
            return
    raise DebugInfoError("range list has no end")


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
