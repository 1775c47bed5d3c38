"""Finished tables that wait for the next look at the same executable, and what becomes of damaged ones."""

import logging
import os
import shutil
import struct
import zlib
from array import array
from pathlib import Path

import pytest

from fuzzserver.coverage import coverage_map as coverage_map_module
from fuzzserver.coverage import tables_file
from fuzzserver.coverage.coverage_map import CoverageMap, prepare_tables
from fuzzserver.coverage.executable import Executable
from fuzzserver.coverage.functions import NO_FUNCTION, Functions
from fuzzserver.coverage.tables import Coverage
from fuzzserver.coverage.tables_file import FinishedTables, load_tables, save_tables
from fuzzserver.step import FuzzRunStep
from fuzzserver.wire.abi import SourceLocation
from tests.projects import FuzzedPair

ID = 0x1122334455667788
INVALID = (SourceLocation.INVALID.file, 0, 0)
PCS = array("Q", [0x1000, 0x1008, 0x1010])
HEAD = struct.Struct("<20sI16s7I")
"""Name and version, checksum, digest, and how long each table is."""


@pytest.fixture(autouse=True)
def tables_are_made_anew():
    """Not here, unlike in all other tests."""


@pytest.fixture
def executable(debug_pair):
    """An open executable; whose the tables are does not matter to most tests."""
    with Executable(debug_pair.executable) as executable:
        yield executable


@pytest.fixture
def folder(tmp_path):
    """Where the tables are kept."""
    return tmp_path / "tables"


def small_tables() -> FinishedTables:
    """Tables of ``PCS``: two files, two functions, and a point without either."""
    coverage = Coverage()
    coverage.intern_file(b"/src", b"a.zig")
    coverage.intern_file(b"/src/lib", "ü.zig".encode())
    locations = array("I", [0, 10, 3, 1, 20, 5, *INVALID])
    functions = Functions(array("I", [0, 1, NO_FUNCTION]), array("I", [0, 2]), b"f\0main.g\0")
    return FinishedTables(True, "0.14.1", coverage, locations, functions)


def content(tables: FinishedTables | None) -> tuple:
    """All that the tables hold."""
    assert tables is not None
    coverage, functions = tables.coverage, tables.functions
    return (
        tables.has_debug_info,
        tables.zig_version,
        coverage.directories,
        coverage.files,
        bytes(coverage.string_bytes),
        tables.source_locations,
        functions,
    )


@pytest.fixture
def kept(folder, executable):
    """The file of the small tables."""
    save_tables(folder, ID, executable, PCS, small_tables())
    (path,) = folder.iterdir()
    return path


def load(folder: Path, executable: Executable) -> FinishedTables | None:
    """The small tables, if they are there."""
    return load_tables(folder, ID, executable, PCS)


def test_tables_come_back_as_they_were(folder, executable, kept):
    """Each of them; under a name that the coverage id begins."""
    assert kept.name.startswith("8877665544332211-")
    assert content(load(folder, executable)) == content(small_tables())


def test_nothing_is_there_at_first(folder, executable, caplog):
    """No folder, an empty one, and one with tables of others: nothing that anybody need be told."""
    assert load(folder, executable) is None
    folder.mkdir()
    assert load(folder, executable) is None
    save_tables(folder, ID + 1, executable, PCS, small_tables())
    assert load(folder, executable) is None
    assert caplog.text == ""


def test_an_empty_table_is_one(folder, executable):
    """Of an executable without points, version and functions."""
    tables = FinishedTables(True, None, Coverage(), array("I"), Functions(array("I"), array("I"), b""))
    save_tables(folder, ID, executable, array("Q"), tables)
    assert content(load_tables(folder, ID, executable, array("Q"))) == content(tables)


def test_other_points_are_no_match(folder, executable, kept):
    """The same executable and id, as nobody has them but by chance."""
    assert load_tables(folder, ID, executable, array("Q", [0x1000, 0x1008, 0x1018])) is None


