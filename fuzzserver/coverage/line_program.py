"""One pass through a DWARF line program (DWARF 5, section 6.2; Zig: ``std/debug/Dwarf.zig``).

A line program is a byte code that makes rows (address, file, line, column). We do not want the
rows, of which there are millions, but the answer for some addresses: for each, the row with the
greatest address not above it. So the addresses are sorted and the pass walks along them; a row is
looked at again only when the program moves past an address that waits for it.

What counts as a row is as in Zig: a later row at the same address replaces the earlier one, rows
with line 0 are dropped, and the end of a sequence makes no row, so an address behind a sequence
still belongs to that sequence's last row.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from fuzzserver.errors import DebugInfoError

__all__ = ["PROGRESS_STEP", "FileEntry", "LineProgram", "ResolvedRows", "resolve_rows"]

U32_MAX = 0xFFFFFFFF
PROGRESS_STEP = 1000
"""Targets between two reports, some milliseconds of work."""
_INFINITY = 1 << 65
"""Above every address."""

# Standard and extended opcodes (DWARF 5, sections 6.2.5.2 and 6.2.5.3).
LNS_COPY = 1
LNS_ADVANCE_PC = 2
LNS_ADVANCE_LINE = 3
LNS_SET_FILE = 4
LNS_SET_COLUMN = 5
LNS_NEGATE_STMT = 6
LNS_SET_BASIC_BLOCK = 7
LNS_CONST_ADD_PC = 8
LNS_FIXED_ADVANCE_PC = 9
LNE_END_SEQUENCE = 1
LNE_SET_ADDRESS = 2
LNE_DEFINE_FILE = 3


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of a unit: index into the unit's directories, and a name."""

    dir_index: int
    path: bytes


@dataclass(frozen=True, slots=True)
class LineProgram:
    """Header and place of one program."""

    version: int
    minimum_instruction_length: int
    line_base: int
    line_range: int
    opcode_base: int
    standard_opcode_lengths: tuple[int, ...]
    directories: tuple[bytes, ...]
    files: tuple[FileEntry, ...]
    data: bytes
    """The whole ``.debug_line`` section."""
    start: int
    end: int
    """The program's bytes are ``data[start:end]``."""


@dataclass(frozen=True, slots=True)
class ResolvedRows:
    """The answers of ``resolve_rows``: item i of each array is for target i."""

    found: bytearray
    """1 where there is a row."""
    file: array[int]
    """The file register: counts from 1 in versions below 5, from 0 since."""
    line: array[int]
    column: array[int]
    defined_files: list[FileEntry]
    """Files that the program itself added to those of its header."""


@dataclass(frozen=True, slots=True)
class _Tail:
    """The last row of a stretch of ascending addresses: it holds for all addresses above, too."""

    address: int
    stretch: int
    file: int
    line: int
    column: int


def resolve_rows(
    program: LineProgram, targets: array[int], progress: Callable[[int], None] = lambda done: None
) -> ResolvedRows:
    """The row for each of ``targets``, which must be sorted ascending.

    ``progress`` is told now and then how many targets lie behind. Raises DebugInfoError if the program
    is cut off or nonsensical.
    """
    if program.line_range == 0 or program.opcode_base == 0:
        raise DebugInfoError(
            f"line program with line_range {program.line_range} and opcode_base {program.opcode_base}"
        )
    try:
        return _sweep(program, targets, progress)
    except IndexError:
        raise DebugInfoError(
            f"line program at 0x{program.start:x} runs beyond .debug_line ({len(program.data)} bytes)"
        ) from None
    except (OverflowError, ValueError) as error:
        raise DebugInfoError(f"line program at 0x{program.start:x} is nonsensical: {error}") from error


def _advances(program: LineProgram) -> tuple[list[int], list[int]]:
    """For each opcode what a special opcode adds to address and line."""
    address_advance, line_advance = [0] * 256, [0] * 256
    for opcode in range(program.opcode_base, 256):
        steps, lines = divmod(opcode - program.opcode_base, program.line_range)
        address_advance[opcode] = steps * program.minimum_instruction_length
        line_advance[opcode] = program.line_base + lines
    return address_advance, line_advance


