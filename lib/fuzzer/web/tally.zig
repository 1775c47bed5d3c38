//! Points in groups (files, functions or lines): how many a group has, and how many of them are
//! covered. Kept up to date point by point, so that an update costs what it changes.

const std = @import("std");
const memory = @import("memory.zig");
const gpa = memory.gpa;

const Tally = @This();

/// The group of each point; one that does not exist stands for none. Not owned.
group_of: []const u32,
totals: []u32,
covered: []u32,
/// How many groups have at least one covered point.
reached: u32,

pub const empty: Tally = .{ .group_of = &.{}, .totals = &.{}, .covered = &.{}, .reached = 0 };

pub fn init(group_of: []const u32, n_groups: usize) error{OutOfMemory}!Tally {
    const totals = try gpa.alloc(u32, n_groups);
    errdefer gpa.free(totals);
    const covered = try gpa.alloc(u32, n_groups);
    @memset(totals, 0);
    @memset(covered, 0);
    for (group_of) |group| {
        if (group < n_groups) totals[group] += 1;
    }
    return .{ .group_of = group_of, .totals = totals, .covered = covered, .reached = 0 };
}

pub fn deinit(tally: *Tally) void {
    gpa.free(tally.totals);
    gpa.free(tally.covered);
    tally.* = .empty;
}

pub fn add(tally: *Tally, point: u32) void {
    const covered = tally.ofPoint(point) orelse return;
    if (covered.* == 0) tally.reached += 1;
    covered.* += 1;
}

pub fn remove(tally: *Tally, point: u32) void {
    const covered = tally.ofPoint(point) orelse return;
    covered.* -= 1;
    if (covered.* == 0) tally.reached -= 1;
}

pub fn total(tally: *const Tally, group: u32) u32 {
    return if (group < tally.totals.len) tally.totals[group] else 0;
}

pub fn coveredOf(tally: *const Tally, group: u32) u32 {
    return if (group < tally.covered.len) tally.covered[group] else 0;
}

fn ofPoint(tally: *Tally, point: u32) ?*u32 {
    if (point >= tally.group_of.len) return null;
    const group = tally.group_of[point];
    return if (group < tally.covered.len) &tally.covered[group] else null;
}
