//! Two small functions and their fuzz tests. The second function has a bug, for the fuzzer to find.

const std = @import("std");

/// How deep the parentheses in `text` are nested; null if they do not match.
pub fn depth(text: []const u8) ?usize {
    var open: usize = 0;
    var deepest: usize = 0;
    for (text) |byte| switch (byte) {
        '(' => {
            open += 1;
            deepest = @max(deepest, open);
        },
        ')' => {
            if (open == 0) return null;
            open -= 1;
        },
        else => {},
    };
    return if (open == 0) deepest else null;
}

/// The sum of all bytes, modulo 256.
pub fn checksum(text: []const u8) u8 {
    var sum: u8 = 0;
    for (text) |byte| sum += byte; // The bug: this panics if the sum is too large. It should be "+%=".
    return sum;
}

fn fuzzDepth(_: void, input: []const u8) anyerror!void {
    if (depth(input)) |deepest| try std.testing.expect(deepest <= input.len / 2);
}

fn fuzzChecksum(_: void, input: []const u8) anyerror!void {
    std.mem.doNotOptimizeAway(checksum(input));
}

test "fuzz depth" {
    try std.testing.fuzz({}, fuzzDepth, .{});
}

test "fuzz checksum" {
    try std.testing.fuzz({}, fuzzChecksum, .{});
}
