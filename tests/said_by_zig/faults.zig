const std = @import("std");
const deep = @import("deep.zig");
const smithy = @hasDecl(std.testing, "Smith");
const Input = if (smithy) *std.testing.Smith else []const u8;

fn number(input: Input) u64 {
    if (smithy) return input.value(u64) | 1;
    return input.len | 1;
}

fn returnsError(_: void, input: Input) anyerror!void {
    try deep.refuse(number(input));
}
fn panics(_: void, input: Input) anyerror!void {
    deep.panic(number(input));
}
fn outOfBounds(_: void, input: Input) anyerror!void {
    const table = [_]u8{ 1, 2, 3, 4 };
    std.mem.doNotOptimizeAway(table[(4 + number(input)) | 4]);
}
fn overflows(_: void, input: Input) anyerror!void {
    var big: u64 = std.math.maxInt(u64);
    std.mem.doNotOptimizeAway(&big);
    std.mem.doNotOptimizeAway(big + (number(input) & 0xff | 1));
}
fn reachesUnreachable(_: void, input: Input) anyerror!void {
    if (number(input) != 0) unreachable;
}
fn badPointer(_: void, input: Input) anyerror!void {
    const pointer: *volatile u8 = @ptrFromInt(8 + (number(input) & 0xff));
    pointer.* = 1;
}
fn recurses(_: void, input: Input) anyerror!void {
    std.mem.doNotOptimizeAway(deep.recurse(number(input)));
}
fn leaks(_: void, _: Input) anyerror!void {
    _ = try deep.makeBuffer();
}
fn logsError(_: void, input: Input) anyerror!void {
    std.log.warn("this is only a warning", .{});
    std.log.scoped(.parser).err("{d} bytes are too many", .{number(input)});
}
fn freesTwice(_: void, _: Input) anyerror!void {
    const buffer = try deep.makeBuffer();
    std.testing.allocator.free(buffer);
    std.testing.allocator.free(buffer);
}
fn unwrapsError(_: void, input: Input) anyerror!void {
    deep.refuse(number(input)) catch |err| std.debug.panic("two\nlines: {}", .{err});
}
fn catchesUnreachable(_: void, input: Input) anyerror!void {
    deep.refuse(number(input)) catch unreachable;
}
fn exits(_: void, _: Input) anyerror!void {
    std.process.exit(0);
}
fn neverEnds(_: void, _: Input) anyerror!void {
    deep.spin();
}
fn takesAllMemory(_: void, _: Input) anyerror!void {
    while (true) try deep.take();
}
fn expects(_: void, input: Input) anyerror!void {
    try std.testing.expect(number(input) == 0);
}
fn expectsEqual(_: void, input: Input) anyerror!void {
    try std.testing.expectEqual(0, number(input) & 1);
}
fn passes(_: void, input: Input) anyerror!void {
    std.mem.doNotOptimizeAway(number(input));
}
fn skips(_: void, _: Input) anyerror!void {
    return error.SkipZigTest;
}

fn traps(_: void, input: Input) anyerror!void {
    if (number(input) != 0) @trap();
}
fn writesPastEnd(_: void, input: Input) anyerror!void {
    const buffer = try deep.makeBuffer();
    defer std.testing.allocator.free(buffer);
    buffer.ptr[buffer.len + (number(input) & 1) - 1] = 7;
}
fn writesAfterFree(_: void, input: Input) anyerror!void {
    const buffer = try deep.makeBuffer();
    std.testing.allocator.free(buffer);
    buffer[number(input) & 1] = 7;
}
test "error" {
    try std.testing.fuzz({}, returnsError, .{});
}
test "panic" {
    try std.testing.fuzz({}, panics, .{});
}
test "bounds" {
    try std.testing.fuzz({}, outOfBounds, .{});
}
test "overflow" {
    try std.testing.fuzz({}, overflows, .{});
}
test "unreachable" {
    try std.testing.fuzz({}, reachesUnreachable, .{});
}
test "segfault" {
    try std.testing.fuzz({}, badPointer, .{});
}
test "recursion" {
    try std.testing.fuzz({}, recurses, .{});
}
test "leak" {
    try std.testing.fuzz({}, leaks, .{});
}
test "log" {
    try std.testing.fuzz({}, logsError, .{});
}
test "double free" {
    try std.testing.fuzz({}, freesTwice, .{});
}
test "unwrap" {
    try std.testing.fuzz({}, unwrapsError, .{});
}
test "catch unreachable" {
    try std.testing.fuzz({}, catchesUnreachable, .{});
}
test "exit" {
    try std.testing.fuzz({}, exits, .{});
}
test "hang" {
    try std.testing.fuzz({}, neverEnds, .{});
}
test "memory" {
    try std.testing.fuzz({}, takesAllMemory, .{});
}
test "expect" {
    try std.testing.fuzz({}, expects, .{});
}
test "expectEqual" {
    try std.testing.fuzz({}, expectsEqual, .{});
}
test "trap" {
    try std.testing.fuzz({}, traps, .{});
}
test "write past end" {
    try std.testing.fuzz({}, writesPastEnd, .{});
}
test "write after free" {
    try std.testing.fuzz({}, writesAfterFree, .{});
}
test "passes" {
    try std.testing.fuzz({}, passes, .{});
}
test "skips" {
    try std.testing.fuzz({}, skips, .{});
}
test "no fuzz test" {}
test "error before" {
    if (@import("builtin").fuzz) return error.Before;
}
test "two" {
    try std.testing.fuzz({}, returnsError, .{ .corpus = &.{ "a", "bc" } });
}

/// Only with what a test runner has to prepare.
fn usesIo(_: void, _: Input) anyerror!void {
    if (smithy) {
        try std.Io.Dir.cwd().access(std.testing.io, ".", .{});
        if (std.testing.environ.getPosix("HOME_OF_NOBODY") != null) return error.NotEmpty;
    }
}
test "io" {
    try std.testing.fuzz({}, usesIo, .{});
}

/// Smith: a choice, a length, text. Bytes: the same by hand.
fn readsValues(_: void, input: Input) anyerror!void {
    var buffer: [8]u8 = undefined;
    const text = if (smithy) text: {
        if (input.value(bool)) return;
        break :text buffer[0..input.slice(&buffer)];
    } else input;
    if (std.mem.startsWith(u8, text, "bug")) return error.Found;
}
test "values" {
    try std.testing.fuzz({}, readsValues, .{});
}
