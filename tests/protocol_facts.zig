//! Prints how the compiler that compiles it numbers the messages of test executables, and how bodies lie.

const std = @import("std");
const Server = std.zig.Server.Message;
const Client = std.zig.Client.Message;

fn names(comptime what: []const u8, comptime Tag: type) void {
    inline for (comptime std.enums.values(Tag)) |tag| {
        const number: u32 = @bitCast(tag_bits(tag));
        std.debug.print("{s}.{s} {d}\n", .{ what, @tagName(tag), number });
    }
}

fn tag_bits(tag: anytype) u32 {
    // One name of it is gone in newer compilers, and the other is not there in older ones.
    const pointer: *const u32 = @ptrCast(&tag);
    return pointer.*;
}

test "facts" {
    names("ServerTag", Server.Tag);
    names("ClientTag", Client.Tag);
    std.debug.print("TestResults {d}\n", .{@bitSizeOf(Server.TestResults.Flags)});
    inline for (.{ "fuzz", "log_err_count", "skip", "status", "leak", "leak_count" }) |name| {
        if (@hasField(Server.TestResults.Flags, name)) {
            std.debug.print("TestResults.{s} {d}\n", .{ name, @bitOffsetOf(Server.TestResults.Flags, name) });
        }
    }
}
