"""Files, functions, and what is newly covered, in a real browser."""

from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from fuzzserver import WebServer
from tests import support_puppet
from tests.support_browser import Page
from tests.support_puppet import Puppet, big_map

puppet = support_puppet.puppet

TREE = ["parser.zig", "deep/inner", "util.c", "zig/lib/std", "main.zig"]


def names(page: Page, selector: str = "#fileScroll") -> list[str]:
    """The rows of a list, from the top."""
    return page.script(
        "return [...document.querySelectorAll(arguments[0])].map(row => [row.getBoundingClientRect().top, "
        "row.querySelector('.listName').textContent]).sort((a, b) => a[0] - b[0]).map(([, name]) => name)",
        f"{selector} .listRow",
    )


def sort_by(page: Page, head: str, heads: str = "#fileHeads") -> None:
    """Click at the head of a column."""
    page.click_text(f"{heads} button", head)


def row_text(page: Page, name: str, selector: str = "#fileScroll") -> str:
    """All that a row says."""
    return page.script(
        "return [...document.querySelectorAll(arguments[0])]"
        ".find(row => row.querySelector('.listName').textContent === arguments[1])?.textContent ?? ''",
        f"{selector} .listRow",
        name,
    )


@pytest.fixture
def flat(page: Page, web_server: WebServer, puppet: Puppet) -> Puppet:
    """The page with the files in one list."""
    page.visit(web_server.url)
    page.until(lambda: names(page))
    page.click("#filesAsTree")
    page.until(lambda: "src" not in names(page))
    return puppet


@pytest.mark.usefixtures("puppet")
def test_files_are_a_tree_that_opens_and_closes(page: Page, web_server: WebServer) -> None:
    """Folders with one folder only are one row; those of Zig's library are closed at first."""
    page.visit(web_server.url)
    page.until(lambda: names(page) == TREE)
    expanded = "return [...document.querySelectorAll('#fileScroll .listRow')].map(row => row.ariaExpanded)"
    assert page.script(expanded) == [None, "true", None, "false", None]
    page.click_text("#fileScroll .listRow", "zig/lib/std")
    page.until(
        lambda: names(page) == ["parser.zig", "deep/inner", "util.c", "zig/lib/std", "mem.zig", "main.zig"]
    )
    page.click_text("#fileScroll .listRow", "deep/inner")
    page.until(lambda: names(page) == ["parser.zig", "deep/inner", "zig/lib/std", "mem.zig", "main.zig"])


def test_files_of_several_roots_keep_apart(page: Page, web_server: WebServer, tmp_path: Path) -> None:
    """A build of Zig 0.17 has files below the project, the global cache and Zig's library."""
    paths = ["work/src/main.zig", "cache/p/json-1/src/main.zig", "zig/lib/std/mem.zig", "zig/lib/std/std.zig"]
    Puppet(tmp_path, dict.fromkeys(paths, "fn f() void { §a(); }\n"), zig_version="0.17.0").show(web_server)
    page.visit(web_server.url)
    page.until(lambda: {"work/src", "cache/p/json-1/src", "zig/lib/std"} <= set(names(page)))
    page.click("#filesAsTree")
    page.until(lambda: sorted(names(page)) == ["main.zig", "main.zig", "mem.zig", "std.zig"])
    page.fill("#fileFilter", "json-1")
    page.until(lambda: names(page) == ["main.zig"])
    page.click("#fileScroll .listRow a")
    page.until_text("#sourceTitle", "cache/p/json-1/src/main.zig")
    page.until(lambda: "f" in page.texts("#sourceScroll .tok-fn"))


def test_folders_add_up_what_is_in_them(page: Page, web_server: WebServer, puppet: Puppet) -> None:
    """Points and coverage, and they are live."""
    page.visit(web_server.url)
    page.until(lambda: "0 / 4" in row_text(page, "deep/inner"))
    util = puppet.find("src/deep/inner/util.c")
    puppet.cover(*util[:3])
    page.until(lambda: "3 / 4" in row_text(page, "deep/inner") and "75.0 %" in row_text(page, "deep/inner"))
    assert "3 / 4" in row_text(page, "util.c")
    puppet.cover(*util)
    page.until(lambda: "4 / 4" in row_text(page, "deep/inner") and "100.0 %" in row_text(page, "deep/inner"))


