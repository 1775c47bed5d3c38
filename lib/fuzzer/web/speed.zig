//! How fast the fuzzer has been in the last seconds, by what its updates say.

const std = @import("std");

const Speed = @This();

/// Oldest first.
reports: std.BoundedArray(Report, 64) = .{},

/// Milliseconds of our own clock, which does not jump.
const Report = struct { time: f64, n_runs: u64 };

const window_ms = 10_000;
/// Updates that follow each other faster than this count as one: the list is long enough for
/// the whole window.
const step_ms = 200;

pub fn add(speed: *Speed, now: f64, n_runs: u64) void {
    const reports = &speed.reports;
    if (reports.len != 0) {
        const last = reports.get(reports.len - 1);
        // Another coverage file, to which nothing compares.
        if (n_runs < last.n_runs or now < last.time) reports.clear();
    }
    if (reports.len >= 2 and now - reports.get(reports.len - 2).time < step_ms) reports.len -= 1;
    if (reports.len == reports.buffer.len) _ = reports.orderedRemove(0);
    reports.appendAssumeCapacity(.{ .time = now, .n_runs = n_runs });
}

/// Runs a second; NaN without two reports in the window.
pub fn recent(speed: *const Speed, now: f64) f64 {
    const reports = speed.reports.slice();
    for (reports) |oldest| {
        if (now - oldest.time > window_ms) continue;
        const newest = reports[reports.len - 1];
        const seconds = (newest.time - oldest.time) / std.time.ms_per_s;
        if (seconds <= 0) break;
        return @as(f64, @floatFromInt(newest.n_runs - oldest.n_runs)) / seconds;
    }
    return std.math.nan(f64);
}
