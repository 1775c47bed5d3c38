"""The source view's half in the wasm: lines, runs, marks, states, and the tar of sources."""

import io
import itertools
import random
import tarfile
from collections.abc import Callable

import pytest

from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig
from tests import support_wasm
from tests.support_wasm import NONE, Location, Map, Page, delta_message, update_message

PLAIN, KEYWORD, STRING, NUMBER, COMMENT, BUILTIN, FUNCTION, TYPE, CONSTANT, CHARACTER = range(10)
MARK = 15
MAX_LINE_BYTES, MAX_LINE_RUNS = 20_000, 4_000


binary, page = support_wasm.binary, support_wasm.page


def lines_of(source: bytes) -> list[bytes]:
    """The lines as the page has them: at least one, and none behind the last end of line."""
    lines = source.split(b"\n")
    if lines[-1] == b"" and len(lines) > 1:
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]


def line_of(location: Location, lines: list[bytes]) -> int:
    """The line, from 0, on which a location is drawn."""
    return min(max(location[1], 1), len(lines)) - 1


def shown(page: Page, source: bytes, locations: list[tuple[int, int]], name: str = "/x.zig") -> int:
    """Open a source with points at these lines and columns."""
    page.send(Map([name, "/other.zig"], [(0, line, column) for line, column in locations]).index())
    return page.open(0, source)


# ---------------------------------------------------------------------- runs


def test_classes(page: Page) -> None:
    """Each kind of token has its class; what is plain is one run."""
    source = b"""\
//! Doc.
const std = @import("std");
pub fn find(x: u8, T: type) !Thing { // why
    return if (x == 'a') null else find(0x1f, .void);
}
\\\\ text
"""
    assert shown(page, source, []) == 6
    lines = [[(text.decode(), kind) for text, kind, _ in page.runs(i)] for i in range(6)]
    assert lines[0] == [("//! Doc.", COMMENT)]
    assert lines[1] == [
        ("const", KEYWORD), (" std = ", PLAIN), ("@import", BUILTIN), ("(", PLAIN), ('"std"', STRING),
        (");", PLAIN),
    ]  # fmt: skip
    assert [run for run in lines[2] if run[1] != PLAIN] == [
        ("pub", KEYWORD), ("fn", KEYWORD), ("find", FUNCTION), ("u8", TYPE), ("T", TYPE), ("type", TYPE),
        ("Thing", TYPE), ("// why", COMMENT),
    ]  # fmt: skip
    assert [run for run in lines[3] if run[1] != PLAIN] == [
        ("return", KEYWORD), ("if", KEYWORD), ("'a'", CHARACTER), ("null", CONSTANT), ("else", KEYWORD),
        ("find", FUNCTION), ("0x1f", NUMBER),
    ]  # fmt: skip
    assert lines[5] == [("\\\\ text", STRING)]


def test_declarations(page: Page) -> None:
    """A name leads to the line where it is declared first, but not from there."""
    source = b"const a = b;\nvar b = a + c;\nfn c() void {\n    const a = T.c(b);\n}\n"
    shown(page, source, [])
    linked = [[(text, point) for text, _, point in page.runs(i) if point] for i in range(5)]
    assert linked == [[(b"b", 2)], [(b"a", 1), (b"c", 3)], [], [(b"a", 1), (b"c", 3), (b"b", 2)], []]


def test_const_in_types(page: Page) -> None:
    """A pointer to what is constant declares nothing."""
    shown(page, b"fn f(a: []const u8, p: *const Thing) Thing {}\npub const Thing = u8;\n", [])
    assert [(text, point) for text, _, point in page.runs(0) if point] == [(b"Thing", 2), (b"Thing", 2)]


