"""Many viewers at once, good ones and bad ones, and figures of what the good ones get to see.

``python -m tests.support_viewers PORT`` is one of them.
"""

import contextlib
import http.client
import re
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.support_http import upgrade_request
from tests.support_server import ENVIRONMENT, ServerProcess
from tests.support_sockets import PING, PONG, UPGRADED, Frames, frame
from tests.support_time import eventually

PATIENCE = 60.0
"""Seconds for what should take a moment."""

TICKS = 10
"""How many all must have seen before figures tell something."""

SMALL = "/targets.json"
"""A route with little to say."""

_TICK = re.compile(rb"tick (\d+) at (\d+\.\d+)")


def allow_many_files() -> None:
    """Take all file descriptors that this process, and those that it starts, may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@dataclass
class Figures:
    """What a crowd of viewers has seen."""

    viewers: int
    dropped: int = 0
    """Viewers whom the server has left."""
    missed: int = 0
    """Ticks that one viewer did not get to see, summed up over all."""
    lags: list[float] = field(default_factory=list)
    """Seconds from each tick to when each viewer saw it."""
    gaps: list[float] = field(default_factory=list)
    """Seconds between two looks of a viewer at something new."""
    standstill: float = 0.0
    """The longest time, in seconds, in which the crowd itself was held up."""

    @property
    def ticks(self) -> int:
        """How many each of them saw."""
        return len(self.lags) // self.viewers

    def __str__(self) -> str:
        return (
            f"{self.viewers} viewers: {self.dropped} dropped, "
            f"{self.missed} of {len(self.lags)} missed, "
            f"lag p50 {milliseconds(self.lags, 50)} p99 {milliseconds(self.lags, 99)}, "
            f"gap p99 {milliseconds(self.gaps, 99)}"
        )


def percentile(values: list[float], percent: int) -> float:
    """The value that so many percent do not go beyond."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def milliseconds(values: list[float], percent: int) -> str:
    """The same, of seconds, for people to read."""
    return f"{percentile(values, percent) * 1000:.2f} ms"


class _Viewer:
    """One of the crowd."""

    def __init__(self, port: int) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.connection.sendall(upgrade_request(port, sec_websocket_protocol="fuzzserver"))
        self.connection.setblocking(False)
        self.frames = Frames()
        self.last_tick = 0
        self.last_time = 0.0


