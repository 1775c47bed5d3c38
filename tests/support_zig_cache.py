"""Zig caches put together from real executables and coverage files."""

import os
import shutil
from pathlib import Path

from fuzzserver.zig.compile_client import ZigCompileClient
from tests.projects import FuzzedPair, fuzz_for_a_moment, made_once
from tests.support_zig_sources import write

ONE_FUZZ = """
const std = @import("std");

fn fuzzParse(_: void, input: []const u8) anyerror!void {
    for (input) |byte| switch (byte) {
        'a'...'z' => {},
        else => return,
    };
}

test "fuzz parse" {
    try std.testing.fuzz({}, fuzzParse, .{});
}
"""

LONG_AGO = 1_700_000_000.0
"""When the files of a cache were written, unless a test says otherwise; seconds since 1970."""


def fuzzed_pie(client: ZigCompileClient, all_work: Path) -> FuzzedPair:
    """A position-independent executable and the coverage file of one run of its only fuzz test.

    With Zig before 0.16, each run of it writes a coverage file of its own.
    """

    def make() -> FuzzedPair:
        shutil.rmtree(all_work / "pie" / ".zig-cache" / "v", ignore_errors=True)
        return fuzz_for_a_moment(client, write(all_work / "pie", pie=ONE_FUZZ), "-fPIE")

    return made_once(all_work / "pie.pickle", make)


def set_time(path: Path, after: float) -> None:
    """Let ``path`` be written so many seconds after ``LONG_AGO``."""
    os.utime(path, (LONG_AGO + after, LONG_AGO + after))


def add_executable(cache: Path, executable: Path, folder: str = "a" * 32, after: float = 0) -> Path:
    """Copy an executable to ``o/<folder>/``."""
    target = cache / "o" / folder / executable.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(executable, target)
    set_time(target, after)
    return target


def add_coverage_file(cache: Path, coverage_file: Path, after: float = 0) -> Path:
    """Copy a coverage file to ``v/``."""
    target = cache / "v" / coverage_file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(coverage_file, target)
    set_time(target, after)
    return target


def add_corpus(cache: Path, folder: str) -> None:
    """Make the folder of a corpus, as a fuzzer does when it starts on a test."""
    (cache / "f" / folder).mkdir(parents=True)


def add_pair(cache: Path, pair: FuzzedPair, folder: str = "a" * 32, after: float = 0) -> tuple[Path, Path]:
    """Copy both; returns executable and coverage file."""
    executable = add_executable(cache, pair.executable, folder, after)
    return executable, add_coverage_file(cache, pair.coverage_file, after)
