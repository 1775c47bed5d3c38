"""Zig's own page on our server: it gets a policy that it can live with, and needs to know of no token."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzzserver import FuzzRunStep, WebServer
from fuzzserver.access import Access
from fuzzserver.zig.installation import Zig
from tests.projects import FuzzedPair
from tests.support_browser import PATIENCE, Page
from tests.support_maps import show_pair, write_seen


@pytest.fixture(params=[False, True], ids=["open", "with token"])
def server(request: pytest.FixtureRequest, zig: Zig, zig_cache: Path) -> Iterator[WebServer]:
    """A server whose page is Zig's."""
    access = Access(token=request.param)
    with WebServer(zig=zig, lib_dir=zig.lib_dir, cache_dir=zig_cache, access=access) as running:
        yield running


def test_zigs_page_works_under_its_policy(
    page: Page, server: WebServer, debug_pair: FuzzedPair, tmp_path: Path
) -> None:
    """Its style sheet is in its HTML, and its HTML is made of texts; everything else is as strict as ours."""
    # Chromium asks for an icon, which that page does not have; and it stumbles over covered points that its
    # source view does not show.
    page.expect("favicon.ico", "reading 'classList'")
    page.expect_lost_server()
    path = tmp_path / "coverage"
    path.write_bytes(debug_pair.coverage_file.read_bytes())
    step = FuzzRunStep("copied", debug_pair.executable, inputs=debug_pair.step.inputs, coverage_file=path)
    show_pair(server, step, debug_pair)
    page.open(server.url)
    page.until(lambda: page.text("#statTotalRuns").isdigit(), PATIENCE)
    page.until(lambda: len(page.texts("#entryPointsList a")) == 2)
    page.click("#entryPointsList a")
    page.until_text("#sourceText", "fuzzSum")
    write_seen(step, 7, b"\xaa")  # It draws its marks when an update comes.
    page.until(lambda: page.texts("#sourceText .c"))
    assert page.script("return getComputedStyle(document.querySelector('#sourceText .l')).display") == (
        "inline-block"
    )
    policy = page.script("return fetch('').then(answer => answer.headers.get('content-security-policy'))")
    directives = dict(each.strip().partition(" ")[::2] for each in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert directives["style-src"] == "'self' 'unsafe-inline'"
    assert not {"trusted-types", "require-trusted-types-for"} & directives.keys()
    page.driver.refresh()
    page.until(lambda: page.text("#statTotalRuns") == "7")
