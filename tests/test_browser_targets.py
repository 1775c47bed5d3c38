"""Several targets, their builds, and findings, in a real browser."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from fuzzserver import CoverageMsg, WebServer
from fuzzserver.findings import Finding, FindingStore
from fuzzserver.status import TargetStatus, TestStatus
from fuzzserver.wire.abi import coverage_file_name
from tests import test_browser
from tests.projects import FuzzedPair
from tests.test_browser import Page, show

driver, page = test_browser.driver, test_browser.page

COMPILE_ERROR = "src/main.zig:3:5: error: no such thing\n    thing();\n    ^~~~~"
HOSTILE = "<img src=x onerror=document.title=1>"
UNKNOWN_ID = "0123456789abcdef"


def target(name: str, pair: FuzzedPair | None = None, state: str = "fuzzing", **more) -> TargetStatus:
    """A target whose current build is that of ``pair``."""
    coverage_id = None if pair is None else coverage_file_name(pair.coverage_id)
    return TargetStatus(f"key-of-{name}", name, state, id=coverage_id, **more)


def finding(number: int, **more) -> Finding:
    """One of several findings, each a minute after the other."""
    made = Finding(
        id=f"{number:016x}",
        kind="panic",
        message=f"number {number}",
        target="src/main.zig",
        test="main.test.fuzz sum",
        first_time=1_763_720_000.5 + 60 * number,
        last_time=1_763_720_000.5 + 60 * number,
        n_runs=51_234,
    )
    return replace(made, **more)


@pytest.fixture
def store(web_server: WebServer, tmp_path: Path) -> FindingStore:
    """Findings that the server shows."""
    made = FindingStore(tmp_path / "findings", web_server.notify)
    web_server.set_findings(made)
    return made


@pytest.fixture
def two_maps(web_server: WebServer, debug_pair: FuzzedPair, small_pair: FuzzedPair) -> None:
    """Coverage of two executables; only the first, which is shown by default, has a source."""
    show(web_server, debug_pair.step, debug_pair)
    known = web_server.coverage_files
    wait_until(web_server, lambda: known.get(debug_pair.coverage_id) is not None)
    web_server.add_step(small_pair.step)
    web_server.post(CoverageMsg(small_pair.coverage_id, small_pair.step))
    wait_until(web_server, lambda: known.get(small_pair.coverage_id) is not None)


def wait_until(web_server: WebServer, condition: Callable[[], bool]) -> None:
    """Wait for the coverage thread."""
    changed = threading.Event()
    web_server.coverage_files.watch(changed.set)
    try:
        while not condition():
            assert changed.wait(60), "the coverage thread does not answer"
            changed.clear()
    finally:
        web_server.coverage_files.unwatch(changed.set)


def visit(page: Page, url: str) -> None:
    """Open a page, and wait for its wasm: a server that stops meanwhile would be an error in its log."""
    page.open(url)
    page.until(lambda: "Loading" not in page.text("#status"))


def opened(page: Page, number: int = 0) -> None:
    """Open the finding at a place of the list, and wait for what the server says of it."""
    page.find("#findingRows > li > details > summary")
    page.all("#findingRows > li > details > summary")[number].click()
    page.find(f"#findingRows > li:nth-child({number + 1}) .command")


def test_one_target_without_tests_needs_no_list(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair
) -> None:
    """Nothing is shown where there is nothing to choose and nothing to tell."""
    show(web_server, debug_pair.step, debug_pair)
    web_server.set_target(target("src/main.zig", debug_pair))
    visit(page, web_server.url)
    page.until_text("#fileRows", "parser.zig")
    assert page.texts("#targetList li") != []
    assert not page.all("#sectTargets")[0].is_displayed()
    assert not page.all("#sectFindings")[0].is_displayed()


def test_tests_of_a_target_change_live(page: Page, web_server: WebServer, debug_pair: FuzzedPair) -> None:
    """Each test tells what it does, why, and how far it is."""
    tests = (TestStatus("main.test.sum", "fuzzing", n_runs=1_234), TestStatus("main.test.depth", "waiting"))
    web_server.set_target(target("src/main.zig", debug_pair, tests=tests))
    visit(page, web_server.url)
    page.until_text("#testRows", "main.test.sum", "fuzzing", "1,234 runs", "main.test.depth", "waiting")
    assert "restart" not in page.text("#testRows")
    row = page.find("#testRows tr:first-child")
    tests = (TestStatus("main.test.sum", "failed", "no\nidea", 5_678, 1, 2), tests[1])
    web_server.set_target(target("src/main.zig", debug_pair, tests=tests))
    page.until_text("#testRows", "failed", "no\nidea", "5,678 runs", "1 restart", "2 findings")
    assert row.is_displayed()  # Still the same row, under whatever pointer or focus.


@pytest.mark.usefixtures("two_maps")
def test_choosing_a_target_shows_its_coverage_and_its_tests(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair, small_pair: FuzzedPair
) -> None:
    """Targets are links: the keyboard, the history and reloading work."""
    web_server.set_target(target("src/main.zig", debug_pair, tests=(TestStatus("big", "fuzzing"),)))
    web_server.set_target(target("src/small.zig", small_pair, tests=(TestStatus("small", "stopped"),)))
    web_server.set_target(target("src/new.zig", state="building"))
    visit(page, web_server.url)
    page.until_text("#fileRows", "parser.zig")
    assert page.texts("#testRows .name") == ["big"]
    assert page.text("#targetList [aria-current=true] .name") == "src/main.zig"
    assert page.texts("#targetList a:not([href]) .name") == ["src/new.zig"]
    page.all("#targetList a")[1].send_keys(Keys.ENTER)
    page.until_text("#sectNotice", "no debug info")
    assert page.texts("#testRows .name") == ["small"]
    assert page.driver.current_url.endswith(f"/?target={coverage_file_name(small_pair.coverage_id)}")
    page.driver.refresh()
    page.until_text("#sectNotice", "no debug info")
    page.driver.back()
    page.until_text("#fileRows", "parser.zig")
    assert page.texts("#testRows .name") == ["big"]


@pytest.mark.usefixtures("two_maps")
def test_an_earlier_build_says_so_and_leads_to_the_current_one(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair, small_pair: FuzzedPair
) -> None:
    """The coverage of an earlier build can be looked at, and is not taken for the current one."""
    earlier = coverage_file_name(small_pair.coverage_id)
    web_server.set_target(target("src/main.zig", debug_pair, earlier=(earlier,)))
    visit(page, web_server.url)
    page.find("#targetBuilds a").click()
    page.until_text("#sectNotice", "no debug info")
    page.until_text("#targetBuildNote", "earlier build of src/main.zig, number 1 of 2")
    page.find("#targetBuildLink").click()
    page.until_text("#fileRows", "parser.zig")
    assert not page.all("#targetBuildNote")[0].is_displayed()


@pytest.mark.parametrize("wanted", [UNKNOWN_ID, "%3Cimg%20src=x%3E"])
def test_an_unknown_target_is_said_to_be_unknown(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair, wanted: str
) -> None:
    """An old bookmark leads to a notice, and from there to what there is."""
    show(web_server, debug_pair.step, debug_pair)
    visit(page, f"{web_server.url}debug/?target={wanted}")
    page.until_text("#sectNotice", "does not know this target", wanted[:4].replace("%3C", "<"))
    page.find("#noticeLink").click()
    page.until_text("#fileRows", "parser.zig")
    assert page.driver.current_url == f"{web_server.url}debug/"


def test_compile_errors_of_a_target_leave_the_coverage_in_sight(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair
) -> None:
    """A rebuild that fails tells why; so does a target that was never built; the rest goes on."""
    show(web_server, debug_pair.step, debug_pair)
    web_server.set_target(target("src/main.zig", debug_pair, "failed", text=COMPILE_ERROR))
    web_server.set_target(target("src/new.zig", None, "failed", text="src/new.zig: error: no\nfile"))
    visit(page, web_server.url)
    page.until_text("#fileRows", "parser.zig")
    assert page.texts("#targetTexts pre") == [COMPILE_ERROR, "src/new.zig: error: no\nfile"]
    web_server.set_target(target("src/main.zig", debug_pair))
    page.until(lambda: len(page.texts("#targetTexts pre")) == 1)


def test_a_finding_tells_what_is_known_of_it(
    page: Page, web_server: WebServer, store: FindingStore, debug_pair: FuzzedPair
) -> None:
    """The list has the outline, an opened finding the stack, the input and the command."""
    show(web_server, debug_pair.step, debug_pair)
    parser = debug_pair.step.cache_root.parent / "src" / "parser.zig"
    stack = f"{parser}:14:1: 0x1057a31 in depth (test)\npub fn depth\n^\n/gone.zig:1:2: 0x1 in f (test)\n"
    store.add(finding(1, stack=stack, stderr="much more", reproduces=True), b'say "x"\0')
    visit(page, web_server.url)
    page.until_text("#fileRows", "parser.zig")
    page.until_text("#findingRows .facts", "main.test.fuzz sum", "once", "after 51,234 runs", "reproduces")
    assert page.text("#findingRows .message") == "number 1"
    assert page.driver.title.startswith("(1) ")
    opened(page)
    assert page.text(".literal") == '"say \\"x\\"\\x00"'
    assert page.text(".command") == f"fuzzserver repro {1:016x}"
    assert page.text(".stderr") == "much more"
    assert page.text(".stack") == stack
    assert page.find("a[download]").get_attribute("href") == f"{web_server.url}findings/{1:016x}.input"
    assert len(page.texts(".stack a")) == 1
    page.find(".stack a").click()
    page.find("#sourceText .mark.current")
    assert page.text("#sourceTitle").endswith("parser.zig")


def test_times_are_local_and_tell_how_long_ago_they_were(
    page: Page, web_server: WebServer, store: FindingStore
) -> None:
    """The clock of the reader, and the age where the pointer is."""
    store.add(finding(1), b"")
    store.add(finding(1, last_time=time.time() - 7_300), b"")
    visit(page, web_server.url)
    page.until_text("#findingRows", "2 times")
    local = datetime.fromtimestamp(finding(1).first_time)
    assert page.text(".first time").endswith(f"{local:%H:%M:%S}")
    ActionChains(page.driver).move_to_element(page.find(".last time")).perform()
    page.until(lambda: page.find(".last time").get_attribute("title") == "2 hours ago")


def test_findings_come_and_change_live(page: Page, web_server: WebServer, store: FindingStore) -> None:
    """What is open stays open when another finding comes, or the same one once more."""
    store.add(finding(1), b"first")
    visit(page, web_server.url)
    page.until_text("#findingRows", "number 1", "not tried yet")
    opened(page)
    store.add(finding(2), b"second")
    page.until(lambda: page.texts("#findingRows .message") == ["number 2", "number 1"])
    page.until(lambda: page.driver.title.startswith("(2) "))
    assert page.find("#findingRows > li:nth-child(2) .literal").text == '"first"'
    store.add(finding(1), b"first")
    store.update(finding(1).id, lambda old: replace(old, reproduces=False, minimized_size=3), b"1st")
    page.until_text("#findingRows > li:nth-child(2) .facts", "2 times", "does not reproduce")
    page.until_text("#findingRows > li:nth-child(2) .findingDetail", "3 bytes, minimized", '"1st"')


def test_many_findings_begin_with_the_newest(page: Page, web_server: WebServer, store: FindingStore) -> None:
    """The older ones come on demand, and the keyboard goes on with them."""
    for number in range(8):
        store.add(finding(number), b"")
    visit(page, web_server.url)
    page.until_text("#findingsTitle", "8 findings")
    assert page.texts("#findingRows .message") == [f"number {number}" for number in (7, 6, 5, 4, 3)]
    opened(page, 4)
    store.add(finding(8), b"")
    page.until(lambda: page.texts("#findingRows .message")[0] == "number 8")
    assert page.texts("#findingRows .message")[4:] == ["number 4", "number 3"]  # Which is open.
    page.find("#findingsAll").click()
    assert page.texts("#findingRows .message")[6:] == ["number 2", "number 1", "number 0"]
    assert "number 2" in str(page.script("return document.activeElement.textContent"))
    assert not page.all("#findingsAll")[0].is_displayed()


def test_input_and_command_can_be_copied(page: Page, web_server: WebServer, store: FindingStore) -> None:
    """To the clipboard, or, where a browser gives none, by a selection that is ready to be copied."""
    store.add(finding(1), b"text")
    visit(page, web_server.url)
    opened(page)
    page.script("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.all(".findingDetail button")[0].click()
    page.until(lambda: page.script("return window.copied") == '"text"')
    page.script("navigator.clipboard.writeText = () => Promise.reject(new Error('no clipboard'))")
    page.all(".findingDetail button")[1].click()
    page.until(lambda: page.script("return String(getSelection())") == f"fuzzserver repro {1:016x}")


def test_a_finding_that_cannot_be_loaded_says_so(
    page: Page, web_server: WebServer, store: FindingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list remains, and opening it again tries again."""
    store.add(finding(1), b"")
    visit(page, web_server.url)
    page.find("#findingRows summary")
    with monkeypatch.context() as patch:
        patch.setattr(store, "details", lambda _: None)
        page.find("#findingRows summary").click()
        page.until_text(".findingNote", "could not be loaded: the server answered 404")
    page.find("#findingRows summary").click()
    opened(page)
    page.errors()  # The browser says that the server said 404, which is what we wanted.


