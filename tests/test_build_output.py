"""What people see of what ``zig build`` said. The texts are Zig's, with shorter paths."""

from pathlib import Path

import pytest

from fuzzserver.fuzz.build_output import MAX_COLUMNS, MAX_LINES, shorten, strip_colors

LIB = Path("/zig/lib")

COMPILE_ERROR_0_14 = """\
/zig/zig test -ODebug --dep words -Mroot=/p/src/main.zig --cache-dir /p/.zig-cache --name test --listen=-\x20
test
+- run test
   +- zig test Debug native 1 errors
src/main.zig:7:17: error: use of undeclared identifier 'undeclared'
test "broken" { undeclared(); }
                ^~~~~~~~~~
error: the following command failed with 1 compilation errors:
/zig/zig test -ODebug --dep words -Mroot=/p/src/main.zig --cache-dir /p/.zig-cache --name test --listen=-\x20
/p/.zig-cache/o/9c4edf118064a7ac91a411e12df6f37f/test --seed=0x81 --cache-dir=/p/.zig-cache --listen=-\x20
Build Summary: 3/6 steps succeeded; 1 failed; 1/1 tests passed
test transitive failure
+- run test transitive failure
   +- zig test Debug native 1 errors
error: the following build command failed with exit code 1:
/p/.zig-cache/o/0a2f/build /zig/zig /zig/lib /p /p/.zig-cache /g --seed 0x81c517e3 -Z198d test --verbose
"""
COMPILE_ERROR_0_17 = """\
info(verbose): /zig/zig test -Odebug -Mroot=src/main.zig --cache-dir .zig-cache --name test --listen=-
test
+- run test
   +- compile test debug native 1 errors
src/main.zig:7:17: error: use of undeclared identifier 'undeclared'
test "broken" { undeclared(); }
                ^~~~~~~~~~
error: 1 compilation errors
failed command: /zig/zig test -Odebug -Mroot=src/main.zig --cache-dir .zig-cache --name test --listen=-

Build Summary: 3/6 steps succeeded (1 failed); 1/1 tests passed
test transitive failure
+- run test transitive failure
   +- compile test debug native 1 errors

"""
COMPILE_ERROR = """\
src/main.zig:7:17: error: use of undeclared identifier 'undeclared'
test "broken" { undeclared(); }
                ^~~~~~~~~~"""

FAILED_TEST = """\
test
+- run test 1/2 passed, 1 failed
error: 'main.test.failing' failed: hi
/zig/lib/std/testing.zig:580:14: 0x10d1fbf in expect (test)
    if (!ok) return error.TestUnexpectedResult;
             ^
/p/src/main.zig:7:48: 0x10d2017 in test.failing (test)
    try std.testing.expect(false);
    ^
error: while executing test 'main.test.failing', the following test command failed:
/p/.zig-cache/o/5dbc/test --seed=0xaecb1861 --cache-dir=/p/.zig-cache --listen=-\x20
Build Summary: 4/6 steps succeeded; 1 failed; 2/3 tests passed; 1 failed
"""

PANIC = """\
thread 7250 panic: no good
/p/build.zig:4:25: 0x149fb88 in build (build)
    @panic("no good");
    ^
/zig/lib/std/Build.zig:2427:33: 0x1491300 in runBuild__anon_24747 (build)
        .void => build_zig.build(b),
                                ^
/zig/lib/compiler/build_runner.zig:339:29: 0x1489df7 in main (build)
???:?:?: 0x0 in ??? (???)
error: the following build command crashed:
/p/.zig-cache/o/0a2f/build /zig/zig /zig/lib /p /p/.zig-cache /g --seed 0x81c517e3 -Z198d test --verbose
"""

