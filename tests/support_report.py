"""A report made by hand, with all that is hard to write in one form or another."""

from array import array
from collections.abc import Sequence

from fuzzserver.findings import Finding
from fuzzserver.report.model import (
    FindingReport,
    HistoryPoint,
    Report,
    TargetReport,
    TestReport,
    Verdict,
)
from fuzzserver.report.points import NOWHERE, Points

MAIN = "/project/src/main.zig"
SHARED = "/project/src/shared.zig"
ODD = "/project/src/odd, <&>\"' ü \udcff.zig"
"""A name with what each format must escape; its last character is a byte that is no UTF-8."""
STD = "/zig/lib/std/mem.zig"

GENERIC = 'main.each(u8,"<&>")'
ODD_FUNCTION = "odd.<&>\"', ü \udcfe"

Row = tuple[str | None, int, int, str | None, int]
"""File, line, column, function, covered."""

APP_ROWS: Sequence[Row] = (
    (MAIN, 3, 5, "main.parse", 1),
    (MAIN, 4, 9, "main.parse", 1),
    (MAIN, 4, 21, "main.parse", 0),
    (MAIN, 7, 5, GENERIC, 0),
    (MAIN, 7, 5, GENERIC, 1),
    (SHARED, 10, 1, "main.parse", 1),
    (SHARED, 11, 1, "shared.first", 1),
    (SHARED, 12, 3, "shared.first", 0),
    (ODD, 1, 1, ODD_FUNCTION, 0),
    (None, 0, 0, "main.parse", 1),
    (None, 0, 0, None, 0),
)
"""``main.parse`` spans two files and has a point in none; two points of ``GENERIC`` are at one place."""

LIB_ROWS: Sequence[Row] = (
    (SHARED, 11, 1, "shared.first", 0),
    (SHARED, 12, 3, "shared.first", 1),
    (SHARED, 12, 7, "shared.first", 0),
    (SHARED, 20, 1, "shared.second", 0),
    (STD, 100, 13, "mem.eql", 1),
)
"""It shares a file with the other target, and has covered there what the other has not."""


def points_of(rows: Sequence[Row]) -> Points:
    """Points in the order of their addresses."""
    files = sorted({file for file, *_ in rows if file is not None})
    functions = sorted({function for *_, function, _ in rows if function is not None})
    return Points(
        array("I", range(len(rows))),
        array("Q", (0x1000000 + 16 * number for number in range(len(rows)))),
        array("I", (NOWHERE if row[0] is None else files.index(row[0]) for row in rows)),
        array("I", (row[1] for row in rows)),
        array("I", (row[2] for row in rows)),
        array("I", (NOWHERE if row[3] is None else functions.index(row[3]) for row in rows)),
        bytes(row[4] for row in rows),
        tuple(files),
        tuple(functions),
    )


def sample_target(name: str = "app", rows: Sequence[Row] = APP_ROWS) -> TargetReport:
    """A target with two tests, of which one has failed and the other was never started."""
    points = points_of(rows)
    return TargetReport(
        key=f"/project/build.zig {name}",
        name=name,
        state="failed",
        text="1 of 2 tests failed",
        id=f"{sum(name.encode()):016x}",
        executable=f"/project/.zig-cache/o/{name}/test",
        zig_version="0.14.1",
        runs=1000,
        session_runs=900,
        unique_runs=7,
        points=points,
        tests=(
            TestReport(f'{name}.test.<broken> & "odd", ü\'s', "failed", "crashed 10 times", 1000, 10),
            TestReport(f"{name}.test.idle", "never started", "the target has failed", None),
        ),
        history=(
            HistoryPoint(1700000000.5, 10, 2, 1),
            HistoryPoint(1700000010.0, 1000, 7, points.covered_len),
        ),
        oddities=("some points are in no file",),
    )


def sample_findings() -> tuple[FindingReport, ...]:
    """A panic with a place and a stack, and a hang of which neither is known."""
    panic = Finding(
        id="a1b2c3d4e5f60718",
        kind="panic",
        message="index 5 <out> of \"bounds\" & 'more', len ü\x1b[0m]]>",
        target="app",
        test='app.test.<broken> & "odd", ü\'s',
        first_time=1700000002.25,
        last_time=1700000009.0,
        count=3,
        n_runs=512,
        stack=f"{MAIN}:4:21: 0x1000020 in main.parse (app)\n    return bytes[5];\n                    ^\n",
        stderr="panic: index 5 <out> of bounds\x00\n",
        reproduces=True,
        exact=True,
        minimized_size=4,
        argv=("/project/.zig-cache/o/app/test", "--seed=0x1"),
        place=f"{MAIN}:4:21",
    )
    hang = Finding(
        id="0f1e2d3c4b5a6978",
        kind="hang",
        message="no run has ended for 60 s",
        target="lib",
        test='lib.test.<broken> & "odd", ü\'s',
        first_time=1700000008.0,
        last_time=1700000008.0,
    )
    return FindingReport(panic, b'\x00\xff"]]>a'), FindingReport(hang, b"")


def sample_report() -> Report:
    """Two targets that share a source file, two findings, and the verdict on them."""
    return Report(
        time=1700000020.0,
        started=1700000000.0,
        seconds=20.0,
        targets=(sample_target(), sample_target("lib", LIB_ROWS)),
        findings=sample_findings(),
        verdict=Verdict(3, "findings", ("2 findings: 1 panic, 1 hang",)),
        generator="fuzzserver 0.0",
    )
