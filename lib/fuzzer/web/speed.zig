//! How fast the fuzzer has been in the last seconds, by what its updates say.

const std = @import("std");

const Speed = @This();

/// Oldest first.
buffer: [64]Report = undefined,
len: usize = 0,

/// Milliseconds of our own clock, which does not jump.
const Report = struct { time: f64, n_runs: u64 };

const window_ms = 10_000;
/// Updates that follow each other faster than this count as one: the list is long enough for
/// the whole window.
const step_ms = 200;

pub fn add(speed: *Speed, now: f64, n_runs: u64) void {
    const buffer = &speed.buffer;
    if (speed.len != 0) {
        const last = buffer[speed.len - 1];
        // Another coverage file, to which nothing compares.
        if (n_runs < last.n_runs or now < last.time) speed.len = 0;
    }
    if (speed.len >= 2 and now - buffer[speed.len - 2].time < step_ms) speed.len -= 1;
    if (speed.len == buffer.len) {
        std.mem.copyForwards(Report, buffer[0 .. buffer.len - 1], buffer[1..]);
        speed.len -= 1;
    }
    buffer[speed.len] = .{ .time = now, .n_runs = n_runs };
    speed.len += 1;
}

/// Runs a second; NaN without two reports in the window.
pub fn recent(speed: *const Speed, now: f64) f64 {
    const reports = speed.buffer[0..speed.len];
    for (reports) |oldest| {
        if (now - oldest.time > window_ms) continue;
        const newest = reports[reports.len - 1];
        const seconds = (newest.time - oldest.time) / std.time.ms_per_s;
        if (seconds <= 0) break;
        return @as(f64, @floatFromInt(newest.n_runs - oldest.n_runs)) / seconds;
    }
    return std.math.nan(f64);
}
