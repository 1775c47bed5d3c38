"""Line programs that are swept in processes of their own, and what can go wrong with those."""

import os
import subprocess
import sys
from array import array
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzserver.coverage import sweeping
from fuzzserver.coverage.coverage_map import prepare_tables
from fuzzserver.coverage.line_program import LineProgram, join, resolve_rows, sweep
from fuzzserver.coverage.sweeping import sweep_programs
from fuzzserver.errors import DebugInfoError, Stopped
from fuzzserver.step import FuzzRunStep
from tests.support_dwarf import STANDARD_LENGTHS, extended, reference_answers, sleb, uleb
from tests.support_time import WAIT
from tests.support_zig_children import is_alive, wait_until_gone

COUNT = 400
"""Sequences of a program."""


def program_of(code: bytes, version: int = 4) -> LineProgram:
    """A program of these opcodes with a usual header."""
    return LineProgram(version, 1, -5, 14, 13, STANDARD_LENGTHS, (), (), code, 0, len(code))


def set_address(address: int) -> bytes:
    """The opcode that a sequence begins with."""
    return extended(2, address.to_bytes(8, "little"))


def sequence(number: int, address: int) -> bytes:
    """Five rows with gaps, in a file and column of their own."""
    rows = b"".join(
        b"\x05" + uleb(number + step) + b"\x03" + sleb(number % 70) + b"\x02\x07\x01" for step in range(5)
    )
    return set_address(address) + b"\x04" + uleb(1 + number % 9) + b"\x01" + rows + b"\x02\x05" + extended(1)


def big_program(addresses: list[int]) -> LineProgram:
    """A sequence at each of these addresses."""
    return program_of(b"".join(sequence(number, address) for number, address in enumerate(addresses)))


ASCENDING = [0x1000 + 60 * number for number in range(COUNT)]
TARGETS = array("Q", range(0xFF0, 0x1000 + 60 * COUNT + 50, 5))

ORDERS = {
    "ascending": ASCENDING,
    "descending": ASCENDING[::-1],
    "interleaved": ASCENDING[::2] + ASCENDING[1::2],
    "all_over_one_another": [0x1000 + 7 * (number % 31) for number in range(COUNT)],
}


@pytest.fixture
def small_pays(monkeypatch):
    """Processes are started for any program, however long they take to begin."""
    monkeypatch.setattr(sweeping, "PROCESSES_PAY", 0)
    monkeypatch.setattr(sweeping, "START_TIMEOUT", WAIT)


@pytest.fixture
def started(monkeypatch) -> list[subprocess.Popen[bytes]]:
    """The processes that are started meanwhile."""
    processes: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen):
        """Notes itself."""

        def __init__(self, *args, **options) -> None:
            super().__init__(*args, **options)
            if sweeping._ENTRY in self.args:
                processes.append(self)

    monkeypatch.setattr(sweeping.subprocess, "Popen", Recorded)
    return processes


def ignore(done: int, total: int) -> None:
    """No progress is needed."""


def all_ended(processes: list[subprocess.Popen[bytes]]) -> bool:
    """Whether none is left, be it as a zombie."""
    return all(process.returncode is not None and not psutil.pid_exists(process.pid) for process in processes)


@pytest.mark.parametrize("order", ORDERS)
def test_two_processes_find_what_one_does(small_pays, started, order):
    """Wherever the two halves of a program lie among the addresses."""
    jobs = [(big_program(ORDERS[order]), TARGETS), (big_program(ASCENDING[:9]), TARGETS[:70])]
    found = sweep_programs(jobs, ignore)
    assert found == [resolve_rows(*job) for job in jobs]
    assert len(started) == 2
    assert all_ended(started)
    reference = reference_answers(jobs[0][0], TARGETS)
    rows = zip(found[0].file, found[0].line, found[0].column, strict=True)
    assert list(rows) == [row or (0xFFFFFFFF, 0, 0) for row in reference]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=12),
    st.lists(st.integers(0, 60), max_size=20).map(sorted),
    st.data(),
)
def test_parts_joined_are_the_whole(addresses, targets, data):
    """Cut between any two sequences, also when they cover the same addresses."""
    pieces = [sequence(number, address) for number, address in enumerate(addresses)]
    cut = len(b"".join(pieces[: data.draw(st.integers(0, len(pieces)))]))
    whole = program_of(b"".join(pieces))
    wanted = resolve_rows(whole, array("Q", targets))
    parts = [whole._replace(end=cut), whole._replace(start=cut)]
    sweeps = [sweep(part, array("Q", targets), first_stretch=part.start) for part in parts]
    assert join(array("Q", targets), sweeps) == wanted


def test_a_program_of_one_sequence_goes_to_one_process(small_pays, started):
    """It cannot be cut; the other programs are the other process's."""
    rows = set_address(0x1000) + b"\x03\x01\x02\x03\x01" * 5000 + extended(1)
    jobs = [(big_program(ASCENDING[:5]), TARGETS), (program_of(rows), TARGETS)]
    assert sweep_programs(jobs, ignore) == [resolve_rows(*job) for job in jobs]
    assert len(started) == 2
    assert sweep_programs(jobs[1:], ignore) == [resolve_rows(*jobs[1])]
    assert len(started) == 3


