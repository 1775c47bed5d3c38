"""What ``compare`` has found: for a terminal, as Markdown, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from fuzzserver.findings import Finding
from fuzzserver.report.compare import Comparison, FileComparison, FunctionComparison, Share
from fuzzserver.report.markdown import cell, code

__all__ = ["comparison_json", "comparison_lines", "comparison_markdown"]

MAX_LINES = 10
"""Of each list on a terminal."""

MAX_ITEMS = 25
"""Of each list, and rows of the table, in Markdown."""


def comparison_lines(comparison: Comparison) -> list[str]:
    """For a terminal: the numbers, then the beginning of each list of differences."""
    points = _change(comparison.points_before, comparison.points_after, "points")
    lines = _change(comparison.lines_before, comparison.lines_after, "lines")
    texts = [f"compared with the baseline: {points}, {lines}"]
    for title, items in _lists(comparison):
        texts.append(f"  {title}")
        texts += [f"    {item}" for item in items[:MAX_LINES]] + _left(items, MAX_LINES, "    ")
    return texts + [f"  {note}" for note in _notes(comparison)]


def _change(before: Share, after: Share, what: str) -> str:
    return f"{_text(after)} {what} covered (before: {_text(before)})"


def _text(share: Share | None) -> str:
    return "none" if share is None else f"{share.percent:.1f} % of {share.total:,}"


def _lists(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """The differences that there are: what they are and how many, and each of them."""
    newly = sum(len(file.newly_covered) for file in comparison.files)
    no_longer = sum(len(file.no_longer_covered) for file in comparison.files)
    lists = [
        (_count(no_longer, "line") + " no longer covered", list(comparison.no_longer_covered)),
        (_count(newly, "line") + " newly covered", list(comparison.newly_covered)),
        (
            _count(len(comparison.new_findings), "finding") + " that the baseline has not",
            list(map(_finding, comparison.new_findings)),
        ),
        (
            _count(len(comparison.gone_findings), "finding") + " that only the baseline has",
            list(map(_finding, comparison.gone_findings)),
        ),
    ]
    return [(title, items) for title, items in lists if items]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _finding(finding: Finding) -> str:
    return f"{finding.id}: {finding.kind}: {finding.message.partition(chr(10))[0]} ({finding.test})"


def _left(items: Sequence[object], most: int, before: str = "") -> list[str]:
    """How many are left behind the first ``most``; nothing if there are none."""
    left = len(items) - most
    return [f"{before}and {left:,} more"] if left > 0 else []


def _notes(comparison: Comparison) -> list[str]:
    """What was not compared: files that only one of the two has."""
    gone = [file.name for file in comparison.files if file.after is None]
    new = [file.name for file in comparison.files if file.before is None]
    notes = [
        f"{_count(len(names), 'file')} only in {where}, such as {names[0]}"
        for names, where in ((gone, "the baseline"), (new, "the report"))
        if names
    ]
    moved = {PurePosixPath(name).name: name for name in gone}
    for name in new:
        if other := moved.get(PurePosixPath(name).name):
            notes.append(f"if '{other}' is '{name}', --strip-prefix FOLDER gives both the same name")
            break
    return notes


def comparison_markdown(comparison: Comparison) -> str:
    """A section of a summary: the numbers, the files that differ, and the beginning of each list."""
    blocks = [
        "## Compared with the baseline",
        _table(
            ("covered", "before", "now"),
            [
                ("points", _text(comparison.points_before), _text(comparison.points_after)),
                ("lines", _text(comparison.lines_before), _text(comparison.lines_after)),
            ],
        ),
    ]
    for title, items in _lists(comparison):
        shown = [f"- {code(item)}" for item in items[:MAX_ITEMS]]
        blocks += [f"**{title}**", "\n".join(shown + _left(items, MAX_ITEMS, "- "))]
    if comparison.files:
        rows = [_row(file) for file in comparison.files[:MAX_ITEMS]]
        blocks.append(_table(("file", "lines before", "lines now", "newly covered", "no longer"), rows))
        blocks += _left(comparison.files, MAX_ITEMS)
    blocks += [f"- {code(note)}" for note in _notes(comparison)]
    return "\n\n".join(blocks) + "\n"


def _row(file: FileComparison) -> tuple[str, ...]:
    return (
        cell(file.name),
        _text(file.before),
        _text(file.after),
        f"{len(file.newly_covered):,}",
        f"{len(file.no_longer_covered):,}",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column is text, the others are numbers."""
    rule = ("---", *["---:"] * (len(head) - 1))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """All of it, for programs."""
    return {
        "points": _shares(comparison.points_before, comparison.points_after),
        "lines": _shares(comparison.lines_before, comparison.lines_after),
        "files": [
            {
                "name": file.name,
                **_shares(file.before, file.after),
                "newly_covered": list(file.newly_covered),
                "no_longer_covered": list(file.no_longer_covered),
                "new_lines": list(file.new_lines),
                "gone_lines": list(file.gone_lines),
                "functions": [_function_json(each) for each in file.functions],
            }
            for file in comparison.files
        ],
        "new_findings": [finding.summary() for finding in comparison.new_findings],
        "gone_findings": [finding.summary() for finding in comparison.gone_findings],
        "regressions": list(comparison.regressions),
    }


def _function_json(function: FunctionComparison) -> dict[str, Any]:
    return {
        "name": function.name,
        **_shares(function.before, function.after),
        "newly_covered": list(function.newly_covered),
        "no_longer_covered": list(function.no_longer_covered),
    }


def _shares(before: Share | None, after: Share | None) -> dict[str, Any]:
    return {"before": _share(before), "after": _share(after)}


def _share(share: Share | None) -> dict[str, Any] | None:
    if share is None:
        return None
    return {"total": share.total, "covered": share.covered, "percent": share.percent}