FAILED_TEST_0_17 = """\
info(verbose): ./.zig-cache/o/43b4/test --cache-dir=./.zig-cache --seed=0xe0289a15 --listen=-
test
+- run test 0 pass, 1 fail (1 total)
error: 'main.test.sum' failed:
       expected 3, found 2
       /zig/lib/std/testing.zig:93:17: 0x124e961 in expectEqualInner__func_958 (std.zig)
                       return error.TestExpectedEqual;
                       ^
       /p/src/main.zig:1:14: 0x124e9f1 in test.sum (main.zig)
       test "sum" { try std.testing.expectEqual(3, 1 + 1); }
                    ^
failed command: ./.zig-cache/o/43b4/test --cache-dir=./.zig-cache --seed=0xe0289a15 --listen=-

Build Summary: 1/3 steps succeeded (1 failed); 0/1 tests passed (1 failed)
test transitive failure
+- run test 0 pass, 1 fail (1 total)

"""

REFUSED_0_17 = """\
error: invalid option: "no-such"
info: available option: "target": The CPU architecture, OS, and ABI to build for
info: available option: "optimize": Prioritize performance, safety, or binary size
error: configure command exited with code 1: .zig-cache/o/3d70/configurer --zig /zig/zig -Dno-such=1
"""

FAILED_TOOL = """\
test
+- run test
   +- run generate failure
error: the following command exited with error code 3:
/p/generate.py --out x.zig\x20
Build Summary: 0/3 steps succeeded; 1 failed
"""


@pytest.mark.parametrize(
    ("text", "matters"),
    [
        (COMPILE_ERROR_0_14, COMPILE_ERROR),
        (COMPILE_ERROR_0_17, COMPILE_ERROR),
        (
            FAILED_TEST,
            "error: 'main.test.failing' failed: hi\n/p/src/main.zig:7:48: 0x10d2017 in test.failing (test)\n"
            "    try std.testing.expect(false);\n    ^",
        ),
        (
            FAILED_TEST_0_17,
            "error: 'main.test.sum' failed:\n       expected 3, found 2\n"
            "       /p/src/main.zig:1:14: 0x124e9f1 in test.sum (main.zig)\n"
            '       test "sum" { try std.testing.expectEqual(3, 1 + 1); }\n                    ^',
        ),
        (REFUSED_0_17, 'error: invalid option: "no-such"'),
        (
            PANIC,
            "thread 7250 panic: no good\n/p/build.zig:4:25: 0x149fb88 in build (build)\n"
            '    @panic("no good");\n    ^',
        ),
        (
            FAILED_TOOL,
            "error: the following command exited with error code 3:\n/p/generate.py --out x.zig ",
        ),
        (
            "no step named 'x'\n  access the help menu with 'zig build -h'\n",
            "no step named 'x'",
        ),
        (
            "info: to list available steps: zig build -l\nerror: no such step: x\n",
            "error: no such step: x",
        ),
        ("error: AccessDenied\n", "error: AccessDenied"),
        ("", ""),
    ],
    ids=[
        "0.14",
        "0.17",
        "test",
        "test 0.17",
        "option 0.17",
        "panic",
        "tool",
        "no step 0.14",
        "no step 0.17",
        "terse",
        "silent",
    ],
)
def test_what_matters(text: str, matters: str) -> None:
    """The error is left, without commands, trees, and what happened in Zig's own files."""
    assert shorten(text, LIB) == matters


def test_many_lines() -> None:
    """Of many errors the first are shown, and how many lines there are more."""
    lines = shorten("".join(f"error: {i}\n" for i in range(MAX_LINES + 12)), LIB).splitlines()
    assert lines[-2:] == [f"error: {MAX_LINES - 1}", "... (12 more lines)"]


def test_long_line() -> None:
    """A line that fills the screen is cut."""
    assert shorten("x" * 10_000, LIB) == "x" * MAX_COLUMNS + " ..."


def test_colors() -> None:
    """Colors are taken away."""
    assert strip_colors(b"\x1b[31;1merror: \x1b[0m\x1b[Kred\x1b[?25l") == b"error: red"