def test_no_damage_is_taken_for_tables(folder, executable, kept, caplog):
    """Cut at any byte, any byte another one, or something behind it."""
    good = kept.read_bytes()
    bad = [good[:size] for size in range(len(good))]
    bad += [good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :] for at in range(len(good))]
    bad += [good + b"\0", good + good]
    digest = tables_file._digest(executable, PCS)
    path = tables_file._path(folder, ID, digest)
    with pytest.MonkeyPatch.context() as patch:
        # The executable is the same each time.
        patch.setattr(tables_file, "_digest", lambda *_: digest)
        for data in bad:
            path.write_bytes(data)
            assert load(folder, executable) is None
        path.write_bytes(good)
        assert load(folder, executable) is not None
    assert len(caplog.messages) == len(bad)
    assert all(message.endswith("they are made anew") for message in caplog.messages)


def rewritten(good: bytes, lengths: dict[int, int], body: bytes | None = None) -> bytes:
    """A file with other lengths, or another content, and the checksum for it."""
    name, _, digest, *numbers = HEAD.unpack_from(good)
    for place, length in lengths.items():
        numbers[place] = length
    body = good[HEAD.size :] if body is None else body
    head = HEAD.pack(name, 0, digest, *numbers)
    return HEAD.pack(name, zlib.crc32(body, zlib.crc32(head[24:])), digest, *numbers) + body


@pytest.mark.parametrize("place", range(7))
def test_lengths_are_not_believed(folder, executable, kept, caplog, place):
    """A length that somebody made up, with the checksum for it, takes no memory and is no table."""
    good = kept.read_bytes()
    made_up = {0, 1, 2, 4, 1000, 0x7FFFFFFF, 0xFFFFFFFF} - {HEAD.unpack_from(good)[3 + place]}
    for length in made_up:
        kept.write_bytes(rewritten(good, {place: length}))
        assert load(folder, executable) is None
    assert caplog.text.count("another length than it should have") == len(made_up)


def test_a_file_with_holes_is_not_read(folder, executable, kept):
    """One that is as long as it says, which is longer than any disk."""
    kept.write_bytes(rewritten(kept.read_bytes(), {3: 0xFFFFFFFF, 6: 0xFFFFFFFF}))
    _, _, _, version, directories, files, strings, locations, functions, names = HEAD.unpack_from(
        kept.read_bytes()
    )
    size = version + 4 * directories + 8 * files + strings + 16 * locations + 4 * functions + names
    os.truncate(kept, HEAD.size + size)
    assert load(folder, executable) is None


def test_no_index_leads_beyond_its_table(folder, executable, kept, caplog):
    """Each number of each table, with the checksum for it: it is right, or it is no table."""
    good = kept.read_bytes()
    _, _, _, version, directories, files, strings, locations, functions, _ = HEAD.unpack_from(good)
    at_directories = HEAD.size + version
    at_files = at_directories + 4 * directories
    at_strings = at_files + 8 * files
    at_locations = at_strings + strings
    at_functions = at_locations + 12 * locations
    at_names = at_functions + 4 * locations
    indexes = [
        *range(at_directories, at_strings, 4),
        *range(at_locations, at_functions, 12),
        *range(at_functions, at_names + 4 * functions, 4),
    ]
    assert len(indexes) == 2 + 4 + 3 + 3 + 2
    for at in indexes:
        for number in (strings, 0x7FFFFFFF, 0xFFFFFFFE):
            body = good[HEAD.size : at] + struct.pack("<I", number) + good[at + 4 :]
            kept.write_bytes(rewritten(good, {}, body))
            assert load(folder, executable) is None
    for end in (at_locations - 1, len(good) - 1):
        body = good[HEAD.size : end] + b"x" + good[end + 1 :]
        kept.write_bytes(rewritten(good, {}, body))
        assert load(folder, executable) is None
    assert caplog.text.count("they are made anew") == 3 * len(indexes) + 2


