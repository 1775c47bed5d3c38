"""The source with its coverage, in a real browser: lines, marks, the card of a point, links and history."""

import os
import re
import time
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from fuzzserver import WebServer
from tests import support_puppet
from tests.support_browser import Page
from tests.support_puppet import Point, Puppet, finding, findings_of

puppet = support_puppet.puppet

# For each mark in sight: line, column (from 1, in characters of the text before it), whether it is covered.
MARKS = """
return [...document.querySelectorAll(".sourceRow")].flatMap((row) => {
  const code = row.querySelector(".lineText");
  return [...code.querySelectorAll(".mark")].map((mark) => {
    const before = document.createRange();
    before.setStart(code, 0);
    before.setEndBefore(mark);
    const line = Number(row.querySelector(".lineNumber").textContent);
    return [line, before.toString().length + 1, mark.classList.contains("covered")];
  });
}).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
"""


def marks(page: Page) -> list[list[int]]:
    """The marks in the rows that are in the document."""
    return page.script(MARKS)


def line_states(page: Page) -> dict[int, str]:
    """What the gutter says, by line; lines without points are left out."""
    return {
        int(line): state
        for line, state in page.script(
            "return [...document.querySelectorAll('.sourceRow')].map(row =>"
            " [row.querySelector('.lineNumber').textContent, row.querySelector('.gutter').ariaLabel])"
        )
        if state
    }


def line_text(page: Page, line: int) -> str:
    """The text of a line, which must be in the document."""
    return page.script(
        "return [...document.querySelectorAll('.sourceRow')]"
        ".find(row => row.querySelector('.lineNumber').textContent === arguments[0])"
        "?.querySelector('.lineText').textContent",
        str(line),
    )


def is_in_sight(page: Page, selector: str) -> bool:
    """Whether the first such element is within the window of the source."""
    return page.script(
        "const dom = document.querySelector(arguments[0]);"
        "if (dom === null) return false;"
        "const box = dom.getBoundingClientRect();"
        "const frame = document.querySelector('#sourceScroll').getBoundingClientRect();"
        "return box.top >= frame.top && box.bottom <= frame.bottom",
        selector,
    )


@pytest.fixture
def opened(page: Page, web_server: WebServer, puppet: Puppet) -> Puppet:
    """The page with parser.zig open, nothing of which is covered."""
    page.visit(f"{web_server.url}#f1")
    page.until(lambda: len(marks(page)) == 10)
    return puppet


def test_lines_have_numbers_and_their_text(page: Page, opened: Puppet) -> None:
    """As they are in the file, in order, and coloured by the compiler's tokens."""
    text = opened.path("src/parser.zig").read_text()
    lines = text.split("\n")
    shown = [line_text(page, number) for number in range(1, len(page.texts(".lineNumber")) + 1)]
    assert shown == (lines if len(shown) == len(lines) else lines[:-1])
    assert page.text("#sourceTitle") == "parser.zig"
    assert (page.attribute("#sourceTitle", "title") or "").endswith("/src/parser.zig")
    assert "fn" in page.texts(".tok-kw")
    assert '"text"' in page.texts(".tok-str")
    assert page.text(".tok-comment") == "//! Adds up digits."


def test_marks_are_at_the_exact_columns(page: Page, opened: Puppet) -> None:
    """Each point has one, and each changes when it is covered, and no other."""
    wanted = sorted(
        [point.line, point.column, False] for point in opened.points if point.path == "src/parser.zig"
    )
    assert marks(page) == wanted
    first = opened.find("src/parser.zig")[2]
    opened.cover(first)
    wanted[2][2] = True
    page.until(lambda: marks(page) == wanted)
    opened.cover_all()
    page.until(lambda: all(covered for _, _, covered in marks(page)))
    opened.reset()
    page.until(lambda: not any(covered for _, _, covered in marks(page)))


