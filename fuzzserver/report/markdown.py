"""A summary in Markdown, for ``$GITHUB_STEP_SUMMARY`` and for people.

Names, messages and inputs come from outside. In here they stand in code, where nothing is a link, an image or
HTML, and its marks are longer than any that are in them.
"""

import math
import re
from collections.abc import Sequence

from fuzzserver.findings import input_note
from fuzzserver.report.model import FindingReport, Report, TargetReport, totals
from fuzzserver.report.words import (
    clean,
    count,
    first_line,
    input_text,
    made_no_run,
    repro_command,
    title,
)

__all__ = ["MAX_SUMMARY", "cell", "code", "markdown_text"]

MAX_SUMMARY = (1 << 20) - (128 << 10)
"""Bytes. GitHub shows no summary of more than 1 MiB; some room is left for what else a step says."""

MAX_ROWS = 100
"""Of a table, and reasons of a verdict."""
MAX_FILES = 10
MAX_NAME = 200
"""Characters."""

MAX_STACK = 16 << 10
"""Characters."""

_BACKTICKS = re.compile("`+")


def markdown_text(report: Report) -> str:
    """The report as Markdown: the verdict first, findings last."""
    parts = [
        _verdict(report),
        _numbers(report),
        _targets(report),
        _not_run(report),
        _files(report),
        "### Findings" if report.findings else "",
        *map(_finding, report.findings),
    ]
    return "\n\n".join(_fitting([part for part in parts if part])) + "\n"


def _fitting(parts: list[str]) -> list[str]:
    """As many parts as a summary may have, and a sentence if there are more."""
    size = 0
    for index, part in enumerate(parts):
        size += len(part.encode()) + len("\n\n")
        if size > MAX_SUMMARY:
            left = count(len(parts) - index, "more part")
            return [*parts[:index], f"**{left} would make this summary too long to be shown.**"]
    return parts


def _verdict(report: Report) -> str:
    verdict = report.verdict
    if verdict is None:
        return "## Fuzzing: no verdict"
    head = f"## Fuzzing: {code(verdict.name)} (exit code {verdict.exit_code})"
    reasons = [f"- {code(reason)}" for reason in verdict.reasons[:MAX_ROWS]]
    if len(verdict.reasons) > MAX_ROWS:
        reasons.append(f"- and {len(verdict.reasons) - MAX_ROWS:,} more")
    return "\n".join([head, "", *reasons]).strip()


def _numbers(report: Report) -> str:
    sums = totals(report.targets)
    runs = sums.runs
    time = ""
    if report.seconds is not None:
        runs = sum(target.session_runs for target in report.targets)
        time = f" in {report.seconds:,.0f} s"
    return (
        f"{count(len(report.findings), 'finding')}; {count(runs, 'run')}{time}; "
        f"{sums.covered:,} of {count(sums.points, 'point')} and {sums.lines_covered:,} of "
        f"{count(sums.lines, 'line')} covered"
    )


def _targets(report: Report) -> str:
    return _table(
        "Targets",
        ("target", "points", "covered", "", "lines", "covered", "runs", "runs per second"),
        [_target_row(target, report.seconds) for target in report.targets],
    )


def _target_row(target: TargetReport, seconds: float | None) -> tuple[str, ...]:
    sums = totals([target])
    return (
        cell(target.name),
        f"{sums.points:,}",
        f"{sums.covered:,}",
        _percent(sums.covered, sums.points),
        f"{sums.lines:,}",
        f"{sums.lines_covered:,}",
        f"{target.runs:,}",
        f"{target.session_runs / seconds:,.0f}" if seconds and seconds > 0 else "",
    )


