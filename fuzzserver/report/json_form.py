"""A report as JSON, and back. ``report.schema.json`` beside this says the same as a JSON Schema.

Later versions of fuzzserver may add fields; ``VERSION`` changes when one goes or means something else.
"""

from __future__ import annotations

import base64
import json
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from fuzzserver.errors import InputError
from fuzzserver.files import read_regular
from fuzzserver.findings import Finding, input_note, zig_string_literal
from fuzzserver.report.fields import Fields, real_number, whole_number
from fuzzserver.report.model import (
    FindingReport,
    HistoryPoint,
    Report,
    TargetReport,
    TestReport,
    Verdict,
    capped,
    totals,
)
from fuzzserver.report.points import NOWHERE, FileCoverage, Points

__all__ = [
    "FORMAT",
    "VERSION",
    "finding_json",
    "parse_report",
    "read_report",
    "report_from_json",
    "report_json",
    "target_json",
]

FORMAT = "fuzzserver-report"
VERSION = 1

MAX_FILE = 1 << 30
"""Bytes of a report that is read."""

_FINDING_ID = re.compile("[0-9a-f]{1,64}")
"""People paste it into a shell."""

LOCATION = (
    ("number", "I"),
    ("address", "Q"),
    ("line", "I"),
    ("column", "I"),
    ("function", "i"),
    ("covered", "B"),
)
"""What the numbers of a location are, and the type that each must fit."""

FINDING = (
    "id",
    "kind",
    "message",
    "target",
    "test",
    "count",
    "first_time",
    "last_time",
    "n_runs",
    "reproduces",
    "place",
    "stack",
    "stderr",
    "exact",
    "minimized_size",
    "argv",
)
"""Fields of a finding that are as in ``Finding``; the others follow from them and from the input."""


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
        "session_runs": target.session_runs,
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
    """As ``LOCATION`` says; ``function`` is a place in ``functions``, -1 if it is in none."""
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
    return {
        **{name: getattr(each.finding, name) for name in FINDING},
        "argv": list(each.finding.argv),
        "form": each.finding.form,
        "command": f"fuzzserver repro {each.finding.id}",
        "input_size": len(each.input),
        "input_literal": zig_string_literal(each.input),
        "input_note": input_note(each.finding),
        "input": base64.b64encode(each.input).decode(),
    }


# ----------------------------------------------------------------------- reading


def read_report(path: Path) -> Report:
    """A report that was written as JSON. InputError says what is wrong with it."""
    try:
        data = read_regular(path, MAX_FILE)
    except OSError as error:
        raise InputError(f"cannot read report '{path}': {error.strerror}") from error
    try:
        return parse_report(data)
    except InputError as error:
        raise InputError(f"report '{path}' cannot be used: {error}") from error


def parse_report(data: bytes) -> Report:
    """A report as JSON. InputError if it is something else, or of a later version."""
    try:
        return report_from_json(json.loads(data, parse_constant=_refuse))
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is no report: {error}; --report json=PATH writes one") from error


def _refuse(constant: str) -> NoReturn:
    """Python's reader takes ``NaN`` and ``Infinity``, which JSON has not."""
    raise ValueError(f"{constant} is no JSON")


def report_from_json(value: object) -> Report:
    """What ``report_json`` has made. InputError if it is something else, or of a later version."""
    fields = Fields(value, "")
    if fields.text("format") != FORMAT:
        raise InputError(f"'format' is not '{FORMAT}'")
    version = fields.number("version")
    if version != VERSION:
        raise InputError(f"it has version {version}, and this fuzzserver reads version {VERSION}")
    report = Report(
        fields.real("time"),
        fields.maybe("started", fields.real),
        fields.maybe("seconds", fields.real),
        tuple(map(_target, fields.objects("targets"))),
        tuple(map(_finding, fields.objects("findings"))),
        fields.maybe("verdict", lambda name: _verdict(fields.object(name))),
        fields.text("generator"),
    )
    fields.expect("points", sum(len(target.points) for target in report.targets))
    fields.expect("covered", sum(target.points.covered_len for target in report.targets))
    fields.expect("runs", capped(sum(target.runs for target in report.targets)))
    fields.number("lines")
    fields.number("lines_covered")
    return report


def _verdict(fields: Fields) -> Verdict:
    return Verdict(fields.number("exit_code"), fields.text("name"), fields.texts("reasons"))


