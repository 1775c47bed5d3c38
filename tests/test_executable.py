"""The executable: what is refused, and whose coverage file it is."""

import os
import random
import shutil
import struct
import subprocess
from array import array
from pathlib import Path

import pytest

from fuzzserver.coverage.executable import (
    COUNTERS_SECTION,
    PCS_SECTION,
    Executable,
    FileState,
    check_match,
)
from fuzzserver.coverage.seen_pcs import SeenPcs
from fuzzserver.errors import CoverageFileError, ExecutableError
from fuzzserver.zig.process import ChildGroup
from fuzzserver.zig.test_runner import find_fuzz_tests, test_runner_argv
from tests.projects import FuzzedPair, fuzz_for_a_moment
from tests.support_facts import open_files
from tests.support_native import table_executable, write_files
from tests.support_zig_cache import fuzzed_pie

NOWHERE = Path("the/coverage/file")
PIE = ("-Wl,-pie", "-Wl,--no-dynamic-linker")

USES_C = """
const std = @import("std");
extern fn c_depth(ptr: [*]const u8, len: usize) c_int;
fn fuzzC(_: void, input: []const u8) anyerror!void {
    std.mem.doNotOptimizeAway(c_depth(input.ptr, input.len));
}
test "fuzz c" {
    try std.testing.fuzz({}, fuzzC, .{});
}
"""
ODD_NAMES = """
const deep = @import("sub/deep.zig");
test {
    _ = deep;
    _ = Type;
}
test "a \\"quote\\", a / and \u00fc.test." {}
test "two\\nlines" {}
fn twice(x: u32) u32 {
    return 2 * x;
}
test twice {
    if (twice(2) != 4) return error.Wrong;
}
const Type = struct {
    test "in a type" {}
};
"""
DEPTH_C = """
int c_depth(const char *data, unsigned long len)
{
    int depth = 0;
    for (unsigned long i = 0; i < len; i++) {
        if (data[i] == '(')
            depth++;
        else if (data[i] == ')')
            depth--;
    }
    return depth;
}
"""


@pytest.fixture(scope="module")
def folder(work) -> Path:
    """Where the C programs of this module are built."""
    folder = work / "executables"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def table(zig, zig_cache, folder) -> Path:
    """A small executable with a PC table of three functions."""
    return table_executable(zig, zig_cache, folder)


@pytest.fixture(scope="module")
def c_pair(client, work) -> FuzzedPair:
    """A fuzzed executable with C code in it."""
    write_files(work / "uses-c", {"uses_c.zig": USES_C, "depth.c": DEPTH_C})
    # The fuzzer of Zig 0.14 makes each input half as long again as the last: an old corpus is slow.
    shutil.rmtree(work / "uses-c/.zig-cache/f", ignore_errors=True)
    return fuzz_for_a_moment(client, work / "uses-c/uses_c.zig", str(work / "uses-c/depth.c"))


def coverage_of(pair: FuzzedPair) -> array:
    """The addresses in the coverage file of a pair."""
    seen_pcs = SeenPcs(pair.coverage_file)
    try:
        return seen_pcs.pc_addrs()
    finally:
        seen_pcs.close()


def refused(path: Path) -> str:
    """The error with which a file is refused; it leaves no descriptor behind."""
    with pytest.raises(ExecutableError) as caught:
        Executable(path)
    assert str(path) not in [target for _, target in open_files()]
    assert str(path) in str(caught.value)
    return str(caught.value)


def use_everything(path: Path) -> bool:
    """Ask an executable for all that it has; False if it is refused in the right way."""
    try:
        with Executable(path) as executable:
            names = (".debug_info", ".debug_line", ".text", PCS_SECTION, COUNTERS_SECTION)
            for name in filter(executable.has_section, names):
                executable.section_data(name)
            executable.outside_code(array("Q", [1, 2, 3]))
            check_match(executable, executable.pc_addrs() or array("Q"), NOWHERE)
    except (ExecutableError, CoverageFileError):
        return False
    return True