@pytest.mark.parametrize(
    ("head", "order"),
    [
        ("File", ["main.zig", "mem.zig", "parser.zig", "util.c"]),
        ("Missed", ["parser.zig", "mem.zig", "main.zig", "util.c"]),
        ("Points", ["parser.zig", "util.c", "mem.zig", "main.zig"]),
        ("Covered", ["util.c", "parser.zig", "main.zig", "mem.zig"]),
    ],
)
def test_files_are_sorted_by_each_column(page: Page, flat: Puppet, head: str, order: list[str]) -> None:
    """Both ways; ties are in the order of their names. What is missed most is on top at first."""
    # Covered of: main 1/2, parser 7/10, util 4/4, mem 0/3.
    flat.cover(0, *flat.find("src/parser.zig")[:7], *flat.find("src/deep/inner/util.c"))
    page.until(lambda: "7 / 10" in row_text(page, "parser.zig"))
    if head != "Missed":
        sort_by(page, head)
    else:  # It is sorted so already, by what was covered before.
        sort_by(page, head)
        sort_by(page, head)
    page.until(lambda: names(page) == order)
    sorted_heads = "#fileHeads [aria-sort]:not([aria-sort=none])"
    assert page.attribute(sorted_heads, "aria-sort") == ("ascending" if head == "File" else "descending")
    sort_by(page, head)
    # Those with the same value may come in any order.
    page.until(lambda: names(page)[0] in order[-2:] and names(page)[-1] in order[:2])


@pytest.mark.usefixtures("flat")
def test_files_are_filtered_by_a_part_of_the_path(page: Page) -> None:
    """Letters of both cases are the same; what does not match says so, and Escape brings all back."""
    page.fill("#fileFilter", "PARSER")
    page.until(lambda: names(page) == ["parser.zig"])
    page.until_text("#filesNote", "1 of 4 files")
    page.fill("#fileFilter", "deep/inner")
    page.until(lambda: names(page) == ["util.c"])
    page.fill("#fileFilter", "nothing like it")
    page.until_text("#filesNote", "No path matches")
    assert names(page) == []
    page.press(Keys.ESCAPE)
    page.until(lambda: len(names(page)) == 4)
    page.until_hidden("#filesNote")


@pytest.mark.usefixtures("puppet")
def test_a_filter_opens_the_folders_of_what_matches(page: Page, web_server: WebServer) -> None:
    """In the tree, too."""
    page.visit(web_server.url)
    page.until(lambda: names(page) == TREE)
    page.fill("#fileFilter", "mem")
    page.until(lambda: "mem.zig" in names(page) and "parser.zig" not in names(page))


def test_library_and_covered_files_can_be_hidden(page: Page, flat: Puppet) -> None:
    """Each by a box, which is remembered for the next visit."""
    page.click("#hideStd")
    page.until(lambda: "mem.zig" not in names(page))
    page.until_text("#filesNote", "3 of 4 files")
    flat.cover(*flat.find("src/main.zig"))
    page.until(lambda: "2 / 2" in row_text(page, "main.zig"))
    page.click("#hideCovered")
    page.until(lambda: sorted(names(page)) == ["parser.zig", "util.c"])
    page.driver.refresh()
    page.until(lambda: sorted(names(page)) == ["parser.zig", "util.c"])
    page.click("#hideStd")
    page.click("#hideCovered")
    page.until(lambda: len(names(page)) == 4)


@pytest.mark.usefixtures("flat")
def test_a_row_opens_its_file_and_is_marked(page: Page) -> None:
    """By pointer and by keyboard."""
    page.click_text("#fileScroll a", "util.c")
    page.until_text("#sourceTitle", "util.c")
    page.until(lambda: page.texts("#fileScroll [aria-current=true] .listName") == ["util.c"])
    page.fill("#fileFilter", "")
    page.press(Keys.ARROW_DOWN, Keys.END, Keys.HOME, Keys.ARROW_DOWN)
    focused = page.script("return document.activeElement.querySelector('.listName')?.textContent")
    assert focused == names(page)[1]
    page.press(Keys.ENTER)
    page.until_text("#sourceTitle", focused)