class Viewers(AbstractContextManager["Viewers"]):
    """A crowd on one thread: those who read."""

    def __init__(self, port: int, count: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._viewers = [_Viewer(port) for _ in range(count)]
        for viewer in self._viewers:
            self._selector.register(viewer.connection, selectors.EVENT_READ, viewer)
        self._figures = Figures(count)
        self._last_step = time.monotonic()
        deadline = time.monotonic() + PATIENCE
        while not all(viewer.frames.upgraded for viewer in self._viewers):
            assert time.monotonic() < deadline
            self._step()

    def __exit__(self, *_: object) -> None:
        for viewer in self._viewers:
            viewer.connection.close()
        self._selector.close()

    def begin(self) -> Figures:
        """Begin new figures, once all have seen a tick; the ones up to now."""
        deadline = time.monotonic() + PATIENCE
        while any(not viewer.last_tick and viewer.connection in self for viewer in self._viewers):
            assert time.monotonic() < deadline
            self._step()
        figures, self._figures = self._figures, Figures(len(self._viewers))
        return figures

    @property
    def connected(self) -> int:
        """How many are still there."""
        return len(self._selector.get_map())

    @property
    def last_tick(self) -> int:
        """The last one that all have seen."""
        return min(viewer.last_tick for viewer in self._viewers)

    def watch(self, seconds: float, ticks: int = 0) -> None:
        """See what there is to see for some time, and until there were so many ticks, if anybody is left."""
        begun = time.monotonic()
        while (moment := time.monotonic()) < begun + seconds or self._figures.ticks < ticks:
            if not self.connected:
                break
            assert moment < begun + seconds + PATIENCE, f"{self._figures.ticks} ticks"
            self._step()

    def finish(self, last_tick: int) -> Figures:
        """Wait until all have seen the last tick that there was; the figures."""
        deadline = time.monotonic() + PATIENCE
        while any(viewer.last_tick < last_tick and viewer.connection in self for viewer in self._viewers):
            assert time.monotonic() < deadline, f"of {last_tick}: {self.last_tick}"
            self._step()
        return self._figures

    def __contains__(self, connection: socket.socket) -> bool:
        return connection in self._selector.get_map()

    def _step(self) -> None:
        moment, before = time.monotonic(), self._last_step
        self._last_step = moment
        self._figures.standstill = max(self._figures.standstill, moment - before)
        for key, _ in self._selector.select(0.05):
            try:
                data = key.data.connection.recv(1 << 18)
            except ConnectionError:
                data = b""
            if data:
                for opcode, payload, _ in key.data.frames.feed(data):
                    self._take(key.data, opcode, payload)
            if not data or key.data.frames.close_code is not None:
                self._selector.unregister(key.fileobj)
                self._figures.dropped += 1

    def _take(self, viewer: _Viewer, opcode: int, payload: bytes) -> None:
        moment = time.monotonic()
        if opcode == PING:
            with contextlib.suppress(ConnectionError):  # It may have waited too long for us.
                viewer.connection.send(frame(PONG, payload))
        for number, at in _TICK.findall(payload):
            tick = int(number)
            if viewer.last_tick:
                self._figures.missed += tick - viewer.last_tick - 1
                self._figures.gaps.append(moment - viewer.last_time)
                self._figures.lags.append(moment - float(at))
            viewer.last_tick, viewer.last_time = tick, moment


class Stalled(AbstractContextManager["Stalled"]):
    """Viewers who read nothing of what is new, with as little room as they may have."""

    def __init__(self, port: int, count: int) -> None:
        self._connections = []
        for _ in range(count):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(PATIENCE)
            connection.connect(("127.0.0.1", port))
            connection.sendall(upgrade_request(port, sec_websocket_protocol="fuzzserver"))
            assert connection.recv(len(UPGRADED)) == UPGRADED
            self._connections.append(connection)

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()


class OneProcess(AbstractContextManager["OneProcess"]):
    """A viewer that can be stopped as a whole, its system's side of the connection excepted."""

    def __init__(self, port: int) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.support_viewers", str(port)],
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            cwd=Path(__file__).parents[1],
        )

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        assert self._child.stdout is not None
        self._child.stdout.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._child.send_signal(number)

    def ticks(self, last: int) -> list[int]:
        """The ticks that it sees until this one."""
        assert self._child.stdout is not None
        ticks = [0]
        while ticks[-1] < last:
            line = self._child.stdout.readline()
            assert line, "the viewer has ended"
            ticks.append(int(line))
        return ticks[1:]


def watch_in_process(port: int) -> None:
    """Print the number of each tick."""
    url, spoken = f"ws://127.0.0.1:{port}/", [Subprotocol("fuzzserver")]
    with connect(url, subprotocols=spoken, proxy=None, open_timeout=PATIENCE) as connection:
        for message in connection:
            if isinstance(message, str):
                for number, _ in _TICK.findall(message.encode()):
                    print(number.decode(), flush=True)


def many_viewers(cache_dir: Path, viewers: int, seconds: float) -> tuple[Figures, float, int]:
    """Ten lines of log a second for so many.

    Returns what they saw, the share of a core that the server took, and its memory in bytes.
    """
    with ServerProcess(cache_dir) as server, Viewers(server.port, viewers) as crowd:
        server.ask("tick", 0.1, 1000)
        crowd.begin()
        crowd.watch(1.0)
        crowd.begin()
        cpu, begun = server.cpu, time.monotonic()
        crowd.watch(seconds, TICKS)
        share = (server.cpu - cpu) / (time.monotonic() - begun)
        figures = crowd.finish(server.ask("stop ticking"))
        assert server.errors == []
        return figures, share, server.memory


