//! The tables as Zig's own server makes them: `oracle EXECUTABLE COVERAGE_FILE` writes to stdout what
//! `prepareTables` of Zig's server sends behind the header of the source index, and to stderr how many
//! nanoseconds it took from opening the files until the tables were ready. All releases compile it, and each
//! answers with what its own standard library makes of debug info.
const std = @import("std");
const Coverage = std.debug.Coverage;
const Info = std.debug.Info;
const SourceLocation = Coverage.SourceLocation;

const Point = struct { pc: u64, place: u32, location: SourceLocation };

/// What that function sorts by, in the way that it does: the time is compared with ours.
const Order = struct {
    pcs: []const u64,

    pub fn lessThan(order: Order, a: usize, b: usize) bool {
        return order.pcs[a] < order.pcs[b];
    }
};

/// Since 0.16, whatever may wait is handed an `Io`.
pub const main = if (@hasDecl(std.process, "Init")) WithIo.main else WithoutIo.main;

const WithIo = struct {
    io: std.Io,

    fn main(init: std.process.Init) !void {
        const arena = init.arena.allocator();
        try run(arena, WithIo{ .io = init.io }, try init.minimal.args.toSlice(arena));
    }

    fn nanoseconds(with: WithIo) i128 {
        return std.Io.Clock.awake.now(with.io).nanoseconds;
    }

    fn read(with: WithIo, gpa: std.mem.Allocator, path: []const u8) ![]u8 {
        return std.Io.Dir.cwd().readFileAlloc(with.io, path, gpa, .unlimited);
    }

    fn load(with: WithIo, gpa: std.mem.Allocator, path: std.Build.Cache.Path, coverage: *Coverage) !Info {
        return Info.load(gpa, with.io, path, coverage, .elf, @import("builtin").cpu.arch);
    }

    fn resolve(with: WithIo, info: *Info, gpa: std.mem.Allocator, pcs: []u64, found: []SourceLocation) !void {
        try info.resolveAddresses(gpa, with.io, pcs, found);
    }

    fn write(with: WithIo, bytes: []const u8) !void {
        try std.Io.File.stdout().writeStreamingAll(with.io, bytes);
    }
};

const WithoutIo = struct {
    fn main() !void {
        var arena = std.heap.ArenaAllocator.init(std.heap.page_allocator);
        try run(arena.allocator(), WithoutIo{}, try std.process.argsAlloc(arena.allocator()));
    }

    fn nanoseconds(_: WithoutIo) i128 {
        return std.time.nanoTimestamp();
    }

    fn read(_: WithoutIo, gpa: std.mem.Allocator, path: []const u8) ![]u8 {
        return std.fs.cwd().readFileAlloc(gpa, path, std.math.maxInt(usize));
    }

    fn load(_: WithoutIo, gpa: std.mem.Allocator, path: std.Build.Cache.Path, coverage: *Coverage) !Info {
        return Info.load(gpa, path, coverage);
    }

    fn resolve(_: WithoutIo, info: *Info, gpa: std.mem.Allocator, pcs: []u64, found: []SourceLocation) !void {
        try info.resolveAddresses(gpa, pcs, found);
    }

    fn write(_: WithoutIo, bytes: []const u8) !void {
        const out: std.fs.File = .{ .handle = std.posix.STDOUT_FILENO };
        try out.writeAll(bytes);
    }
};

fn run(gpa: std.mem.Allocator, system: anytype, args: []const [:0]const u8) !void {
    const start = system.nanoseconds();

    var coverage = Coverage.init;
    var info = try system.load(gpa, .{ .root_dir = .cwd(), .sub_path = args[1] }, &coverage);

    // Three numbers, of which the last is that of the PCs; a bit for each PC; the PCs.
    const words = std.mem.bytesAsSlice(u64, try system.read(gpa, args[2]));
    const n_pcs: usize = @intCast(words[2]);
    const pcs = words[3 + (n_pcs + 63) / 64 ..][0..n_pcs];

    var points: std.MultiArrayList(Point) = .empty;
    try points.resize(gpa, n_pcs);
    for (points.items(.pc), pcs) |*own, pc| own.* = pc;
    for (points.items(.place), 0..) |*place, number| place.* = @intCast(number);
    points.sortUnstable(Order{ .pcs = points.items(.pc) });
    try system.resolve(&info, gpa, points.items(.pc), points.items(.location));

    const locations = try gpa.alloc(SourceLocation, points.len);
    for (points.items(.place), points.items(.location)) |place, location| locations[place] = location;
    std.debug.print("{d}\n", .{system.nanoseconds() - start});

    try system.write(std.mem.sliceAsBytes(coverage.directories.keys()));
    try system.write(std.mem.sliceAsBytes(coverage.files.keys()));
    try system.write(std.mem.sliceAsBytes(locations));
    try system.write(coverage.string_bytes.items);
}
