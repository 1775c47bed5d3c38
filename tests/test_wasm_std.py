"""The page's wasm of each release of Zig, and all sources that come with Zig in its source view."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzzserver.zig.compile_client import ZigCompileClient
from tests import support_wasm
from tests.support_wasm import Map, Page, PageBinary, delta_message, small_map, update_message
from tests.zigs import VERSIONS, every_zig, zig_of

PLAIN, KEYWORD, FUNCTION, MARK = 0, 1, 6, 15
SAMPLE = 12
"""Files that are shown for every change."""
LARGEST = 1
"""Of which so many are the largest that there are."""


@pytest.fixture
def binary(version: str, zig_cache: Path) -> PageBinary:
    """The page compiled by that release, in Debug mode: each overflow is a trap."""
    return support_wasm.built(ZigCompileClient(zig_of(version), zig_cache), "Debug")


@pytest.fixture
def page(binary: PageBinary) -> Page:
    """A page that has received nothing."""
    return binary.start()


def shown(page: Page, source: bytes) -> tuple[bytes, set[int]]:
    """All text that the page shows of a source, and the classes of what is in it."""
    lines, kinds = [], set()
    for line in range(page.open(0, source)):
        numbers = page.run_numbers(line)
        starts, lengths = numbers[0::4], numbers[1::4]
        # Nothing is left out between two runs.
        assert all(
            start + length == after for start, length, after in zip(starts, lengths, starts[1:], strict=False)
        )
        lines.append(page.read(starts[0], sum(lengths)) if numbers else b"")
        kinds.update(numbers[2::4])
    return b"\n".join(lines), kinds - {MARK}


@every_zig
def test_each_compiles_the_page(version: str, page: Page) -> None:
    """It reads the messages, and says which release it knows the tokens of."""
    page.send(small_map().index())
    page.send(update_message([0], 3))
    page.send(delta_message([2], 7.5))
    page.send(small_map().points([1, 0, 7]))
    assert [page.call("locationCovered", i) for i in range(3)] == [1, 0, 1]
    assert page.text("filePath", 1) == "/project/b.zig"
    assert page.text("functionName", 1) == "b.two"
    assert page.text("zigVersion") == version
    assert page.indexes("newest", 9) == [2]


@every_zig
def test_std_is_shown(
    version: str, page: Page, rounds: Callable[[int, int], int], pytestconfig: pytest.Config
) -> None:
    """Every file of the standard library, also of the newest release: with all its text, and highlighted."""
    is_whole = pytestconfig.getoption("--slow") or pytestconfig.getoption("--all-zigs")
    page.send(Map(["/std.zig"], [(0, 1, 1)]).index())
    for other in {version, VERSIONS[-1]} if is_whole else {VERSIONS[-1]}:
        files = sorted((zig_of(other).lib_dir / "std").rglob("*.zig"), key=lambda path: path.stat().st_size)
        assert len(files) > 500
        if not is_whole:
            files = random.Random(version).sample(files[:-LARGEST], SAMPLE) + files[-LARGEST:]
        for path in files:
            source = path.read_bytes()
            text, kinds = shown(page, source)
            assert text == source.removesuffix(b"\n"), path
            assert (kinds - {PLAIN} == set()) == (source.strip() == b""), path
            assert page.number("refusedCount") == 0, path


@every_zig
@pytest.mark.usefixtures("version")
def test_what_no_release_knows_is_plain(page: Page) -> None:
    """What cannot be read is plain up to the end of its line, and counted; the rest is highlighted."""
    page.send(Map(["/new.zig"], [(0, 2, 1)]).index())
    source = (
        b"const a = 1;\nconst b = \\ new \xa7 syntax;\nfn c() void {} $ fn\nconst d = ` 2;\nfn e() void {}"
    )
    assert page.open(0, source) == 5
    assert page.number("refusedCount") == 3
    lines = [[(text, kind) for text, kind, _ in page.runs(line) if kind != MARK] for line in range(5)]
    assert [b"".join(text for text, _ in line) for line in lines] == source.split(b"\n")
    assert lines[0][0] == lines[1][0] == lines[3][0] == (b"const", KEYWORD)
    assert lines[1][-1] == (b" b = \\ new \xa7 syntax;", PLAIN)
    assert [kind for _, kind in lines[2]].count(KEYWORD) == 1
    assert (b"e", FUNCTION) in lines[4]
    page.open(0, b"const fine = 1;\n")
    assert page.number("refusedCount") == 0


@every_zig
@pytest.mark.usefixtures("version")
@pytest.mark.parametrize(
    "source",
    [
        b"(" * 300_000,
        b"{[(" * 50_000 + b"1" + b")]}" * 50_000,
        b"if (a) " * 50_000 + b"b;",
        b"fn a() void {\n" * 30_000,
        b"!" * 300_000 + b"a;",
        b"\\\\ text\n" * 100_000,
    ],
    ids=["open", "balanced", "if", "nested", "operators", "string"],
)
def test_depth_is_no_matter(page: Page, source: bytes) -> None:
    """However deep it is nested, and however long it is, nothing runs over."""
    page.send(Map(["/deep.zig"], [(0, 1, 1), (0, 99_999, 9)]).index())
    n_lines = page.open(0, source)
    assert n_lines == source.count(b"\n") + (not source.endswith(b"\n"))
    for line in (0, n_lines // 2, n_lines - 1):
        assert page.runs(line)
