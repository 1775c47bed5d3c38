"""One pass through a DWARF line program (DWARF 5, section 6.2; Zig: ``std/debug/Dwarf.zig``).

A line program is a byte code that makes rows (address, file, line, column). We do not want the
rows, of which there are millions, but the answer for some addresses: for each, the row with the
greatest address not above it. So the addresses are sorted and the pass walks along them; a row is
looked at again only when the program moves past an address that waits for it.

What counts as a row is as in Zig: a later row at the same address replaces the earlier one, rows
with line 0 are dropped, and the end of a sequence makes no row, so an address behind a sequence
still belongs to that sequence's last row.

A program may also be swept in parts, between sequences: ``join`` makes one answer of them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import islice, pairwise
from operator import length_hint
from typing import NamedTuple

from fuzzserver.errors import DebugInfoError

__all__ = [
    "NO_FILE",
    "PROGRESS_STEP",
    "FileEntry",
    "LineProgram",
    "ResolvedRows",
    "Sweep",
    "Tail",
    "join",
    "resolve_rows",
    "sweep",
]

U32_MAX = 0xFFFFFFFF
NO_FILE = U32_MAX
"""Stands for the file of a target that has no row."""
PROGRESS_STEP = 1000
"""Targets between two reports, less than a millisecond of work."""
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


class FileEntry(NamedTuple):
    """A file of a unit: index into the unit's directories, and a name."""

    dir_index: int
    path: bytes


class LineProgram(NamedTuple):
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


class Tail(NamedTuple):
    """The last row of a stretch of ascending addresses: it holds for all addresses above, too."""

    address: int
    stretch: int
    file: int
    line: int
    column: int


class Sweep(NamedTuple):
    """What one pass has found, for the targets from number ``first`` on."""

    first: int
    address: array[int]
    """Of the row that answers the target, which shows how near it is."""
    stretch: array[int]
    """The number of the stretch that the row is from; of several at one address, the last one counts."""
    file: array[int]
    line: array[int]
    column: array[int]
    tails: list[Tail]
    """One for each stretch, in their order."""
    defined_files: list[FileEntry]
    sequence_end: int
    """Where the last whole sequence ends, as a place in the section."""


class ResolvedRows(NamedTuple):
    """The answers of ``resolve_rows``: item i of each array is for target i."""

    file: array[int]
    """The file register: counts from 1 in versions below 5, from 0 since; ``NO_FILE`` without a row."""
    line: array[int]
    column: array[int]
    defined_files: list[FileEntry]
    """Files that the program itself added to those of its header."""


def resolve_rows(
    program: LineProgram, targets: array[int], progress: Callable[[int], None] = lambda done: None
) -> ResolvedRows:
    """The row for each of ``targets``, which must be sorted ascending.

    ``progress`` is told now and then how many targets lie behind. Raises DebugInfoError if the program
    is cut off or nonsensical.
    """
    return join(targets, [sweep(program, targets, progress)])


def sweep(
    program: LineProgram,
    targets: array[int],
    progress: Callable[[int], None] = lambda done: None,
    first_stretch: int = 0,
) -> Sweep:
    """Run ``program`` once; it may be a part of one that begins and ends between sequences.

    Its stretches are counted from ``first_stretch`` on, which must be beyond those of the parts before.
    """
    if program.line_range == 0 or program.opcode_base == 0:
        raise DebugInfoError(
            f"line program with line_range {program.line_range} and opcode_base {program.opcode_base}"
        )
    if program.end > len(program.data):
        raise _cut_off(program)
    try:
        return _sweep(program, targets, progress, first_stretch)
    except IndexError:
        raise _cut_off(program) from None
    except (OverflowError, ValueError) as error:
        raise DebugInfoError(f"line program at 0x{program.start:x} is nonsensical: {error}") from error


def _cut_off(program: LineProgram) -> DebugInfoError:
    return DebugInfoError(
        f"line program at 0x{program.start:x} runs beyond .debug_line ({len(program.data)} bytes)"
    )


def _advances(program: LineProgram) -> tuple[list[int], list[int]]:
    """For each opcode what a special opcode adds to address and line."""
    address_advance, line_advance = [0] * 256, [0] * 256
    for opcode in range(program.opcode_base, 256):
        steps, lines = divmod(opcode - program.opcode_base, program.line_range)
        address_advance[opcode] = steps * program.minimum_instruction_length
        line_advance[opcode] = program.line_base + lines
    return address_advance, line_advance


