"""What a session came to, in words."""

from dataclasses import replace
from typing import Any

import pytest

from fuzzserver.exit_code import ExitCode
from fuzzserver.fuzz.budget import Ending
from fuzzserver.report.compare import compare
from fuzzserver.report.model import Report, Verdict, totals
from fuzzserver.status import TargetStatus, TestStatus
from fuzzserver.verdict import (
    MAX_STACK_LINES,
    Judged,
    coverage_text,
    duration,
    finding_text,
    judge,
    summary_text,
    verdict_text,
)
from tests.support_report import sample_report
from tests.test_findings import FINDING


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.99, "59 s"), (60, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (360_000, "100:00:00")],
)
def test_duration(seconds: float, text: str) -> None:
    """Seconds below a minute, else as a clock."""
    assert duration(seconds) == text


def test_finding() -> None:
    """What broke, in which test, on which input, how to see it again, and where."""
    argv = ("/o/1/repro", "main.test.fuzz x", "/findings/0123456789ab.input")
    finding = replace(FINDING, reproduces=True, exact=True, count=2, n_runs=1234, argv=argv)
    finding = replace(finding, stack="a.zig:1:2\n  code")
    assert finding_text(finding, b"a\n").splitlines() == [
        "finding 0123456789ab: panic: boom",
        "  test      main.test.fuzz (src/main.zig)",
        "  found     2 times, first after 1,234 runs",
        r'  input     2 bytes: "a\n"',
        "  reproduce fuzzserver repro 0123456789ab",
        "  command   /o/1/repro 'main.test.fuzz x' /findings/0123456789ab.input",
        "    a.zig:1:2",
        "      code",
    ]


def test_what_is_uncertain_is_said() -> None:
    """An input of unknown length and a finding that was not seen again are told as such."""
    text = finding_text(replace(FINDING, reproduces=False), b"a")
    assert "1 byte: " in text and "found     1 time, " in text
    assert "Until 0.15, Zig does not store how long an input is" in text
    assert "repro 0123456789ab (it did not reproduce in a process of its own)" in text
    assert "repro 0123456789ab (not tried yet)" in finding_text(FINDING, b"a")


def test_long_stack() -> None:
    """Of an endless recursion, the beginning is told."""
    text = finding_text(replace(FINDING, stack="frame\n" * 1000), b"")
    assert text.count("    frame") == MAX_STACK_LINES


def test_long_input() -> None:
    """Of a long input, the beginning is told, and how much is left out; zeros behind it are no content."""
    text = finding_text(FINDING, b"x" * 150 + bytes(4096 - 150))
    assert f'  input     4,096 bytes: "{"x" * 150}" and 3,946 bytes more\n' in text
    text = finding_text(FINDING, b"y" * 5000)
    assert f'"{"y" * 200}" and 4,800 bytes more\n' in text


def target(
    *tests: TestStatus, state: str = "fuzzing", text: str = "", name: str = "main.zig"
) -> TargetStatus:
    """A target with these tests."""
    return TargetStatus(name, name, state, text, tests=tests)


def test_summary() -> None:
    """Counts of everything, in one line."""
    one = target(TestStatus("a", "fuzzing", n_runs=1000), TestStatus("b", "stopped", n_runs=234))
    two = target(TestStatus("c", "crashed", n_runs=1))
    assert summary_text([one, two], 1, 1235, 61.5, []) == (
        "1 finding in 1:01; 1,235 runs of 3 fuzz tests in 2 executables"
    )


def test_what_was_not_fuzzed() -> None:
    """Targets that could not be built and tests that made no run are named with the reason."""
    text = summary_text(
        [
            target(state="failed", text="a.zig:1:1: error: no\nmore", name="a.zig"),
            target(state="never started", text="It has no fuzz tests.", name="b.zig"),
            target(state="failed", name="c.zig"),
            target(TestStatus("quiet", "waiting"), TestStatus("lively", "fuzzing", n_runs=1)),
        ],
        0,
        1,
        5,
        [TestStatus("quiet", "waiting"), TestStatus("odd", "failed", "No.\nmore", n_runs=3)],
    )
    assert text.splitlines() == [
        "0 findings in 5 s; 1 run of 2 fuzz tests in 4 executables",
        "  a.zig failed: a.zig:1:1: error: no",
        "  b.zig never started: It has no fuzz tests.",
        "  c.zig failed: unknown",
        "  'quiet' made no run (waiting)",
        "  'odd' made no run (failed: No.)",
    ]


