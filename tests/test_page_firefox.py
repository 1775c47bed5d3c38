"""The page in Firefox: that it works there, too, and comes back soon after the server was away."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzzserver.coverage.queue import CoverageMsg
from fuzzserver.webserver import WebServer
from fuzzserver.zig.installation import Zig
from tests.projects import FuzzedPair
from tests.support_firefox import FirefoxPage, firefox


@pytest.fixture(scope="module")
def fox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirefoxPage]:
    """One Firefox for all tests."""
    with firefox(tmp_path_factory.mktemp("firefox")) as page:
        yield page


def serve(zig: Zig, zig_cache: Path, pair: FuzzedPair, port: int = 0) -> WebServer:
    """A server that shows what was fuzzed."""
    server = WebServer(zig=zig, cache_dir=zig_cache, listen_address=("127.0.0.1", port))
    server.start()
    server.add_step(pair.step)
    server.post(CoverageMsg(pair.coverage_id, pair.step))
    return server


def test_page(zig: Zig, zig_cache: Path, debug_pair: FuzzedPair, fox: FirefoxPage) -> None:
    """Numbers, files, source; then the server goes away, and what was shown stays until it is back."""
    server = serve(zig, zig_cache, debug_pair)
    try:
        fox.open(server.url)
        fox.until("document.querySelector('#fileScroll')?.innerText.includes('parser.zig')")
        fox.until("/^[0-9]/.test(document.querySelector('#statTotalRuns').textContent)")
        fox.until("document.querySelector('#next a[href^=\"#f\"]') !== null")
        fox.script("document.querySelector('#next a[href^=\"#f\"]').click()")
        fox.until("document.querySelector('#sourceScroll')?.innerText.includes('fn ')")
        fox.until("document.querySelectorAll('#sourceScroll .mark').length > 0")
        assert fox.logged == []
    finally:
        server.stop()
    fox.until("document.querySelector('#connection').textContent.startsWith('reconnecting')")
    assert fox.script("document.querySelector('#sourceScroll').innerText.includes('fn ')")
    # Long enough for Firefox's own waiting time, of up to a minute, to have set in.
    time.sleep(4)
    port = server.port
    server = serve(zig, zig_cache, debug_pair, port)
    back = time.monotonic()
    try:
        fox.until("document.querySelector('#connection').textContent === 'connected'")
        assert time.monotonic() - back < 15
    finally:
        server.stop()
