"""Several reports as one: of the same executable, and of different ones."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzserver.report.compare import compare
from fuzzserver.report.json_form import report_from_json, report_json
from fuzzserver.report.merge import SEVERAL_BUILDS, merge
from fuzzserver.report.model import MAX_COUNT, MAX_SECONDS, Report, TargetReport, TestReport, totals
from fuzzserver.report.points import NOWHERE, Points
from tests.support_report import APP_ROWS, LIB_ROWS, Row, points_of, sample_report, sample_target
from tests.test_findings import FINDING

A = "src/a.zig"
B = "src/b.zig"


def target_of(rows: Sequence[Row], build: str = "one", **changes: object) -> TargetReport:
    """A target with these points. ``build`` stands for its executable: other code, other addresses."""
    target = sample_target("app", rows)
    first = int.from_bytes(build.encode(), "little")
    for index in range(len(rows)):
        target.points.addresses[index] += first
    return replace(target, id=f"{first:016x}", **changes)


def report_of(*targets: TargetReport, time: float = 100.0) -> Report:
    """A report with nothing but targets."""
    return replace(sample_report(), time=time, targets=targets, findings=())


def rows_of(bits: Sequence[int], functions: int = 1) -> list[Row]:
    """A point at each line."""
    return [(A, line, 1, f"a.f{line % functions}", bit) for line, bit in enumerate(bits, 1)]


def by_place(points: Points) -> dict[tuple[str | None, int, int, str | None], bool]:
    """Each place that has points, and whether one of them is covered: what a merge has to keep."""
    places: dict[tuple[str | None, int, int, str | None], bool] = {}
    for index in range(len(points)):
        file, function = points.files[index], points.functions[index]
        place = (
            None if file == NOWHERE else points.file_names[file],
            points.lines[index],
            points.columns[index],
            None if function == NOWHERE else points.function_names[function],
        )
        places[place] = places.get(place, False) or bool(points.covered[index])
    return places


def coverage(report: Report) -> dict[str, object]:
    """What is covered, whatever the order."""
    return {target.name: by_place(target.points) for target in report.targets}


def test_one_report() -> None:
    """A report alone stays as it is, but for its verdict."""
    report = sample_report()
    merged = merge([report])
    assert merged.targets == report.targets
    assert {each.finding.id: each for each in merged.findings} == {
        each.finding.id: each for each in report.findings
    }
    assert merged.verdict is None and merged.generator.startswith("fuzzserver ")


def test_times() -> None:
    """As new as the newest, begun with the first, as long as all of them."""
    one = replace(sample_report(), time=50.0, started=10.0, seconds=30.0)
    two = replace(sample_report(), time=90.0, started=None, seconds=12.5)
    merged = merge([one, two])
    assert (merged.time, merged.started, merged.seconds) == (90.0, 10.0, 42.5)
    unknown = merge([replace(each, started=None, seconds=None) for each in (one, two)])
    assert unknown.started is unknown.seconds is None


def test_sums_have_a_limit() -> None:
    """Of the largest numbers that reports may hold, the sum is one that a report may hold."""
    tests = (TestReport("x", "stopped", runs=MAX_COUNT, restarts=MAX_COUNT),)
    target = target_of(
        rows_of([1]), runs=MAX_COUNT, session_runs=MAX_COUNT, unique_runs=MAX_COUNT, tests=tests
    )
    sample = sample_report().findings[0]
    finding = replace(sample, finding=replace(sample.finding, count=MAX_COUNT))
    other = replace(target, key="other", name="other", id=None)
    report = replace(report_of(target, other), seconds=MAX_SECONDS, findings=(finding,))
    merged = merge([report, report])
    assert merged.seconds == MAX_SECONDS and merged.findings == (finding,)
    for each in merged.targets:
        assert each.runs == each.session_runs == each.unique_runs == MAX_COUNT
        assert each.tests == tests
    assert report_from_json(report_json(merged)) == merged


# ----------------------------------------------------------------------- the same executable


def test_same_executable() -> None:
    """Covered is what any has covered; counts are added; all else is the newest's."""
    older = target_of(rows_of([1, 0, 0, 1]), runs=100, unique_runs=4, oddities=("a", "b"))
    newer = target_of(rows_of([0, 0, 1, 1]), runs=20, unique_runs=3, oddities=("b", "c"), executable="/new")
    (merged,) = merge([report_of(older, time=1.0), report_of(newer, time=2.0)]).targets
    assert merged.points.covered == bytes([1, 0, 1, 1])
    assert replace(merged.points, covered=b"") == replace(newer.points, covered=b"")
    assert (merged.runs, merged.unique_runs) == (120, 7)
    assert (merged.id, merged.executable, merged.oddities) == (newer.id, "/new", ("b", "c", "a"))
    assert merged.history == ()


