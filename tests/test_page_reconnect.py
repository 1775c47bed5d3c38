"""The page after its connection was cut, in a real browser: what it still has is not sent again."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzzserver import WebServer
from fuzzserver.wire.abi import OwnTag, ToClientTag
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.wasm import build_wasm_binary
from tests import support_heard, support_puppet
from tests.support_browser import PATIENCE, Page
from tests.support_heard import asked, cut, heard, tags
from tests.support_ports import quiet_port
from tests.support_puppet import MAIN, PARSER, Puppet

puppet, recorded = support_puppet.puppet, support_heard.recorded

INDEX, UPDATE, HISTORY = ToClientTag.SOURCE_INDEX, ToClientTag.COVERAGE_UPDATE, OwnTag.HISTORY


def fetched(page: Page) -> list[str]:
    """The addresses of all points and sources that it asked for."""
    names = page.script("return performance.getEntriesByType('resource').map(({ name }) => name)")
    return [name for name in names if "/points/" in name or "/source/" in name]


def test_an_index_is_sent_once(recorded: Page, web_server: WebServer, tmp_path: Path) -> None:
    """Nothing is built up anew: source, lists and numbers stay, and what came meanwhile is added."""
    page = recorded
    made = Puppet(tmp_path)
    made.cover(0)
    made.show(web_server, 0, 1)
    page.visit(web_server.url)
    page.until_text("#statTotalRuns", "1,000")
    page.until_text("#statLines", "1 / ")
    page.until_text("#statFunctions", "1 / ")
    page.until(lambda: len(page.texts("#entryPointsList a")) == 2)
    assert tags(page).count(INDEX) == 1
    page.fill("#fileFilter", "src/parser")
    page.until(lambda: page.texts("#fileScroll a") == ["parser.zig"])
    page.click("#fileScroll a")
    page.until(lambda: len(page.texts(".mark")) == 10)
    before = {each: page.text(each) for each in ("#statLines", "#statFunctions", "#statFiles")}

    cut(page, HISTORY)
    assert INDEX not in tags(page)
    assert "index=" in asked(page)
    assert next(rest for tag, rest in heard(page) if tag == HISTORY) == 1, "it replaces what the page has"
    assert {each: page.text(each) for each in before} == before
    assert sorted(each.split("/")[3] for each in fetched(page)) == ["points", "source"], "fetched again"
    assert page.script("return document.querySelector('#fileFilter').value") == "src/parser"

    made.cover(*made.find("src/parser.zig"), runs=58)
    page.until_text("#statTotalRuns", "1,058")
    page.until(lambda: len(page.texts(".mark.covered")) == 10)
    page.go("#coverage")
    page.until(lambda: len(page.texts("#entryPointsList a")) == 2)


def test_what_was_covered_while_it_was_away_is_shown(
    recorded: Page, web_server: WebServer, puppet: Puppet
) -> None:
    """The first update after an interruption holds all bits."""
    page = recorded
    puppet.cover(0)
    page.visit(web_server.url)
    page.until_text("#statPoints", "1 / 19")
    with page.offline():
        page.script("sockets.at(-1).close()")
        page.until_text("#connection", "reconnecting")
        puppet.cover(1, 2, 3)
    page.until_text("#statPoints", "4 / 19")
    assert INDEX not in tags(page)
    puppet.reset()
    page.until_text("#statPoints", "0 / 19")


def test_another_build_is_sent_after_an_interruption(
    recorded: Page, web_server: WebServer, puppet: Puppet, tmp_path: Path
) -> None:
    """The page asks for what it has; the server has something newer."""
    page = recorded
    page.visit(web_server.url)
    page.until_text("#statPoints", "0 / 19")
    page.script("sockets.at(-1).close()")
    other = Puppet(tmp_path / "2", {"src/main.zig": MAIN, "src/parser.zig": PARSER}, coverage_id=2)
    other.cover(*other.find("src/main.zig"))
    other.show(web_server)
    page.until_text("#statPoints", "2 / 12")
    cut(page)
    assert INDEX not in tags(page)
    page.until_text("#statPoints", "2 / 12")
    assert puppet.id != other.id


def test_targets_to_and_fro(recorded: Page, web_server: WebServer, tmp_path: Path) -> None:
    """The page has but one index: that of the target that was chosen last."""
    page = recorded
    one = Puppet(tmp_path / "1").show(web_server)
    two = Puppet(tmp_path / "2", {"src/main.zig": MAIN}, name="two", coverage_id=2).show(web_server)
    for each in one, two:
        web_server.set_target(each.target())
    page.visit(web_server.url)
    page.until_text("#statPoints", "0 / 19")
    for made, points in (two, "0 / 2"), (one, "0 / 19"), (two, "0 / 2"):
        page.click("#targetButton")
        page.click_text("#targetList a.name", made.name)
        page.until_text("#statPoints", points)
        page.until(lambda: UPDATE in tags(page))
        assert "index=" not in asked(page)
        assert tags(page).count(INDEX) == 1
        cut(page)
        assert f"target={made.id}&index=" in asked(page)
        assert INDEX not in tags(page)
        made.cover(0)
        page.until_text("#statPoints", points.replace("0", "1"))
        made.reset()
        page.until_text("#statPoints", points)
    # The same map by another address: nothing of it is in sight until it comes.
    page.driver.execute_script(
        "history.pushState(null, '', '/'); dispatchEvent(new PopStateEvent('popstate'))"
    )
    page.until_text("#statPoints", "0 / 19")


def test_a_restarted_server_sends_its_index(
    recorded: Page, zig: Zig, zig_cache: Path, tmp_path: Path
) -> None:
    """Its name for the same index is another one; the page finds that it is the same."""
    page = recorded
    page.expect_lost_server()
    made = Puppet(tmp_path)
    address = ("127.0.0.1", quiet_port())
    for runs in 1, 2, 4:
        with WebServer(zig=zig, cache_dir=zig_cache, listen_address=address) as server:
            made.run(runs)
            made.show(server)
            if runs == 1:
                page.visit(server.url)
            page.until_text("#statTotalRuns", str(2 * runs - 1))
            assert tags(page).count(INDEX) == 1
            cut(page)
            assert INDEX not in tags(page)


def test_details_that_were_lost_come_with_the_next_connection(
    recorded: Page, web_server: WebServer, puppet: Puppet
) -> None:
    """Names of functions are asked for once more, though the index does not come again."""
    page = recorded
    page.expect("details of the coverage points", "ERR_BLOCKED_BY_CLIENT", "/points/")
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/points/*"]})
    page.visit(web_server.url)
    page.until_text("#statLines", "0 / ")
    assert "/" not in page.text("#statFunctions")
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    cut(page)
    assert INDEX not in tags(page)
    page.until_text("#statFunctions", "0 / ")
    assert puppet.n_runs == 0


@pytest.fixture
def slow_wasm(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Keeps the page's wasm back; the function lets it go."""
    go_on = threading.Event()

    def build_late(*args) -> Path:
        assert go_on.wait(PATIENCE)
        return build_wasm_binary(*args)

    monkeypatch.setattr("fuzzserver.zig.page_compiler.build_wasm_binary", build_late)
    return go_on.set


def test_a_connection_that_is_cut_before_the_page_can_read(
    recorded: Page, web_server: WebServer, slow_wasm: Callable[[], None], tmp_path: Path
) -> None:
    """What was not read is sent again."""
    page = recorded
    Puppet(tmp_path).show(web_server)
    try:
        page.open(web_server.url)
        page.until(lambda: INDEX in tags(page))
        cut(page)
        assert "index=" not in asked(page)
        assert INDEX in tags(page)
    finally:
        slow_wasm()
    page.until_text("#statPoints", "0 / 19", timeout=PATIENCE)
    cut(page)
    assert INDEX not in tags(page)
