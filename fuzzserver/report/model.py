"""What a report tells: targets with their coverage and tests, findings, and the verdict.

Values only. ``collect`` makes them of what a session knows, ``json_form`` writes and reads them as JSON,
and the other formats are written from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fuzzserver.findings import Finding
from fuzzserver.report.points import Points

__all__ = [
    "MAX_COUNT",
    "MAX_SECONDS",
    "FindingReport",
    "HistoryPoint",
    "Report",
    "TargetReport",
    "TestReport",
    "Totals",
    "Verdict",
    "capped",
    "totals",
]

MAX_COUNT = 1 << 53
"""Of whatever is counted. Above it, many readers of JSON no longer know each whole number."""

MAX_SECONDS = 1e15
"""Of a time: some 30 million years. Whatever is computed of it is finite."""


@dataclass(frozen=True, slots=True)
class TestReport:
    """One fuzz test."""

    __test__ = False  # The name begins with "Test", but it is no test class for pytest.

    name: str
    state: str
    """As in ``TestStatus``."""
    text: str = ""
    runs: int | None = None
    """None where it cannot be told from the runs of other tests."""
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """The numbers at one time."""

    time: float
    """Seconds since 1970."""
    runs: int
    unique_runs: int
    covered: int


@dataclass(frozen=True, slots=True)
class TargetReport:
    """One test executable: its newest build, or one that was merged of several."""

    key: str
    """The same for each build."""
    name: str
    state: str
    """As in ``TargetStatus``."""
    text: str
    id: str | None
    """The coverage file's name; None without coverage, or if several executables were merged."""
    executable: str | None
    zig_version: str | None
    runs: int
    unique_runs: int
    points: Points
    tests: tuple[TestReport, ...] = ()
    history: tuple[HistoryPoint, ...] = ()
    oddities: tuple[str, ...] = ()
    """What people should know of the executable, a sentence each."""
    session_runs: int = 0
    """Those of ``runs`` that were made while somebody followed: the others are of earlier sessions."""


@dataclass(frozen=True, slots=True)
class FindingReport:
    """One finding with its input."""

    finding: Finding
    input: bytes
    """Empty if it cannot be read."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the session ended."""

    exit_code: int
    name: str
    """``clean``, ``findings``, ``build failed``, ``budget not met``, ``below threshold``, ``regression``
    or ``stopped``, by a signal."""
    reasons: tuple[str, ...] = ()
    """Why, a sentence each; none if it is clean."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that is known of a session at one time."""

    time: float
    """When it was made, in seconds since 1970."""
    started: float | None
    """When the session began; None if nobody knows."""
    seconds: float | None
    """How long it has fuzzed."""
    targets: tuple[TargetReport, ...]
    findings: tuple[FindingReport, ...] = ()
    """The oldest first."""
    verdict: Verdict | None = None
    """None while it goes on, and where nobody fuzzed."""
    generator: str = field(default="")
    """The program that made it, with its version."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over targets."""

    points: int
    covered: int
    lines: int
    lines_covered: int
    runs: int

    @property
    def percent(self) -> float:
        """Of all points, those that were covered; 0 if there are none."""
        return 100 * self.covered / self.points if self.points else 0.0


def capped(number: int) -> int:
    """A count, or the largest that a report can hold."""
    return min(number, MAX_COUNT)


def totals(targets: Sequence[TargetReport]) -> Totals:
    """The sums of all targets. A line that two executables have counts twice."""
    files = [file for target in targets for file in target.points.by_file]
    return Totals(
        sum(len(target.points) for target in targets),
        sum(target.points.covered_len for target in targets),
        sum(len(file.lines) for file in files),
        sum(file.lines_covered for file in files),
        capped(sum(target.runs for target in targets)),
    )