def test_marks_cut_runs(page: Page) -> None:
    """A mark lies before the byte of its column, also in the middle of a name."""
    shown(page, b"const abc = 1;\n", [(1, 9), (1, 1), (1, 9), (1, 15), (1, 999)])
    assert page.runs(0) == [
        (b"", MARK, 1), (b"const", KEYWORD, 0), (b" ab", PLAIN, 0), (b"", MARK, 0), (b"", MARK, 2),
        (b"c = ", PLAIN, 0), (b"1", NUMBER, 0), (b"", MARK, 3), (b"", MARK, 4), (b";", PLAIN, 0),
    ]  # fmt: skip


def test_marks_beyond_the_source(page: Page) -> None:
    """A line behind the end is the last one, a column behind a line its last character."""
    source = "a\n\nzweiß\r\nlast ü".encode()
    lines = [(1, 50), (2, 3), (3, 6), (3, 7), (3, 50), (4, 1), (4, 7), (5, 1), (NONE, NONE), (0, 7)]
    assert shown(page, source, lines) == 4
    assert [page.runs(i) for i in range(4)] == [
        [(b"", MARK, 9), (b"", MARK, 0), (b"a", PLAIN, 0)],
        [(b"", MARK, 1)],
        [(b"zwei", PLAIN, 0), *[(b"", MARK, i) for i in (2, 3, 4)], ("ß".encode(), PLAIN, 0)],
        [
            (b"", MARK, 5),
            (b"last ", PLAIN, 0),
            *[(b"", MARK, i) for i in (6, 7, 8)],
            ("ü".encode(), PLAIN, 0),
        ],
    ]
    assert [page.number("lineOfPoint", i) for i in range(11)] == [0, 1, 2, 2, 2, 3, 3, 3, 3, 0, NONE]


HOSTILE = {
    "empty": b"",
    "one newline": b"\n",
    "no newline at the end": b"const a = 1;",
    "CRLF": b"const a = 1;\r\n// c\r\n\r\nfn b() void {}\r\n",
    "NUL": b"const a\0 = 1;\nconst b = 2;\0",
    "only NUL": b"\0" * 50,
    "invalid UTF-8": b'const a = "\xff\xfe\xc3";\n// \xf0\x9f\n\x80\x80\x80\x80\x80',
    "long line": b"x + " * 250_000,
    "long comment": b"//" + b"\xc3\xa4" * 100_000 + b"\nfn a() void {}",
    "deeply nested": b"(" * 100_000,
    "open string": b'"abc\n"\n\'\n\\',
    "BOM": b"\xef\xbb\xbfconst a = 1;\n",
    "carriage returns": b"a\rb\r\r\n\r",
    "control characters": b'//\tx\n\x01\x02 fn a\x7f() void {}\n@\n@"\n',
    "not Zig": "Ünïcode\n#include <x>\n".encode(),
}