def test_columns_are_bytes_and_the_text_may_be_any(page: Page, web_server: WebServer, tmp_path: Path) -> None:
    """Characters of several bytes before a mark don't move it, and a column that is none breaks nothing."""
    source = 'const a = "äöü€😀"; §f();\n\t§tab(); // \u202e\nlast'
    odd = [Point("src/a.zig", 1, 400), Point("src/a.zig", 99, 1), Point("src/a.zig", 3, 0)]
    Puppet(tmp_path, {"src/a.zig": source}, points=odd).show(web_server)
    page.visit(f"{web_server.url}#f0")
    page.until(lambda: len(marks(page)) == 5)
    lines = source.split("\n")
    # In JavaScript, an emoji is two characters.
    assert marks(page)[0][:2] == [1, len(lines[0].split("§")[0].encode("utf-16-le")) // 2 + 1]
    assert [2, 2] in [mark[:2] for mark in marks(page)]
    assert len([mark for mark in marks(page) if mark[0] == 1]) == 2
    assert line_text(page, 1) == lines[0].replace("§", "")
    assert [mark[0] for mark in marks(page)].count(3) == 2


def test_the_gutter_tells_how_far_a_line_is_covered(page: Page, opened: Puppet) -> None:
    """Not at all, in part, as a whole; lines without points say nothing. In words and in shapes."""
    assert set(line_states(page).values()) == {"not covered"}
    assert sorted(line_states(page)) == [4, 5, 6, 8, 12, 13]
    opened.cover(*opened.find("src/parser.zig", 4), opened.find("src/parser.zig", 5)[0])
    page.until(lambda: line_states(page)[4] == "covered")
    assert line_states(page)[5] == "partly covered"
    assert line_states(page)[6] == "not covered"
    page.until_text("#sourceCoverage", "2 / 10 points covered (20.0 %)")
    looks = page.script(
        "return [...document.querySelectorAll('.sourceRow')].filter(row => row.dataset.state).map(row => {"
        "const style = getComputedStyle(row.querySelector('.gutter'), '::before');"
        "const own = getComputedStyle(row.querySelector('.gutter'));"
        "return [row.dataset.state, [style, own].map(each => each.width + each.backgroundImage +"
        " each.backgroundColor + each.border + each.boxShadow).join()] })"
    )
    assert len({look for _, look in looks}) == 3, looks


def test_a_point_tells_what_is_known_of_it(page: Page, opened: Puppet, web_server: WebServer) -> None:
    """Function, address, state, and since when; by pointer and by keyboard."""
    coverage_map = web_server.coverage_files.newest()[0]
    page.until(lambda: coverage_map.history.samples)
    point = opened.find("src/parser.zig", 12)[0]
    page.point_at(f".mark[data-point='{point}']")
    page.until_text("#pointCard", "not covered", "12:9", "parser.digit", f"0x{opened.address(point):x}")
    assert "first covered" not in page.text("#pointCard")
    opened.cover(point)
    page.until_text("#pointCard", "first covered")
    assert "not covered" not in page.text("#pointCard")
    assert re.search(r"\d\d:\d\d:\d\d", page.text("#pointCard"))
    page.point_away()
    page.until_hidden("#pointCard")
    page.script("document.querySelector(arguments[0]).focus()", f".mark[data-point='{point + 1}']")
    page.until_text("#pointCard", "not covered", "12:25")
    page.press(Keys.ESCAPE)
    page.until_hidden("#pointCard")


def test_the_card_lies_within_the_window(page: Page, web_server: WebServer, tmp_path: Path) -> None:
    """Also for a mark far to the right, and at the bottom."""
    lines = "".join(f"{' ' * 60}§a();\n" for _ in range(200))
    Puppet(tmp_path, {"src/a.zig": lines}).show(web_server)
    page.size(700, 500)
    page.visit(f"{web_server.url}#l150")
    page.until_shown(".mark.current")
    page.script("document.querySelector('.mark.current').focus()")
    page.until_shown("#pointCard")
    within = (
        "const box = document.querySelector('#pointCard').getBoundingClientRect();"
        "return box.left >= 0 && box.right <= innerWidth && box.top >= 0 && box.bottom <= innerHeight"
    )
    page.until(lambda: page.script(within))
    page.stays(lambda: page.script(within), 5)


@pytest.mark.usefixtures("opened")
def test_names_lead_to_where_they_are_declared(page: Page) -> None:
    """Within the file."""
    link = page.script(
        "const link = [...document.querySelectorAll('a.declared')].find(a => a.textContent === 'digit');"
        "link?.click(); return link?.getAttribute('href')"
    )
    assert link == "#f1:11"
    page.until(lambda: page.hash == "#f1:11")
    page.until_text(".sourceRow.current", "fn digit")


def test_addresses_name_places_and_the_history_restores_them(
    page: Page, web_server: WebServer, tmp_path: Path
) -> None:
    """A point, a line, a file; back and forward, with the place to which the reader had scrolled."""
    long = "".join(f"fn f{i}() void {{ §a(); }}\n" for i in range(500))
    Puppet(tmp_path, {"src/a.zig": long, "src/b.zig": "fn b() void {\n    §c();\n}\n"}).show(web_server)
    page.visit(f"{web_server.url}#l300")
    page.until(lambda: is_in_sight(page, ".mark.current[data-point='300']"))
    page.go("#f0:450")
    page.until_text(".sourceRow.current", "fn f449()")
    page.until(lambda: is_in_sight(page, ".sourceRow.current"))
    page.go("#f1")
    page.until_text("#sourceTitle", "b.zig")
    page.driver.back()
    page.until_text(".sourceRow.current", "fn f449()")
    page.driver.back()
    page.until(lambda: is_in_sight(page, ".mark.current[data-point='300']"))
    page.script("document.querySelector('#sourceScroll').scrollTop = 1000")
    page.until(lambda: page.script("return history.state?.scroll") == 1000)
    page.driver.forward()
    page.until_text(".sourceRow.current", "fn f449()")
    page.driver.back()
    page.until(lambda: page.script("return document.querySelector('#sourceScroll').scrollTop") == 1000)
    page.driver.refresh()
    page.until(lambda: page.script("return document.querySelector('#sourceScroll')?.scrollTop") == 1000)


@pytest.mark.usefixtures("puppet")
def test_places_that_do_not_exist_do_no_harm(page: Page, web_server: WebServer) -> None:
    """An old link leads to a sentence, or to what is nearest."""
    for hash in ("#f99", "#l99999", "#f0:99999", "#f1:0", "#lx", "#f", "#%E0%A4%A", "#f1:5:9"):
        page.visit(f"{web_server.url}{hash}")
        page.until_text("#statCoverage", "0.0 %")
        page.until(lambda: page.is_shown("#next") or page.is_shown("#source"))
        page.go("#f1")
        page.until_text("#sourceTitle", "parser.zig")
        page.until(lambda: marks(page))


def test_a_source_that_has_changed_says_so(page: Page, opened: Puppet, web_server: WebServer) -> None:
    """If it is newer than the executable, marks may be off."""
    assert not page.is_shown("#sourceNote")
    now = time.time() + 60
    os.utime(opened.path("src/parser.zig"), (now, now))
    page.driver.refresh()
    page.until_text("#sourceNote", "has changed since the executable was built")
    page.visit(f"{web_server.url}#f0")
    page.until_text("#sourceTitle", "main.zig")
    page.until(lambda: marks(page))
    assert not page.is_shown("#sourceNote")


def test_a_missing_source_shows_its_points_as_a_list(
    page: Page, web_server: WebServer, puppet: Puppet
) -> None:
    """With the path, and live like the source."""
    page.expect("404")
    puppet.path("src/parser.zig").unlink()
    page.visit(f"{web_server.url}#f1")
    page.until_text("#sourceNote", "no such file", "src/parser.zig")
    page.until(lambda: len(page.texts(".pointRow")) == 10)
    assert page.texts(".pointRow a")[0] == "4:22"
    page.until_text(".pointRow", "parser.sum")
    assert "covered" in page.text(".pointRow .stateText")
    puppet.cover(puppet.find("src/parser.zig")[0])
    page.until(lambda: page.text(".pointRow .stateText") == "covered")
    page.click(".pointRow a")
    page.until_shown(".pointRow.current")


def test_c_source_is_shown_too(page: Page, web_server: WebServer, puppet: Puppet) -> None:
    """With its marks; which language it is matters to nobody."""
    page.visit(f"{web_server.url}#f2")
    page.until_text("#sourceTitle", "util.c")
    page.until(lambda: len(marks(page)) == 4)
    assert line_text(page, 4) == "size_t count_c(const char *text) {"
    puppet.cover(*puppet.find("src/deep/inner/util.c"))
    page.until(lambda: line_states(page) == {5: "covered", 6: "covered"} | {7: "covered"})


@pytest.mark.usefixtures("puppet")
def test_any_bytes_can_be_a_source(page: Page, web_server: WebServer, puppet: Puppet) -> None:
    """Neither broken UTF-8 nor NULs nor long lines nor an empty file stop the page."""
    for content in (b"\xff\xfe\0\x80 fn \xc3\n" * 30, b"", b"x" * 300_000, b"\r\n\r\n" * 20, b"\0"):
        puppet.path("src/parser.zig").write_bytes(content)
        os.utime(puppet.path("src/parser.zig"), (1, 1))
        page.visit(f"{web_server.url}#f1")
        page.until_shown("#sourceScroll")
        page.until(lambda: len(marks(page)) > 0 or page.is_shown("#sourceNote"))
        page.until_text("#sourceTitle", "parser.zig")


def test_what_the_parser_does_not_know_is_told(page: Page, web_server: WebServer, tmp_path: Path) -> None:
    """A newer syntax than that of the Zig by which the page was compiled is shown plainly, with a note."""
    sources = {"src/a.zig": "const a = §1;\nconst b = ` new;\n", "src/b.zig": "§ \n", "src/c.zig": "§x\n"}
    made = Puppet(tmp_path, sources).show(web_server)
    page.visit(f"{web_server.url}#f0")
    zig = web_server._page_compiler._client.zig
    page.until_text("#sourceNote", f"1 place in this file cannot be read by the parser of Zig {zig.version}")
    assert [line_text(page, line) for line in (1, 2)] == ["const a = 1;", "const b = ` new;"]
    assert page.texts(".tok-kw") == ["const", "const"]
    page.go("#f2")
    page.until_text("#sourceTitle", "c.zig")
    page.until_hidden("#sourceNote")
    made.path("src/b.zig").write_bytes(b"")
    os.utime(made.path("src/b.zig"), (1, 1))
    page.go("#f1")
    page.until_text("#sourceNote", "This file is empty.")


def test_findings_have_a_sign_on_their_line(
    page: Page, opened: Puppet, web_server: WebServer, tmp_path: Path
) -> None:
    """It leads to the finding, and comes while the source is open."""
    store = findings_of(web_server, tmp_path)
    store.add(finding(1, place=f"{opened.path('src/parser.zig')}:8:5"), b"x")
    page.until(lambda: page.texts(".findingBadge") == ["panic"])
    assert "return total" in page.text(".sourceRow:has(.findingBadge)")
    page.click(".findingBadge")
    page.until(lambda: page.hash == f"#finding/{1:016x}")
    page.until_text("#findingTitle", "number 1")
    page.driver.back()
    page.until(lambda: page.texts(".findingBadge") == ["panic"])


def test_what_is_copied_is_the_source(page: Page, opened: Puppet) -> None:
    """Without numbers and marks, and with the lines between."""
    page.script(
        "const rows = document.querySelectorAll('.sourceRow .lineText');"
        "getSelection().setBaseAndExtent(rows[2], 0, rows[5], rows[5].childNodes.length);"
    )
    copied = page.script(
        "const clipboardData = new DataTransfer();"
        "const event = new ClipboardEvent('copy', {clipboardData, bubbles: true, cancelable: true});"
        "document.querySelector('.lineText').dispatchEvent(event);"
        "return event.clipboardData.getData('text/plain')"
    )
    lines = opened.path("src/parser.zig").read_text().split("\n")
    assert copied == "\n".join(lines[2:6])


def test_the_tab_key_stops_once_and_arrows_go_from_mark_to_mark(page: Page, opened: Puppet) -> None:
    """Thousands of marks must not lie on the way of the Tab key."""
    stops = "return [...document.querySelectorAll('.sourceRow code a')].filter(a => a.tabIndex === 0).length"
    page.until(lambda: page.script(stops) == 1)
    page.script("document.querySelector('#sourceScroll a[tabindex=\"0\"]').focus()")
    first = page.script("return document.activeElement.dataset.point")
    assert first == str(opened.find("src/parser.zig")[0])
    page.press(Keys.ARROW_DOWN)
    page.until(lambda: page.script("return document.activeElement.dataset.point") == str(int(first) + 1))
    page.press(Keys.ARROW_RIGHT)
    page.until(lambda: page.script("return document.activeElement.dataset.point") == str(int(first) + 2))
    page.press(Keys.ENTER)
    page.until(lambda: page.hash == f"#l{int(first) + 2}")
    page.until(lambda: page.script(stops) == 1)


def test_the_strip_shows_the_whole_file_and_scrolls(
    page: Page, web_server: WebServer, tmp_path: Path
) -> None:
    """Clicking at its lower end leads there."""
    made = Puppet(tmp_path, {"src/a.zig": "".join("    §a();\n" for _ in range(2000))}).show(web_server)
    page.visit(f"{web_server.url}#f0")
    page.until_shown("#overviewStrip")
    pixels = "const c = document.querySelector('#overviewStrip');return c.width === 0 ? '' : c.toDataURL()"
    before = page.until(lambda: page.script(pixels))
    made.cover(*range(1000))
    page.until(lambda: page.script(pixels) != before)
    strip = page.find("#overviewStrip")
    ActionChains(page.driver).move_to_element_with_offset(
        strip, 0, strip.size["height"] // 2 - 5
    ).click().perform()
    page.until(lambda: int(page.texts(".lineNumber")[-1]) > 1800)


def test_open_source_follows_the_coverage_while_it_is_scrolled(
    page: Page, web_server: WebServer, tmp_path: Path
) -> None:
    """Rows that come into sight later are as up to date as those that were there."""
    made = Puppet(tmp_path, {"src/a.zig": "".join("    §a();\n" for _ in range(2000))}).show(web_server)
    page.visit(f"{web_server.url}#f0")
    page.until(lambda: marks(page))
    made.cover(*range(1000))
    page.until(lambda: marks(page)[0][2])
    page.script("document.querySelector('#sourceScroll').scrollTop = 20 * 990")
    page.until(lambda: any(line == 1001 for line, _, _ in marks(page)))
    found = {line: covered for line, _, covered in marks(page)}
    assert found[1000] is True
    assert found[1001] is False
