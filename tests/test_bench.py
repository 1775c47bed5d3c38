"""The bench: what it prints, how it judges, and that it measures. What it measures is not judged here."""

import json
import os
import secrets
import signal
import subprocess
import sys
from array import array
from pathlib import Path

import pytest

from fuzzserver.coverage.coverage_map import check_inputs
from fuzzserver.coverage.executable import Executable
from fuzzserver.step import FuzzRunStep
from fuzzserver.zig.installation import Zig
from tests.bench.__main__ import PARTS, conclude, main
from tests.bench.big_target import POINTS, Target, big_target
from tests.bench.peers import Oracle
from tests.bench.row import Row, Settings, table, taking_turns
from tests.support_time import WAIT
from tests.support_zig_cli import MARKER, REPOSITORY, family

MET = Row("cold", 1.0, "s", "Zig", 4.0, at_most=0.25)
MISSED = Row("warm", 1.0, "s", "Zig", 2.0, at_most=0.2)
TOLD = Row("size", 5.0, "KB")


def bench(*args: object) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    command = [sys.executable, "-m", "tests.bench", *map(str, args)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=250, check=False)


def test_help_names_each_part_and_option() -> None:
    """Who has never run it learns what there is."""
    done = bench("--help")
    assert done.returncode == 0 and done.stderr == ""
    for word in (*PARTS, "--check", "--quick", "--slow", "--json"):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_unknown_part_is_one_line() -> None:
    """It says what there is instead."""
    done = bench("tables", "tabels")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: there is no part 'tabels'; there are tables, viewers, eye, growth\n"


def test_quick_tables_are_measured(tmp_path: Path) -> None:
    """All figures of that part are there, in the table and as JSON, and the tables are Zig's own."""
    done = bench("tables", "--quick", "--json", tmp_path / "rows.json")
    assert done.returncode == 0, done.stderr
    head, line, *rows = done.stdout.splitlines()
    assert [cell.strip() for cell in head.split("|")[1:-1]] == [
        *("what", "ours", "peer", "ratio", "target", "verdict")
    ]
    assert set(line) == set("|- ")
    assert len({len(row) for row in (head, line, *rows)}) == 1
    told = json.loads((tmp_path / "rows.json").read_text())
    assert told["failures"] == [] and len(told["rows"]) == len(rows)
    measured = {row["what"].partition(": ")[2]: row for row in told["rows"]}
    assert measured["tables that differ from Zig's"]["ours"] == 0
    for what in ("cold", "warm", "exec to source_index, cold"):
        row = measured[what]
        assert row["part"] == "tables" and "Zig Debug" in row["peer"]
        assert row["ratio"] == pytest.approx(row["ours"] / row["theirs"]) and row["ratio"] > 0
    assert measured["peak memory over idle"]["ours"] > 0


def test_check_says_what_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    """Only with --check, and only what has a target, decides the exit code."""
    rows = {"tables": [MET, MISSED], "eye": [TOLD]}
    assert conclude(rows, [], check=False) == 0
    assert capsys.readouterr().err == ""
    assert conclude(rows, [], check=True) == 1
    said = capsys.readouterr()
    assert said.err == "error: missed: warm | 1 s | Zig 2 s | 0.5 x | <= 0.2 x\n"
    assert said.out.count("MISSED") == 1 and said.out.count(" met ") == 1
    assert conclude({"tables": [MET], "eye": [TOLD]}, [], check=True) == 0