def _not_run(report: Report) -> str:
    """Tests that were never tried, and targets of which not even the tests are known."""
    rows = [
        (
            cell(test.name),
            cell(target.name),
            cell(f"{test.state}: {test.text}" if test.text else test.state),
        )
        for target in report.targets
        for test in target.tests
        if made_no_run(test)
    ]
    rows += [
        ("all", cell(target.name), cell(f"{target.state}: {first_line(target.text)}"))
        for target in report.targets
        if not target.tests and target.state == "failed"
    ]
    return _table("Tests that made no run", ("test", "target", "why"), rows, "---")


def _files(report: Report) -> str:
    """The files where most is left to be reached."""
    points: dict[str, int] = {}
    covered: dict[str, int] = {}
    for target in report.targets:
        for file in target.points.by_file:
            points[file.name] = points.get(file.name, 0) + file.points
            covered[file.name] = covered.get(file.name, 0) + file.covered
    left = {name: points[name] - covered[name] for name in points if points[name] > covered[name]}
    names = sorted(left, key=lambda name: (-left[name], name))[:MAX_FILES]
    return _table(
        "Files with the most points that were not covered",
        ("file", "not covered", "points", "covered"),
        [
            (cell(name), f"{left[name]:,}", f"{points[name]:,}", _percent(covered[name], points[name]))
            for name in names
        ],
    )


def _table(
    head: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], alignment: str = "---:"
) -> str:
    """A table below its heading; nothing if it has no rows. The first column is aligned on the left."""
    if not rows:
        return ""
    marks = ("---", *[alignment] * (len(columns) - 1))
    lines = [f"| {' | '.join(line)} |" for line in (columns, marks, *rows[:MAX_ROWS])]
    if len(rows) > MAX_ROWS:
        lines += ["", f"and {len(rows) - MAX_ROWS:,} more"]
    return "\n".join([f"### {head}", "", *lines])


def _finding(each: FindingReport) -> str:
    """What broke, how to see it again, and behind a click the input and the stack."""
    finding = each.finding
    lines = [
        f"**{code(title(each))}**",
        "",
        f"- test: {code(finding.test)} of {code(finding.target)}",
        f"- place: {code(finding.place)}",
        f"- reproduce: {code(repro_command(each))}",
        "",
        f"<details><summary>Input of {count(len(each.input), 'byte')}, "
        f"found {count(finding.count, 'time')}, first after {count(finding.n_runs, 'run')}</summary>",
        "",
        _block(input_text(each)),
    ]
    if note := input_note(finding):
        lines += ["", note]
    stack = finding.stack.strip("\n")
    if stack.strip():
        lines += ["", _block(stack[:MAX_STACK])]
        if len(stack) > MAX_STACK:
            lines += ["", f"The stack goes on: it has {count(len(stack), 'character')}."]
    return "\n".join([*lines, "", "</details>"])


def cell(text: str) -> str:
    """A text from outside in a table. A pipe would end the cell, in code too, so another sign is shown."""
    return code(text.replace("|", "\N{DIVIDES}"))


def code(text: str) -> str:
    """A text from outside, on one line, as code."""
    text = clean(text.replace("\n", "\\n").replace("\t", " "))
    if not text.strip():
        return "(none)"
    if len(text) > MAX_NAME:
        text = text[:MAX_NAME] + "…"
    marks = _marks(text, 1)
    # Marks of its own must not touch those around it; one space on either side is not shown.
    return f"{marks} {text} {marks}" if "`" in text else f"{marks}{text}{marks}"


def _block(text: str) -> str:
    """Lines from outside, as they are."""
    text = clean(text.strip("\n"))
    marks = _marks(text, 3)
    return f"{marks}text\n{text}\n{marks}"


def _marks(text: str, least: int) -> str:
    """More backticks than stand anywhere in the text one after the other."""
    return "`" * max([least, *(len(run) + 1 for run in _BACKTICKS.findall(text))])


def _percent(covered: int, total: int) -> str:
    """Rounded down, so that only all is 100 %."""
    return f"{math.floor(1000 * covered / total) / 10:.1f} %" if total else ""
