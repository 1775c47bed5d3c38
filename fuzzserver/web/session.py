"""One WebSocket client: what it was sent, and what it must be sent next (Zig: ``serveWebSocket``).

*Runs on* the client's connection thread. *Takes* the coverage files and news of what goes on.
*Gives* messages, at the client's pace: a new update is not made before the last one has left, so a
client that reads slowly gets fewer and newer updates, and one that does not read costs one message
of memory and nobody else's time.
"""

import os
import selectors
import socket
import threading
import time
from collections.abc import Callable

from wsproto import WSConnection
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, ProtocolError

from fuzzserver.coverage.coverage_map import (
    CoverageMap,
    coverage_delta_message,
    coverage_update_message,
)
from fuzzserver.coverage.history import Cursor
from fuzzserver.coverage.queue import CoverageFiles
from fuzzserver.coverage.seen_pcs import SeenPcsSnapshot
from fuzzserver.web.news import News
from fuzzserver.wire.abi import CoverageDeltaHeader, CurrentTime

__all__ = ["SUBPROTOCOL", "Session"]

SUBPROTOCOL = "fuzzserver"
"""A client that asks for it gets what goes on as JSON text, and messages that Zig's page does not know."""

UPDATE_INTERVAL = 0.5
"""Seconds between two looks at the coverage file, as in Zig."""

PING_INTERVAL = 20.0
"""Seconds of silence after which a client is asked whether it is there, and then dropped."""

CLOSE_GRACE = 1.0
"""Seconds for a close frame to leave."""

GOING_AWAY = 1001


