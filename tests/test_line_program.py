"""The sweep through a line program, against an interpreter that does one opcode after the other."""

from array import array
from io import BytesIO

import pytest
from elftools.dwarf.lineprogram import LineProgram as ElftoolsLineProgram
from elftools.dwarf.structs import DWARFStructs
from elftools.elf.elffile import ELFFile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fuzzserver.coverage.line_program import NO_FILE, PROGRESS_STEP, FileEntry, LineProgram, resolve_rows
from fuzzserver.errors import DebugInfoError
from tests.support_dwarf import (
    STANDARD_LENGTHS,
    extended,
    reference_answers,
    reference_rows,
    sleb,
    uleb,
)

HIGH = 3000
"""Addresses are small, so that rows and targets meet often."""


def program_of(
    code: bytes,
    version: int = 4,
    min_inst: int = 1,
    line_base: int = -5,
    line_range: int = 14,
    opcode_base: int = 13,
    lead: bytes = b"",
) -> LineProgram:
    """A program of these opcodes, behind ``lead`` other bytes in its section."""
    lengths = (*STANDARD_LENGTHS, *[2] * 245)[: opcode_base - 1]
    place = (len(lead), len(lead) + len(code))
    return LineProgram(
        version, min_inst, line_base, line_range, opcode_base, lengths, (), (), lead + code, *place
    )


def answers(program: LineProgram, targets: list[int]) -> list[tuple[int, int, int] | None]:
    """What the sweep says, in the form of the reference."""
    rows = resolve_rows(program, array("Q", targets))
    found = zip(rows.file, rows.line, rows.column, strict=True)
    return [None if row[0] == NO_FILE else row for row in found]


def set_address(address: int) -> bytes:
    """The opcode that most sequences begin with."""
    return extended(2, address.to_bytes(8, "little"))


def opcodes(opcode_base: int, known: bool = False) -> st.SearchStrategy[bytes]:
    """One opcode with its arguments, on request one that the standard knows."""
    numbers = st.integers(0, 300)
    choices = [
        st.integers(opcode_base, 255).map(lambda op: bytes([op])),
        st.integers(opcode_base, 255).map(lambda op: bytes([op])),
        st.just(extended(1)),
        st.one_of(st.sampled_from([100, 120]), st.integers(0, HIGH)).map(set_address),
        st.tuples(st.binary(min_size=1, max_size=5).filter(lambda b: 0 not in b), numbers).map(
            lambda pair: extended(3, pair[0] + b"\0" + uleb(pair[1]) + b"\0\0")
        ),
        numbers.map(lambda number: extended(4, uleb(number)))
        if known
        else st.tuples(st.integers(4, 255), st.binary(max_size=4)).map(lambda pair: extended(*pair)),
    ]
    standard = {
        1: st.just(b""),
        2: numbers.map(uleb),
        3: st.integers(-30, 30).map(sleb),
        4: numbers.map(uleb),
        5: st.one_of(numbers, st.integers(0, 2**32 - 1)).map(uleb),
        6: st.just(b""),
        7: st.just(b""),
        8: st.just(b""),
        9: st.integers(0, 400).map(lambda n: n.to_bytes(2, "little")),
        10: st.just(b""),
        11: st.just(b""),
        12: numbers.map(uleb),
    }
    two_numbers = st.tuples(numbers, numbers).map(lambda pair: uleb(pair[0]) + uleb(pair[1]))
    for opcode in range(1, opcode_base):
        arguments = standard.get(opcode, two_numbers)
        choices.append(arguments.map(lambda data, opcode=opcode: bytes([opcode]) + data))
    return st.one_of(choices)


@st.composite
def programs(draw, known: bool = False) -> LineProgram:
    """Any well-formed program, also one whose last sequence has no end."""
    opcode_base = draw(st.sampled_from([13, 13, 10] if known else [13, 13, 10, 14, 20, 4, 1]))
    code = b"".join(draw(st.lists(opcodes(opcode_base, known), max_size=40)))
    return program_of(
        code + draw(st.sampled_from([b"", extended(1)])),
        version=draw(st.integers(2, 5)),
        min_inst=draw(st.sampled_from([1, 1, 2, 4])),
        line_base=draw(st.integers(-10, 3)),
        line_range=draw(st.integers(1, 20)),
        opcode_base=opcode_base,
        lead=draw(st.binary(max_size=3)),
    )


any_targets = st.lists(st.one_of(st.integers(0, HIGH), st.integers(0, 2**64 - 1)), max_size=40).map(sorted)


@settings(max_examples=300, deadline=None)
@given(programs(), any_targets)
@example(
    program_of(set_address(5) + b"\x01" + extended(1) + set_address(2) + b"\x03\x04\x01"), [1, 2, 3, 5, 9]
)
def test_any_program_gives_what_the_reference_gives(program, targets):
    """Targets anywhere, in any number of sequences, forwards and backwards."""
    assert answers(program, targets) == reference_answers(program, targets)


