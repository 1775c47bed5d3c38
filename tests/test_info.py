"""Addresses to source locations: proven against Zig's own code, and unharmed by damaged input."""

import logging
import random
import shutil
import struct
import subprocess
from array import array
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzserver.coverage.coverage_map import CoverageMap, prepare_tables
from fuzzserver.coverage.debug_sources import DebugSources
from fuzzserver.coverage.executable import PLACEHOLDER_PC, Executable
from fuzzserver.coverage.info import Info, compilation_folder
from fuzzserver.coverage.tables import Coverage
from fuzzserver.errors import InputError
from fuzzserver.step import SourcePath
from fuzzserver.wire.abi import SourceIndexHeader, SourceLocation
from tests.support_native import (
    C_FILES,
    C_SOURCES,
    LONG_NAME,
    TABLE_C,
    build_oracle,
    c_executable,
    c_program,
    code_addresses,
    explain,
    hand_made_step,
    write_files,
)

VARIANTS = {
    "dwarf4": ("-gdwarf-4",),
    "dwarf5": ("-gdwarf-5",),
    "dwarf4_optimised": ("-gdwarf-4", "-O2"),
    "dwarf5_optimised": ("-gdwarf-5", "-O2"),
    "dwarf3": ("-gdwarf-3",),
    "dwarf2": ("-gdwarf-2",),
    "dwarf64": ("-gdwarf-5", "-gdwarf64"),
    "sections4": ("-gdwarf-4", "-ffunction-sections", "-Wl,--gc-sections"),
    "sections5": ("-gdwarf-5", "-ffunction-sections", "-Wl,--gc-sections"),
    "compressed4": ("-gdwarf-4", "-Wl,--compress-debug-sections=zlib"),
    "compressed5": ("-gdwarf-5", "-Wl,--compress-debug-sections=zlib"),
    "with_runtime": (
        "-gdwarf-4",
        "-fsanitize=undefined",
        "-Wl,runtime.o",
        "-Wl,--unresolved-symbols=ignore-all",
    ),
}
DAMAGED_SECTIONS = (".debug_line", ".debug_info", ".debug_abbrev", ".debug_ranges", ".debug_rnglists")


@pytest.fixture(scope="session")
def oracle(client):
    """Gives for an executable and a coverage file what Zig's own code makes of them."""
    return build_oracle(client)


@pytest.fixture(scope="module")
def folder(work) -> Path:
    """Where the C programs of this module are built."""
    folder = work / "c-programs"
    folder.mkdir(exist_ok=True)
    return folder


def build_runtime(client, folder: Path) -> None:
    """Compile what Zig links into C programs that are checked while they run."""
    cache, source = client.global_cache_dir, client.zig.lib_dir / "ubsan_rt.zig"
    args = ["build-obj", str(source), "--name", "runtime", "--cache-dir", str(cache)]
    result = client.compile([*args, "--global-cache-dir", str(cache)], cache)
    shutil.copy(result.output_dir / "runtime.o", folder)


def tables_of(step) -> CoverageMap:
    """The map of a step, its coverage file closed."""
    coverage_map = prepare_tables(step, 0, 0)
    coverage_map.close()
    return coverage_map


def tables_of_pair(fuzzed) -> CoverageMap:
    """The map of a fuzzed pair."""
    coverage_map = prepare_tables(fuzzed.step, fuzzed.coverage_id, 0)
    coverage_map.close()
    return coverage_map


def gcc(folder: Path, *args: str) -> None:
    """Run GNU's compiler in ``folder``: it names folders as it was told them."""
    subprocess.run(["gcc", "-no-pie", *args], cwd=folder, check=True)


