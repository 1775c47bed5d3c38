"""What several forms of a report say in words: of findings, of tests, of times."""

import re
import shlex
import time

from fuzzserver.console import printable
from fuzzserver.findings import input_note, zig_string_literal
from fuzzserver.report.model import FindingReport, TestReport

__all__ = [
    "clean",
    "count",
    "finding_lines",
    "first_line",
    "input_text",
    "iso_time",
    "made_no_run",
    "repro_command",
    "title",
]

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """``text`` with control characters written out, and without what XML and UTF-8 cannot hold."""
    return _NOT_IN_XML.sub("\ufffd", printable(text))


def first_line(text: str) -> str:
    """The first line of a text, cleaned."""
    return clean(text.partition("\n")[0])


def count(number: int, what: str) -> str:
    """``1 run``, ``2,000 runs``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def iso_time(seconds: float | None) -> str | None:
    """A time in UTC like ``2026-01-31T23:59:59Z``; None where there is none, or none that has a year."""
    if seconds is None:
        return None
    try:
        moment = time.gmtime(seconds)
    except (OverflowError, OSError, ValueError):
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", moment) if 1 <= moment.tm_year <= 9999 else None


def made_no_run(test: TestReport) -> bool:
    """Whether a test was never tried; where nobody counts the runs of each, its state tells."""
    return test.runs == 0 or (test.runs is None and test.state in ("waiting", "never started"))


def title(each: FindingReport) -> str:
    """What broke, on one line: ``panic: index out of bounds``."""
    message = first_line(each.finding.message)
    return f"{clean(each.finding.kind)}: {message}" if message else clean(each.finding.kind)


def repro_command(each: FindingReport) -> str:
    """What shows the finding again."""
    return f"fuzzserver repro {clean(each.finding.id)}"


def input_text(each: FindingReport) -> str:
    """The input as Zig source, with its size. If its end is unknown, zeros behind it are only counted."""
    data = each.input if each.finding.exact else each.input.rstrip(b"\0")
    zeros = len(each.input) - len(data)
    more = f" and {count(zeros, 'zero byte')}" if zeros else ""
    return f"{count(len(each.input), 'byte')}: {zig_string_literal(data)}{more}"


def finding_lines(each: FindingReport) -> list[str]:
    """All that people want to know of a finding, cleaned."""
    finding = each.finding
    reproduces = {
        True: "",
        False: " (it did not reproduce in a process of its own)",
        None: " (not tried yet)",
    }[finding.reproduces]
    lines = [
        f"{finding.kind}: {finding.message}",
        f"place: {finding.place or 'unknown'}",
        f"found: {count(finding.count, 'time')}, first after {count(finding.n_runs, 'run')}",
        f"input: {input_text(each)}",
    ]
    if note := input_note(finding):
        lines.append(note)
    lines.append(f"reproduce: {repro_command(each)}{reproduces}")
    if finding.argv:
        lines.append(f"command: {shlex.join(finding.argv)}")
    if stack := finding.stack.strip("\n"):
        lines += ["", stack]
    return [clean(line) for line in lines]
