"""The numbers and the chart of their history, in a real browser."""

import re
import time
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from fuzzserver import WebServer
from fuzzserver.coverage.history_file import Mark
from fuzzserver.zig.installation import Zig
from tests import support_puppet
from tests.support_browser import Page
from tests.support_ports import quiet_port
from tests.support_puppet import Puppet, finding, findings_of, growth

puppet = support_puppet.puppet

# How many pixels of the canvas have the colour of the line of covered points, and the lowest and highest row.
DRAWN = """
const canvas = document.querySelector("#chart canvas");
if (canvas === null || canvas.width === 0) return null;
const probe = document.createElement("span");
document.body.append(probe);
probe.className = "chartProbe";
probe.style.setProperty("color", "var(--covered)");
const [red, green, blue] = getComputedStyle(probe).color.match(/\\d+(\\.\\d+)?/g).map(Number);
probe.remove();
const width = canvas.width;
const copy = new OffscreenCanvas(width, canvas.height).getContext("2d", { willReadFrequently: true });
copy.drawImage(canvas, 0, 0);
const { data } = copy.getImageData(0, 0, width, canvas.height);
let pixels = 0, top = Infinity, bottom = -1, left = Infinity, right = -1;
for (let i = 0; i < data.length; i += 4) {
  const [r, g, b, alpha] = data.subarray(i, i + 4);
  const isLine = alpha > 250 && Math.abs(r - red) + Math.abs(g - green) + Math.abs(b - blue) < 12;
  const x = i / 4 % width, y = Math.floor(i / 4 / width);
  if (!isLine || x < 60 || x > width - 60) continue;
  pixels += 1;
  top = Math.min(top, y); bottom = Math.max(bottom, y); left = Math.min(left, x); right = Math.max(right, x);
}
return pixels === 0 ? null : { pixels, top, bottom, left, right, width };
"""


def label(page: Page) -> str:
    """What the chart tells those who do not see it."""
    return page.attribute(".chartPlot", "aria-label") or ""


def drawn(page: Page) -> dict[str, float]:
    """The line of covered points, once there is one."""
    return page.until(lambda: (found := page.script(DRAWN)) and found["pixels"] > 20 and found)


def times_told(page: Page) -> list[str]:
    """The lines of the tip at the cross."""
    return page.texts(".chartTip span")


@pytest.fixture
def grown(web_server: WebServer, tmp_path: Path) -> Puppet:
    """An example with ten minutes of history, and marks in it."""
    made = Puppet(tmp_path)
    made.cover(*range(16), runs=59_000)
    now = time.time()
    made.remember(growth(), [Mark(now - 600, "start", "begun"), Mark(now - 300, "restart", "crashed")])
    return made.show(web_server)


def test_numbers_are_readable_and_their_titles_exact(
    page: Page, web_server: WebServer, puppet: Puppet
) -> None:
    """Large numbers are short; who wants all digits points at them."""
    puppet.cover(*puppet.find("src/parser.zig"), runs=1_234_567)
    page.visit(web_server.url)
    page.until_text("#statTotalRuns", "1.23 M")
    assert page.attribute("#statTotalRuns", "title") == "1,234,567"
    page.until_text("#statUniqueRuns", "123 k")
    assert (page.attribute("#statUniqueRuns", "title") or "").startswith("123,456: 10.0 % of the runs")
    covered, total = len(puppet.find("src/parser.zig")), len(puppet.points)
    assert page.text("#statPoints") == f"{covered} / {total} points"
    assert page.text("#statCoverage") == f"{100 * covered / total:.1f} %"
    assert page.script("return document.querySelector('#coverageBar').style.getPropertyValue('--part')") == (
        f"{covered / total:.4f}"
    )


def test_lines_functions_and_files_are_counted(page: Page, web_server: WebServer, puppet: Puppet) -> None:
    """A line with one point covered of two counts, and a function that was entered."""
    page.visit(web_server.url)
    page.until_text("#statFunctions", "0 / 6")
    page.until_text("#statLines", "0 / 13")
    page.until_text("#statFiles", "0 / 4")
    puppet.cover(puppet.find("src/parser.zig", 5)[0])
    page.until_text("#statFunctions", "1 / 6")
    page.until_text("#statLines", "1 / 13")
    page.until_text("#statFiles", "1 / 4")
    assert (page.attribute("#statFunctions", "title") or "").startswith("1 of 6 functions")
    puppet.cover_all()
    page.until_text("#statFunctions", "6 / 6")
    page.until_text("#statLines", "13 / 13")
    page.until_text("#statFiles", "4 / 4")
    puppet.reset()
    page.until_text("#statLines", "0 / 13")


