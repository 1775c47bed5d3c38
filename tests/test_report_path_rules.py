"""Path rules: prefixes that are left out, files that are kept, and where the new names are told."""

from dataclasses import replace

import pytest

from fuzzserver.report.model import Report
from fuzzserver.report.path_rules import PathRules
from fuzzserver.report.points import NOWHERE
from tests.support_report import APP_ROWS, MAIN, ODD, SHARED, STD, sample_report, sample_target


def names(report: Report) -> list[list[str]]:
    """The files of each target."""
    return [[file.name for file in target.points.by_file] for target in report.targets]


def test_no_rules() -> None:
    """Without rules, nothing changes."""
    assert PathRules().apply(sample_report()) == sample_report()


@pytest.mark.parametrize(
    ("prefixes", "path", "name"),
    [
        (("/p",), "/p/src/a.zig", "src/a.zig"),
        (("/p/",), "/p/src/a.zig", "src/a.zig"),
        (("/p",), "/project/a.zig", "/project/a.zig"),
        (("/p", "/p/src"), "/p/src/a.zig", "a.zig"),
        (("/p/src", "/p"), "/p/src/a.zig", "a.zig"),
        (("/p/src", "/p"), "/p/lib/a.zig", "lib/a.zig"),
        (("/",), "/p/a.zig", "p/a.zig"),
        (("src",), "src/a.zig", "a.zig"),
        ((), "/p/a.zig", "/p/a.zig"),
        (("/p/p",), "/p/p/p/p/a.zig", "p/p/a.zig"),
    ],
)
def test_prefixes(prefixes: tuple[str, ...], path: str, name: str) -> None:
    """Whole folders at the beginning are left out, once, the longest that fits."""
    assert PathRules(strip_prefixes=prefixes).name(path) == name


@pytest.mark.parametrize(
    ("include", "exclude", "kept"),
    [
        ((), (), {MAIN, SHARED, ODD, STD}),
        (("src/*",), (), {MAIN, SHARED, ODD}),
        (("*main*", "*mem*"), (), {MAIN, STD}),
        ((), ("/zig/*",), {MAIN, SHARED, ODD}),
        (("src/*",), ("*/main.zig", "*odd*"), {SHARED}),
        (("/project/*",), (), set()),
        (("SRC/*",), (), set()),
        (("src/????.zig",), (), {MAIN}),
    ],
)
def test_patterns(include: tuple[str, ...], exclude: tuple[str, ...], kept: set[str]) -> None:
    """Patterns are those of names without the prefix; a file is kept if one includes and none excludes it."""
    rules = PathRules(("/project",), include, exclude)
    shown = {file for of_target in names(rules.apply(sample_report())) for file in of_target}
    assert shown == {rules.name(path) for path in kept}


def test_points_are_those_of_kept_files() -> None:
    """All that is known of a point goes with it; what is in no file is kept while no file is left out."""
    rules = PathRules(include=("*/shared.zig",))
    before, after = sample_report(), rules.apply(sample_report())
    rows = [index for index, row in enumerate(APP_ROWS) if row[0] == SHARED]
    app, app_before = after.targets[0].points, before.targets[0].points
    assert list(app.numbers) == rows
    assert list(app.addresses) == [app_before.addresses[index] for index in rows]
    assert [each.name for each in app.by_function] == ["main.parse", "shared.first"]
    assert NOWHERE in app_before.files
    assert NOWHERE not in app.files
    assert NOWHERE in PathRules(("/project",)).apply(before).targets[0].points.files
    assert after.targets[0].runs == before.targets[0].runs


def test_findings_have_the_names() -> None:
    """Place and stack have the new names; a finding in a file that is left out is told all the same."""
    (panic, hang) = PathRules(("/project/",), exclude=("*",)).apply(sample_report()).findings
    assert panic.finding.place == "src/main.zig:4:21"
    assert panic.finding.stack == (
        "src/main.zig:4:21: 0x1000020 in main.parse (app)\n    return bytes[5];\n                    ^\n"
    )
    assert panic.finding.message == sample_report().findings[0].finding.message
    assert hang == sample_report().findings[1]


def test_files_that_get_one_name() -> None:
    """Two files of one name are told as one, with the points of both."""
    rows = (
        ("/a/x.zig", 1, 1, "one", 1),
        ("/b/x.zig", 1, 5, "two", 0),
        ("/b/x.zig", 2, 5, "one", 1),
        ("/c/x.zig", 9, 5, "one", 1),
    )
    report = replace(sample_report(), targets=(sample_target("app", rows),))
    (target,) = PathRules(("/a", "/b")).apply(report).targets
    one, other = target.points.by_file
    assert (one.name, one.points, one.covered) == ("/c/x.zig", 1, 1)
    assert (other.name, other.points, other.covered) == ("x.zig", 3, 2)
    assert [(line.line, line.points, line.covered) for line in other.lines] == [(1, 2, 1), (2, 1, 1)]
    assert [(each.name, each.file, each.line) for each in target.points.by_function] == [
        ("one", "x.zig", 1),
        ("two", "x.zig", 1),
    ]
