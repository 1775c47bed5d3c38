"""A report as JSON, and back. ``docs/report.schema.json`` says the same as a JSON Schema.

Later versions of fuzzserver may add fields; ``VERSION`` changes when one goes or means something else.
"""

from __future__ import annotations

import base64
import binascii
import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fuzzserver.errors import InputError
from fuzzserver.findings import Finding, input_note, zig_string_literal
from fuzzserver.report.model import (
    FindingReport,
    HistoryPoint,
    Report,
    TargetReport,
    TestReport,
    Verdict,
    totals,
)
from fuzzserver.report.points import NOWHERE, FileCoverage, Points

__all__ = [
    "FORMAT",
    "VERSION",
    "finding_json",
    "read_report",
    "report_from_json",
    "report_json",
    "target_json",
]

FORMAT = "fuzzserver-report"
VERSION = 1

MAX_FILE = 1 << 30
"""Bytes of a report that is read."""

Item = TypeVar("Item")


def report_json(report: Report) -> dict[str, Any]:
    """The whole report."""
    sums = totals(report.targets)
    verdict = report.verdict
    return {
        "format": FORMAT,
        "version": VERSION,
        "generator": report.generator,
        "time": report.time,
        "started": report.started,
        "seconds": report.seconds,
        "verdict": None
        if verdict is None
        else {"exit_code": verdict.exit_code, "name": verdict.name, "reasons": list(verdict.reasons)},
        "points": sums.points,
        "covered": sums.covered,
        "lines": sums.lines,
        "lines_covered": sums.lines_covered,
        "runs": sums.runs,
        "targets": [target_json(target) for target in report.targets],
        "findings": [finding_json(each) for each in report.findings],
    }


def target_json(target: TargetReport) -> dict[str, Any]:
    """One target, with all its points."""
    points = target.points
    elsewhere = [index for index, file in enumerate(points.files) if file == NOWHERE]
    places = {function: place for place, function in enumerate(points.used_functions)}
    return {
        "name": target.name,
        "key": target.key,
        "id": target.id,
        "state": target.state,
        "text": target.text,
        "executable": target.executable,
        "zig_version": target.zig_version,
        "points": len(points),
        "covered": points.covered_len,
        "runs": target.runs,
        "unique_runs": target.unique_runs,
        "tests": [
            {
                "name": test.name,
                "state": test.state,
                "text": test.text,
                "runs": test.runs,
                "restarts": test.restarts,
            }
            for test in target.tests
        ],
        "files": [_file_json(points, file, places) for file in points.by_file],
        "functions": [
            {
                "name": each.name,
                "file": each.file,
                "line": each.line,
                "points": each.points,
                "covered": each.covered,
            }
            for each in points.by_function
        ],
        "elsewhere": [_location(points, index, places) for index in elsewhere],
        "history": [[each.time, each.runs, each.unique_runs, each.covered] for each in target.history],
        "oddities": list(target.oddities),
    }


def _file_json(points: Points, file: FileCoverage, places: dict[int, int]) -> dict[str, Any]:
    return {
        "name": file.name,
        "points": file.points,
        "covered": file.covered,
        "lines_covered": file.lines_covered,
        "lines": [{"line": each.line, "points": each.points, "covered": each.covered} for each in file.lines],
        "locations": [_location(points, index, places) for index in file.indexes],
    }


def _location(points: Points, index: int, places: dict[int, int]) -> list[int]:
    """Number, address, line, column, place in ``functions`` (-1: in none), covered."""
    return [
        points.numbers[index],
        points.addresses[index],
        points.lines[index],
        points.columns[index],
        places.get(points.functions[index], -1),
        points.covered[index],
    ]


def finding_json(each: FindingReport) -> dict[str, Any]:
    """One finding: what is told of it, how to reproduce it, and its input."""
    finding = each.finding
    return {
        **finding.summary(),
        "stack": finding.stack,
        "stderr": finding.stderr,
        "exact": finding.exact,
        "minimized_size": finding.minimized_size,
        "command": f"fuzzserver repro {finding.id}",
        "argv": list(finding.argv),
        "input_size": len(each.input),
        "input_literal": zig_string_literal(each.input),
        "input_note": input_note(finding),
        "input": base64.b64encode(each.input).decode(),
    }


# ----------------------------------------------------------------------- reading


