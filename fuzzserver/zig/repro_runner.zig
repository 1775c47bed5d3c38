//! Runs one fuzz test on one given input, so that what a fuzzer found can be seen again.
//!
//!     repro TEST_NAME INPUT_FILE                   run the test on the file's bytes
//!     repro TEST_NAME INPUT_FILE --prefixes FROM   on its first FROM bytes, FROM + 1, ... all of them
//!     repro --list [TEST_NAME...]                  fuzz tests: "<inputs in options.corpus>\t<name>"
//!
//! Exit code 0, and "passed" on stdout: the test passed. 2 and a line that begins with "repro: ": it was
//! not run. Anything else is a failure; it is checked for, and told on stderr, as Zig's own test runner
//! does while fuzzing. With `--prefixes`, stdout gets each length before it is run: the last line names
//! the one that failed. What the test itself writes to stdout goes to stderr.
//!
//! It is the root of `zig test --test-runner`, compiled without `-ffuzz`, by any Zig since 0.14. As std
//! changes from release to release, it is asked for little: files and memory are system calls. Where it has
//! to be asked for what changed, it is looked at and not its version.

const builtin = @import("builtin");
const std = @import("std");
const linux = std.os.linux;
const testing = std.testing;

pub const std_options: std.Options = .{ .logFn = log };

/// What a test is given: the bytes of the input, or what makes values of them.
const TestInput = if (uses_smith) *testing.Smith else []const u8;
const uses_smith = @hasDecl(testing, "Smith");

/// Since Zig 0.16, whoever wants to know arguments and environment has to take them from the parameter.
pub const main = if (Init == void) mainWithout else mainWithInit;

const Init = if (@hasDecl(testing, "io_instance")) std.process.Init.Minimal else void;

var process_init: Init = undefined;

const Mode = union(enum) {
    /// The whole input.
    once,
    /// From this length on.
    prefixes: usize,
    /// Nothing is run but the test that calls `fuzz`.
    list,
};

const Input = struct {
    bytes: []const u8,
    /// As many bytes, followed by memory that cannot be accessed.
    guarded: []u8,

    /// The first bytes, where reading one more is a segmentation fault.
    fn prefix(self: Input, len: usize) []const u8 {
        const place = self.guarded[self.guarded.len - len ..];
        @memcpy(place, self.bytes[0..len]);
        return place;
    }
};

var mode: Mode = .once;
var input: Input = undefined;
/// Where stdout went before the test runs; what the test writes there goes to stderr.
var answers: usize = 1;
var log_err_count: usize = 0;
/// Inputs in the options of the call of `fuzz`; null until it is called.
var corpus_len: ?usize = null;

fn mainWithInit(init: Init) void {
    process_init = init;
    mainWithout();
}

fn mainWithout() void {
    var args = Args.init();
    const first = args.next() orelse usage();
    answers = check(linux.syscall1(.dup, 1), "cannot duplicate stdout");
    _ = check(linux.syscall3(.dup3, 2, 1, 0), "cannot redirect stdout");
    if (std.mem.eql(u8, first, "--list")) return list(args);
    const test_fn = for (builtin.test_functions) |each| {
        if (std.mem.eql(u8, each.name, first)) break each;
    } else fatal("there is no test '{s}' in this executable; '--list' names those that there are", .{first});
    input = readInput(args.next() orelse usage());
    if (args.next()) |option| {
        if (!std.mem.eql(u8, option, "--prefixes")) usage();
        mode = .{ .prefixes = std.fmt.parseUnsigned(usize, args.next() orelse usage(), 10) catch usage() };
    }
    if (args.next() != null) usage();
    run(test_fn.func);
}

/// As Zig's own test runner does before each test.
fn prepareTest() void {
    testing.allocator_instance = newAllocator(0xc3a701ba);
    if (Init != void) {
        testing.environ = process_init.environ;
        testing.io_instance = .init(testing.allocator, .{
            .argv0 = .init(process_init.args),
            .environ = process_init.environ,
        });
    }
}

