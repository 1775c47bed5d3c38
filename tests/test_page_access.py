"""axe-core finds nothing serious in any main state of the page, in both themes, contrast included."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from fuzzserver import WebServer
from fuzzserver.coverage.history_file import Mark
from fuzzserver.status import Progress, TestStatus
from tests.support_browser import Page
from tests.support_puppet import Puppet, corpus_of, finding, findings_of, growth

THEMES = ("light", "dark")
COMPILE_ERROR = "src/parser.zig:8:12: error: expected type 'u32'\n    return total;\n           ^~~~~"


@pytest.fixture
def full(web_server: WebServer, tmp_path: Path) -> Puppet:
    """A server with something in every part of the page."""
    oddity = "an oddity of which people should know"
    made = Puppet(tmp_path, oddities=(oddity,))
    made.cover(*range(7), runs=59_000)
    samples = growth(most=7)
    made.remember(samples, [Mark(samples[20].time, "restart", "why")])
    made.show(web_server, 0, 1)
    made.path("src/main.zig").unlink()
    tests = (
        TestStatus("main.test.sum", "fuzzing", "", 1_234_567, 2, 1),
        TestStatus("main.test.depth", "failed", "it crashed\nand again", 0, 12, 0),
        TestStatus("main.test.third", "never started", "no", None),
    )
    web_server.set_target(made.target(tests=tests, earlier=("00000000000000ff",)))
    web_server.set_target(replace(made.target("failed"), key="2", name="two", id=None, text=COMPILE_ERROR))
    web_server.set_status("fuzzing", "")
    store = findings_of(web_server, tmp_path)
    place = f"{made.path('src/parser.zig')}:8:5"
    stack = f"{place}: 0x1 in sum (test)\n    return total;\n    ^\n/lib/std/x.zig:1:2: 0x1 in f (test)\n"
    for number, reproduces in enumerate((None, True, False, True, True, True, True)):
        kind = "hang" if number % 2 else "panic"
        more = {
            "kind": kind,
            "reproduces": reproduces,
            "place": place,
            "stack": stack,
            "stderr": COMPILE_ERROR,
        }
        store.add(finding(number, argv=("zig", "test"), **more), b"text\0\0\xff" + bytes(100) + b"\n\x1b")
    corpus_of(web_server, tmp_path, "main.test.sum", [b"one", b"two\0three"])
    for level in ("info", "warning", "error"):
        web_server.add_log("zig", COMPILE_ERROR, level)
    return made


@pytest.mark.parametrize("theme", THEMES)
def test_views_can_be_used_by_all(page: Page, web_server: WebServer, full: Puppet, theme: str) -> None:
    """Each view with something in it, and what opens above them."""
    page.expect("404")  # The source that is missing.
    page.prefer(theme=theme, reduced_motion=True)
    page.visit(f"{web_server.url}#coverage")
    found: dict[str, list[str]] = {}

    def look(name: str) -> None:
        page.frame()
        found[name] = page.axe()

    page.until(lambda: page.texts("#nextFunctions a") and page.is_shown(".chartPlot"))
    page.until_text("#fileScroll", "parser.zig")
    look("where to look next")
    page.click("#tabFunctions")
    page.until_text("#functionScroll", "parser.sum")
    look("functions")
    full.cover(8, 9)
    page.click("#tabNew")
    page.until_shown(".newsRow")
    page.go("#f1:8")
    page.until(lambda: page.texts(".findingBadge") and page.texts(".mark"))
    page.script("document.querySelector('.mark').focus()")
    page.until_shown("#pointCard")
    look("new coverage, source, card of a point")
    page.go("#f0")
    page.until_shown(".pointRow")
    look("points without source")
    page.go(f"#finding/{1:016x}")
    page.until_shown("#findingInput-bytes")
    page.click("#findingDetail details summary")
    page.until_shown("#findingDetail .paper")
    look("finding")
    page.click("#findingInput-text")
    look("input as text")
    page.go("#corpus/0/1")
    page.until_shown("#corpusInput-bytes")
    look("corpus")
    page.go("#log")
    page.until_shown(".logEntry")
    look("log")
    page.click("#targetButton")
    page.until_shown("#targetList tr")
    look("targets")
    page.press(Keys.ESCAPE)
    page.press("?")
    page.until_shown("#help")
    look("help")
    page.press(Keys.ESCAPE)
    page.click("#pause")
    page.until_text("#status", "Paused")
    page.size(360, 800)
    page.go("#f1")
    page.until_shown(".mark")
    look("paused, in a narrow window")
    assert {name: problems for name, problems in found.items() if problems} == {}


def build(server: WebServer, folder: Path) -> None:
    """While tests are compiled."""
    server.set_status("building", "")
    server.set_progress(Progress("Compiling src/main.zig", 1, 3))


def fail(server: WebServer, folder: Path) -> None:
    """When they cannot be."""
    server.set_status("failed", COMPILE_ERROR)


def show_uninstrumented(server: WebServer, folder: Path) -> None:
    """When the executable has no points."""
    Puppet(folder, {"a.zig": ""}).show(server)


def show_stripped(server: WebServer, folder: Path) -> None:
    """When it has no debug info."""
    Puppet(folder, has_debug_info=False, oddities=("no debug info",)).show(server)


def replace_executable(server: WebServer, folder: Path) -> None:
    """When it has been built anew, and a rebuild is under way."""
    made = Puppet(folder).show(server)
    made.executable.write_bytes(b"another")
    server.set_progress(Progress("Compiling src/main.zig"))
    server.set_target(made.target("failed", text=COMPILE_ERROR))


STATES: tuple[tuple[Callable[[WebServer, Path], None], str], ...] = (
    (build, "#noticeProgress"),
    (fail, "#noticeLog"),
    (show_uninstrumented, "#noticeSteps"),
    (show_stripped, "#notice"),
    (replace_executable, "#noticeLines"),
)


@pytest.mark.parametrize(("bring_about", "sign"), STATES, ids=[each.__name__ for each, _ in STATES])
def test_empty_and_broken_states_can_be_used_by_all(
    page: Page,
    web_server: WebServer,
    tmp_path: Path,
    bring_about: Callable[[WebServer, Path], None],
    sign: str,
) -> None:
    """Where little is shown, it is shown to all; nothing in the other views is no exception."""
    bring_about(web_server, tmp_path)
    page.prefer(reduced_motion=True)
    page.visit(web_server.url)
    page.until_shown(sign)
    assert_usable(page)
    if bring_about is not build:
        return
    for view in ("findings", "corpus", "log"):
        page.go(f"#{view}")
        page.until_shown(f"#view{view.capitalize()} .empty")
        assert_usable(page)


def assert_usable(page: Page) -> None:
    """What is shown can be used by all, in each theme."""
    for theme in THEMES:
        page.prefer(theme=theme, reduced_motion=True)
        page.frame()
        assert page.axe() == [], theme


def test_a_lost_server_can_be_told_by_all(page: Page, web_server: WebServer, full: Puppet) -> None:
    """Stale numbers are still numbers that one can read."""
    page.expect_lost_server()
    page.expect("404")
    page.prefer(reduced_motion=True)
    page.visit(web_server.url)
    page.until_text("#fileScroll", "parser.zig")
    web_server.stop()
    page.until_text("#noticeLines", "connection is lost")
    assert_usable(page)
    assert full.n_runs == 59_000
