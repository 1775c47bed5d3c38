"""The details of points: the function of each, as the symbol table tells, and the message."""

import dataclasses
import struct
import subprocess
import time
from array import array
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from fuzzserver.coverage.coverage_map import CoverageMap, prepare_tables
from fuzzserver.coverage.executable import Executable
from fuzzserver.coverage.functions import MAX_NAME, NO_FUNCTION, Functions, find_functions, points_message
from fuzzserver.wire.abi import PointsHeader
from tests.support_native import c_program, hand_made_step, write_files
from tests.support_zig_cache import fuzzed_pie

ASSEMBLY = """
.text
.globl first
.globl second
.globl last
.type first, @function
.type second, @function
.type last, @function
first: nop; nop; nop; nop
second: nop; nop
.size second, 2
nop; nop
last: nop; nop; nop
"""
"""Functions of which only one tells its size."""


@dataclasses.dataclass(frozen=True)
class Symbols:
    """Stands for an executable of these functions."""

    functions: list[tuple[int, int, bytes]]
    code_end: int = 1000

    def function_symbols(self):
        """Address, size and name."""
        return iter(self.functions)

    def code_ranges(self):
        """One segment, and one before it."""
        return [(100, self.code_end), (0, 50)]


def names_of(functions: Functions) -> list[str | None]:
    """For each point the name of its function."""
    names = []
    for index in functions.of_points:
        if index == NO_FUNCTION:
            names.append(None)
            continue
        start = functions.names[index]
        end = functions.string_bytes.index(b"\0", start)
        names.append(functions.string_bytes[start:end].decode())
    return names


def found(symbols: Symbols, pcs: list[int]) -> list[str | None]:
    """The names of the functions that some addresses lie in."""
    return names_of(find_functions(symbols, array("Q", pcs)))


def truth_of(path: Path) -> list[tuple[int, int, str]]:
    """Start, end and name of all functions with a size, as pyelftools reads them."""
    with path.open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".symtab").iter_symbols()
        return [
            (symbol["st_value"], symbol["st_value"] + symbol["st_size"], symbol.name)
            for symbol in symbols
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_size"]
        ]


def cut(name: str) -> str:
    """A name as it is sent."""
    return name if len(name) <= 300 else f"{name[:199]}\u2026{name[-100:]}"


def check_against_the_symbol_table(path: Path, pcs: array, functions: Functions) -> set[str]:
    """Each point's function contains it, and a point without one is in none; returns the names.

    A point at the very end of a function is that of an empty block, unless another begins there.
    """
    truth = truth_of(path)
    for pc, name in zip(pcs, names_of(functions), strict=True):
        containing = {each for start, end, each in truth if start <= pc < end}
        containing = containing or {each for _, end, each in truth if pc == end}
        if name is None:
            assert containing == set(), hex(pc)
        else:
            assert name in {cut(each) for each in containing}, hex(pc)
    return {name for name in names_of(functions) if name is not None}


@pytest.fixture
def debug_map(debug_pair):
    """The map of a fuzzed executable."""
    coverage_map = prepare_tables(debug_pair.step, debug_pair.coverage_id, 0)
    yield coverage_map
    coverage_map.close()


def parsed(message: bytes) -> tuple[PointsHeader, array, array, array, list[bytes]]:
    """Header, addresses, times, functions and names of a points message, whose size is exact."""
    header = PointsHeader.parse(message)
    count, at = header.points_len, PointsHeader.LAYOUT.size
    columns = []
    for code, size in (("Q", 8), ("I", 4), ("I", 4)):
        columns.append(array(code, message[at : at + count * size]))
        at += count * size
    offsets = struct.unpack_from(f"<{header.functions_len}I", message, at)
    strings = message[at + 4 * header.functions_len :]
    assert len(strings) == header.string_bytes_len
    names = [strings[offset : strings.index(b"\0", offset)] for offset in offsets]
    return header, *columns, names


def test_functions_of_a_fuzzed_executable(debug_pair, debug_map):
    """All points are in functions; those of the project and its tests are among them under Zig's names."""
    names = check_against_the_symbol_table(debug_pair.executable, debug_map._pcs, debug_map.functions)
    assert NO_FUNCTION not in debug_map.functions.of_points
    assert {"parser.sum", "parser.depth", "main.fuzzSum", "main.test.fuzz sum"} <= names
    assert len(names) == len(debug_map.functions.names) < len(debug_map._pcs)


