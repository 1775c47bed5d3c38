//! The sources of a tar by their paths.

const std = @import("std");
const memory = @import("memory.zig");
const Index = @import("index.zig");
const gpa = memory.gpa;

const Tar = @This();

/// The archive as it came; `contents` points into it.
bytes: memory.Bytes = .empty,
contents: std.StringHashMapUnmanaged([]const u8) = .empty,
/// The keys of `contents`, which may differ from the names in the archive.
names: std.heap.ArenaAllocator = .init(gpa),

/// Takes ownership of `archive` and forgets the one before.
pub fn replace(tar: *Tar, archive: memory.Bytes) error{OutOfMemory}!void {
    tar.contents.clearRetainingCapacity();
    _ = tar.names.reset(.free_all);
    tar.bytes.deinit(gpa);
    tar.bytes = archive;

    var reader: Reader = .{ .bytes = tar.bytes.items };
    while (reader.next()) |entry| {
        const name = try tar.names.allocator().dupe(u8, entry.name);
        try tar.contents.put(gpa, Index.withoutDoubleSlashes(name), entry.content);
    }
}

pub fn get(tar: *const Tar, path: []const u8) ?[]const u8 {
    return tar.contents.get(path);
}

/// Reads as much of a tar as makes sense and stops quietly where it does not:
/// half of the sources is better than none. std.tar would refuse an archive for
/// one entry of a kind that it does not know.
const Reader = struct {
    bytes: []const u8,
    position: usize = 0,
    /// From a GNU 'L' entry, for the entry that follows it.
    long_name: ?[]const u8 = null,
    name_buffer: [256]u8 = undefined,

    const Entry = struct { name: []const u8, content: []const u8 };
    const block = 512;

    fn next(reader: *Reader) ?Entry {
        while (reader.bytes.len - reader.position >= block) {
            const header = reader.bytes[reader.position..][0..block];
            // A name may be empty: that of a record with a long name, and that of what follows it.
            if (std.mem.allEqual(u8, header, 0)) return null;
            const size = parseSize(header[124..136]) orelse return null;
            reader.position += block;
            if (size > reader.bytes.len - reader.position) return null;
            const content = reader.bytes[reader.position..][0..size];
            reader.position = @min(
                reader.bytes.len,
                std.mem.alignForward(usize, reader.position + size, block),
            );

            const name = reader.long_name orelse reader.shortName(header);
            reader.long_name = null;
            switch (header[156]) {
                'L' => reader.long_name = std.mem.sliceTo(content, 0),
                '0', 0 => return .{ .name = name, .content = content },
                else => {},
            }
        }
        return null;
    }

    fn shortName(reader: *Reader, header: *const [block]u8) []const u8 {
        const name = std.mem.sliceTo(header[0..100], 0);
        const prefix = std.mem.sliceTo(header[345..500], 0);
        const is_ustar = std.mem.eql(u8, header[257..262], "ustar");
        if (!is_ustar or prefix.len == 0) return name;
        return std.fmt.bufPrint(&reader.name_buffer, "{s}/{s}", .{ prefix, name }) catch unreachable;
    }

    fn parseSize(field: *const [12]u8) ?usize {
        const digits = std.mem.trim(u8, std.mem.sliceTo(field, 0), " ");
        return std.fmt.parseInt(usize, digits, 8) catch null;
    }
};