def test_speed_and_the_time_since_new_coverage_go_on(
    page: Page, web_server: WebServer, puppet: Puppet
) -> None:
    """The speed falls without reports, and the last news gets older."""
    page.visit(web_server.url)
    page.until_text("#statCoverage", "0.0 %")
    assert not re.search(r"\d", page.text("#statSinceNew"))
    assert "Nothing new" in (page.attribute("#statSinceNew", "title") or "")
    puppet.cover(0, runs=5000)
    page.until(lambda: re.fullmatch(r"\d+ s ago", page.text("#statSinceNew")))
    before = page.text("#statSinceNew")
    page.until(lambda: page.text("#statSinceNew") != before)

    def is_fast() -> bool:
        puppet.run(5000)
        speed = page.text("#statRecentSpeed")
        return speed[:1].isdigit() and speed != "0"

    page.until(is_fast)
    page.script("const now = performance.now.bind(performance); performance.now = () => now() + 11_000")
    page.until(lambda: page.text("#statRecentSpeed") == "\u2013")
    assert re.search(r"\d\d:\d\d:\d\d", page.attribute("#statSinceNew", "title") or "")


def test_findings_are_counted_and_lead_to_the_list(
    page: Page, web_server: WebServer, puppet: Puppet, tmp_path: Path
) -> None:
    """The number is a link."""
    store = findings_of(web_server, tmp_path)
    store.add(finding(1), b"")
    store.add(finding(2), b"")
    page.visit(web_server.url)
    page.until_text("#statFindings", "2")
    assert page.text("#viewsFindings") == "2"
    page.click("#statFindings a")
    page.until_shown("#viewFindings")
    assert page.hash == "#findings"
    assert puppet.n_runs == 0


def test_the_chart_draws_what_the_server_remembers(page: Page, web_server: WebServer, grown: Puppet) -> None:
    """A line that rises over the whole width, and its summary in words."""
    page.visit(web_server.url)
    line = drawn(page)
    assert line["right"] - line["left"] > (line["width"] - 120) * 0.9
    assert line["bottom"] - line["top"] > 30
    page.until(lambda: "rose from 0 to 16 of 19 points" in label(page))
    assert "10 min" in label(page)
    page.until(
        lambda: (
            {"start", "restart"}
            <= set(
                page.script(
                    "return [...document.querySelectorAll('.chartKeys li')].map(row => row.dataset.kind)"
                )
            )
        )
    )
    assert grown.n_runs == 59_000


@pytest.mark.usefixtures("puppet")
def test_the_chart_says_so_while_there_is_nothing(page: Page, web_server: WebServer) -> None:
    """One sample may be there at once, or none; then there is a line or a sentence, and no error."""
    page.visit(web_server.url)
    page.until(lambda: page.is_shown(".chartPlot") or "History appears here" in page.text("#chart"))


def test_the_chart_goes_on_live(page: Page, web_server: WebServer, puppet: Puppet) -> None:
    """What is new is appended, without a reload."""
    page.visit(f"{web_server.url}debug/")  # There each module is a file of its own, and can be asked.
    page.until(lambda: page.is_shown(".chartPlot"))
    samples = "return import('./wasm.js').then(({wasm}) => wasm.historyLen())"
    before = page.script(samples)

    def covers_more() -> bool:
        puppet.cover(min(len(puppet.covered), len(puppet.points) - 1), runs=1000)
        return page.script(samples) > before + 1

    page.until(covers_more)
    page.press("m")  # No key of the page: nothing but the line changes.
    page.until(lambda: (found := page.script(DRAWN)) and found["bottom"] - found["top"] > 20)


def test_the_history_survives_a_reload_and_a_restart_of_the_server(
    page: Page, zig: Zig, zig_cache: Path, tmp_path: Path
) -> None:
    """It is on disk; a restart is a gap with a mark and no line."""
    made = Puppet(tmp_path)
    made.cover(*range(16), runs=59_000)
    made.remember(growth(until=time.time() - 60))
    page.expect_lost_server()
    address = ("127.0.0.1", quiet_port())
    with WebServer(zig=zig, cache_dir=zig_cache, listen_address=address) as server:
        made.show(server)
        page.visit(server.url)
        page.until(lambda: "from 0 to 16" in label(page))
        page.driver.refresh()
        page.until(lambda: "from 0 to 16" in label(page))
        samples_before = len(server.coverage_files.newest()[0].history.samples)
        made.cover(16, runs=10)
    with WebServer(zig=zig, cache_dir=zig_cache, listen_address=address) as server:
        made.show(server)
        assert len(server.coverage_files.newest()[0].history.samples) > samples_before
        page.driver.refresh()
        page.until(lambda: "from 0 to 17" in label(page))
        kinds = [mark.kind for mark in server.coverage_files.newest()[0].history.marks]
        assert kinds == ["start", "start"]


