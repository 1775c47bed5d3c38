"""Real Zig projects for the tests, built once and kept in pytest's cache folder."""

import dataclasses
import fcntl
import os
import pickle
import re
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection

from fuzzserver.coverage.queue import CoverageMsg, EntryPointMsg, Msg
from fuzzserver.fuzz.build import build_tests
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.fuzz.turns import Turn, Turns
from fuzzserver.fuzz.worker import FuzzTest, FuzzWorker, WorkerLimits
from fuzzserver.step import FuzzRunStep
from fuzzserver.wire.abi import SeenPcsHeader, coverage_file_name
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.process import ChildGroup
from fuzzserver.zig.test_runner import find_fuzz_tests, test_runner_argv
from tests.support_web import viewer, watch

BUILD_ZIG = """
const std = @import("std");
pub fn build(b: *std.Build) void {
    const tests = b.addTest(.{
        .root_source_file = b.path("src/main.zig"),
        .target = b.standardTargetOptions(.{}),
        .optimize = b.standardOptimizeOption(.{}),
    });
    b.step("test", "run the tests").dependOn(&b.addRunArtifact(tests).step);
}
"""

MAIN_ZIG = """
const std = @import("std");
const parser = @import("parser.zig");

fn fuzzSum(_: void, input: []const u8) anyerror!void {
    std.mem.doNotOptimizeAway(parser.sum(input));
    restABit();
}

fn fuzzDepth(_: void, input: []const u8) anyerror!void {
    restABit();
    std.mem.doNotOptimizeAway(parser.depth(input) catch return);
}

/// Fuzzers that only have to be there leave the machine to others.
fn restABit() void {
    std.time.sleep(1_000_000);
}

test "fuzz sum" {
    try std.testing.fuzz({}, fuzzSum, .{});
}

test "fuzz depth" {
    try std.testing.fuzz({}, fuzzDepth, .{});
}

test "plain" {
    try std.testing.expectEqual(3, parser.sum("12"));
}
"""

PARSER_ZIG = """
pub fn sum(input: []const u8) u32 {
    var total: u32 = 0;
    for (input) |byte| {
        switch (byte) {
            '0'...'9' => total +%= byte - '0',
            'a'...'f' => total +%= byte - 'a' + 10,
            '-' => total -%= 1,
            else => {},
        }
    }
    return total;
}

pub fn depth(input: []const u8) error{Unbalanced}!u32 {
    var open: u32 = 0;
    var deepest: u32 = 0;
    for (input) |byte| switch (byte) {
        '(' => {
            open += 1;
            deepest = @max(deepest, open);
        },
        ')' => {
            if (open == 0) return error.Unbalanced;
            open -= 1;
        },
        else => {},
    };
    return if (open == 0) deepest else error.Unbalanced;
}
"""


