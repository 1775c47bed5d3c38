"""Makes a report of what a session knows: coverage maps, the status of targets, findings."""

import os
from array import array
from collections.abc import Iterable, Sequence

from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.coverage.debug_sources import relative_files
from fuzzserver.coverage.queue import CoverageFiles
from fuzzserver.errors import InputError
from fuzzserver.findings import Finding, FindingStore
from fuzzserver.report.model import FindingReport, HistoryPoint, TargetReport, TestReport, capped
from fuzzserver.report.points import Points
from fuzzserver.status import TargetStatus
from fuzzserver.wire.abi import FileIndex, coverage_file_name, coverage_id_of

__all__ = ["collect_findings", "collect_target", "collect_targets"]

_BITS = [bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256)]
"""For each byte of seen bits, 1 or 0 for each of its eight points."""

NO_POINTS = Points(array("I"), array("Q"), array("I"), array("I"), array("I"), array("I"), b"", (), ())


def collect_targets(statuses: Sequence[TargetStatus], coverage_files: CoverageFiles) -> list[TargetReport]:
    """The targets that were told of, in that order, then those of which there is nothing but a map."""
    reports = []
    shown = set()
    for status in statuses:
        coverage_id = None if status.id is None else coverage_id_of(status.id)
        coverage_map = None if coverage_id is None else coverage_files.get(coverage_id)
        shown.add(coverage_map)
        reports.append(collect_target(status, coverage_map))
    for coverage_map in coverage_files.newest():
        if coverage_map not in shown:
            path = str(coverage_map.executable)
            status = TargetStatus(
                path, coverage_map.executable.name, "serving", id=coverage_file_name(coverage_map.coverage_id)
            )
            reports.append(collect_target(status, coverage_map))
    return reports


def collect_target(status: TargetStatus, coverage_map: CoverageMap | None) -> TargetReport:
    """One target, as it is now. Without a map, it has no points."""
    snapshot = None if coverage_map is None else coverage_map.read()
    return TargetReport(
        status.key,
        status.name,
        status.state,
        status.text,
        status.id,
        None if coverage_map is None else str(coverage_map.executable),
        None if coverage_map is None else coverage_map.facts.zig_version,
        0 if snapshot is None else capped(snapshot.n_runs),
        0 if snapshot is None else capped(snapshot.unique_runs),
        NO_POINTS if coverage_map is None or snapshot is None else _points(coverage_map, snapshot.seen_bits),
        tuple(
            TestReport(test.name, test.state, test.text, test.n_runs, test.restarts) for test in status.tests
        ),
        () if coverage_map is None else _history(coverage_map),
        () if coverage_map is None else coverage_map.oddities,
        0
        if coverage_map is None or snapshot is None
        else capped(max(0, snapshot.n_runs - coverage_map.start_n_runs)),
    )


def _points(coverage_map: CoverageMap, seen_bits: bytes) -> Points:
    pcs, locations, functions = coverage_map.pcs, coverage_map.source_locations, coverage_map.functions
    return Points(
        array("I", range(len(pcs))),
        pcs,
        locations[0::3],
        locations[1::3],
        locations[2::3],
        functions.of_points,
        b"".join(map(_BITS.__getitem__, seen_bits))[: len(pcs)],
        _file_names(coverage_map),
        tuple(_string_at(functions.string_bytes, start) for start in functions.names),
    )


def _file_names(coverage_map: CoverageMap) -> tuple[str, ...]:
    """Whole paths where they are known: what debug info calls them may be relative to any folder."""
    coverage = coverage_map.coverage
    names = [coverage.file_path(FileIndex(file)) for file in range(coverage.files_len)]
    if all(map(os.path.isabs, names)):
        return tuple(names)
    places = relative_files(coverage_map.executable)
    return tuple(places.get(name, name) for name in names)


def _string_at(string_bytes: bytes, start: int) -> str:
    return string_bytes[start : string_bytes.index(b"\0", start)].decode()


def _history(coverage_map: CoverageMap) -> tuple[HistoryPoint, ...]:
    return tuple(
        HistoryPoint(each.time, capped(each.n_runs), capped(each.unique_runs), each.covered)
        for each in coverage_map.history.samples
    )


def collect_findings(store: FindingStore, findings: Iterable[Finding]) -> list[FindingReport]:
    """Findings with their inputs; one whose input cannot be read is told of all the same."""
    reports = []
    for finding in findings:
        try:
            data = store.input(finding.id)
        except InputError:
            data = b""
        reports.append(FindingReport(finding, data))
    return reports
