"""The JUnit form: as its readers see it."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from fuzzserver.report.formats import report_bytes
from fuzzserver.report.junit import junit_text
from fuzzserver.report.model import FindingReport, Report, TargetReport, TestReport, Verdict
from tests.support_report import sample_findings, sample_report, sample_target

PANIC, HANG = sample_findings()
CLEAN = Verdict(0, "clean")

ANY_TEXT = st.lists(st.characters() | st.sampled_from("\ud800\udcff\ufffe\0\r\n"), min_size=1).map("".join)
"""With what XML cannot hold."""


def read(report: Report) -> dict[str, TestSuite]:
    """The suites, as a reader of the written bytes has them."""
    suites = list(JUnitXml.fromstring(report_bytes("junit", report)))
    assert len({suite.name for suite in suites}) == len(suites)
    return {suite.name: suite for suite in suites}


def cases(report: Report, target: str = "app") -> dict[str, TestCase]:
    """The cases of one suite."""
    found = list(read(report)[target])
    assert len({case.name for case in found}) == len(found), "readers show one case of each name"
    assert all(case.classname == target for case in found)
    assert all(len(case.result) <= 1 for case in found), "readers show one result of a case"
    return {case.name: case for case in found}


def with_tests(*tests: TestReport, **changes: object) -> TargetReport:
    """A target with these tests."""
    return replace(sample_target(), tests=tests, **changes)  # type: ignore[arg-type]


def report_of(*targets: TargetReport, findings: tuple[FindingReport, ...] = ()) -> Report:
    """A report without verdict."""
    return replace(sample_report(), targets=targets, findings=findings, verdict=None)


def test_sample() -> None:
    """A suite for each target with its numbers, a case for each test."""
    suites = read(sample_report())
    assert list(suites) == ["app", "lib"]
    app = suites["app"]
    assert (app.tests, app.failures, app.errors, app.skipped, app.time) == (2, 1, 0, 1, 20)
    assert app.timestamp == "2023-11-14T22:13:20"
    assert {each.name: each.value for each in app.properties()} == {
        "points": "11",
        "covered": "6",
        "runs": "1000",
        "unique_runs": "7",
    }
    root = ET.fromstring(report_bytes("junit", sample_report()))
    assert root.attrib == {
        "name": "fuzzserver",
        "tests": "4",
        "failures": "2",
        "errors": "0",
        "time": "20.000",
    }


def test_finding_is_a_failure() -> None:
    """It tells what broke, where, on which input, and how to see it again."""
    case = cases(sample_report())[PANIC.finding.test]
    (failure,) = case.result
    assert isinstance(failure, Failure)
    assert failure.type == "panic"
    assert failure.message == "panic: index 5 <out> of \"bounds\" & 'more', len ü\\x1b[0m]]>"
    lines = failure.text.split("\n")
    assert lines[0] == failure.message
    assert "place: /project/src/main.zig:4:21" in lines
    assert "found: 3 times, first after 512 runs" in lines
    assert 'input: 7 bytes: "\\x00\\xff\\"]]>a"' in lines
    assert "reproduce: fuzzserver repro a1b2c3d4e5f60718" in lines
    assert "command: /project/.zig-cache/o/app/test --seed=0x1" in lines
    assert lines[-3] == "/project/src/main.zig:4:21: 0x1000020 in main.parse (app)"
    assert case.system_out == "1,000 runs, started again 10 times"


def test_uncertain_finding() -> None:
    """What is not known of a hang is told to be unknown."""
    (failure,) = cases(sample_report(), "lib")[HANG.finding.test].result
    assert isinstance(failure, Failure)
    assert (failure.type, failure.message) == ("hang", "hang: no run has ended for 60 s")
    assert "place: unknown" in failure.text
    assert "Until 0.15, Zig does not store how long an input is" in failure.text
    assert "reproduce: fuzzserver repro 0f1e2d3c4b5a6978 (not tried yet)" in failure.text


def test_zeros_behind_an_input_are_counted() -> None:
    """Of an input whose end is unknown, zeros at the end are not shown one by one; of others they are."""
    long = replace(HANG, input=b"ab\0c" + bytes(5000))
    (failure,) = cases(replace(sample_report(), findings=(long,)), "lib")[HANG.finding.test].result
    assert 'input: 5,004 bytes: "ab\\x00c" and 5,000 zero bytes\n' in failure.text
    exact = replace(long, finding=replace(HANG.finding, exact=True), input=b"ab\0")
    (failure,) = cases(replace(sample_report(), findings=(exact,)), "lib")[HANG.finding.test].result
    assert 'input: 3 bytes: "ab\\x00"\n' in failure.text


def test_several_findings_of_a_test() -> None:
    """They are in one failure, one after the other."""
    second = replace(PANIC, finding=replace(PANIC.finding, id="2", kind="out of memory", message="of 2 MiB"))
    report = replace(sample_report(), findings=(PANIC, second))
    (failure,) = cases(report)[PANIC.finding.test].result
    assert failure.type == "panic, out of memory"
    assert failure.message.startswith("2 findings: panic: index 5")
    assert failure.message.endswith("; out of memory: of 2 MiB")
    assert failure.text.index("fuzzserver repro a1b2") < failure.text.index("fuzzserver repro 2")


def test_states_without_findings() -> None:
    """What was not tried is skipped, what failed is an error, all else has passed."""
    report = report_of(
        with_tests(
            TestReport("good", "stopped", "", 12, 1),
            TestReport("shared", "stopped", "", None),
            TestReport("idle", "never started", "no time was left", 0),
            TestReport("waiting", "waiting", "", None),
            TestReport("slow", "fuzzing", "", 0),
            TestReport("broken", "failed", "its worker ended\nten times", 5),
        )
    )
    found = cases(report)
    assert [found[name].result for name in ("good", "shared")] == [[], []]
    assert found["good"].system_out == "12 runs, started again 1 time"
    for name, message in (
        ("idle", "no time was left"),
        ("waiting", "made no run (waiting)"),
        ("slow", "made no run (fuzzing)"),
    ):
        (skipped,) = found[name].result
        assert isinstance(skipped, Skipped)
        assert skipped.message == message
    (error,) = found["broken"].result
    assert isinstance(error, Error)
    assert (error.type, error.message, error.text) == (
        "failed",
        "its worker ended",
        "its worker ended\nten times",
    )
    suite = read(report)["app"]
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (6, 0, 1, 3)


def test_a_target_that_was_not_built() -> None:
    """It has no tests, and one error."""
    text = "a.zig:1:1: error: no\nmore of it"
    (case,) = cases(report_of(with_tests(state="failed", text=text))).values()
    (error,) = case.result
    assert isinstance(error, Error)
    assert (case.name, error.message, error.text) == ("(build)", "a.zig:1:1: error: no", text)


def test_a_target_without_fuzz_tests() -> None:
    """That is no error: ``zig init`` makes one."""
    (case,) = cases(report_of(with_tests(state="never started", text="It has no fuzz tests."))).values()
    (skipped,) = case.result
    assert isinstance(skipped, Skipped)
    assert (case.name, skipped.message) == ("(fuzz tests)", "It has no fuzz tests.")


def test_a_target_of_which_only_coverage_is_known() -> None:
    """It has no cases, and none of them has failed."""
    suite = read(report_of(with_tests(state="serving", text="")))["app"]
    assert (suite.tests, suite.errors) == (0, 0)


def test_findings_of_others() -> None:
    """Findings of tests and of targets that are not in the report have cases of their own."""
    other_test = replace(PANIC, finding=replace(PANIC.finding, test="gone"))
    other_target = replace(PANIC, finding=replace(PANIC.finding, target="gone"))
    report = report_of(with_tests(TestReport("good", "stopped", "", 1)), findings=(other_test, other_target))
    assert [len(case.result) for case in cases(report).values()] == [0, 1]
    (case,) = cases(report, "gone").values()
    assert isinstance(case.result[0], Failure)
    assert case.name == PANIC.finding.test


def test_targets_of_one_name() -> None:
    """A finding is told once, of the first of two targets that have one name."""
    report = report_of(sample_target(), sample_target(), findings=(PANIC,))
    suites = list(JUnitXml.fromstring(report_bytes("junit", report)))
    assert [(suite.name, suite.failures) for suite in suites] == [("app", 1), ("app", 0)]


@pytest.mark.parametrize(
    ("verdict", "failures"),
    [(None, 0), (CLEAN, 0), (Verdict(6, "below threshold", ("3 % is less\nthan 40 %",)), 1)],
)
def test_verdict(verdict: Verdict | None, failures: int) -> None:
    """What is wrong is seen even if no test has failed."""
    report = replace(report_of(with_tests(TestReport("good", "stopped", "", 1))), verdict=verdict)
    found = [case for suite in read(report).values() for case in suite if case.result]
    assert len(found) == failures
    for case in found:
        assert (case.classname, case.name) == ("fuzzserver", "verdict")
        assert (case.result[0].type, case.result[0].message) == ("below threshold", "3 % is less")
    for bad in (sample_report(), report_of(with_tests(TestReport("broken", "failed", "", 1)))):
        assert "fuzzserver" not in read(replace(bad, verdict=verdict)), "a failed test says enough"


@pytest.mark.parametrize("time", [None, -1e9, 1e11, 1e12, 1e17, 1e300])
def test_times_that_no_calendar_has(time: float | None) -> None:
    """What cannot be told as a date is left out, and no time is negative."""
    report = replace(sample_report(), started=time, seconds=time and -time)
    suite = read(report)["app"]
    assert suite.time >= 0
    assert suite.timestamp is None or re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.timestamp)


@given(ANY_TEXT)
def test_any_text(text: str) -> None:
    """Whatever names and messages hold, it is XML, and readers see what of it XML can hold."""
    finding = replace(
        PANIC.finding, message=text, test=text, target=text, stack=text, place=text, kind=text, argv=(text,)
    )
    target = replace(sample_target(), name=text, text=text, tests=(TestReport(text, "failed", text, 1),))
    for findings in ((), (FindingReport(finding, text.encode("utf-8", "surrogatepass")),)):
        root = ET.fromstring(junit_text(report_of(target, findings=findings)).encode())
        (case,) = root.iter("testcase")
        assert len(case) == 2
        if text.isprintable():
            assert case.get("name") == text
