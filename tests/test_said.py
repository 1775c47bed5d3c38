"""What workers write, for the log: whole lines, in time, and not too many."""

from collections.abc import Callable

import pytest

from fuzzserver.fuzz import said as module
from fuzzserver.fuzz.said import BURST, FLOOD_INTERVAL, INTERVAL, MAX_LINE, RATE, SaidLines


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """As of ``time``."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the module."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def texts() -> list[str]:
    """What was handed on."""
    return []


@pytest.fixture
def said(clock: Clock, texts: list[str]) -> SaidLines:
    """What is tested."""
    return SaidLines(texts.append)


def test_whole_lines(said: SaidLines, texts: list[str]) -> None:
    """A line is handed on when it is whole; characters are never cut."""
    said.feed("überall\nnä".encode()[:-1])
    assert texts == ["überall"]
    said.feed("ä".encode()[1:])
    assert texts == ["überall"]
    said.close()
    assert texts == ["überall", "nä"]


def test_lines_are_joined(said: SaidLines, texts: list[str], clock: Clock) -> None:
    """What comes within a quarter of a second is one text, empty lines included."""
    for line in (b"one\n", b"two\n", b"\n", b"three\n"):
        said.feed(line)
    assert texts == ["one"]
    clock.now += INTERVAL
    said.tick()
    assert texts == ["one", "two\n\nthree"]
    said.tick()
    said.close()
    assert texts == ["one", "two\n\nthree"]


def test_end(said: SaidLines, texts: list[str]) -> None:
    """The last words are handed on at once, and once."""
    said.feed(b"one\ntwo\nlast")
    said.feed(b" words")
    said.close()
    said.close()
    assert texts == ["one\ntwo", "last words"]


def test_line_without_end(said: SaidLines, texts: list[str]) -> None:
    """What never ends is cut somewhere."""
    said.feed(b"x" * (MAX_LINE + 1))
    assert texts == ["x" * (MAX_LINE + 1)]
    said.feed(b"y\n")
    said.close()
    assert texts[1:] == ["y"]


def test_bytes_that_are_no_text(said: SaidLines, texts: list[str]) -> None:
    """They are replaced."""
    said.feed(b"\xff\0\x1b\n")
    assert texts == ["\ufffd\0\x1b"]


def fed(said: SaidLines, clock: Clock, seconds: float, line: Callable[[int], bytes]) -> int:
    """Feed a hundred lines each millisecond; returns how many there were."""
    count = 0
    for _ in range(round(seconds * 1000)):
        said.feed(b"".join(line(count + number) for number in range(100)))
        count += 100
        clock.now += 0.001
    return count


def test_flood(said: SaidLines, texts: list[str], clock: Clock) -> None:
    """Of a flood, the beginning and a little of the rest is kept; what is not is counted, line by line."""
    lines = fed(said, clock, 10.0, lambda number: b"line %07d\n" % number)
    said.close()
    assert len(texts) <= 10.0 / FLOOD_INTERVAL + 2
    size = sum(len(text) for text in texts)
    assert BURST <= size + 1000 and size <= BURST + 10 * RATE + 1000
    kept = [line for text in texts for line in text.split("\n") if line.startswith("line ")]
    assert kept[:1000] == [f"line {number:07}" for number in range(1000)]
    assert kept == sorted(set(kept))
    notes = [line for text in texts for line in text.split("\n") if not line.startswith("line ")]
    counts = [int(note.removeprefix("… ").partition(" ")[0].replace(",", "")) for note in notes]
    assert all(note.endswith(" more lines were not kept") for note in notes)
    assert len(kept) + sum(counts) == lines


def test_one_line_too_many(said: SaidLines, texts: list[str], clock: Clock) -> None:
    """Then it is told in the singular; and after some silence all is kept again."""
    said.feed(b"a" * (BURST - 10) + b"\n" + b"b" * 20 + b"\n")
    assert texts == ["a" * (BURST - 10) + "\n… 1 more line was not kept"]
    clock.now += BURST / RATE
    said.feed((b"c" * 99 + b"\n") * (BURST // 100))
    assert texts[1] == "\n".join(["c" * 99] * (BURST // 100))
