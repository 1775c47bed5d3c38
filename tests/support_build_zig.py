"""A project with a build.zig that needs it: modules, options, C, and more than one executable."""

import textwrap
from pathlib import Path

FILES = {
    "build.zig": """
        const std = @import("std");

        pub fn build(b: *std.Build) void {
            const target = b.standardTargetOptions(.{});
            const optimize = b.standardOptimizeOption(.{});
            const options = b.addOptions();
            options.addOption(u8, "separator", b.option(u8, "separator", "splits words") orelse ' ');
            const words = b.createModule(.{
                .root_source_file = b.path("src/words.zig"),
                .target = target,
                .optimize = optimize,
            });
            words.addOptions("options", options);
            const step = b.step("test", "run the tests");
            for ([_][]const u8{ "src/main.zig", "src/tool.zig" }) |root| {
                const module = b.createModule(.{
                    .root_source_file = b.path(root),
                    .target = target,
                    .optimize = optimize,
                });
                module.addImport("words", words);
                if (std.mem.eql(u8, root, "src/tool.zig")) module.addCSourceFile(.{
                    .file = b.path("src/scan.c"),
                    // The fuzzer counts what is instrumented in C, too, but knows no addresses of it.
                    .flags = &.{ "-DSTEP=1", "-fno-sanitize=fuzzer-no-link" },
                });
                step.dependOn(&b.addRunArtifact(b.addTest(.{ .root_module = module })).step);
            }
            _ = b.step("nothing", "runs no tests");
        }
        """,
    "src/main.zig": """
        const std = @import("std");
        const words = @import("words");

        fn fuzzCount(_: void, input: []const u8) anyerror!void {
            std.mem.doNotOptimizeAway(words.count(input));
            words.rest();
        }

        fn fuzzLongest(_: void, input: []const u8) anyerror!void {
            std.mem.doNotOptimizeAway(words.longest(input));
            words.rest();
        }

        test "fuzz count" {
            try std.testing.fuzz({}, fuzzCount, .{});
        }

        test "fuzz longest" {
            try std.testing.fuzz({}, fuzzLongest, .{});
        }

        test "separator" {
            try std.testing.expectEqual(2, words.count("two words"));
        }
        """,
    "src/tool.zig": """
        const std = @import("std");
        const words = @import("words");

        extern fn scan(bytes: [*]const u8, len: c_uint) c_uint;

        fn fuzzScan(_: void, input: []const u8) anyerror!void {
            std.mem.doNotOptimizeAway(words.count(input) +% scan(input.ptr, @intCast(input.len)));
            words.rest();
        }

        test "fuzz scan" {
            try std.testing.fuzz({}, fuzzScan, .{});
        }

        test "digits" {
            try std.testing.expectEqual(2, scan("a1b2", 4));
        }
        """,
    "src/words.zig": """
        const options = @import("options");

        pub fn count(input: []const u8) u32 {
            var words: u32 = 0;
            var inside = false;
            for (input) |byte| {
                if (byte == options.separator) {
                    inside = false;
                } else if (!inside) {
                    inside = true;
                    words += 1;
                }
            }
            return words;
        }

        pub fn longest(input: []const u8) usize {
            var best: usize = 0;
            var length: usize = 0;
            for (input) |byte| {
                length = if (byte == options.separator) 0 else length + 1;
                if (length > best) best = length;
            }
            return best;
        }

        /// Fuzzers that only have to be there leave the machine to others.
        pub fn rest() void {
            @import("std").time.sleep(1_000_000);
        }
        """,
    "src/scan.c": """
        unsigned scan(const unsigned char *bytes, unsigned len) {
            unsigned digits = 0;
            for (unsigned i = 0; i < len; i += STEP)
                if (bytes[i] >= '0' && bytes[i] <= '9')
                    digits++;
            return digits;
        }
        """,
}


def write_build_project(folder: Path) -> Path:
    """Two test executables: ``src/main.zig`` with 2 fuzz tests, and ``src/tool.zig`` with 1 and C.

    Returns ``folder``. Files that are already as they should be keep their times.
    """
    for name, text in FILES.items():
        replace(folder / name, textwrap.dedent(text).lstrip())
    return folder


def replace(path: Path, text: str) -> None:
    """Write a file, unless it has this text already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def edit(path: Path, old: str, new: str) -> None:
    """Replace the one occurrence of ``old`` in a file."""
    text = path.read_text()
    assert text.count(old) == 1, f"{path} has '{old}' {text.count(old)} times"
    path.write_text(text.replace(old, new))
