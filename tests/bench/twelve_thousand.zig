//! Fuzz tests of parts of Zig's own library: their executable has about 12,000 points, and much to find.

const std = @import("std");
fn fuzzJson(_: void, input: []const u8) anyerror!void {
    const parsed = std.json.parseFromSlice(std.json.Value, std.testing.allocator, input, .{}) catch return;
    defer parsed.deinit();
    var list = std.ArrayList(u8).init(std.testing.allocator);
    defer list.deinit();
    try std.json.stringify(parsed.value, .{}, list.writer());
}
fn fuzzZig(_: void, input: []const u8) anyerror!void {
    const source = try std.testing.allocator.dupeZ(u8, input);
    defer std.testing.allocator.free(source);
    var tree = try std.zig.Ast.parse(std.testing.allocator, source, .zig);
    defer tree.deinit(std.testing.allocator);
    if (tree.errors.len > 0) return;
    const text = try tree.render(std.testing.allocator);
    std.testing.allocator.free(text);
}
test "fuzz json" {
    try std.testing.fuzz({}, fuzzJson, .{});
}
test "fuzz zig" {
    try std.testing.fuzz({}, fuzzZig, .{});
}