def test_hostile_names_and_messages_are_only_text(
    page: Page, web_server: WebServer, store: FindingStore, debug_pair: FuzzedPair
) -> None:
    """Whatever a test prints, or is called, is shown and not run."""
    tests = (TestStatus(HOSTILE, HOSTILE, HOSTILE),)
    web_server.set_target(target(HOSTILE, debug_pair, HOSTILE, text=f"{HOSTILE}\n{HOSTILE}", tests=tests))
    hostile = dict.fromkeys(("kind", "message", "target", "test", "stack", "stderr"), HOSTILE)
    store.add(finding(1, **hostile), HOSTILE.encode())
    visit(page, web_server.url)
    page.until_text("#sectTargets", HOSTILE)
    opened(page)
    page.until_text(".stack", HOSTILE)
    assert HOSTILE in page.text(".literal")
    assert page.all("img") == []


def test_a_narrow_window_needs_no_sideways_scrolling(
    page: Page, web_server: WebServer, store: FindingStore, debug_pair: FuzzedPair
) -> None:
    """Long names wrap, and long lines scroll inside their boxes."""
    long = "src/" + "a_very_long_name" * 12 + ".zig"
    test = TestStatus(long, "never started", "why\n" + "x" * 200, 12_345_678, 12, 3)
    web_server.set_target(target(long, debug_pair, "failed", text=f"{long}\n{long}", tests=(test,)))
    store.add(finding(1, message=long, test=long, stack=f"{long}:1:1: {long}\n"), b"x" * 500)
    size = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        visit(page, web_server.url)
        page.until_text("#sectTargets", long)
        opened(page)
        assert page.script(
            "const root = document.documentElement; return root.scrollWidth <= root.clientWidth"
        )
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
