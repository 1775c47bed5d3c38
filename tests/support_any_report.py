"""Reports of any small targets, for properties that hold for all of them."""

from dataclasses import replace

from hypothesis import strategies as st

from fuzzserver.report.model import Report
from tests.support_report import Row, sample_report, sample_target

SMALL = st.integers(1, 6)
"""So that lines and columns meet."""

NAMES = st.text(
    st.sampled_from("ab,;<&>\"'\n\r\t\x00\x85\u2028\ufffe\U0010ffff ü\udcff"), min_size=1, max_size=4
)
"""Of functions: with what ends a name or a line in one format or another, and what no format can hold."""

FILES = st.sampled_from((None, "/a/one.zig", "/a/two, <&>.zig", "/b/three.zig", "four.zig"))

ROWS = st.lists(
    st.builds(
        lambda file, line, column, function, covered: (
            (None, 0, 0, function, covered) if file is None else (file, line, column, function, covered)
        ),
        FILES,
        SMALL,
        SMALL,
        st.one_of(st.none(), NAMES),
        st.integers(0, 1),
    ),
    max_size=12,
)

TARGETS = st.lists(ROWS, min_size=1, max_size=3)


def report_of(targets: list[list[Row]]) -> Report:
    """A report of targets with these points."""
    return replace(
        sample_report(),
        targets=tuple(sample_target(f"target {number}", rows) for number, rows in enumerate(targets)),
    )


def lines_of(targets: list[list[Row]]) -> dict[tuple[str, int], bool]:
    """Whether each line with points was covered by any target."""
    lines: dict[tuple[str, int], bool] = {}
    for rows in targets:
        for file, line, _, _, covered in rows:
            if file is not None:
                lines[file, line] = lines.get((file, line), False) or covered == 1
    return lines
