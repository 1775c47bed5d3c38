"""WebSocket by hand: clients that send whatever they are told, or of which one thread has a thousand."""

import base64
import hashlib
import os
import selectors
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.support_http import KEY, upgrade_request

PATIENCE = 30.0
"""Seconds after which a connection that should have ended counts as left open."""

UPGRADED = b"HTTP/1.1 101 "
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

ACCEPT = base64.b64encode(
    hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
).decode()


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, rsv: int = 0, long: int = 0
) -> bytes:
    """One frame of a client. ``long`` writes the length in 2 or 8 bytes, needed or not."""
    length, mask = len(payload), 0x80 if masked else 0
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if long == 8 or length > 0xFFFF:
        head += struct.pack("!BQ", mask | 127, length)
    elif long == 2 or length > 125:
        head += struct.pack("!BH", mask | 126, length)
    else:
        head += bytes([mask | length])
    if not masked:
        return head + payload
    key = os.urandom(4)
    stream = (key * (length // 4 + 1))[:length]
    return (
        head + key + (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(length, "big")
    )


def close_payload(code: int, reason: bytes = b"") -> bytes:
    """What a close frame holds."""
    return struct.pack("!H", code) + reason


class Frame(NamedTuple):
    """One frame of the server."""

    opcode: int
    payload: bytes
    fin: bool


@dataclass
class Frames:
    """What a server sends to one client, taken apart as it comes."""

    head: bytes = b""
    """Its answer to the handshake, once it has agreed to that."""
    close_code: int | None = None
    """Of its close frame; None if there was none, 1005 if it had none."""
    rest: bytearray = field(default_factory=bytearray)
    """What is not whole yet."""

    @property
    def upgraded(self) -> bool:
        """Whether the server has agreed to the handshake."""
        return bool(self.head)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now. The answer to the handshake comes first."""
        self.rest += data
        if not self.head:
            end = self.rest.find(b"\r\n\r\n")
            if end < 0 or not self.rest.startswith(UPGRADED):
                return []
            self.head = bytes(self.rest[:end])
            del self.rest[: end + 4]
        frames = []
        while (found := self._take()) is not None:
            if found.opcode == CLOSE:
                self.close_code = _close_code(found.payload)[0]
            frames.append(found)
        return frames

    def _take(self) -> Frame | None:
        data = self.rest
        if len(data) < 2:
            return None
        assert not data[0] & 0x70, f"the server sets reserved bits after {self.head.lower()!r}"
        assert not data[1] & 0x80, "the server masks"
        length, start = data[1], 2
        if length >= 126:
            start = 4 if length == 126 else 10
            if len(data) < start:
                return None
            length = int.from_bytes(data[2:start], "big")
        if len(data) < start + length:
            return None
        found = Frame(data[0] & 15, bytes(data[start : start + length]), bool(data[0] & 0x80))
        del data[: start + length]
        return found


@dataclass
class Ending:
    """How a connection came to its end."""

    code: int | None = None
    """Of the close frame; None if there was none, 1005 if it had none."""
    reason: str = ""
    closed_after: float = 0.0
    """Seconds from when the server had all bytes to its close frame, or the end if there was none."""
    ended_after: float = 0.0
    """Seconds from when the server had all bytes to the end of what it sends."""
    frames: list[Frame] = field(default_factory=list)


class RawClient:
    """A client after its handshake."""

    def __init__(
        self, port: int, *, head: bytes | None = None, receive_buffer: int | None = None, **changes: str
    ) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(head or upgrade_request(port, **changes))
        self._frames = Frames()
        self._waiting: deque[Frame] = deque()
        while not self._frames.upgraded:
            self._receive()
        self.head = self._frames.head
        assert f"\r\nsec-websocket-accept: {ACCEPT}".lower() in self.head.decode().lower()

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def next_frame(self) -> Frame:
        """The next frame of the server."""
        while not self._waiting:
            self._receive()
        return self._waiting.popleft()

    def frame_with(self, opcode: int) -> Frame:
        """The next frame of a kind."""
        while (found := self.next_frame()).opcode != opcode:
            pass
        return found

    def answers_ping(self) -> bool:
        """Whether the server still listens."""
        self.send(frame(PING, b"are you there?"))
        return self.frame_with(PONG).payload == b"are you there?"

    def conclude(self, data: bytes, piece: int = 1 << 20) -> Ending:
        """Send bytes, ``piece`` of them at once, and read until the server ends the connection."""
        ending, left = Ending(), memoryview(data)
        sent_at = time.monotonic()
        closed_at: float | None = None
        self.socket.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            while True:
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if left else 0)
                selector.modify(self.socket, wanted)
                ready = selector.select(PATIENCE)
                assert ready, f"still open after {PATIENCE} seconds; {ending.frames[-3:]}"
                if ready[0][1] & selectors.EVENT_WRITE:
                    try:
                        left = left[self.socket.send(left[:piece]) :]
                    except ConnectionError:  # It has heard enough.
                        left = left[:0]
                    sent_at = time.monotonic()
                if ready[0][1] & selectors.EVENT_READ:
                    try:
                        received = self.socket.recv(65536)
                    except ConnectionError:
                        break
                    if not received:
                        break
                    self._waiting += self._frames.feed(received)
                    while self._waiting:
                        found = self._waiting.popleft()
                        ending.frames.append(found)
                        if found.opcode == CLOSE and closed_at is None:
                            closed_at = time.monotonic()
                            ending.code, ending.reason = _close_code(found.payload)
        ended_at = time.monotonic()
        ending.ended_after = max(0.0, ended_at - sent_at)
        ending.closed_after = max(0.0, (closed_at or ended_at) - sent_at)
        rest = bytes(self._frames.rest[:40])
        assert not rest, f"the server closed within a frame: {rest!r}"
        assert [each.opcode for each in ending.frames].count(CLOSE) <= 1, "more than one close frame"
        assert closed_at is None or ending.frames[-1].opcode == CLOSE, "something follows the close frame"
        return ending

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"the server closed after {bytes(self._frames.rest)!r}"
        self._waiting += self._frames.feed(data)


def _close_code(payload: bytes) -> tuple[int, str]:
    if not payload:
        return 1005, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode()
