//! What has been reached, point by point: the bits, when each was first set, and the counts of
//! files, functions and lines that follow from them.

const std = @import("std");
const memory = @import("memory.zig");
const Tally = @import("tally.zig");
const Index = @import("index.zig");
const Points = @import("points.zig");
const gpa = memory.gpa;

const Coverage = @This();

len: u32,
/// One bit for each point; empty until the first update.
bits: []u64,
is_known: bool,
/// Unix seconds for each point; see `not_covered` and `unknown_time`.
times: []f64,
covered: u32,
files: Tally,
functions: Tally,
lines: Tally,
/// The line of each point, for `lines`.
line_of: []u32,
/// What the last update has covered, ascending; empty after the first one.
newly: std.ArrayListUnmanaged(u32),
/// The latest covered points, newest first; never more than there is room for.
newest: std.ArrayListUnmanaged(u32),

pub const not_covered: f64 = 0;
/// Covered before anybody looked, or nobody knows when.
pub const unknown_time: f64 = 1;
const max_newest = 500;

pub const empty: Coverage = .{
    .len = 0,
    .bits = &.{},
    .is_known = false,
    .times = &.{},
    .covered = 0,
    .files = .empty,
    .functions = .empty,
    .lines = .empty,
    .line_of = &.{},
    .newly = .empty,
    .newest = .empty,
};

pub fn init(index: *const Index) error{OutOfMemory}!Coverage {
    var c: Coverage = .empty;
    errdefer c.deinit();
    c.newest = try .initCapacity(gpa, max_newest);
    c.len = @intCast(index.locations.len);
    c.bits = try gpa.alloc(u64, wordsFor(c.len));
    @memset(c.bits, 0);
    c.times = try gpa.alloc(f64, c.len);
    @memset(c.times, not_covered);
    // Points without a file are a group of their own.
    c.files = try .init(index.file_of, index.files.len + 1);
    return c;
}

pub fn deinit(c: *Coverage) void {
    gpa.free(c.bits);
    gpa.free(c.times);
    gpa.free(c.line_of);
    c.files.deinit();
    c.functions.deinit();
    c.lines.deinit();
    c.newly.deinit(gpa);
    c.newest.deinit(gpa);
    c.* = .empty;
}

pub fn wordsFor(len: u32) u32 {
    return len / 64 + @intFromBool(len % 64 != 0);
}

pub fn has(c: *const Coverage, point: u32) bool {
    return point < c.len and c.bits[point / 64] >> @intCast(point % 64) & 1 != 0;
}

pub fn time(c: *const Coverage, point: u32) f64 {
    return if (point < c.len) c.times[point] else not_covered;
}

/// Takes all bits anew, of which most are as before. The first time, what is covered was so
/// before anybody looked, unless `points` knows better.
pub fn replace(c: *Coverage, words: []const u64, now: f64, points: *const Points) error{OutOfMemory}!void {
    const is_first = !c.is_known;
    c.is_known = true;
    c.newly.clearRetainingCapacity();
    var lost = false;
    for (c.bits, words, 0..) |*old, word, i| {
        // The last word may have bits to spare.
        const spare: u6 = if (i + 1 == c.bits.len) @truncate(0 -% c.len) else 0;
        const new = word & @as(u64, std.math.maxInt(u64)) >> spare;
        var changed = old.* ^ new;
        if (changed == 0) continue;
        while (changed != 0) : (changed &= changed - 1) {
            const bit: u6 = @intCast(@ctz(changed));
            const point = @as(u32, @intCast(i)) * 64 + bit;
            if (new >> bit & 1 == 0) {
                c.uncover(point);
                lost = true;
            } else if (is_first) {
                c.cover(point, unknown_time);
            } else {
                try c.newly.append(gpa, point);
            }
        }
        old.* = new;
    }
    if (lost) c.forgetLost();
    for (c.newly.items) |point| {
        c.cover(point, now);
        c.offer(point);
    }
    if (is_first) c.takeTimes(points);
}

