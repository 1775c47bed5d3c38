"""``zig build`` of each release, on a project that has what commands are hard to read for."""

import zlib
from pathlib import Path

import pytest

from fuzzserver.coverage.executable import PCS_SECTION, Executable
from fuzzserver.fuzz.build import build_tests
from fuzzserver.fuzz.build_zig import test_commands
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.process import ChildGroup
from tests.support_build_zig import replace
from tests.zigs import VERSIONS, zig_of

BUILD = """
const std = @import("std");

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{});
    const optimize = b.standardOptimizeOption(.{});
    const step = b.step("test", "run the tests");
    const words = b.createModule(.{
        .root_source_file = b.path("src/words.zig"),
        .target = target,
        .optimize = .ReleaseFast,
    });
    for ([_][]const u8{ "src/odd one.zig", "src/many.zig" }, 0..) |root, i| {
        const module = b.createModule(.{
            .root_source_file = b.path(root),
            .target = target,
            .optimize = optimize,
        });
        module.addImport("my words", words);
        module.addImport("dep", b.dependency("a dep", .{}).module("dep"));
        if (i == 0) module.addCSourceFile(.{
            .file = b.path("src/sc an.c"),
            .flags = &.{ "-DSTEP=1 + 0", "-fno-sanitize=fuzzer-no-link" },
        });
        if (i == 1) for (0..1000) |number|
            module.addCMacro(b.fmt("A_LONG_LIST_OF_MACROS_{d}", .{number}), "\\"a b\\"");
        const tests = b.addTest(.{
            .root_module = module,
            .use_llvm = if (i == 0) false else null,
            .filters = &.{"the test"},
        });
        step.dependOn(&b.addRunArtifact(tests).step);
    }
}
"""
DEPENDENCY_BUILD = """
pub fn build(b: *@import("std").Build) void {
    _ = b.addModule("dep", .{ .root_source_file = b.path("the dep.zig") });
}
"""
MANY = """
const std = @import("std");
const words = @import("my words");
const dep = @import("dep");

const Input = if (@hasDecl(std.testing, "Smith")) *std.testing.Smith else []const u8;

fn one(_: void, input: Input) anyerror!void {
    const byte = if (Input != []const u8) input.value(u8) else if (input.len > 0) input[0] else 0;
    if (words.isWord(byte) and dep.three(byte) == 3) return error.Found;
}

test "the test" {
    try std.testing.fuzz({}, one, .{});
}
"""
ODD = (
    MANY
    + """
extern fn scan(bytes: [*]const u8, len: c_uint) c_uint;

test "the test in C" {
    try std.testing.expectEqual(2, scan("a1b2", 4));
}
"""
)
SCAN = """
unsigned scan(const unsigned char *bytes, unsigned len) {
    unsigned digits = 0;
    for (unsigned i = 0; i < len; i += STEP)
        if (bytes[i] >= '0' && bytes[i] <= '9')
            digits++;
    return digits;
}
"""


def manifest(name: str, dependencies: str = "") -> str:
    """A ``build.zig.zon``. The fingerprint begins with what the name gives."""
    fingerprint = zlib.crc32(name.encode()) << 32 | 0x12345678
    return (
        f'.{{ .name = .{name}, .version = "0.0.0", .fingerprint = 0x{fingerprint:x}, '
        f'.paths = .{{""}}, .dependencies = .{{ {dependencies} }} }}\n'
    )


FILES = {
    "build.zig": BUILD,
    "build.zig.zon": manifest("odd", '.@"a dep" = .{ .path = "a dep" }'),
    "a dep/build.zig": DEPENDENCY_BUILD,
    "a dep/build.zig.zon": manifest("dep"),
    "a dep/the dep.zig": "pub fn three(x: u8) u8 {\n    return @min(x, 3);\n}\n",
    "src/words.zig": "pub fn isWord(byte: u8) bool {\n    return byte != ' ';\n}\n",
    "src/many.zig": MANY,
    "src/odd one.zig": ODD,
    "src/sc an.c": SCAN,
}


@pytest.mark.parametrize(
    "version",
    [
        pytest.param(version, marks=() if version == VERSIONS[-1] else pytest.mark.all_zigs)
        for version in VERSIONS
    ],
)
def test_odd_project(version: str, work: Path, zig_cache: Path) -> None:
    """Both commands are read right: Zig's own build is ours; and what shuns LLVM is instrumented."""
    project = work / "build releases" / version
    for name, text in FILES.items():
        replace(project / name, text)
    zig = zig_of(version)
    with ChildGroup() as children:
        many, odd = test_commands(zig, project, "test", [], children)
    assert (many.name, odd.name) == ("src/many.zig", "src/odd one.zig")
    assert '-DA_LONG_LIST_OF_MACROS_999="a b"' in many.args
    assert {"-DSTEP=1 + 0", "-fno-llvm", "the test"} <= set(odd.args)
    assert [path.name for path in odd.roots] == ["odd one.zig", "words.zig", "the dep.zig"]

    client = ZigCompileClient(zig, zig_cache)
    before = set((project / ".zig-cache" / "o").iterdir())
    for command in (many, odd):
        assert build_tests(client, command, "normal").path.parent in before
    built = build_tests(client, odd, "fuzz")
    with Executable(built.path) as executable:
        assert executable.section_size(PCS_SECTION) > 0
    sources = {str(path) for path in built.inputs}
    assert {f"{project}/{name}" for name in ("src/odd one.zig", "a dep/the dep.zig")} <= sources