@pytest.mark.parametrize("pair", ["debug_pair", "safe_pair", "small_pair"])
def test_a_real_executable_lists_the_pcs_of_its_coverage_file(pair, request):
    """The section in the file holds what the fuzzer writes, in every build mode."""
    fuzzed = request.getfixturevalue(pair)
    with Executable(fuzzed.executable) as executable:
        assert not executable.is_pie
        assert executable.pc_addrs() == coverage_of(fuzzed)
        assert executable.section_size(COUNTERS_SECTION) == len(coverage_of(fuzzed))
        assert executable.outside_code(coverage_of(fuzzed)) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"#!/bin/sh\necho no\n", "is not an ELF executable"),
        (b"\x7f", "is not an ELF executable"),
        (b"\x7fELF", "is not 64-bit"),
        (b"\x7fELF\x02", "is big-endian"),
        (b"\x7fELF\x02\x01", "is truncated: 6 bytes, the ELF header alone has 64"),
        (b"MZ" + bytes(200), "is not an ELF executable"),
    ],
)
def test_what_is_no_executable_is_refused(tmp_path, content, message):
    """The error says what the file is instead."""
    path = tmp_path / "file"
    path.write_bytes(content)
    assert message in refused(path)


def test_what_cannot_be_opened_is_refused(tmp_path):
    """The error says why: there is none, or it is a folder."""
    assert "No such file" in refused(tmp_path / "nothing")
    assert "not a regular file" in refused(tmp_path)


def test_a_pipe_is_refused_without_waiting(tmp_path):
    """Opening a pipe would wait for its writer."""
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refused(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("x86-linux-musl", "is not 64-bit; 32-bit targets are not supported"),
        ("powerpc64-linux-musl", "is big-endian; only little-endian is supported"),
    ],
)
def test_other_kinds_of_processor_are_refused(zig, zig_cache, folder, target, message):
    """Executables that the real compiler makes for 32 bits or big-endian are told apart."""
    assert message in refused(table_executable(zig, zig_cache, folder, target=target))


def test_other_processors_of_our_kind_are_read(zig, zig_cache, folder):
    """The debug info of a 64-bit little-endian target is read like that of the host."""
    path = table_executable(zig, zig_cache, folder, target="aarch64-linux-musl")
    with Executable(path) as executable:
        assert len(executable.pc_addrs() or []) == 3
        assert executable.has_section(".debug_line")


def test_every_truncation_of_a_small_executable_is_refused_or_works(table, tmp_path):
    """However much is cut off its end, there is no other error."""
    copy = tmp_path / "copy"
    copy.write_bytes(table.read_bytes())
    works = []
    for length in range(table.stat().st_size - 1, -1, -7):
        os.truncate(copy, length)
        works.append(use_everything(copy))
    assert not any(works)


