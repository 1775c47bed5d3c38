"""Fuzz tests that fail, each in its own way: on the first input, unless said otherwise."""

import re
from pathlib import Path

import pytest

from fuzzserver.fuzz import reproducer
from fuzzserver.paths import repro_runner
from fuzzserver.zig.compile_client import ZigCompileClient
from tests.support_fuzzing import PATIENCE
from tests.support_time import Clock
from tests.support_zig_sources import write

WELL_UNDER_WAY = b"well under way"
"""What the tests that never end write when they are where they are to be interrupted."""

SPINNING = "spinning"
"""The file that the silent one of them makes in its folder then."""

FAILING = """
const std = @import("std");
const deep = @import("deep.zig");

fn returnsError(_: void, input: []const u8) anyerror!void {
    try deep.refuse(input);
}

fn panics(_: void, input: []const u8) anyerror!void {
    deep.panic(input);
}

fn outOfBounds(_: void, input: []const u8) anyerror!void {
    const table = [_]u8{ 1, 2, 3, 4 };
    std.mem.doNotOptimizeAway(table[4 + input.len]);
}

fn badPointer(_: void, input: []const u8) anyerror!void {
    const pointer: *volatile u8 = @ptrFromInt(8 + input.len);
    pointer.* = 1;
}

fn neverEnds(_: void, _: []const u8) anyerror!void {
    deep.spin();
}

/// A worker that has said something may be about to tell how it failed, and is given time for that.
fn neverEndsNorSpeaks(_: void, _: []const u8) anyerror!void {
    deep.spinSilently();
}

fn takesAllMemory(_: void, _: []const u8) anyerror!void {
    while (true) try deep.take();
}

fn exits(_: void, _: []const u8) anyerror!void {
    std.process.exit(0);
}

fn recurses(_: void, input: []const u8) anyerror!void {
    std.mem.doNotOptimizeAway(deep.recurse(input.len));
}

fn leaks(_: void, _: []const u8) anyerror!void {
    _ = try deep.makeBuffer();
}

fn logsError(_: void, input: []const u8) anyerror!void {
    std.log.warn("this is only a warning", .{});
    std.log.scoped(.parser).err("{d} bytes are too many", .{input.len});
}

fn freesTwice(_: void, _: []const u8) anyerror!void {
    const buffer = try deep.makeBuffer();
    std.testing.allocator.free(buffer);
    std.testing.allocator.free(buffer);
}

fn unwrapsError(_: void, input: []const u8) anyerror!void {
    deep.refuse(input) catch |err| std.debug.panic("two\\nlines: {}", .{err});
}

fn skips(_: void, _: []const u8) anyerror!void {
    return error.SkipZigTest;
}

fn passes(_: void, _: []const u8) anyerror!void {}

fn equals(_: void, input: []const u8) anyerror!void {
    try std.testing.expect(!std.mem.eql(u8, "canyoufindme", input));
}

fn contains(_: void, input: []const u8) anyerror!void {
    try std.testing.expect(std.mem.indexOf(u8, input, "canyoufindme") == null);
}

/// Fails otherwise on the prefixes before the one that matters.
fn twoFailures(_: void, input: []const u8) anyerror!void {
    if (input.len == 2 or input.len == 3) return error.Other;
    if (input.len == 5) @panic("five");
}

fn readsPastTheEnd(_: void, input: []const u8) anyerror!void {
    if (input.len == 3) std.mem.doNotOptimizeAway(input.ptr[input.len]);
}

/// 'x' hangs, but only as the third byte.
fn hangsOnX(_: void, input: []const u8) anyerror!void {
    if (input.len > 2 and input[2] == 'x') deep.spin();
}

/// The same error from two places, the second with less input.
fn twoPlaces(_: void, input: []const u8) anyerror!void {
    if (input.len > 0 and input[0] == 'b') return error.Twice;
    if (input.len > 0 and input[0] == 'a') return error.Twice;
    if (input.len == 0) return error.Twice;
}

fn writesToStdout(_: void, _: []const u8) anyerror!void {
    try std.io.getStdOut().writeAll("12345\\n");
}

var runs: usize = 0;

/// Fails from the second run in a process on.
fn remembers(_: void, _: []const u8) anyerror!void {
    runs += 1;
    if (runs > 1) return error.Remembered;
}

test "error" { try std.testing.fuzz({}, returnsError, .{}); }
test "panic" { try std.testing.fuzz({}, panics, .{}); }
test "bounds" { try std.testing.fuzz({}, outOfBounds, .{}); }
test "segfault" { try std.testing.fuzz({}, badPointer, .{}); }
test "hang" { try std.testing.fuzz({}, neverEnds, .{}); }
test "silent hang" { try std.testing.fuzz({}, neverEndsNorSpeaks, .{}); }
test "memory" { try std.testing.fuzz({}, takesAllMemory, .{}); }
test "exit" { try std.testing.fuzz({}, exits, .{}); }
test "recursion" { try std.testing.fuzz({}, recurses, .{}); }
test "leak" { try std.testing.fuzz({}, leaks, .{}); }
test "logs" { try std.testing.fuzz({}, logsError, .{}); }
test "double free" { try std.testing.fuzz({}, freesTwice, .{}); }
test "unwrap" { try std.testing.fuzz({}, unwrapsError, .{}); }
test "skip" { try std.testing.fuzz({}, skips, .{}); }
test "passes" { try std.testing.fuzz({}, passes, .{ .corpus = &.{ "one", "two" } }); }
test "equals" { try std.testing.fuzz({}, equals, .{}); }
test "contains" { try std.testing.fuzz({}, contains, .{}); }
test "two failures" { try std.testing.fuzz({}, twoFailures, .{}); }
test "past the end" { try std.testing.fuzz({}, readsPastTheEnd, .{}); }
test "hangs on x" { try std.testing.fuzz({}, hangsOnX, .{}); }
test "two places" { try std.testing.fuzz({}, twoPlaces, .{}); }
test "stdout" { try std.testing.fuzz({}, writesToStdout, .{}); }
test "remembers" { try std.testing.fuzz({}, remembers, .{}); }
test "fails before" { if (true) return error.NotReady; try std.testing.fuzz({}, passes, .{}); }
test "plain" {}
"""