@pytest.mark.usefixtures("grown")
def test_pointing_at_the_chart_tells_what_was_then(page: Page, web_server: WebServer) -> None:
    """Time, points, runs, speed, and the marks nearby."""
    page.visit(web_server.url)
    drawn(page)
    plot = page.find(".chartPlot")
    ActionChains(page.driver).move_to_element_with_offset(plot, 0, 10).perform()
    page.until(lambda: len(times_told(page)) >= 4)
    told = times_told(page)
    assert re.search(r"\d\d:\d\d:\d\d", told[0])
    assert re.fullmatch(r"[78] of 19 points \(\d+\.\d %\)", told[1])
    assert told[2].endswith(" runs")
    assert told[3].endswith(" runs/s")
    page.until(lambda: any("Fuzzer restarted: crashed" in each for each in _tips_along(page)))
    page.point_away()
    page.until_hidden(".chartTip")


def _tips_along(page: Page) -> list[str]:
    """What the tip says while the pointer passes the middle of the chart.

    What was there when the samples were made is further left by the time that has passed since then.
    """
    plot = page.find(".chartPlot")
    told: list[str] = []
    for x in range(9, -60, -6):
        ActionChains(page.driver).move_to_element_with_offset(plot, x, 10).perform()
        told += times_told(page)
    return told


@pytest.mark.usefixtures("grown")
def test_the_chart_zooms_by_dragging(page: Page, web_server: WebServer) -> None:
    """Into what was dragged over; a double click, or the button, shows all again."""
    page.visit(web_server.url)
    whole = drawn(page)
    plot = page.find(".chartPlot")
    drag = ActionChains(page.driver).move_to_element_with_offset(plot, -50, 0).click_and_hold()
    drag.move_by_offset(40, 0).perform()
    page.until_shown(".chartSelection")
    ActionChains(page.driver).move_by_offset(60, 0).release().perform()
    page.until(lambda: page.script("return !document.querySelectorAll('.chartButtons button')[2].disabled"))
    assert not page.is_shown(".chartSelection")
    page.until(lambda: page.script(DRAWN) != whole)
    page.all(".chartButtons button")[2].click()
    page.until(lambda: page.script("return document.querySelectorAll('.chartButtons button')[2].disabled"))
    page.until(lambda: abs(drawn(page)["bottom"] - whole["bottom"]) < 3)


@pytest.mark.usefixtures("grown")
def test_the_chart_can_be_read_and_zoomed_by_keys(page: Page, web_server: WebServer) -> None:
    """The arrows move through time, and what is there is announced."""
    page.visit(web_server.url)
    drawn(page)
    page.script("document.querySelector('.chartPlot').focus()")
    page.press(Keys.HOME)
    page.until(lambda: any(told.startswith("0 of 19 points") for told in times_told(page)))
    page.until_text("#live", "0 of 19 points")
    page.press(Keys.END)
    page.until(lambda: any(told.startswith("16 of 19 points") for told in times_told(page)))
    page.press(Keys.ARROW_LEFT)
    ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.ARROW_LEFT).key_up(Keys.SHIFT).perform()
    page.until(lambda: any(re.match(r"1[345] of 19 points", told) for told in times_told(page)))
    page.press("+")
    zoomed = "return !document.querySelectorAll('.chartButtons button')[2].disabled"
    page.until(lambda: page.script(zoomed))
    page.press("0")
    page.until(lambda: not page.script(zoomed))
    page.press("+", "-")
    page.until(lambda: not page.script(zoomed))
    page.press(Keys.ESCAPE)
    page.until_hidden(".chartTip")


def test_findings_are_marks_in_the_chart(
    page: Page, web_server: WebServer, grown: Puppet, tmp_path: Path
) -> None:
    """They are on the time at which they were found."""
    store = findings_of(web_server, tmp_path)
    web_server.set_target(grown.target())
    store.add(finding(1, message="reached unreachable", first_time=time.time() - 300), b"")
    page.visit(web_server.url)
    drawn(page)
    page.until(lambda: "Finding" in page.texts(".chartKeys li"))
    page.until(lambda: any("Finding: panic: reached unreachable" in each for each in _tips_along(page)))
    page.until(lambda: "1 finding" in label(page))


@pytest.mark.usefixtures("grown")
def test_the_chart_follows_the_theme(page: Page, web_server: WebServer) -> None:
    """Its colours are those of the page."""
    page.visit(web_server.url)
    drawn(page)
    before = page.script("return document.querySelector('#chart canvas').toDataURL()")
    page.prefer(theme="dark")
    page.until(lambda: page.script("return document.querySelector('#chart canvas').toDataURL()") != before)
    drawn(page)
