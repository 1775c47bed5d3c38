//! The tables as Zig's own server makes them: `oracle EXECUTABLE COVERAGE_FILE` writes to stdout what
//! `prepareTables` of WebServer.zig sends behind the header of the source index.
const std = @import("std");
const SeenPcsHeader = std.Build.Fuzz.abi.SeenPcsHeader;
const SourceLocation = std.debug.Coverage.SourceLocation;

const Point = struct { pc: u64, place: usize };

fn isBelow(_: void, a: Point, b: Point) bool {
    return a.pc < b.pc;
}

pub fn main() !void {
    var arena = std.heap.ArenaAllocator.init(std.heap.page_allocator);
    const gpa = arena.allocator();
    const args = try std.process.argsAlloc(gpa);

    const file = try std.fs.cwd().readFileAllocOptions(gpa, args[2], 1 << 30, null, 8, null);
    const header: *const SeenPcsHeader = @ptrCast(file.ptr);
    const points = try gpa.alloc(Point, header.pcs_len);
    for (points, header.pcAddrs(), 0..) |*point, pc, place| point.* = .{ .pc = pc, .place = place };
    std.mem.sort(Point, points, {}, isBelow);

    const sorted_pcs = try gpa.alloc(u64, points.len);
    for (sorted_pcs, points) |*pc, point| pc.* = point.pc;
    const resolved = try gpa.alloc(SourceLocation, points.len);
    var coverage = std.debug.Coverage.init;
    const path: std.Build.Cache.Path = .{ .root_dir = .cwd(), .sub_path = args[1] };
    var info = try std.debug.Info.load(gpa, path, &coverage);
    try info.resolveAddresses(gpa, sorted_pcs, resolved);

    const locations = try gpa.alloc(SourceLocation, points.len);
    for (points, resolved) |point, location| locations[point.place] = location;

    const out = std.io.getStdOut();
    try out.writeAll(std.mem.sliceAsBytes(coverage.directories.keys()));
    try out.writeAll(std.mem.sliceAsBytes(coverage.files.keys()));
    try out.writeAll(std.mem.sliceAsBytes(locations));
    try out.writeAll(coverage.string_bytes.items);
}
