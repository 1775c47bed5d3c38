//! Tells how deep the parentheses of its first argument are nested.

const std = @import("std");
const text = @import("text.zig");

pub fn main() void {
    const argument = if (std.os.argv.len > 1) std.mem.span(std.os.argv[1]) else "(()())";
    if (text.depth(argument)) |depth| {
        std.debug.print("{d}\n", .{depth});
    } else {
        std.debug.print("they do not match\n", .{});
    }
}