def test_other_versions_are_left_alone(folder, executable, kept, caplog):
    """What a later program has written is no good, and not damaged by the look at it."""
    data = kept.read_bytes().replace(b"tables 1\n", b"tables 2\n")
    kept.write_bytes(data)
    assert load(folder, executable) is None
    assert "damaged, or of another version" in caplog.text
    assert kept.read_bytes() == data


def test_other_programs_make_other_tables(folder, executable, kept, monkeypatch):
    """A later version may have mended how tables are made."""
    monkeypatch.setattr(tables_file, "__version__", "99")
    assert load(folder, executable) is None


def test_only_files_are_read(folder, executable, kept, caplog):
    """A folder, a pipe to which nobody writes, a link, and one to itself."""
    good = folder.parent / "good"
    kept.rename(good)
    makers = [
        kept.mkdir,
        lambda: os.mkfifo(kept),
        lambda: kept.symlink_to(good),
        lambda: kept.symlink_to(kept),
    ]
    for number, make in enumerate(makers, 1):
        make()
        assert load(folder, executable) is None
        assert len(caplog.messages) == number
        if not kept.is_dir():
            save_tables(folder, ID, executable, PCS, small_tables())
            assert content(load(folder, executable)) == content(small_tables())
        kept.rmdir() if kept.is_dir() else kept.unlink()


def test_the_newest_are_kept(folder, executable, monkeypatch):
    """So many, and so many bytes; with what a killed server left, and without what is none of ours."""
    folder.mkdir()
    other = folder / "README"
    other.write_text("mine")
    left = folder / f".{ID:016x}-{0:032x}.abc123"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    monkeypatch.setattr(tables_file, "MAX_FILES", 3)
    for number in range(5):
        save_tables(folder, number, executable, PCS, small_tables())
        for path in folder.iterdir():
            if path.name.startswith(struct.pack("<Q", number).hex()):
                os.utime(path, (100 + number, 100 + number))
    ours = [load_tables(folder, number, executable, PCS) is not None for number in range(5)]
    assert ours == [False, False, True, True, True]
    assert not left.exists()
    assert other.read_text() == "mine"
    size = next(path.stat().st_size for path in folder.iterdir() if path != other)
    monkeypatch.setattr(tables_file, "MAX_BYTES", 2 * size + 1)
    save_tables(folder, 5, executable, PCS, small_tables())
    assert [load_tables(folder, number, executable, PCS) is not None for number in (3, 4, 5)] == [
        False,
        True,
        True,
    ]


# ---------------------------------------------------------------------- of a real executable


@pytest.fixture
def step(debug_pair: FuzzedPair, tmp_path: Path) -> FuzzRunStep:
    """A step whose tables nobody has made before."""
    path = tmp_path / "test"
    shutil.copy(debug_pair.executable, path)
    cache_root = tmp_path / "cache"
    return FuzzRunStep("x", path, cache_root, (), coverage_file=debug_pair.coverage_file)


def look(step: FuzzRunStep) -> CoverageMap:
    """Make a map, and let it write what it keeps."""
    coverage_map = prepare_tables(step, ID, 5)
    coverage_map.close()
    return coverage_map


def told(coverage_map: CoverageMap) -> tuple:
    """All that a page can see of the tables."""
    described = {**coverage_map.describe_json(), "index": None, "executable_time": None}
    return coverage_map.source_index, coverage_map.points_message(), described


def test_the_second_look_gives_the_same_bytes(step, monkeypatch):
    """And makes nothing anew. What is kept is written when there is time, and once."""
    cold = prepare_tables(step, ID, 5)
    folder = step.cache_root / "fuzzserver" / "tables"
    assert not folder.exists()
    cold.begin_history("start", "x")
    assert not folder.exists(), "nobody should wait for it to be shown"
    cold.record()
    (path,) = folder.iterdir()
    path.unlink()
    cold.record()
    assert list(folder.iterdir()) == []
    cold.close()
    first = look(step)
    state = next(folder.iterdir()).stat()
    monkeypatch.setattr(coverage_map_module, "_make_tables", None)
    warm = look(step)
    assert told(first) == told(warm) == told(cold)
    after = next(folder.iterdir()).stat()
    assert (after.st_ino, after.st_mtime_ns) == (state.st_ino, state.st_mtime_ns)
    assert warm.find_entry_point(warm._pcs[0]) == cold.find_entry_point(cold._pcs[0])


