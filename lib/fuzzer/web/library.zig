//! Which files come with Zig: its std, compiler, fuzzer and compiler_rt.

const std = @import("std");
const Index = @import("index.zig");
const memory = @import("memory.zig");
const gpa = memory.gpa;

/// Sets for each file whether it is below Zig's lib folder.
///
/// Nothing says where that folder is. It is found by std, which lies in it, and of which most
/// executables have some code. Without any, a name that is usual has to do.
pub fn find(index: *const Index, is_std: []bool) error{OutOfMemory}!void {
    var roots: std.ArrayListUnmanaged([]const u8) = .empty;
    defer {
        for (roots.items) |root| gpa.free(root);
        roots.deinit(gpa);
    }
    var buffer: [Index.max_path]u8 = undefined;
    for (0..index.files.len) |i| {
        const path = index.plainPath(@intCast(i), &buffer);
        const root = rootOf(path) orelse continue;
        if (startsWithAny(path, roots.items)) continue;
        // One installation of Zig builds an executable, and seldom a second a part of it.
        if (roots.items.len == max_roots) break;
        const copy = try gpa.dupe(u8, root);
        errdefer gpa.free(copy);
        try roots.append(gpa, copy);
    }
    for (is_std, 0..) |*is, i| {
        const path = index.plainPath(@intCast(i), &buffer);
        is.* = if (roots.items.len != 0)
            startsWithAny(path, roots.items)
        else
            isBelow(path, "/lib/compiler/") or isBelow(path, "/lib/zig/");
    }
}

const max_roots = 8;

/// The lib folder with its last slash, if the path is one of std's.
fn rootOf(path: []const u8) ?[]const u8 {
    const main = "std/std.zig";
    if (std.mem.endsWith(u8, path, "/" ++ main)) return path[0 .. path.len - main.len];
    if (std.mem.indexOf(u8, path, "/lib/std/")) |at| return path[0 .. at + "/lib/".len];
    // Some distributions have a folder of their own for Zig, or for each of its versions.
    const at = std.mem.indexOf(u8, path, "/lib/zig/") orelse return null;
    return if (isBelow(path[at..], "/std/")) path[0 .. at + "/lib/zig/".len] else null;
}

fn isBelow(path: []const u8, folder: []const u8) bool {
    return std.mem.indexOf(u8, path, folder) != null;
}

fn startsWithAny(path: []const u8, roots: []const []const u8) bool {
    for (roots) |root| {
        if (std.mem.startsWith(u8, path, root)) return true;
    }
    return false;
}
