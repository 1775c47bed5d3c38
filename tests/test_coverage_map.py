"""The coverage map: entry points, messages, and what it shows when its file breaks."""

import logging
import os
import re
import shutil
import struct
import time
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzserver.coverage.coverage_map import (
    CoverageMap,
    ExecutableFacts,
    check_inputs,
    coverage_delta_message,
    coverage_update_message,
    prepare_tables,
)
from fuzzserver.coverage.executable import FileState
from fuzzserver.coverage.functions import Functions
from fuzzserver.coverage.history import History
from fuzzserver.coverage.seen_pcs import SeenPcs, SeenPcsSnapshot
from fuzzserver.coverage.tables import Coverage
from fuzzserver.errors import CoverageFileError, ExecutableError, InputError
from fuzzserver.step import FuzzRunStep
from fuzzserver.wire.abi import (
    CoverageDeltaHeader,
    CoverageUpdateHeader,
    EntryPointHeader,
    FileIndex,
    SourceIndexHeader,
    SourceLocation,
)
from tests.support_native import coverage_bytes, hand_made_step

INVALID = (0xFFFFFFFF, 0, 0)
FACTS = ExecutableFacts(Path("exe"), FileState(1, 2, 3, 4_500_000_000), True, "0.14.1")


@pytest.fixture
def coverage_file(tmp_path):
    """The coverage file of the map that ``make`` makes."""
    return tmp_path / "coverage"


@pytest.fixture
def make(coverage_file):
    """Makes a map by hand; a PC in ``lost`` has no source location."""
    made: list[CoverageMap] = []

    def run(pcs: list[int], lost: tuple[int, ...] = ()) -> CoverageMap:
        path = coverage_file
        path.write_bytes(coverage_bytes(pcs, seen=[0] if pcs else [], n_runs=5, unique_runs=2))
        coverage = Coverage()
        coverage.intern_file(b"/src", b"a.zig")
        locations = array("I")
        for index, pc in enumerate(pcs):
            locations.extend(INVALID if pc in lost else (0, 10 + index, 3))
        addrs = array("Q", pcs)
        functions = Functions(array("I", range(len(pcs))), array("I", [0, 2]), b"f\0g\0")
        history = History(len(pcs), None)
        made.append(CoverageMap(7, FACTS, SeenPcs(path), addrs, coverage, locations, functions, history, -4))
        return made[-1]

    yield run
    for coverage_map in made:
        coverage_map.close()


@pytest.fixture
def debug_map(debug_pair):
    """The map of a fuzzed executable."""
    coverage_map = prepare_tables(debug_pair.step, debug_pair.coverage_id, 123)
    yield coverage_map
    coverage_map.close()


@pytest.mark.parametrize(
    ("pcs", "addr", "index"),
    [
        ([30, 10, 20], 10, 1),
        ([30, 10, 20], 20, 2),
        ([30, 20, 10, 20, 20], 20, 1),
        ([30, 20, 10, 20], 29, 1),
        ([30, 20, 10, 20], 2**64 - 1, 0),
        ([30, 1, 10, 1], 15, 2),
        ([1, 2], 2, 1),
        ([40, 20, 20], 39, 1),
    ],
)
def test_entry_points_are_found(make, pcs, addr, index):
    """An exact PC at its lowest index, else the greatest PC below at its lowest index."""
    assert make(pcs).find_entry_point(addr) == index


def test_placeholders_never_answer(make):
    """Not even if some unit claims the address 1."""
    assert make([30, 1, 10]).find_entry_point(10) == 2
    with pytest.raises(InputError):
        make([30, 1, 10]).find_entry_point(9)


def test_pcs_without_a_source_location_never_answer(make):
    """Not even if they match exactly: the next PC below stands for them."""
    assert make([30, 10, 20], lost=(20,)).find_entry_point(20) == 1
    assert make([30, 10, 20], lost=(20, 30)).find_entry_point(99) == 1


@pytest.mark.parametrize(
    ("pcs", "lost", "addr"),
    [([30, 10], (), 9), ([30, 10], (10,), 29), ([1, 1], (), 5), ([1, 30], (), 1), ([30], (), 0)],
)
def test_an_entry_point_that_nothing_stands_for_is_an_error(make, pcs, lost, addr):
    """The error names the address, and what there is to choose from."""
    known = [pc for pc in pcs if pc not in lost]
    with pytest.raises(
        InputError, match=f"entry point 0x{addr:x}: of {len(pcs)} PCs, {len(known)} have"
    ) as caught:
        make(pcs, lost).find_entry_point(addr)
    assert str(caught.value).endswith(f"the lowest of them 0x{min(known):x}")