@pytest.mark.usefixtures("puppet")
def test_the_tree_obeys_the_keys_of_trees(page: Page, web_server: WebServer) -> None:
    """Left closes or goes up, right opens or goes down."""
    page.visit(web_server.url)
    page.until(lambda: names(page) == TREE)
    page.fill("#fileFilter", "")
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_LEFT)
    page.until(lambda: names(page) == ["parser.zig", "deep/inner", "zig/lib/std", "main.zig"])
    page.press(Keys.ARROW_RIGHT)
    page.until(lambda: names(page) == TREE)
    focused = "return document.activeElement.querySelector('.listName').textContent"
    page.press(Keys.ARROW_RIGHT)
    assert page.script(focused) == "util.c"
    page.press(Keys.ARROW_LEFT)
    assert page.script(focused) == "deep/inner"


def test_rows_do_not_move_under_the_pointer(page: Page, flat: Puppet) -> None:
    """They are sorted anew when nobody points at them any more, nor has the focus there."""
    page.script("document.activeElement.blur()")
    page.point_at("#fileScroll .listRow")
    before = names(page)
    assert before[0] == "parser.zig"
    flat.cover(*flat.find("src/parser.zig"))
    page.until(lambda: "10 / 10" in row_text(page, "parser.zig"))
    page.stays(lambda: names(page) == before)
    page.point_away()
    page.until(lambda: names(page)[-1] == "parser.zig")


@pytest.mark.usefixtures("puppet")
def test_functions_are_listed_and_lead_to_their_source(page: Page, web_server: WebServer) -> None:
    """Those of Zig's library are hidden until they are asked for."""
    page.visit(web_server.url)
    page.click("#tabFunctions")
    own = ["main.fuzzSum", "main.test.fuzz sum", "parser.digit", "parser.sum", "util.count_c"]
    page.until(lambda: sorted(names(page, "#functionScroll")) == own)
    page.click("#hideStdFunctions")
    page.until(lambda: "mem.eql" in names(page, "#functionScroll"))
    sort_by(page, "Function", "#functionHeads")
    page.until(lambda: names(page, "#functionScroll") == sorted([*own, "mem.eql"]))
    assert "parser.zig:12" in row_text(page, "parser.digit", "#functionScroll")
    page.fill("#functionFilter", "digit")
    page.until(lambda: names(page, "#functionScroll") == ["parser.digit"])
    page.click("#functionScroll a")
    page.until_text("#sourceTitle", "parser.zig")
    page.until_shown(".sourceRow .mark.current")
    page.until(lambda: page.texts("#functionScroll [aria-current=true] .listName") == ["parser.digit"])


def test_functions_follow_the_coverage(page: Page, web_server: WebServer, puppet: Puppet) -> None:
    """Counts are live; what is covered as a whole can be hidden."""
    page.visit(web_server.url)
    page.click("#tabFunctions")
    page.until(lambda: "0 / 4" in row_text(page, "parser.digit", "#functionScroll"))
    puppet.cover(*puppet.find("src/parser.zig", function="digit"))
    page.until(lambda: "4 / 4" in row_text(page, "parser.digit", "#functionScroll"))
    page.click("#hideCoveredFunctions")
    page.until(lambda: "parser.digit" not in names(page, "#functionScroll"))
    page.driver.refresh()  # The tab is remembered, too.
    page.until(lambda: names(page, "#functionScroll"))
    assert "parser.digit" not in names(page, "#functionScroll")


def test_new_coverage_is_listed_with_the_newest_on_top(
    page: Page, web_server: WebServer, puppet: Puppet
) -> None:
    """Points of a function that were covered together are one entry."""
    page.visit(web_server.url)
    page.click("#tabNew")
    page.until_text("#newNote", "Nothing new yet")
    puppet.cover(*puppet.find("src/parser.zig", function="digit"))
    page.until(lambda: page.texts(".newsRow .newsPlace") == ["parser.zig:12 +3 points"])
    assert page.texts(".newsRow .newsFunction") == ["parser.digit"]
    page.until(lambda: "second" in page.text(".newsRow time") or "now" in page.text(".newsRow time"))
    puppet.cover(*puppet.find("src/main.zig", 5))
    page.until(lambda: page.texts(".newsRow .newsPlace")[0] == "main.zig:5")
    assert len(page.texts(".newsRow")) == 2
    page.click(".newsRow a")
    page.until_text("#sourceTitle", "main.zig")
    page.until_shown(".mark.current")


