//! What all parts share: the allocator, and how lists and text cross to JavaScript.

const builtin = @import("builtin");
const std = @import("std");

pub const gpa = std.heap.wasm_allocator;

/// The alignment is the largest that a message needs: the seen bits are words of 64. Zig 0.14 takes a number
/// for it.
pub const Bytes = std.ArrayListAlignedUnmanaged(u8, if (builtin.zig_version.minor == 14) @alignOf(u64) else .of(u64));
pub const Text = Slice(u8);

/// "No such index", in every answer that is an index.
pub const none: u32 = std.math.maxInt(u32);

/// Crosses as one 64-bit integer: pointer low, length high.
pub fn Slice(T: type) type {
    return packed struct(u64) {
        ptr: u32,
        len: u32,

        pub fn init(items: []const T) @This() {
            // An empty slice may point anywhere, which a typed array does not take.
            if (items.len == 0) return .{ .ptr = 0, .len = 0 };
            return .{ .ptr = @intFromPtr(items.ptr), .len = items.len };
        }
    };
}

pub const ParseError = error{ Malformed, OutOfMemory };

/// Takes a message apart from its start. Every length in it is measured before it is believed.
pub const Reader = struct {
    rest: []const u8,

    pub fn init(bytes: []align(@alignOf(u64)) const u8, head_size: usize) error{Malformed}!Reader {
        if (bytes.len < head_size) return error.Malformed;
        return .{ .rest = bytes[head_size..] };
    }

    /// The next `len` items, which stay where they are. The caller knows that what lies before
    /// them keeps them aligned.
    pub fn take(reader: *Reader, T: type, len: u32) error{Malformed}![]const T {
        const size = @as(u64, len) * @sizeOf(T);
        if (size > reader.rest.len) return error.Malformed;
        const taken: []align(@alignOf(T)) const u8 = @alignCast(reader.rest[0..@intCast(size)]);
        reader.rest = reader.rest[taken.len..];
        return std.mem.bytesAsSlice(T, taken);
    }

    /// All that is left, if it is as long as the message says.
    pub fn takeLast(reader: *Reader, T: type, len: u32) error{Malformed}![]const T {
        const taken = try reader.take(T, len);
        if (reader.rest.len != 0) return error.Malformed;
        return taken;
    }
};

/// What a table of strings holds at an offset. Names and parts of paths are not longer than
/// this, and without a limit few bytes could ask for any amount of work.
pub const max_string = 4096;

pub fn stringAt(strings: []const u8, offset: u32) []const u8 {
    if (offset >= strings.len) return "?";
    const rest = strings[offset..];
    return std.mem.sliceTo(rest[0..@min(rest.len, max_string)], 0);
}