const Allocator = @TypeOf(testing.allocator_instance);

fn newAllocator(canary: u32) Allocator {
    if (@TypeOf(Allocator.init) == Allocator) return .init;
    return .init(std.heap.page_allocator, .{ .canary = canary, .check_write_after_free = true });
}

/// Whether there was a leak, which is told.
fn endAllocator() bool {
    const leaks = testing.allocator_instance.deinit();
    return if (@typeInfo(@TypeOf(leaks)) == .@"enum") leaks == .leak else leaks != 0;
}

fn run(func: *const fn () anyerror!void) void {
    prepareTest();
    func() catch |err| {
        // While fuzzing, the call of `fuzz` never returns: what comes after it cannot fail.
        if (corpus_len == null and err != error.SkipZigTest) failWithError(err, @errorReturnTrace());
    };
    if (corpus_len == null) fatal("the test did not call std.testing.fuzz", .{});
    // A test that ends the process with exit code 0 has not passed.
    answer("passed\n");
}

fn list(names: Args) void {
    mode = .list;
    for (builtin.test_functions) |test_fn| {
        if (!names.areEmptyOrHave(test_fn.name)) continue;
        prepareTest();
        corpus_len = null;
        // A test that fails before it calls `fuzz` is none that could be fuzzed.
        test_fn.func() catch {};
        const len = corpus_len orelse continue;
        var buffer: [32]u8 = undefined;
        answer(std.fmt.bufPrint(&buffer, "{d}\t", .{len}) catch unreachable);
        answer(test_fn.name);
        answer("\n");
    }
}

/// What `std.testing.fuzz` calls.
pub fn fuzz(
    context: anytype,
    comptime testOne: fn (context: @TypeOf(context), TestInput) anyerror!void,
    options: testing.FuzzInputOptions,
) anyerror!void {
    // While fuzzing, a second call is never reached.
    if (corpus_len != null) return;
    corpus_len = options.corpus.len;
    const from = switch (mode) {
        .list => return,
        .once => input.bytes.len,
        .prefixes => |from| from,
    };
    // The function's name is that of Zig's runner: the border between a test and what calls it.
    const runner = struct {
        noinline fn fuzzer_one(ctx: @TypeOf(context), bytes: []const u8) void {
            testing.allocator_instance = newAllocator(0xcacce5e0);
            log_err_count = 0;
            var smith = if (uses_smith) testing.Smith{ .in = bytes } else {};
            testOne(ctx, if (uses_smith) &smith else bytes) catch |err| {
                if (err != error.SkipZigTest) failWithError(err, @errorReturnTrace());
                log_err_count = 0;
            };
            if (log_err_count != 0) {
                std.debug.print("error logs detected\n", .{});
                std.process.exit(1);
            }
            if (endAllocator()) std.process.exit(1);
        }
    };
    const outer_allocator = testing.allocator_instance;
    defer testing.allocator_instance = outer_allocator;
    var len = from;
    while (len <= input.bytes.len) : (len += 1) {
        if (mode == .prefixes) {
            var buffer: [32]u8 = undefined;
            answer(std.fmt.bufPrint(&buffer, "{d}\n", .{len}) catch unreachable);
        }
        runner.fuzzer_one(context, input.prefix(len));
    }
}

fn failWithError(err: anyerror, trace: ?*std.builtin.StackTrace) noreturn {
    if (trace) |each| {
        if (@hasDecl(std.debug, "dumpErrorReturnTrace")) {
            std.debug.dumpErrorReturnTrace(each);
        } else {
            std.debug.dumpStackTrace(each.*);
        }
    }
    std.debug.print("failed with error.{s}\n", .{@errorName(err)});
    std.process.exit(1);
}

fn log(
    comptime level: std.log.Level,
    comptime scope: @TypeOf(.enum_literal),
    comptime format: []const u8,
    args: anytype,
) void {
    if (level == .err) log_err_count +|= 1;
    if (rank(level) > rank(testing.log_level)) return;
    std.debug.print("[" ++ @tagName(scope) ++ "] (" ++ @tagName(level) ++ "): " ++ format ++ "\n", args);
}

