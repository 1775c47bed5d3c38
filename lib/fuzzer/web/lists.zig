//! Lists of files and of functions: filtered, and ordered by one column.

const std = @import("std");
const memory = @import("memory.zig");
const Coverage = @import("coverage.zig");
const Index = @import("index.zig");
const Points = @import("points.zig");
const Tally = @import("tally.zig");
const gpa = memory.gpa;

/// The numbers are those that JavaScript gives. An unknown one orders by name.
pub const Key = enum(u32) { name = 0, uncovered = 1, total = 2, fraction = 3, covered = 4, _ };

pub const Flags = packed struct(u32) {
    hide_std: bool,
    hide_covered: bool,
    _: u30,
};

pub const Order = struct { key: Key, descending: bool };

/// Names are the last to be compared and the slowest: the place of each one among them
/// is found once, and stays until the names change.
pub const Ranks = struct {
    of: []u32 = &.{},
    is_known: bool = false,

    pub fn clear(ranks: *Ranks) void {
        gpa.free(ranks.of);
        ranks.* = .{};
    }

    fn prepare(ranks: *Ranks, rows: anytype) error{OutOfMemory}!void {
        if (ranks.is_known) return;
        const order = try gpa.alloc(u32, rows.len());
        defer gpa.free(order);
        for (order, 0..) |*item, i| item.* = @intCast(i);
        std.sort.pdq(u32, order, rows, struct {
            fn lessThan(context: @TypeOf(rows), a: u32, b: u32) bool {
                var buffer_a: [Index.max_path]u8 = undefined;
                var buffer_b: [Index.max_path]u8 = undefined;
                return switch (std.mem.order(u8, context.name(a, &buffer_a), context.name(b, &buffer_b))) {
                    .lt => true,
                    .gt => false,
                    .eq => a < b,
                };
            }
        }.lessThan);
        ranks.of = try gpa.alloc(u32, order.len);
        ranks.is_known = true;
        for (order, 0..) |row, rank| ranks.of[row] = @intCast(rank);
    }
};

pub const Files = struct {
    index: *const Index,
    coverage: *const Coverage,

    pub fn len(rows: Files) usize {
        return rows.index.files.len;
    }

    pub fn name(rows: Files, row: u32, buffer: *[Index.max_path]u8) []const u8 {
        return rows.index.path(row, buffer);
    }

    pub fn isStd(rows: Files, row: u32) bool {
        return rows.index.is_std[row];
    }

    pub fn tally(rows: Files) *const Tally {
        return &rows.coverage.files;
    }
};

pub const Functions = struct {
    index: *const Index,
    coverage: *const Coverage,
    points: *const Points,

    pub fn len(rows: Functions) usize {
        return rows.points.function_names.len;
    }

    pub fn name(rows: Functions, row: u32, _: *[Index.max_path]u8) []const u8 {
        return rows.points.function_names[row];
    }

    pub fn isStd(rows: Functions, row: u32) bool {
        const file = rows.points.function_files[row];
        return file < rows.index.is_std.len and rows.index.is_std[file];
    }

    pub fn tally(rows: Functions) *const Tally {
        return &rows.coverage.functions;
    }
};

/// Writes to `out` the rows whose name contains `filter`, whatever the case of ASCII letters.
/// Rows without points are left out, and equal ones are ordered by name.
pub fn list(
    out: *std.ArrayListUnmanaged(u32),
    ranks: *Ranks,
    rows: anytype,
    order: Order,
    flags: Flags,
    filter: []u8,
) error{OutOfMemory}!void {
    try ranks.prepare(rows);
    for (filter) |*byte| byte.* = std.ascii.toLower(byte.*);
    var items: std.ArrayListUnmanaged(Item) = .empty;
    defer items.deinit(gpa);
    var buffer: [Index.max_path]u8 = undefined;
    for (0..rows.len()) |i| {
        const row: u32 = @intCast(i);
        const total = rows.tally().total(row);
        const covered = rows.tally().coveredOf(row);
        if (total == 0) continue;
        if (flags.hide_covered and covered == total) continue;
        if (flags.hide_std and rows.isStd(row)) continue;
        if (filter.len != 0 and !contains(rows.name(row, &buffer), filter)) continue;
        const value = valueOf(order.key, total, covered, ranks.of[row]);
        try items.append(gpa, .{
            .value = if (order.descending) std.math.maxInt(u64) - value else value,
            .rank = ranks.of[row],
            .row = row,
        });
    }
    std.sort.pdq(Item, items.items, {}, Item.lessThan);
    out.clearRetainingCapacity();
    try out.ensureTotalCapacity(gpa, items.items.len);
    for (items.items) |item| out.appendAssumeCapacity(item.row);
}

const Item = struct {
    value: u64,
    rank: u32,
    row: u32,

    fn lessThan(_: void, a: Item, b: Item) bool {
        return if (a.value != b.value) a.value < b.value else a.rank < b.rank;
    }
};

fn valueOf(key: Key, total: u32, covered: u32, rank: u32) u64 {
    return switch (key) {
        .uncovered => total - covered,
        .total => total,
        // Positive floats are ordered as their bits are.
        .fraction => @bitCast(@as(f64, @floatFromInt(covered)) / @as(f64, @floatFromInt(total))),
        .covered => covered,
        else => rank,
    };
}

/// `filter` is in lower case and not empty.
fn contains(text: []const u8, filter: []const u8) bool {
    if (text.len < filter.len) return false;
    outer: for (0..text.len - filter.len + 1) |start| {
        for (text[start..][0..filter.len], filter) |a, b| {
            if (std.ascii.toLower(a) != b) continue :outer;
        }
        return true;
    }
    return false;
}