def test_an_entry_point_in_an_empty_table_is_an_error(make):
    """Zig's own server ends itself here."""
    with pytest.raises(InputError, match="0x10: the executable has no instrumented PCs"):
        make([]).find_entry_point(16)


def test_entry_points_of_a_fuzzed_executable_are_its_tests(debug_map, debug_pair, project_root):
    """The addresses that the workers report resolve to the lines of their tests."""
    lines = project_root.read_text().splitlines()
    found = set()
    for addr in debug_pair.entry_points:
        place = 3 * debug_map.find_entry_point(addr)
        file, line, _ = debug_map.source_locations[place : place + 3]
        assert debug_map.coverage.file_path(FileIndex(file)) == str(project_root)
        found.add(lines[line - 1])
    assert found == {'test "fuzz sum" {', 'test "fuzz depth" {'}


def test_entry_points_are_found_whether_or_not_they_are_listed(debug_map, debug_pair):
    """The address behind an entry point's own belongs to the same function."""
    for addr in debug_pair.entry_points:
        assert debug_map.find_entry_point(addr + 1) == debug_map.find_entry_point(addr)


def test_the_source_index_holds_all_tables(make):
    """Header, directories, files, locations and strings follow one another."""
    message = make([30, 1], lost=(1,)).source_index
    assert SourceIndexHeader.parse(message) == SourceIndexHeader(1, 1, 2, 11, -4)
    body = message[SourceIndexHeader.LAYOUT.size :]
    assert struct.unpack_from("<I", body) == (0,)
    assert struct.unpack_from("<II", body, 4) == (0, 5)
    assert SourceLocation.parse(body[12:]) == SourceLocation(FileIndex(0), 10, 3)
    assert SourceLocation.parse(body[24:]) == SourceLocation.INVALID
    assert body[36:] == b"/src\0a.zig\0"


def test_the_entry_points_message_lists_indexes(make):
    """None, then two."""
    coverage_map = make([30, 10])
    assert coverage_map.entry_points_message().hex() == "03000000"
    coverage_map.entry_points = (1, 0)
    assert coverage_map.entry_points_message().hex() == "03020000" + "01000000" + "00000000"
    assert EntryPointHeader.parse(coverage_map.entry_points_message()).locs_len == 2


def test_the_coverage_update_message_holds_counters_and_bits(make):
    """Header, then the bits as they lie in the file."""
    coverage_map = make(list(range(10, 80)))
    message = coverage_update_message(coverage_map.read())
    assert CoverageUpdateHeader.parse(message) == CoverageUpdateHeader(5, 2)
    assert message[24:] == b"\x01" + bytes(15)
    assert coverage_map.start_n_runs == 5


def test_a_truncated_file_keeps_the_last_snapshot(make, coverage_file, caplog):
    """It is logged once for each time that the file breaks, and followed again when it is whole."""
    coverage_map = make([30, 10])
    path = coverage_file
    path.write_bytes(coverage_bytes([30, 10], seen=[0, 1], n_runs=9))
    before = coverage_map.read()
    for broken in (1, 2):
        os.truncate(path, 20)
        assert coverage_map.read() is before
        assert coverage_map.read() == before
        errors = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert len(errors) == broken
        assert "was truncated" in errors[-1].getMessage()
        assert "showing what was read before" in errors[-1].getMessage()
        path.write_bytes(coverage_bytes([30, 10], n_runs=9 + broken))
        before = coverage_map.read()
        assert before.n_runs == 9 + broken


def test_workers_are_joined(make, tmp_path):
    """The coverage file of one more worker adds its runs and bits; a file at the same path replaces one."""
    coverage_map = make([30, 10])
    second = tmp_path / "second"
    second.write_bytes(coverage_bytes([30, 10], seen=[1], n_runs=70, unique_runs=3))
    coverage_map.add_coverage_file(second)
    coverage_map.add_coverage_file(second)
    assert coverage_map.read() == SeenPcsSnapshot(75, 5, b"\x03" + bytes(7))
    assert coverage_map.start_n_runs == 75
    second.rename(tmp_path / "old")
    second.write_bytes(coverage_bytes([30, 10], n_runs=1))
    coverage_map.add_coverage_file(second)
    assert coverage_map.read() == SeenPcsSnapshot(6, 3, b"\x01" + bytes(7))
    assert coverage_map.start_n_runs == 6