def test_same_executable_under_other_names() -> None:
    """The same program, built in two folders: joined point by point, as the newest calls it."""
    older = target_of(rows_of([1, 0]), key="/x app", name="x")
    newer = target_of([(B, *row[1:]) for row in rows_of([0, 1])], key="/y app", name="y")
    (merged,) = merge([report_of(newer, time=2.0), report_of(older, time=1.0)]).targets
    assert merged.name == "y" and merged.points.file_names == (B,)
    assert merged.points.covered == bytes([1, 1])


bit_rows = st.integers(1, 70).flatmap(
    lambda length: st.lists(
        st.lists(st.integers(0, 1), min_size=length, max_size=length), min_size=2, max_size=4
    )
)


@given(bit_rows)
@settings(max_examples=60)
def test_same_executable_is_or(rows: list[list[int]]) -> None:
    """Point by point it is the OR of whole numbers, in any order, however grouped, and once is enough."""
    reports = [report_of(target_of(rows_of(bits))) for bits in rows]
    oracle = 0
    for bits in rows:
        oracle |= int("".join(map(str, bits)), 2)

    def covered(report: Report) -> int:
        return int("".join(map(str, report.targets[0].points.covered)), 2)

    assert covered(merge(reports)) == oracle
    assert covered(merge(reports[::-1])) == oracle
    assert covered(merge([reports[0], merge(reports[1:])])) == oracle
    assert covered(merge([*reports, *reports])) == oracle


# ----------------------------------------------------------------------- different executables


def test_different_executables() -> None:
    """Joined by place: what one covers is covered, what only one has is there, each place once."""
    older = target_of(
        [(A, 1, 1, "a.f", 1), (A, 1, 9, "a.f", 0), (A, 2, 1, "a.f", 1), (A, 9, 1, "a.g", 1)], "old"
    )
    newer = target_of(
        [(A, 1, 1, "a.f", 0), (A, 1, 9, "a.f", 0), (A, 3, 1, "a.f", 1), (A, 3, 1, "a.f", 0)], "new"
    )
    (merged,) = merge([report_of(older, time=1.0), report_of(newer, time=2.0)]).targets
    assert by_place(merged.points) == {
        (A, 1, 1, "a.f"): True,
        (A, 1, 9, "a.f"): False,
        (A, 3, 1, "a.f"): True,
        (A, 2, 1, "a.f"): True,
        (A, 9, 1, "a.g"): True,
    }
    assert len(merged.points) == 5
    assert list(merged.points.numbers) == list(range(5))
    addresses = newer.points.addresses[:3] + older.points.addresses[2:]
    assert merged.points.addresses == addresses  # Of the newest that has the place.
    assert merged.id is None and SEVERAL_BUILDS in merged.oddities
    assert (merged.runs, merged.executable) == (2000, newer.executable)


def test_instances_of_generic_functions() -> None:
    """Their numbers differ in each build; they are one function in all."""
    older = target_of([(A, 1, 1, "mem.eql__anon_12", 1), (A, 1, 1, "mem.eql__anon_13", 0)], "old")
    newer = target_of([(A, 1, 1, "mem.eql__anon_77", 0)], "new")
    (merged,) = merge([report_of(older), report_of(newer)]).targets
    assert by_place(merged.points) == {(A, 1, 1, "mem.eql"): True}


