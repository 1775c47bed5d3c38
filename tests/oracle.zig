//! The tables as Zig's own server makes them: `oracle EXECUTABLE COVERAGE_FILE` writes to stdout what
//! `prepareTables` of WebServer.zig sends behind the header of the source index, and to stderr how many
//! nanoseconds it took from opening the files until the tables were ready.
const std = @import("std");
const SeenPcsHeader = std.Build.Fuzz.abi.SeenPcsHeader;
const SourceLocation = std.debug.Coverage.SourceLocation;

const Point = struct { pc: u64, place: u32, location: SourceLocation };

/// What that function sorts by, in the way that it does: the time is compared with ours.
const Order = struct {
    pcs: []const u64,

    pub fn lessThan(order: Order, a: usize, b: usize) bool {
        return order.pcs[a] < order.pcs[b];
    }
};

pub fn main() !void {
    var arena = std.heap.ArenaAllocator.init(std.heap.page_allocator);
    const gpa = arena.allocator();
    const args = try std.process.argsAlloc(gpa);
    var timer = try std.time.Timer.start();

    var coverage = std.debug.Coverage.init;
    const path: std.Build.Cache.Path = .{ .root_dir = .cwd(), .sub_path = args[1] };
    var info = try std.debug.Info.load(gpa, path, &coverage);

    const file = try std.fs.cwd().openFile(args[2], .{});
    const size = try file.getEndPos();
    const mapped = try std.posix.mmap(null, size, std.posix.PROT.READ, .{ .TYPE = .SHARED }, file.handle, 0);
    const header: *const SeenPcsHeader = @ptrCast(mapped.ptr);

    var points: std.MultiArrayList(Point) = .{};
    try points.resize(gpa, header.pcs_len);
    @memcpy(points.items(.pc), header.pcAddrs());
    for (points.items(.place), 0..) |*place, number| place.* = @intCast(number);
    points.sortUnstable(Order{ .pcs = points.items(.pc) });
    try info.resolveAddresses(gpa, points.items(.pc), points.items(.location));

    const locations = try gpa.alloc(SourceLocation, points.len);
    for (points.items(.place), points.items(.location)) |place, location| locations[place] = location;
    std.debug.print("{d}\n", .{timer.read()});

    const out = std.io.getStdOut();
    try out.writeAll(std.mem.sliceAsBytes(coverage.directories.keys()));
    try out.writeAll(std.mem.sliceAsBytes(coverage.files.keys()));
    try out.writeAll(std.mem.sliceAsBytes(locations));
    try out.writeAll(coverage.string_bytes.items);
}
