//! What the server tells of each point besides its place: its address, when it was first
//! covered, and the function it is in. Some servers tell nothing of it.

const std = @import("std");
const memory = @import("memory.zig");
const Index = @import("index.zig");
const gpa = memory.gpa;

const Points = @This();

/// The message, into which the next four fields point.
bytes: memory.Bytes,
addresses: []const u64,
/// Unix seconds; 0 is not covered, 1 before anybody looked.
first_covered: []const u32,
function_of: []const u32,
function_names: [][]const u8,
/// The file of each function, and its first point there.
function_files: []u32,
function_points: []u32,

pub const empty: Points = .{
    .bytes = .empty,
    .addresses = &.{},
    .first_covered = &.{},
    .function_of = &.{},
    .function_names = &.{},
    .function_files = &.{},
    .function_points = &.{},
};

const Header = extern struct {
    tag: u32,
    points_len: u32,
    functions_len: u32,
    string_bytes_len: u32,
};

/// Takes ownership of `message` if it succeeds.
pub fn parse(message: memory.Bytes, index: *const Index) memory.ParseError!Points {
    var reader = try memory.Reader.init(message.items, @sizeOf(Header));
    const header: *const Header = @ptrCast(message.items[0..@sizeOf(Header)]);
    if (index.bytes.items.len == 0 or header.points_len != index.locations.len) return error.Malformed;
    var x: Points = .empty;
    x.bytes = message;
    x.addresses = try reader.take(u64, header.points_len);
    x.first_covered = try reader.take(u32, header.points_len);
    x.function_of = try reader.take(u32, header.points_len);
    const names = try reader.take(u32, header.functions_len);
    const strings = try reader.takeLast(u8, header.string_bytes_len);

    errdefer x.freeTables();
    x.function_names = try gpa.alloc([]const u8, names.len);
    for (x.function_names, names) |*name, offset| name.* = memory.stringAt(strings, offset);
    x.function_files = try gpa.alloc(u32, names.len);
    x.function_points = try gpa.alloc(u32, names.len);
    x.findPlaces(index);
    return x;
}

pub fn deinit(x: *Points) void {
    x.freeTables();
    x.bytes.deinit(gpa);
    x.* = .empty;
}

fn freeTables(x: *Points) void {
    gpa.free(x.function_names);
    gpa.free(x.function_files);
    gpa.free(x.function_points);
}

/// A function's code may come from several files, where others are inlined. Its own file is
/// that of its lowest address, where it is entered.
fn findPlaces(x: *Points, index: *const Index) void {
    const lowest = x.function_points;
    @memset(lowest, memory.none);
    for (x.function_of, 0..) |function, i| {
        if (function >= lowest.len) continue;
        const best = &lowest[function];
        // An unknown address, 0, becomes the highest.
        if (best.* == memory.none or x.addresses[i] -% 1 < x.addresses[best.*] -% 1) best.* = @intCast(i);
    }
    for (x.function_files, lowest) |*file, point| {
        file.* = if (point == memory.none) @intCast(index.files.len) else index.file_of[point];
    }
    @memset(x.function_points, memory.none);
    for (index.order) |i| {
        const function = x.function_of[i];
        if (function >= x.function_points.len or x.function_points[function] != memory.none) continue;
        if (index.file_of[i] == x.function_files[function]) x.function_points[function] = i;
    }
}
