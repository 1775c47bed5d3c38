"""Keys, narrow windows, zoom, and less motion, in a real browser."""

from dataclasses import replace
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from fuzzserver import WebServer
from fuzzserver.status import TestStatus
from tests import support_puppet
from tests.support_browser import Page
from tests.support_puppet import Puppet, corpus_of, finding, findings_of

puppet = support_puppet.puppet

LONG = "src/" + "a_very_long_name" * 12 + ".zig"
VIEWS = ("coverage", "findings", "corpus", "log")


def help_keys(page: Page) -> dict[str, str]:
    """The keys that the page tells of, and what they are for."""
    return dict(zip(page.texts("#helpKeys kbd"), page.texts("#helpKeys dd"), strict=True))


@pytest.fixture
def full(web_server: WebServer, tmp_path: Path) -> Puppet:
    """A server with something in every part of the page, and long names for all of it."""
    made = Puppet(
        tmp_path, {LONG: "fn f() void {\n    §return; // " + "x" * 300 + "\n}\n", **support_puppet.EXAMPLE}
    )
    made.cover(1, 2, 3)
    made.show(web_server, 0, 1)
    test = TestStatus(LONG, "never started", "why\n" + "x" * 200, 12_345_678, 12, 3)
    web_server.set_target(made.target("failed", name=LONG, text=f"{LONG}\n{LONG}", tests=(test,)))
    web_server.set_target(replace(made.target(), key="2", name=f"2{LONG}", id=None, text=LONG))
    store = findings_of(web_server, tmp_path)
    frame = f"{LONG}:1:1: 0x1 in {LONG} (test)\n{'y' * 300}\n^~~~\n"
    store.add(finding(1, message=LONG, test=LONG, stack=frame, stderr=LONG, argv=(LONG,)), b"x" * 500)
    corpus_of(web_server, tmp_path, LONG, [b"x" * 5000, b"y"])
    web_server.add_log(LONG, f"{LONG}:1:2: error: {LONG}\n{'z' * 400}\n{' ' * 300}^", "error")
    return made


def test_every_key_of_the_help_does_what_it_says(page: Page, web_server: WebServer, puppet: Puppet) -> None:
    """All of them; and the help is closed by Escape."""
    web_server.set_target(puppet.target())
    page.visit(f"{web_server.url}#f1")
    page.until(lambda: len(page.texts(".mark")) == 10)
    page.press("?")
    page.until_shown("#help")
    keys = help_keys(page)
    page.press(Keys.ESCAPE)
    page.until_hidden("#help")
    parser = puppet.find("src/parser.zig")
    tried = {"?"}

    def press(key: str) -> None:
        tried.add(key)
        page.press(key)

    press("j")
    page.until(lambda: page.hash == f"#l{parser[0]}")
    press("k")
    page.until(lambda: page.hash == f"#l{parser[-1]}")
    # A line whose points are new: "digit" in parser.zig.
    puppet.cover(*puppet.find("src/parser.zig", function="digit"))
    page.until(lambda: len(page.texts(".mark.covered")) == 4)
    page.go("#f1:1")
    press("n")
    page.until(lambda: page.hash in [f"#l{point}" for point in puppet.find("src/parser.zig", 12)])
    press("p")
    page.until(lambda: page.hash == f"#l{puppet.find('src/parser.zig', 13)[0]}")
    press("]")
    page.until(lambda: page.text("#sourceTitle") not in ("parser.zig", ""))
    other = page.text("#sourceTitle")
    press("[")
    page.until_text("#sourceTitle", "parser.zig")
    assert other != "parser.zig"
    press("f")
    page.until(lambda: page.attribute("#follow", "aria-pressed") == "true")
    page.press("f")
    page.until(lambda: page.attribute("#follow", "aria-pressed") == "false")
    press("t")
    page.until(lambda: page.text("#theme") == "Light")
    press("g")
    page.until_shown("#targetList")
    page.press(Keys.ESCAPE)
    page.until_hidden("#targetList")
    for key, view in (("2", "#findings"), ("3", "#corpus"), ("4", "#log")):
        press(key)
        page.until(lambda view=view: page.hash == view)
    press("1")
    page.until_shown("#viewCoverage")
    press("/")
    page.until(lambda: page.script("return document.activeElement.id") == "fileFilter")
    page.press("j", "1", "?")  # Letters are letters here.
    assert page.script("return document.activeElement.value") == "j1?"
    assert not page.is_shown("#help")
    assert set(keys) == tried, "the help tells of keys that this test does not try, or the other way round"
    assert all(keys.values())


