"""JUnit XML: a suite for each target, a case for each fuzz test.

Readers of this form, GitLab, Jenkins and Azure among them, show one failure of a case and drop the others,
and of two cases with one name they show one. So all findings of a test are in one ``failure``, one after the
other.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from fuzzserver.report.model import FindingReport, Report, TargetReport, TestReport
from fuzzserver.report.words import clean, count, finding_lines, first_line, iso_time, made_no_run, title

__all__ = ["junit_text"]

Findings = dict[str, dict[str, list[FindingReport]]]
"""By target, then by test."""


def junit_text(report: Report) -> str:
    """The report as JUnit XML."""
    findings: Findings = {}
    for each in report.findings:
        tests = findings.setdefault(each.finding.target, {})
        tests.setdefault(each.finding.test, []).append(each)
    root = ET.Element("testsuites", name="fuzzserver")
    for target in report.targets:
        # Of two targets with one name, the first has the findings.
        _add_suite(root, report, target.name, _cases(target, findings.pop(target.name, {})), target)
    for name, of_tests in findings.items():
        _add_suite(root, report, name, [_failed(name, test, found) for test, found in of_tests.items()])
    verdict = _verdict_case(report)
    if verdict is not None and root.find("*/*/failure") is None and root.find("*/*/error") is None:
        _add_suite(root, report, "fuzzserver", [verdict])
    _set_counts(root, report)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _add_suite(
    root: ET.Element, report: Report, name: str, cases: list[ET.Element], target: TargetReport | None = None
) -> None:
    """A suite with its cases, and of a target its numbers."""
    suite = ET.SubElement(root, "testsuite", name=clean(name))
    if (started := iso_time(report.started)) is not None:
        suite.set("timestamp", started.removesuffix("Z"))
    if target is not None:
        numbers = {
            "points": len(target.points),
            "covered": target.points.covered_len,
            "runs": target.runs,
            "unique_runs": target.unique_runs,
        }
        properties = ET.SubElement(suite, "properties")
        for key, number in numbers.items():
            ET.SubElement(properties, "property", name=key, value=str(number))
    for case in cases:
        case.set("time", _seconds(report))
        suite.append(case)
    _set_counts(suite, report)
    suite.set("skipped", _count(suite, "skipped"))


def _set_counts(suite: ET.Element, report: Report) -> None:
    """How many cases are in it, and how many of them failed."""
    for name, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
        suite.set(name, _count(suite, tag))
    suite.set("time", _seconds(report))


def _count(suite: ET.Element, tag: str) -> str:
    return str(sum(1 for _ in suite.iter(tag)))


def _seconds(report: Report) -> str:
    return f"{max(0.0, report.seconds or 0.0):.3f}"


def _cases(target: TargetReport, findings: dict[str, list[FindingReport]]) -> list[ET.Element]:
    """The tests of a target, then those of which only findings are known; without any, why there are none."""
    cases = []
    for test in target.tests:
        found = findings.pop(test.name, [])
        case = _failed(target.name, test.name, found) if found else _case(target.name, test)
        cases.append(case)
        if test.runs is not None:
            told = f"{count(test.runs, 'run')}, started again {count(test.restarts, 'time')}"
            ET.SubElement(case, "system-out").text = told
    cases += [_failed(target.name, test, found) for test, found in findings.items()]
    if not cases and target.state == "failed":
        cases.append(_element(target.name, "(build)", "error", target.state, target.text))
    elif not cases and target.state == "never started":
        cases.append(_element(target.name, "(fuzz tests)", "skipped", "", target.text))
    return cases


def _case(target: str, test: TestReport) -> ET.Element:
    """A test in which nothing was found."""
    if test.state == "failed":
        return _element(target, test.name, "error", test.state, test.text)
    if made_no_run(test):
        return _element(target, test.name, "skipped", "", test.text or f"made no run ({test.state})")
    return ET.Element("testcase", classname=clean(target), name=clean(test.name))


def _failed(target: str, test: str, findings: list[FindingReport]) -> ET.Element:
    """A test with findings."""
    titles = [title(each) for each in findings]
    kinds = dict.fromkeys(each.finding.kind for each in findings)
    message = titles[0] if len(titles) == 1 else f"{count(len(titles), 'finding')}: {'; '.join(titles)}"
    text = "\n\n".join("\n".join(finding_lines(each)) for each in findings)
    return _element(target, test, "failure", ", ".join(kinds), message, text)


def _verdict_case(report: Report) -> ET.Element | None:
    """What the verdict says; None if there is nothing wrong."""
    verdict = report.verdict
    if verdict is None or verdict.exit_code == 0:
        return None
    return _element("fuzzserver", "verdict", "failure", verdict.name, "\n".join(verdict.reasons))


def _element(
    target: str, test: str, result: str, kind: str, message: str, text: str | None = None
) -> ET.Element:
    """A case that did not pass."""
    case = ET.Element("testcase", classname=clean(target), name=clean(test))
    element = ET.SubElement(case, result, message=first_line(message or kind))
    if kind:
        element.set("type", clean(kind))
    if text is not None or "\n" in message:
        element.text = clean(message if text is None else text)
    return case
