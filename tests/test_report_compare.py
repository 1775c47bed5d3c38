"""What has changed between two reports, and what of it is a regression."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import SupportsIndex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzserver.errors import InputError
from fuzzserver.report.compare import Comparison, Share, compare, matched_lines
from fuzzserver.report.compare_forms import (
    MAX_ITEMS,
    MAX_LINES,
    comparison_json,
    comparison_lines,
    comparison_markdown,
)
from fuzzserver.report.markdown import MAX_SUMMARY
from fuzzserver.report.model import Report
from tests.support_report import APP_ROWS, MAIN, SHARED, Row, sample_report, sample_target

A = "src/a.zig"
B = "src/b.zig"

SHOWN_BY_GITHUB = 1 << 20
"""Bytes of a summary."""


def report_of(*targets: Sequence[Row]) -> Report:
    """A report with executables that have these points."""
    made = (sample_target(f"t{number}", rows) for number, rows in enumerate(targets))
    return replace(sample_report(), targets=tuple(made), findings=())


class CountingLines(tuple[int, ...]):
    """Lines that count how often one of them was looked at."""

    looked_at = 0

    def __getitem__(self, place: SupportsIndex) -> int:  # type: ignore[override]
        """One of them."""
        self.looked_at += 1
        return super().__getitem__(place)

    def __iter__(self) -> Iterator[int]:
        """All of them, each of which counts."""
        for line in super().__iter__():
            self.looked_at += 1
            yield line


def function(name: str, covered: dict[int, int], file: str = A) -> list[Row]:
    """A point at each line of a function."""
    return [(file, line, 1, name, bit) for line, bit in covered.items()]


def compared(before: Sequence[Row], after: Sequence[Row]) -> Comparison:
    """Two executables, compared."""
    return compare(report_of(before), report_of(after))


def test_a_report_equals_itself() -> None:
    """Nothing has changed, and all forms say so."""
    comparison = compare(sample_report(), sample_report())
    assert comparison.files == comparison.new_findings == comparison.gone_findings == ()
    assert comparison.regressions == comparison.newly_covered == ()
    assert comparison.points_before == comparison.points_after == Share(16, 8)
    assert comparison.lines_before == comparison.lines_after == Share(9, 7)
    assert len(comparison_lines(comparison)) == 1


def test_both_directions() -> None:
    """Lines that are covered now, lines that are not any more; ranges go across lines without points."""
    comparison = compared(
        function("a.parse", {3: 1, 4: 1, 7: 1, 8: 0, 9: 1}),
        function("a.parse", {3: 1, 4: 0, 7: 0, 8: 1, 9: 0}),
    )
    assert comparison.regressions == ("src/a.zig:4-7,9 in a.parse no longer covered",)
    assert comparison.newly_covered == ("src/a.zig:8 in a.parse",)
    (file,) = comparison.files
    assert (file.before, file.after) == (Share(5, 4), Share(5, 2))
    assert file.no_longer_covered == (4, 7, 9)
    (of_function,) = file.functions
    assert (of_function.name, of_function.before, of_function.after) == ("a.parse", Share(5, 4), Share(5, 2))
    assert (of_function.newly_covered, of_function.no_longer_covered) == ((8,), (4, 7, 9))


def test_any_point_covers_a_line() -> None:
    """As long as one point of a line is covered, in whichever executable, the line is."""
    one_of_two: list[Row] = [(A, 5, 1, "a.f", 1), (A, 5, 9, "a.f", 0)]
    other: list[Row] = [(A, 5, 1, "a.f", 0), (A, 5, 9, "a.f", 1)]
    none: list[Row] = [(A, 5, 1, "a.f", 0), (A, 5, 9, "a.f", 0)]
    assert not compared(one_of_two, other).regressions
    assert compared(one_of_two, none).regressions == ("src/a.zig:5 in a.f no longer covered",)
    assert not compare(report_of(one_of_two, none), report_of(none, other)).regressions


def test_a_line_of_several_functions_is_told_once() -> None:
    """Each function that shares the line has it; the sentence names the first."""
    before = function("a.list(u8)", {5: 1}) + function("a.list(u16)", {5: 1})
    after = function("a.list(u8)", {5: 0}) + function("a.list(u16)", {5: 0})
    comparison = compared(before, after)
    assert comparison.regressions == ("src/a.zig:5 in a.list(u16) no longer covered",)
    assert [each.no_longer_covered for each in comparison.files[0].functions] == [(5,), (5,)]
    assert not compared(before, after[:1] + before[1:]).regressions  # The other one still covers it.


def test_lines_without_a_function() -> None:
    """They are told by their file alone."""
    assert compared([(A, 5, 1, None, 1)], [(A, 5, 1, None, 0)]).regressions == (
        "src/a.zig:5 no longer covered",
    )


def test_points_in_no_file_are_not_compared() -> None:
    """They have no line; the numbers of points count them."""
    comparison = compared([*function("a.f", {1: 1}), (None, 0, 0, "a.f", 1)], function("a.f", {1: 1}))
    assert comparison.files == ()
    assert (comparison.points_before, comparison.points_after) == (Share(2, 2), Share(1, 1))


def test_numbered_names_are_one() -> None:
    """Zig counts instances of generic functions anew in each build."""
    before = function("mem.eql__anon_17", {5: 1, 6: 0}) + function("a.f__struct_3.g", {9: 1})
    after = function("mem.eql__anon_99", {7: 1, 8: 0}) + function("a.f__struct_8.g", {11: 0})
    assert compared(before, after).regressions == ("src/a.zig:11 in a.f.g no longer covered",)


def test_another_name_in_the_same_lines() -> None:
    """A file whose lines are the same is compared line by line, whatever its functions are called."""
    comparison = compared(function("a.f", {3: 1, 4: 1}), function("a.renamed", {3: 1, 4: 0}))
    assert comparison.regressions == ("src/a.zig:4 in a.renamed no longer covered",)


# ----------------------------------------------------------------------- lines that have moved


def test_moved_functions() -> None:
    """Code above has grown: what is behind it is compared as before, under its new numbers."""
    before = function("a.f", {10: 1, 11: 1, 13: 0}) + function("a.g", {20: 1, 25: 1})
    after = function("a.f", {12: 1, 13: 1, 15: 0}) + function("a.g", {27: 1, 32: 0})
    comparison = compared(before, after)
    assert comparison.regressions == ("src/a.zig:32 in a.g no longer covered",)
    (file,) = comparison.files
    assert file.new_lines == file.gone_lines == file.newly_covered == ()


def test_a_changed_function() -> None:
    """Lines before the first change and behind the last are compared; between them they are new or gone."""
    before = function("a.f", {10: 1, 11: 1, 13: 1, 16: 1, 18: 1})
    after = function("a.f", {10: 1, 11: 1, 14: 0, 15: 0, 19: 0, 21: 1})
    comparison = compared(before, after)
    assert comparison.regressions == ("src/a.zig:19 in a.f no longer covered",)
    (file,) = comparison.files
    assert (file.new_lines, file.gone_lines) == ((14, 15), (13,))


@pytest.mark.parametrize(
    ("before", "after", "pairs"),
    [
        ([1, 2, 3], [1, 2, 3], [(1, 1), (2, 2), (3, 3)]),
        ([1, 2, 3], [5, 6, 7], [(1, 5), (2, 6), (3, 7)]),
        ([10, 11, 20, 21], [20, 21], [(20, 20), (21, 21)]),  # Inlined code is gone, and nothing has moved.
        ([20, 21], [10, 11, 20, 21], [(20, 20), (21, 21)]),
        ([1, 3, 7], [2, 4, 9], [(1, 2), (3, 4), (7, 9)]),
        ([1, 3, 7, 8], [2, 5, 9, 10], [(1, 2), (3, 5), (7, 9), (8, 10)]),
        ([1, 3, 7], [2, 5, 6, 7, 9, 13], [(1, 2), (3, 9), (7, 13)]),
        ([4], [6, 9], [(4, 6)]),
        ([1, 2, 3], [9, 10], [(1, 9), (2, 10)]),  # No line is two lines.
    ],
)
def test_matched_lines(before: list[int], after: list[int], pairs: list[tuple[int, int]]) -> None:
    """Which line is which: same numbers if they are all there, else from both ends."""
    assert matched_lines(before, after) == pairs


line_sets = st.sets(st.integers(1, 60), min_size=1, max_size=12).map(sorted)


@given(line_sets, line_sets)
@settings(max_examples=100)
def test_no_line_is_matched_twice(before: list[int], after: list[int]) -> None:
    """Pairs are of lines that there are, each in one pair at most, in order; the same backwards."""
    pairs = matched_lines(before, after)
    assert pairs == sorted(set(pairs))
    for side, lines in ((0, before), (1, after)):
        matched = [pair[side] for pair in pairs]
        assert matched == sorted(set(matched)) and set(matched) <= set(lines)
    assert pairs, "the first lines are the same, at least"


bodies = st.lists(
    st.tuples(st.integers(0, 30), st.dictionaries(st.integers(0, 9), st.integers(0, 1), min_size=1)),
    min_size=1,
    max_size=5,
)


@given(bodies, st.data())
@settings(max_examples=100)
def test_moving_functions_changes_nothing(
    bodies: list[tuple[int, dict[int, int]]], data: st.DataObject
) -> None:
    """However far each function moves, no line is new, gone, newly covered or no longer covered."""
    before, after = [], []
    for number, (gap, lines) in enumerate(bodies):
        moved = 100 * number + gap + data.draw(st.integers(0, 50))
        before += function(
            f"a.f{number}", {1 + 100 * number + gap + line: bit for line, bit in lines.items()}
        )
        after += function(f"a.f{number}", {1 + moved + line: bit for line, bit in lines.items()})
    assert compared(before, after).files == ()


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.data())
@settings(max_examples=100)
def test_exactly_what_is_lost_is_told(was: list[bool], data: st.DataObject) -> None:
    """In the same lines, those that went from covered to not covered, and those the other way."""
    now = data.draw(st.lists(st.booleans(), min_size=len(was), max_size=len(was)))
    before = function("a.f", {line: int(bit) for line, bit in enumerate(was, 1)})
    after = function("a.f", {line: int(bit) for line, bit in enumerate(now, 1)})
    comparison = compared(before, after)
    lost = [line for line, (old, new) in enumerate(zip(was, now, strict=True), 1) if old and not new]
    won = [line for line, (old, new) in enumerate(zip(was, now, strict=True), 1) if new and not old]
    assert [line for file in comparison.files for line in file.no_longer_covered] == lost
    assert [line for file in comparison.files for line in file.newly_covered] == won
    assert bool(comparison.regressions) == bool(lost)


# ----------------------------------------------------------------------- what only one of them has


def test_what_is_gone_is_no_regression() -> None:
    """Functions and files that only one report has are told of with their numbers."""
    before = function("a.f", {1: 1}) + function("a.old", {5: 1}) + function("b.f", {1: 1}, B)
    after = function("a.f", {1: 1}) + function("a.new", {9: 0}) + function("c.f", {1: 1}, "src/c.zig")
    comparison = compared(before, after)
    assert comparison.regressions == comparison.newly_covered == ()
    a, b, c = comparison.files
    assert (a.new_lines, a.gone_lines) == ((9,), (5,))
    assert [(each.name, each.before, each.after) for each in a.functions] == [
        ("a.new", None, Share(1, 0)),
        ("a.old", Share(1, 1), None),
    ]
    assert (b.name, b.before, b.after, b.gone_lines) == (B, Share(1, 1), None, (1,))
    assert (c.before, c.after, c.new_lines) == (None, Share(1, 1), (1,))
    assert comparison_lines(comparison)[1:] == [
        "  1 file only in the baseline, such as src/b.zig",
        "  1 file only in the report, such as src/c.zig",
    ]


def test_findings() -> None:
    """Those that are new, and those that are not there any more."""
    report = sample_report()
    panic, hang = report.findings
    comparison = compare(replace(report, findings=(panic,)), replace(report, findings=(hang,)))
    assert comparison.new_findings == (hang.finding,)
    assert comparison.gone_findings == (panic.finding,)
    assert comparison.regressions == ()  # Findings have an exit code of their own.


def test_nothing_in_common() -> None:
    """Reports of different folders are refused with an example of each name, and what to do."""
    with pytest.raises(
        InputError, match=r"no source file in common.*'src/a.zig'.*'src/b.zig'.*--strip-prefix"
    ):
        compared(function("a.f", {1: 1}), function("a.f", {1: 1}, B))


def test_a_baseline_without_files() -> None:
    """There is nothing to compare with."""
    with pytest.raises(InputError, match="the baseline tells of no source file"):
        compared([(None, 0, 0, "a.f", 1)], function("a.f", {1: 1}))


def test_a_report_without_files() -> None:
    """Who has lost all coverage is not told that all is well."""
    comparison = compared(function("a.f", {1: 1}), [(None, 0, 0, "a.f", 1)])
    assert comparison.regressions == ("the report tells of no source file, and the baseline does",)
    assert comparison_lines(comparison)[1:] == ["  1 file only in the baseline, such as src/a.zig"]


def test_files_that_have_the_same_name_in_another_folder() -> None:
    """They share a file of the library, so it is no error; a hint tells why the rest is not compared."""
    library = function("mem.eql", {1: 1}, "/lib/mem.zig")
    lines = comparison_lines(
        compared(
            library + function("a.f", {1: 1}, "/x/src/a.zig"),
            library + function("a.f", {1: 1}, "/y/src/a.zig"),
        )
    )
    assert lines[-1] == (
        "  if '/x/src/a.zig' is '/y/src/a.zig', --strip-prefix FOLDER gives both the same name"
    )


# ----------------------------------------------------------------------- forms


def test_lines_for_a_terminal() -> None:
    """The numbers, then what changed; a long list is cut and says so."""
    names = [f"a.f{number:02}" for number in range(MAX_LINES + 2)]
    before = [row for number, name in enumerate(names) for row in function(name, {1 + number: 1})]
    lines = comparison_lines(compared(before, [(*row[:4], 0) for row in before]))
    assert lines[:3] == [
        "compared with the baseline: 0.0 % of 12 points covered (before: 100.0 % of 12), "
        "0.0 % of 12 lines covered (before: 100.0 % of 12)",
        "  12 lines no longer covered",
        "    src/a.zig:1 in a.f00",
    ]
    assert lines[-1] == "    and 2 more" and len(lines) == 3 + MAX_LINES


def test_markdown() -> None:
    """Tables and lists; what names hold cannot leave its cell or its code."""
    odd = "src/`x`|\ny.zig"
    before = function("a.f", {1: 1, 2: 0}, odd) + function("a.g", {5: 1}, odd)
    after = function("a.f", {1: 0, 2: 1}, odd) + function("a.g", {5: 1}, odd)
    text = comparison_markdown(compared(before, after))
    assert "| points | 66.7 % of 3 | 66.7 % of 3 |" in text
    assert "**1 line no longer covered**\n\n- `` src/`x`|\\ny.zig:1 in a.f ``\n" in text
    assert "**1 line newly covered**\n\n- `` src/`x`|\\ny.zig:2 in a.f ``\n" in text
    assert "| `` src/`x`\N{DIVIDES}\\ny.zig `` | 66.7 % of 3 | 66.7 % of 3 | 1 | 1 |" in text


def test_long_markdown() -> None:
    """Of many files, the first are told."""
    before = [(f"src/{number:03}.zig", 1, 1, "f", 1) for number in range(MAX_ITEMS + 3)]
    text = comparison_markdown(compared(before, [(*row[:4], 0) for row in before]))
    assert text.count("| `src/") == MAX_ITEMS and text.endswith("and 3 more\n")
    assert "- and 3 more" in text


def test_markdown_has_a_limit() -> None:
    """However many lines and names differ, and whatever is in them, it fits beside the rest of a summary."""
    name = "\U0001f41b`" * 500
    lines = range(1, 402)
    before = [
        (f"{number}{name}", line, 1, f"f{name}", line % 2)
        for number in range(MAX_ITEMS + 1)
        for line in lines
    ]
    text = comparison_markdown(compared(before, [(*row[:4], 1 - row[4]) for row in before]))
    assert len(text.encode()) < SHOWN_BY_GITHUB - MAX_SUMMARY
    assert "\u202e" not in comparison_markdown(
        compared(function("a\u202e", {1: 1}), function("a\u202e", {1: 0}))
    )


def test_many_functions() -> None:
    """The text of each function takes time for its own lines, not for those of the whole file."""
    before = [row for number in range(4000) for row in function(f"a.f{number:04}", {number + 1: 1})]
    (file,) = compared(before, [(*row[:4], 0) for row in before]).files
    lines = CountingLines(file.lines)
    places = replace(file, lines=lines).places(newly=False)
    assert places[1234] == "src/a.zig:1235 in a.f1234" and len(places) == 4000
    assert lines.looked_at < 4000 * 14


def test_json() -> None:
    """All of it can be written as JSON."""
    before, after = sample_report(), sample_report()
    flipped = [(file, line, column, name, 1 - bit) for file, line, column, name, bit in APP_ROWS]
    value = comparison_json(
        compare(replace(before, findings=()), replace(after, targets=(sample_target("app", flipped),)))
    )
    assert json.loads(json.dumps(value)) == value
    assert value["points"]["before"] == {"total": 16, "covered": 8, "percent": 50.0}
    files = {file["name"]: file for file in value["files"]}
    assert files[MAIN]["no_longer_covered"] == [3]
    assert files[SHARED]["gone_lines"] == [20]
    assert value["regressions"] == [
        "/project/src/main.zig:3 in main.parse no longer covered",
        "/project/src/shared.zig:10 in main.parse no longer covered",
        "/project/src/shared.zig:11 in shared.first no longer covered",
    ]
    assert [each["kind"] for each in value["new_findings"]] == ["panic", "hang"]
