"""One WebSocket after its handshake: frames in and out, at the client's pace and within limits (RFC 6455).

*Runs on* the connection's thread. *Takes* what the client sends, and what the conversation wants to send.
*Gives* frames: a client that does not read costs what is on its way to it and nobody else's time, is asked
by pings whether it is there, and dropped.
"""

import os
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from typing import Protocol

from wsproto import WSConnection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, ProtocolError

from fuzzserver.access import Limits

__all__ = ["WOULD_BLOCK", "Conversation", "WebSocket"]

PING_INTERVAL = 20.0
"""Seconds of silence after which a client is asked whether it is there, and then dropped."""

CLOSE_GRACE = 1.0
"""Seconds for a close frame to leave."""

MAX_UNSENT = 128 * 1024
"""Bytes that the kernel takes before they can be sent."""

LONGEST_WAIT = 0.5
"""Seconds after which a thread that waits looks what is due."""

MAX_WAITING = 32
"""Frames on their way with which pings are answered. A client that pings and does not read must not fill our
memory."""

GOING_AWAY = 1001
POLICY_VIOLATION = 1008
TOO_BIG = 1009

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Conversation(Protocol):
    """What is said on a WebSocket. All calls come from its thread."""

    def speak(self, web_socket: "WebSocket") -> float:
        """Send what is due. Returns the time of ``time.monotonic`` at which to be asked again.

        Called when all that was sent before has left, so a slow client gets fewer and newer messages.
        """

    def hear(self, web_socket: "WebSocket", message: TextMessage | BytesMessage) -> None:
        """A part of a message has come."""


class WebSocket:
    """Serves one client until it leaves, is dropped, or the server stops."""

    def __init__(
        self, connection: socket.socket, protocol: WSConnection, conversation: Conversation, limits: Limits
    ) -> None:
        """``protocol``: has read the client's handshake; what is sent first is the answer to that.

        OSError if there is no file descriptor left.
        """
        self._connection = connection
        self._protocol = protocol
        self._conversation = conversation
        self._limits = limits
        self._out: deque[memoryview] = deque()
        self._closing_at: float | None = None
        self._next_look = 0.0
        self._last_heard = self._last_read = self._last_count = time.monotonic()
        self._pinged_at: float | None = None
        # Whether the ping waits behind something large, for a client that reads slowly but does read.
        self._ping_waits = False
        self._message_size = 0
        self._allowance = 2 * limits.messages_per_second
        self._stopping = threading.Event()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Guards ``_wake`` against a wake-up after it was closed.
        self._wake_lock = threading.Lock()

    def wake(self) -> None:
        """Something has changed: ask the conversation now. From any thread."""
        with self._wake_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """Say good-bye and end. From any thread."""
        self._stopping.set()
        self.wake()

    def send(self, event: Event) -> None:
        """Append a frame to what is on its way. Nothing is sent after a close frame."""
        if self._closing_at is None:
            if not self._out:
                self._last_read = time.monotonic()
            self._out.append(memoryview(self._protocol.send(event)))

    def run(self, received: bytes) -> None:
        """Serve the client. ``received`` are the bytes that came along with the handshake."""
        self._connection.setblocking(False)
        try:
            # What the kernel has taken and not sent is memory, too, and looks as if it was read.
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT)
            if received:
                self._take(received)
            self._loop()
        except (OSError, ProtocolError):
            pass  # The client is gone, or does not speak the protocol: nothing is left to say.
        finally:
            with self._wake_lock:
                os.close(self._wake)
                self._wake = -1

    def _loop(self) -> None:
        # Not epoll, which would take a file descriptor for each client.
        with selectors.PollSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            selector.register(self._connection, selectors.EVENT_READ)
            while True:
                self._say_what_is_due()
                self._flush()
                if self._finished():
                    return
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
                selector.modify(self._connection, wanted)
                for key, events in selector.select(self._timeout()):
                    if key.fileobj is self._connection:
                        if events & selectors.EVENT_READ:
                            self._receive()
                    else:
                        os.eventfd_read(self._wake)
                        self._next_look = 0.0

    def _say_what_is_due(self) -> None:
        if self._closing_at is not None:
            return
        if self._stopping.is_set():
            if not self._out:
                self._conversation.speak(self)  # The last status says why.
            self._close(CloseConnection(GOING_AWAY, "the server stops"))
            return
        self._check_alive()
        if not self._out and time.monotonic() >= self._next_look:
            self._next_look = self._conversation.speak(self)

    def _finished(self) -> bool:
        """Whether the good-bye has left, or had its time. Whoever owns the socket lets the client read it."""
        return self._closing_at is not None and (not self._out or time.monotonic() >= self._closing_at)

    def _timeout(self) -> float:
        """Seconds until something is due."""
        if self._closing_at is not None:
            due = self._closing_at
        elif self._out:
            due = PING_INTERVAL + (self._last_heard if self._pinged_at is None else self._pinged_at)
        else:
            due = self._next_look
        return min(max(0.0, due - time.monotonic()), LONGEST_WAIT)

    def _check_alive(self) -> None:
        """Ping a client that was silent for long; raise if it answered no ping, or does not read."""
        moment = time.monotonic()
        if self._out and moment - self._last_read > 2 * PING_INTERVAL:
            raise TimeoutError("client does not read what it is sent")
        if self._pinged_at is not None:
            asked = max(self._pinged_at, self._last_read) if self._ping_waits else self._pinged_at
            if moment - asked > PING_INTERVAL:
                raise TimeoutError("client did not answer a ping")
        elif moment - self._last_heard > PING_INTERVAL:
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
                data = self._connection.recv(65536)
            except WOULD_BLOCK:
                return
            if not data:
                raise ConnectionResetError("client closed the connection")
            if self._closing_at is None:
                self._take(data)
            if not isinstance(self._connection, ssl.SSLSocket) or not self._connection.pending():
                return

    def _take(self, data: bytes) -> None:
        self._last_heard = time.monotonic()
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
                self._hear(event)
            if self._closing_at is not None:
                return

    def _hear(self, message: TextMessage | BytesMessage) -> None:
        data = message.data
        self._message_size += len(data.encode() if isinstance(data, str) else data)
        if self._message_size > self._limits.message_bytes:
            self._close(CloseConnection(TOO_BIG, "the message is too long"))
            return
        if message.message_finished:
            self._message_size = 0
        self._conversation.hear(self, message)

    def _is_within_rate(self, event: Event) -> bool:
        """Count a frame: so many each second, twice as many at once."""
        if isinstance(event, TextMessage | BytesMessage) and not event.frame_finished:
            return True  # A frame may come in many pieces, and counts once.
        rate, moment = self._limits.messages_per_second, time.monotonic()
        self._allowance = min(2 * rate, self._allowance + (moment - self._last_count) * rate) - 1
        self._last_count = moment
        return self._allowance >= 0

    def _close(self, event: CloseConnection) -> None:
        """Send a close frame after what is on its way already."""
        try:
            self.send(event)
        except LocalProtocolError:
            pass  # Both sides closed at once.
        self._closing_at = time.monotonic() + CLOSE_GRACE
