"""The Markdown form, read by GitHub's own parser: what it tells, and that names in it are but text."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from cmarkgfm import github_flavored_markdown_to_html
from cmarkgfm.cmark import Options as CmarkOptions
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzserver.findings import Finding
from fuzzserver.report.formats import report_bytes
from fuzzserver.report.markdown import MAX_STACK, MAX_SUMMARY, markdown_text
from fuzzserver.report.model import FindingReport, Report, TestReport, Verdict
from fuzzserver.report.path_rules import PathRules
from tests.support_report import sample_findings, sample_report, sample_target

PANIC, HANG = sample_findings()

HOSTILE = (
    "![x](https://evil.example/x.png)",
    "<img src=x onerror=alert(1)>",
    "</details></summary><h1>x",
    "[x]: https://evil.example",
    "https://evil.example www.evil.example a@evil.example",
    "@someone fixes #1",
    "a|b\\|c| <b>",
    "|",
    "\\",
    "`",
    "``<b>``",
    " ` ",
    "a`\\`b",
    "\n\n# head\n\n* item\n\n---\n",
    "```\n<b>\n````",
    "~~~\n<b>",
    "<!--",
    "    code",
    "\r\rx\x1b[2J\x00\u202e",
    " ",
    "",
    "\udcff",
    "&lt;b&gt;",
    "$$x$$",
)


class Page(HTMLParser):
    """What a reader makes of a report."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.shape: list[str] = []
        """Tags with their attributes."""
        self.texts: dict[str, list[str]] = {}
        """Of the elements of each kind."""
        self.tables: list[list[list[str]]] = []
        """Texts of cells."""
        self._open: list[str] = []
        markdown = report_bytes("markdown", report).decode()
        self.feed(github_flavored_markdown_to_html(markdown, CmarkOptions.CMARK_OPT_UNSAFE))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        self.shape.append(f"<{tag} {attrs}>")
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        """An element ends: the one that began last."""
        self.shape.append(f"</{tag}>")
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Text in all elements that are open."""
        for tag in {*self._open}:
            self.texts[tag][-1] += data
        if {"th", "td"} & {*self._open}:
            self.tables[-1][-1][-1] += data

    def handle_comment(self, data: str) -> None:
        """There is none."""
        self.shape.append("comment")

    def handle_decl(self, decl: str) -> None:
        """There is none."""
        self.shape.append("declaration")


def tables(report: Report) -> list[list[list[str]]]:
    """The texts of the cells of each table."""
    return Page(report).tables


def hostile_report(text: str) -> Report:
    """A report with one text wherever it is somebody else's."""
    target = replace(
        sample_target("app", ((f"/{text}", 1, 1, text, 0),)),
        name=text,
        text=text,
        tests=(TestReport(text, "never started", text, 0),),
    )
    finding = Finding(text, text, text, text, text, 1.0, 2.0, stack=f"{text}x", place=text)
    return replace(
        sample_report(),
        targets=(target,),
        findings=(FindingReport(finding, b"x"),),
        verdict=Verdict(3, text, (text,)),
    )


def test_sample() -> None:
    """Numbers of all, then of each target; what was not run; what was not covered."""
    text = markdown_text(sample_report())
    assert text.startswith("## Fuzzing: `findings` (exit code 3)\n\n- `2 findings: 1 panic, 1 hang`\n\n")
    assert "2 findings; 1,800 runs in 20 s; 8 of 16 points and 7 of 11 lines covered" in text
    targets, not_run, files = tables(sample_report())
    assert targets == [
        ["target", "points", "covered", "", "lines", "covered", "runs", "runs per second"],
        ["app", "11", "6", "54.5 %", "7", "5", "1,000", "45"],
        ["lib", "5", "2", "40.0 %", "4", "2", "1,000", "45"],
    ]
    assert not_run[1:] == [
        ["app.test.idle", "app", "never started: the target has failed"],
        ["lib.test.idle", "lib", "never started: the target has failed"],
    ]
    assert files[1:] == [
        ["/project/src/shared.zig", "4", "7", "42.8 %"],
        ["/project/src/main.zig", "2", "5", "60.0 %"],
        ["/project/src/odd, <&>\"' ü \ufffd.zig", "1", "1", "0.0 %"],
    ]


def test_finding() -> None:
    """What broke, where, and the command are seen at once; input and stack behind a click."""
    texts = Page(replace(sample_report(), findings=(PANIC,))).texts
    assert texts["strong"] == ["panic: index 5 <out> of \"bounds\" & 'more', len ü\\x1b[0m]]>"]
    assert texts["li"][-3:] == [
        f"test: {PANIC.finding.test} of app",
        "place: /project/src/main.zig:4:21",
        "reproduce: fuzzserver repro a1b2c3d4e5f60718",
    ]
    assert texts["summary"] == ["Input of 7 bytes, found 3 times, first after 512 runs"]
    assert texts["pre"] == ['7 bytes: "\\x00\\xff\\"]]>a"\n', PANIC.finding.stack]
    (details,) = texts["details"]
    assert all(block in details for block in texts["pre"])
    assert not any(line in details for line in texts["li"])


def test_uncertain_finding() -> None:
    """What is not known is said."""
    text = markdown_text(replace(sample_report(), findings=(HANG,)))
    assert "- place: (none)" in text
    assert "Until 0.15, Zig does not store how long an input is" in text