def shuffled_pcs(path: Path) -> list[int]:
    """Addresses for a coverage file: unsorted, some twice, with placeholders."""
    rng = random.Random(4)
    pcs = code_addresses(path)
    pcs += rng.sample(pcs, len(pcs) // 10) + [PLACEHOLDER_PC] * 3
    rng.shuffle(pcs)
    return pcs


def all_invalid(coverage_map: CoverageMap) -> bool:
    """Whether no PC has a source location, and the tables are empty."""
    header = SourceIndexHeader.parse(coverage_map.source_index)
    body = coverage_map.source_index[SourceIndexHeader.LAYOUT.size :]
    assert (header.directories_len, header.files_len, header.string_bytes_len) == (0, 0, 0)
    return body == SourceLocation.INVALID.serialize() * header.source_locations_len


@pytest.mark.parametrize("pair", ["debug_pair", "safe_pair"])
def test_tables_of_a_fuzzed_executable_are_those_of_zig(pair, request, oracle):
    """Byte for byte, placeholders and PCs that come twice included."""
    fuzzed = request.getfixturevalue(pair)
    explain(tables_of_pair(fuzzed).source_index[28:], oracle(fuzzed.executable, fuzzed.coverage_file))


@pytest.mark.parametrize("variant", VARIANTS)
def test_tables_of_c_programs_are_those_of_zig(client, folder, oracle, tmp_path, variant):
    """Several units, folders and DWARF versions, addresses at and between instructions."""
    if variant == "with_runtime":
        build_runtime(client, folder)
    path = c_executable(client.zig, client.global_cache_dir, folder, *VARIANTS[variant])
    pcs = shuffled_pcs(path)
    step = hand_made_step(tmp_path, path, pcs)
    coverage_map = tables_of(step)
    explain(coverage_map.source_index[28:], oracle(path, step.coverage_file))
    header = SourceIndexHeader.parse(coverage_map.source_index)
    assert header.directories_len >= 3
    assert header.files_len >= 5
    assert header.source_locations_len == len(pcs)


@pytest.mark.parametrize("flags", [("-gdwarf-4",), ("-gdwarf-5",), ("-gdwarf-5", "-O2")], ids=str)
def test_tables_of_another_compiler_are_those_of_zig(zig, zig_cache, folder, oracle, tmp_path, flags):
    """GNU's assembler writes other line programs than LLVM does."""
    c_executable(zig, zig_cache, folder, "-gdwarf-4")  # Writes the sources.
    path = folder / f"gnu{''.join(flags)}"
    gcc(folder, "-g", *flags, *C_SOURCES, "-o", str(path))
    step = hand_made_step(tmp_path, path, shuffled_pcs(path))
    explain(tables_of(step).source_index[28:], oracle(path, step.coverage_file))


def test_both_versions_of_debug_info_tell_the_same(zig, zig_cache, folder, tmp_path):
    """The same code with DWARF 4 and 5 has the same lines, columns and files."""
    found = []
    for flag in ("-gdwarf-4", "-gdwarf-5"):
        path = c_executable(zig, zig_cache, folder, flag)
        coverage_map = tables_of(hand_made_step(tmp_path, path, code_addresses(path)))
        places, coverage = coverage_map.source_locations, coverage_map.coverage
        names = [
            coverage.file_path(file).split("/")[-1] if file != 0xFFFFFFFF else "" for file in places[::3]
        ]
        found.append((names, places[1::3], places[2::3]))
    assert found[0] == found[1]


def test_lines_of_a_c_program_are_right(zig, zig_cache, folder, tmp_path):
    """Without any oracle: functions are where their source says, through #line, too."""
    path = c_executable(zig, zig_cache, folder, "-gdwarf-5")
    with Executable(path) as executable:
        symtab = executable._elf.get_section_by_name(".symtab")
        pcs = [symtab.get_symbol_by_name(n)[0]["st_value"] for n in ("main", "shared", "twice", "generated")]
    coverage_map = tables_of(hand_made_step(tmp_path, path, [*pcs, 1]))
    places = coverage_map.source_locations
    names = [coverage_map.coverage.file_path(places[3 * i]) for i in range(4)]
    tails = ("main.c", "lib/shared.c", "other/twice.c", "generated \xe9.y")
    assert all(name.endswith(tail) for name, tail in zip(names, tails, strict=True)), names
    assert [places[3 * i + 1] for i in range(4)] == [10, 4, 3, 2]
    assert places[12:].tolist() == [0xFFFFFFFF, 0, 0]


def test_an_executable_without_debug_info_has_no_tables(small_pair):
    """Zig's own server ends itself here; ours says why there is no source."""
    tables = tables_of_pair(small_pair)
    assert all_invalid(tables)
    assert "has no debug info" in tables.oddities[0]


def test_a_stripped_executable_has_no_tables(debug_pair, tmp_path):
    """The coverage file still belongs to it; every location is invalid."""
    copy = tmp_path / "stripped"
    subprocess.run(["strip", "-o", copy, debug_pair.executable], check=True)
    pcs = tables_of_pair(debug_pair)._pcs
    assert all_invalid(tables_of(hand_made_step(tmp_path, copy, pcs)))


def test_an_uninstrumented_executable_has_empty_tables(debug_pair, tmp_path):
    """No PCs, no locations, and no error."""
    coverage_map = tables_of(hand_made_step(tmp_path, debug_pair.normal_executable, []))
    assert coverage_map.source_index == SourceIndexHeader(0, 0, 0, 0, 0).serialize()


def test_a_unit_without_its_line_program_is_invalid(zig, zig_cache, folder, tmp_path, caplog):
    """A version that nobody knows (Zig's own code stops here): the others still resolve."""
    path = c_executable(zig, zig_cache, folder, "-gdwarf-4", "-O1")
    pcs = code_addresses(path)
    copy = tmp_path / "copy"
    whole = bytearray(path.read_bytes())
    with Executable(path) as executable:
        offset = executable._sections[".debug_line"]["sh_offset"]
    whole[offset + 4 : offset + 6] = b"\x63\x00"
    copy.write_bytes(whole)
    before = tables_of(hand_made_step(tmp_path, path, pcs)).source_locations
    after = tables_of(hand_made_step(tmp_path, copy, pcs)).source_locations
    found = sum(file != 0xFFFFFFFF for file in before[::3])
    assert 0 < sum(file != 0xFFFFFFFF for file in after[::3]) < found
    assert "copy" in caplog.text


def test_addresses_must_be_in_a_unit(zig, zig_cache, folder):
    """Below, above and in code without debug info, nothing resolves; at the edges all is exact."""
    path = c_executable(zig, zig_cache, folder, "-gdwarf-5", "-O1")
    with Executable(path) as executable:
        info = Info(executable)
        start, end, _ = info._ranges[0]
        pcs = array("Q", [0, 1, start - 1, start, end - 1, 2**64 - 1])
        found = [file != 0xFFFFFFFF for file in info.resolve_addresses(pcs, Coverage()).file]
    assert found[:2] == [False, False]
    assert found[3:] == [True, True, False]


@pytest.mark.parametrize("version", [4, 5])
def test_source_paths_name_the_files(zig, zig_cache, folder, version):
    """All files of all units whose folder is absolute, also those that #line invents, each once."""
    c_executable(zig, zig_cache, folder, "-gdwarf-4")  # Writes the sources.
    # What lies below the current folder is named by a relative path, so be elsewhere.
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    sources = [str(folder / name) for name in C_SOURCES]
    path = c_program(zig, zig_cache, elsewhere, sources, "exe", f"-gdwarf-{version}")
    with Executable(path) as executable:
        paths = Info(executable).source_paths()
    assert len(paths) == len(set(paths))
    assert all(Path(path.root_dir).is_absolute() for path in paths)
    known = {Path(str(path)).resolve() for path in paths}
    assert known >= {*(folder / name for name in C_FILES), elsewhere / "generated \xe9.y", Path(LONG_NAME)}


def test_source_paths_of_a_fuzzed_executable(debug_pair, project_root):
    """The project's files are among them, and those that the server offers are there."""
    offered = DebugSources().of(replace(debug_pair.step, inputs=None))
    assert SourcePath(str(project_root.parent), "parser.zig") in offered
    assert all(Path(str(path)).is_file() for path in offered)
    assert len(offered) > 20


def test_sources_in_relative_folders_are_found(zig, zig_cache, folder, tmp_path):
    """They are named as the tables name them, and found where the compiler ran."""
    path = c_executable(zig, zig_cache, folder, "-gdwarf-4")
    step = hand_made_step(tmp_path, path, code_addresses(path))
    offered = {str(path): path.location for path in DebugSources().of(step)}
    coverage_map = tables_of(step)
    named = [coverage_map.coverage.file_path(file) for file in range(coverage_map.coverage.files_len)]
    ours = [name for name in named if not name.startswith("/")]
    assert len(ours) > 1
    for name in ours:
        assert Path(offered[name]).is_file()
        # The compiler's cache is shared: what it holds may have been compiled by another worker of ours.
        assert Path(offered[name]).is_relative_to(folder.parents[1])


@pytest.mark.parametrize("version", [4, 5])
def test_names_of_units_without_points_are_absolute(tmp_path, version):
    """No table has them, and what is beside them may be named otherwise by those with points."""
    write_files(tmp_path, {"tests/table.c": TABLE_C, "lib/other.c": "int other(void) { return 1; }\n"})
    gcc(tmp_path, f"-gdwarf-{version}", "-DEXTRA=0", "lib/other.c", "tests/table.c", "-o", "exe")
    step = hand_made_step(tmp_path, tmp_path / "exe", [])
    offered = {str(path): path.location for path in DebugSources().of(step)}
    assert offered["tests/table.c"] == str(tmp_path / "tests" / "table.c")
    assert str(tmp_path / "lib" / "other.c") in offered
    assert "lib/other.c" not in offered


def test_a_file_that_was_told_keeps_the_name_of_the_tables(tmp_path):
    """If debug info names it by a roundabout way; what was not told stays out."""
    write_files(tmp_path, {"a/table.c": TABLE_C, "lib/other.c": "int other(void) { return 1; }\n"})
    way = f"{tmp_path}/a/../lib"
    gcc(tmp_path, "-g", "-DEXTRA=0", "a/table.c", f"{way}/other.c", "-o", "exe")
    told = (SourcePath(f"{tmp_path}/lib", "other.c"),)
    step = replace(hand_made_step(tmp_path, tmp_path / "exe", []), inputs=told)
    assert DebugSources().of(step) == [*told, SourcePath(way, "other.c")]
    (tmp_path / "exe").unlink()
    assert DebugSources().of(step) == list(told)


def test_the_folder_of_a_unit_is_found_by_its_code(tmp_path):
    """Wherever the unit is among the others; an address outside all code has none."""
    for name in ("first", "second"):
        write_files(tmp_path / name, {f"{name}.c": f"int {name}(void) {{ return 1; }}\n"})
        gcc(tmp_path / name, "-g", "-c", f"{name}.c")
    write_files(tmp_path, {"main.c": "int main(void) { return 0; }\n"})
    gcc(tmp_path, "-g", "main.c", "first/first.o", "second/second.o", "-o", "exe")
    with Executable(tmp_path / "exe") as executable:
        places = {name: addr for addr, _, name in executable.function_symbols()}
        for name in ("first", "second"):
            assert compilation_folder(executable, places[name.encode()]) == str(tmp_path / name)
        assert compilation_folder(executable, 1) is None


def test_source_paths_without_debug_info_are_none(small_pair):
    """There is nothing that would name them."""
    assert DebugSources().of(replace(small_pair.step, inputs=None)) == []


@pytest.mark.timeout(250)
@pytest.mark.parametrize("flags", [("-gdwarf-4",), ("-gdwarf-5", "-O2")], ids=str)
def test_damaged_debug_info_never_raises_anything_else(
    zig, zig_cache, folder, tmp_path, flags, caplog, rounds
):
    """Random bytes of the debug sections change: there are tables, or an InputError."""
    caplog.set_level(logging.CRITICAL)
    path = c_executable(zig, zig_cache, folder, *flags)
    step = hand_made_step(tmp_path, tmp_path / "copy", code_addresses(path))
    whole = path.read_bytes()
    with Executable(path) as executable:
        sections = [executable._sections.get(name) for name in DAMAGED_SECTIONS]
    spans = [(s["sh_offset"], s["sh_size"]) for s in sections if s is not None]
    rng = random.Random(sum(map(len, flags)))
    for _ in range(rounds(250, 80)):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            offset, size = rng.choice(spans)
            damaged[offset + rng.randrange(size)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        (tmp_path / "copy").write_bytes(damaged)
        try:
            tables_of(step)
            DebugSources().of(step)
        except InputError:
            pass


def test_a_line_program_that_lies_about_its_length_is_refused(zig, zig_cache, folder, tmp_path):
    """A header or program that reaches beyond the section costs its unit's locations, no more."""
    path = c_executable(zig, zig_cache, folder, "-gdwarf-4", "-O1")
    whole = path.read_bytes()
    with Executable(path) as executable:
        offset = executable._sections[".debug_line"]["sh_offset"]
    step = hand_made_step(tmp_path, tmp_path / "copy", code_addresses(path))
    for place in (0, 6):
        for length in (0, 1, 0x7FFFFFFF, 0xFFFFFFEF, 0xFFFFFFFF):
            damaged = bytearray(whole)
            struct.pack_into("<I", damaged, offset + place, length)
            (tmp_path / "copy").write_bytes(damaged)
            assert tables_of(step).source_locations.count(0xFFFFFFFF) > 0