def test_points_in_no_file() -> None:
    """They cannot be told apart in different executables: the newest's are kept, each of them."""
    nowhere: list[Row] = [(None, 0, 0, "a.f", 1), (None, 0, 0, "a.f", 0), (None, 0, 0, None, 1)]
    older = target_of([(A, 1, 1, "a.f", 1), *nowhere, *nowhere], "old")
    newer = target_of([*nowhere, (A, 1, 1, "a.f", 0)], "new")
    (merged,) = merge([report_of(older, time=1.0), report_of(newer, time=2.0)]).targets
    assert list(merged.points.files) == [NOWHERE] * 3 + [0]
    assert merged.points.covered == bytes([1, 0, 1, 1])
    assert [merged.points.function_names[place] for place in merged.points.functions[:2]] == ["a.f", "a.f"]
    assert merged.points.functions[2] == NOWHERE


def test_what_has_no_points_takes_none_away() -> None:
    """The newest build has failed: what earlier ones have covered stays, and so does their state."""
    older = target_of(rows_of([1, 0]), state="stopped", text="")
    failed = replace(older, id=None, points=points_of([]), state="failed", text="no build", runs=0)
    (merged,) = merge([report_of(older, time=1.0), report_of(failed, time=2.0)]).targets
    assert (merged.points, merged.id, merged.state) == (older.points, older.id, "stopped")


builds = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.lists(
            st.tuples(
                st.sampled_from([A, B]),
                st.integers(1, 4),
                st.integers(1, 2),
                st.sampled_from(["a.f", "a.g", None]),
                st.integers(0, 1),
            ),
            min_size=1,
            max_size=8,
        ),
    ),
    min_size=3,
    max_size=3,
)


@given(builds)
@settings(max_examples=60)
def test_different_executables_in_any_order(builds: list[tuple[str, list[Row]]]) -> None:
    """By place it is the OR of all, in any order, however grouped, and once is enough."""
    # The same build has the same points, covered or not.
    rows = {build: rows for build, rows in builds}
    targets = [
        target_of([(*row[:4], row[4] ^ (number & 1)) for row in rows[build]], build)
        for number, (build, _) in enumerate(builds)
    ]
    oracle: dict[object, bool] = {}
    for target in targets:
        for place, bit in by_place(target.points).items():
            oracle[place] = oracle.get(place, False) or bit
    one, two, three = reports = [
        report_of(target, time=float(number)) for number, target in enumerate(targets)
    ]
    for merged in (
        merge(reports),
        merge(reports[::-1]),
        merge([merge([one, two]), three]),
        merge([one, merge([two, three])]),
        merge([*reports, merge(reports)]),
    ):
        assert coverage(merged) == {"app": oracle}


@given(builds)
@settings(max_examples=30)
def test_nothing_covered_is_lost(builds: list[tuple[str, list[Row]]]) -> None:
    """Against what was merged, a comparison finds no line that is no longer covered, and none gone."""
    reports = [report_of(target_of(rows, f"{build}{number}")) for number, (build, rows) in enumerate(builds)]
    merged = merge(reports)
    for report in reports:
        comparison = compare(report, merged)
        assert comparison.regressions == ()
        assert not [file for file in comparison.files if file.after is None or file.gone_lines]


def test_json() -> None:
    """What was merged can be written and read, and merged again."""
    other = replace(
        sample_report(), targets=(target_of(LIB_ROWS, "x"), target_of(APP_ROWS, "y", key="lib", name="lib"))
    )
    merged = merge([sample_report(), other])
    again = report_from_json(report_json(merged))
    assert coverage(again) == coverage(merged)
    assert totals(again.targets) == totals(merged.targets)
    assert coverage(merge([again, sample_report()])) == coverage(merged)


