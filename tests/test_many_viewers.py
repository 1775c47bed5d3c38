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
    SMALL,
    TICKS,
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

TRIES = 10
"""How often to measure: what a busy machine spoils once, something that is wrong spoils each time."""

PING_INTERVAL = 2.0


@pytest.fixture(autouse=True, scope="module")
def many_files() -> None:
    """Connections are files."""
    allow_many_files()


@pytest.fixture
def server(zig_cache: Path) -> Iterator[ServerProcess]:
    """A server in a process of its own."""
    with ServerProcess(zig_cache) as server:
        yield server


def is_soon(figures: Figures) -> bool:
    """Whether everything came soon."""
    print(figures)
    return max(percentile(figures.lags, 99), percentile(figures.gaps, 99)) < SOON


def assert_unharmed(figures: Figures) -> None:
    """Nobody was dropped, nobody missed anything."""
    assert figures.ticks >= TICKS
    assert (figures.dropped, figures.missed) == (0, 0)


def test_many_viewers(zig_cache: Path) -> None:
    """A hundred of them, for some seconds."""
    for _ in range(TRIES):
        figures, share, memory = many_viewers(zig_cache, 100, 5.0)
        print(f"server: {share:.0%} of a core, {memory / 1e6:.0f} MB")
        assert_unharmed(figures)
        assert memory < 100_000_000
        if is_soon(figures) and share < 0.5:
            break
    else:
        pytest.fail("it takes too long, or too much")


def test_viewers_that_never_read(zig_cache: Path) -> None:
    """They are dropped, take little memory until then, and the others see as much as before."""
    for _ in range(TRIES):
        before, figures, seconds, memory = stalled_readers(zig_cache, 20, 5, PING_INTERVAL)
        print(f"gone after {seconds:.1f} s, {memory / 1e3:.0f} kB each")
        # Who is held up for long is one of those who answer no ping.
        is_calm = max(before.standstill, figures.standstill) < PING_INTERVAL / 2
        if is_calm and is_soon(before) and is_soon(figures):
            break
    else:
        pytest.fail("it takes too long")
    assert_unharmed(before)
    assert_unharmed(figures)
    assert seconds > PING_INTERVAL
    assert memory < 1_500_000  # All that the log keeps, once, and what memory allocators make of it.


def test_viewer_whose_process_is_stopped(zig_cache: Path) -> None:
    """It gets to see all of it when it goes on, and nobody else sees any of that."""
    for _ in range(TRIES):
        figures, seen = stopped_viewer(zig_cache, 20, 2.0)
        assert_unharmed(figures)
        assert len(seen) > 50
        assert seen == list(range(seen[0], seen[-1] + 1))
        if is_soon(figures):
            break
    else:
        pytest.fail("it takes too long")


def test_connect_burst(server: ServerProcess) -> None:
    """A thousand connections at once, of which none waits for a second try."""
    resources = server.resources
    seconds, late, statuses = connect_burst(server, 1000)
    print(f"all answered in {seconds:.2f} s")
    assert statuses == [200] * 1000
    assert late == 0
    server.settle(resources)
    assert server.errors == []


def test_latency(server: ServerProcess) -> None:
    """No request waits until the system has heard that the last answer has arrived: that takes 40 ms."""
    found = latencies(server, 100)
    print(f"p50 {milliseconds(found, 50)}, {len(found) / sum(found):.0f} requests a second")
    assert min(found) < 0.03  # The system would wait each time, a busy machine does not.


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
        assert ask(server.port, SMALL).status == 200
        print(f"{share:.0%} of a core while full")
        assert share < 0.2
        assert server.errors == []