@pytest.mark.parametrize("name", ["/x.zig", "/x.c"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_sources(page: Page, kind: str, name: str) -> None:
    """Any bytes are shown as they are, with their marks, up to the length that a line may have."""
    source, rng = HOSTILE[kind], random.Random(kind)
    lines = lines_of(source)
    places = [(rng.randrange(len(lines) + 3), rng.randrange(40)) for _ in range(20)]
    assert shown(page, source, places, name) == len(lines)
    marks = []
    for i, line in enumerate(lines):
        runs = page.runs(i)
        text = b"".join(text for text, _, _ in runs)
        assert line.startswith(text)
        if len(line) <= MAX_LINE_BYTES and len(runs) < MAX_LINE_RUNS:
            assert text == line
        else:
            assert len(runs) == MAX_LINE_RUNS or MAX_LINE_BYTES - 4 < len(text) <= MAX_LINE_BYTES
        assert all((text == b"") == (kind == MARK) for text, kind, _ in runs)
        marks += [point for _, kind, point in runs if kind == MARK]
        if name == "/x.c":
            assert {kind for _, kind, _ in runs} <= {PLAIN, MARK}
    assert sorted(marks) == list(range(20))
    assert len(page.items("B", "overview", 9)) == 9
    assert page.runs(len(lines)) == page.runs(NONE) == []


def test_cut_between_characters(page: Page) -> None:
    """A line that is cut is still valid UTF-8."""
    for length in range(4):
        shown(page, b"a" * length + "𝄞".encode() * 10_000, [])
        text = b"".join(text for text, _, _ in page.runs(0))
        assert text.decode() and len(text) > MAX_LINE_BYTES - 4


def test_many_marks_on_a_line(page: Page) -> None:
    """No line has more runs than a page can bear."""
    shown(page, b"a b c\n", [(1, 1 + i % 5) for i in range(6000)])
    assert len(page.runs(0)) == MAX_LINE_RUNS


def test_file_without_an_index(page: Page) -> None:
    """A source of a file that is not in the index is a text without marks."""
    assert page.open(7, b"const a = 1;\nb\n") == 2
    assert page.runs(0) == [(b"const a = 1;", PLAIN, 0)]


def test_std(zig: Zig, client: ZigCompileClient, rounds: Callable[[int, int], int]) -> None:
    """Files of std: the runs of a line are the line, and each location has one mark."""
    page, rng = support_wasm.built(client, "ReleaseSmall").start(), random.Random(1)
    paths = sorted(zig.lib_dir.joinpath("std").rglob("*.zig"))
    assert len(paths) > 400
    for path in rng.sample(paths, rounds(len(paths), 100)):
        source = path.read_bytes()
        lines = lines_of(source)
        places = [(rng.randint(1, len(lines) + 2), rng.randint(1, 100)) for _ in range(30)]
        assert shown(page, source, places) == len(lines)
        marks = []
        # The long files are lists of numbers.
        for i in range(len(lines)) if len(lines) < 400 else rng.sample(range(len(lines)), 400):
            numbers = page.run_numbers(i)
            starts, lengths, classes = numbers[0::4], numbers[1::4], numbers[2::4]
            if not numbers:
                assert lines[i] == b""
                continue
            # Run behind run, without a hole.
            assert all(a + n == b for a, n, b in zip(starts, lengths, starts[1:], strict=False))
            assert page.read(starts[0], sum(lengths)) == lines[i]
            here = [point for point, kind in zip(numbers[3::4], classes, strict=True) if kind == MARK]
            assert all(page.number("lineOfPoint", point) == i for point in here)
            marks += here
        for i in {line_of((0, *place), lines) for place in places}:
            found = [point for _, kind, point in page.runs(i) if kind == MARK]
            assert sorted(found) == [k for k, place in enumerate(places) if line_of((0, *place), lines) == i]
        assert len(marks) == len(set(marks))


# -------------------------------------------------------------------- states


@pytest.mark.parametrize("n_points", [0, 1, 6, 60])
@pytest.mark.parametrize("n_lines", [1, 5, 40])
def test_states(page: Page, n_lines: int, n_points: int) -> None:
    """States of lines, the overview of them, and the way from one location to the next."""
    rng = random.Random(n_points)
    source = b"".join(b"x" * rng.randrange(9) + b"\n" for _ in range(n_lines))
    lines = lines_of(source)
    places = [(rng.randint(0, n_lines + 2), rng.randrange(12)) for _ in range(n_points)]
    # Another file's points in between are none of ours.
    locations = [(i % 2, *place) for place in places for i in range(2)]
    page.send(Map(["/a.zig", "/b.zig"], locations).index())
    covered = set(rng.sample(range(len(locations)), n_points // 2))
    page.send(update_message(covered, len(locations)))
    new = rng.sample(range(len(locations)), n_points // 4)
    page.send(delta_message(sorted(new), 77.5))
    late = set(new) - covered
    covered |= late
    assert page.open(0, source) == n_lines
    ours = sorted((i for i in range(0, len(locations), 2)), key=lambda i: (locations[i][1:], i))
    at = {i: line_of(locations[i], lines) for i in ours}
    states = []
    for line in range(n_lines):
        here = {i for i in ours if at[i] == line}
        states.append(0 if not here else 1 if here <= covered else 2 if here & covered else 3)
    assert list(page.items("B", "lineStates", 0, n_lines)) == states
    assert list(page.items("B", "lineStates", 3, 10)) == states[3:13]
    assert list(page.items("B", "lineStates", n_lines, 10)) == []
    for rows in 1, 3, n_lines, 3 * n_lines + 1:
        bounds = [i * n_lines // rows for i in range(rows + 1)]
        want = [max(states[a : max(b, a + 1)]) for a, b in itertools.pairwise(bounds)]
        assert list(page.items("B", "overview", rows)) == want
    assert [page.number("lineOfPoint", i) for i in range(len(locations))] == [
        at.get(i, NONE) for i in range(len(locations))
    ]
    for since in 77.0, 77.5:
        page.call("setNewSince", since)
        wanted = {0: set(ours) - covered, 1: late if since < 77.5 else set(), 2: set(ours)}
        for kind, points in wanted.items():
            candidates = [i for i in ours if i in points]
            for line in range(-1, n_lines + 1):
                after = [i for i in candidates if at[i] > line] if line >= 0 else []
                assert page.number("seek", line, 1, kind) == [*after, *candidates, NONE][0]
                before = [i for i in candidates if at[i] < line] if line >= 0 else candidates
                assert page.number("seek", line, -1, kind) == [NONE, *candidates, *before][-1]


def test_states_follow_updates(page: Page) -> None:
    """What is open shows what was covered since."""
    shown(page, b"a\nb\n", [(1, 1), (2, 1)])
    page.send(update_message([], 2))
    assert list(page.items("B", "lineStates", 0, 2)) == [3, 3]
    page.send(delta_message([1], 5.0))
    assert list(page.items("B", "lineStates", 0, 2)) == [3, 1]
    page.call("closeSource")
    assert list(page.items("B", "lineStates", 0, 2)) == list(page.items("B", "overview", 5)) == []
    assert page.number("lineOfPoint", 0) == page.number("seek", 0, 1, 2) == NONE
    page.open(0, b"a\nb\n")
    page.send(Map(["/y.zig"], []).index())
    assert page.runs(0) == []


# ----------------------------------------------------------------------- tar


def tar_of(files: dict[str, bytes], **options) -> bytes:
    """An archive of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_tar(page: Page, kind: int) -> None:
    """Sources are found by their paths, joined one way or the other."""
    long = "/" + "/".join(["folder" * 8] * (4 if kind == tarfile.GNU_FORMAT else 2)) + "/c.zig"
    files = ["/a//b.zig", long, "/missing.zig", "/without/points.zig"]
    page.send(Map(files, [(0, 1, 1), (1, 2, 1), (2, 1, 1)]).index())
    page.put(tar_of({"/a/b.zig": b"fn b() void {}\n", long: b"1\n2"}, format=kind))
    assert page.number("unpack") == 2
    assert page.number("openTarSource", 0) == 1
    assert page.runs(0)[:2] == [(b"", MARK, 0), (b"fn", KEYWORD, 0)]
    assert page.number("openTarSource", 1) == 2
    assert [page.number("openTarSource", f) for f in (2, 3, 4, NONE)] == [NONE] * 4
    assert page.runs(0) == []
    page.put(b"")
    assert page.number("unpack") == 0
    assert page.number("openTarSource", 0) == NONE


def test_broken_tar(page: Page) -> None:
    """Half of the sources is better than none."""
    whole = tar_of({f"/{i}.zig": b"x" * i * 100 for i in range(10)}, format=tarfile.GNU_FORMAT)
    rng = random.Random(1)
    for _ in range(200):
        broken = bytearray(whole[: rng.randrange(len(whole))])
        for _ in range(rng.randrange(4)):
            if broken:
                broken[rng.randrange(len(broken))] = rng.randrange(256)
        page.put(bytes(broken))
        assert page.number("unpack") <= 10
