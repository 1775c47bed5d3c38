"""One WebSocket after its handshake: frames in and out, at the client's pace and within limits (RFC 6455).

*Runs on* the connection's thread. *Takes* what the client sends, and frames from the hub, which sends what
the system takes at once. *Gives* what is left: a client that does not read costs what is on its way to it
and nobody else's time, is asked by pings whether it is there, and dropped.
"""

import contextlib
import os
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from wsproto import WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, ProtocolError

from fuzzserver.access import Limits

__all__ = ["WOULD_BLOCK", "Hear", "WebSocket"]

PING_INTERVAL = 20.0
"""Seconds of silence after which a client is asked whether it is there, and then dropped."""

CLOSE_GRACE = 1.0
"""Seconds for a close frame to leave."""

MAX_WAITING = 32
"""Frames on their way with which pings are answered. A client that pings and does not read must not fill our
memory."""

GOING_AWAY = 1001
POLICY_VIOLATION = 1008
TOO_BIG = 1009
INTERNAL_ERROR = 1011

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

Hear = Callable[["WebSocket", TextMessage | BytesMessage], None]
"""What is done with a part of a message, on the connection's thread."""


class WebSocket:
    """Serves one client until it leaves, is dropped, or the server stops."""

    def __init__(self, connection: socket.socket, protocol: WSConnection, limits: Limits, hear: Hear) -> None:
        """``protocol``: has read the client's handshake, which ``accept`` answers.

        OSError if there is no file descriptor left.
        """
        self._connection = connection
        self._protocol = protocol
        self._limits = limits
        self._hear = hear
        self._last_heard = self._last_count = time.monotonic()
        self._message_size = 0
        self._allowance = 2 * limits.messages_per_second
        self._closing_at: float | None = None
        self._stopping: CloseConnection | None = None
        # Guards all that follows, and the socket: the hub sends, too.
        self._lock = threading.RLock()
        self._out: deque[memoryview] = deque()
        self._is_gone = False
        self._last_read = self._last_heard
        self._pinged_at: float | None = None
        # Whether the ping waits behind something large, for a client that reads slowly but does read.
        self._ping_waits = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def accept(self, event: AcceptConnection) -> None:
        """Agree to the handshake. From now on, there are frames to be sent."""
        self._connection.setblocking(False)
        self.offer([self._protocol.send(event)])

    @property
    def is_free(self) -> bool:
        """Whether all that was sent has left."""
        return not self._out and self._closing_at is None

    def offer(self, frames: list[bytes | memoryview]) -> bool:
        """Send whole frames, if all that was sent before has left. From any thread; waits for nobody.

        Returns whether they are taken. What the system does not take at once, and what is large, the
        connection's thread sends.
        """
        with self._lock:
            if not self.is_free or self._is_gone:
                return False
            self._last_read = time.monotonic()
            self._out.extend(map(memoryview, frames))
            try:
                if len(frames) == 1:
                    self._flush()
            except OSError:
                self._is_gone = True
            if self._out:
                self._wake_up()
        return True

    def send(self, event: Event) -> None:
        """Append a frame to what is on its way. On the connection's thread."""
        with self._lock:
            # Nothing is sent after a close frame.
            if self._closing_at is None:
                if not self._out:
                    self._last_read = time.monotonic()
                self._out.append(memoryview(self._protocol.send(event)))

    def stop(self) -> None:
        """Say good-bye and end. From any thread."""
        self._end(CloseConnection(GOING_AWAY, "the server stops"))

    def fail(self) -> None:
        """End because of a fault of ours. From any thread."""
        self._end(CloseConnection(INTERNAL_ERROR, "the server has failed"))

    def _end(self, good_bye: CloseConnection) -> None:
        self._stopping = good_bye
        with self._lock:
            self._wake_up()

    def _wake_up(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def run(self, received: bytes) -> None:
        """Serve the client. ``received`` are the bytes that came along with the handshake."""
        try:
            if received:
                self._take(received)
            self._loop()
        except (OSError, ProtocolError):
            pass  # The client is gone, or does not speak the protocol: nothing is left to say.
        finally:
            with self._lock:
                # From here on the socket is closed, and its number may soon be another one's.
                self._is_gone = True
                os.close(self._wake)
                self._wake = -1

    def _loop(self) -> None:
        # Not epoll, which would take a file descriptor for each client.
        with selectors.PollSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            selector.register(self._connection, selectors.EVENT_READ)
            while True:
                with self._lock:
                    self._say_what_is_due()
                    self._flush()
                    if self._finished():
                        return
                    wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
                    timeout = self._timeout()
                selector.modify(self._connection, wanted)
                for key, events in selector.select(timeout):
                    if key.fileobj is self._connection:
                        if events & selectors.EVENT_READ:
                            self._receive()
                    else:
                        os.eventfd_read(self._wake)

    def _say_what_is_due(self) -> None:
        if self._is_gone:
            raise ConnectionResetError("client is gone")
        if self._closing_at is None:
            if self._stopping is not None:
                self._close(self._stopping)
            else:
                self._check_alive()

    def _finished(self) -> bool:
        """Whether the good-bye has left, or had its time. Whoever owns the socket lets the client read it."""
        return self._closing_at is not None and (not self._out or time.monotonic() >= self._closing_at)

    def _timeout(self) -> float:
        """Seconds until something is due."""
        due = min(self._due_times()) if self._closing_at is None else self._closing_at
        return max(0.0, due - time.monotonic())

    def _due_times(self) -> Iterator[float]:
        """When to ask whether the client is there, and when to drop it."""
        if self._out:
            yield self._last_read + 2 * PING_INTERVAL
        if self._pinged_at is None:
            yield self._last_heard + PING_INTERVAL
        elif self._ping_waits:
            yield max(self._pinged_at, self._last_read) + PING_INTERVAL
        else:
            yield self._pinged_at + PING_INTERVAL

    def _check_alive(self) -> None:
        """Ping a client that was silent for long; raise if it answered no ping, or does not read."""
        moment = time.monotonic()
        if moment < min(self._due_times()):
            return
        if self._out and moment >= self._last_read + 2 * PING_INTERVAL:
            raise TimeoutError("client does not read what it is sent")
        if self._pinged_at is not None:
            raise TimeoutError("client did not answer a ping")
        self._pinged_at, self._ping_waits = moment, True
        self.send(Ping())

    def _flush(self) -> None:
        while self._out:
            try:
                sent = self._connection.send(self._out[0])
            except WOULD_BLOCK:
                return
            self._last_read = time.monotonic()
            if sent < len(self._out[0]):
                self._out[0] = self._out[0][sent:]
            else:
                self._out.popleft()
        if self._ping_waits:
            self._pinged_at, self._ping_waits = time.monotonic(), False

    def _receive(self) -> None:
        """Take in all that has come: what TLS has decrypted already, no selector tells of."""
        while True:
            try:
                with self._lock:
                    data = self._connection.recv(65536)
                    is_more = isinstance(self._connection, ssl.SSLSocket) and self._connection.pending() > 0
            except WOULD_BLOCK:
                return
            if not data:
                raise ConnectionResetError("client closed the connection")
            if self._closing_at is None:
                self._take(data)
            if not is_more:
                return

    def _take(self, data: bytes) -> None:
        self._last_heard = time.monotonic()
        with self._lock:
            self._pinged_at = None
        self._protocol.receive_data(data)
        for event in self._protocol.events():
            if isinstance(event, CloseConnection):
                self._close(event.response())
            elif not self._is_within_rate(event):
                self._close(CloseConnection(POLICY_VIOLATION, "too many messages"))
            elif isinstance(event, Ping):
                if len(self._out) < MAX_WAITING:
                    self.send(event.response())
            elif isinstance(event, TextMessage | BytesMessage):
                self._take_part(event)
            if self._closing_at is not None:
                return

    def _take_part(self, message: TextMessage | BytesMessage) -> None:
        data = message.data
        self._message_size += len(data.encode() if isinstance(data, str) else data)
        if self._message_size > self._limits.message_bytes:
            self._close(CloseConnection(TOO_BIG, "the message is too long"))
            return
        if message.message_finished:
            self._message_size = 0
        self._hear(self, message)

    def _is_within_rate(self, event: Event) -> bool:
        """Count a frame: so many each second, twice as many at once."""
        if isinstance(event, TextMessage | BytesMessage) and not event.frame_finished:
            return True  # A frame may come in many pieces, and counts once.
        rate, moment = self._limits.messages_per_second, time.monotonic()
        self._allowance = min(2 * rate, self._allowance + (moment - self._last_count) * rate) - 1
        self._last_count = moment
        return self._allowance >= 0

    def _close(self, event: CloseConnection) -> None:
        """Send a close frame after what is on its way already, and nothing after that."""
        with self._lock:
            with contextlib.suppress(LocalProtocolError):  # Both sides closed at once.
                self.send(event)
            self._closing_at = time.monotonic() + CLOSE_GRACE
