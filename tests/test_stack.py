"""Stack traces: which lines are frames, and new names for their files."""

import time

import pytest

from fuzzserver.stack import MAX_LINE, Frame, frame_of, frame_of_place, with_paths


@pytest.mark.parametrize(
    ("line", "frame"),
    [
        ("/p/f.zig:3:5: 0x10123 in sum (test)", Frame("/p/f.zig", 3, 5, "sum")),
        ("a b:c.zig:30:50: 0x1 in each(u8,(x)) (a b)", Frame("a b:c.zig", 30, 50, "each(u8,(x))")),
        ("    return a / b;", None),
        ("???:?:?: 0x7f2c41 in ??? (libc.so.6)", None),
        (" /p/f.zig:3:5: 0x10123 in sum (test)", None),
        ("/p/f.zig:3:5: 0x10123 in sum", None),
        ("/p/f.zig:9999999999:5: 0x10123 in sum (test)", None),
        (":1:2: 0x1 in a:3:4: 0x1 in f (t)", Frame(":1:2: 0x1 in a", 3, 4, "f")),
        ("a:1:2: 0x1 in b:3:4: 0x1 in f (x) (t)", Frame("a", 1, 2, "b:3:4: 0x1 in f (x)")),
        ("a:1:2: 0x1 in b:3:4: 0x1 in f (t", None),
        ("", None),
    ],
)
def test_frames(line: str, frame: Frame | None) -> None:
    """A frame has a place, an address and a function."""
    assert frame_of(line) == frame


@pytest.mark.parametrize(
    ("place", "frame"),
    [
        ("/p/f.zig:3:5", Frame("/p/f.zig", 3, 5, "")),
        ("a:1:2:3", Frame("a:1", 2, 3, "")),
        ("a\nb:1:2", Frame("a\nb", 1, 2, "")),
        ("a:1", None),
        ("a:1:-2", None),
        (":1:2", None),
        ("", None),
    ],
)
def test_places(place: str, frame: Frame | None) -> None:
    """The last two numbers are line and column."""
    assert frame_of_place(place) == frame


def test_other_paths() -> None:
    """Paths of frames change, and nothing else: not the source in a trace that names the same file."""
    stack = "/p/f.zig:3:5: 0x1 in /p/f (test)\n    open(/p/f.zig:3:5);\n    ^\n/q.zig:1:2: 0x1 in g (t)\n"
    assert with_paths(stack, lambda path: path.removeprefix("/p/")) == (
        "f.zig:3:5: 0x1 in /p/f (test)\n    open(/p/f.zig:3:5);\n    ^\n/q.zig:1:2: 0x1 in g (t)\n"
    )
    assert with_paths(stack, lambda path: path) == stack
    assert with_paths("", str.upper) == ""


def test_long_lines() -> None:
    """The longest path that there can be is read; what is longer is no frame, and stays as it is."""
    rest = ":3:5: 0x10123 in sum (test)"
    longest = f"/{'p' * (MAX_LINE - len(rest) - 1)}"
    frame = frame_of(longest + rest)
    assert frame is not None and frame.path == longest
    assert with_paths(longest + rest, lambda path: "p") == f"p{rest}"
    assert frame_of(f"{longest}p{rest}") is None
    assert with_paths(f"{longest}p{rest}", lambda path: "p") == f"{longest}p{rest}"


@pytest.mark.parametrize("part", [":1:1: 0x1 in (", ":1:1: 0x1 in a (x) ", ":1:1: 0x", ":1", " (", "x"])
def test_hostile_lines(part: str) -> None:
    """What looks like a frame again and again takes no more time than it has characters."""
    line = "p" + part * (MAX_LINE // len(part) - 1)
    begin = time.thread_time()
    assert frame_of(line) is None
    stack = "\n".join([line] * 200)
    assert with_paths(stack, str.upper) == stack
    assert time.thread_time() - begin < 6, "a megabyte"
