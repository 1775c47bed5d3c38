"""Many viewers at once, and bad ones among them: the others do not notice."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support_http import ask
from tests.support_server import ServerProcess
from tests.support_time import eventually
from tests.support_viewers import (
    PATIENCE,
    SMALL,
    Figures,
    allow_many_files,
    connect_burst,
    latencies,
    many_viewers,
    milliseconds,
    percentile,
    stalled_readers,
    stopped_viewer,
)

SOON = 1.0
"""Seconds within which a viewer sees what is new, on a machine with much else to do."""


@pytest.fixture(autouse=True, scope="module")
def many_files() -> None:
    """Connections are files."""
    allow_many_files()


@pytest.fixture
def server(zig_cache: Path) -> Iterator[ServerProcess]:
    """A server in a process of its own."""
    with ServerProcess(zig_cache) as server:
        yield server


def assert_unharmed(figures: Figures) -> None:
    """Nobody was dropped, nobody missed anything, and everything came soon."""
    print(figures)
    assert figures.ticks >= 10
    assert (figures.dropped, figures.missed) == (0, 0)
    assert percentile(figures.lags, 99) < SOON
    assert percentile(figures.gaps, 99) < SOON


def test_many_viewers(zig_cache: Path) -> None:
    """A hundred of them, for some seconds."""
    figures, share, memory = many_viewers(zig_cache, 100, 5.0)
    print(f"server: {share:.0%} of a core, {memory / 1e6:.0f} MB")
    assert_unharmed(figures)
    assert share < 0.5
    assert memory < 100_000_000


def test_viewers_that_never_read(zig_cache: Path) -> None:
    """They are dropped, take little memory until then, and the others see as much as before."""
    before, figures, seconds, memory = stalled_readers(zig_cache, 20, 5, ping_interval=1.0)
    print(f"gone after {seconds:.1f} s, {memory / 1e3:.0f} kB each")
    assert_unharmed(before)
    assert_unharmed(figures)
    assert 1.0 < seconds < 2.0 + PATIENCE / 4
    assert memory < 1_500_000  # All that the log keeps, once, and what memory allocators make of it.


def test_viewer_whose_process_is_stopped(zig_cache: Path) -> None:
    """It gets to see all of it when it goes on, and nobody else sees any of that."""
    figures, seen = stopped_viewer(zig_cache, 20, 2.0)
    assert_unharmed(figures)
    assert len(seen) > 50
    assert seen == list(range(seen[0], seen[-1] + 1))


def test_connect_burst(server: ServerProcess) -> None:
    """A thousand connections at once, of which none waits for a second try."""
    resources = server.resources
    seconds, connected, statuses = connect_burst(server, 1000)
    late = sum(each > 0.5 for each in connected)
    print(f"all connected in {max(connected):.2f} s, {late} after 0.5 s; all answered in {seconds:.2f} s")
    assert statuses == [200] * 1000
    assert max(connected) < 2.0
    server.settle(resources)
    assert server.errors == []


def test_latency(server: ServerProcess) -> None:
    """No request waits until the system has heard that the last answer has arrived: that takes 40 ms."""
    latencies(server, 50)
    found = latencies(server, 1000)
    print(f"p50 {milliseconds(found, 50)}, {len(found) / sum(found):.0f} requests a second")
    assert percentile(found, 50) < 0.02


def test_no_file_descriptors_left(zig_cache: Path) -> None:
    """Who comes then, waits; the server does not spin meanwhile, and goes on when somebody has left."""
    with ServerProcess(zig_cache, files=64) as server:
        connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        eventually(lambda: server.resources[1] >= 64, "there are descriptors left")
        cpu, begun = server.cpu, time.monotonic()
        time.sleep(1.0)  # The time is what is tested.
        share = (server.cpu - cpu) / (time.monotonic() - begun)
        for connection in connections:
            connection.close()
        begun = time.monotonic()
        assert ask(server.port, SMALL).status == 200
        seconds = time.monotonic() - begun
        print(f"{share:.0%} of a core while full, back after {seconds:.2f} s")
        assert share < 0.2
        assert seconds < 2.0
        assert server.errors == []
