"""The coverage file: what is refused, and that no state of it can harm the process."""

import os
import struct
import subprocess
import sys
import threading
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzserver.coverage.seen_pcs import SeenPcs, SeenPcsSnapshot
from fuzzserver.errors import CoverageFileError
from fuzzserver.wire.abi import SeenPcsHeader
from tests.support_facts import open_files
from tests.support_native import coverage_bytes
from tests.support_time import WAIT

PCS = [0x1000, 0x1008, 1, 0x900, 0x1000]

FLIPPING_WRITER = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
    print("ready", flush=True)
    while True:
        for value in (b"\\x00", b"\\xff"):
            memory[24:24 + 8 * 16] = value * (8 * 16)
            memory[0:8] = value[:1] * 8
"""
"""Changes bits and run counter of a mapped coverage file as fast as it can, as a fuzzer does."""


@pytest.fixture
def path(tmp_path):
    """A coverage file of five PCs."""
    path = tmp_path / "coverage"
    path.write_bytes(coverage_bytes(PCS, seen=[0, 3], n_runs=9, unique_runs=2))
    return path


def refused(path) -> str:
    """The error with which a file is refused; it leaves no descriptor behind."""
    with pytest.raises(CoverageFileError) as caught:
        SeenPcs(path)
    assert str(path) not in [target for _, target in open_files()]
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_valid_file_is_read(path):
    """Header, addresses and bits come out as they were written."""
    seen_pcs = SeenPcs(path)
    assert seen_pcs.header == SeenPcsHeader(9, 2, 5)
    assert seen_pcs.pc_addrs() == array("Q", PCS)
    assert seen_pcs.read() == SeenPcsSnapshot(9, 2, b"\x09" + bytes(7))
    seen_pcs.close()


def test_a_file_of_no_pcs_is_valid(tmp_path):
    """It is what an executable without instrumentation writes."""
    path = tmp_path / "coverage"
    path.write_bytes(coverage_bytes([]))
    seen_pcs = SeenPcs(path)
    assert seen_pcs.pc_addrs() == array("Q")
    assert seen_pcs.read().seen_bits == b""
    seen_pcs.close()


@given(st.lists(st.integers(0, 2**64 - 1), max_size=200), st.data())
def test_any_table_is_read_as_written(tmp_path_factory, pcs, data):
    """Any number of any addresses, any bits."""
    seen = data.draw(st.sets(st.integers(0, len(pcs) - 1)) if pcs else st.just(set()))
    path = tmp_path_factory.getbasetemp() / "any-table"
    path.write_bytes(coverage_bytes(pcs, seen=seen))
    seen_pcs = SeenPcs(path)
    bits = int.from_bytes(seen_pcs.read().seen_bits, "little")
    assert seen_pcs.pc_addrs().tolist() == pcs
    assert {index for index in range(len(pcs)) if bits >> index & 1} == seen
    seen_pcs.close()


def test_a_real_file_is_read(debug_pair):
    """A fuzzer's own file has the size, the counters and some bits that it should have."""
    seen_pcs = SeenPcs(debug_pair.coverage_file)
    snapshot = seen_pcs.read()
    seen_pcs.close()
    assert seen_pcs.header.pcs_len > 1000
    assert snapshot.n_runs >= 100
    assert snapshot.unique_runs > 0
    assert 0 < int.from_bytes(snapshot.seen_bits, "little").bit_count() <= seen_pcs.header.pcs_len


def test_changes_show_in_the_next_read(path):
    """Each read tells of the file as it is then."""
    seen_pcs = SeenPcs(path)
    path.write_bytes(coverage_bytes(PCS, seen=range(5), n_runs=10, unique_runs=3))
    assert seen_pcs.read() == SeenPcsSnapshot(10, 3, b"\x1f" + bytes(7))
    seen_pcs.close()


def test_a_missing_file_is_refused(tmp_path):
    """The error says why it cannot be opened."""
    assert "cannot open" in refused(tmp_path / "nothing")


def test_an_empty_file_is_refused(tmp_path):
    """The error says that no fuzzer has written it."""
    path = tmp_path / "coverage"
    path.touch()
    assert "is empty: no fuzzer has written it yet" in refused(path)


