"""The LCOV form: as its readers want it, with the numbers of the report."""

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given

from fuzzserver.coverage.queue import CoverageMsg
from fuzzserver.observer import Observer
from fuzzserver.report.formats import report_bytes
from fuzzserver.report.lcov import lcov_text
from fuzzserver.report.model import Report, totals
from fuzzserver.report.path_rules import PathRules
from tests.projects import FuzzedPair
from tests.support_any_report import TARGETS, lines_of, report_of
from tests.support_report import sample_report
from tests.support_time import eventually

GRAMMAR = re.compile(
    r"TN:|SF:.+|FN:[1-9]\d*,[^,]+|FNDA:[01],[^,]+|BRDA:[1-9]\d*,0,\d+,[01-]|DA:[1-9]\d*,[01]"
    r"|(FNF|FNH|BRF|BRH|LF|LH):\d+|end_of_record"
)

SHARED_RECORD = """\
TN:
SF:/project/src/shared.zig
FN:11,shared.first
FN:20,shared.second
FNDA:1,shared.first
FNDA:0,shared.second
FNF:2
FNH:1
BRDA:12,0,0,1
BRDA:12,0,1,0
BRF:2
BRH:1
DA:10,1
DA:11,1
DA:12,1
DA:20,0
LF:4
LH:3
end_of_record
"""


def genhtml(folder: Path, report: Report, *options: str) -> dict[str, tuple[int, int]]:
    """Covered and all ``lines``, ``functions`` and ``branches`` that genhtml has read, without complaints."""
    (folder / "report.info").write_bytes(report_bytes("lcov", report))
    done = subprocess.run(
        ["genhtml", *options, "--output-directory", "html", "report.info"],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not re.search("warning|error", done.stdout.partition("Overall")[0], re.IGNORECASE)
    found = re.findall(r"(\w+)\.+: [\d.]+% \((\d+) of (\d+) ", done.stdout)
    return {what: (int(covered), int(total)) for what, covered, total in found}


@pytest.fixture(scope="module")
def real_report(debug_pair: FuzzedPair) -> Report:
    """The report of an executable that was fuzzed for a moment."""
    observer = Observer(fuzz_run_steps=(debug_pair.step,))
    observer.start()
    try:
        observer.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
        eventually(lambda: observer.coverage_files.get(debug_pair.coverage_id), "there is no map")
        return observer.report()
    finally:
        observer.stop()


@pytest.mark.parametrize("options", [(), ("--branch-coverage",)])
def test_genhtml_reads_a_real_report(tmp_path, real_report, options):
    """Its totals are those of the report."""
    (target,) = real_report.targets
    sums = totals(real_report.targets)
    assert sums.lines > sums.lines_covered > 0
    branches = [line for file in target.points.by_file for line in file.lines if line.points > 1]
    expected = {
        "lines": (sums.lines_covered, sums.lines),
        "functions": (
            sum(1 for function in target.points.by_function if function.covered),
            len(target.points.by_function),
        ),
        "branches": (sum(line.covered for line in branches), sum(line.points for line in branches)),
    }
    if not options:
        del expected["branches"]
    assert genhtml(tmp_path, real_report, *options) == expected


def test_genhtml_reads_odd_names_and_shared_files(tmp_path):
    """Sources of two targets, with names that every format must escape."""
    report = PathRules(("/project", "/zig")).apply(sample_report())
    for name in re.findall("^SF:(.*)$", report_bytes("lcov", report).decode(), re.MULTILINE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("line\n" * 100)
    found = genhtml(tmp_path, report, "--branch-coverage")
    assert found == {"lines": (7, 9), "functions": (4, 6), "branches": (3, 6)}


def test_a_shared_file_is_one_record():
    """Lines and functions of both targets are in it."""
    text = lcov_text(sample_report())
    assert SHARED_RECORD in text
    assert Counter(re.findall("^SF:(.*)$", text, re.MULTILINE)).most_common(1)[0][1] == 1


def test_a_line_without_any_covered_point_was_not_reached():
    """Its branches say so, instead of that they were not taken."""
    text = lcov_text(report_of([[("a.zig", 3, 1, None, 0), ("a.zig", 3, 2, None, 0)]]))
    assert "BRDA:3,0,0,-\nBRDA:3,0,1,-\nBRF:2\nBRH:0\nDA:3,0\n" in text


def test_functions_that_are_written_alike_are_one():
    """A reader that knows them by name would count otherwise than the record says."""
    rows = [("a.zig", 9, 1, "each(u8,u8)", 1), ("a.zig", 3, 1, "each(u8;u8)", 0)]
    text = lcov_text(report_of([rows]))
    assert "FN:3,each(u8;u8)\nFNDA:1,each(u8;u8)\nFNF:1\nFNH:1\n" in text


def test_nothing_is_no_record():
    """Without points there is nothing to say."""
    assert lcov_text(report_of([[]])) == ""


@given(TARGETS)
def test_what_is_read_back_is_what_was_written(targets):
    """A reader finds all lines and branches, and sums that fit, whatever functions are called."""
    text = lcov_text(report_of(targets))
    text.encode("utf-8", "backslashreplace")
    lines: dict[tuple[str, int], bool] = {}
    for record in text.split("end_of_record\n")[:-1]:
        items = record.splitlines()
        assert all(GRAMMAR.fullmatch(item) for item in items)
        values = [item.partition(":") for item in items]
        count = Counter(key for key, _, _ in values)
        value = {key: value for key, _, value in values}
        hits = Counter(key for key, _, value in values if key in ("DA", "BRDA") and value.endswith(",1"))
        assert (int(value["LF"]), int(value["LH"])) == (count["DA"], hits["DA"])
        assert (int(value["BRF"]), int(value["BRH"])) == (count["BRDA"], hits["BRDA"])
        names = [value.partition(",")[2] for key, _, value in values if key == "FN"]
        told = {value[2:]: value[0] for key, _, value in values if key == "FNDA"}
        assert list(told) == list(dict.fromkeys(names)) == names
        assert (int(value["FNF"]), int(value["FNH"])) == (len(told), list(told.values()).count("1"))
        for line, hit in (item[3:].split(",") for item in items if item.startswith("DA:")):
            assert (value["SF"], int(line)) not in lines
            lines[value["SF"], int(line)] = hit == "1"
    assert lines == lines_of(targets)