def write_project(folder: Path) -> Path:
    """A project with two fuzz tests; returns its root source file."""
    for name, text in (("build.zig", BUILD_ZIG), ("src/main.zig", MAIN_ZIG), ("src/parser.zig", PARSER_ZIG)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(textwrap.dedent(text).lstrip())
    return folder / "src" / "main.zig"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes of this run out that want the same."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclasses.dataclass(frozen=True)
class FuzzedPair:
    """An executable that was fuzzed for a moment, and its coverage file, now at rest."""

    executable: Path
    coverage_file: Path
    coverage_id: int
    entry_points: tuple[int, ...]
    """Addresses of the fuzz tests."""
    step: FuzzRunStep
    normal_executable: Path
    """The same tests without instrumentation, as a Debug build."""


def made_once(path: Path, make: Callable[[], FuzzedPair]) -> FuzzedPair:
    """What ``make`` gives: called in one process of this run, for all of them. ``path`` keeps it."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    with locked(path.with_suffix(".lock")):
        if path.exists():
            made_in, pair = pickle.loads(path.read_bytes())
            if made_in == run:
                return pair
        pair = make()
        path.write_bytes(pickle.dumps((run, pair)))
        return pair


def fuzz_for_a_moment(client: ZigCompileClient, root: Path, *flags: str) -> FuzzedPair:
    """Build the tests of ``root`` with extra flags and files, and fuzz each until it has run 100 times.

    The one without instrumentation, which only tells which tests there are, is always a Debug build.
    """
    command = TestCommand.of_root(root)
    files = (flag for flag in flags if not flag.startswith("-"))
    normal = build_tests(client, dataclasses.replace(command, args=(*files, *command.args)), "normal")
    command = dataclasses.replace(command, args=(*flags, *command.args))
    instrumented = build_tests(client, command, "fuzz")
    argv = test_runner_argv(normal.path, command.cache_root, 1)
    with ChildGroup() as children:
        found = find_fuzz_tests(children, argv, command.project)
    step = FuzzRunStep(root.name, instrumented.path, command.cache_root, instrumented.inputs)
    messages: list[Msg] = []
    with locked(command.cache_root / "fuzzing.lock"):
        # Each restart of this fuzzer makes the inputs that it finds there half as large again.
        shutil.rmtree(command.cache_root / "f", ignore_errors=True)
        for index in found.fuzz_tests:
            _fuzz_one(FuzzTest(step, index, found.names[index]), command, messages)
    (coverage_id,) = {msg.coverage_id for msg in messages if isinstance(msg, CoverageMsg)}
    return FuzzedPair(
        executable=instrumented.path,
        coverage_file=command.cache_root / "v" / coverage_file_name(coverage_id),
        coverage_id=coverage_id,
        entry_points=tuple(msg.addr for msg in messages if isinstance(msg, EntryPointMsg)),
        step=step,
        normal_executable=normal.path,
    )


def _fuzz_one(test: FuzzTest, root: TestCommand, messages: list[Msg]) -> None:
    """Run one worker until its coverage file has counted 100 more runs."""
    start: list[int] = []
    turn = Turn(Turns(1))
    turn.take()

    def post(msg: Msg) -> None:
        messages.append(msg)
        if isinstance(msg, CoverageMsg):
            start.append(n_runs(test.step.coverage_file_path(msg.coverage_id)))

    def look() -> None:
        if start and worker.total_runs >= start[0] + 100:
            worker.end()

    with ChildGroup() as children:
        worker = FuzzWorker(
            children,
            test,
            root.cache_root,
            root.project,
            1,
            WorkerLimits(),
            turn,
            post,
            set_state=lambda _: None,
            look=look,
            said=lambda _: None,
        )
        end = worker.run()
    assert end.why == "asked", end


def n_runs(coverage_file: Path) -> int:
    """Runs that a coverage file counts."""
    with coverage_file.open("rb") as file:
        return SeenPcsHeader.parse(file.read(SeenPcsHeader.LAYOUT.size)).n_runs


@contextmanager
def zig_web_server(
    zig: Path, project: Path, cache_dir: Path, *flags: str, lib_dir: Path | None = None
) -> Iterator[tuple[int, int]]:
    """Zig's own server on ``project``: ``zig build test --fuzz``. Gives (port, process id).

    It must be started again where it trips over itself, which it does on a busy machine: two fuzzers
    that create the coverage file at once make one of them give up; and its coverage thread does not
    look at its queue before it waits for the first time, so what the fuzzers said by then is missed.
    """
    argv = [str(zig), "build", "test", "--fuzz", "--port", "0", *flags, "--global-cache-dir", str(cache_dir)]
    if lib_dir is not None:
        argv += ["--zig-lib-dir", str(lib_dir)]
    for patience in (8, 15, 15, 30, 60, 120):
        with _running(argv, project) as (port, pid):
            if _knows_both_tests(port, patience):
                yield port, pid
                return
    raise AssertionError("Zig's server never learned of its fuzzers")


def zig_viewer(port: int) -> AbstractContextManager[ClientConnection]:
    """A WebSocket client of Zig's own server, which answers neither to pings nor to the word that it ends."""
    return viewer(port, ping_interval=None, close_timeout=0.1)


@contextmanager
def _running(argv: list[str], project: Path) -> Iterator[tuple[int, int]]:
    log = project / "zig-server.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(argv, cwd=project, stderr=stderr, start_new_session=True)
    try:
        deadline = time.monotonic() + 600
        while (found := re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text(errors="replace"))) is None:
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, "Zig's server did not start"
            time.sleep(0.1)
        yield int(found[1]), process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _knows_both_tests(port: int, patience: float) -> bool:
    """Whether a WebSocket client learns of both entry points within so many seconds."""
    deadline = time.monotonic() + patience
    try:
        with zig_viewer(port) as connection:
            while (left := deadline - time.monotonic()) > 0:
                if len(watch(connection, "entry_points", timeout=left).entry_points) == 4 + 2 * 4:
                    return True
    except (OSError, WebSocketException):
        pass
    return False