def test_what_only_looks_like_the_end_of_a_sequence_is_noticed(small_pays, started):
    """A column, and two rows: the answer is right, though nothing could be cut."""
    code = set_address(0x1000) + b"\x05\x00\x01\x01\x02\x03\x03\x01" * 3000 + extended(1)
    jobs = [(program_of(code), TARGETS)]
    assert sweep_programs(jobs, ignore) == [resolve_rows(*jobs[0])]
    assert len(started) == 2


def test_a_damaged_program_is_reported_as_without_processes(small_pays):
    """The others are answered all the same."""
    jobs = [(program_of(b"\0\0" + big_program(ASCENDING).data), TARGETS), (big_program(ASCENDING), TARGETS)]
    damaged, good = sweep_programs(jobs, ignore)
    assert isinstance(damaged, DebugInfoError)
    assert "extended opcode of no bytes" in str(damaged)
    assert good == resolve_rows(*jobs[1])


@pytest.mark.parametrize("python", [None, "", "/no/such/python", "/bin/true", "/usr/bin/env-python"])
def test_without_a_python_it_goes_on_alone(small_pays, monkeypatch, python):
    """The library may be part of another program, or there are no processes left."""
    monkeypatch.setattr(sys, "executable", python)
    jobs = [(big_program(ASCENDING), TARGETS)]
    assert sweep_programs(jobs, ignore) == [resolve_rows(*jobs[0])]


@pytest.mark.parametrize(
    "script", ["exit 0", "echo something else; sleep 60", "printf sweeper; exit 1", "cat"]
)
def test_what_is_no_python_of_ours_is_not_waited_for(small_pays, started, tmp_path, monkeypatch, script):
    """It says something else, or ends, or nothing at all."""
    monkeypatch.setattr(sweeping, "START_TIMEOUT", 0.3)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    jobs = [(big_program(ASCENDING), TARGETS)]
    assert sweep_programs(jobs, ignore) == [resolve_rows(*jobs[0])]
    assert all_ended(started)


def test_a_killed_process_is_replaced_by_this_one(small_pays, started):
    """The answers are the same."""

    def kill(done: int, total: int) -> None:
        for process in started:
            process.kill()

    # It takes so long that the processes do not end before they are killed.
    jobs = [(big_program(ASCENDING * 100), TARGETS)]
    assert sweep_programs(jobs, kill) == [resolve_rows(*jobs[0])]
    assert all_ended(started)


def test_stopping_ends_the_processes(small_pays, started):
    """What progress raises comes through, and nobody is left."""

    def stop(done: int, total: int) -> None:
        raise Stopped("the server stops")

    with pytest.raises(Stopped):
        sweep_programs([(big_program(ASCENDING * 100), TARGETS)], stop)
    assert len(started) == 2
    assert all_ended(started)


def test_progress_is_told_and_ends_with_all(small_pays):
    """It never tells more than there is."""
    targets = array("Q", range(0x1000, 0x1000 + 60 * COUNT))
    told: list[tuple[int, int]] = []
    sweep_programs([(big_program(ASCENDING), targets)], lambda *pair: told.append(pair))
    assert {total for _, total in told} == {len(targets)}
    assert told[-1] == (len(targets), len(targets))
    assert any(0 < done < len(targets) for done, _ in told)
    assert max(told)[0] == len(targets)


def test_a_process_ends_with_its_parent(tmp_path):
    """Killed, a parent cannot end anybody."""
    root = Path(sweeping.__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", "from tests.test_sweeping import hold; hold()"],
        stdout=subprocess.PIPE,
        cwd=root,
        text=True,
    )
    child = int(parent.stdout.readline())
    assert is_alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until_gone(child)


def hold() -> None:
    """The parent of the test above: a process of it is at work for long."""
    sweeping.START_TIMEOUT = WAIT
    sweeper = sweeping._Sweeper()
    program = program_of(set_address(0) + b"\x01" * 100_000_000)
    sweeper.begin([(sweeping._Part(0, 0, program.end), program, array("Q", [1]))])
    print(sweeper._process.pid, flush=True)
    os.read(sweeper.stdout, 1)


@pytest.mark.parametrize("pair", ["debug_pair", "safe_pair"])
def test_tables_of_an_executable_are_the_same(pair, request, monkeypatch, started):
    """Byte for byte, whether processes help or not."""
    fuzzed = request.getfixturevalue(pair)
    step = FuzzRunStep("test", fuzzed.executable, coverage_file=fuzzed.coverage_file)
    indexes = []
    for processes_pay in (0, 1 << 40):
        monkeypatch.setattr(sweeping, "PROCESSES_PAY", processes_pay)
        coverage_map = prepare_tables(step, 0, 0)
        coverage_map.close()
        indexes.append(coverage_map.source_index)
    assert indexes[0] == indexes[1]
    assert 0 < len(started) <= 2
    assert all_ended(started)
