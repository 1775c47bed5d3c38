//! What the compiler makes of each layout that we share with it: "name value" lines.
const std = @import("std");
const abi = std.Build.Fuzz.abi;
const Coverage = std.debug.Coverage;
const Server = std.zig.Server.Message;
const Client = std.zig.Client.Message;

const out = std.io.getStdOut().writer();

/// Size of a struct, and where in it each field begins.
fn layout(comptime name: []const u8, comptime T: type) !void {
    try out.print("{s} {d}\n", .{ name, @sizeOf(T) });
    inline for (@typeInfo(T).@"struct".fields) |field|
        try out.print("{s}.{s} {d}\n", .{ name, field.name, @offsetOf(T, field.name) });
}

/// At which bit of a packed struct each field begins.
fn bits(comptime name: []const u8, comptime T: type) !void {
    inline for (@typeInfo(T).@"struct".fields) |field|
        try out.print("{s}.{s} {d}\n", .{ name, field.name, @bitOffsetOf(T, field.name) });
}

fn tags(comptime name: []const u8, comptime T: type) !void {
    inline for (@typeInfo(T).@"enum".fields) |field|
        try out.print("{s}.{s} {d}\n", .{ name, field.name, field.value });
}

fn bytes(comptime name: []const u8, value: anytype) !void {
    try out.print("{s} {s}\n", .{ name, std.fmt.fmtSliceHexLower(std.mem.asBytes(&value)) });
}

pub fn main() !void {
    try layout("SeenPcsHeader", abi.SeenPcsHeader);
    try layout("CurrentTime", abi.CurrentTime);
    try layout("SourceIndexHeader", abi.SourceIndexHeader);
    try layout("CoverageUpdateHeader", abi.CoverageUpdateHeader);
    try layout("EntryPointHeader", abi.EntryPointHeader);
    try layout("File", Coverage.File);
    try layout("SourceLocation", Coverage.SourceLocation);
    try layout("ServerHeader", Server.Header);
    try layout("ClientHeader", Client.Header);
    try layout("ErrorBundle", Server.ErrorBundle);
    try layout("TestMetadata", Server.TestMetadata);
    try layout("TestResults", Server.TestResults);
    try layout("EmitDigest", Server.EmitDigest);
    try bits("EntryPointHeader.Flags", abi.EntryPointHeader.Flags);
    try bits("TestResults.Flags", Server.TestResults.Flags);
    try bits("EmitDigest.Flags", Server.EmitDigest.Flags);
    try tags("ToClientTag", abi.ToClientTag);
    try tags("ServerTag", Server.Tag);
    try tags("ClientTag", Client.Tag);
    try tags("PathPrefix", Server.PathPrefix);
    try out.print("bin_digest_len {d}\n", .{std.Build.Cache.bin_digest_len});
    for ([_]usize{ 0, 1, 63, 64, 65, 6953 }) |n|
        try out.print("seenElemsLen.{d} {d}\n", .{ n, abi.SeenPcsHeader.seenElemsLen(n) });

    try bytes("hex.SeenPcsHeader", abi.SeenPcsHeader{ .n_runs = 1 << 40, .unique_runs = 7, .pcs_len = 65 });
    try bytes("hex.CurrentTime", abi.CurrentTime{ .base = -2 });
    try bytes("hex.SourceIndexHeader", abi.SourceIndexHeader{
        .flags = .{},
        .directories_len = 1,
        .files_len = 2,
        .source_locations_len = 3,
        .string_bytes_len = 0xffffffff,
        .start_timestamp = -1755000000000000000,
    });
    try bytes("hex.CoverageUpdateHeader", abi.CoverageUpdateHeader{ .n_runs = 1 << 63, .unique_runs = 2 });
    try bytes("hex.EntryPointHeader", abi.EntryPointHeader{ .flags = .{ .locs_len = 0x123456 } });
    try bytes("hex.File", Coverage.File{ .directory_index = 5, .basename = @enumFromInt(0x01020304) });
    try bytes("hex.SourceLocation", Coverage.SourceLocation{
        .file = @enumFromInt(9),
        .line = 80,
        .column = 4000000000,
    });
    try bytes("hex.invalid", Coverage.SourceLocation.invalid);
    try bytes("hex.TestResults", Server.TestResults{ .index = 3, .flags = .{
        .fail = true,
        .skip = false,
        .leak = true,
        .fuzz = false,
        .log_err_count = 0x234567,
    } });
    try bytes("hex.fuzz", Server.TestResults{ .index = 2, .flags = .{
        .fail = false,
        .skip = false,
        .leak = false,
        .fuzz = true,
    } });
    try bytes("hex.EmitDigest", Server.EmitDigest{ .flags = .{ .cache_hit = true } });
    try bytes("hex.run_test", Client.Header{ .tag = .run_test, .bytes_len = 4 });
}