def test_functions_and_source_locations_agree(debug_map, project_root):
    """The points of a function are on its lines."""
    lines = (project_root.parent / "parser.zig").read_text().splitlines()
    start = lines.index("pub fn depth(input: []const u8) error{Unbalanced}!u32 {") + 1
    for index, name in enumerate(names_of(debug_map.functions)):
        if name == "parser.depth":
            assert start <= debug_map.source_locations[3 * index + 1] <= len(lines)


def test_functions_of_a_release_build(safe_pair):
    """Placeholders are in none; inlined functions are part of where they went."""
    with Executable(safe_pair.executable) as executable:
        pcs = executable.pc_addrs()
        functions = find_functions(executable, pcs)
    names = check_against_the_symbol_table(safe_pair.executable, pcs, functions)
    assert 1 in pcs
    assert all((pc == 1) == (name is None) for pc, name in zip(pcs, names_of(functions), strict=True))
    assert len(names) > 10


def test_functions_of_a_position_independent_executable(client, all_work):
    """Addresses are as if it were loaded at 0, and so are those of the symbol table."""
    path = fuzzed_pie(client, all_work).executable
    with Executable(path) as executable:
        assert executable.is_pie
        pcs = executable.pc_addrs()
        functions = find_functions(executable, pcs)
    names = check_against_the_symbol_table(path, pcs, functions)
    assert sum(name is not None for name in names_of(functions)) > 0.99 * len(pcs)
    assert any(".test." in name for name in names)


def test_without_a_symbol_table_there_are_no_functions(debug_pair, tmp_path):
    """A stripped executable: all points are in none."""
    copy = tmp_path / "stripped"
    subprocess.run(["strip", "-o", copy, debug_pair.executable], check=True)
    with Executable(copy) as executable:
        pcs = executable.pc_addrs()
        functions = find_functions(executable, pcs)
    assert functions.of_points == array("I", [NO_FUNCTION]) * len(pcs)
    assert (len(functions.names), functions.string_bytes) == (0, b"")


def test_a_symbol_table_that_cannot_be_read_is_an_oddity(debug_pair, tmp_path):
    """The file ends within it: there is all but functions."""
    path = tmp_path / "cut"
    whole = bytearray(debug_pair.executable.read_bytes())
    with Executable(debug_pair.executable) as executable:
        index = list(executable._sections).index(".symtab")
    (headers,) = struct.unpack_from("<Q", whole, 40)
    struct.pack_into("<Q", whole, headers + 64 * index + 32, 24 << 32)
    path.write_bytes(whole)
    step = dataclasses.replace(debug_pair.step, rebuilt_executable=path)
    coverage_map = prepare_tables(step, debug_pair.coverage_id, 0)
    coverage_map.close()
    (oddity,) = coverage_map.oddities
    assert "section .symtab has" in oddity
    assert oddity.endswith("; functions are not shown")
    assert set(coverage_map.functions.of_points) == {NO_FUNCTION}
    assert len(parsed(coverage_map.points_message())[1]) == coverage_map.source_locations_len


def test_functions_of_unknown_size_extend_to_the_next(zig, zig_cache, tmp_path):
    """As assembly makes them; one with a size ends there, and the last one where the code does."""
    write_files(
        tmp_path,
        {
            "a.s": ASSEMBLY,
            "main.c": "void first(void); void last(void); int main(void) { first(); last(); return 0; }\n",
        },
    )
    path = c_program(zig, zig_cache, tmp_path, ("main.c", "a.s"), "exe", "-O1")
    with path.open("rb") as file:
        symtab = ELFFile(file).get_section_by_name(".symtab")
        first, second = (symtab.get_symbol_by_name(name)[0]["st_value"] for name in ("first", "second"))
    with Executable(path) as executable:
        pcs = array("Q", [first, first + 3, second, second + 1, second + 3, second + 4])
        found = names_of(find_functions(executable, pcs))
    assert found == ["first", "first", "second", "second", None, "last"]


def test_the_code_ends_the_last_function():
    """And the first one does not reach back; a point in another segment is in none."""
    symbols = Symbols([(900, 0, b"last"), (200, 50, b"sized")])
    assert found(symbols, [899, 900, 999, 1001, 10, 199, 250, 251]) == [
        None,
        "last",
        "last",
        None,
        None,
        None,
        "sized",
        None,
    ]
    assert found(Symbols([(2000, 0, b"beyond the code")]), [2001]) == [None]


