"""Messages as WebSocket frames that may be sent to any number of viewers (RFC 6455, section 5.2).

wsproto makes the frames of one connection. What is made here once is sent on all of them: whole messages,
neither masked nor compressed.
"""

import struct

__all__ = ["Frames"]

FIN = 0x80
TEXT, BINARY = 1, 2
MAX_7_BITS, U16, U64 = 125, 126, 127

MAX_JOINED = 64 * 1024
"""Bytes that are rather copied than sent in pieces."""


class Frames:
    """Collects messages."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, message: bytes | str) -> None:
        """Append a message: bytes are binary, and a ``str`` is text."""
        opcode = BINARY if isinstance(message, bytes) else TEXT
        payload = message if isinstance(message, bytes) else message.encode()
        head = _head(opcode, len(payload))
        self._parts += (head, payload)
        self._size += len(head) + len(payload)

    def pieces(self) -> list[bytes | memoryview]:
        """All of it, to be sent in this order. Large messages are not copied."""
        if self._size <= MAX_JOINED:
            return [b"".join(self._parts)] if self._parts else []
        return [memoryview(part) for part in self._parts]


def _head(opcode: int, size: int) -> bytes:
    first = FIN | opcode
    if size <= MAX_7_BITS:
        return bytes((first, size))
    return struct.pack("!BBH", first, U16, size) if size < 1 << 16 else struct.pack("!BBQ", first, U64, size)
