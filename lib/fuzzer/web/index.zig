//! A source index message: directories, files and locations, and the locations sorted by place.

const std = @import("std");
const abi = @import("abi.zig");
const memory = @import("memory.zig");
const library = @import("library.zig");
const Header = abi.SourceIndexHeader;
const gpa = memory.gpa;

const Index = @This();

/// The message, into which the next four fields point.
bytes: memory.Bytes,
directories: []const u32,
files: []const abi.File,
locations: []const abi.SourceLocation,
strings: []const u8,
start_timestamp: i64,

/// The file of each location; `files.len` for those that belong to no file.
file_of: []u32,
/// All locations by file, line, column, and at last by their own index.
order: []u32,
/// Where each file's locations start in `order`; those without a file are a last group.
/// At the end where that one stops.
file_starts: []u32,
/// Which files come with Zig.
is_std: []bool,

pub const empty: Index = .{
    .bytes = .empty,
    .directories = &.{},
    .files = &.{},
    .locations = &.{},
    .strings = &.{},
    .start_timestamp = 0,
    .file_of = &.{},
    .order = &.{},
    .file_starts = &.{},
    .is_std = &.{},
};

pub const max_path = 2 * memory.max_string + 1;

/// Takes ownership of `message` if it succeeds.
pub fn parse(message: memory.Bytes) memory.ParseError!Index {
    var reader = try memory.Reader.init(message.items, @sizeOf(Header));
    const header: *align(4) const Header = @ptrCast(message.items[0..@sizeOf(Header)]);
    var x: Index = .empty;
    x.bytes = message;
    x.directories = try reader.take(u32, header.directories_len);
    x.files = try reader.take(abi.File, header.files_len);
    x.locations = try reader.take(abi.SourceLocation, header.source_locations_len);
    x.strings = try reader.takeLast(u8, header.string_bytes_len);
    x.start_timestamp = header.start_timestamp;

    // What is freed is what the index owns besides the message.
    errdefer x.freeTables();
    x.file_of = try gpa.alloc(u32, x.locations.len);
    for (x.file_of, x.locations) |*file, location| {
        file.* = @min(location.file, x.files.len);
    }
    try x.sort();
    x.is_std = try gpa.alloc(bool, x.files.len);
    try library.find(&x, x.is_std);
    return x;
}

pub fn deinit(x: *Index) void {
    x.freeTables();
    x.bytes.deinit(gpa);
    x.* = .empty;
}

pub fn freeTables(x: *Index) void {
    gpa.free(x.file_of);
    gpa.free(x.order);
    gpa.free(x.file_starts);
    gpa.free(x.is_std);
}

/// The same executable gives the same bytes, but for the time at which its fuzzing started.
pub fn isSame(x: *const Index, message: []const u8) bool {
    const old = x.bytes.items;
    const time_start = @offsetOf(Header, "start_timestamp");
    return old.len != 0 and old.len == message.len and
        std.mem.eql(u8, old[0..time_start], message[0..time_start]) and
        std.mem.eql(u8, old[@sizeOf(Header)..], message[@sizeOf(Header)..]);
}

/// Takes the one thing from `message` in which it may differ.
pub fn restart(x: *Index, message: []align(8) const u8) void {
    const header: *align(4) const Header = @ptrCast(message[0..@sizeOf(Header)]);
    x.start_timestamp = header.start_timestamp;
}

/// The locations of one file, or of none, by line and column.
pub fn ofFile(x: *const Index, file: u32) []const u32 {
    // Without an index there are no starts at all.
    if (x.file_starts.len == 0 or file > x.files.len) return &.{};
    return x.order[x.file_starts[file]..x.file_starts[file + 1]];
}

pub fn path(x: *const Index, file: u32, buffer: *[max_path]u8) []u8 {
    if (file >= x.files.len) return buffer[0..0];
    var len: usize = 0;
    if (x.files[file].directory_index < x.directories.len) {
        const directory = x.string(x.directories[x.files[file].directory_index]);
        @memcpy(buffer[0..directory.len], directory);
        len = directory.len;
        if (!std.mem.endsWith(u8, directory, "/")) {
            buffer[len] = '/';
            len += 1;
        }
    }
    const name = x.string(x.files[file].basename);
    @memcpy(buffer[len..][0..name.len], name);
    return buffer[0 .. len + name.len];
}

/// The path as sources and lib folders are looked up: debug info and tar may join the same
/// directory and file differently.
pub fn plainPath(x: *const Index, file: u32, buffer: *[max_path]u8) []u8 {
    return withoutDoubleSlashes(x.path(file, buffer));
}

pub fn withoutDoubleSlashes(text: []u8) []u8 {
    var len: usize = 0;
    for (text) |byte| {
        if (byte == '/' and len != 0 and text[len - 1] == '/') continue;
        text[len] = byte;
        len += 1;
    }
    return text[0..len];
}

fn string(x: *const Index, offset: u32) []const u8 {
    return memory.stringAt(x.strings, offset);
}

const digit_bits = 11;
const Digits = [1 << digit_bits]u32;

/// Sorts by counting, digit after digit from the least: a million locations in few passes.
fn sort(x: *Index) error{OutOfMemory}!void {
    x.order = try gpa.alloc(u32, x.locations.len);
    x.file_starts = try gpa.alloc(u32, x.files.len + 2);
    var other = try gpa.alloc(u32, x.locations.len);
    defer gpa.free(other);

    var max_line: u32 = 0;
    var max_column: u32 = 0;
    for (x.order, x.locations, 0..) |*item, location, i| {
        item.* = @intCast(i);
        max_line = @max(max_line, location.line);
        max_column = @max(max_column, location.column);
    }
    inline for (.{ "column", "line" }, .{ max_column, max_line }) |field, max| {
        var shift: u6 = 0;
        while (@as(u64, max) >> shift != 0) : (shift += digit_bits) {
            sortByDigit(field, @intCast(shift), x.locations, x.order, other);
            std.mem.swap([]u32, &x.order, &other);
        }
    }

    const starts = x.file_starts;
    @memset(starts, 0);
    for (x.file_of) |file| starts[file + 1] += 1;
    for (starts[1..], starts[0 .. starts.len - 1]) |*start, before| start.* += before;
    for (x.order) |i| {
        const start = &starts[x.file_of[i]];
        other[start.*] = i;
        start.* += 1;
    }
    // Each start has moved to the next one's place.
    std.mem.copyBackwards(u32, starts[1..], starts[0 .. starts.len - 1]);
    starts[0] = 0;
    std.mem.swap([]u32, &x.order, &other);
}

fn sortByDigit(
    comptime field: []const u8,
    shift: u5,
    locations: []const abi.SourceLocation,
    from: []const u32,
    to: []u32,
) void {
    const mask = (1 << digit_bits) - 1;
    var starts: Digits = @splat(0);
    for (locations) |location| starts[@field(location, field) >> shift & mask] += 1;
    var sum: u32 = 0;
    for (&starts) |*start| {
        const count = start.*;
        start.* = sum;
        sum += count;
    }
    for (from) |i| {
        const start = &starts[@field(locations[i], field) >> shift & mask];
        to[start.*] = i;
        start.* += 1;
    }
}
