"""Every empty and every broken state of the page, in a real browser; and coming back from them."""

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fuzzserver import WebServer
from fuzzserver.coverage.coverage_map import CoverageMap, prepare_tables
from fuzzserver.errors import FuzzServerError
from fuzzserver.status import Progress, TestStatus
from fuzzserver.zig.installation import Zig
from tests import support_puppet
from tests.projects import FuzzedPair
from tests.support_browser import PATIENCE, Page
from tests.support_maps import show_pair
from tests.support_ports import quiet_port
from tests.support_puppet import Puppet, finding, findings_of
from tests.support_time import eventually

puppet = support_puppet.puppet


@pytest.fixture
def revivable(zig: Zig, zig_cache: Path) -> Iterator[Callable[[], WebServer]]:
    """Starts a server; when it was stopped, another one on the same port."""
    servers: list[WebServer] = []

    def start() -> WebServer:
        port = servers[0].port if servers else quiet_port()
        server = WebServer(zig=zig, cache_dir=zig_cache, listen_address=("127.0.0.1", port))
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


def test_without_coverage_the_page_says_what_it_waits_for(page: Page, web_server: WebServer) -> None:
    """The server's own words, if it has any."""
    web_server.set_status("waiting", "")
    page.visit(web_server.url)
    for state, text, said in (
        ("waiting", "", "waiting for the fuzzer to start"),
        ("waiting", "Waiting for a fuzzer to report.", "Waiting for a fuzzer to report."),
        ("building", "", "building the tests"),
        ("fuzzing", "", "has not reported its coverage yet"),
        ("serving", "", "no coverage to show"),
        ("stopped", "", "has stopped"),
    ):
        web_server.set_status(state, text)
        page.until_text("#notice", "No coverage yet", said)
        assert not page.is_shown("#overview")
        assert not page.is_shown("#viewCoverage")


def test_a_build_tells_how_far_it_is(page: Page, web_server: WebServer) -> None:
    """What is compiled, how many of how many, and since when; then the page goes on."""
    web_server.set_status("building", "Compiling 3 targets ...")
    web_server.set_progress(Progress("Compiling src/a.zig"))
    page.visit(web_server.url)
    page.until_text("#notice", "Building the tests", "Compiling src/a.zig")
    assert page.attribute("#noticeProgress progress", "value") is None
    web_server.set_progress(Progress("Compiling src/b.zig", 1, 4))
    page.until_text("#noticeProgress", "Compiling src/b.zig", "25.0 %")
    page.until(lambda: re.search(r"[1-9]\d* s", page.text("#noticeProgress")))
    assert page.script("return document.querySelector('#noticeProgress progress').position") == 0.25
    web_server.set_progress(None)
    web_server.set_status("fuzzing", "")
    page.until_text("#notice", "No coverage yet")


TITLES = """
window.titles = new Set();
new MutationObserver(() => {
  const notice = document.getElementById("notice");
  if (notice !== null && !notice.hidden) titles.add(document.getElementById("noticeTitle").textContent);
}).observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
"""
"""Keeps the title of each notice that could be seen, if only for a moment."""


