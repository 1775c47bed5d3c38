"""Fuzz tests that live on, and who is told what becomes of them."""

import threading
from collections.abc import Callable
from pathlib import Path

from fuzzserver.fuzz.build import build_tests
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.fuzz.worker import FuzzTest
from fuzzserver.step import FuzzRunStep
from fuzzserver.zig.compile_client import ZigCompileClient
from tests.support_zig_sources import write

PATIENCE = 240.0
"""Seconds for builds and for workers that tell where they failed: both take the processor for long."""

PATIENT = """
// A test without branches would in time make Zig's fuzzer itself panic.
fn fuzzPatient(_: void, input: []const u8) anyerror!void {
    var count: u32 = 0;
    for (input) |byte| switch (byte) {
        'a'...'z' => count += 1,
        '0'...'9' => count += 10,
        else => {},
    };
    std.mem.doNotOptimizeAway(count);
    std.time.sleep(1_000_000);
}

test "fuzz patient" {
    try std.testing.fuzz({}, fuzzPatient, .{});
}
"""
"""A fuzz test that finds nothing. A run takes a millisecond, in which others have the machine."""

LIVELY = (
    """
const std = @import("std");

/// Fails after some hundred runs: not on the input that the fuzzer begins with, nor on its own corpus.
fn fuzzLater(_: void, input: []const u8) anyerror!void {
    for (input) |byte| if (byte == 'b') std.mem.doNotOptimizeAway(byte);
    if (std.mem.indexOfScalar(u8, input, 'b') != null) @panic("there is a b");
}

fn fuzzAtOnce(_: void, input: []const u8) anyerror!void {
    if (input.len < 1_000_000) return error.AtOnce;
}

/// The word is too long to be found by chance.
fn fuzzWord(_: void, input: []const u8) anyerror!void {
    for (input) |byte| if (byte == 'x') std.mem.doNotOptimizeAway(byte);
    if (std.mem.indexOf(u8, input, "canyoufindme") != null) @panic("found it");
}

fn fuzzBranchless(_: void, _: []const u8) anyerror!void {}

/// Each byte makes another branch, so that the fuzzer keeps some dozen inputs.
fn fuzzMany(_: void, input: []const u8) anyerror!void {
    inline for (0..64) |number| {
        for (input) |byte| if (byte == number * 4 + 1) std.mem.doNotOptimizeAway(byte);
    }
}

test "fuzz later" { try std.testing.fuzz({}, fuzzLater, .{ .corpus = &.{ "one", "two" } }); }
test "fuzz at once" { try std.testing.fuzz({}, fuzzAtOnce, .{}); }
test "fuzz word" { try std.testing.fuzz({}, fuzzWord, .{}); }
test "fuzz branchless" { try std.testing.fuzz({}, fuzzBranchless, .{}); }
test "fuzz many" { try std.testing.fuzz({}, fuzzMany, .{}); }
"""
    + PATIENT
)
"""Fuzz tests, each with a life of its own."""

LIVELY_TESTS = ("fuzz later", "fuzz at once", "fuzz word", "fuzz branchless", "fuzz many", "fuzz patient")
"""Their names, by index."""


def lively(client: ZigCompileClient, work: Path, test: str) -> tuple[TestCommand, FuzzTest]:
    """One of these tests, built in fuzz mode."""
    command = lively_command(work)
    built = build_tests(client, command, "fuzz")
    step = FuzzRunStep(command.name, built.path, command.cache_root, built.inputs, key=command.key)
    return command, FuzzTest(step, LIVELY_TESTS.index(test), f"lively.test.{test}")


def lively_command(work: Path) -> TestCommand:
    """How these tests are compiled."""
    return TestCommand.of_root(write(work / "lively", lively=LIVELY))


class Told:
    """Keeps what it is told, in order, and lets a test wait for it. May be used from any thread."""

    def __init__(self) -> None:
        self.all: list[object] = []
        self._condition = threading.Condition()

    def __call__(self, what: object) -> None:
        """Note one thing."""
        with self._condition:
            self.all.append(what)
            self._condition.notify_all()

    def of(self, kind: type) -> list:
        """All that is of one kind."""
        return [what for what in list(self.all) if isinstance(what, kind)]

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Until ``condition`` holds, which is looked at when something is told."""
        with self._condition:
            assert self._condition.wait_for(condition, PATIENCE), f"{what}; told: {self.all[-20:]}"