def test_a_worker_with_other_points_is_refused(make, tmp_path):
    """A file that lists other PCs would mix up all bits."""
    coverage_map = make([30, 10])
    second = tmp_path / "second"
    second.write_bytes(coverage_bytes([30, 11], n_runs=70))
    with pytest.raises(CoverageFileError, match=r"second' lists other PCs .* 0700000000000000, too"):
        coverage_map.add_coverage_file(second)
    assert coverage_map.read().n_runs == 5


def test_a_closed_map_keeps_the_last_snapshot(make):
    """A session that is a moment late sees what was there."""
    coverage_map = make([30])
    before = coverage_map.read()
    coverage_map.close()
    coverage_map.close()
    assert coverage_map.read() == before


def test_inputs_that_belong_together_are_accepted(debug_pair, nothing_left):
    """The quick check of a good pair says nothing and leaves nothing open."""
    check_inputs(debug_pair.step, debug_pair.coverage_id)


def test_inputs_that_do_not_belong_together_are_refused(debug_pair, safe_pair, tmp_path, nothing_left):
    """Quick check and tables say the same, and leave nothing open."""
    cases = [
        (FuzzRunStep("x", debug_pair.executable, coverage_file=safe_pair.coverage_file), CoverageFileError),
        (FuzzRunStep("x", debug_pair.executable, coverage_file=tmp_path / "none"), CoverageFileError),
        (FuzzRunStep("x", tmp_path / "none", coverage_file=debug_pair.coverage_file), ExecutableError),
        (FuzzRunStep("x", debug_pair.coverage_file, coverage_file=debug_pair.executable), ExecutableError),
    ]
    for step, error in cases:
        with pytest.raises(error) as quick:
            check_inputs(step, 0)
        with pytest.raises(error) as full:
            prepare_tables(step, 0, 0)
        assert str(quick.value) == str(full.value)


def test_what_is_odd_is_told(debug_pair, tmp_path):
    """An executable that cannot prove the match is served, with a sentence about it."""
    step = hand_made_step(tmp_path, debug_pair.normal_executable, [])
    coverage_map = prepare_tables(step, 0, 0)
    coverage_map.close()
    (oddity,) = coverage_map.oddities
    assert "lists no PCs" in oddity


