"""Frames that are made once for all viewers."""

import pytest
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, TextMessage

from fuzzserver.web.frames import MAX_JOINED, Frames

SIZES = [0, 1, 125, 126, 127, 1000, 65535, 65536, 65537, 200_000]


@pytest.mark.parametrize("size", SIZES)
def test_frames_are_those_of_wsproto(size: int) -> None:
    """Each form of the length, for bytes and for text whose characters take several bytes."""
    wsproto = Connection(ConnectionType.SERVER)
    frames = Frames()
    for message in (bytes(size), "é" * (size // 2) + "x" * (size % 2)):
        frames.add(message)
        event = BytesMessage(message) if isinstance(message, bytes) else TextMessage(message)
        (*pieces,) = frames.pieces()
        frames = Frames()
        assert b"".join(pieces) == wsproto.send(event)


def test_large_messages_are_not_copied() -> None:
    """They wait for many viewers at once; what is small is sent in one piece."""
    frames = Frames()
    assert frames.pieces() == []
    frames.add(b"small")
    frames.add(b"too")
    assert len(frames.pieces()) == 1
    large = bytes(MAX_JOINED)
    frames.add(large)
    pieces = frames.pieces()
    assert pieces[-1].obj is large
    assert b"".join(pieces).startswith(b"\x82\x05small\x82\x03too\x82\x7f")
