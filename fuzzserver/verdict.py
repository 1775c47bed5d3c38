"""What a session came to: the verdict, and words for a terminal or a log."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from fuzzserver.exit_code import ExitCode
from fuzzserver.findings import Finding, input_note, zig_string_literal
from fuzzserver.fuzz.budget import Ending
from fuzzserver.report.compare import Comparison
from fuzzserver.report.model import Report, Verdict, totals
from fuzzserver.report.words import count
from fuzzserver.status import TargetStatus, TestStatus

__all__ = ["Judged", "coverage_text", "duration", "finding_text", "judge", "summary_text", "verdict_text"]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a verdict goes by."""

    report: Report
    failing: Sequence[Finding] = ()
    """The findings that count."""
    build_failed: bool = False
    not_fuzzed: Sequence[TestStatus] = ()
    """Tests that made no run."""
    ending: Ending | None = None
    """Why the session has ended."""
    stopped: ExitCode | None = None
    """The code of the signal that has ended it before its time, if one has."""
    fail_under: float | None = None
    """Percent of all points that must be covered."""
    comparison: Comparison | None = None
    fail_on_regression: bool = False


def judge(judged: Judged) -> Verdict:
    """The verdict: of all that is wrong, what has the lowest exit code."""
    if judged.stopped is not None and not judged.failing:
        return Verdict(judged.stopped, "stopped", ("it was ended by a signal",))
    complaints = [complaint for complaint in _complaints(judged) if complaint.reasons]
    return complaints[0] if complaints else Verdict(ExitCode.CLEAN, "clean")


def _complaints(judged: Judged) -> list[Verdict]:
    """What may be wrong, with the reasons if it is, by exit code."""
    builds = ["a test executable could not be built"] if judged.build_failed else []
    builds += [f"'{test.name}' made no run" for test in judged.not_fuzzed]
    ending, sums = judged.ending, totals(judged.report.targets)
    is_enough = judged.fail_under is None or sums.percent >= judged.fail_under
    covered = [] if is_enough else [f"{coverage_text(judged.report)}; {judged.fail_under:g} % is wanted"]
    comparison = judged.comparison
    regressions = () if comparison is None or not judged.fail_on_regression else comparison.regressions
    return [
        _verdict(
            ExitCode.FINDINGS, [f"{each.kind} in '{each.test}': {each.message}" for each in judged.failing]
        ),
        _verdict(ExitCode.BUILD_FAILED, builds),
        _verdict(ExitCode.BUDGET_NOT_MET, [] if ending is None or ending.met else [ending.text]),
        _verdict(ExitCode.BELOW_THRESHOLD, covered),
        _verdict(ExitCode.REGRESSION, regressions),
    ]


def _verdict(code: ExitCode, reasons: Sequence[str]) -> Verdict:
    return Verdict(code, code.name.lower().replace("_", " "), tuple(reasons))


MAX_REASONS = 10
"""Reasons of a verdict that are printed; reports have all."""


def verdict_text(verdict: Verdict) -> str:
    """A line that tells the verdict, and one for each reason."""
    lines = [f"verdict: {verdict.name} (exit code {verdict.exit_code})"]
    lines += [f"  {reason}" for reason in verdict.reasons[:MAX_REASONS]]
    if len(verdict.reasons) > MAX_REASONS:
        lines.append(f"  and {len(verdict.reasons) - MAX_REASONS} more")
    return "\n".join(lines)


def coverage_text(report: Report) -> str:
    """How much is covered, of what the report tells of."""
    sums = totals(report.targets)
    return (
        f"{sums.percent:.1f} % covered: {sums.covered:,} of {count(sums.points, 'point')}, "
        f"{sums.lines_covered:,} of {count(sums.lines, 'line')}"
    )


def finding_text(finding: Finding, data: bytes) -> str:
    """A block of lines: what broke, where, on which input, and how to see it again."""
    lines = [
        f"finding {finding.id}: {finding.kind}: {finding.message}",
        f"  test      {finding.test} ({finding.target})",
        f"  found     {count(finding.count, 'time')}, first after {finding.n_runs:,} runs",
        f"  input     {count(len(data), 'byte')}: {_input(data)}",
    ]
    if note := input_note(finding):
        lines.append(f"            {note}")
    reproduces = {
        True: "",
        False: " (it did not reproduce in a process of its own)",
        None: " (not tried yet)",
    }[finding.reproduces]
    lines.append(f"  reproduce fuzzserver repro {finding.id}{reproduces}")
    if finding.reproduces:
        lines.append(f"  command   {shlex.join(finding.argv)}")
    lines += [f"    {line}" for line in finding.stack.splitlines()[:MAX_STACK_LINES]]
    return "\n".join(lines)


MAX_STACK_LINES = 24
MAX_INPUT = 200
"""Bytes of an input that are shown; the page and the finding's files have all."""


def _input(data: bytes) -> str:
    shown = data.rstrip(b"\0")[:MAX_INPUT] if len(data) > MAX_INPUT else data
    left = len(data) - len(shown)
    return zig_string_literal(shown) + (f" and {count(left, 'byte')} more" if left else "")


def summary_text(
    targets: Sequence[TargetStatus],
    n_findings: int,
    runs: int,
    seconds: float,
    not_fuzzed: Sequence[TestStatus],
) -> str:
    """One line, then one for each executable and each test that was not fuzzed."""
    tests = [test for target in targets for test in target.tests]
    lines = [
        f"{count(n_findings, 'finding')} in {duration(seconds)}; {count(runs, 'run')} of "
        f"{count(len(tests), 'fuzz test')} in {count(len(targets), 'executable')}"
    ]
    for target in targets:
        if target.state in ("failed", "never started") and not target.tests:
            lines.append(f"  {target.name} {target.state}: {(target.text or 'unknown').splitlines()[0]}")
    for test in not_fuzzed:
        why = f": {test.text.splitlines()[0]}" if test.text else ""
        lines.append(f"  '{test.name}' made no run ({test.state}{why})")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """``1:02:03``, or ``12 s``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