@pytest.mark.usefixtures("puppet")
def test_keys_with_control_are_left_to_the_browser(page: Page, web_server: WebServer) -> None:
    """Who selects all, or searches, wants nothing of the page."""
    page.visit(web_server.url)
    page.until_text("#fileScroll", "parser.zig")
    for key in (Keys.CONTROL, Keys.ALT):
        ActionChains(page.driver).key_down(key).send_keys("4").key_up(key).perform()
    page.stays(lambda: page.hash == "")


@pytest.mark.usefixtures("full")
def test_all_controls_can_be_reached_by_the_tab_key(page: Page, web_server: WebServer) -> None:
    """Each stop can be seen, and the focus is visible there."""
    page.visit(f"{web_server.url}#f2")
    page.until_shown(".mark")
    page.until_shown(".chartPlot")
    page.until_shown("#fileScroll .listRow")
    seen = set()
    for _ in range(70):
        page.press(Keys.TAB)
        where = page.script(
            "const dom = document.activeElement;"
            "if (dom === document.body) return null;"
            "const box = dom.getBoundingClientRect(), style = getComputedStyle(dom);"
            "return [dom.id || dom.className || dom.textContent, box.width > 0 && box.height > 0, "
            "style.outlineStyle !== 'none' || style.boxShadow !== 'none' || dom.matches('.mark')]"
        )
        if where is None:
            continue  # The browser's own controls, and then the page's once more.
        name, is_visible, has_ring = where
        assert is_visible, name
        assert has_ring, name
        seen.add(name)
    assert {"targetButton", "pause", "theme", "helpButton", "chartPlot", "tabFiles", "fileFilter"} <= seen
    assert {"filesAsTree", "nextUncovered", "closeSource", "sourceScroll"} <= seen


@pytest.mark.parametrize("width", [360, 640])
@pytest.mark.usefixtures("full")
def test_a_narrow_window_needs_no_sideways_scrolling(page: Page, web_server: WebServer, width: int) -> None:
    """Of the page as a whole, in any view: 360 is a phone, 640 a window of 1280 at 200 %."""
    page.size(width, 800 if width == 360 else 450, scale=2)
    page.visit(web_server.url)
    page.until_text("#fileScroll", "parser.zig")
    for hash in ("", "#f1", "#findings", f"#finding/{1:016x}", "#corpus", "#corpus/0/1", "#log"):
        page.go(hash or "#coverage")
        ready = {"#f1": ".mark", f"#finding/{1:016x}": "#findingInput-bytes", "#corpus": "#corpusRows .group"}
        ready |= {"#corpus/0/1": "#corpusInput-bytes", "#log": ".logEntry", "#findings": "#findingRows li"}
        page.until_shown(ready.get(hash, "#next"))
        page.frame()
        too_wide = page.script(
            "return [...document.querySelectorAll('main *, header *')].filter(dom => "
            "dom.checkVisibility() && dom.getBoundingClientRect().right > innerWidth + 1 && "
            "!dom.closest('#sourceScroll, pre, .bytes, .virtualScroller, table, code, .stack, .log')"
            ").slice(0, 3).map(dom => dom.tagName + '#' + dom.id + '.' + dom.className)"
        )
        assert not page.is_wider_than_window(), f"{hash}: {too_wide}"
    page.click("#targetButton")
    page.until_shown("#targetList")
    assert page.script(
        "const box = document.querySelector('#targetPopover').getBoundingClientRect();"
        "return box.left >= 0 && box.right <= innerWidth"
    )