def _sweep(program: LineProgram, targets: array[int], progress: Callable[[int], None]) -> ResolvedRows:
    # One long loop on purpose: it runs once for each opcode, of which a large executable has tens
    # of millions, and a call for each would double its time. Locals are the state machine's registers.
    data, position, end = program.data, program.start, program.end
    opcode_base, min_inst = program.opcode_base, program.minimum_instruction_length
    address_advance, line_advance = _advances(program)
    const_add_pc = min_inst * ((255 - opcode_base) // program.line_range)

    count = len(targets)
    zeros = array("I", bytes(4 * count))
    out = ResolvedRows(bytearray(count), zeros[:], zeros[:], zeros[:], [])
    best_address = array("Q", bytes(8 * count))
    best_stretch = zeros[:]
    tails: list[_Tail] = []

    address, file, line, column = 0, 1, 1, 0
    # The latest row, which waits for a row at a higher address; -1 when a new stretch begins.
    row_address, row_file, row_line, row_column = -1, 0, 0, 0
    stretch = 0
    # The first target that is not below the latest row.
    next_index = 0
    next_target = targets[0] if count else _INFINITY
    next_report = PROGRESS_STEP

    while position < end:
        opcode = data[position]
        position += 1
        if opcode >= opcode_base:
            address += address_advance[opcode]
            line += line_advance[opcode]
        elif opcode == LNS_COPY:
            pass
        elif opcode == LNS_SET_COLUMN:
            column = data[position]
            position += 1
            if column >= 0x80:
                column, position = _uleb128(data, position - 1)
            continue
        elif opcode == LNS_ADVANCE_LINE:
            value, position = _sleb128(data, position)
            line += value
            continue
        elif opcode == LNS_ADVANCE_PC:
            value, position = _uleb128(data, position)
            address += value * min_inst
            continue
        elif opcode == LNS_NEGATE_STMT or opcode == LNS_SET_BASIC_BLOCK:
            continue
        elif opcode == LNS_SET_FILE:
            file, position = _uleb128(data, position)
            continue
        elif opcode == LNS_CONST_ADD_PC:
            address += const_add_pc
            continue
        elif opcode == LNS_FIXED_ADVANCE_PC:
            address += data[position] | data[position + 1] << 8
            position += 2
            continue
        elif opcode != 0:
            for _ in range(program.standard_opcode_lengths[opcode - 1]):
                _, position = _uleb128(data, position)
            continue
        else:
            size, position = _uleb128(data, position)
            if size == 0:
                raise DebugInfoError(f"extended opcode of no bytes at 0x{position:x} of .debug_line")
            extended = data[position]
            if extended == LNE_SET_ADDRESS:
                address = int.from_bytes(data[position + 1 : position + 9], "little")
            elif extended == LNE_DEFINE_FILE:
                out.defined_files.append(_define_file(data, position + 1))
            ends_stretch = extended == LNE_END_SEQUENCE or address < row_address
            if ends_stretch and row_address >= 0:
                tails.append(_Tail(row_address, stretch, row_file, row_line, row_column))
                stretch += 1
                row_address = -1
            if extended == LNE_END_SEQUENCE:
                address, file, line, column = 0, 1, 1, 0
            if row_address < 0:
                next_index = bisect_left(targets, address)
                next_target = targets[next_index] if next_index < count else _INFINITY
            position += size
            continue

        if line == 0:
            continue
        if address > next_target:
            # Targets between the waiting row and this one belong to the waiting row.
            while next_target < address:
                if row_address >= 0 and (
                    not out.found[next_index] or row_address >= best_address[next_index]
                ):
                    out.found[next_index] = 1
                    best_address[next_index] = row_address
                    best_stretch[next_index] = stretch
                    out.file[next_index] = row_file
                    out.line[next_index] = row_line if 0 <= row_line <= U32_MAX else U32_MAX
                    out.column[next_index] = row_column if row_column <= U32_MAX else U32_MAX
                next_index += 1
                next_target = targets[next_index] if next_index < count else _INFINITY
            if next_index >= next_report:
                next_report = next_index + PROGRESS_STEP
                progress(next_index)
        row_address, row_file, row_line, row_column = address, file, line, column

    if row_address >= 0:
        tails.append(_Tail(row_address, stretch, row_file, row_line, row_column))
    _apply_tails(tails, targets, best_address, best_stretch, out)
    return out


def _apply_tails(
    tails: list[_Tail],
    targets: array[int],
    best_address: array[int],
    best_stretch: array[int],
    out: ResolvedRows,
) -> None:
    """Give targets behind the end of a stretch that stretch's last row, if no other is nearer."""
    tails.sort(key=lambda tail: (tail.address, tail.stretch))
    addresses = [tail.address for tail in tails]
    for index, target in enumerate(targets):
        place = bisect_right(addresses, target)
        if place == 0:
            continue
        tail = tails[place - 1]
        if out.found[index] and (best_address[index], best_stretch[index]) >= (tail.address, tail.stretch):
            continue
        out.found[index] = 1
        out.file[index] = tail.file
        out.line[index] = tail.line if 0 <= tail.line <= U32_MAX else U32_MAX
        out.column[index] = min(tail.column, U32_MAX)


def _define_file(data: bytes, position: int) -> FileEntry:
    end = data.index(b"\0", position)
    dir_index, _ = _uleb128(data, end + 1)
    return FileEntry(dir_index, data[position:end])


def _uleb128(data: bytes, position: int) -> tuple[int, int]:
    """An unsigned LEB128 number (DWARF 5, section 7.6), and the position behind it."""
    byte = data[position]
    position += 1
    if byte < 0x80:
        return byte, position
    value, shift = byte & 0x7F, 7
    while byte >= 0x80:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
    return value, position


def _sleb128(data: bytes, position: int) -> tuple[int, int]:
    """A signed LEB128 number, and the position behind it."""
    start = position
    value, position = _uleb128(data, position)
    bits = 7 * (position - start)
    return (value - (1 << bits) if value >> (bits - 1) else value), position
