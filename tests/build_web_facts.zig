//! Prints messages as the page `build-web` of the compiler's own `lib` reads them, as hexadecimal digits.

const std = @import("std");
const abi = std.Build.abi;

fn show(comptime name: []const u8, value: anytype) void {
    std.debug.print("\n" ++ name ++ " ", .{});
    for (std.mem.asBytes(&value)) |byte| std.debug.print("{x:0>2}", .{byte});
    std.debug.print("\n", .{});
}

test "facts" {
    const Hello = abi.Hello;
    show("hello", Hello{ .status = .fuzz_init, .flags = .{ .time_report = false }, .timestamp = -2, .steps_len = 5 });
    show("idle", abi.StatusUpdate{ .new = .idle });
    show("watching", abi.StatusUpdate{ .new = .watching });
    show("running", abi.StatusUpdate{ .new = .running });
    show("pending", abi.StepUpdate{ .step_idx = 0x01020304, .bits = .{ .status = .pending } });
    show("wip", abi.StepUpdate{ .step_idx = 1, .bits = .{ .status = .wip } });
    show("success", abi.StepUpdate{ .step_idx = 2, .bits = .{ .status = .success } });
    show("failure", abi.StepUpdate{ .step_idx = 3, .bits = .{ .status = .failure } });
    const Index = abi.fuzz.SourceIndexHeader;
    show("index", if (@hasField(Index, "start_n_runs")) Index{
        .directories_len = 1,
        .files_len = 2,
        .source_locations_len = 3,
        .string_bytes_len = 4,
        .start_timestamp = -5,
        .start_n_runs = 6,
    } else Index{
        .directories_len = 1,
        .files_len = 2,
        .source_locations_len = 3,
        .string_bytes_len = 4,
        .start_timestamp = -5,
    });
    show("update", abi.fuzz.CoverageUpdateHeader{ .n_runs = 7, .unique_runs = 8 });
    show("entry_points", abi.fuzz.EntryPointHeader.init(0x123456));
    show("rebuild", abi.Rebuild{});
}