class Session:
    """Serves one client until it leaves, is dropped, or the server stops."""

    def __init__(
        self,
        connection: socket.socket,
        web_socket: WSConnection,
        *,
        coverage_files: CoverageFiles,
        now: Callable[[], int],
        target: int | None,
        news: News | None,
    ) -> None:
        """Args:
        target: the coverage id of the map to send; None for the first target's newest one.
        news: what goes on; None for clients that know nothing beyond Zig's messages.
        """
        self._connection = connection
        self._web_socket = web_socket
        self._coverage_files = coverage_files
        self._now = now
        self._target = target
        self._news = news
        self._out = memoryview(b"")
        self._closing_at: float | None = None
        self._next_look = 0.0
        self._last_heard = time.monotonic()
        self._pinged_at: float | None = None
        self._pong: Pong | None = None
        self._stopping = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        # Guards ``_wake_write`` against a wake-up after it was closed.
        self._wake_lock = threading.Lock()
        # What the client has seen.
        self._sent_map: CoverageMap | None = None
        self._sent_snapshot: SeenPcsSnapshot | None = None
        self._sent_entry_points: tuple[int, ...] = ()
        self._sent_history: Cursor | None = None

    def wake(self) -> None:
        """Something has changed: look now. From any thread."""
        with self._wake_lock:
            if self._wake_write >= 0:
                try:
                    os.write(self._wake_write, b"!")
                except BlockingIOError:
                    pass  # The pipe is full of wake-ups already.

    def stop(self) -> None:
        """Say good-bye and end. From any thread."""
        self._stopping.set()
        self.wake()

    def run(self, received: bytes) -> None:
        """Serve the client. ``received`` are the bytes that came along with the handshake."""
        self._connection.setblocking(False)
        self._coverage_files.watch(self.wake)
        try:
            self._send(BytesMessage(CurrentTime(self._now()).serialize()))
            if received:
                self._receive(received)
            self._loop()
        except (OSError, ProtocolError):
            pass  # The client is gone, or does not speak the protocol: nothing is left to say.
        finally:
            self._coverage_files.unwatch(self.wake)
            with self._wake_lock:
                os.close(self._wake_read)
                os.close(self._wake_write)
                self._wake_write = -1

    def _loop(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            selector.register(self._connection, selectors.EVENT_READ)
            while True:
                if self._stopping.is_set() and self._closing_at is None:
                    if not self._out:
                        self._look()  # The last status says why.
                    self._close(CloseConnection(GOING_AWAY, "the server stops"))
                if self._closing_at is None:
                    self._check_alive()
                    if not self._out:
                        self._send_pong()
                        if time.monotonic() >= self._next_look:
                            self._look()
                self._flush()
                if self._finished():
                    return
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
                selector.modify(self._connection, wanted)
                for key, events in selector.select(self._timeout()):
                    if key.fileobj is self._connection:
                        if events & selectors.EVENT_READ:
                            self._receive(self._connection.recv(65536))
                    elif os.read(self._wake_read, 4096):
                        self._next_look = 0.0

    def _finished(self) -> bool:
        if self._closing_at is None:
            return False
        return not self._out or time.monotonic() >= self._closing_at

    def _timeout(self) -> float:
        """Seconds until something is due."""
        if self._closing_at is not None:
            due = self._closing_at
        elif self._out:
            due = PING_INTERVAL + (self._last_heard if self._pinged_at is None else self._pinged_at)
        else:
            due = self._next_look
        return min(max(0.0, due - time.monotonic()), UPDATE_INTERVAL)

    def _check_alive(self) -> None:
        """Ping a client that was silent for long; raise if it did not answer the last ping."""
        moment = time.monotonic()
        if self._pinged_at is not None:
            if moment - self._pinged_at > PING_INTERVAL:
                raise TimeoutError("client did not answer a ping")
        elif moment - self._last_heard > PING_INTERVAL:
            self._pinged_at = moment
            self._send(Ping())

    def _look(self) -> None:
        """Send what the client has not seen yet, in the order that Zig's page relies on."""
        self._next_look = time.monotonic() + UPDATE_INTERVAL
        coverage_map = self._wanted_map()
        if self._news is not None:
            for text in self._news.texts(coverage_map):
                self._send(TextMessage(text))
        if coverage_map is None:
            return
        if coverage_map is not self._sent_map:
            self._send(BytesMessage(coverage_map.source_index))
            self._sent_map = coverage_map
            self._sent_snapshot = None
            self._sent_entry_points = ()
            self._sent_history = None
        snapshot = coverage_map.read()
        if snapshot != self._sent_snapshot:
            self._send(BytesMessage(self._update_message(snapshot)))
            self._sent_snapshot = snapshot
        entry_points = coverage_map.entry_points
        if entry_points != self._sent_entry_points:
            self._send(BytesMessage(coverage_map.entry_points_message()))
            self._sent_entry_points = entry_points
        if self._news is not None:
            self._sent_history, _, history = coverage_map.history.since(self._sent_history)
            if history is not None:
                self._send(BytesMessage(history))

    def _update_message(self, snapshot: SeenPcsSnapshot) -> bytes:
        """What says the client how far coverage is now: what is new of it, where that is shorter."""
        if self._news is not None and self._sent_snapshot is not None:
            # A worker that joins brings runs and points along that are not of now.
            joined = snapshot.files != self._sent_snapshot.files
            moment = CoverageDeltaHeader.UNKNOWN_TIME if joined else time.time()
            delta = coverage_delta_message(self._sent_snapshot, snapshot, moment)
            if delta is not None:
                return delta
        return coverage_update_message(snapshot)

    def _wanted_map(self) -> CoverageMap | None:
        if self._target is None:
            return self._coverage_files.first()
        return self._coverage_files.get(self._target)

    def _send_pong(self) -> None:
        """Answer the latest ping. A client that pings and does not read must not fill our memory."""
        if self._pong is not None:
            self._send(self._pong)
            self._pong = None

    def _send(self, event: Event) -> None:
        """Append a frame to what is on its way."""
        self._out = memoryview(b"".join((self._out, self._web_socket.send(event))))

    def _flush(self) -> None:
        while self._out:
            try:
                sent = self._connection.send(self._out)
            except BlockingIOError:
                return
            self._out = self._out[sent:]

    def _receive(self, data: bytes) -> None:
        if not data:
            raise ConnectionResetError("client closed the connection")
        self._last_heard = time.monotonic()
        self._pinged_at = None
        self._web_socket.receive_data(data)
        for event in self._web_socket.events():
            if isinstance(event, Ping):
                self._pong = event.response()
            elif isinstance(event, CloseConnection):
                self._close(event.response())
            # Clients have nothing else to say: other messages are read and dropped.

    def _close(self, event: CloseConnection) -> None:
        """Send a close frame and end as soon as it has left."""
        self._closing_at = time.monotonic() + CLOSE_GRACE
        try:
            self._send(event)
        except LocalProtocolError:
            pass  # Both sides closed at once.