def read_report(path: Path) -> Report:
    """A report that was written as JSON. InputError says what is wrong with it."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise InputError(f"cannot read report '{path}': {error.strerror}") from error
    if len(data) > MAX_FILE:
        raise InputError(f"report '{path}' is too large: more than {MAX_FILE >> 20} MiB")
    try:
        return report_from_json(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is no report: {error}; --report json=PATH writes one") from error
    except InputError as error:
        raise InputError(f"report '{path}' cannot be used: {error}") from error


def report_from_json(value: object) -> Report:
    """What ``report_json`` has made. InputError if it is something else, or of a later version."""
    try:
        fields = _Fields(value, "the report")
        if fields.text("format") != FORMAT:
            raise InputError(f"its format is '{fields.text('format')}' instead of '{FORMAT}'")
        if fields.number("version") != VERSION:
            raise InputError(
                f"it has version {fields.number('version')}, and this fuzzserver reads version {VERSION}"
            )
        verdict = fields.value("verdict")
        return Report(
            fields.real("time"),
            fields.maybe("started", fields.real),
            fields.maybe("seconds", fields.real),
            tuple(fields.each("targets", _target)),
            tuple(fields.each("findings", _finding)),
            None if verdict is None else _verdict(_Fields(verdict, "'verdict'")),
            fields.text("generator"),
        )
    except (TypeError, ValueError, OverflowError, IndexError) as error:
        raise InputError(f"a value is not what it should be: {error}") from error


class _Fields:
    """The fields of a JSON object. InputError names the one that is missing or has no such value."""

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise InputError(f"{what} is no JSON object")
        self._value = value
        self._what = what

    def value(self, name: str) -> object:
        if name not in self._value:
            raise InputError(f"{self._what} has no '{name}'")
        return self._value[name]

    def text(self, name: str) -> str:
        return self._typed(name, str)

    def number(self, name: str) -> int:
        value = self._typed(name, int)
        if isinstance(value, bool):
            raise InputError(f"'{name}' of {self._what} is no number")
        return value

    def real(self, name: str) -> float:
        return float(self._typed(name, int | float))

    def list(self, name: str) -> list[Any]:
        return self._typed(name, list)

    def texts(self, name: str) -> tuple[str, ...]:
        values = self.list(name)
        if not all(isinstance(each, str) for each in values):
            raise InputError(f"'{name}' of {self._what} holds something else than texts")
        return tuple(values)

    def maybe(self, name: str, read: Callable[[str], Item]) -> Item | None:
        return None if self.value(name) is None else read(name)

    def each(self, name: str, read: Callable[[_Fields], Item]) -> list[Item]:
        return [read(_Fields(item, f"'{name}[{index}]'")) for index, item in enumerate(self.list(name))]

    def _typed(self, name: str, kind: Any) -> Any:
        value = self.value(name)
        if not isinstance(value, kind):
            raise InputError(f"'{name}' of {self._what} has a value that it cannot have")
        return value


def _verdict(fields: _Fields) -> Verdict:
    return Verdict(fields.number("exit_code"), fields.text("name"), fields.texts("reasons"))


def _target(fields: _Fields) -> TargetReport:
    return TargetReport(
        fields.text("key"),
        fields.text("name"),
        fields.text("state"),
        fields.text("text"),
        fields.maybe("id", fields.text),
        fields.maybe("executable", fields.text),
        fields.maybe("zig_version", fields.text),
        fields.number("runs"),
        fields.number("unique_runs"),
        _points(fields),
        tuple(fields.each("tests", _test)),
        tuple(HistoryPoint(*sample) for sample in fields.list("history")),
        fields.texts("oddities"),
    )


def _test(fields: _Fields) -> TestReport:
    return TestReport(
        fields.text("name"),
        fields.text("state"),
        fields.text("text"),
        fields.maybe("runs", fields.number),
        fields.number("restarts"),
    )


def _points(fields: _Fields) -> Points:
    """The points of all files, in the order of their numbers."""
    names: list[str] = []
    rows: list[tuple[int, int, int, int, int, int, int]] = []
    for file in fields.each("files", lambda each: each):
        rows += [(*_row(location), len(names)) for location in file.list("locations")]
        names.append(file.text("name"))
    rows += [(*_row(location), NOWHERE) for location in fields.list("elsewhere")]
    rows.sort()
    function_names = tuple(fields.each("functions", lambda each: each.text("name")))
    if any(not -1 <= row[4] < len(function_names) for row in rows):
        raise InputError("a location names a function that is not in 'functions'")
    return Points(
        array("I", (row[0] for row in rows)),
        array("Q", (row[1] for row in rows)),
        array("I", (row[6] for row in rows)),
        array("I", (row[2] for row in rows)),
        array("I", (row[3] for row in rows)),
        array("I", (NOWHERE if row[4] == -1 else row[4] for row in rows)),
        bytes(row[5] for row in rows),
        tuple(names),
        function_names,
    )


def _row(location: Any) -> tuple[int, int, int, int, int, int]:
    number, address, line, column, function, covered = location
    if covered not in (0, 1):
        raise InputError(f"a location is covered {covered} times instead of 0 or 1")
    return number, address, line, column, function, covered


def _finding(fields: _Fields) -> FindingReport:
    try:
        data = base64.b64decode(fields.text("input"), validate=True)
    except binascii.Error as error:
        raise InputError(f"an input is no base64: {error}") from error
    return FindingReport(Finding.from_json(fields._value), data)
