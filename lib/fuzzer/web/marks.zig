//! Where the locations of the open source are drawn, and what its lines say of them.

const std = @import("std");
const memory = @import("memory.zig");
const Coverage = @import("coverage.zig");
const Index = @import("index.zig");
const Source = @import("source.zig");
const gpa = memory.gpa;

const Marks = @This();

/// Locations by line and column. Not owned: it is part of the index.
points: []const u32,
/// Of each of them the line, from 0, and the offset in the text. Both ascend.
lines: []u32,
offsets: []u32,

pub const empty: Marks = .{ .points = &.{}, .lines = &.{}, .offsets = &.{} };

/// Finds the lines and columns in the source, which may be newer than the executable: a column
/// beyond its line moves to its last byte, and a line beyond the file to the last one, so that
/// no location is lost.
pub fn init(source: *const Source, index: *const Index, points: []const u32) error{OutOfMemory}!Marks {
    const lines = try gpa.alloc(u32, points.len);
    errdefer gpa.free(lines);
    const offsets = try gpa.alloc(u32, points.len);
    const last_line = source.lineCount() - 1;
    for (points, lines, offsets) |point, *line, *offset| {
        const location = index.locations[point];
        line.* = @min(location.line -| 1, last_line);
        const bounds = source.lineAt(line.*);
        // Places are in ascending order, and so must be their offsets.
        const column = if (location.line -| 1 > last_line)
            memory.none
        else if (location.line == 0) 0 else location.column -| 1;
        const last = if (bounds.end > bounds.start) bounds.end - 1 else bounds.start;
        offset.* = source.characterStart(bounds.start, @min(bounds.start +| column, last));
    }
    return .{ .points = points, .lines = lines, .offsets = offsets };
}

pub fn deinit(marks: *Marks) void {
    gpa.free(marks.lines);
    gpa.free(marks.offsets);
    marks.* = .empty;
}

fn before(marks: *const Marks, line: u32) usize {
    return std.sort.lowerBound(u32, marks.lines, line, orderOf);
}

fn orderOf(a: u32, b: u32) std.math.Order {
    return std.math.order(a, b);
}

pub fn onLine(marks: *const Marks, line: u32) Iterator {
    const start = marks.before(line);
    const end = std.sort.upperBound(u32, marks.lines, line, orderOf);
    return .{ .points = marks.points[start..end], .offsets = marks.offsets[start..end] };
}

/// The marks of one line, in the order of their offsets.
pub const Iterator = struct {
    points: []const u32,
    offsets: []const u32,

    /// A mark at this offset, or one before it, that was not given yet.
    pub fn next(marks: *Iterator, offset: u32) ?u32 {
        if (marks.offsets.len == 0 or marks.offsets[0] > offset) return null;
        defer {
            marks.points = marks.points[1..];
            marks.offsets = marks.offsets[1..];
        }
        return marks.points[0];
    }

    pub fn nextOffset(marks: *const Iterator) ?u32 {
        return if (marks.offsets.len == 0) null else marks.offsets[0];
    }
};

/// `memory.none` for a location that has no mark here.
pub fn lineOf(marks: *const Marks, index: *const Index, point: u32) u32 {
    if (point >= index.locations.len) return memory.none;
    const at = std.sort.lowerBound(u32, marks.points, Place{ .index = index, .point = point }, Place.order);
    if (at >= marks.points.len or marks.points[at] != point) return memory.none;
    return marks.lines[at];
}

const Place = struct {
    index: *const Index,
    point: u32,

    fn order(place: Place, other: u32) std.math.Order {
        const a = place.index.locations[place.point];
        const b = place.index.locations[other];
        if (a.line != b.line) return std.math.order(a.line, b.line);
        if (a.column != b.column) return std.math.order(a.column, b.column);
        return std.math.order(place.point, other);
    }
};

/// The numbers are those that JavaScript reads. A higher one is worse.
pub const State = enum(u8) { none = 0, covered = 1, partly = 2, missed = 3 };

/// One state for each line from `first` on.
pub fn states(marks: *const Marks, coverage: *const Coverage, first: u32, out: []State) void {
    @memset(out, .none);
    var i = marks.before(first);
    while (i < marks.lines.len and marks.lines[i] - first < out.len) : (i += 1) {
        const state = &out[marks.lines[i] - first];
        const is_covered = coverage.has(marks.points[i]);
        state.* = switch (state.*) {
            .none => if (is_covered) .covered else .missed,
            .covered => if (is_covered) .covered else .partly,
            .partly => .partly,
            .missed => if (is_covered) .partly else .missed,
        };
    }
}

/// The worst state of the lines in each of `out.len` equal parts.
pub fn overview(all: []const State, out: []State) void {
    for (out, 0..) |*state, i| {
        const start: usize = @intCast(@as(u64, i) * all.len / out.len);
        const end: usize = @intCast(@as(u64, i + 1) * all.len / out.len);
        state.* = .none;
        // A part may be less than a line.
        for (all[start..@max(end, start + 1)]) |line| {
            if (@intFromEnum(line) > @intFromEnum(state.*)) state.* = line;
        }
    }
}

/// The numbers are those that JavaScript gives.
pub const Kind = enum(u32) { uncovered = 0, new = 1, any = 2, _ };

/// The next location behind `line`, or before it, of one kind; from the other end of the file
/// when there is none.
pub fn seek(
    marks: *const Marks,
    coverage: *const Coverage,
    line: u32,
    backwards: bool,
    kind: Kind,
    new_since: f64,
) u32 {
    const n = marks.points.len;
    const start = if (backwards) marks.before(line) else std.sort.upperBound(u32, marks.lines, line, orderOf);
    for (0..n) |i| {
        // Modulo n, without numbers that wrap.
        const step = if (backwards) start + n - 1 - i else start + i;
        const point = marks.points[if (step >= n) step - n else step];
        const is_wanted = switch (kind) {
            .uncovered => !coverage.has(point),
            .new => coverage.time(point) > new_since,
            .any => true,
            _ => false,
        };
        if (is_wanted) return point;
    }
    return memory.none;
}
