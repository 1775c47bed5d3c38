"""Line programs written and read the slow and obvious way, after DWARF 5, section 6.2."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from fuzzserver.coverage.line_program import LineProgram

STANDARD_LENGTHS = (0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1)
"""How many arguments each of the 12 standard opcodes has."""


def uleb(value: int) -> bytes:
    """An unsigned number in groups of 7 bits."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def sleb(value: int) -> bytes:
    """A signed number in groups of 7 bits."""
    out = bytearray()
    while not -64 <= value < 64:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value & 0x7F])


def extended(opcode: int, data: bytes = b"") -> bytes:
    """An extended opcode with its length."""
    return b"\0" + uleb(1 + len(data)) + bytes([opcode]) + data


@dataclass
class Row:
    """The registers that matter to us."""

    address: int = 0
    file: int = 1
    line: int = 1
    column: int = 0


def reference_rows(program: LineProgram) -> list[Row]:
    """Every row that the program makes, in its order; sequence ends are left out."""
    return _Interpreter(program).run()


class _Interpreter:
    """One opcode after the other, nothing clever."""

    def __init__(self, program: LineProgram) -> None:
        self.program = program
        self.position = program.start
        self.state = Row()
        self.rows: list[Row] = []

    def run(self) -> list[Row]:
        """Run the whole program."""
        while self.position < self.program.end:
            opcode = self.byte()
            if opcode >= self.program.opcode_base:
                self.special(opcode)
            elif opcode == 0:
                self.extended()
            else:
                self.standard(opcode)
        return self.rows

    def byte(self) -> int:
        """The next byte."""
        self.position += 1
        return self.program.data[self.position - 1]

    def uleb(self) -> int:
        """The next unsigned number."""
        value, shift = 0, 0
        while True:
            byte = self.byte()
            value += (byte % 128) << shift
            shift += 7
            if byte < 128:
                return value

    def sleb(self) -> int:
        """The next signed number."""
        start = self.position
        value = self.uleb()
        bits = 7 * (self.position - start)
        return value - 2**bits if value >= 2 ** (bits - 1) else value

    def add_row(self) -> None:
        """Append the state to the matrix."""
        state = self.state
        self.rows.append(Row(state.address, state.file, state.line, state.column))

    def special(self, opcode: int) -> None:
        """Address and line in one byte."""
        adjusted = opcode - self.program.opcode_base
        self.state.address += adjusted // self.program.line_range * self.program.minimum_instruction_length
        self.state.line += self.program.line_base + adjusted % self.program.line_range
        self.add_row()

    def standard(self, opcode: int) -> None:
        """DWARF 5, section 6.2.5.2."""
        state, step = self.state, self.program.minimum_instruction_length
        match opcode:
            case 1:
                self.add_row()
            case 2:
                state.address += self.uleb() * step
            case 3:
                state.line += self.sleb()
            case 4:
                state.file = self.uleb()
            case 5:
                state.column = self.uleb()
            case 6 | 7:
                pass
            case 8:
                state.address += (255 - self.program.opcode_base) // self.program.line_range * step
            case 9:
                state.address += self.byte() + 256 * self.byte()
            case _:
                for _ in range(self.program.standard_opcode_lengths[opcode - 1]):
                    self.uleb()

    def extended(self) -> None:
        """DWARF 5, section 6.2.5.3."""
        size = self.uleb()
        end = self.position + size
        match self.byte():
            case 1:
                self.state = Row()
            case 2:
                self.state.address = int.from_bytes(self.program.data[self.position : end], "little")
        self.position = end


def reference_answers(program: LineProgram, targets: Sequence[int]) -> list[tuple[int, int, int] | None]:
    """File, line and column of the last row at or below each target, as Zig's table of rows has it."""
    table = {row.address: row for row in reference_rows(program) if row.line != 0}
    addresses = sorted(table)
    answers: list[tuple[int, int, int] | None] = []
    for target in targets:
        place = bisect_right(addresses, target)
        row = table[addresses[place - 1]] if place else None
        answers.append(row and (row.file, row.line if 0 <= row.line < 2**32 else 2**32 - 1, row.column))
    return answers
