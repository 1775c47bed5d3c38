"""Any number of viewers on one thread, who come and go if they are told to."""

import random
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field

from fuzzserver.wire.abi import OwnTag, ToClientTag
from tests.support_http import upgrade_request
from tests.support_sockets import BINARY, PING, PONG, Frames, frame

PATIENCE = 60.0
"""Seconds to connect."""
UPDATES = (ToClientTag.COVERAGE_UPDATE, OwnTag.COVERAGE_DELTA)


@dataclass(eq=False)
class _Viewer:
    connection: socket.socket
    leaves: float
    """When it leaves, on the clock of ``time.monotonic``."""
    frames: Frames = field(default_factory=Frames)
    updated: float = 0.0
    refusal: bytes = b""
    """What it was answered, until it was let in."""


class Audience:
    """Viewers who read what they are sent, and note when."""

    def __init__(self, port: int, count: int, stay: float = float("inf")) -> None:
        """Let ``count`` viewers come. Each leaves after about ``stay`` seconds, and another one comes."""
        self._port = port
        self._stay = stay
        self._random = random.Random(1)
        self._selector = selectors.DefaultSelector()
        self._viewers: set[_Viewer] = set()
        self._wanted = count
        self._ending = threading.Event()
        self.connects = 0
        """How many have come so far."""
        self.problems: list[str] = []
        """Who was sent away, or not let in."""
        self.gaps: list[float] = []
        """Seconds between two updates of a viewer."""
        self.updates = 0
        self.let_in = 0.0
        """Seconds until the last of them was let in, up to now."""
        self._started = started = time.monotonic()
        for _ in range(count):
            self._connect(stay * self._random.uniform(0.25, 1))  # Else all would leave at once.
        self.connecting = time.monotonic() - started
        """Seconds in which all have connected."""
        self._thread = threading.Thread(target=self._run, name="audience")
        self._thread.start()

    def shrink(self, count: int) -> None:
        """Let only so many stay."""
        self._wanted = count

    def settle(self) -> None:
        """Wait until there are as many as wanted, and each has got an update from now on."""
        moment = time.monotonic()
        while time.monotonic() < moment + PATIENCE:
            viewers = list(self._viewers)
            if len(viewers) <= self._wanted and all(viewer.updated > moment for viewer in viewers):
                break
            time.sleep(0.05)
        self.begin()

    def begin(self) -> None:
        """Forget the gaps so far."""
        self.gaps = []
        self.updates = 0

    def close(self) -> None:
        """Let all leave."""
        self._ending.set()
        self._thread.join()
        for viewer in list(self._viewers):
            self._leave(viewer)
        self._selector.close()

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                for key, _ in self._selector.select(0.05):
                    self._read(key.data)
                self._come_and_go()
        except Exception as error:  # Else nobody would know that nobody watches any more.
            self.problems.append(f"the audience itself failed: {error!r}")

    def _come_and_go(self) -> None:
        moment = time.monotonic()
        for viewer in list(self._viewers):
            if viewer.leaves < moment or len(self._viewers) > self._wanted:
                if not viewer.frames.upgraded:
                    self.problems.append("was not let in until it left")
                self._leave(viewer)
        while len(self._viewers) < self._wanted:
            self._connect(self._stay * self._random.uniform(0.5, 1.5))

    def _connect(self, stay: float) -> None:
        try:
            connection = socket.create_connection(("127.0.0.1", self._port), PATIENCE)
            connection.sendall(upgrade_request(self._port, sec_websocket_protocol="fuzzserver"))
        except OSError as error:
            self.problems.append(f"cannot connect: {error}")
            self._wanted -= 1
            return
        connection.setblocking(False)
        viewer = _Viewer(connection, time.monotonic() + stay)
        self._selector.register(connection, selectors.EVENT_READ, viewer)
        self._viewers.add(viewer)
        self.connects += 1

    def _leave(self, viewer: _Viewer) -> None:
        self._viewers.discard(viewer)
        self._selector.unregister(viewer.connection)
        viewer.connection.close()

    def _read(self, viewer: _Viewer) -> None:
        try:
            data = viewer.connection.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        moment = time.monotonic()
        if not viewer.frames.upgraded:
            viewer.refusal = data[:200]
            self.let_in = moment - self._started
        for opcode, payload, _ in viewer.frames.feed(data):
            if opcode == PING:
                viewer.connection.send(frame(PONG, payload))
            elif opcode == BINARY and payload[0] in UPDATES:
                if viewer.updated:
                    self.gaps.append(moment - viewer.updated)
                    self.updates += 1
                viewer.updated = moment
        if not data or viewer.frames.close_code is not None:
            self._wanted -= 1  # Nobody comes in its place: it is a problem, and not to become a flood.
            how = f"sent away with code {viewer.frames.close_code}"
            self.problems.append(
                f"was {how}" if viewer.frames.upgraded else f"was refused: {viewer.refusal!r}"
            )
            self._leave(viewer)


def deaf_viewer(port: int) -> socket.socket:
    """A viewer who never reads. Close it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.sendall(upgrade_request(port, sec_websocket_protocol="fuzzserver"))
    return connection