@pytest.mark.usefixtures("full")
def test_a_narrow_window_shows_the_detail_instead_of_the_list(page: Page, web_server: WebServer) -> None:
    """There is a way back."""
    page.size(360, 800)
    page.visit(f"{web_server.url}#findings")
    page.click("#findingRows a")
    page.until_shown("#findingDetail")
    assert not page.is_shown("#findingRows")
    page.click("#findingDetail .back")
    page.until_shown("#findingRows")
    assert page.hash == "#findings"


@pytest.mark.usefixtures("full")
def test_controls_are_large_enough_to_hit(page: Page, web_server: WebServer) -> None:
    """24 pixels each way, but for links in a text or in a list, and what the browser draws itself."""
    page.visit(f"{web_server.url}#f1")
    page.until_shown(".mark")
    page.go("#coverage")
    for hash, ready in (("", "#next"), ("#findings", "#findingRows a"), ("#log", ".logEntry")):
        page.go(hash or "#coverage")
        page.until_shown(ready)
        small = page.script(
            "return [...document.querySelectorAll('button, select, input, summary, #views a, a.button')]"
            ".filter(dom => dom.checkVisibility()).map(dom => [dom.closest('label') ?? dom, dom])"
            ".filter(([dom]) => Math.min(dom.offsetHeight, dom.offsetWidth) < 24)"
            ".map(([, dom]) => dom.id || dom.outerHTML)"
        )
        assert small == [], hash


def test_nothing_moves_for_those_who_want_less_motion(
    page: Page, web_server: WebServer, puppet: Puppet
) -> None:
    """No animation and no transition runs, whatever happens."""
    page.prefer(reduced_motion=True)
    page.visit(f"{web_server.url}#f1")
    page.until(lambda: len(page.texts(".mark")) == 10)
    # What is fresh stays so.
    page.script("const now = performance.now(); performance.now = () => now")
    puppet.cover_all()
    page.until(lambda: len(page.texts(".mark.fresh")) == 10)
    page.click("#tabNew")
    page.until_shown(".newsRow")
    running = (
        "return document.getAnimations()"
        ".filter(each => each.playState === 'running' && each.effect.getComputedTiming().activeDuration > 20)"
        ".map(each => each.animationName ?? each.transitionProperty)"
    )
    page.stays(lambda: page.script(running) == [])


GLOW = """
window.glow = { marks: 0, animations: 0 };
new MutationObserver(() => {
  const marks = [...document.querySelectorAll(".mark.fresh.covered")];
  const animations = marks.flatMap((mark) => mark.getAnimations({ subtree: true }));
  glow.marks = Math.max(glow.marks, marks.length);
  glow.animations = Math.max(glow.animations, animations.length);
}).observe(document.querySelector("#sourceScroll"), { subtree: true, childList: true, attributes: true });
"""
"""Keeps how many marks glowed at once, and how many of them moved, for whoever looks later."""


def test_what_is_newly_covered_glows_for_all_others(
    page: Page, web_server: WebServer, puppet: Puppet
) -> None:
    """The halo fades by itself."""
    page.visit(f"{web_server.url}#f1")
    page.until(lambda: len(page.texts(".mark")) == 10)
    assert page.texts(".mark.fresh") == []
    page.script(GLOW)
    puppet.cover(*puppet.find("src/parser.zig", 12))
    page.until(lambda: page.script("return glow") == {"marks": 3, "animations": 3})
    page.until(lambda: page.texts(".mark.fresh") == [])
    assert len(page.texts(".mark.covered")) == 3


@pytest.mark.usefixtures("full")
def test_views_are_links(page: Page, web_server: WebServer) -> None:
    """With the place in the address, and the one that is shown marked."""
    page.visit(web_server.url)
    for view in VIEWS:
        page.click(f"#views a[data-view={view}]")
        page.until_shown(f"#view{view.capitalize()}")
        assert page.texts("#views [aria-current=page]")[0].startswith(view.capitalize())
        others = [other for other in VIEWS if other != view]
        assert [other for other in others if page.is_shown(f"#view{other.capitalize()}")] == []
        page.driver.refresh()
        page.until_shown(f"#view{view.capitalize()}")
