"""The newer page of Zig as it is, on our server: in a browser, with its wasm compiled by its own compiler."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzzserver import FuzzRunStep, SourcePath, WebServer
from fuzzserver.access import Access
from fuzzserver.status import TargetStatus, TestStatus
from fuzzserver.web.routes import PAGE_WASM_MODE
from fuzzserver.zig.build_web import BuildWeb
from fuzzserver.zig.installation import Zig
from tests.support_browser import PATIENCE, Page
from tests.support_puppet import Puppet
from tests.support_time import WAIT
from tests.support_web import request
from tests.zigs import ALWAYS, zig_of

IN_FUZZER = "document.querySelector('#fuzzEntries > div').shadowRoot"
"""Where the page shows coverage."""


PERCENT = {"0.15.2": 1, "0.16.0": 1, "0.17.0": 100}
"""What the page of each version takes a share times, before it shows it with a percent sign."""


@pytest.fixture
def server(version: str, zig: Zig, zig_cache: Path) -> Iterator[WebServer]:
    """A server with a token, of which that page knows nothing, and an older Zig of its own."""
    lib_dir = zig_of(version).lib_dir
    build_web = BuildWeb.of(lib_dir, zig, zig_cache)
    assert build_web is not None
    build_web.build_wasm(PAGE_WASM_MODE)  # Not while the browser waits.
    with WebServer(zig=zig, lib_dir=lib_dir, cache_dir=zig_cache, access=Access(token=True)) as running:
        yield running


def in_fuzzer(page: Page, selector: str) -> list[str]:
    """What elements in the page's part about the fuzzer say."""
    return page.script(
        f"return [...{IN_FUZZER}.querySelectorAll(arguments[0])].map(e => e.textContent)",
        selector,
    )


def numbers(server: WebServer, puppet: Puppet, percent: int) -> list[str]:
    """The numbers that we show, in that page's words, without those that depend on the time."""
    path = f"/api/1/targets/{puppet.id}"
    known = json.loads(request(server.port, path, authorization=f"Bearer {server.token}").body)
    runs, unique, covered, points = (known[name] for name in ("runs", "unique_runs", "covered", "points"))
    return [
        f"{runs}",
        f"{unique} ({percent * unique / runs:.1f}%)",
        f"{covered} / {points} ({percent * covered / points:.1f}%)",
    ]


@pytest.mark.parametrize(
    "version",
    [pytest.param(version, marks=() if version in ALWAYS else pytest.mark.all_zigs) for version in PERCENT],
)
def test_zigs_newer_page_works(version: str, page: Page, server: WebServer, tmp_path: Path) -> None:
    """Steps, coverage as it grows, a source with its marks, and a rebuild; no complaint of the browser."""
    page.expect_lost_server()
    puppet = Puppet(tmp_path)
    puppet.cover(*puppet.find("src/parser.zig", function="sum"), runs=2000)
    (test,) = puppet.find("src/main.zig", function="fuzz sum")
    server.set_status("fuzzing", "")
    server.set_target(
        puppet.target(tests=(TestStatus("fuzz sum", "fuzzing"), TestStatus("other", "crashed")))
    )
    asked = threading.Event()
    server.set_rebuild(asked.set)
    sources = tuple(SourcePath(str(tmp_path), point.path) for point in puppet.points)
    server.add_step(FuzzRunStep("sources", puppet.executable, inputs=sources))
    puppet.show(server, test)
    page.open(server.build_web_url)

    def shown() -> list[str]:
        slots = ("stat-total-runs", "stat-unique-runs", "stat-coverage")
        return [page.text(f"#fuzzEntries [slot={slot}]") for slot in slots]

    page.until(lambda: shown() == numbers(server, puppet, PERCENT[version]), PATIENCE)
    page.until(
        lambda: page.texts("#stepList li") == [f"compile {puppet.name}", "fuzz fuzz sum", "fuzz other"]
    )
    classes = "return [...document.querySelectorAll('#stepList li')].map(step => step.className)"
    page.until(lambda: page.script(classes) == ["step-success", "step-wip", "step-failure"])
    page.until(lambda: page.text("#summaryStatus") == "Idle")

    puppet.cover_all(runs=500)
    page.until(lambda: shown() == numbers(server, puppet, PERCENT[version]))
    server.set_target(
        puppet.target(tests=(TestStatus("fuzz sum", "stopped"), TestStatus("other", "crashed")))
    )
    page.until(lambda: page.attribute("#stepList li:nth-child(2)", "class") == "step-success")

    page.until(lambda: not page.is_shown("#fuzzStatus"))
    place = f"{puppet.path('src/main.zig')}:{puppet.points[test].line}:{puppet.points[test].column} "
    page.until(lambda: in_fuzzer(page, "#entryPointList code") == [place])
    # Its links are no links, but buttons with scripts in their HTML.
    page.script(f"{IN_FUZZER}.querySelector('#entryPointList button').click()")
    text = puppet.path("src/main.zig").read_text().strip()
    page.until(lambda: in_fuzzer(page, "#sourceText") == [text])
    page.until(lambda: len(in_fuzzer(page, "#sourceText .c")) == len(puppet.find("src/main.zig")))

    page.click("#buttonRebuild")
    assert asked.wait(WAIT)
    server.set_status("building", "")
    page.until_text("#summaryStatus", "Running...")
    page.until(lambda: page.attribute("#buttonRebuild", "disabled") is not None)

    server.set_target(TargetStatus("other", "other", "building"))
    page.until(lambda: page.texts("#stepList li")[-1:] == ["compile other"])
    page.until(lambda: page.is_shown("#fuzz") and shown())
