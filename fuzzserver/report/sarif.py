"""SARIF 2.1.0: findings at their source lines, for code scanning.

GitHub refuses a whole file for one result that has no place. So where nobody knows the place of a finding,
its test's is told, and else that of the file that every project has.
"""

import json
import os
import re
from typing import Any
from urllib.parse import quote

from fuzzserver.findings import input_note, zig_string_literal
from fuzzserver.report.model import FindingReport, Report, TargetReport
from fuzzserver.report.words import clean, count, first_line, iso_time, repro_command
from fuzzserver.stack import Frame, frame_of, frame_of_place

__all__ = ["sarif_text"]

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

SOURCE_ROOT = "%SRCROOT%"
"""What names of files are relative to; whoever reads the file knows where that is."""

MAX_STACK_FRAMES = 64

_NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Code points that stand neither for a character nor for a byte of a name that is no UTF-8."""

KINDS = {
    "error": (
        "ReturnedError",
        "The test returned an error",
        "Its trace ends where the error was returned first.",
    ),
    "panic": ("Panic", "The test panicked", "A safety check failed, or the code called @panic."),
    "signal": ("Signal", "The test was ended by a signal", "It used memory that is not its own, say."),
    "leak": ("MemoryLeak", "The test did not free memory", "The trace shows where the memory was allocated."),
    "error logs": ("ErrorLogs", "The test logged an error", "Zig's test runner takes that for a failure."),
    "exit": ("Exit", "The test ended its process", "A test has to return."),
    "hang": ("Hang", "A run of the test did not end", "It was ended when its time was over."),
    "out of memory": ("OutOfMemory", "The test took too much memory", "It was ended at the limit."),
}
"""For each kind of finding a name, a sentence, and what else is to be known."""


def sarif_text(report: Report) -> str:
    """The report as SARIF."""
    return json.dumps(_log(report), indent=1, allow_nan=False) + "\n"


def _log(report: Report) -> dict[str, Any]:
    kinds = [*KINDS, *sorted({each.finding.kind for each in report.findings} - {*KINDS})]
    name, _, version = report.generator.partition(" ")
    driver = {"name": clean(name) or "fuzzserver", "rules": [_rule(kind) for kind in kinds]}
    if version:
        driver["version"] = clean(version)
    targets = {target.name: target for target in reversed(report.targets)}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "originalUriBaseIds": {
                    SOURCE_ROOT: {"description": {"text": "The folder that names of files are relative to."}}
                },
                "invocations": [_invocation(report)],
                "results": [
                    _result(each, kinds.index(each.finding.kind), targets.get(each.finding.target))
                    for each in report.findings
                ],
            }
        ],
    }


def _rule(kind: str) -> dict[str, Any]:
    name, what, more = KINDS.get(
        kind, ("Other", f"The test failed: {clean(kind)}", "It did what it must not.")
    )
    return {
        "id": _rule_id(kind),
        "name": name,
        "shortDescription": {"text": f"{what}."},
        "fullDescription": {"text": f"{what}. {more}"},
        "help": {
            "text": f"{what}. {more} The result holds the input on which that happened, and the command "
            "'fuzzserver repro ID' shows it again, in a build from the sources as they are then."
        },
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["fuzzing"]},
    }


def _rule_id(kind: str) -> str:
    return clean(kind).replace(" ", "-")


def _invocation(report: Report) -> dict[str, Any]:
    verdict = report.verdict
    invocation: dict[str, Any] = {"executionSuccessful": verdict is None or verdict.name != "build failed"}
    if verdict is not None:
        invocation["exitCode"] = verdict.exit_code
        invocation["exitCodeDescription"] = clean("; ".join([verdict.name, *verdict.reasons]))
    if (started := iso_time(report.started)) is not None:
        invocation["startTimeUtc"] = started
    if (ended := iso_time(report.time)) is not None:
        invocation["endTimeUtc"] = ended
    return invocation


def _result(each: FindingReport, rule: int, target: TargetReport | None) -> dict[str, Any]:
    finding = each.finding
    place = frame_of_place(finding.place)
    frames = [frame for line in finding.stack.split("\n") if (frame := frame_of(line))]
    result: dict[str, Any] = {
        "ruleId": _rule_id(finding.kind),
        "ruleIndex": rule,
        "level": "error",
        "message": {"text": _message(each, place is not None)},
        "locations": [_location(place or _test_place(finding.test, target))],
        "partialFingerprints": {"fuzzserverFinding/v1": clean(finding.id)},
        "occurrenceCount": max(1, finding.count),
        "properties": {
            "target": clean(finding.target),
            "test": clean(finding.test),
            "input": zig_string_literal(each.input),
            "inputSize": len(each.input),
            "inputNote": input_note(finding),
            "exact": finding.exact,
            "reproduces": finding.reproduces,
            "command": repro_command(each),
            "argv": [clean(argument) for argument in finding.argv],
        },
    }
    if frames:
        result["stacks"] = [{"frames": [{"location": _location(each)} for each in frames[:MAX_STACK_FRAMES]]}]
    return result


def _message(each: FindingReport, place_known: bool) -> str:
    finding = each.finding
    text = (
        f"{first_line(finding.message) or finding.kind} ({finding.kind} in fuzz test '{finding.test}' of "
        f"'{finding.target}', on an input of {count(len(each.input), 'byte')}; reproduce it by "
        f"'{repro_command(each)}')"
    )
    if not place_known:
        text += ". In which line is not known; this is where the test begins, or where the project does."
    # Brackets before parentheses would be a link.
    return clean(text).replace("](", "] (")


def _test_place(test: str, target: TargetReport | None) -> Frame:
    """Where a test begins, if it is known: a test is a function of that name."""
    if target is not None:
        for function in target.points.by_function:
            if function.name == test and function.file is not None and function.line is not None:
                return Frame(function.file, function.line, 0, test)
    return Frame("build.zig", 1, 0, "")


def _location(frame: Frame) -> dict[str, Any]:
    physical: dict[str, Any] = {"artifactLocation": _artifact(frame.path)}
    if frame.line:
        physical["region"] = {"startLine": frame.line}
        if frame.column:
            physical["region"]["startColumn"] = frame.column
    location: dict[str, Any] = {"physicalLocation": physical}
    if frame.function:
        location["logicalLocations"] = [{"fullyQualifiedName": clean(frame.function), "kind": "function"}]
    return location


def _artifact(path: str) -> dict[str, str]:
    """A file as a URI. A name that is no path from the root is one in the folder of the sources."""
    uri = quote(_NO_BYTES.sub("\ufffd", path).encode("utf-8", "surrogateescape"))
    if os.path.isabs(path):
        return {"uri": f"file://{uri}"}
    return {"uri": uri, "uriBaseId": SOURCE_ROOT}