def test_of_several_names_one_is_shown():
    """The one of the largest; the first of equals; none that is empty."""
    symbols = [(200, 0, b"label"), (200, 9, b"small"), (200, 10, b"one"), (200, 10, b"other"), (300, 9, b"")]
    assert found(Symbols(symbols), [205, 209, 305]) == ["one", "one", None]


def test_long_and_odd_names():
    """Cut in the middle, and never within a character; what is no UTF-8 is replaced."""
    too_long = "\u00fc".encode() * 290 + b".init_of_it"
    symbols = Symbols([(200, 5, too_long), (300, 5, b"x" * MAX_NAME), (400, 5, b"a\xffb\nc")])
    long, whole, odd = found(symbols, [200, 300, 400])
    assert long == "\u00fc" * 199 + "\u2026" + "\u00fc" * 89 + ".init_of_it"
    assert len(long) == MAX_NAME
    assert whole == "x" * 300
    assert odd == "a\ufffdb\nc"


@given(st.data())
def test_any_symbols_and_points(data):
    """The same as looking at all functions that do not overlap, one by one."""
    sizes = data.draw(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=30))
    address, symbols = 100, []
    for index, (gap, size) in enumerate(sizes):
        address += gap
        symbols.append((address, size, b"f%d" % index))
        address += size
    pcs = data.draw(st.lists(st.integers(0, 700), max_size=60))
    expected = []
    for pc in pcs:
        inside = [name for start, size, name in symbols if start <= pc < start + size]
        behind = [name for start, size, name in symbols if pc == start + size]
        expected.append((inside + behind)[0].decode() if inside + behind else None)
    functions = find_functions(Symbols(data.draw(st.permutations(symbols))), array("Q", pcs))
    assert names_of(functions) == expected
    assert len(functions.names) == len(set(expected) - {None}), "functions without points are left out"


@given(st.data())
def test_the_message_round_trip(data):
    """All columns come out as they went in."""
    count = data.draw(st.integers(0, 50))
    pcs = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=count, max_size=count))
    times = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=count, max_size=count))
    of_points = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=count, max_size=count))
    names = data.draw(st.lists(st.binary(max_size=9).map(lambda text: text.replace(b"\0", b"")), max_size=9))
    offsets = [sum(map(len, names[:index])) + index for index in range(len(names))]
    strings = b"".join(name + b"\0" for name in names)
    functions = Functions(array("I", of_points), array("I", offsets), strings)
    message = points_message(array("Q", pcs), array("I", times), functions)
    header, *columns, parsed_names = parsed(message)
    assert (header.points_len, header.functions_len) == (count, len(names))
    assert [column.tolist() for column in columns] == [pcs, times, of_points]
    assert parsed_names == names


def test_the_message_of_a_fuzzed_executable(debug_map: CoverageMap):
    """What is covered has a time, at first that of before anybody looked; what is not has none."""
    assert set(parsed(debug_map.points_message())[2]) == {0}
    debug_map.begin_history("start", "x")
    header, addresses, times, functions, names = parsed(debug_map.points_message())
    bits = int.from_bytes(debug_map.read().seen_bits, "little")
    assert addresses == debug_map._pcs
    assert [bool(when) for when in times] == [bool(bits >> index & 1) for index in range(len(times))]
    assert b"parser.sum" in names
    assert max(functions) < header.functions_len == len(names)


def test_an_executable_of_many_points(tmp_path, debug_pair):
    """A message takes no more than some looks at each point, of which there are a million."""
    count = 1_000_000
    symbols = Symbols([(200 + 16 * index, 16, b"function %d" % index) for index in range(50_000)], 1 << 40)
    pcs = array("Q", (200 + index * 800_000 // count for index in range(count)))
    begun = time.thread_time()
    assert max(pc & 1 for pc in pcs) == 1
    one_pass = time.thread_time() - begun
    begun = time.thread_time()
    functions = find_functions(symbols, pcs)
    message = points_message(pcs, array("I", bytes(4 * count)), functions)
    assert time.thread_time() - begun < 40 * one_pass
    assert PointsHeader.parse(message) == PointsHeader(count, 50_000, len(functions.string_bytes))


def test_points_without_pcs(debug_pair, tmp_path):
    """An executable without instrumentation has an empty message."""
    coverage_map = prepare_tables(hand_made_step(tmp_path, debug_pair.normal_executable, []), 0, 0)
    coverage_map.close()
    assert coverage_map.points_message() == PointsHeader(0, 0, 0).serialize()