def test_tables_on_their_way_are_all_that_is_told(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is opened meanwhile tells how far they are, and shows the coverage by itself."""
    steps: queue.Queue[int | None] = queue.Queue()

    def prepare_slowly(*args: Any) -> CoverageMap:
        *_, progress = args
        for done in iter(steps.get, None):
            progress(done, 1000)
        return prepare_tables(*args)

    monkeypatch.setattr("fuzzserver.coverage.queue.prepare_tables", prepare_slowly)
    command = "Page.addScriptToEvaluateOnNewDocument"
    made = page.driver.execute_cdp_cmd(command, {"source": TITLES})
    try:
        show_pair(web_server, debug_pair.step, debug_pair)
        eventually(lambda: web_server.loading is not None, "no tables are on their way")
        page.open(web_server.url)
        what = f"Reading the debug info of {debug_pair.step.name}"
        page.until_text("#noticeProgress", what, timeout=PATIENCE)
        assert page.attribute("#noticeProgress progress", "value") is None
        for done, part in (250, "25.0 %"), (750, "75.0 %"):
            steps.put(done)
            page.until_text("#noticeProgress", what, part)
        assert not page.is_shown("#overview, #viewCoverage")
        steps.put(None)
        page.until_text("#fileScroll", "parser.zig")
        page.until_hidden("#notice")
        allowed = {"Under way", "Preparing the page", "Connecting to the server"}
        assert set(page.script("return [...titles]")) <= allowed
    finally:
        steps.put(None)
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", made)


def test_progress_while_there_is_coverage_is_a_line(
    page: Page, web_server: WebServer, puppet: Puppet
) -> None:
    """A rebuild hides nothing."""
    page.visit(web_server.url)
    web_server.set_progress(Progress("Reading the debug info of src/b.zig", 1, 2))
    page.until_text("#noticeLines", "Reading the debug info of src/b.zig", "50.0 %")
    assert page.is_shown("#overview")
    assert not page.is_shown("#notice")
    web_server.set_progress(None)
    page.until_hidden("#noticeLines")
    assert puppet.n_runs == 0


def test_a_failure_is_told_as_the_compiler_told_it(page: Page, web_server: WebServer, tmp_path: Path) -> None:
    """Line by line; when it is mended, coverage is shown."""
    web_server.set_status("failed", "x.zig:1:1: error: no\n  here\n  ^")
    page.visit(web_server.url)
    page.until_text("#noticeLog", "x.zig:1:1: error: no\n  here\n  ^")
    page.until_text("#noticeTitle", "failed")
    web_server.set_status("fuzzing", "")
    Puppet(tmp_path).show(web_server)
    page.until_text("#fileScroll", "parser.zig")
    page.until_hidden("#notice")


def test_a_failure_leaves_the_coverage_in_sight(page: Page, web_server: WebServer, puppet: Puppet) -> None:
    """What was covered is still true."""
    puppet.cover(0)
    web_server.set_status("failed", "All tests have crashed too often.")
    page.visit(web_server.url)
    page.until_text("#notice", "All tests have crashed too often.")
    page.until_text("#statTotalRuns", "1,000")


@pytest.mark.parametrize(
    ("version", "flag"),
    [("0.14.1", "-ffuzz"), ("0.15.1", "-fllvm"), (None, "-fllvm"), ("0.16.0-dev.1", "-fllvm")],
)
def test_without_instrumentation_the_flag_that_mends_it_is_told(
    page: Page, web_server: WebServer, tmp_path: Path, version: str | None, flag: str
) -> None:
    """Which it is depends on the compiler."""
    Puppet(tmp_path, {"a.zig": "fn f() void {}\n"}, zig_version=version).show(web_server)
    page.visit(web_server.url)
    page.until_text("#notice", "no instrumentation", "blind", flag)
    assert (version or "") in page.text("#notice")
    assert not page.is_shown("#viewCoverage")


def test_without_debug_info_numbers_are_shown(page: Page, web_server: WebServer, tmp_path: Path) -> None:
    """And why there is no source."""
    oddity = "'/x/test' has no debug info (stripped): counters are shown, source is not"
    made = Puppet(tmp_path, has_debug_info=False, oddities=(oddity,)).show(web_server, 0)
    made.cover(1, 2)
    page.visit(web_server.url)
    page.until_text("#notice", "no debug info")
    page.until_text("#statPoints", "2 / 19 points")
    page.until_text("#noticeOddities summary", "1 oddity")
    page.click("#noticeOddities summary")
    page.until_text("#noticeOddities li", oddity)
    page.until_text("#filesNote", "No file has coverage points")
    page.until_text("#entryPointsList", "location 0, in no file")


def test_a_replaced_executable_is_told(page: Page, web_server: WebServer, puppet: Puppet) -> None:
    """What is shown is the old one."""
    page.visit(web_server.url)
    page.until_text("#statCoverage", "0.0 %")
    puppet.executable.write_bytes(b"\x7fELF, but another")
    web_server.notify()
    page.until_text("#noticeLines", "newer than what is shown", str(puppet.executable))


def test_a_test_that_gets_nowhere_is_told(page: Page, web_server: WebServer, puppet: Puppet) -> None:
    """Where to look next, with the reason."""
    tests = (
        TestStatus("main.test.a", "never started", "cannot run\nmore"),
        TestStatus("main.test.b", "fuzzing"),
    )
    web_server.set_target(puppet.target(tests=tests))
    page.visit(web_server.url)
    page.until_text("#nextTests", "main.test.a", "never started", "cannot run")
    assert "main.test.b" not in page.text("#nextTests")


def test_a_compiler_that_fails_can_be_tried_again(
    page: Page, web_server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page says what the server said, and starts when it works."""
    page.expect("500")
    with monkeypatch.context() as patch:

        def fails(*args: object) -> Path:
            raise FuzzServerError("zig has gone\nfor a walk")

        patch.setattr("fuzzserver.zig.page_compiler.build_wasm_binary", fails)
        Puppet(tmp_path).show(web_server)
        page.open(web_server.url)
        page.until_text("#noticeLog", "zig has gone\nfor a walk")
        page.until_text("#noticeText", "500")
    page.click("#noticeRetry")
    page.until_text("#fileScroll", "parser.zig", timeout=PATIENCE)
    page.until_hidden("#notice")


def test_a_lost_server_is_told_and_all_stays(
    page: Page, revivable: Callable[[], WebServer], tmp_path: Path
) -> None:
    """The open source, the filter, the numbers; and another server on the same port goes on from there."""
    page.expect_lost_server()
    server = revivable()
    made = Puppet(tmp_path)
    made.cover(0, runs=42)
    made.show(server)
    page.visit(server.url)
    page.fill("#fileFilter", "src/parser")
    page.until(lambda: page.texts("#fileScroll a") == ["parser.zig"])
    page.click("#fileScroll a")
    page.until(lambda: len(page.texts(".mark")) == 10)
    page.until_text("#statTotalRuns", "42")
    hours = [time.strftime("%H:")]
    server.stop()
    page.until_text("#connection", "reconnecting")
    hours.append(time.strftime("%H:"))
    page.until_text("#noticeLines", "The connection is lost")
    page.until(lambda: any(hour in page.text("#noticeLines") for hour in hours))
    assert page.text("#statTotalRuns") == "42"
    assert len(page.texts(".mark")) == 10
    assert not page.is_shown("#serverState")
    made.cover(*made.find("src/parser.zig"), runs=58)
    server = revivable()
    made.show(server)
    page.until(lambda: page.text("#connection") == "connected")
    page.until_text("#statTotalRuns", "100")
    page.until(lambda: len(page.texts(".mark.covered")) == 10)
    assert page.script("return document.querySelector('#fileFilter').value") == "src/parser"
    assert page.text("#sourceTitle") == "parser.zig"
    page.until_hidden("#noticeLines")
    # It is alive, and not only looks so.
    made.run(11)
    page.until_text("#statTotalRuns", "111")


def test_a_lost_server_is_found_again_by_a_page_without_anything(
    page: Page, revivable: Callable[[], WebServer], tmp_path: Path
) -> None:
    """Findings and states of the server before are not mixed with those of the next."""
    page.expect_lost_server()
    server = revivable()
    findings_of(server, tmp_path / "one").add(finding(1), b"")
    server.set_status("failed", "no such file")
    page.visit(server.url)
    page.until_text("#viewsFindings", "1")
    server.stop()
    page.until_text("#connection", "reconnecting")
    page.until_text("#noticeTitle", "The connection is lost")
    server = revivable()
    server.set_status("fuzzing", "")
    page.until(lambda: page.text("#connection") == "connected")
    page.until_text("#serverState", "fuzzing")
    page.until(lambda: page.text("#viewsFindings") == "")
    assert "no such file" not in page.find("body").text


def test_a_source_that_could_not_be_loaded_comes_when_the_server_is_back(
    page: Page, revivable: Callable[[], WebServer], tmp_path: Path
) -> None:
    """A file that is opened while nobody answers says so until then."""
    page.expect_lost_server()
    server = revivable()
    made = Puppet(tmp_path).show(server)
    page.visit(server.url)
    page.until_text("#fileScroll", "parser.zig")
    server.stop()
    page.until_text("#connection", "reconnecting")
    page.go("#f1")
    page.until_text("#sourceNote", "could not be loaded")
    page.until(lambda: len(page.texts(".pointRow")) == 10)
    made.show(revivable())
    page.until(lambda: len(page.texts(".sourceRow .mark")) == 10)
    page.until_hidden("#sourceNote")


def test_messages_that_nobody_understands_are_ignored(
    page: Page, web_server: WebServer, puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Malformed bytes, unknown tags, and texts that are no JSON stop nothing."""
    page.expect("ignored")
    nonsense = [
        b"",
        b"\x01",
        b"\x02" * 9,
        b"\x10\0\0\0",
        b"\x11\1\0\0\xff\xff\xff\xff",
        b"\x7f?",
        b"\x12" * 40,
    ]
    monkeypatch.setattr(
        "fuzzserver.web.session.coverage_delta_message", lambda *args: nonsense.pop() if nonsense else None
    )
    page.visit(web_server.url)
    page.until_text("#statCoverage", "0.0 %")
    while nonsense:
        left = len(nonsense)
        puppet.run(1)
        page.until(lambda left=left: len(nonsense) < left)
    puppet.cover_all()
    page.until_text("#statCoverage", "100.0 %")
    page.go("#f1")
    page.until(lambda: len(page.texts(".mark.covered")) == 10)


def test_a_slow_source_says_that_it_is_on_its_way(
    page: Page, web_server: WebServer, puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whoever goes elsewhere meanwhile gets what they went to."""
    go_on = threading.Event()
    original = os.fdopen

    def slowly(*args, **more):
        go_on.wait(60)
        return original(*args, **more)

    page.visit(web_server.url)
    page.until_text("#fileScroll", "parser.zig")
    monkeypatch.setattr("fuzzserver.web.map_data.os.fdopen", slowly)
    page.go("#f1")
    page.until_text("#source", "Loading the source")
    page.go("#f0")
    go_on.set()
    page.until_text("#sourceTitle", "main.zig")
    page.until(lambda: len(page.texts(".mark")) == 2)
    assert puppet.n_runs == 0


@pytest.mark.usefixtures("puppet")
def test_a_browser_that_keeps_nothing_shows_everything(page: Page, web_server: WebServer) -> None:
    """Where storage is refused, choices last as long as the page."""
    page.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument",
        {
            "source": "Object.defineProperty(window, 'localStorage', "
            "{get() { throw new DOMException('refused', 'SecurityError'); }});"
        },
    )
    page.visit(web_server.url)
    page.until_text("#fileScroll", "parser.zig")
    page.click("#filesAsTree")
    page.click("#theme")
    assert page.text("#theme") == "Light"
