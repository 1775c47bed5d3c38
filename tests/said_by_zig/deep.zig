const std = @import("std");
pub noinline fn refuse(n: u64) !void {
    if (n != 0) return error.Refused;
}
pub noinline fn panic(n: u64) void {
    if (n != 0) @panic("boom");
}
pub noinline fn recurse(n: u64) u64 {
    var room: [1024]u8 = @splat(0);
    std.mem.doNotOptimizeAway(&room);
    return recurse(n + 1) + room[n % 1024];
}
pub noinline fn makeBuffer() ![]u8 {
    return std.testing.allocator.alloc(u8, 32);
}
pub noinline fn spin() void {
    std.debug.print("well under way\n", .{});
    var n: usize = 0;
    while (true) {
        n +%= 1;
        std.mem.doNotOptimizeAway(n);
    }
}
pub noinline fn take() !void {
    const block = try std.heap.page_allocator.alloc(u8, 1 << 20);
    @memset(block, 1);
    count += 1;
    if (count == 100) spin();
}
var count: usize = 0;
