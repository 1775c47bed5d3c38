"""What has changed between two reports: which lines are covered now, and which are no longer.

All is told by lines of source files, since two builds have no points in common. A line is covered if any of
its points is, in whichever function or executable. Files are the same if they have the same name.

*Which line is which.* If the same lines of a file have points in both reports, each is compared with itself.
Else the file was changed, and it is compared function by function, by name:

- if the lines of one are all among those of the other, again each with itself: there is more or less code;
- else from the first line of the function on as long as the distances to it are equal, and from the last line
  back likewise. So a function that has only moved is compared whole, and one in which something was changed
  up to the first change and behind the last one. What lies between is new, or gone.

*A regression* is a line that both reports have, that was covered, and is not any more. A function that is
gone or has another name is none, nor is new code that nothing covers: percentages tell of those. But a report
without any source file is one, since something must have failed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress, takewhile

from fuzzserver.errors import InputError
from fuzzserver.findings import Finding
from fuzzserver.report.function_names import stable_function_name
from fuzzserver.report.model import Report
from fuzzserver.report.points import NOWHERE

__all__ = ["Comparison", "FileComparison", "FunctionComparison", "Share", "compare", "matched_lines"]


@dataclass(frozen=True, slots=True)
class Share:
    """How many there are, and how many of them are covered."""

    total: int
    covered: int

    @property
    def percent(self) -> float:
        """0 of nothing."""
        return 100 * self.covered / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class FunctionComparison:
    """The lines of one function in one file. Other files may have lines of it, too: of inlined calls."""

    name: str
    """Without the numbers that differ in each build; empty for lines that are in no function."""
    before: Share | None
    """Of its lines. None if the baseline has no such function."""
    after: Share | None
    newly_covered: tuple[int, ...]
    """Lines of this report, ascending."""
    no_longer_covered: tuple[int, ...]
    """Lines of this report, ascending."""


@dataclass(frozen=True, slots=True)
class FileComparison:
    """One source file in which something differs."""

    name: str
    before: Share | None
    """Of its lines. None if the baseline has no such file."""
    after: Share | None
    newly_covered: tuple[int, ...]
    """Lines of this report, ascending: all numbers but those of ``gone_lines`` are."""
    no_longer_covered: tuple[int, ...]
    new_lines: tuple[int, ...]
    """Those that are none of the baseline's."""
    gone_lines: tuple[int, ...]
    """Those of the baseline that are not there any more."""
    functions: tuple[FunctionComparison, ...]
    """Those in which something differs, by name."""
    lines: tuple[int, ...]
    """All that have points now, ascending."""

    def places(self, newly: bool) -> list[str]:
        """Where lines are newly covered, or no longer: one text for each function, as in ``a.zig:3-5 in f``.

        A line that several functions have is told of once.
        """
        left = set(self.newly_covered if newly else self.no_longer_covered)
        places = []
        for function in self.functions:
            lines = left.intersection(function.newly_covered if newly else function.no_longer_covered)
            if lines:
                left -= lines
                where = f"{self.name}:{','.join(_ranges(lines, self.lines))}"
                places.append(f"{where} in {function.name}" if function.name else where)
        return places


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a report has that its baseline had not, and the other way round."""

    points_before: Share
    """Over all executables."""
    points_after: Share
    lines_before: Share
    """A line of several executables counts once."""
    lines_after: Share
    files: tuple[FileComparison, ...]
    """Those in which something differs, by name."""
    new_findings: tuple[Finding, ...]
    """The oldest first."""
    gone_findings: tuple[Finding, ...]

    @property
    def newly_covered(self) -> tuple[str, ...]:
        """Lines that are covered now and were not, as in ``src/a.zig:12-14 in parseHeader``."""
        return tuple(place for file in self.files for place in file.places(newly=True))

    @property
    def no_longer_covered(self) -> tuple[str, ...]:
        """Lines that were covered and are not any more."""
        return tuple(place for file in self.files for place in file.places(newly=False))

    @property
    def regressions(self) -> tuple[str, ...]:
        """A sentence for each function that has lines that are no longer covered; none is best."""
        if not self.lines_after.total:
            return ("the report tells of no source file, and the baseline does",)
        return tuple(f"{place} no longer covered" for place in self.no_longer_covered)


def compare(baseline: Report, report: Report) -> Comparison:
    """What has changed since ``baseline``. InputError if that has no file, or none that ``report`` has."""
    before, after = _source_files(baseline), _source_files(report)
    _check_names(before, after)
    files = (_compare_file(name, before.get(name), after.get(name)) for name in sorted(before | after))
    known, now = ({each.finding.id: each.finding for each in one.findings} for one in (baseline, report))
    return Comparison(
        _points(baseline),
        _points(report),
        _sum(before.values()),
        _sum(after.values()),
        tuple(file for file in files if file is not None),
        tuple(finding for key, finding in now.items() if key not in known),
        tuple(finding for key, finding in known.items() if key not in now),
    )


def _check_names(before: dict[str, _SourceFile], after: dict[str, _SourceFile]) -> None:
    if not before:
        raise InputError("the baseline tells of no source file, so there is nothing to compare with")
    if after and not before.keys() & after.keys():
        raise InputError(
            f"the baseline and the report have no source file in common: one has '{min(before)}', "
            f"the other '{min(after)}'; --strip-prefix FOLDER makes names of different folders the same"
        )


@dataclass(slots=True)
class _SourceFile:
    """The lines of one file that have points."""

    covered: dict[int, bool] = field(default_factory=dict)
    """For each line."""
    functions: dict[str, set[int]] = field(default_factory=dict)
    """The lines of each function. A line can be in several, of a generic function or an inlined one."""

    def share(self, lines: Iterable[int]) -> Share:
        covered = [self.covered[line] for line in lines]
        return Share(len(covered), sum(covered))


def _source_files(report: Report) -> dict[str, _SourceFile]:
    """The files of a report, over all its executables."""
    found: dict[str, _SourceFile] = {}
    for target in report.targets:
        points = target.points
        functions = {
            index: stable_function_name(name) for index, name in enumerate(points.function_names)
        } | {NOWHERE: ""}
        hit = set(compress(zip(points.files, points.lines, strict=True), points.covered))
        for file, line, function in set(zip(points.files, points.lines, points.functions, strict=True)):
            if file != NOWHERE:
                source = found.setdefault(points.file_names[file], _SourceFile())
                source.covered[line] = source.covered.get(line, False) or (file, line) in hit
                source.functions.setdefault(functions[function], set()).add(line)
    return found


def _points(report: Report) -> Share:
    points = [target.points for target in report.targets]
    return Share(sum(map(len, points)), sum(each.covered_len for each in points))


def _sum(files: Iterable[_SourceFile]) -> Share:
    shares = [file.share(file.covered) for file in files]
    return Share(sum(each.total for each in shares), sum(each.covered for each in shares))


def _compare_file(name: str, before: _SourceFile | None, after: _SourceFile | None) -> FileComparison | None:
    """None if nothing differs."""
    old, new = before or _SourceFile(), after or _SourceFile()
    pairs = _pairs(old, new)
    newly = {line for was, line in pairs if new.covered[line] and not old.covered[was]}
    no_longer = {line for was, line in pairs if old.covered[was] and not new.covered[line]}
    functions = []
    for function in sorted(old.functions.keys() | new.functions.keys()):
        was, now = old.functions.get(function), new.functions.get(function)
        compared = FunctionComparison(
            function,
            None if was is None else old.share(was),
            None if now is None else new.share(now),
            tuple(sorted(newly.intersection(now or ()))),
            tuple(sorted(no_longer.intersection(now or ()))),
        )
        if compared.before != compared.after or compared.newly_covered or compared.no_longer_covered:
            functions.append(compared)
    new_lines = new.covered.keys() - {line for _, line in pairs}
    gone_lines = old.covered.keys() - {was for was, _ in pairs}
    if not (newly or no_longer or new_lines or gone_lines or functions):
        return None
    return FileComparison(
        name,
        None if before is None else before.share(before.covered),
        None if after is None else after.share(after.covered),
        tuple(sorted(newly)),
        tuple(sorted(no_longer)),
        tuple(sorted(new_lines)),
        tuple(sorted(gone_lines)),
        tuple(functions),
        tuple(sorted(new.covered)),
    )


def _pairs(old: _SourceFile, new: _SourceFile) -> set[tuple[int, int]]:
    """Which line of the baseline is which of the report."""
    if old.covered.keys() == new.covered.keys():
        return {(line, line) for line in new.covered}
    return {
        pair
        for function in old.functions.keys() & new.functions.keys()
        for pair in matched_lines(sorted(old.functions[function]), sorted(new.functions[function]))
    }


def matched_lines(before: Sequence[int], after: Sequence[int]) -> list[tuple[int, int]]:
    """The lines of a function that are in both of two builds; both ascending, and none empty."""
    common = set(before) & set(after)
    shorter = min(len(before), len(after))
    if len(common) == shorter:
        return [(line, line) for line in sorted(common)]
    start = _equal_distances(before, after)[:shorter]
    end = _equal_distances(before[::-1], after[::-1])[: shorter - len(start)]
    return start + end[::-1]


def _equal_distances(before: Sequence[int], after: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of lines as long as they are as far from the first of theirs as the other."""
    shift = after[0] - before[0]
    return list(takewhile(lambda pair: pair[1] - pair[0] == shift, zip(before, after, strict=False)))


def _ranges(lines: set[int], all_lines: Sequence[int]) -> list[str]:
    """``3-5``, ``9``: ranges go across lines that have no points, and end before one that is not meant."""
    ranges: list[list[int]] = []
    next_place = -1
    for line in sorted(lines):
        place = bisect_left(all_lines, line)
        if place == next_place:
            ranges[-1][1] = line
        else:
            ranges.append([line, line])
        next_place = place + 1
    return [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
