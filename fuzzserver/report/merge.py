"""One report of several: of runs at the same time on several machines, say, or of several builds.

*Targets* are the same if they are the same executable, have the same key, or have the same name where no
other target of their report has it. What only the newest can tell (state, paths) is the newest report's.

*Points* of the same executable are joined one by one: covered is what any run has covered. Different
executables have no points in common, so theirs are joined by place: file, line, column and function. There
a place is one point, and covered if any point at it is. Points that are in no file cannot be told apart
then: those of the newest executable are kept. All this is meant for builds of the same sources; of others,
each line is told of where each build had it, so one that has moved is there twice.

*Runs* are added, and so are unique runs, of which two fuzzers may have found the same. All that is added is
right for fuzzers that knew nothing of each other: two reports of one cache would count its runs twice.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from fuzzserver.report.function_names import stable_function_name
from fuzzserver.report.model import MAX_SECONDS, FindingReport, Report, TargetReport, TestReport, capped
from fuzzserver.report.points import NOWHERE, Points
from fuzzserver.version import __version__

__all__ = ["merge"]

SEVERAL_BUILDS = "Several builds were merged: their points are joined by line, column and function."

Item = TypeVar("Item")
Stateful = TypeVar("Stateful", TargetReport, TestReport)


def merge(reports: Sequence[Report]) -> Report:
    """All of one or more reports. It has no verdict, since nobody has fuzzed all of it together."""
    newest_first = sorted(reports, key=lambda report: report.time, reverse=True)
    findings = [each for report in newest_first for each in report.findings]
    by_id = _grouped(findings, lambda each: each.finding.id)
    merged = sorted(map(_merge_finding, by_id), key=lambda each: (each.finding.first_time, each.finding.id))
    seconds = [max(0.0, report.seconds) for report in reports if report.seconds is not None]
    return Report(
        time=newest_first[0].time,
        started=min((report.started for report in reports if report.started is not None), default=None),
        seconds=min(sum(seconds), MAX_SECONDS) if seconds else None,
        targets=tuple(map(_merge_target, _same_targets(newest_first))),
        findings=tuple(merged),
        generator=f"fuzzserver {__version__}",
    )


def _grouped(items: Iterable[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    """Items with the same key together; both they and the groups in the order in which they came."""
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


# ----------------------------------------------------------------------- targets


def _same_targets(newest_first: Sequence[Report]) -> list[list[TargetReport]]:
    """Targets that are the same together, the newest first."""
    groups: list[list[TargetReport]] = []
    known: dict[Hashable, list[TargetReport]] = {}
    for report in newest_first:
        names = Counter(target.name for target in report.targets)
        for target in report.targets:
            marks: list[Hashable] = [("key", target.key)]
            if target.id is not None:
                marks.insert(0, _executable(target))
            if names[target.name] == 1:
                marks.append(("name", target.name))
            group = next((known[mark] for mark in marks if mark in known), None)
            if group is None:
                groups.append(group := [])
            group.append(target)
            for mark in marks:
                known.setdefault(mark, group)
    return groups


def _executable(target: TargetReport) -> Hashable:
    """Equal for reports of the same executable that tell of the same files."""
    return target.id, target.points.addresses.tobytes(), target.points.numbers.tobytes()


def _merge_target(targets: list[TargetReport]) -> TargetReport:
    """One of several that are the same, the newest first."""
    newest = targets[0]
    if len(targets) == 1:
        return newest
    executables = _grouped(
        (each for each in targets if len(each.points)),
        lambda each: id(each) if each.id is None else _executable(each),
    )
    joined = [_either_covered([each.points for each in same]) for same in executables]
    several = len(joined) > 1
    tests = _grouped((test for each in targets for test in each.tests), lambda test: test.name)
    oddities = [oddity for each in targets for oddity in each.oddities]
    speaking = _speaking(targets)
    of_points = executables[0][0] if executables else newest
    return replace(
        newest,
        state=speaking.state,
        text=speaking.text,
        id=None if several else of_points.id,
        executable=of_points.executable,
        zig_version=of_points.zig_version,
        runs=capped(sum(each.runs for each in targets)),
        session_runs=capped(sum(each.session_runs for each in targets)),
        unique_runs=capped(sum(each.unique_runs for each in targets)),
        points=_joined_by_place(joined) if several else joined[0] if joined else newest.points,
        tests=tuple(map(_merge_test, tests)),
        history=(),  # Lines that grew at the same time make no line of their sum.
        oddities=tuple(dict.fromkeys([*oddities, SEVERAL_BUILDS] if several else oddities)),
    )


def _speaking(newest_first: Sequence[Stateful]) -> Stateful:
    """The newest that has been fuzzed, whose state says most; else the newest."""
    return next((each for each in newest_first if each.runs), newest_first[0])


def _merge_test(tests: list[TestReport]) -> TestReport:
    runs = [test.runs for test in tests if test.runs is not None]
    return replace(
        _speaking(tests),
        runs=capped(sum(runs)) if len(runs) == len(tests) else None,
        restarts=capped(sum(test.restarts for test in tests)),
    )


# ----------------------------------------------------------------------- points


def _either_covered(same: list[Points]) -> Points:
    """Points of the same executable: covered is what any has covered."""
    bits = 0
    for points in same:
        bits |= int.from_bytes(points.covered, "little")  # Each byte is 0 or 1.
    return replace(same[0], covered=bits.to_bytes(len(same[0]), "little"))


def _joined_by_place(newest_first: list[Points]) -> Points:
    """Points of different executables, each place once. The places of the newest come first."""
    files: dict[str, int] = {}
    functions: dict[str, int] = {}
    known: dict[tuple[int, int, int, int], int] = {}
    places: list[tuple[int, int, int, int]] = []
    addresses = array("Q")
    covered = bytearray()
    for points in newest_first:
        function_names = map(stable_function_name, points.function_names)
        of_points = zip(
            _renumbered(points.files, points.file_names, files),
            points.lines,
            points.columns,
            _renumbered(points.functions, function_names, functions),
            strict=True,
        )
        for place, address, bit in zip(of_points, points.addresses, points.covered, strict=True):
            if place[0] != NOWHERE:
                index = known.setdefault(place, len(places))
            elif points is newest_first[0]:
                index = len(places)
            else:
                continue
            if index == len(places):
                places.append(place)
                addresses.append(address)
                covered.append(bit)
            elif bit:
                covered[index] = 1
    in_files, lines, columns, in_functions = (array("I", column) for column in zip(*places, strict=True))
    return Points(
        array("I", range(len(places))),
        addresses,
        in_files,
        lines,
        columns,
        in_functions,
        bytes(covered),
        tuple(files),
        tuple(functions),
    )


def _renumbered(column: array[int], names: Iterable[str], numbers: dict[str, int]) -> Iterator[int]:
    """A column of places in ``names`` as one of ``numbers``, which new names are added to."""
    new = {place: numbers.setdefault(name, len(numbers)) for place, name in enumerate(names)}
    new[NOWHERE] = NOWHERE
    return map(new.__getitem__, column)


# ----------------------------------------------------------------------- findings


def _merge_finding(same: list[FindingReport]) -> FindingReport:
    """One of several that are the same. The best input decides whose stack and command are told."""
    best = min(same, key=_badness)
    findings = [each.finding for each in same]
    first = min(findings, key=lambda each: each.first_time)
    reproduced = {each.reproduces for each in findings} - {None}
    finding = replace(
        best.finding,
        first_time=first.first_time,
        last_time=max(each.last_time for each in findings),
        count=capped(sum(each.count for each in findings)),
        n_runs=first.n_runs,
        reproduces=any(reproduced) if reproduced else None,
        place=best.finding.place or next((each.place for each in findings if each.place), ""),
    )
    return FindingReport(finding, best.input)


def _badness(each: FindingReport) -> tuple[bool, bool, int, bytes]:
    """The best input is there, is known to its last byte, and is short."""
    return not each.input, not each.finding.exact, len(each.input), each.input