def _sweep(program: LineProgram, targets: array[int], progress: Callable[[int], None], stretch: int) -> Sweep:
    # One long loop on purpose: it runs once for each opcode, of which a large executable has tens
    # of millions, and a call for each would double its time. Locals are the state machine's registers;
    # an iterator hands out the bytes faster than an index does, and a loop that ends at once takes one
    # faster than a call. What is frequent is asked for first.
    code = iter(program.data[program.start : program.end])
    next_byte = code.__next__
    opcode_base, min_inst = program.opcode_base, program.minimum_instruction_length
    address_advance, line_advance = _advances(program)
    const_add_pc = min_inst * ((255 - opcode_base) // program.line_range)

    count = len(targets)
    out = _blank(count)
    out_address, out_stretch = out.address, out.stretch
    out_file, out_line, out_column = out.file, out.line, out.column
    sequence_end = program.start

    address, file, line, column = 0, 1, 1, 0
    # The latest row, which waits for a row at a higher address; -1 when a new stretch begins.
    row_address, row_file, row_line, row_column = -1, 0, 0, 0
    # The first target that is not below the latest row.
    next_index = 0
    next_target = targets[0] if count else _INFINITY
    next_report = PROGRESS_STEP

    try:
        for opcode in code:
            if opcode >= opcode_base:
                address += address_advance[opcode]
                line += line_advance[opcode]
            elif opcode == LNS_SET_COLUMN:
                for column in code:  # noqa: B007
                    break
                else:
                    raise StopIteration
                if column >= 0x80:
                    column, _ = _longer(column, next_byte)
                continue
            elif opcode == LNS_NEGATE_STMT:
                continue
            elif opcode == LNS_CONST_ADD_PC:
                address += const_add_pc
                continue
            elif opcode == LNS_ADVANCE_LINE:
                value = next_byte()
                if value >= 0x80:
                    value, bits = _longer(value, next_byte)
                    line += value - (1 << bits) if value >> bits - 1 else value
                else:
                    line += value if value < 0x40 else value - 0x80
                continue
            elif opcode == LNS_SET_BASIC_BLOCK:
                continue
            elif opcode == LNS_COPY:
                pass
            elif opcode == LNS_ADVANCE_PC:
                address += min_inst * _uleb128(next_byte)
                continue
            elif opcode == LNS_SET_FILE:
                file = _uleb128(next_byte)
                continue
            elif opcode == LNS_FIXED_ADVANCE_PC:
                address += next_byte() | next_byte() << 8
                continue
            elif opcode != 0:
                for _ in range(program.standard_opcode_lengths[opcode - 1]):
                    _uleb128(next_byte)
                continue
            else:
                size = _uleb128(next_byte)
                if size == 0:
                    position = program.end - length_hint(code)
                    raise DebugInfoError(f"extended opcode of no bytes at 0x{position:x} of .debug_line")
                extended = next_byte()
                arguments = bytes(islice(code, size - 1))
                if extended == LNE_SET_ADDRESS:
                    address = int.from_bytes(arguments[:8], "little")
                elif extended == LNE_DEFINE_FILE:
                    out.defined_files.append(_define_file(arguments))
                ends_sequence = extended == LNE_END_SEQUENCE
                if (ends_sequence or address < row_address) and row_address >= 0:
                    out.tails.append(Tail(row_address, stretch, row_file, row_line, row_column))
                    stretch += 1
                    row_address = -1
                if ends_sequence:
                    address, file, line, column = 0, 1, 1, 0
                    sequence_end = program.end - length_hint(code)
                if row_address < 0:
                    next_index = bisect_left(targets, address)
                    next_target = targets[next_index] if next_index < count else _INFINITY
                continue

            if not line:
                continue
            if address > next_target:
                # Targets between the waiting row and this one belong to the waiting row.
                while next_target < address:
                    if row_address >= out_address[next_index]:
                        out_address[next_index] = row_address
                        out_stretch[next_index] = stretch
                        out_file[next_index] = row_file
                        try:
                            out_line[next_index], out_column[next_index] = row_line, row_column
                        except OverflowError:
                            out_line[next_index], out_column[next_index] = _capped(row_line, row_column)
                    next_index += 1
                    next_target = targets[next_index] if next_index < count else _INFINITY
                if next_index >= next_report:
                    next_report = next_index + PROGRESS_STEP
                    progress(next_index)
            row_address, row_file, row_line, row_column = address, file, line, column
    except StopIteration:
        # The last opcode has no end. What it says concerns no row, unless rows are lost with it.
        if program.end == len(program.data):
            raise _cut_off(program) from None

    if row_address >= 0:
        out.tails.append(Tail(row_address, stretch, row_file, row_line, row_column))
    return out._replace(sequence_end=sequence_end)


def _blank(count: int) -> Sweep:
    """No answer for any of ``count`` targets."""
    zeros = array("I", bytes(4 * count))
    no_files = array("I", [NO_FILE]) * count
    return Sweep(0, array("Q", bytes(8 * count)), zeros, no_files, zeros[:], zeros[:], [], [], 0)


def join(targets: array[int], sweeps: Sequence[Sweep]) -> ResolvedRows:
    """The answers of one program from those of its parts, which are given in their order."""
    whole = sweeps[0] if len(sweeps[0].file) == len(targets) else _blank(len(targets))
    covered: list[range] = []
    for part in sweeps:
        span = range(part.first, part.first + len(part.file))
        if part is not whole:
            _merge(whole, part, span, any(span.start < old.stop and old.start < span.stop for old in covered))
        covered.append(span)
    _apply_tails(whole, targets)
    return ResolvedRows(whole.file, whole.line, whole.column, whole.defined_files)


def _merge(whole: Sweep, part: Sweep, span: range, overlaps: bool) -> None:
    """Add what ``part`` has found for the targets in ``span`` to what the parts before it have."""
    whole.tails.extend(part.tails)
    whole.defined_files.extend(part.defined_files)
    columns = list(zip(whole[1:6], part[1:6], strict=True))
    if not overlaps:
        for ours, theirs in columns:
            ours[span.start : span.stop] = theirs
        return
    for index, (place, file) in enumerate(zip(span, part.file, strict=True)):
        if file != NO_FILE and part.address[index] >= whole.address[place]:
            for ours, theirs in columns:
                ours[place] = theirs[index]


def _apply_tails(out: Sweep, targets: array[int]) -> None:
    """Give targets behind the end of a stretch that stretch's last row, if no other is nearer."""
    tails = sorted(out.tails)
    limits = [bisect_left(targets, tail.address) for tail in tails] + [len(targets)]
    for tail, (start, end) in zip(tails, pairwise(limits), strict=True):
        # Mostly no target lies behind a stretch, and this one look at the addresses tells so.
        if start == end or min(out.address[start:end]) > tail.address:
            continue
        if tail.file > U32_MAX:
            raise DebugInfoError(f"line program is nonsensical: it sets file number {tail.file}")
        line, column = _capped(tail.line, tail.column)
        for index in range(start, end):
            if (out.address[index], out.stretch[index]) <= tail[:2]:
                out.file[index] = tail.file
                out.line[index] = line
                out.column[index] = column


def _capped(line: int, column: int) -> tuple[int, int]:
    """What Zig makes of numbers that do not fit."""
    return (line if 0 <= line <= U32_MAX else U32_MAX), min(column, U32_MAX)


def _define_file(arguments: bytes) -> FileEntry:
    """The arguments of the opcode that defines a file: its name, its folder, and what nobody needs."""
    path, _, numbers = arguments.partition(b"\0")
    try:
        return FileEntry(_uleb128(iter(numbers).__next__), path)
    except StopIteration:
        raise DebugInfoError(f"line program defines the file {path!r} without a folder") from None


def _uleb128(next_byte: Callable[[], int]) -> int:
    """An unsigned LEB128 number (DWARF 5, section 7.6)."""
    byte = next_byte()
    return byte if byte < 0x80 else _longer(byte, next_byte)[0]


def _longer(byte: int, next_byte: Callable[[], int]) -> tuple[int, int]:
    """A LEB128 number of several bytes, of which ``byte`` is the first, as if it had no sign; its bits."""
    value, bits = byte & 0x7F, 7
    while byte >= 0x80:
        byte = next_byte()
        value |= (byte & 0x7F) << bits
        bits += 7
    return value, bits