def patched(step: FuzzRunStep, section: str, change) -> None:
    """Change the content of a section of the executable, in another file at the same path."""
    with Executable(step.rebuilt_executable) as executable:
        data = executable.section_data(section)
        start = int(executable._sections[section]["sh_offset"])
    new = change(data)
    assert len(new) == len(data)
    assert new != data
    whole = step.rebuilt_executable.read_bytes()
    other = step.rebuilt_executable.with_name("other")
    other.write_bytes(whole[:start] + new + whole[start + len(new) :])
    os.replace(other, step.rebuilt_executable)


def test_another_build_has_other_tables(step):
    """With the same id and points, but other lines, other file names or other functions; both are kept."""
    first = look(step)
    patched(step, ".debug_str", lambda data: data.replace(b"/src\0", b"/SRC\0"))
    second = look(step)
    assert second.source_index != first.source_index
    patched(step, ".strtab", lambda data: data.replace(b"main.fuzzSum\0", b"main.fuzzMUS\0"))
    third = look(step)
    assert third.source_index == second.source_index
    assert b"main.fuzzMUS\0" in third.points_message()
    assert b"main.fuzzMUS\0" not in second.points_message()
    assert len(list((step.cache_root / "fuzzserver" / "tables").iterdir())) == 3


def test_an_executable_that_is_replaced_meanwhile_is_not_kept(step):
    """The tables are those of the one that was read; the digest would be that of the other."""
    coverage_map = prepare_tables(step, ID, 5)
    patched(step, ".debug_str", lambda data: data.replace(b"/src\0", b"/SRC\0"))
    coverage_map.record()
    coverage_map.close()
    assert not (step.cache_root / "fuzzserver" / "tables").exists()


def test_damaged_tables_are_made_anew_and_mended(step, caplog):
    """One line says so, and the next look uses them again."""
    first = look(step)
    (path,) = (step.cache_root / "fuzzserver" / "tables").iterdir()
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    caplog.clear()
    assert told(look(step)) == told(first)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert path.read_bytes() == good


def test_a_folder_that_cannot_be_written_to_costs_one_line(step, caplog):
    """A file has its name; the history is elsewhere. The map is shown as always."""
    folder = step.cache_root / "fuzzserver" / "tables"
    folder.parent.mkdir(parents=True)
    folder.write_text("a file")
    first = look(step)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"cannot write '{folder}/" in caplog.text
    assert "the tables of" in caplog.text
    assert told(look(step)) == told(first)


def test_a_full_disk_costs_one_line(step, caplog, monkeypatch):
    """Half a file is not left there."""
    folder = step.cache_root / "fuzzserver" / "tables"

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    coverage_map = prepare_tables(step, ID, 5)
    monkeypatch.setattr(os, "fsync", full)
    caplog.clear()
    coverage_map.record()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "No space left on device" in caplog.text
    assert list(folder.iterdir()) == []
    coverage_map.close()


def test_nothing_is_kept_of_what_is_flawed(small_pair, tmp_path):
    """Without debug info there is little to keep, and people should be told each time."""
    step = FuzzRunStep("x", small_pair.executable, tmp_path, (), small_pair.coverage_file)
    assert "has no debug info" in look(step).oddities[0]
    assert "has no debug info" in look(step).oddities[0]
    assert not (tmp_path / "fuzzserver" / "tables").exists()


def test_who_names_a_folder_is_given_that(step, tmp_path):
    """As ``serve`` does, which has no project."""
    step = FuzzRunStep(
        "x", step.rebuilt_executable, None, (), step.coverage_file, tables_dir=tmp_path / "elsewhere"
    )
    look(step)
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1
