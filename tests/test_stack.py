"""Stack traces: which lines are frames, and new names for their files."""

import pytest

from fuzzserver.stack import Frame, frame_of, frame_of_place, with_paths


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