fn rank(level: std.log.Level) u8 {
    return switch (level) {
        .err => 0,
        .warn => 1,
        .info => 2,
        .debug => 3,
    };
}

/// The arguments of the command line that are left. Where std keeps them is not the same in all releases.
const Args = struct {
    rest: []const u8,

    var buffer: [64 * 1024]u8 = undefined;

    fn init() Args {
        const fd = open("/proc/self/cmdline");
        const len = readAll(fd, &buffer);
        if (len == buffer.len) fatal("the command line is longer than {d} bytes", .{buffer.len});
        var args: Args = .{ .rest = buffer[0..len] };
        _ = args.next(); // The name of the executable.
        return args;
    }

    fn next(self: *Args) ?[:0]const u8 {
        const len = std.mem.indexOfScalar(u8, self.rest, 0) orelse return null;
        defer self.rest = self.rest[len + 1 ..];
        return self.rest[0..len :0];
    }

    fn areEmptyOrHave(self: Args, name: []const u8) bool {
        var args = self;
        while (args.next()) |each| {
            if (std.mem.eql(u8, each, name)) return true;
        }
        return self.rest.len == 0;
    }
};

fn readInput(path: [:0]const u8) Input {
    const block = 64 * 1024; // A multiple of the page size on every machine.
    const fd = open(path);
    const seek_end = 2;
    const len = check(linux.syscall3(.lseek, fd, 0, seek_end), "cannot tell the size of the input file");
    _ = check(linux.syscall3(.lseek, fd, 0, 0), "cannot read the input file from its beginning");
    const accessible = std.mem.alignForward(usize, len, block);
    const bytes = map(accessible + block);
    const guarded = map(accessible + block);
    _ = check(linux.syscall3(.mprotect, @intFromPtr(guarded + accessible), block, 0), "cannot protect memory");
    if (readAll(fd, bytes[0..len]) != len) fatal("the input file became shorter while it was read", .{});
    return .{ .bytes = bytes[0..len], .guarded = (guarded + accessible - len)[0..len] };
}

fn open(path: [:0]const u8) usize {
    const at_cwd: usize = @bitCast(@as(isize, -100));
    const close_on_exec = 0o2000000;
    const fd = linux.syscall4(.openat, at_cwd, @intFromPtr(path.ptr), close_on_exec, 0);
    if (isError(fd)) fatal("cannot open '{s}': error {d}", .{ path, 0 -% fd });
    return fd;
}

fn readAll(fd: usize, buffer: []u8) usize {
    var len: usize = 0;
    while (len < buffer.len) {
        const n = check(linux.syscall3(.read, fd, @intFromPtr(buffer.ptr + len), buffer.len - len), "cannot read");
        if (n == 0) break;
        len += n;
    }
    return len;
}

fn map(len: usize) [*]u8 {
    const read_write = 1 | 2;
    const private_anonymous = 0x02 | 0x20;
    const none: usize = std.math.maxInt(usize);
    const address = linux.syscall6(.mmap, 0, len, read_write, private_anonymous, none, 0);
    return @ptrFromInt(check(address, "cannot get memory for the input"));
}

fn answer(text: []const u8) void {
    var len: usize = 0;
    while (len < text.len) {
        const rest = text[len..];
        len += check(linux.syscall3(.write, answers, @intFromPtr(rest.ptr), rest.len), "cannot write to stdout");
    }
}

fn check(result: usize, comptime what: []const u8) usize {
    if (isError(result)) fatal(what ++ ": error {d}", .{0 -% result});
    return result;
}

fn isError(result: usize) bool {
    return result > std.math.maxInt(usize) - 4095;
}

fn usage() noreturn {
    fatal("usage: TEST_NAME INPUT_FILE [--prefixes FROM], or --list [TEST_NAME...]", .{});
}

fn fatal(comptime format: []const u8, args: anytype) noreturn {
    std.debug.print("repro: " ++ format ++ "\n", args);
    std.process.exit(2);
}
