"""WebSocket by hand, for clients of which one thread has a thousand, or which do what no library would."""

import base64
import os
import struct
from dataclasses import dataclass, field

CLOSE = 8
UPGRADED = b"HTTP/1.1 101 "


def upgrade_request(port: int, path: str = "/", subprotocol: str = "fuzzserver") -> bytes:
    """What a browser sends to get a WebSocket."""
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        f"Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    ).encode()


@dataclass
class Frames:
    """What a server sends to one client, taken apart as it comes."""

    upgraded: bool = False
    close_code: int | None = None
    _rest: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that are whole now: opcode and payload. The answer to the request comes first."""
        self._rest += data
        if not self.upgraded:
            end = self._rest.find(b"\r\n\r\n")
            if end < 0 or not self._rest.startswith(UPGRADED):
                return []
            self.upgraded = True
            del self._rest[: end + 4]
        frames = []
        while (frame := self._take()) is not None:
            if frame[0] == CLOSE:
                self.close_code = int.from_bytes(frame[1][:2], "big")
            frames.append(frame)
        return frames

    def _take(self) -> tuple[int, bytes] | None:
        if len(self._rest) < 2:
            return None
        size, start = self._rest[1] & 127, 2
        if size >= 126:
            layout = ">H" if size == 126 else ">Q"
            start += struct.calcsize(layout)
            if len(self._rest) < start:
                return None
            (size,) = struct.unpack_from(layout, self._rest, 2)
        if len(self._rest) < start + size:
            return None
        opcode, payload = self._rest[0] & 15, bytes(self._rest[start : start + size])
        del self._rest[: start + size]
        return opcode, payload


def pong(payload: bytes) -> bytes:
    """The answer to a ping; clients mask what they send."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([0x8A, 0x80 | len(payload)]) + mask + masked