@settings(max_examples=300, deadline=None)
@given(programs())
def test_targets_at_and_beside_each_row_give_what_the_reference_gives(program):
    """The edges of the rows are where a sweep can go wrong."""
    near = {row.address + step for row in reference_rows(program) for step in (-1, 0, 1)}
    targets = sorted(target for target in near if target >= 0)
    assert answers(program, targets) == reference_answers(program, targets)


@settings(max_examples=150, deadline=None)
@given(programs(), any_targets, st.data())
def test_a_program_that_is_cut_off_is_an_error_or_shorter(program, targets, data):
    """Wherever the section ends, there is DebugInfoError or an answer for each target."""
    cut = data.draw(st.integers(program.start, program.end))
    shorter = program._replace(data=program.data[:cut])
    try:
        assert len(answers(shorter, targets)) == len(targets)
    except DebugInfoError as error:
        assert cut < program.end
        assert ".debug_line" in str(error) or "line program" in str(error)


@settings(max_examples=600, deadline=None)
@given(st.binary(max_size=80), any_targets, st.integers(0, 255), st.integers(0, 20), st.integers(-128, 127))
def test_random_bytes_raise_debug_info_errors_only(code, targets, line_range, opcode_base, line_base):
    """Nonsense may have answers, but no other errors."""
    program = program_of(code, line_base=line_base, line_range=line_range, opcode_base=opcode_base or 1)
    program = program._replace(opcode_base=opcode_base)
    try:
        assert len(answers(program, targets)) == len(targets)
    except DebugInfoError:
        pass


def test_a_program_without_opcodes_finds_nothing():
    """No rows, no answers; no targets, no work."""
    assert answers(program_of(b""), [0, 5]) == [None, None]
    assert answers(program_of(set_address(1) + b"\x01"), []) == []


def test_rows_with_line_0_are_dropped():
    """They neither answer nor end the row before them."""
    code = set_address(10) + b"\x01" + b"\x02\x05" + b"\x03" + sleb(-1) + b"\x01" + b"\x02\x05"
    assert answers(program_of(code + b"\x03\x07\x01"), [9, 10, 15, 19, 20]) == [
        None,
        (1, 1, 0),
        (1, 1, 0),
        (1, 1, 0),
        (1, 7, 0),
    ]


def test_a_later_row_at_the_same_address_replaces_the_earlier():
    """In the same sequence and in another one."""
    code = set_address(10) + b"\x01" + b"\x03\x02\x01" + extended(1)
    assert answers(program_of(code), [10]) == [(1, 3, 0)]
    code += set_address(10) + b"\x05\x09\x01" + extended(1)
    assert answers(program_of(code), [10, 11]) == [(1, 1, 9), (1, 1, 9)]


@pytest.mark.parametrize("first_goes_on", [False, True])
@pytest.mark.parametrize("second_goes_on", [False, True])
def test_the_later_sequence_wins_wherever_its_row_is(first_goes_on, second_goes_on):
    """Whether or not the row at the same address is the last one of its sequence."""
    more = b"\x02\x0a\x01"
    code = set_address(10) + b"\x05\x01\x01" + more * first_goes_on + extended(1)
    code += set_address(10) + b"\x05\x02\x01" + more * second_goes_on + extended(1)
    assert answers(program_of(code), [10, 19]) == [(1, 1, 2), (1, 1, 2)]


def test_an_address_behind_a_sequence_belongs_to_its_last_row():
    """The end of a sequence makes no row, and the nearest sequence below answers."""
    code = set_address(50) + b"\x05\x01\x01\x02\x02" + extended(1)
    code += set_address(10) + b"\x05\x02\x01\x02\x02" + extended(1)
    assert answers(program_of(code), [9, 11, 12, 49, 51, 99]) == [
        None,
        (1, 1, 2),
        (1, 1, 2),
        (1, 1, 2),
        (1, 1, 1),
        (1, 1, 1),
    ]


def test_set_address_may_go_backwards():
    """It begins a new stretch; rows of both count."""
    code = set_address(100) + b"\x01" + set_address(40) + b"\x03\x01\x01" + b"\x02\x50\x03\x01\x01"
    assert answers(program_of(code), [40, 99, 100, 119, 120]) == [
        (1, 2, 0),
        (1, 2, 0),
        (1, 1, 0),
        (1, 1, 0),
        (1, 3, 0),
    ]


def test_files_that_a_program_defines_are_kept():
    """In their order, with their folder."""
    code = extended(3, b"a.c\0\x01\0\0") + extended(3, b"b\xff.c\0" + uleb(300) + b"\0\0")
    rows = resolve_rows(program_of(code), array("Q"))
    assert rows.defined_files == [FileEntry(1, b"a.c"), FileEntry(300, b"b\xff.c")]


def test_progress_is_told():
    """Each thousand targets, about; a program of many small sequences tells of it, too."""
    told: list[int] = []
    count = 3 * PROGRESS_STEP + 10
    one_long = set_address(0) + b"\x02\x01\x01" * (count + 1) + extended(1)
    resolve_rows(program_of(one_long), array("Q", range(count)), told.append)
    assert told == [PROGRESS_STEP, 2 * PROGRESS_STEP, 3 * PROGRESS_STEP]
    told.clear()
    many = b"".join(set_address(index) + b"\x01\x02\x01\x01" + extended(1) for index in range(count))
    resolve_rows(program_of(many), array("Q", range(count)), told.append)
    assert told == [PROGRESS_STEP, 2 * PROGRESS_STEP, 3 * PROGRESS_STEP]


