"""Source files that several targets have are one file."""

from hypothesis import given

from fuzzserver.report.by_source import SourceFunction, by_source
from fuzzserver.report.path_rules import PathRules
from fuzzserver.report.points import LineCoverage
from tests.support_any_report import ROWS, TARGETS, lines_of, report_of
from tests.support_report import MAIN, SHARED, sample_report, sample_target


def test_a_single_target_keeps_its_numbers():
    """Two points at one place are two points."""
    target = sample_target()
    files = by_source([target])
    assert [file.name for file in files] == [file.name for file in target.points.by_file]
    assert [file.lines for file in files] == [file.lines for file in target.points.by_file]
    assert (files[0].branches, files[0].branches_covered) == (4, 2)


def test_a_shared_file_has_the_lines_of_both():
    """A place that both have counts once, and is covered if it is in either."""
    shared = next(file for file in by_source(sample_report().targets) if file.name == SHARED)
    assert shared.lines == (
        LineCoverage(10, 1, 1),
        LineCoverage(11, 1, 1),
        LineCoverage(12, 2, 1),
        LineCoverage(20, 1, 0),
    )
    assert shared.lines_covered == 3
    assert shared.functions == (
        SourceFunction("shared.first", 11, covered=True),
        SourceFunction("shared.second", 20, covered=False),
    )


def test_a_place_counts_as_often_as_where_it_has_most_points():
    """One target has two instances of a generic function, and the other has one that was reached."""
    both = [(MAIN, 7, 5, "each(u8)", 0), (MAIN, 7, 5, "each(u16)", 0), (MAIN, 7, 9, "each(u8)", 0)]
    one = [(MAIN, 7, 5, "each(u8)", 1)]
    (file,) = by_source(report_of([both, one]).targets)
    assert file.lines == (LineCoverage(7, 3, 1),)


def test_files_that_get_one_name_are_one_file():
    """Two prefixes may hide what told them apart."""
    report = report_of([[("/a/x.zig", 1, 1, "first", 1), ("/b/x.zig", 2, 1, "second", 0)]])
    (file,) = by_source(PathRules(("/a", "/b")).apply(report).targets)
    assert file.name == "x.zig"
    assert file.lines == (LineCoverage(1, 1, 1), LineCoverage(2, 1, 0))
    assert [function.name for function in file.functions] == ["first", "second"]


@given(TARGETS)
def test_no_line_is_lost_or_invented(targets):
    """Each line of any target is there once, covered if any has covered it, in whichever order they come."""
    files = by_source(report_of(targets).targets)
    found = {(file.name, line.line): line.covered > 0 for file in files for line in file.lines}
    assert found == lines_of(targets)
    assert all(line.covered <= line.points for file in files for line in file.lines)
    assert by_source(report_of(targets[::-1]).targets) == files


@given(ROWS)
def test_a_target_twice_is_that_target(rows):
    """Nothing is counted twice."""
    assert by_source(report_of([rows, rows]).targets) == by_source(report_of([rows]).targets)