def test_what_was_covered_before_is_listed_after_a_reload(
    page: Page, web_server: WebServer, puppet: Puppet
) -> None:
    """The server remembers when each point was covered."""
    page.visit(web_server.url)
    page.until_text("#statCoverage", "0.0 %")
    # The server's own look must have come before, else nobody knows when.
    coverage_map = web_server.coverage_files.newest()[0]
    page.until(lambda: coverage_map.history.samples)
    puppet.cover(*puppet.find("src/main.zig", 5))
    page.until(lambda: max(coverage_map.history.first_covered) > 1)
    page.driver.refresh()
    page.click("#tabNew")
    page.until(lambda: page.texts(".newsRow .newsPlace") == ["main.zig:5"])


def test_follow_scrolls_the_source_until_the_reader_takes_over(
    page: Page, web_server: WebServer, tmp_path: Path
) -> None:
    """It goes where something is new; scrolling, a key or another place end it."""
    lines = "".join("    §a();\n" for _ in range(400))
    made = Puppet(
        tmp_path,
        {"src/long.zig": f"fn f() void {{\n{lines}}}\n", "src/b.zig": "fn b() void {\n    §c();\n}\n"},
    )
    made.show(web_server)
    page.visit(f"{web_server.url}#f0")
    page.until_shown(".sourceRow")
    page.click("#tabNew")
    page.click("#follow")
    assert page.attribute("#follow", "aria-pressed") == "true"
    made.cover(300)
    page.until(lambda: page.hash == "#l300")
    page.until(lambda: page.texts(".sourceRow.current .lineNumber, .mark.current") != [])
    page.until(lambda: "302" in page.texts(".lineNumber"))
    made.cover(400)
    page.until(lambda: page.hash == "#l400")
    page.until_text("#sourceTitle", "b.zig")
    page.go("#f0")
    page.until(lambda: page.attribute("#follow", "aria-pressed") == "false")
    page.click("#follow")
    page.until_shown(".sourceRow")
    page.script(
        "const wheel = new WheelEvent('wheel', {deltaY: 9, bubbles: true});"
        "document.querySelector('#sourceScroll').dispatchEvent(wheel)"
    )
    page.until(lambda: page.attribute("#follow", "aria-pressed") == "false")
    made.cover(200)
    page.until(lambda: page.text("#statPoints").startswith("3 /"))
    page.stays(lambda: page.hash == "#f0")


@pytest.mark.usefixtures("puppet")
def test_where_to_look_next_leads_to_what_is_missed(
    page: Page, web_server: WebServer, puppet: Puppet
) -> None:
    """Entry points, the files with most to gain, and functions that were begun."""
    puppet.cover(puppet.find("src/parser.zig", function="sum")[0])
    web_server.coverage_files.newest()[0].entry_points = (0,)
    page.visit(web_server.url)
    page.until(lambda: page.texts("#nextFiles a") == ["parser.zig", "deep/inner/util.c", "main.zig"])
    page.until(lambda: page.texts("#nextFunctions a") == ["parser.sum"])
    page.until(lambda: page.texts("#entryPointsList a") == ["main.zig:5:5"])
    page.click("#nextFiles a")
    page.until_text("#sourceTitle", "parser.zig")
    page.until_hidden("#next")
    page.click("#closeSource")
    page.until_shown("#next")
    assert page.hash == ""
    page.click("#entryPointsList a")
    page.until_shown(".mark.current")
    assert page.hash == "#l0"


def test_a_million_points_are_listed_at_once(page: Page, web_server: WebServer, tmp_path: Path) -> None:
    """Only rows in sight are in the document, and an update disturbs nobody for long."""
    big = big_map(tmp_path)
    big.cover_share(10)
    big.show(web_server)
    page.visit(web_server.url)
    page.until_text("#statPoints", "100,000 / 1,000,000 points")
    page.until(lambda: len(names(page)) > 5)
    page.click("#tabFunctions")
    page.until_text("#functionsNote", "10,001 functions")
    assert len(page.all("#functionScroll .listRow")) < 80
    page.until_text("#statLines", " / 505 k")
    big.cover(1, 2, 3)
    page.until_text("#statPoints", "100,003 / 1,000,000 points")
    # The source of 50,000 lines.
    page.go("#f0:40000")
    page.until_text("#sourceTitle", "file0.zig")
    page.until_text(".sourceRow.current", "const a39999 = 39999;")
    assert len(page.all(".sourceRow")) < 120
    page.script("document.querySelector('#sourceScroll').scrollTop = 1e9")
    page.until(lambda: "50000" in page.texts(".lineNumber"))
    assert len(page.all(".sourceRow")) < 120
    assert page.script("return document.querySelectorAll('*').length") < 3000