def _target(fields: Fields) -> TargetReport:
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
        tuple(map(_test, fields.objects("tests"))),
        tuple(_history(fields)),
        fields.texts("oddities"),
        fields.number("session_runs"),
    )


def _test(fields: Fields) -> TestReport:
    return TestReport(
        fields.text("name"),
        fields.text("state"),
        fields.text("text"),
        fields.maybe("runs", fields.number),
        fields.number("restarts"),
    )


def _history(fields: Fields) -> Iterator[HistoryPoint]:
    for index, (time, *numbers) in enumerate(fields.rows("history", 4)):
        name = f"{fields.name('history')}[{index}]"
        yield HistoryPoint(real_number(time, name), *(whole_number(each, name) for each in numbers))


def _points(fields: Fields) -> Points:
    """The points of all files, in the order of their numbers. What can be counted again is."""
    columns = [array(typecode) for _, typecode in LOCATION]
    files = array("I")
    names: list[str] = []
    for file in fields.objects("files"):
        found = _locations(file, "locations", columns)
        if found and min(columns[2][-found:]) == 0:
            raise InputError(f"'line' of a location in '{file.name('locations')}' is 0")
        file.expect("points", found)
        file.expect("covered", sum(columns[5][-found:]) if found else 0)
        file.number("lines_covered")
        for line in file.objects("lines"):
            _counts(line).number("line")
        files.extend([len(names)] * found)
        names.append(file.text("name"))
    files.extend([NOWHERE] * _locations(fields, "elsewhere", columns))
    function_names = tuple(map(_function_name, fields.objects("functions")))
    numbers, functions, covered = columns[0], columns[4], columns[5]
    if functions and not -1 <= min(functions) <= max(functions) < len(function_names):
        raise InputError(f"a location in '{fields.name('files')}' is in none of the functions")
    if len({*numbers}) != len(numbers):
        raise InputError(f"two locations in '{fields.name('files')}' have one number")
    fields.expect("points", len(numbers))
    fields.expect("covered", sum(covered))
    order = sorted(range(len(numbers)), key=numbers.__getitem__)

    def ordered(column: array[int]) -> array[int]:
        return array(column.typecode, map(column.__getitem__, order))

    return Points(
        ordered(numbers),
        ordered(columns[1]),
        ordered(files),
        ordered(columns[2]),
        ordered(columns[3]),
        array("I", (NOWHERE if function == -1 else function for function in ordered(functions))),
        bytes(ordered(covered)),
        tuple(names),
        function_names,
    )


def _locations(fields: Fields, name: str, columns: list[array[int]]) -> int:
    """Add the locations of a list to the columns; returns how many there are."""
    rows = fields.rows(name, len(LOCATION))
    for column, (what, _), values in zip(columns, LOCATION, zip(*rows, strict=True), strict=False):
        if {*map(type, values)} != {int}:
            raise InputError(f"'{what}' of a location in '{fields.name(name)}' is no whole number")
        if what == "covered" and max(values) > 1:
            raise InputError(f"'{what}' of a location in '{fields.name(name)}' is neither 0 nor 1")
        try:
            column.extend(values)
        except OverflowError as error:
            raise InputError(f"'{what}' of a location in '{fields.name(name)}' is out of range") from error
    return len(rows)


def _function_name(fields: Fields) -> str:
    _counts(fields).maybe("file", fields.text)
    fields.maybe("line", fields.number)
    return fields.text("name")


def _counts(fields: Fields) -> Fields:
    """Have the two numbers that follow from the locations checked."""
    fields.number("points")
    fields.number("covered")
    return fields


def _finding(fields: Fields) -> FindingReport:
    if not _FINDING_ID.fullmatch(fields.text("id")):
        raise InputError(f"'{fields.name('id')}' is no finding's id: 1 to 64 of 0-9 and a-f")
    try:
        data = base64.b64decode(fields.text("input"), validate=True)
    except ValueError as error:
        raise InputError(f"'{fields.name('input')}' is no base64") from error
    for name in ("command", "input_literal", "input_note"):
        fields.text(name)
    for name in ("count", "n_runs"):
        fields.number(name)
    for name in ("first_time", "last_time"):
        fields.real(name)
    fields.maybe("minimized_size", fields.number)
    fields.expect("input_size", len(data))
    values = {name: fields.value(name) for name in FINDING}
    values["form"] = fields.value_or("form", "bytes")
    try:
        return FindingReport(Finding.from_json(values), data)
    except InputError as error:
        raise InputError(f"{error}, in '{fields.place}'") from error
