"""What the page's wasm makes of the server's messages, whatever is in them."""

import math
import random
import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzserver import paths
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.wasm import build_wasm_binary
from tests import support_wasm
from tests.support_wasm import (
    COVERAGE,
    ENTRY_POINTS,
    HISTORY,
    MALFORMED,
    NEW_INDEX,
    NONE,
    POINTS,
    SAME_INDEX,
    TIME,
    UNKNOWN,
    Page,
    PageBinary,
    answers,
    delta_message,
    entry_points_message,
    history_message,
    index_message,
    random_map,
    small_map,
    update_message,
)

binary, page = support_wasm.binary, support_wasm.page

WEB = paths.lib_dir() / "fuzzer" / "web"


# ------------------------------------------------------------------ messages


def valid_messages() -> dict[str, tuple[bytes, int]]:
    """A message of each kind that goes with ``small_map``, and what ``receive`` answers."""
    tables = small_map()
    return {
        "time": (struct.pack("<Bq", 0, 5), TIME),
        "index": (tables.index(), SAME_INDEX),
        "update": (update_message([0, 2], 3), COVERAGE),
        "entry points": (entry_points_message([1, 2]), ENTRY_POINTS),
        "delta": (delta_message([0, 1], 9.5), COVERAGE),
        "history": (history_message([(1, 2, 3, 4, 0), (2, 3, 4, 5, 1)]), HISTORY),
        "points": (tables.points([0, 1, 12]), POINTS),
    }


@pytest.mark.parametrize("kind", valid_messages())
def test_wrong_length(page: Page, kind: str) -> None:
    """A message that is cut short, or has a byte too many, is refused as a whole."""
    message, answer = valid_messages()[kind]
    assert page.send(small_map().index()) == NEW_INDEX
    assert page.send(update_message([1], 3)) == COVERAGE
    before = answers(page)
    for length in range(1, len(message)):
        # An index that ends in its strings is as good as the whole, but for what its head says.
        assert page.send(message[:length]) == MALFORMED
    assert page.send(message + b"\0") == MALFORMED
    assert answers(page) == before
    assert page.send(message) == answer


def test_other_messages(page: Page) -> None:
    """Nothing, an unknown tag, and what needs an index that is not there."""
    assert page.send(b"") == MALFORMED
    assert {page.send(bytes([tag]) * 40) for tag in [*range(4, 16), *range(19, 256)]} == {UNKNOWN}
    for kind in ("update", "delta", "points"):
        assert page.send(valid_messages()[kind][0]) == MALFORMED
    assert page.send(valid_messages()["history"][0]) == HISTORY


@pytest.mark.parametrize(
    "message",
    [
        delta_message([0, 3], 1.0),
        delta_message([2, 1], 1.0),
        delta_message([1, 1], 1.0),
        delta_message([0], math.nan),
        delta_message([0], math.inf),
        history_message([(math.nan, 1, 1, 1, 0)]),
        update_message([], 100),
        small_map().points([0, 0, 0])[:4] + struct.pack("<I", NONE) + small_map().points([0, 0, 0])[8:],
    ],
)
def test_wrong_numbers(page: Page, message: bytes) -> None:
    """Points that do not exist or are out of order, times that are none, and lengths that lie."""
    page.send(small_map().index())
    page.send(update_message([], 3))
    before = answers(page)
    assert page.send(message) == MALFORMED
    assert answers(page) == before


def test_delta_without_a_base(page: Page) -> None:
    """A delta is nothing without the bits that it changes."""
    page.send(small_map().index())
    assert page.send(delta_message([0], 1.0)) == MALFORMED
    assert page.number("coveredCount") == 0


def test_an_interruption(page: Page) -> None:
    """Without another index all bits, entry points and the whole history come again: nothing is doubled."""
    page.send(small_map().index(start_timestamp=10**9))
    page.send(small_map().points([0, 0, 0]))
    page.call("prepareLines")
    for _ in range(3):
        assert page.send(struct.pack("<Bq", 0, 5 * 10**9)) == TIME
        assert page.send(update_message([0, 2], 3, n_runs=7)) == COVERAGE
        assert page.send(entry_points_message([1])) == ENTRY_POINTS
        assert page.send(history_message([(1, 1, 1, 1, 0), (2, 7, 1, 2, 0)])) == HISTORY
        assert (page.count64("totalRuns"), page.number("coveredCount"), page.call("fuzzedSeconds")) == (
            7,
            2,
            4,
        )
        assert (page.number("linesCovered"), page.number("functionsCovered")) == (2, 2)
        assert (page.number("historyLen"), page.indexes("entryPoints")) == (2, [1])
    assert page.send(delta_message([1], 5.25)) == COVERAGE
    assert page.indexes("newlyCovered") == [1]


def test_same_index(page: Page) -> None:
    """A restarted fuzzer sends the same index with another time: coverage and history stay."""
    page.send(small_map().index(start_timestamp=10**9))
    page.send(update_message([], 3))
    page.send(delta_message([1], 5.25))
    page.send(history_message([(1, 1, 1, 1, 0)]))
    page.send(struct.pack("<Bq", 0, 5 * 10**9))
    assert page.call("fuzzedSeconds") == 4
    assert page.send(small_map().index(start_timestamp=2 * 10**9)) == SAME_INDEX
    assert (page.call("fuzzedSeconds"), page.number("coveredCount")) == (3, 1)
    assert (page.call("pointTime", 1), page.number("historyLen")) == (5.25, 1)
    other = small_map()
    other.locations[0] = (0, 1, 2)
    assert page.send(other.index()) == NEW_INDEX
    assert (page.number("coveredCount"), page.number("historyLen"), page.call("pointTime", 1)) == (0, 0, 0)


