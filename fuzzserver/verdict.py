"""What a session came to, in words for a terminal or a log."""

import shlex
from collections.abc import Sequence

from fuzzserver.findings import Finding, input_note, zig_string_literal
from fuzzserver.status import TargetStatus, TestStatus

__all__ = ["duration", "finding_text", "summary_text"]


def finding_text(finding: Finding, data: bytes) -> str:
    """A block of lines: what broke, where, on which input, and how to see it again."""
    lines = [
        f"finding {finding.id}: {finding.kind}: {finding.message}",
        f"  test      {finding.test} ({finding.target})",
        f"  found     {_count(finding.count, 'time')}, first after {finding.n_runs:,} runs",
        f"  input     {_count(len(data), 'byte')}: {_input(data)}",
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
    return zig_string_literal(shown) + (f" and {_count(left, 'byte')} more" if left else "")


def summary_text(
    targets: Sequence[TargetStatus], n_findings: int, seconds: float, not_fuzzed: Sequence[TestStatus]
) -> str:
    """One line, then one for each executable and each test that was not fuzzed."""
    tests = [test for target in targets for test in target.tests]
    runs = sum(test.n_runs or 0 for test in tests)
    lines = [
        f"{_count(n_findings, 'finding')} in {duration(seconds)}; {_count(runs, 'run')} in all of "
        f"{_count(len(tests), 'fuzz test')} in {_count(len(targets), 'executable')}"
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


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
