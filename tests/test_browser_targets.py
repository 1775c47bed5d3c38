"""The head of the page, in a real browser: targets with builds and tests, states, pause, title, themes."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from fuzzserver import WebServer
from fuzzserver.status import TestStatus
from fuzzserver.wire.abi import ToClientTag
from tests import support_heard, support_puppet
from tests.support_browser import Page
from tests.support_heard import tags
from tests.support_puppet import Puppet, finding, findings_of

puppet, recorded = support_puppet.puppet, support_heard.recorded

COMPILE_ERROR = "src/main.zig:3:5: error: no such thing\n    thing();\n    ^~~~~"
UNKNOWN_ID = "0123456789abcdef"


@pytest.fixture
def other(web_server: WebServer, puppet: Puppet, tmp_path: Path) -> Puppet:
    """A second map, which is not the one that is shown by default."""
    return Puppet(
        tmp_path, {"src/other.zig": "fn f() void {\n    §return;\n}\n"}, name="other", coverage_id=2
    ).show(web_server)


def choose(page: Page, name: str) -> None:
    """Choose a target from the list."""
    page.click("#targetButton")
    page.until_shown("#targetList")
    page.click_text("#targetList a.name", name)


def test_targets_tell_their_states_and_those_of_their_tests(
    page: Page, web_server: WebServer, puppet: Puppet
) -> None:
    """Each test tells what it does, why, and how far it is; live, and in the same row."""
    tests = (
        TestStatus("main.test.sum", "fuzzing", n_runs=1_234_567),
        TestStatus("main.test.depth", "waiting"),
    )
    web_server.set_target(puppet.target(tests=tests))
    page.visit(web_server.url)
    page.until_text("#targetName", "src/main.zig")
    assert page.text("#targetState") == "fuzzing"
    page.click("#targetButton")
    page.until_text("#targetList", "main.test.sum", "fuzzing", "1.23 M runs", "main.test.depth", "waiting")
    assert page.texts("#targetList td[title]")[0] == "1.23 M runs"
    assert page.attribute("#targetList td[title]", "title") == "1,234,567 runs"
    assert "restart" not in page.text("#targetList")
    row = page.find("#targetList tr")
    tests = (TestStatus("main.test.sum", "failed", "no\nidea", 5_678, 1, 2), tests[1])
    web_server.set_target(puppet.target(tests=tests))
    page.until_text("#targetList", "failed", "no\nidea", "5,678 runs", "1 restart", "2 findings")
    assert row.is_displayed()  # Still the same row, under whatever pointer or focus.
    page.press(Keys.ESCAPE)
    page.until_hidden("#targetList")


def test_choosing_a_target_shows_its_coverage_without_loading_the_page(
    page: Page, web_server: WebServer, puppet: Puppet, other: Puppet
) -> None:
    """Targets are links: the keyboard, the history and reloading work."""
    web_server.set_target(puppet.target(tests=(TestStatus("big", "fuzzing"),)))
    web_server.set_target(other.target("stopped", tests=(TestStatus("small", "stopped"),)))
    web_server.set_target(replace(other.target("building"), key="new", name="new", id=None))
    page.visit(web_server.url)
    page.until_text("#fileScroll", "parser.zig")
    page.script("window.isSamePage = true")
    page.click("#targetButton")
    page.until(lambda: page.texts("#targetList a.name") == ["src/main.zig", "other", "new"])
    assert page.text("#targetList [aria-current=true]") == "src/main.zig"
    assert page.texts("#targetList a.name:not([href])") == ["new"]
    page.until(lambda: page.script("return document.activeElement.textContent") == "src/main.zig")
    page.press(Keys.ARROW_DOWN, Keys.ENTER)
    page.until_text("#fileScroll", "other.zig")
    assert "parser.zig" not in page.text("#fileScroll")
    page.until_text("#targetName", "other")
    assert page.driver.current_url.endswith(f"/?target={other.id}")
    assert not page.is_shown("#targetList")
    assert page.script("return window.isSamePage")
    page.driver.back()
    page.until_text("#fileScroll", "parser.zig")
    assert page.script("return window.isSamePage")
    page.driver.forward()
    page.until_text("#fileScroll", "other.zig")
    page.driver.refresh()
    page.until_text("#fileScroll", "other.zig")
    assert not page.script("return window.isSamePage")


def test_counters_of_another_target_are_not_mixed_up(
    page: Page, web_server: WebServer, puppet: Puppet, other: Puppet
) -> None:
    """What moves after a change is the coverage of the target that is shown."""
    web_server.set_target(puppet.target())
    web_server.set_target(other.target())
    puppet.cover(0, runs=500)
    page.visit(web_server.url)
    page.until_text("#statPoints", f"1 / {len(puppet.points)}")
    choose(page, "other")
    page.until_text("#statPoints", "0 / 1 point")
    puppet.cover(1, 2, runs=123)
    other.cover(0, runs=42)
    page.until_text("#statPoints", "1 / 1 point")
    page.until(lambda: page.text("#statTotalRuns") == "42")
    page.until_text("#statCoverage", "100.0 %")


def test_an_earlier_build_says_so_and_leads_to_the_current_one(
    page: Page, web_server: WebServer, puppet: Puppet, other: Puppet
) -> None:
    """The coverage of an earlier build can be looked at, and is not taken for the current one."""
    web_server.set_target(puppet.target(earlier=(other.id,)))
    page.visit(web_server.url)
    page.click("#targetButton")
    page.until(lambda: page.texts("#targetList .builds a") == ["build 1", "build 2"])
    page.click("#targetList .builds a")
    page.until_text("#fileScroll", "other.zig")
    page.until_text("#noticeLines", "earlier build, number 1 of 2")
    page.click("#noticeLines a")
    page.until_text("#fileScroll", "parser.zig")
    page.until_hidden("#noticeLines")


@pytest.mark.parametrize("wanted", [UNKNOWN_ID, "%3Cimg%20src=x%3E"])
@pytest.mark.usefixtures("puppet")
def test_an_unknown_target_is_said_to_be_unknown(page: Page, web_server: WebServer, wanted: str) -> None:
    """An old bookmark leads to a notice, and from there to what there is."""
    page.visit(f"{web_server.url}debug/?target={wanted}#findings")
    page.until_text("#notice", "does not know this target", wanted[:4].replace("%3C", "<"))
    page.click("#noticeLink")
    page.until_hidden("#notice")
    page.until_text("#statPoints", "0 / 19 points")
    assert page.driver.current_url.split("#")[0] == f"{web_server.url}debug/"


def test_compile_errors_of_a_target_leave_the_coverage_in_sight(
    page: Page, web_server: WebServer, puppet: Puppet
) -> None:
    """A rebuild that fails tells why; so does a target that was never built; the rest goes on."""
    web_server.set_target(puppet.target("failed", text=COMPILE_ERROR))
    new = replace(
        puppet.target("failed"), key="new", name="new", id=None, text="src/new.zig: error: no\nfile"
    )
    web_server.set_target(new)
    page.visit(web_server.url)
    page.until_text("#fileScroll", "parser.zig")
    page.until(lambda: page.texts("#noticeLines pre:not(:empty)") == [COMPILE_ERROR, new.text])
    page.click("#noticeLines summary")
    page.until_shown("#noticeLines pre")
    web_server.set_target(puppet.target())
    page.until(lambda: page.texts("#noticeLines pre:not(:empty)") == [new.text])


@pytest.mark.usefixtures("puppet")
def test_the_time_since_the_start_goes_on(page: Page, web_server: WebServer) -> None:
    """It counts, and says since when."""
    page.visit(web_server.url)
    page.until(lambda: re.fullmatch(r"\d+ s|\d+ min \d\d s", page.text("#elapsed")))
    before = page.text("#elapsed")
    page.until(lambda: page.text("#elapsed") != before)
    clock = re.search(r"\d\d:\d\d:\d\d", page.attribute("#elapsed", "title") or "")
    assert clock is not None


def test_pause_freezes_what_is_shown_and_resume_shows_what_came(
    recorded: Page, web_server: WebServer, puppet: Puppet, tmp_path: Path
) -> None:
    """Everything at once, and nothing is lost: numbers, marks, log, findings, states."""
    page = recorded
    store = findings_of(web_server, tmp_path)
    puppet.cover(0, runs=100)
    page.visit(f"{web_server.url}#f1")
    page.until_text("#statTotalRuns", "100")
    page.until(lambda: page.texts(".mark.missed"))
    page.until_text("#statFindings", "0")
    page.click("#pause")
    page.until(lambda: page.attribute("#pause", "aria-pressed") == "true")
    page.until_text("#status", "Paused")
    store.add(finding(1), b"x")
    web_server.set_status("stopped", "")
    web_server.add_log("zig", "a line")
    updates = tags(page).count(ToClientTag.COVERAGE_UPDATE)
    puppet.cover_all(runs=900)
    # It has got all of that, and what it shows has not changed.
    page.until(lambda: tags(page).count(ToClientTag.COVERAGE_UPDATE) > updates)
    page.stays(lambda: page.text("#statTotalRuns") == "100" and page.texts(".mark.missed"))
    assert page.text("#statFindings") == "0"
    page.click("#pause")
    page.until_text("#statTotalRuns", "1,000")
    page.until(lambda: not page.texts(".mark.missed"))
    page.until_text("#statFindings", "1")
    page.until_text("#serverState", "stopped")
    page.go("#log")
    page.until_text("#logLines", "a line")


def test_title_and_icon_tell_the_state_in_tabs_that_nobody_sees(
    page: Page, web_server: WebServer, puppet: Puppet, tmp_path: Path
) -> None:
    """Coverage, findings, and a lost connection."""
    page.expect_lost_server()
    store = findings_of(web_server, tmp_path)
    page.visit(web_server.url)
    page.until(lambda: page.driver.title == "0.0 % fuzzserver")
    plain = page.attribute("#favicon", "href")
    puppet.cover_all()
    page.until(lambda: page.driver.title == "100.0 % fuzzserver")
    store.add(finding(1), b"")
    page.until(lambda: page.driver.title == "(1) 100.0 % fuzzserver")
    found = page.attribute("#favicon", "href")
    assert found != plain
    web_server.stop()
    page.until(lambda: page.driver.title.startswith("disconnected"))
    assert page.attribute("#favicon", "href") not in (plain, found)


@pytest.mark.parametrize("state", ["waiting", "building", "fuzzing", "serving", "stopped", "failed"])
def test_the_state_of_the_server_is_told(page: Page, web_server: WebServer, state: str) -> None:
    """As a word; colours only help."""
    web_server.set_status(state, "")
    page.visit(web_server.url)
    page.until(lambda: page.text("#serverState") == state)
    assert page.text("#connection") == "connected"


@pytest.mark.usefixtures("puppet")
def test_the_theme_follows_the_system_unless_chosen(page: Page, web_server: WebServer) -> None:
    """A choice is kept for the next visit."""

    def background() -> str:
        return str(page.script("return getComputedStyle(document.body).backgroundColor"))

    page.visit(web_server.url)
    page.prefer(theme="light")
    light = background()
    page.prefer(theme="dark")
    page.until(lambda: background() != light)
    dark = background()
    page.click("#theme")
    page.until(lambda: background() == light)
    assert page.text("#theme") == "Light"
    page.driver.refresh()
    page.until(lambda: page.text("#theme") == "Light")
    assert background() == light
    page.click("#theme")
    page.until(lambda: background() == dark)
    page.click("#theme")
    page.prefer(theme="light")
    page.until(lambda: background() == light)


@pytest.mark.usefixtures("puppet")
def test_a_new_build_keeps_the_place(page: Page, web_server: WebServer, tmp_path: Path) -> None:
    """Files and points have other numbers then; the open file and line stay open."""
    page.visit(web_server.url)
    page.go("#f1:4")
    page.until_shown("#sourceScroll .sourceRow.current")
    line = page.text("#sourceScroll .sourceRow.current")
    sources = {"src/aaa.zig": "fn f() void {\n    §return;\n}\n", **support_puppet.EXAMPLE}
    Puppet(tmp_path, sources, coverage_id=7).show(web_server)
    page.until(lambda: page.hash == "#f2:4")
    page.until_text("#fileScroll", "aaa.zig")
    page.until(lambda: page.text("#sourceScroll .sourceRow.current") == line)
    assert page.text("#sourceTitle").endswith("parser.zig")
