"""What was said: kept within bounds, and told without gaps to whoever keeps up."""

import json
import threading
import time

from fuzzserver.logbook import MAX_ENTRIES, MAX_ENTRY, MAX_SIZE, LogBook


def texts(book: LogBook, seq: int = 0) -> list[str]:
    """What came after an entry."""
    return [entry.text for entry in book.since(seq)[2]]


def test_entry() -> None:
    """Who said what, when, and how bad it is."""
    book = LogBook()
    before = time.time()
    book.add("main.test.fuzz", "error", "it broke\nhere\n")
    (entry,) = book.since(0)[2]
    assert before <= entry.time <= time.time()
    assert entry.to_json() == {
        "time": entry.time,
        "source": "main.test.fuzz",
        "level": "error",
        "text": "it broke\nhere",
    }


def test_nothing_said() -> None:
    """An empty text is no entry."""
    book = LogBook()
    for text in ("", "\n\n"):
        book.add("zig", "info", text)
    assert book.since(0) == (0, True, [])


def test_continuation() -> None:
    """At first all is told, then what is new, then nothing."""
    book = LogBook()
    book.add("a", "info", "one")
    book.add("a", "info", "two")
    seq, whole, entries = book.since(0)
    assert (whole, [entry.text for entry in entries]) == (True, ["one", "two"])
    book.add("a", "info", "three")
    later, whole, entries = book.since(seq)
    assert (whole, [entry.text for entry in entries]) == (False, ["three"])
    assert book.since(later) == (later, False, [])


def test_number_is_bounded() -> None:
    """The oldest make room; who has missed some of them gets all that is kept instead."""
    book = LogBook()
    for number in range(1, MAX_ENTRIES + 11):
        book.add("a", "info", str(number))
    assert texts(book) == [str(number) for number in range(11, MAX_ENTRIES + 11)]
    # The last one that is gone is number 10: who has seen that one has missed nothing.
    _, whole, entries = book.since(10)
    assert (whole, len(entries)) == (False, MAX_ENTRIES)
    seq, whole, entries = book.since(9)
    assert (seq, whole, len(entries)) == (MAX_ENTRIES + 10, True, MAX_ENTRIES)


def test_size_is_bounded() -> None:
    """Text counts in bytes, of which some characters have more than one."""
    book = LogBook()
    for number in range(20):
        book.add("a", "info", f"{number:02}" + "ä" * 20_000)
    kept = texts(book)
    size = sum(len(text.encode()) for text in kept)
    assert MAX_SIZE - 40_002 < size <= MAX_SIZE
    assert [text[:2] for text in kept] == [f"{number:02}" for number in range(20 - len(kept), 20)]


def test_long_text_is_cut() -> None:
    """At a whole character, and with a note of how much is missing."""
    book = LogBook()
    book.add("a", "info", "x" + "ä" * MAX_ENTRY)
    (text,) = texts(book)
    kept, note = text.split("\n")
    assert kept == "x" + "ä" * ((MAX_ENTRY - 1) // 2)
    assert note == f"… and {MAX_ENTRY + 1:,} more bytes, which were not kept"
    book.add("a", "info", "y" * MAX_ENTRY)
    assert texts(book)[1] == "y" * MAX_ENTRY


def test_what_is_no_text() -> None:
    """Half a character of a path, say, can be sent all the same."""
    book = LogBook()
    book.add("a", "warning", "cannot open '\udcff'")
    (entry,) = book.since(0)[2]
    assert entry.text == "cannot open '\\udcff'"
    assert json.loads(json.dumps(entry.to_json()))["text"].encode()


def test_many_threads() -> None:
    """Nothing is lost or told twice while many write and one reads."""
    book = LogBook()

    def write(name: str) -> None:
        for number in range(200):
            book.add(name, "info", str(number))

    threads = [threading.Thread(target=write, args=(str(name),)) for name in range(4)]
    for thread in threads:
        thread.start()
    seq, seen = 0, []
    while len(seen) < 800:
        seq, _, entries = book.since(seq)
        seen += entries
    for thread in threads:
        thread.join()
    assert [entry.seq for entry in seen] == list(range(1, 801))
    for name in range(4):
        assert [entry.text for entry in seen if entry.source == str(name)] == [str(n) for n in range(200)]
