"""A WebSocket client that sends whatever it is told, and sees what becomes of it."""

import base64
import hashlib
import os
import selectors
import socket
import struct
import time
from dataclasses import dataclass, field

PATIENCE = 20.0
"""Seconds after which a connection that should have ended counts as left open."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

KEY = base64.b64encode(b"sixteen bytes...").decode()
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


def upgrade(port: int, *, target: str = "/", without: tuple[str, ...] = (), **changes: str) -> bytes:
    """The head of a handshake. Keyword arguments replace headers or add some, ``_`` standing for ``-``."""
    headers = {
        "host": f"127.0.0.1:{port}",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": KEY,
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if name not in without]
    return "\r\n".join((f"GET {target} HTTP/1.1", *lines, "", "")).encode("latin-1")


@dataclass
class Frame:
    """One frame of the server."""

    opcode: int
    payload: bytes
    fin: bool


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
        self.socket.sendall(head or upgrade(port, **changes))
        self._data = b""
        while b"\r\n\r\n" not in self._data:
            data = self.socket.recv(4096)
            assert data, f"the server closed after {self._data!r}"
            self._data += data
        self.head, _, self._data = self._data.partition(b"\r\n\r\n")
        assert self.head.startswith(b"HTTP/1.1 101 "), self.head
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
        while (found := self._take_frame()) is None:
            data = self.socket.recv(65536)
            assert data, "the server closed without a frame"
            self._data += data
        return found

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
                    self._data += received
                    while (found := self._take_frame()) is not None:
                        ending.frames.append(found)
                        if found.opcode == CLOSE and closed_at is None:
                            closed_at = time.monotonic()
                            ending.code, ending.reason = _close_code(found.payload)
        ended_at = time.monotonic()
        ending.ended_after = max(0.0, ended_at - sent_at)
        ending.closed_after = max(0.0, (closed_at or ended_at) - sent_at)
        assert not self._data, f"the server closed within a frame: {self._data[:40]!r}"
        assert [each.opcode for each in ending.frames].count(CLOSE) <= 1, "more than one close frame"
        assert closed_at is None or ending.frames[-1].opcode == CLOSE, "something follows the close frame"
        return ending

    def _take_frame(self) -> Frame | None:
        data = self._data
        if len(data) < 2:
            return None
        assert not data[0] & 0x70, "the server sets reserved bits"
        assert not data[1] & 0x80, "the server masks"
        length, start = data[1], 2
        if length == 126:
            start = 4
        elif length == 127:
            start = 10
        if len(data) < start:
            return None
        if start > 2:
            length = int.from_bytes(data[2:start], "big")
        if len(data) < start + length:
            return None
        self._data = data[start + length :]
        return Frame(data[0] & 15, data[start : start + length], bool(data[0] & 0x80))


def _close_code(payload: bytes) -> tuple[int, str]:
    if not payload:
        return 1005, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode()
