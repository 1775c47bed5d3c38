"""Coverage by source file, where a file that several targets have is one file.

A place is a line and a column. Targets that have the same place have compiled the same code, so its points
count once: as many as in the target that has most of them there, and as many covered as in the target that
has covered most of them there. With a single target all numbers are those of its points.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from fuzzserver.report.model import TargetReport
from fuzzserver.report.points import FileCoverage, LineCoverage, Points

__all__ = ["SourceFile", "SourceFunction", "by_source", "join_functions"]


@dataclass(frozen=True, slots=True)
class SourceFunction:
    """One function of a source file, in whichever targets."""

    name: str
    line: int
    """The lowest line of its points in the file."""
    covered: bool
    """Whether any of its points was, in any target."""


@dataclass(frozen=True)
class SourceFile:
    """One source file that has points."""

    name: str
    lines: tuple[LineCoverage, ...]
    """Ascending."""
    functions: tuple[SourceFunction, ...]
    """Those that begin in it, by line. No two have the same name."""

    @cached_property
    def lines_covered(self) -> int:
        """Lines of which at least one point was covered."""
        return sum(1 for line in self.lines if line.covered)

    @cached_property
    def branches(self) -> int:
        """Points on lines that have several: only of these lines a part can be covered."""
        return sum(line.points for line in self.lines if line.points > 1)

    @cached_property
    def branches_covered(self) -> int:
        """Those of them that were covered."""
        return sum(line.covered for line in self.lines if line.points > 1)


def by_source(targets: Sequence[TargetReport]) -> list[SourceFile]:
    """The source files that have points in any target, by name."""
    parts: dict[str, list[tuple[Points, FileCoverage]]] = {}
    functions: dict[str, list[SourceFunction]] = {}
    for target in targets:
        for file in target.points.by_file:
            parts.setdefault(file.name, []).append((target.points, file))
        for each in target.points.by_function:
            if each.file is not None and each.line is not None:
                function = SourceFunction(each.name, each.line, each.covered > 0)
                functions.setdefault(each.file, []).append(function)
    return [
        SourceFile(name, _lines(parts[name]), join_functions(functions.get(name, ())))
        for name in sorted(parts)
    ]


def _lines(parts: Sequence[tuple[Points, FileCoverage]]) -> tuple[LineCoverage, ...]:
    """The lines of one file, of all who have it."""
    if len(parts) == 1:
        return parts[0][1].lines
    places: Counter[tuple[int, int]] = Counter()
    places_covered: Counter[tuple[int, int]] = Counter()
    for points, file in parts:
        here = [(points.lines[index], points.columns[index]) for index in file.indexes]
        covered = map(points.covered.__getitem__, file.indexes)
        # The union of counters has the higher count of each.
        places |= Counter(here)
        places_covered |= Counter(place for place, was in zip(here, covered, strict=True) if was)
    totals: Counter[int] = Counter()
    totals_covered: Counter[int] = Counter()
    for place, count in places.items():
        totals[place[0]] += count
        totals_covered[place[0]] += places_covered[place]
    return tuple(LineCoverage(line, totals[line], totals_covered[line]) for line in sorted(totals))


def join_functions(functions: Iterable[SourceFunction]) -> tuple[SourceFunction, ...]:
    """The functions of one file, by line, and those with the same name as one."""
    joined: dict[str, SourceFunction] = {}
    for each in functions:
        known = joined.get(each.name, each)
        joined[each.name] = SourceFunction(
            each.name, min(known.line, each.line), known.covered or each.covered
        )
    return tuple(sorted(joined.values(), key=lambda each: (each.line, each.name)))