def snapshot_of(size: int, seen: set[int], n_runs: int = 1) -> SeenPcsSnapshot:
    """A snapshot of ``size`` points, of which some are covered."""
    bits = sum(1 << point for point in seen)
    return SeenPcsSnapshot(n_runs, 2, bits.to_bytes((size + 63) // 64 * 8, "little"))


@given(st.integers(1, 400), st.data())
def test_the_delta_message_tells_what_is_new(size, data):
    """Indexes, ascending; none at all where a bit has vanished, or where all bits are no longer."""
    points = st.sets(st.integers(0, size - 1))
    before, now = data.draw(points), data.draw(points)
    before = data.draw(st.sampled_from([before, before & now, set(), now]))
    full = coverage_update_message(snapshot_of(size, now, 9))
    message = coverage_delta_message(snapshot_of(size, before), snapshot_of(size, now, 9), 1234.5)
    new = sorted(now - before)
    length = 32 + 4 * len(new)
    if before - now or length >= len(full):
        assert message is None
        return
    assert CoverageDeltaHeader.parse(message) == CoverageDeltaHeader(len(new), 9, 2, 1234.5)
    assert list(struct.unpack(f"<{len(new)}I", message[32:])) == new
    assert len(message) == length < len(full)


def test_deltas_of_large_maps_are_short():
    """That is what they are for: one new point of a million is 36 bytes."""
    before, now = snapshot_of(10**6, {5}), snapshot_of(10**6, {5, 999_999}, 7)
    message = coverage_delta_message(before, now, 1.0)
    assert message is not None
    assert len(message) == 36
    assert len(coverage_delta_message(now, snapshot_of(10**6, {5, 999_999}, 8), 1.0) or b"") == 32


def test_a_map_describes_its_executable(debug_pair, small_pair, tmp_path):
    """Compiler, debug info and age; and that it was replaced, changed or removed since."""
    path = Path(shutil.copy(debug_pair.executable, tmp_path / "test"))
    os.utime(path, ns=(0, 1_700_000_000_500_000_000))
    coverage_map = prepare_tables(FuzzRunStep("x", path, coverage_file=debug_pair.coverage_file), 0, 0)
    coverage_map.close()
    expected = {
        "index": coverage_map.index_id,
        "executable": str(path),
        "executable_time": 1_700_000_000.5,
        "replaced": False,
        "has_debug_info": True,
        "zig_version": "0.14.1",
        "oddities": [],
        "fault": None,
    }
    assert coverage_map.describe_json() == expected
    other = shutil.copy(debug_pair.executable, tmp_path / "other")
    os.utime(other, ns=(0, 1_700_000_000_500_000_000))
    os.replace(other, path)
    assert coverage_map.describe_json() == expected | {"replaced": True}
    path.unlink()
    assert coverage_map.replaced
    small = prepare_tables(small_pair.step, small_pair.coverage_id, 0)
    small.close()
    described = small.describe_json()
    assert not small.replaced
    assert (described["has_debug_info"], described["zig_version"]) == (False, None)
    assert "has no debug info" in described["oddities"][0]


def test_many_entry_points_are_found_quickly(make):
    """Each worker of each test asks when it starts, of a large program; that is no look at each point."""
    pcs = list(range(0x1000, 0x1000 + 4 * 100_000, 4))
    coverage_map = make(pcs[50_000:] + pcs[:50_000])
    assert coverage_map.find_entry_point(pcs[0]) == 50_000, "what all of them need is made now"
    begun = time.thread_time()
    assert sum(pcs.index(pcs[-1]) for _ in range(50)) == 50 * (len(pcs) - 1)
    fifty_looks = time.thread_time() - begun
    begun = time.thread_time()
    found = [coverage_map.find_entry_point(pc + 3) for pc in pcs[::500]]
    assert time.thread_time() - begun < fifty_looks
    assert found == [(index + 50_000) % 100_000 for index in range(0, 100_000, 500)]


def test_each_map_has_an_index_of_its_own(make):
    """A page that holds the tables of another map must be sent them anew, be it of the same points."""
    ids = [make([5, 6]).index_id for _ in range(3)]
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in ids)
    assert len(set(ids)) == 3


def test_an_executable_that_grows_counts_as_replaced(make, tmp_path):
    """A linker that writes into the same file."""
    path = tmp_path / "exe"
    path.write_bytes(b"one")
    facts = ExecutableFacts(path, FileState.of(path.stat()), False, None)
    assert not facts.replaced
    path.write_bytes(b"other")
    assert facts.replaced
    assert make([30]).replaced, "there is no file 'exe'"


def test_progress_is_told_while_debug_info_is_read(debug_pair):
    """It ascends to all of the points, in more than one step, and not for each of them."""
    told: list[tuple[int, int]] = []
    progress = lambda done, total: told.append((done, total))  # noqa: E731
    coverage_map = prepare_tables(debug_pair.step, debug_pair.coverage_id, 0, None, progress)
    coverage_map.close()
    total = len(set(coverage_map._pcs))
    assert told == sorted(set(told))
    assert {total for _, total in told} == {total}
    assert 0 < told[0][0] <= told[-1][0] <= total
    assert len(told) < 20


def test_closing_a_map_that_nobody_follows_writes_nothing(debug_pair, tmp_path):
    """Only a map that was shown has a history to keep; another server may have one there."""
    (tmp_path / "v").mkdir()
    shutil.copy(debug_pair.coverage_file, tmp_path / "v")
    step = FuzzRunStep("x", debug_pair.executable, tmp_path)
    prepare_tables(step, debug_pair.coverage_id, 0).close()
    assert not (tmp_path / "fuzzserver" / "history").exists()
    coverage_map = prepare_tables(step, debug_pair.coverage_id, 0)
    coverage_map.begin_history("start", "x")
    coverage_map.close()
    (kept,) = (tmp_path / "fuzzserver/history").iterdir()
    assert kept.name == debug_pair.coverage_file.name


def test_what_a_worker_brings_along_was_covered_before_anybody_looked(make, tmp_path):
    """Its points get no time, and no line leads to its runs; what it covers later has a time."""
    coverage_map = make([30, 10, 20])
    coverage_map.begin_history("start", "x")
    second = tmp_path / "second"
    second.write_bytes(coverage_bytes([30, 10, 20], seen=[1], n_runs=70))
    coverage_map.add_coverage_file(second)
    coverage_map.record()
    assert coverage_map.history.first_covered.tolist() == [1, 1, 0]
    assert [sample.flags for sample in coverage_map.history.samples] == [1, 1]
    with second.open("r+b") as file:
        file.seek(24)
        file.write(b"\x06")
    coverage_map.record()
    assert coverage_map.history.first_covered[:2].tolist() == [1, 1]
    assert coverage_map.history.first_covered[2] > 1_600_000_000