def test_part_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What was measured before is printed, what others measure too, and the exit code is not 0."""

    def failing(settings):
        yield MET
        raise OSError("no wrk")

    monkeypatch.setitem(PARTS, "eye", failing)
    monkeypatch.setitem(PARTS, "growth", lambda settings: iter([TOLD]))
    assert main(["eye", "growth"]) == 1
    said = capsys.readouterr()
    assert "error: part 'eye' failed: OSError: no wrk" in said.err
    assert "cold" in said.out and "size" in said.out


def test_interrupt_leaves_the_table_and_nothing_else(tmp_path: Path) -> None:
    """Ctrl-C ends what runs; what was measured is told."""
    token = secrets.token_hex(16)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench", "tables", "growth", "--quick"],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(tmp_path), MARKER: token},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            while not process.stderr.readline().startswith("tables: 1,000 PCs"):
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=2 * WAIT)
        finally:
            process.kill()
    assert process.returncode == 1
    assert err.endswith("error: interrupted: what is missing was not measured\n")
    assert "Traceback" not in err and "tables that differ" in out
    assert list(tmp_path.iterdir()) == []
    assert family(token) == []


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (Row("", 0.25, "s", "Zig", 1.0, at_most=0.25), True),
        (Row("", 0.26, "s", "Zig", 1.0, at_most=0.25), False),
        (Row("", 300.0, "MB", at_most=300), True),
        (Row("", 301.0, "MB", at_most=300), False),
        (Row("", 4999.0, "a second", at_least=5000), False),
        (Row("", 5000.0, "a second", at_least=5000), True),
        (Row("", 857.0, "files", "Zig", 857.0, at_most=1, at_least=1), True),
        (Row("", 856.0, "files", "Zig", 857.0, at_most=1, at_least=1), False),
        (Row("", 1.0, "s", "Zig", 0.0, at_most=1), False),
        (Row("", float("inf"), "ms", at_most=550), False),
        (Row("", 1.0, "s", "Zig", 0.5), None),
    ],
)
def test_row_is_judged(row: Row, met: bool | None) -> None:
    """By the ratio if there is a peer, else by the figure; the limit itself is good enough."""
    assert row.met is met
    assert row.describe_json()["met"] is met
    assert len(next(iter(table([row]))).split("|")) == len(row.cells) + 2


def test_they_take_turns() -> None:
    """What the machine does besides slows all that are compared."""
    order: list[str] = []

    def run(name: str) -> int:
        order.append(name)
        return len(order)

    assert taking_turns(2, lambda: run("ours"), lambda: run("theirs")) == [[1, 3], [2, 4]]
    assert order == ["ours", "theirs"] * 2


@pytest.fixture(scope="module")
def targets(zig: Zig, all_work: Path) -> list[Target]:
    """The same of several units and of one."""
    return [big_target(zig, all_work, 2500 * POINTS, one_unit=one_unit) for one_unit in (False, True)]


def test_target_is_one_that_a_fuzzer_could_have(targets: list[Target]) -> None:
    """Executable and coverage file belong together; the points are as many as asked for, and unsorted."""
    for target in targets:
        coverage_id = int.from_bytes(bytes.fromhex(target.coverage_file.name), "little")
        check_inputs(FuzzRunStep("", target.executable, target.cache_root), coverage_id)
        pcs = target.pcs
        assert len(pcs) == len(set(pcs)) == 2500 * POINTS
        assert list(pcs) != sorted(pcs)
    assert targets[0].pcs == targets[1].pcs


def test_units_are_joined(targets: list[Target], zig: Zig, all_work: Path, tmp_path: Path) -> None:
    """One unit has what several have: Zig finds the same there."""
    assert [_units(target) for target in targets] == [2, 1]
    oracle = Oracle(Settings(zig, all_work, tmp_path), "Debug")
    many, one = (oracle.tables(target) for target in targets)
    assert many == one and b"source0" in one


def _units(target: Target) -> int:
    with Executable(target.executable) as executable:
        return sum(1 for _ in executable._elf.get_dwarf_info().iter_CUs())


def test_copy_has_a_coverage_file_of_its_own(targets: list[Target], tmp_path: Path) -> None:
    """What a writer does to it does not spoil what is kept."""
    copy = targets[0].copied(tmp_path)
    assert copy.cache_root.parent == tmp_path and copy.coverage_file.name == targets[0].coverage_file.name
    assert copy.coverage_file.read_bytes() == targets[0].coverage_file.read_bytes()
    assert isinstance(copy.pcs, array)