@pytest.mark.parametrize("length", range(1, 24))
def test_a_piece_of_a_header_is_refused(path, length):
    """The error tells both lengths."""
    os.truncate(path, length)
    assert f"has a header of 24 bytes, this one ends after {length}" in refused(path)


@pytest.mark.parametrize("pcs_len", [0, 4, 6, 64, 65, 2**32, 2**60, 2**63, 2**64 - 1])
def test_a_lying_number_of_pcs_is_refused(path, pcs_len):
    """Whether too small, too big or beyond every memory: the size does not fit."""
    with path.open("r+b") as file:
        file.seek(16)
        file.write(struct.pack("<Q", pcs_len))
    assert f"claims {pcs_len} PCs" in refused(path)
    assert f"but has {24 + 8 + 40}:" in refused(path)


@pytest.mark.parametrize("change", [-41, -40, -8, -1, 1, 8])
def test_a_file_of_another_size_is_refused(path, change):
    """There is no magic number, so the size must fit exactly."""
    os.truncate(path, path.stat().st_size + change)
    assert "it is truncated or no coverage file" in refused(path)


def test_a_folder_is_refused(tmp_path):
    """A folder can be opened, but is no file."""
    assert "not a regular file" in refused(tmp_path)


def test_a_pipe_is_refused_without_waiting(tmp_path):
    """Opening a pipe would wait for its writer."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert "not a regular file" in refused(path)


def test_an_executable_is_refused(debug_pair):
    """Options in the wrong order are noticed."""
    assert "no coverage file" in refused(debug_pair.executable)


@pytest.mark.parametrize("length", [0, 10, 24, 31])
def test_a_file_truncated_while_open_is_an_error(path, length):
    """Header and bits are gone: the read fails with counts, and the process lives."""
    seen_pcs = SeenPcs(path)
    os.truncate(path, length)
    with pytest.raises(CoverageFileError, match=f"was truncated: it ends after {length} of 32 bytes"):
        seen_pcs.read()
    with pytest.raises(CoverageFileError, match="ended after 0 of 40 bytes of addresses"):
        seen_pcs.pc_addrs()
    path.write_bytes(coverage_bytes(PCS))
    assert seen_pcs.read().n_runs == 1
    seen_pcs.close()


def test_addresses_truncated_while_open_are_an_error(path):
    """The bits can still be read then."""
    seen_pcs = SeenPcs(path)
    os.truncate(path, 24 + 8 + 39)
    with pytest.raises(CoverageFileError, match="ended after 39 of 40 bytes of addresses"):
        seen_pcs.pc_addrs()
    assert seen_pcs.read().n_runs == 9
    seen_pcs.close()


def test_a_removed_file_stays_readable(path):
    """The fuzzer's own mapping lives on as well."""
    seen_pcs = SeenPcs(path)
    path.unlink()
    assert seen_pcs.read().n_runs == 9
    seen_pcs.close()


def test_close_may_be_called_twice(path):
    """The second close must not close what got the descriptor since; reads fail after it."""
    seen_pcs = SeenPcs(path)
    seen_pcs.close()
    with path.open("rb") as other:
        seen_pcs.close()
        assert os.fstat(other.fileno()).st_size == path.stat().st_size
    for read in (seen_pcs.read, seen_pcs.pc_addrs):
        with pytest.raises(CoverageFileError, match="is closed"):
            read()


def test_many_threads_read_while_a_fuzzer_writes(tmp_path):
    """Every read gives a whole snapshot, until one closes the file; then all get the error."""
    path = tmp_path / "coverage"
    path.write_bytes(coverage_bytes(range(1, 1025)))
    argv = [sys.executable, "-c", FLIPPING_WRITER, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            _read_from_threads(SeenPcs(path))
        finally:
            writer.kill()


def _read_from_threads(seen_pcs: SeenPcs) -> None:
    ended = []
    enough = threading.Barrier(9)

    def read() -> None:
        runs = set()
        count = 0
        try:
            while True:
                snapshot = seen_pcs.read()
                assert len(snapshot.seen_bits) == 128
                runs.add(snapshot.n_runs)
                count += len(runs) > 1  # The writer may be slow to begin.
                if count == 500:
                    enough.wait()
        except CoverageFileError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    enough.wait(WAIT)
    seen_pcs.close()
    for thread in threads:
        thread.join(WAIT)
    assert ended == [f"coverage file '{seen_pcs.path}' is closed"] * 8