@pytest.mark.parametrize(("line_range", "opcode_base"), [(0, 13), (14, 0), (0, 0)])
def test_a_header_of_zeros_is_refused(line_range, opcode_base):
    """Dividing by it is no answer."""
    program = program_of(b"\x01")._replace(line_range=line_range, opcode_base=opcode_base)
    with pytest.raises(DebugInfoError, match=f"line_range {line_range} and opcode_base {opcode_base}"):
        resolve_rows(program, array("Q", [1]))


def test_a_program_beyond_its_section_is_refused():
    """The error tells where it begins and how long the section is."""
    program = program_of(b"\x01\x01", lead=b"123")._replace(end=100)
    with pytest.raises(DebugInfoError, match=r"at 0x3 runs beyond \.debug_line \(5 bytes\)"):
        resolve_rows(program, array("Q", [1]))


def test_an_extended_opcode_of_no_bytes_is_refused():
    """Its length counts the opcode itself."""
    with pytest.raises(DebugInfoError, match="extended opcode of no bytes"):
        resolve_rows(program_of(b"\0\0"), array("Q", [1]))


def test_numbers_beyond_u32_are_capped_or_refused():
    """Lines and columns become the greatest number, as in Zig; a file of that kind is nonsense."""
    big = uleb(1 << 40)
    code = set_address(0) + b"\x05" + big + b"\x03" + sleb(1 << 40) + b"\x01\x02\x09\x01"
    cap = 2**32 - 1
    assert answers(program_of(code), [0, 9]) == [(1, cap, cap), (1, cap, cap)]
    negative = set_address(0) + b"\x03" + sleb(-7) + b"\x01\x02\x09\x01"
    assert answers(program_of(negative), [0, 9]) == [(1, cap, 0), (1, cap, 0)]
    with pytest.raises(DebugInfoError, match="nonsensical"):
        resolve_rows(program_of(set_address(0) + b"\x04" + big + b"\x01\x02\x09\x01"), array("Q", [0]))


def test_the_reference_agrees_with_pyelftools(debug_pair):
    """Two strangers read a real program alike, so the reference may judge the sweep."""
    with debug_pair.executable.open("rb") as file:
        dwarf = ELFFile(file).get_dwarf_info(relocate_dwarf_sections=False)
        unit = list(dwarf.iter_CUs())[-1]
        parsed = dwarf.line_program_for_CU(unit)
        data = dwarf.debug_line_sec.stream.getvalue()
    theirs = [
        (e.state.address, e.state.file, e.state.line, e.state.column)
        for e in parsed.get_entries()
        if e.state is not None and not e.state.end_sequence
    ]
    program = _from_elftools(parsed, data)
    ours = [(row.address, row.file, row.line, row.column) for row in reference_rows(program)]
    assert len(ours) > 1000
    assert ours == theirs
    targets = sorted({row[0] + step for row in ours for step in (0, 1)})
    assert answers(program, targets) == reference_answers(program, targets)


@settings(max_examples=300, deadline=None)
@given(programs(known=True), any_targets)
def test_any_program_gives_what_pyelftools_gives(program, targets):
    """All versions, and all opcodes of the standard, in any number of sequences."""
    wanted: dict[int, tuple[int, int, int]] = {}
    for entry in _elftools_program(program).get_entries():
        state = entry.state
        if state is not None and not state.end_sequence and state.line != 0:
            wanted[state.address] = (state.file, state.line if state.line > 0 else 2**32 - 1, state.column)
    below = [max((address for address in wanted if address <= target), default=None) for target in targets]
    assert answers(program, targets) == [None if address is None else wanted[address] for address in below]


def _elftools_program(program: LineProgram) -> ElftoolsLineProgram:
    structs = DWARFStructs(little_endian=True, dwarf_format=32, address_size=8, dwarf_version=program.version)
    header = {
        "version": program.version,
        "minimum_instruction_length": program.minimum_instruction_length,
        "maximum_operations_per_instruction": 1,
        "default_is_stmt": 1,
        "line_base": program.line_base,
        "line_range": program.line_range,
        "opcode_base": program.opcode_base,
        "standard_opcode_lengths": program.standard_opcode_lengths,
        "file_entry": [],
    }
    return ElftoolsLineProgram(header, BytesIO(program.data), structs, program.start, program.end)


def _from_elftools(parsed: ElftoolsLineProgram, data: bytes) -> LineProgram:
    header = parsed.header
    return LineProgram(
        header["version"],
        header["minimum_instruction_length"],
        header["line_base"],
        header["line_range"],
        header["opcode_base"],
        tuple(header["standard_opcode_lengths"]),
        (),
        (),
        data,
        parsed.program_start_offset,
        parsed.program_end_offset,
    )
