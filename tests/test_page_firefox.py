"""The page in Firefox: that it works there, too, and comes back when the server was away."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzzserver.coverage.queue import CoverageMsg
from fuzzserver.webserver import WebServer
from fuzzserver.zig.installation import Zig
from tests.projects import FuzzedPair
from tests.support_firefox import FirefoxPage, firefox
from tests.support_ports import quiet_port

COUNTERS = """(() => {
  window.counts = { sockets: 0, probes: 0 };
  window.WebSocket = class extends WebSocket {
    constructor(...args) {
      super(...args);
      counts.sockets += 1;
    }
  };
  const original = fetch;
  window.fetch = (...args) => {
    counts.probes += 1;
    return original(...args);
  };
})()"""
"""Counts connections, and questions whether there is a server."""


@pytest.fixture(scope="module")
def fox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirefoxPage]:
    """One Firefox for all tests."""
    with firefox(tmp_path_factory.mktemp("firefox")) as page:
        yield page


def serve(zig: Zig, zig_cache: Path, pair: FuzzedPair, port: int) -> WebServer:
    """A server that shows what was fuzzed."""
    server = WebServer(zig=zig, cache_dir=zig_cache, listen_address=("127.0.0.1", port))
    server.start()
    server.add_step(pair.step)
    server.post(CoverageMsg(pair.coverage_id, pair.step))
    return server


def test_page(zig: Zig, zig_cache: Path, debug_pair: FuzzedPair, fox: FirefoxPage) -> None:
    """Numbers, files, source; then the server goes away, and what was shown stays until it is back.

    Firefox makes a page wait for up to a minute after a connection that has failed: none does.
    """
    port = quiet_port()
    server = serve(zig, zig_cache, debug_pair, port)
    try:
        fox.open(server.url)
        fox.until("document.querySelector('#fileScroll')?.innerText.includes('parser.zig')")
        fox.until("/^[0-9]/.test(document.querySelector('#statTotalRuns').textContent)")
        fox.until("document.querySelector('#next a[href^=\"#f\"]') !== null")
        fox.script("document.querySelector('#next a[href^=\"#f\"]').click()")
        fox.until("document.querySelector('#sourceScroll')?.innerText.includes('fn ')")
        fox.until("document.querySelectorAll('#sourceScroll .mark').length > 0")
        assert fox.logged == []
        fox.script(COUNTERS)
    finally:
        server.stop()
    fox.until("document.querySelector('#connection').textContent.startsWith('reconnecting')")
    assert fox.script("document.querySelector('#sourceScroll').innerText.includes('fn ')")
    fox.until("counts.probes > 2")
    assert fox.script("counts.sockets") == 0
    server = serve(zig, zig_cache, debug_pair, port)
    try:
        fox.until("document.querySelector('#connection').textContent === 'connected'")
        assert fox.script("counts.sockets") == 1
    finally:
        server.stop()
