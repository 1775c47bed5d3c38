"""Points, files and their names with each release of Zig: tables, debug info and list of inputs agree."""

import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzserver.coverage.coverage_map import CoverageMap, prepare_tables
from fuzzserver.coverage.debug_sources import DebugSources
from fuzzserver.coverage.executable import Executable
from fuzzserver.fuzz.build import TestExecutable, build_tests
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.step import FuzzRunStep
from fuzzserver.web.sources_tar import write_sources_tar
from fuzzserver.zig.compile_client import ZigCompileClient
from tests.projects import locked
from tests.support_native import build_oracle, explain, hand_made_step, write_files
from tests.zigs import every_zig, zig_of

FILES = {
    "project/src/main.zig": """
        const std = @import("std");
        const beside = @import("beside");
        const deep = @import("deep/parser.zig");

        const Input = if (@hasDecl(std.testing, "Smith")) *std.testing.Smith else []const u8;

        fn fuzzParse(_: void, input: Input) anyerror!void {
            var buffer: [64]u8 = undefined;
            const bytes = if (Input == []const u8) input else buffer[0..input.slice(&buffer)];
            std.mem.doNotOptimizeAway(deep.digits(bytes) + beside.spaces(bytes));
        }

        test "fuzz parse" {
            try std.testing.fuzz({}, fuzzParse, .{});
        }
    """,
    "project/src/deep/parser.zig": """
        pub fn digits(bytes: []const u8) usize {
            var count: usize = 0;
            for (bytes) |byte| if (byte >= '0' and byte <= '9') {
                count += 1;
            };
            return count;
        }
    """,
    "package/lib.zig": """
        pub fn spaces(bytes: []const u8) usize {
            var count: usize = 0;
            for (bytes) |byte| if (byte == ' ') {
                count += 1;
            };
            return count;
        }
    """,
}
"""A project with a package elsewhere, in the language that all releases share."""

every_mode = pytest.mark.parametrize(
    "mode", ["Debug", pytest.param("ReleaseSafe", marks=pytest.mark.all_zigs)]
)
"""Only release builds have placeholders, and points that come twice."""


def built(version: str, mode: str, folder: Path, client: ZigCompileClient) -> TestExecutable:
    """The fuzz tests of ``FILES``, told as ``zig build`` does: by relative names, but for packages."""
    with locked(folder.with_suffix(".lock")):
        if not (folder / "package" / "lib.zig").exists():
            write_files(folder, FILES)
    project = folder / "project"
    args = (f"-O{mode}", "--dep", "beside", "-Mroot=src/main.zig", f"-Mbeside={folder}/package/lib.zig")
    # Since 0.17, "zig build" says what the names are relative to.
    root = ("--build-root", ".") if version.startswith("0.17.") else ()
    command = TestCommand("src/main.zig", (*args, *root), project, project / ".zig-cache")
    return build_tests(client, command, "fuzz")


def tables(step: FuzzRunStep) -> CoverageMap:
    """The map of a step, its coverage file closed."""
    coverage_map = prepare_tables(step, 0, 0)
    coverage_map.close()
    return coverage_map


@pytest.mark.timeout(600)  # On a busy machine, the first release build of a version takes minutes.
@every_zig
@every_mode
def test_tables_are_those_of_the_release(version, mode, all_work, zig_cache, tmp_path) -> None:
    """Byte for byte what its own standard library makes of what its own compiler wrote."""
    client = ZigCompileClient(zig_of(version), zig_cache)
    executable = built(version, mode, all_work / f"sources-{version}", client)
    with Executable(executable.path) as opened:
        pcs = opened.pc_addrs()
    step = hand_made_step(tmp_path, executable.path, pcs)
    coverage_map = tables(step)
    assert len(coverage_map.source_locations) == 3 * len(pcs)
    explain(coverage_map.source_index[28:], build_oracle(client)(executable.path, step.coverage_file))


@every_zig
def test_files_have_one_name(version, all_work, zig_cache, tmp_path) -> None:
    """What the tables name is offered under that name, by the compiler's list and by the debug info."""
    folder = all_work / f"sources-{version}"
    client = ZigCompileClient(zig_of(version), zig_cache)
    executable = built(version, "Debug", folder, client)
    with Executable(executable.path) as opened:
        step = hand_made_step(tmp_path, executable.path, opened.pc_addrs())
    coverage = tables(step).coverage
    named = {coverage.file_path(file) for file in range(coverage.files_len)}
    # A package that is not in the project is named by the way from there.
    assert {str(folder / name) for name in FILES} <= {os.path.normpath(name) for name in named}
    assert all(name.startswith("/") for name in named)
    for inputs in (None, executable.inputs):
        archive = io.BytesIO()
        write_sources_tar(DebugSources().of(replace(step, inputs=inputs)), archive.write)
        archive.seek(0)
        assert named <= set(tarfile.open(fileobj=archive).getnames())
