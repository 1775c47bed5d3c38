//! The course of a session: samples of the counts over time, and the speed of the last moments.

const std = @import("std");
const memory = @import("memory.zig");
const gpa = memory.gpa;

const History = @This();

/// Ascending by time.
samples: std.ArrayListUnmanaged(Sample) = .empty,

pub const Sample = extern struct {
    /// Unix seconds.
    time: f64,
    n_runs: u64,
    unique_runs: u64,
    covered: u32,
    flags: u32,

    /// Nobody looked between the sample before and this one.
    fn startsAnew(sample: Sample) bool {
        return sample.flags & 1 != 0;
    }
};

const Header = extern struct { tag: u8, whole: u8, _: u16, samples_len: u32 };

/// More than any chart has pixels; a week of samples is thinned out to it.
const max_samples = 1 << 16;
const max_columns = 1 << 14;

pub fn receive(h: *History, bytes: []align(8) const u8) memory.ParseError!void {
    var reader = try memory.Reader.init(bytes, @sizeOf(Header));
    const header: *const Header = @ptrCast(bytes[0..@sizeOf(Header)]);
    const items = try reader.takeLast(Sample, header.samples_len);
    for (items) |item| {
        if (!std.math.isFinite(item.time)) return error.Malformed;
    }
    if (header.whole != 0) h.samples.clearRetainingCapacity();
    try h.samples.ensureTotalCapacity(gpa, h.samples.items.len + items.len);
    for (items) |item| {
        var sample = item;
        // Clocks are set back at times.
        if (h.samples.getLastOrNull()) |before| sample.time = @max(sample.time, before.time);
        h.samples.appendAssumeCapacity(sample);
    }
    while (h.samples.items.len > max_samples) h.thin();
}

pub fn clear(h: *History) void {
    h.samples.clearRetainingCapacity();
}

/// Drops every second sample of the older half.
fn thin(h: *History) void {
    const items = h.samples.items;
    const half = items.len / 2;
    var len: usize = 0;
    var flags: u32 = 0;
    for (items, 0..) |sample, i| {
        flags |= sample.flags;
        if (i < half and i % 2 == 1) continue;
        items[len] = sample;
        // A gap stays one when the first sample behind it goes.
        items[len].flags = flags;
        flags = 0;
        len += 1;
    }
    h.samples.shrinkRetainingCapacity(len);
}

pub fn first(h: *const History) f64 {
    return if (h.samples.items.len == 0) std.math.nan(f64) else h.samples.items[0].time;
}

pub fn last(h: *const History) f64 {
    return if (h.samples.getLastOrNull()) |sample| sample.time else std.math.nan(f64);
}

pub const What = enum(u32) { covered = 0, n_runs = 1, speed = 2, unique_runs = 3, _ };

/// One value for each of `n` equal parts of the time from `t0` to `t1`.
pub fn columns(
    h: *const History,
    out: *std.ArrayListUnmanaged(f32),
    t0: f64,
    t1: f64,
    n: u32,
    what: What,
) error{OutOfMemory}!void {
    out.clearRetainingCapacity();
    const width = (t1 - t0) / @as(f64, @floatFromInt(n));
    const items = h.samples.items;
    // How many samples are before the column's start, and before its end.
    var before: usize = 0;
    var until: usize = 0;
    for (0..@min(n, max_columns)) |i| {
        const start = t0 + width * @as(f64, @floatFromInt(i));
        const end = t0 + width * @as(f64, @floatFromInt(i + 1));
        while (before < items.len and items[before].time < start) before += 1;
        while (until < items.len and items[until].time < end) until += 1;
        // Times that make no sense leave nothing to be seen.
        const value = if (width > 0) h.column(before, until, what) else std.math.nan(f64);
        try out.append(gpa, @floatCast(value));
    }
}

fn column(h: *const History, before: usize, until: usize, what: What) f64 {
    const items = h.samples.items;
    if (until == 0 or until < before) return std.math.nan(f64);
    const is_gap = until == before and until < items.len and items[until].startsAnew();
    if (is_gap) return std.math.nan(f64);
    const sample = items[until - 1];
    return switch (what) {
        .covered => @floatFromInt(sample.covered),
        .n_runs => @floatFromInt(sample.n_runs),
        .unique_runs => @floatFromInt(sample.unique_runs),
        .speed => h.speedAround(before, until),
        _ => std.math.nan(f64),
    };
}

/// Runs a second from the last sample before a column to the first one after it, as far as no
/// gap lies between.
fn speedAround(h: *const History, before: usize, until: usize) f64 {
    const items = h.samples.items;
    var from = until - 1;
    while (from + 1 > before and from > 0 and !items[from].startsAnew()) from -= 1;
    const to = if (until < items.len and !items[until].startsAnew()) until else until - 1;
    const seconds = items[to].time - items[from].time;
    if (seconds <= 0 or items[to].n_runs < items[from].n_runs) return std.math.nan(f64);
    return @as(f64, @floatFromInt(items[to].n_runs - items[from].n_runs)) / seconds;
}