DEEP = """
const std = @import("std");

pub fn refuse(input: []const u8) error{Refused}!void {
    return check(input.len);
}

fn check(size: usize) error{Refused}!void {
    if (size < 10_000) return error.Refused;
}

pub fn panic(input: []const u8) noreturn {
    std.debug.panic("boom at {d}", .{input.len});
}

/// Compares nothing: Zig's fuzzer notes each comparison in a table, and one that is interrupted while its
/// table grows crashes instead of telling where it is.
pub fn spin() void {
    std.debug.print("well under way\\n", .{});
    while (true) std.atomic.spinLoopHint();
}

pub fn spinSilently() void {
    (std.fs.cwd().createFile("spinning", .{}) catch unreachable).close();
    while (true) std.atomic.spinLoopHint();
}

var taken: usize = 0;

/// Who is to notice may be slow, and the machine has other uses for its memory.
pub fn take() !void {
    if (taken == 600) while (true) std.atomic.spinLoopHint();
    const buffer = try std.testing.allocator.alloc(u8, 1 << 20);
    std.mem.doNotOptimizeAway(buffer);
    taken += 1;
    if (taken == 20) std.debug.print("well under way\\n", .{});
}

pub fn recurse(depth: usize) usize {
    return recurse(depth + 1) + 1;
}

pub fn makeBuffer() ![]u8 {
    return std.testing.allocator.alloc(u8, 10);
}
"""

TESTS = re.findall(r'^test "(.*?)"', FAILING, re.MULTILINE)
"""Names of the tests, by index."""


def build_failing(client: ZigCompileClient, work: Path, *flags: str) -> Path:
    """The executable of these tests, compiled with ``flags``."""
    root = write(work / "failing", failing=FAILING, deep=DEEP)
    cache = root.parent / ".zig-cache"
    caches = ("--cache-dir", str(cache), "--global-cache-dir", str(client.global_cache_dir))
    result = client.compile(
        ["test", *flags, f"-Mroot={root}", *caches, "--name", "failing"], cache, root.parent
    )
    return result.output_dir / "failing"


def build_repro(client: ZigCompileClient, work: Path) -> Path:
    """These tests with the runner that reproduces."""
    return build_failing(client, work, "--test-runner", str(repro_runner()))


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have reproducers wait, for as long as it takes, for a process that says where it is."""
    monkeypatch.setattr(reproducer, "STACK_WAIT", PATIENCE)


def let_time_fly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have reproducers find that a test takes too long when it has come to where it never ends."""
    clock, check = Clock(), reproducer._Watch._check

    def look(watch: reproducer._Watch) -> None:
        if watch.why == "ended" and WELL_UNDER_WAY.decode() in watch.stderr.text:
            clock.ahead += 1e6
        check(watch)

    monkeypatch.setattr(reproducer, "time", clock)
    monkeypatch.setattr(reproducer._Watch, "_check", look)


def test_name(test: str) -> str:
    """As Zig's test runner calls it."""
    return f"failing.test.{test}"


test_name.__test__ = False  # type: ignore[attr-defined]  # For pytest: no test.
