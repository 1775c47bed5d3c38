"""The page without its wasm, where no compiler makes it: all coverage is there, as plain text."""

from pathlib import Path

import pytest

from fuzzserver import WebServer
from fuzzserver.errors import FuzzServerError
from fuzzserver.zig import page_compiler
from fuzzserver.zig.wasm import build_wasm_binary
from tests.support_browser import PATIENCE, Page
from tests.support_puppet import Puppet, finding, findings_of
from tests.test_page_source import line_states, line_text


@pytest.fixture
def plain(page: Page, web_server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Puppet:
    """The page of a server whose compilers all refuse it, with parser.zig open."""
    page.expect("500")

    def fails(*_: object, **__: object) -> Path:
        raise FuzzServerError("zig has gone\nfor a walk")

    monkeypatch.setattr(page_compiler, "build_wasm_binary", fails)
    puppet = Puppet(tmp_path)
    puppet.cover(puppet.find("src/parser.zig")[0])
    # Not before: the wasm is made as soon as there is something to show.
    puppet.show(web_server)
    page.open(f"{web_server.url}#coverage")
    page.until_text("#plainFiles", "src/parser.zig", timeout=PATIENCE)
    page.click_text("#plainFiles a", str(puppet.path("src/parser.zig")))
    page.until(lambda: line_states(page))
    return puppet


def test_files_and_sources_are_there(page: Page, plain: Puppet) -> None:
    """Each file with what is covered of it, and a source with the state of its lines; both are live."""
    page.until_text("#noticeText", "coverage is shown plainly")
    page.until_text("#noticeLog", "zig has gone\nfor a walk")
    assert page.texts("#plainFiles a") == sorted({str(plain.path(point.path)) for point in plain.points})
    page.until_text("#plainFiles", "1 / 10 points (10.0 %)")
    text = plain.path("src/parser.zig").read_text().split("\n")
    assert [line_text(page, number) for number in range(1, len(text) + 1)] == text
    states = line_states(page)
    assert states[4] == "covered"
    assert {states[line] for line in (5, 6, 8, 12, 13)} == {"not covered"}
    plain.cover(plain.find("src/parser.zig", 5)[0])
    page.until(lambda: line_states(page)[5] == "partly covered")
    page.until_text("#plainFiles", "2 / 10 points (20.0 %)")
    assert page.axe() == []


def test_lines_and_findings_have_addresses(
    page: Page, plain: Puppet, web_server: WebServer, tmp_path: Path
) -> None:
    """A line's number leads to it, the other views are as ever, and a missing source says so."""
    page.expect("404")
    page.click_text(".lineNumber", "12")
    page.until_text(".sourceRow.current", "byte >= '0'")
    findings_of(web_server, tmp_path).add(finding(1), b"x")
    page.go("#findings")
    page.until_text("#findingRows", "number 1")
    page.until_hidden("#plain")
    plain.path("src/main.zig").unlink()
    page.go("#f0")
    page.until_text("#plainSource", "could not be loaded")


def test_a_compiler_that_works_again_brings_the_page_back(
    page: Page, plain: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that has happened meanwhile, and at the same place."""
    plain.cover(plain.find("src/parser.zig", 5)[0])
    monkeypatch.setattr(page_compiler, "build_wasm_binary", build_wasm_binary)
    page.click("#noticeRetry")
    page.until_text("#sourceCoverage", "2 / 10 points covered", timeout=PATIENCE)
    page.until_hidden("#plain")
    page.until(lambda: "fn" in page.texts(".tok-kw"))