# ----------------------------------------------------------------------- which targets are the same


def test_targets_of_one_key_or_name() -> None:
    """The same key is the same target; so is the same name, but where two targets of a report share it."""
    one = target_of(rows_of([1]), "a", key="k1", name="n")
    renamed = target_of(rows_of([0]), "b", key="k1", name="m")
    moved = target_of(rows_of([0]), "c", key="k2", name="n")
    assert [each.key for each in merge([report_of(one), report_of(renamed)]).targets] == ["k1"]
    assert [each.key for each in merge([report_of(one), report_of(moved)]).targets] == ["k1"]
    twin = target_of(rows_of([0]), "d", key="k3", name="n")
    assert [each.key for each in merge([report_of(one), report_of(moved, twin)]).targets] == [
        "k1",
        "k2",
        "k3",
    ]


def test_target_of_one_report() -> None:
    """What only one report has is kept as it is, history and all."""
    only = sample_target("lib", LIB_ROWS)
    merged = merge([report_of(sample_target(), time=2.0), report_of(sample_target(), only, time=1.0)])
    assert merged.targets[1] == only and only.history


def test_tests() -> None:
    """Joined by name: counts are added, the state is that of the newest that was fuzzed."""
    older = target_of(
        rows_of([1]), tests=(TestReport("x", "crashed", "boom", 10, 2), TestReport("y", "stopped", runs=5))
    )
    newer = target_of(
        rows_of([1]),
        tests=(TestReport("x", "never started", runs=0, restarts=1), TestReport("y", "stopped", runs=None)),
    )
    (merged,) = merge([report_of(older, time=1.0), report_of(newer, time=2.0)]).targets
    x, y = merged.tests
    assert x == TestReport("x", "crashed", "boom", 10, 3)
    assert y.runs is None  # What of them was the test's, nobody can tell.


# ----------------------------------------------------------------------- findings


def test_findings() -> None:
    """United by id: counts and times of all, whatever is known, and the best input."""
    early = replace(
        FINDING, first_time=10.0, last_time=20.0, count=2, n_runs=7, place="a.zig:1:2", stack="old"
    )
    late = replace(
        FINDING, first_time=15.0, last_time=90.0, count=3, reproduces=True, exact=True, stack="new"
    )
    other = replace(FINDING, id="ff", first_time=5.0)
    sample = sample_report().findings[0]
    one = replace(sample_report(), findings=(replace(sample, finding=early, input=b"x"),))
    two = replace(
        sample_report(),
        findings=(replace(sample, finding=late, input=b"long"), replace(sample, finding=other, input=b"")),
    )
    for reports in ([one, two], [two, one]):
        first, merged = merge(reports).findings
        assert first.finding == other
        assert merged.input == b"long"  # That of the other has no known end.
        assert merged.finding == replace(
            late, first_time=10.0, count=5, n_runs=7, place="a.zig:1:2", reproduces=True
        )


def test_best_input() -> None:
    """One that can be read, that is known to its last byte, that is short."""
    sample = sample_report().findings[0]
    exact, vague = replace(FINDING, exact=True), replace(FINDING, exact=False)
    inputs = [(exact, b""), (vague, b"a"), (exact, b"ccc"), (exact, b"bb")]
    reports = [
        replace(sample_report(), findings=(replace(sample, finding=finding, input=data),))
        for finding, data in inputs
    ]
    assert merge(reports).findings[0].input == b"bb"
    assert merge(reports[:2]).findings[0].input == b"a"


def test_reproduced_once() -> None:
    """Once is enough; that it did not is known only if somebody has tried."""
    sample = sample_report().findings[0]

    def reproduces(*values: bool | None) -> bool | None:
        reports = [
            replace(sample_report(), findings=(replace(sample, finding=replace(FINDING, reproduces=value)),))
            for value in values
        ]
        return merge(reports).findings[0].finding.reproduces

    assert reproduces(None, True, False) is True
    assert reproduces(None, False) is False
    assert reproduces(None, None) is None