/// Adds points that are ascending and below `len`; some may be covered already. They are no news
/// if nobody knows since when they are covered.
pub fn extend(c: *Coverage, items: []const u32, now: f64) error{OutOfMemory}!void {
    c.newly.clearRetainingCapacity();
    for (items) |point| {
        if (c.has(point)) continue;
        c.bits[point / 64] |= @as(u64, 1) << @intCast(point % 64);
        c.cover(point, now);
        if (now == unknown_time) continue;
        try c.newly.append(gpa, point);
        c.offer(point);
    }
}

/// Takes the functions and times of `points`, which belong to the same map.
pub fn takePoints(c: *Coverage, points: *const Points) error{OutOfMemory}!void {
    c.functions.deinit();
    c.functions = try .init(points.function_of, points.function_names.len);
    c.recount(&c.functions);
    c.takeTimes(points);
}

fn takeTimes(c: *Coverage, points: *const Points) void {
    for (points.first_covered, 0..) |seconds, i| {
        const known: f64 = @floatFromInt(seconds);
        if (known <= unknown_time or !c.has(@intCast(i))) continue;
        // What came with an update is the same time and has fractions.
        if (@floor(c.times[i]) == known) continue;
        c.times[i] = known;
    }
    c.newest.clearRetainingCapacity();
    for (c.times, 0..) |seconds, i| {
        if (seconds > unknown_time) c.offer(@intCast(i));
    }
}

/// Counts lines. Only files have lines, and line 0 is none.
pub fn prepareLines(c: *Coverage, index: *const Index) error{OutOfMemory}!void {
    if (c.line_of.len != 0 or c.len == 0) return;
    const line_of = try gpa.alloc(u32, c.len);
    errdefer gpa.free(line_of);
    var n_lines: u32 = 0;
    var last_file = memory.none;
    var last_line: u32 = 0;
    for (index.order) |i| {
        const file = index.file_of[i];
        const line = index.locations[i].line;
        if (file == index.files.len or line == 0) {
            line_of[i] = memory.none;
            continue;
        }
        if (n_lines == 0 or file != last_file or line != last_line) n_lines += 1;
        last_file = file;
        last_line = line;
        line_of[i] = n_lines - 1;
    }
    c.lines = try .init(line_of, n_lines);
    c.line_of = line_of;
    c.recount(&c.lines);
}

fn recount(c: *const Coverage, tally: *Tally) void {
    for (c.bits, 0..) |word, i| {
        var left = word;
        while (left != 0) : (left &= left - 1) tally.add(@intCast(i * 64 + @ctz(left)));
    }
}

fn cover(c: *Coverage, point: u32, now: f64) void {
    c.times[point] = now;
    c.covered += 1;
    c.files.add(point);
    c.functions.add(point);
    c.lines.add(point);
}

fn uncover(c: *Coverage, point: u32) void {
    c.times[point] = not_covered;
    c.covered -= 1;
    c.files.remove(point);
    c.functions.remove(point);
    c.lines.remove(point);
}

fn forgetLost(c: *Coverage) void {
    var len: usize = 0;
    for (c.newest.items) |point| {
        if (c.times[point] == not_covered) continue;
        c.newest.items[len] = point;
        len += 1;
    }
    c.newest.shrinkRetainingCapacity(len);
}

/// Puts a point among the newest if it is one of them.
fn offer(c: *Coverage, point: u32) void {
    if (c.newest.items.len == max_newest) {
        if (!c.isNewer(point, c.newest.getLast())) return;
        _ = c.newest.pop();
    }
    const place: Place = .{ .c = c, .point = point };
    const at = std.sort.partitionPoint(u32, c.newest.items, place, Place.isBefore);
    c.newest.insertAssumeCapacity(at, point);
}

const Place = struct {
    c: *const Coverage,
    point: u32,

    fn isBefore(place: Place, other: u32) bool {
        return place.c.isNewer(other, place.point);
    }
};

fn isNewer(c: *const Coverage, a: u32, b: u32) bool {
    if (c.times[a] != c.times[b]) return c.times[a] > c.times[b];
    return a < b;
}
