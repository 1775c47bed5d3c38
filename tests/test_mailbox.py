"""Inputs on their way to an instance: in order, within bounds, and kept while nobody takes them."""

import struct
import time

import pytest

from fuzzserver.fuzz import mailbox
from fuzzserver.fuzz.mailbox import MAX_WAITING, OVERHEAD, Mailbox
from fuzzserver.wire.messages import ClientTag


class Child:
    """Takes what it has room for."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.got = bytearray()

    def write(self, data: memoryview) -> int:
        """Take some bytes."""
        size = min(self.room, len(data))
        self.got += data[:size]
        self.room -= size
        return size

    def inputs(self) -> list[tuple[int, bytes]]:
        """The index of the test and the input of each message."""
        found, at = [], 0
        while at < len(self.got):
            tag, size, index = struct.unpack_from("<III", self.got, at)
            assert tag == ClientTag.NEW_FUZZ_INPUT
            found.append((index, bytes(self.got[at + 12 : at + 8 + size])))
            at += 8 + size
        return found


def test_order() -> None:
    """What came while nobody listened, or while a test was left out, comes later, as it came."""
    box = Mailbox("instance 1")
    box.put("a", b"1")
    box.put("b", b"2")
    only_b = Child(room=20)
    box.connect(only_b.write, ["b"], b"")
    box.put("a", b"3")
    box.put("b", b"4")
    only_b.room = 100
    box.deliver()
    box.disconnect()
    assert only_b.inputs() == [(0, b"2"), (0, b"4")]
    box.put("b", b"5")
    box.put("a", b"6")
    both = Child()
    box.connect(both.write, ["b", "a"], b"")
    assert both.inputs() == [(1, b"1"), (1, b"3"), (0, b"5"), (1, b"6")]


@pytest.mark.parametrize("size", [0, 1000])
def test_bounds(size: int) -> None:
    """The oldest are lost, whichever test they are for; empty inputs count, too."""
    box = Mailbox("instance 1")
    box.connect(Child(room=0).write, ["a"], b"hi")
    count = MAX_WAITING // (OVERHEAD + size)
    for number in range(count + 100):
        box.put("ab"[number % 2], str(number).encode().rjust(size) if size else b"")
    child = Child()
    box.connect(child.write, ["a", "b"], b"")
    inputs = child.inputs()
    assert len(inputs) == count
    assert [index for index, _ in inputs] == [number % 2 for number in range(100, count + 100)]
    if size:
        assert int(inputs[0][1]) == 100


def test_tests_that_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many inputs that are kept for later make no work when others come."""
    monkeypatch.setattr(mailbox, "MAX_WAITING", 1 << 30)
    box = Mailbox("instance 1")
    child = Child()
    box.connect(child.write, ["good"], b"")
    for _ in range(20_000):
        box.put("bad", b"kept")
    began = time.thread_time()
    for _ in range(2000):
        box.put("good", b"")
    assert time.thread_time() - began < 2
    assert len(child.inputs()) == 2000