TARGETS = sample_report().targets
COVERED = totals(TARGETS).percent


def judged(**changes: Any) -> Judged:
    """Of the sample, with nothing wrong but what is said."""
    return Judged(Report(0.0, None, None, TARGETS), **changes)


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({}, ExitCode.CLEAN, None),
        ({"ending": Ending("Enough.", met=True)}, ExitCode.CLEAN, None),
        ({"failing": [FINDING]}, ExitCode.FINDINGS, f"panic in '{FINDING.test}': boom"),
        ({"build_failed": True}, ExitCode.BUILD_FAILED, "a test executable could not be built"),
        ({"not_fuzzed": [TestStatus("t", "failed")]}, ExitCode.BUILD_FAILED, "'t' made no run"),
        ({"ending": Ending("Too early.", met=False)}, ExitCode.BUDGET_NOT_MET, "Too early."),
        ({"fail_under": COVERED}, ExitCode.CLEAN, None),
        ({"fail_under": COVERED + 0.1}, ExitCode.BELOW_THRESHOLD, f"{COVERED + 0.1:g} % is wanted"),
        ({"stopped": ExitCode.SIGINT, "build_failed": True}, ExitCode.SIGINT, "it was ended by a signal"),
        ({"stopped": ExitCode.SIGINT, "failing": [FINDING]}, ExitCode.FINDINGS, "boom"),
    ],
)
def test_verdict(changes: dict[str, Any], code: ExitCode, reason: str | None) -> None:
    """What is wrong makes the exit code, and says so."""
    verdict = judge(judged(**changes))
    assert verdict.exit_code == code
    assert verdict.name == {130: "stopped"}.get(code, code.name.lower().replace("_", " "))
    assert verdict.reasons == () if reason is None else reason in verdict.reasons[0]


def test_regressions_count_only_if_they_are_to() -> None:
    """A comparison alone makes no verdict."""
    now = tuple(
        replace(each, points=replace(each.points, covered=bytes(len(each.points)))) for each in TARGETS
    )
    report = Report(0.0, None, None, now)
    comparison = compare(Report(0.0, None, None, TARGETS), report)
    assert comparison.regressions
    assert judge(Judged(report, comparison=comparison)).exit_code == ExitCode.CLEAN
    verdict = judge(Judged(report, comparison=comparison, fail_on_regression=True))
    assert (verdict.exit_code, verdict.name) == (ExitCode.REGRESSION, "regression")
    assert verdict.reasons == comparison.regressions


def test_the_lowest_code_counts() -> None:
    """Of all that is wrong at once."""
    wrong = {
        "failing": [FINDING],
        "build_failed": True,
        "ending": Ending("Too early.", met=False),
        "fail_under": 100.0,
    }
    codes = []
    while wrong:
        codes.append(judge(judged(**wrong)).exit_code)
        wrong.pop(next(iter(wrong)))
    assert codes == [3, 4, 5, 6]


def test_words_of_a_verdict() -> None:
    """Of a thousand reasons, some are printed."""
    text = verdict_text(Verdict(3, "findings", ("a", "b")))
    assert text == "verdict: findings (exit code 3)\n  a\n  b"
    lines = verdict_text(Verdict(7, "regression", tuple(map(str, range(1000))))).splitlines()
    assert lines[-2:] == ["  9", "  and 990 more"]


def test_words_of_coverage() -> None:
    """Points and lines of all targets."""
    sums = totals(TARGETS)
    assert coverage_text(judged().report) == (
        f"{sums.percent:.1f} % covered: {sums.covered} of {sums.points} points, "
        f"{sums.lines_covered} of {sums.lines} lines"
    )