def test_clean() -> None:
    """A session in which all was well has no empty parts."""
    target = replace(sample_target("app", ()), tests=(TestReport("good", "stopped", "", 3),))
    report = replace(sample_report(), targets=(target,), findings=(), verdict=Verdict(0, "clean"))
    assert markdown_text(report) == (
        "## Fuzzing: `clean` (exit code 0)\n\n"
        "0 findings; 900 runs in 20 s; 0 of 0 points and 0 of 0 lines covered\n\n"
        "### Targets\n\n"
        "| target | points | covered |  | lines | covered | runs | runs per second |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| `app` | 0 | 0 |  | 0 | 0 | 1,000 | 45 |\n"
    )


def test_without_a_session() -> None:
    """Where nobody has fuzzed, there is no verdict, and no speed."""
    report = replace(sample_report(), verdict=None, seconds=None, findings=())
    assert markdown_text(report).startswith("## Fuzzing: no verdict\n\n0 findings; 2,000 runs; 8 of")
    assert [row[-1] for row in tables(report)[0]] == ["runs per second", "", ""]


def test_a_target_that_was_not_built() -> None:
    """It is among what made no run, with the first line of what was said."""
    target = replace(sample_target(), tests=(), text="a.zig:1:1: error: no\nmore")
    _, not_run, _ = tables(replace(sample_report(), targets=(target,)))
    assert not_run[1:] == [["all", "app", "failed: a.zig:1:1: error: no"]]


def test_files_with_most_uncovered_points() -> None:
    """Ten files, those with most points left first, and the names that path rules make."""
    rows = [
        (f"/p/{number:02}.zig", line, 1, "f", int(line > number))
        for number in range(20)
        for line in range(1, 31)
    ]
    report = replace(sample_report(), targets=(sample_target("app", rows), sample_target("lib", rows[:30])))
    files = tables(PathRules(("/p",)).apply(report))[-1][1:]
    assert [row[0] for row in files] == [f"{number:02}.zig" for number in range(19, 9, -1)]
    assert files[0] == ["19.zig", "19", "30", "36.6 %"]


def test_percentages_are_not_rounded_up() -> None:
    """Only what is covered wholly is told as 100 %."""
    rows = [("/a.zig", line, 1, "f", int(line != 7)) for line in range(1, 3001)]
    report = replace(sample_report(), targets=(sample_target("app", rows),))
    assert tables(report)[0][1][3] == "99.9 %"


PLAIN = Page(hostile_report("plain")).shape


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts(text: str) -> None:
    """Nothing from outside makes a link, an image, an element, or another table than a plain name does."""
    page = Page(hostile_report(text))
    # Where there is nothing to be shown, there is no code.
    codes = [tag for tag in page.shape if tag not in ("<code []>", "</code>")]
    assert codes == [tag for tag in PLAIN if tag not in ("<code []>", "</code>")]
    if text.isprintable() and text.strip():
        assert page.shape == PLAIN
        assert page.tables[0][1][0] == text.replace("|", "\N{DIVIDES}")


@given(st.text(st.sampled_from("`|\\<>[]()!*_~#&@:/. \n\r\t-=+$a1\ud800\udcff\x00ü")))
@settings(max_examples=100)
def test_any_text(text: str) -> None:
    """However hostile a text is."""
    page = Page(hostile_report(f"x{text}"))
    assert page.shape == PLAIN


def test_size_is_limited() -> None:
    """A summary is never longer than GitHub shows, and says that something is left out."""
    many = [
        FindingReport(replace(PANIC.finding, id=f"{number:x}", stack="`" * 9000), b"\xff" * 4000)
        for number in range(100)
    ]
    data = report_bytes("markdown", replace(sample_report(), findings=tuple(many)))
    assert MAX_SUMMARY - 50_000 < len(data) <= MAX_SUMMARY + 200
    last = data.decode().splitlines()[-1]
    match = re.fullmatch(r"\*\*(\d+) more parts would make this summary too long to be shown\.\*\*", last)
    assert match
    assert int(match[1]) + data.count(b"<details>") == len(many)
    assert data.count(b"<details>") == data.count(b"</details>")


def test_a_long_stack_hides_no_other_finding() -> None:
    """Of a stack of megabytes the beginning is shown, and how long it is; what comes after it is there."""
    long = FindingReport(replace(PANIC.finding, stack="\n" + "x" * 2_000_000), b"")
    text = markdown_text(replace(sample_report(), findings=(long, HANG)))
    assert f"\n```text\n{'x' * MAX_STACK}\n```\n\nThe stack goes on: it has 2,000,000 characters." in text
    assert HANG.finding.message in text
    assert len(text) < 2 * MAX_STACK
    fitting = FindingReport(replace(PANIC.finding, stack="x" * MAX_STACK + "\n"), b"")
    assert "goes on" not in markdown_text(replace(sample_report(), findings=(fitting,)))


def test_reasons_are_limited() -> None:
    """Of thousands of reasons the first are shown, and all else of the report."""
    verdict = Verdict(7, "regression", tuple(f"{number} {'x' * 500}" for number in range(9000)))
    text = markdown_text(replace(sample_report(), verdict=verdict))
    assert "\n- `99 xxx" in text and "\n- and 8,900 more\n\n" in text and "`100 xxx" not in text
    assert "### Findings" in text


def test_tables_are_limited() -> None:
    """Of thousands of targets and tests, the first are shown, and how many there are besides."""
    targets = [
        replace(
            sample_target(f"{number} {'x' * 5000}", ()), tests=(TestReport("idle", "never started", "", 0),)
        )
        for number in range(3000)
    ]
    report = replace(sample_report(), targets=tuple(targets), findings=())
    text = markdown_text(report)
    assert len(text) < 100_000
    assert [len(table) for table in tables(report)] == [101, 101]
    assert text.count("\n\nand 2,900 more\n") == 2
