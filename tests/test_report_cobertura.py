"""The Cobertura form: as its definition and its readers want it, with the numbers of the report."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given

from fuzzserver.report.cobertura import cobertura_text
from fuzzserver.report.formats import report_bytes
from fuzzserver.report.path_rules import PathRules
from fuzzserver.report.words import clean
from tests.support_any_report import TARGETS, lines_of, report_of
from tests.support_report import GENERIC, MAIN, ODD, ODD_FUNCTION, sample_report

RATES = {"line-rate", "branch-rate", "complexity"}

DEFINITION = {
    "coverage": (
        RATES
        | {"lines-covered", "lines-valid", "branches-covered", "branches-valid", "version", "timestamp"},
        ["sources", "packages"],
    ),
    "sources": (set(), ["source*"]),
    "source": (set(), []),
    "packages": (set(), ["package*"]),
    "package": (RATES | {"name"}, ["classes"]),
    "classes": (set(), ["class*"]),
    "class": (RATES | {"name", "filename"}, ["methods", "lines"]),
    "methods": (set(), ["method*"]),
    "method": (RATES | {"name", "signature"}, ["lines"]),
    "lines": (set(), ["line*"]),
    "line": ({"number", "hits"}, []),
}
"""What each element must have, and what is in it, as in ``coverage-04.dtd``."""

LINE_MAY_HAVE = {"branch", "condition-coverage"}


def check(element: ET.Element) -> None:
    """An element and all in it are as the definition wants them."""
    must, within = DEFINITION[element.tag]
    assert must <= set(element.attrib) <= must | (LINE_MAY_HAVE if element.tag == "line" else set())
    names = [each.tag for each in element]
    if within and within[0].endswith("*"):
        assert set(names) <= {within[0].removesuffix("*")}
    else:
        assert names == within
    for each in element:
        check(each)


def test_it_is_as_defined():
    """Whole numbers and rates, and names as they are, as far as XML can hold them."""
    root = ET.fromstring(report_bytes("cobertura", sample_report()))
    check(root)
    assert root.attrib == {
        "line-rate": "0.777778",
        "branch-rate": "0.500000",
        "complexity": "0",
        "lines-valid": "9",
        "lines-covered": "7",
        "branches-valid": "6",
        "branches-covered": "3",
        "version": "fuzzserver 0.0",
        "timestamp": "1700000020000",
    }
    assert [each.get("name") for each in root.iter("package")] == ["/project/src", "/zig/lib/std"]
    main, odd = list(root.iter("class"))[:2]
    assert (main.get("name"), main.get("filename")) == ("main.zig", MAIN)
    assert [each.attrib for each in main.findall("lines/line")] == [
        {"number": "3", "hits": "1"},
        {"number": "4", "hits": "1", "branch": "true", "condition-coverage": "50% (1/2)"},
        {"number": "7", "hits": "1", "branch": "true", "condition-coverage": "50% (1/2)"},
    ]
    assert [each.get("name") for each in main.iter("method")] == ["main.parse", GENERIC]
    assert odd.get("filename") == clean(ODD) == ODD.replace("\udcff", "\ufffd")
    assert [each.get("name") for each in odd.iter("method")] == [clean(ODD_FUNCTION)]


def test_a_report_of_nothing_has_all_elements():
    """A reader that asks for rates gets some."""
    root = ET.fromstring(cobertura_text(replace(sample_report(), targets=())))
    check(root)
    assert (root.get("line-rate"), root.get("lines-valid")) == ("1", "0")


@pytest.mark.parametrize("prefixes", [(), ("{root}",)], ids=["whole names", "relative names"])
def test_diff_cover_finds_the_changed_lines(tmp_path, prefixes):
    """Of three changed lines, it knows one that was covered, one that was not, and one without points."""
    source = tmp_path / "src" / "main.zig"
    source.parent.mkdir()
    source.write_text("".join(f"line {number}\n" for number in range(1, 21)))
    git = ["git", "-c", "user.name=somebody", "-c", "user.email=somebody@example.com"]
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=first"]):
        subprocess.run([*git, *command], cwd=tmp_path, env=environ, check=True)
    for number in (3, 5, 9):
        source.write_text(source.read_text().replace(f"line {number}\n", f"changed {number}\n"))
    rows = [(str(source), line, 1, "main.parse", line < 5) for line in range(2, 7)]
    rules = PathRules(tuple(prefix.format(root=tmp_path) for prefix in prefixes))
    (tmp_path / "report.xml").write_bytes(report_bytes("cobertura", rules.apply(report_of([rows]))))
    subprocess.run(
        [
            *(sys.executable, "-m", "diff_cover.diff_cover_tool", "report.xml"),
            *("--compare-branch=HEAD", "--format=json:difference.json", "--quiet"),
        ],
        cwd=tmp_path,
        env=environ,
        check=True,
    )
    found = json.loads((tmp_path / "difference.json").read_text())
    assert found["src_stats"]["src/main.zig"]["violation_lines"] == [5]
    assert (found["total_num_lines"], found["total_num_violations"]) == (2, 1)


@given(TARGETS)
def test_what_is_read_back_is_what_was_written(targets):
    """A reader finds all lines and branches, and sums that fit, whatever functions are called."""
    root = ET.fromstring(cobertura_text(report_of(targets)))
    check(root)
    lines = {
        (file.get("filename"), int(line.get("number"))): line.get("hits") == "1"
        for file in root.iter("class")
        for line in file.findall("lines/line")
    }
    assert lines == lines_of(targets)
    assert (int(root.get("lines-valid")), int(root.get("lines-covered"))) == (len(lines), sum(lines.values()))
    conditions = [
        line.get("condition-coverage").partition("(")[2].rstrip(")").split("/")
        for line in root.iter("line")
        if line.get("branch") == "true"
    ]
    assert int(root.get("branches-covered")) == sum(int(covered) for covered, _ in conditions)
    assert int(root.get("branches-valid")) == sum(int(points) for _, points in conditions)