def test_truncations_of_a_real_executable_are_refused(debug_pair, tmp_path):
    """As above for a large one; the error says that it is truncated."""
    copy = tmp_path / "copy"
    copy.write_bytes(debug_pair.executable.read_bytes())
    size = copy.stat().st_size
    for length in sorted({size - 1, *range(0, size, size // 40)}, reverse=True):
        os.truncate(copy, length)
        assert "truncated" in refused(copy) or length == 0


def test_damaged_headers_are_refused_or_work(table, tmp_path, rounds):
    """Bytes of the ELF header and the section headers that change give ExecutableError or no error."""
    whole = table.read_bytes()
    (section_headers,) = struct.unpack_from("<Q", whole, 40)
    places = [*range(4, 64), *range(section_headers, len(whole))]
    rng = random.Random(14)
    copy = tmp_path / "copy"
    for _ in range(rounds(1500, 500)):
        damaged = bytearray(whole)
        for place in rng.sample(places, rng.randint(1, 4)):
            damaged[place] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
        copy.write_bytes(damaged)
        use_everything(copy)


def test_a_section_that_the_file_does_not_hold_is_refused(table, tmp_path):
    """The error tells both sizes, where the section lies beyond the file's end."""
    with Executable(table) as executable:
        section = executable._sections[PCS_SECTION]
        header = section.elffile._section_offset(section.elffile.get_section_index(PCS_SECTION))
    copy = tmp_path / "copy"
    copy.write_bytes(table.read_bytes())
    with copy.open("r+b") as file:
        file.seek(header + 24)  # sh_offset
        file.write(struct.pack("<Q", copy.stat().st_size - 10))
    with (
        Executable(copy) as executable,
        pytest.raises(ExecutableError, match=r"has 24 bytes, the file holds 10 of them"),
    ):
        executable.pc_addrs()


def compressed_section(path: Path) -> tuple[int, int]:
    """Offset and size of the compressed .debug_info in a file."""
    with Executable(path) as executable:
        section = executable._sections[".debug_info"]
        assert section.compressed
        return section["sh_offset"], section["sh_size"]


def test_compressed_sections_are_read(zig, zig_cache, folder, table):
    """The content has the size of the same section without compression."""
    packed = table_executable(zig, zig_cache, folder, "-Wl,--compress-debug-sections=zlib")
    with Executable(table) as plain, Executable(packed) as executable:
        assert executable._sections[".debug_info"].compressed
        size = plain.section_size(".debug_info")
        assert len(executable.section_data(".debug_info")) == size > executable.section_size(".debug_info")


@pytest.mark.parametrize("claimed", [0, 2**40, 2**63, 2**64 - 1])
def test_a_compressed_section_that_lies_about_its_size_is_refused(zig, zig_cache, folder, tmp_path, claimed):
    """Whatever size it claims to unpack to, it is an error and no allocation."""
    packed = table_executable(zig, zig_cache, folder, "-Wl,--compress-debug-sections=zlib")
    offset, _ = compressed_section(packed)
    damaged = bytearray(packed.read_bytes())
    struct.pack_into("<Q", damaged, offset + 8, claimed)
    (tmp_path / "copy").write_bytes(damaged)
    with (
        Executable(tmp_path / "copy") as executable,
        pytest.raises(ExecutableError, match=r"section \.debug_info of .* cannot be read"),
    ):
        executable.section_data(".debug_info")


def test_a_damaged_compressed_section_is_refused(zig, zig_cache, folder, tmp_path):
    """Bytes that cannot be unpacked are an error of the executable."""
    packed = table_executable(zig, zig_cache, folder, "-Wl,--compress-debug-sections=zlib")
    offset, size = compressed_section(packed)
    damaged = bytearray(packed.read_bytes())
    damaged[offset + 24 : offset + size] = b"\x55" * (size - 24)
    (tmp_path / "copy").write_bytes(damaged)
    with (
        Executable(tmp_path / "copy") as executable,
        pytest.raises(ExecutableError, match=r"section \.debug_info of .* cannot be read"),
    ):
        executable.section_data(".debug_info")


def test_a_closed_executable_may_be_closed_again(table):
    """``close`` is called by the context manager, too."""
    with Executable(table) as executable:
        executable.close()
    executable.close()


def test_pcs_outside_the_code_are_found(table):
    """Below, between and behind the segments with code; placeholders do not count."""
    with Executable(table) as executable:
        own = executable.pc_addrs()
        (text,) = [segment for segment in executable._elf.iter_segments("PT_LOAD") if segment["p_flags"] & 1]
        end = text["p_vaddr"] + text["p_memsz"]
        assert executable.outside_code(own) == []
        assert executable.outside_code(array("Q", [1, *own, 1])) == []
        assert executable.outside_code(array("Q", [*own, 2])) == [2]
        assert executable.outside_code(array("Q", [end - 1])) == []
        assert executable.outside_code(array("Q", [*own, end, end])) == [end]
        assert executable.outside_code(array("Q", [2**64 - 1, *own, 3])) == [3, 2**64 - 1]
        assert executable.outside_code(array("Q")) == []


@pytest.mark.parametrize("pair", ["debug_pair", "safe_pair", "small_pair"])
def test_own_coverage_files_match(pair, request):
    """A real pair has nothing odd."""
    fuzzed = request.getfixturevalue(pair)
    with Executable(fuzzed.executable) as executable:
        assert check_match(executable, coverage_of(fuzzed), fuzzed.coverage_file) == []


def test_the_coverage_file_of_another_build_does_not_match(debug_pair, safe_pair):
    """The error names both files and the numbers of PCs."""
    pcs = coverage_of(safe_pair)
    with (
        Executable(debug_pair.executable) as executable,
        pytest.raises(CoverageFileError, match="belongs to another executable than") as caught,
    ):
        check_match(executable, pcs, safe_pair.coverage_file)
    for part in (debug_pair.executable, safe_pair.coverage_file, f"it lists {len(pcs)} PCs"):
        assert str(part) in str(caught.value)


def test_a_single_other_pc_does_not_match(table):
    """The error names the first PC that differs."""
    with Executable(table) as executable:
        own = executable.pc_addrs()
        other = array("Q", [own[0], own[1] + 4, own[2] + 4])
        with pytest.raises(CoverageFileError, match=f"PC 1 is 0x{own[1] + 4:x} there and 0x{own[1]:x} here"):
            check_match(executable, other, NOWHERE)
        with pytest.raises(CoverageFileError, match="it lists 2 PCs, the executable has 3"):
            check_match(executable, own[:2], NOWHERE)


def test_placeholders_match_any_pc(table):
    """What a release build holds for a block that was optimised away is no difference."""
    with Executable(table) as executable:
        own = executable.pc_addrs()
        assert check_match(executable, array("Q", [own[0], 1, own[2]]), NOWHERE) == []


def test_no_pcs_match_every_executable(debug_pair):
    """It is odd, and the sentence says how to build instead."""
    with Executable(debug_pair.executable) as executable:
        (oddity,) = check_match(executable, array("Q"), NOWHERE)
    assert str(NOWHERE) in oddity
    assert "-ffuzz -fllvm" in oddity


def test_an_executable_without_instrumentation_cannot_prove_a_match(debug_pair):
    """A few strays are odd; a table most of which is elsewhere is another executable's."""
    with Executable(debug_pair.normal_executable) as executable:
        assert executable.pc_addrs() is None
        text = executable._sections[".text"]
        inside = array("Q", [text["sh_addr"], text["sh_addr"] + text["sh_size"] - 1, 1])
        far = text["sh_addr"] + (1 << 40)
        for pcs in (inside, array("Q", [*inside, far])):
            (oddity,) = check_match(executable, pcs, NOWHERE)
            assert "nothing proves" in oddity
        elsewhere = array("Q", [*inside, *range(far, far + 20)])
        with pytest.raises(
            CoverageFileError, match=f"20 of its 23 PCs are outside the code, 0x{far:x} for one"
        ):
            check_match(executable, elsewhere, NOWHERE)


def test_the_same_tests_without_instrumentation_did_not_write_the_file(debug_pair):
    """The executable of the first phase is not taken for that of the second."""
    with (
        Executable(debug_pair.normal_executable) as executable,
        pytest.raises(CoverageFileError, match="PCs are outside the code"),
    ):
        check_match(executable, coverage_of(debug_pair), debug_pair.coverage_file)


def test_an_executable_without_section_headers_is_served(debug_pair, tmp_path):
    """What strips most leaves the segments, which tell where the code is."""
    data = bytearray(debug_pair.executable.read_bytes())
    data[40:48] = bytes(8)  # e_shoff
    data[58:64] = bytes(6)  # e_shentsize, e_shnum, e_shstrndx
    path = tmp_path / "without"
    path.write_bytes(data)
    with Executable(path) as executable:
        (oddity,) = check_match(executable, coverage_of(debug_pair), NOWHERE)
    assert "nothing proves" in oddity


@pytest.mark.parametrize("target", ["x86_64-linux-musl", "aarch64-linux-musl"])
def test_the_pcs_of_position_independent_executables_are_relocated(zig, zig_cache, folder, target):
    """They are the addresses of the functions that the table lists, as the symbols tell them."""
    path = table_executable(zig, zig_cache, folder, *PIE, target=target)
    with Executable(path) as executable:
        assert executable.is_pie
        symbols = {
            symbol.name: symbol["st_value"] for symbol in executable._sections[".symtab"].iter_symbols()
        }
        own = executable.pc_addrs()
        assert list(own) == [symbols["a"], symbols["c"], symbols["b"]]
        assert check_match(executable, own, NOWHERE) == []


def test_addresses_of_one_run_are_refused(zig, zig_cache, folder):
    """Zig before 0.16 writes them for a position-independent executable; the sentence says what to do."""
    path = table_executable(zig, zig_cache, folder, *PIE)
    with Executable(path) as executable:
        own = executable.pc_addrs()
        slid = array("Q", [0x55550000 + pc for pc in own])
        with pytest.raises(CoverageFileError, match="build it without -fPIE"):
            check_match(executable, slid, NOWHERE)
        slid[1] += 4
        with pytest.raises(CoverageFileError, match="belongs to another executable"):
            check_match(executable, slid, NOWHERE)


def test_the_real_addresses_of_one_run_are_refused(client, all_work):
    """What the fuzzer of Zig 0.14 writes for a position-independent executable."""
    pair = fuzzed_pie(client, all_work)
    with (
        Executable(pair.executable) as executable,
        pytest.raises(CoverageFileError, match=r"position-independent.*build it without -fPIE"),
    ):
        check_match(executable, coverage_of(pair), pair.coverage_file)


def test_damaged_relocations_are_passed_over(zig, zig_cache, folder, tmp_path):
    """Whatever they say, addresses are read or an ExecutableError comes."""
    path = table_executable(zig, zig_cache, folder, *PIE)
    with Executable(path) as executable:
        section = executable._sections[".rela.dyn"]
        start, size = section["sh_offset"], section["sh_size"]
    whole = path.read_bytes()
    rng = random.Random(16)
    copy = tmp_path / "copy"
    for _ in range(200):
        damaged = bytearray(whole)
        for place in rng.sample(range(start, start + size), 6):
            damaged[place] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
        copy.write_bytes(damaged)
        with Executable(copy) as executable:
            assert len(executable.pc_addrs()) == 3


def test_more_counters_than_pcs_are_odd(zig, zig_cache, folder):
    """The sentence tells both numbers."""
    path = table_executable(zig, zig_cache, folder, "-DEXTRA=2")
    with Executable(path) as executable:
        (oddity,) = check_match(executable, executable.pc_addrs(), NOWHERE)
    assert "has 5 counters for 3 PCs" in oddity


def test_c_code_in_a_fuzzed_executable_is_odd(c_pair):
    """The real compiler gives C code counters, but lists no PCs for it."""
    with Executable(c_pair.executable) as executable:
        (oddity,) = check_match(executable, coverage_of(c_pair), c_pair.coverage_file)
        counters = executable.section_size(COUNTERS_SECTION)
    assert counters > len(coverage_of(c_pair))
    assert f"has {counters} counters for {len(coverage_of(c_pair))} PCs" in oddity


def test_test_symbols_are_the_names_of_the_test_runner(debug_pair, safe_pair):
    """The addresses of fuzz tests are those that their fuzzers tell."""
    for pair in (debug_pair, safe_pair):
        with ChildGroup() as children:
            found = find_fuzz_tests(
                children,
                test_runner_argv(pair.normal_executable, pair.step.cache_root, 1),
                pair.step.cache_root,
            )
        with Executable(pair.executable) as executable:
            symbols = executable.test_symbols()
        assert set(symbols) == set(found.names)
        addrs = {symbols[found.names[index]] for index in found.fuzz_tests}
        assert addrs == set(pair.entry_points)


@pytest.fixture(scope="module")
def odd_names(zig, zig_cache, folder) -> Path:
    """An executable whose tests have all kinds of names."""
    write_files(folder, {"odd.zig": ODD_NAMES, "sub/deep.zig": 'test {}\ntest "below" {}\n'})
    args = [str(zig.path), "test", "odd.zig", "--test-no-exec", "-femit-bin=odd"]
    caches = ["--cache-dir", str(zig_cache), "--global-cache-dir", str(zig_cache)]
    subprocess.run([*args, *caches], cwd=folder, check=True)
    return folder / "odd"


def test_symbols_of_odd_names_are_found(odd_names):
    """Quotes, slashes, newlines and dots in names; tests in types, of functions, and without name."""
    with Executable(odd_names) as executable:
        assert set(executable.test_symbols()) == {
            "odd.test_0",
            'odd.test.a "quote", a / and \xfc.test.',
            "odd.test.two\nlines",
            "odd.Type.test.in a type",
            "odd.decltest.twice",
            "sub.deep.test_0",
            "sub.deep.test.below",
        }


def test_a_stripped_executable_has_no_test_symbols(small_pair, table):
    """Nor one without tests."""
    for path in (small_pair.executable, table):
        with Executable(path) as executable:
            assert executable.test_symbols() == {}


def test_the_compiler_is_known_by_the_debug_info(debug_pair, small_pair, table):
    """Its version; not of an executable without debug info, or of a C program."""
    versions = []
    for path in (debug_pair.executable, small_pair.executable):
        with Executable(path) as executable:
            versions.append(executable.zig_version())
    assert versions == ["0.14.1", None]


def test_the_fuzzer_is_found_whether_there_are_points_or_not(debug_pair, table):
    """It is in the executable of the second phase and not in that of the first."""
    found = []
    for path in (debug_pair.executable, debug_pair.normal_executable, table):
        with Executable(path) as executable:
            found.append(executable.has_fuzzer)
    assert found == [True, False, False]


def test_the_state_tells_a_file_from_one_that_takes_its_place(debug_pair, tmp_path):
    """It is that of the file that was opened, whatever is at the path by then."""
    path = tmp_path / "test"
    shutil.copy(debug_pair.executable, path)
    with Executable(path) as executable:
        shutil.copy(debug_pair.executable, tmp_path / "other")
        os.replace(tmp_path / "other", path)
        opened = executable.state
    with Executable(path) as executable:
        assert executable.state != opened
        assert executable.state == FileState.of(path.stat())


def test_functions_have_addresses_and_sizes(table):
    """Those that are defined, each with its name, none twice."""
    with Executable(table) as executable:
        symbols = {name: (address, size) for address, size, name in executable.function_symbols()}
        pcs = executable.pc_addrs()
    assert {symbols[name][0] for name in (b"a", b"b", b"c")} == set(pcs)
    assert all(size > 0 for _, size in (symbols[b"a"], symbols[b"main"]))
    assert b"" not in symbols