def stalled_readers(
    cache_dir: Path, good: int, stalled: int, ping_interval: float
) -> tuple[Figures, Figures, float, float]:
    """Good viewers beside some who never read, until the server is rid of these.

    Returns what the good ones saw before and meanwhile, the seconds after which the server was rid of the
    others, and the bytes of memory that it took for each of them at most.
    """
    with ServerProcess(cache_dir, ping_interval=ping_interval) as server, Viewers(server.port, good) as crowd:
        server.ask("tick", 0.1, 20_000)
        crowd.begin()
        crowd.watch(2.0, TICKS)
        before = crowd.begin()
        memory = most = server.memory
        with Stalled(server.port, stalled):
            begun = time.monotonic()
            while server.ask("viewers") < crowd.connected + stalled:
                assert time.monotonic() < begun + PATIENCE
                crowd.watch(0.02)
            while server.ask("viewers") > crowd.connected:
                assert time.monotonic() < begun + 2 * ping_interval + PATIENCE
                crowd.watch(0.1)
                most = max(most, server.memory)
            seconds = time.monotonic() - begun
        crowd.watch(0, TICKS)
        figures = crowd.finish(server.ask("stop ticking"))
        assert server.errors == []
        return before, figures, seconds, (most - memory) / stalled


def stopped_viewer(cache_dir: Path, good: int, seconds: float) -> tuple[Figures, list[int]]:
    """Good viewers beside one whose process is stopped for a while.

    Returns what the good ones saw, and the numbers of the ticks that the other one saw after all.
    """
    with ServerProcess(cache_dir) as server, OneProcess(server.port) as viewer:
        eventually(lambda: server.ask("viewers") == 1, "it does not come")
        server.ask("tick", 0.04, 100)
        with Viewers(server.port, good) as crowd:
            crowd.begin()
            viewer.ticks(crowd.last_tick)
            viewer.signal(signal.SIGSTOP)
            crowd.watch(0.2)
            crowd.begin()
            crowd.watch(seconds, 5 * TICKS)
            viewer.signal(signal.SIGCONT)
            last = server.ask("stop ticking")
            return crowd.finish(last), viewer.ticks(last)


def second_tries(connection: socket.socket) -> int:
    """How often the system has sent something of a connection once more (Linux: ``struct tcp_info``)."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[100:104], sys.byteorder)


def connect_burst(server: ServerProcess, count: int) -> tuple[float, int, list[int]]:
    """So many connections at once, each with a request.

    Returns the seconds until all were answered, how many connections took a second try, and the statuses.
    """
    request = f"GET {SMALL} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
    connected = late = 0
    statuses: list[int] = []
    # All stay until the end, so that all are there at once.
    connections = [socket.socket() for _ in range(count)]
    with selectors.DefaultSelector() as selector:
        begun = time.monotonic()
        for connection in connections:
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", server.port))
            selector.register(connection, selectors.EVENT_WRITE)
        while len(statuses) < count:
            ready = selector.select(PATIENCE)
            assert ready, f"{connected} connected, {len(statuses)} answered"
            for key, events in ready:
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                if events & selectors.EVENT_WRITE:
                    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                    connected += 1
                    late += second_tries(connection) > 0
                    connection.send(request)
                    selector.modify(connection, selectors.EVENT_READ)
                else:
                    statuses.append(int(connection.recv(65536).split(b" ")[1]))
                    selector.unregister(connection)
        seconds = time.monotonic() - begun
    for connection in connections:
        connection.close()
    return seconds, late, statuses


def latencies(server: ServerProcess, requests: int) -> list[float]:
    """Seconds for each of so many small requests on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    found = []
    connection.connect()
    for _ in range(requests):
        # Our system would say at once that the first parts arrived, and those after a pause.
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        begun = time.monotonic()
        connection.request("GET", SMALL)
        response = connection.getresponse()
        body = response.read()
        found.append(time.monotonic() - begun)
        assert (response.status, len(body)) == (200, int(response.headers["content-length"]))
    connection.close()
    return found


if __name__ == "__main__":
    watch_in_process(int(sys.argv[1]))