def test_numbers_that_point_nowhere(page: Page) -> None:
    """A file without a directory or a name, and a location without a file, are shown as such."""
    message = index_message([1000], [(7, 0), (0, 0), (0, 1000)], [(NONE, 0, 0), (3, 1, 1)], b"a.zig\0")
    assert page.send(message) == NEW_INDEX
    assert [page.text("filePath", i) for i in range(4)] == ["a.zig", "?/a.zig", "?/?", ""]
    assert [page.number("locationFile", i) for i in (0, 1, 2, NONE)] == [3, 3, 3, 3]
    assert page.number("fileTotal", 3) == 2
    assert page.indexes("fileLocations", 3) == [0, 1]
    assert page.number("filesTotal") == 0


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=120),
    st.sampled_from([*valid_messages()]),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
    st.data(),
)
def test_any_bytes(
    binary: PageBinary, noise: bytes, kind: str, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    """No bytes and no arguments make it trap."""
    page = shared(binary)
    page.send(small_map().index())
    message = bytearray(valid_messages()[kind][0])
    for position, value in changes:
        message[position % len(message)] = value
    page.send(bytes(message))
    page.send(noise)
    page.send(bytes([data.draw(st.sampled_from([0, 1, 2, 3, 16, 17, 18]))]) + noise)
    page.put(noise)
    for name in ("openSource", "openTarSource", "unpack"):
        page.put(noise)
        page.call(name, *[0] * len(page.parameters[name]))
        poke(page, data)


NUMBERS = st.sampled_from([0, 1, 2, 3, 63, 64, 2**31 - 1, -(2**31), -1]) | st.integers(-(2**31), 2**31 - 1)
FLOATS = st.floats() | st.sampled_from([0.0, 1.0, 1e9, -1e300, math.nan, math.inf])
SWITCHES = st.integers(0, 1)
_shared: list[Page] = []


def shared(binary: PageBinary) -> Page:
    """One page for all examples: what came before must not matter."""
    if not _shared:
        _shared.append(binary.start())
    return _shared[0]


def poke(page: Page, data: st.DataObject) -> None:
    """Call everything with any arguments but `inbox`, which may ask for all memory there is."""
    numbers, floats = data.draw(st.lists(NUMBERS, min_size=3, max_size=3)), data.draw(FLOATS)
    for name, kinds in page.parameters.items():
        if name in ("inbox", "receive", "unpack", "openSource"):
            continue
        arguments = [
            floats if kind is float else number for kind, number in zip(kinds, [*numbers, 0], strict=False)
        ]
        if name.startswith("list"):
            arguments[1] = numbers[1] & 1
        page.call(name, *arguments)


# ------------------------------------------------------------------ the page


def test_modules(page: Page) -> None:
    """All scripts but main.js are in there, each behind what it imports."""
    names = [page.text("moduleName", i) for i in range(page.number("moduleCount"))]
    assert sorted(names) == sorted({path.name for path in WEB.glob("*.js")} - {"main.js"})
    for i, name in enumerate(names):
        text = page.text("moduleText", i)
        assert text == (WEB / name).read_text(encoding="utf-8")
        imported = re.findall(r'^(?:im|ex)port\b[^;]*?\bfrom "\./([^"]+)";', text, re.MULTILINE)
        assert set(imported) <= set(names[:i]), name
    assert page.text("moduleName", len(names)) == page.text("moduleText", len(names)) == ""


def test_style_sheet(page: Page) -> None:
    """All sheets, one after the other, that of the whole page first."""
    names = sorted((path.name for path in WEB.glob("*.css")), key=lambda name: name != "style.css")
    text = page.text("styleSheet")
    assert text.startswith((WEB / names[0]).read_text(encoding="utf-8"))
    assert all((WEB / name).read_text(encoding="utf-8") in text for name in names)


def test_our_own_page_carries_no_copies(client: ZigCompileClient) -> None:
    """What our server serves by itself is not in the wasm that it compiles for size."""
    path = build_wasm_binary(client, paths.lib_dir(), "ReleaseSmall")
    assert path.stat().st_size < 120_000
    page = support_wasm.built(client, "ReleaseSmall").start()
    assert page.number("moduleCount") == 0
    assert page.text("moduleText", 0) == page.text("styleSheet") == ""
    assert page.send(small_map().index()) == NEW_INDEX


def test_memory_does_not_grow(page: Page) -> None:
    """What comes again and again takes the room of what came before."""
    tables = random_map(random.Random(1), 20_000, 20, 300)
    other = random_map(random.Random(2), 20_000, 20, 300)
    sizes = []
    for turn in range(30):
        for each in tables, other:
            page.send(each.index())
            page.send(update_message(range(0, 20_000, 2 + turn % 3), 20_000))
            page.send(delta_message([1, 3, 5 + turn], 9.0))
            page.send(each.points([1] * 20_000))
            page.call("prepareLines")
            page.listed("listFunctions", 1, True, 0)
            page.send(history_message([(1, 1, 1, 1, 0)] * 3000))
            page.open(1, b"const a = b;\n" * 3000)
        sizes.append(page.memory_size())
    assert len(set(sizes[5:])) == 1
