"""``fuzzserver merge``: reading reports, joining them, and the exit code."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzserver.arguments import make_parser
from fuzzserver.coverage.queue import CoverageMsg
from fuzzserver.errors import InputError
from fuzzserver.exit_code import ExitCode
from fuzzserver.merging import merge_reports
from fuzzserver.observer import Observer
from fuzzserver.report.compare import compare
from fuzzserver.report.json_form import read_report, report_json
from fuzzserver.report.merge import merge
from fuzzserver.report.model import Report, totals
from fuzzserver.wire.abi import SeenPcsHeader
from tests.projects import FuzzedPair
from tests.support_report import APP_ROWS, LIB_ROWS, Row, sample_report, sample_target
from tests.support_zig_cli import errors, run_cli

WAIT = 120.0


@pytest.fixture(autouse=True)
def no_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs these tests in GitHub Actions does not find them in the summary."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def saved(path: Path, report: Report) -> Path:
    """A report as a file."""
    path.write_text(json.dumps(report_json(report)))
    return path


def report_of(rows: Sequence[Row], folder: str = "/project", name: str = "app") -> Report:
    """A report of one target, made in a folder, without findings."""
    moved = [(file and file.replace("/project", folder), *row) for file, *row in rows]
    return replace(sample_report(), targets=(sample_target(name, moved),), findings=())


def merged(*args: object) -> int:
    """Run the subcommand in this process; returns the exit code."""
    return merge_reports(make_parser().parse_args(["merge", *map(str, args)]))


def uncovered(rows: Sequence[Row]) -> list[Row]:
    """The same points, none of them covered."""
    return [(*row[:4], 0) for row in rows]


def test_two_reports_become_one(tmp_path: Path) -> None:
    """As users start it: reports are read, joined, written; findings alone make no other exit code."""
    one = saved(tmp_path / "one.json", sample_report())
    two = saved(tmp_path / "two.json", report_of(uncovered(LIB_ROWS), name="lib"))
    done = run_cli(tmp_path, "merge", one, two, "--report", "json=all.json", "--report", "lcov=-")
    assert done.returncode == ExitCode.CLEAN, done.stderr
    assert "2 reports: 2 targets, 3,000 runs, 2 findings" in done.stderr
    assert "SF:/project/src/main.zig" in done.stdout
    whole = read_report(tmp_path / "all.json")
    assert [target.runs for target in whole.targets] == [1000, 2000]
    assert totals(whole.targets).covered == 8
    assert whole.verdict is not None and whole.verdict.exit_code == ExitCode.CLEAN
    done = run_cli(tmp_path, "merge", one, two, "--report", "json=no.json", "--report", "html=no.html")
    assert done.returncode == ExitCode.USAGE
    assert "merge cannot write html" in errors(done.stderr)[0]
    assert not list(tmp_path.glob("no.*"))


def test_names_of_two_machines(tmp_path: Path) -> None:
    """Reports of two folders are joined under the names that are left without these."""
    one = saved(tmp_path / "one.json", report_of(APP_ROWS, "/home/a/x"))
    two = saved(tmp_path / "two.json", report_of([*LIB_ROWS, *APP_ROWS[:1]], "/home/b/x"))
    out = tmp_path / "all.json"
    prefixes = ("--strip-prefix", "/home/a/x", "--strip-prefix", "/home/b/x")
    assert merged(one, two, *prefixes, "--include", "src/*", "--report", f"json={out}") == ExitCode.CLEAN
    (target,) = read_report(out).targets
    names = [file.name for file in target.points.by_file]
    assert names[0] == "src/main.zig" and all(name.startswith("src/") for name in names) and len(names) == 3
    shared = target.points.by_file[names.index("src/shared.zig")]
    assert [(line.line, line.points, line.covered) for line in shared.lines] == [
        (10, 1, 1),
        (11, 1, 1),
        (12, 2, 1),
        (20, 1, 0),
    ]


def test_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is asked for is judged by all reports together: either alone would fail."""
    front = [(*row[:4], row[4] if number < 4 else 0) for number, row in enumerate(APP_ROWS)]
    back = [(*row[:4], row[4] if number >= 4 else 0) for number, row in enumerate(APP_ROWS)]
    one, two = (
        saved(tmp_path / f"{name}.json", report_of(rows)) for name, rows in (("1", front), ("2", back))
    )
    baseline = ("--baseline", saved(tmp_path / "baseline.json", report_of(APP_ROWS)))
    both = (*baseline, "--fail-on-regression", "--fail-under", "54%")
    assert merged(one, two, *both) == ExitCode.CLEAN
    assert merged(one, *baseline) == ExitCode.CLEAN
    assert merged(one, two, "--fail-under", "55%") == ExitCode.BELOW_THRESHOLD
    assert merged(one, *both) == ExitCode.BELOW_THRESHOLD
    capsys.readouterr()
    assert merged(one, *baseline, "--fail-on-regression") == ExitCode.REGRESSION
    said = capsys.readouterr().err
    assert "/project/src/shared.zig:10 in main.parse no longer covered" in said
    assert "3 lines no longer covered" in said


def test_findings_if_asked(tmp_path: Path) -> None:
    """Who has found something has failed already; --fail-on makes the merge fail, too."""
    one = saved(tmp_path / "one.json", sample_report())
    assert merged(one, "--fail-on", "hang") == ExitCode.FINDINGS
    assert merged(one, "--fail-on", "oom") == ExitCode.CLEAN
    assert merged(one) == ExitCode.CLEAN


def test_bad_reports(tmp_path: Path) -> None:
    """What cannot be used is named, and nothing is written."""
    good = saved(tmp_path / "good.json", sample_report())
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    out = tmp_path / "out.json"
    for bad, why in (
        (broken, "broken.json"),
        (tmp_path / "none.json", "cannot read report .*none.json"),
        (tmp_path / "." / "good.json", "good.json' is given twice"),
    ):
        with pytest.raises(InputError, match=why):
            merged(good, bad, "--report", f"json={out}")
    with pytest.raises(InputError, match="--baseline"):
        merged(good, "--fail-on-regression", "--report", f"json={out}")
    assert not out.exists()


def report_of_files(executable: FuzzedPair, coverage_file: Path) -> Report:
    """What a session would tell of these files."""
    step = replace(executable.step, coverage_file=coverage_file)
    with Observer() as observer:
        observer.post(CoverageMsg(executable.coverage_id, step))
        assert observer.settle(WAIT)
        return observer.report()


def test_real_coverage_files(debug_pair: FuzzedPair, tmp_path: Path) -> None:
    """Two coverage files of a real executable: points are the OR of the files' bits."""
    data = debug_pair.coverage_file.read_bytes()
    header = SeenPcsHeader.parse(data)
    start, end = SeenPcsHeader.LAYOUT.size, header.pc_addrs_offset
    seen = int.from_bytes(data[start:end], "little")
    halves = int.from_bytes(bytes([0x0F]) * (end - start), "little")
    reports = []
    for number, bits in enumerate((seen & halves, seen & ~halves)):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / debug_pair.coverage_file.name
        path.write_bytes(data[:start] + bits.to_bytes(end - start, "little") + data[end:])
        os.utime(path)
        reports.append(read_report(saved(tmp_path / f"{number}.json", report_of_files(debug_pair, path))))
    whole = merge(reports)
    (target,) = whole.targets
    assert int("".join(map(str, reversed(target.points.covered))), 2) == seen
    assert target.runs == 2 * header.n_runs and target.id == debug_pair.coverage_file.name
    for half in reports:
        assert compare(half, whole).regressions == ()
        assert compare(whole, half).regressions != ()
