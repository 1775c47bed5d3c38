"""The mended copy of the test runner of Zig 0.16."""

import os
import re
from pathlib import Path

import pytest

from fuzzserver.coverage.executable import PCS_SECTION, Executable
from fuzzserver.fuzz.build import build_tests
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.wire.messages import ClientTag, StartFuzzing, client_bytes
from fuzzserver.zig import mended_runner
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.mended_runner import fuzz_runner_args
from fuzzserver.zig.process import PipedChild
from fuzzserver.zig.test_runner import test_runner_argv
from tests.support_zig_fake import fake_zig
from tests.support_zig_sources import write
from tests.zigs import zig_of

RUNNER = """
                    p: {
                        if (@errorReturnTrace()) |trace| {
                            std.debug.NAME(trace, stderr) catch break :p;
                        }
                    }
"""
BROKEN = RUNNER.replace("NAME", "writeStackTrace")
OWN_IO = """
                var io_instance: Io.Threaded = .init(gpa, .{
                    .environ = init.environ,
                });
                defer io_instance.deinit();
"""
OWN_IO_AND_THAT_OF_TESTS = """
                var io_instance: Io.Threaded = .init(gpa, .{
                    .environ = init.environ,
                }); testing.io_instance = .init(gpa, .{
                    .environ = init.environ,
                }); testing.environ = init.environ;
                defer io_instance.deinit();
"""
MENDED = RUNNER.replace("NAME", "writeErrorReturnTrace")

FUZZ = """
const std = @import("std");

fn next(number: u64) u64 {
    return number +% 1;
}

fn one(_: void, smith: *std.testing.Smith) anyerror!void {
    const number = smith.value(u64);
    var future = std.testing.io.async(next, .{number});
    if (future.await(std.testing.io) != next(number)) return error.Found;
}

test "fuzz one" {
    try std.testing.fuzz({}, one, .{});
}
"""


def zig_with(folder: Path, runner: str | None, version: str = "0.16.0") -> Zig:
    """A compiler whose library has that test runner."""
    if runner is not None:
        path = folder / "lib" / "compiler" / "test_runner.zig"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(runner)
    return fake_zig(folder, version={"stdout": version})


def test_one_word(tmp_path: Path) -> None:
    """The copy has the right name for what the original calls wrongly, and is else the same."""
    flag, path = fuzz_runner_args(zig_with(tmp_path / "zig", BROKEN), tmp_path / "runner")
    assert flag == "--test-runner"
    copy = Path(path)
    assert copy.read_text() == MENDED
    assert copy.is_relative_to(tmp_path / "runner")
    assert copy.name == "test_runner.zig", "frames in it are told by that name"
    assert [each.name for each in copy.parent.iterdir()] == [copy.name]


def test_stays(tmp_path: Path) -> None:
    """The copy is written once, for another compile may be reading it; another original has another."""
    zig = zig_with(tmp_path / "zig", BROKEN)
    first = fuzz_runner_args(zig, tmp_path / "runner")
    before = Path(first[1]).stat()
    assert fuzz_runner_args(zig, tmp_path / "runner") == first
    after = Path(first[1]).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    other = fuzz_runner_args(zig_with(tmp_path / "zig", BROKEN + "\n"), tmp_path / "runner")
    assert other != first and Path(other[1]).read_text() == MENDED + "\n"


def test_io_of_tests(tmp_path: Path) -> None:
    """What the original leaves undefined while it fuzzes is set as it sets its own."""
    _, path = fuzz_runner_args(zig_with(tmp_path / "zig", OWN_IO + BROKEN), tmp_path / "runner")
    assert Path(path).read_text() == OWN_IO_AND_THAT_OF_TESTS + MENDED


def test_damaged(tmp_path: Path) -> None:
    """What is in the copy's place, but is no such copy, is replaced."""
    zig = zig_with(tmp_path / "zig", BROKEN)
    _, path = fuzz_runner_args(zig, tmp_path / "runner")
    copy = Path(path)
    copy.write_text("damaged")
    assert fuzz_runner_args(zig, tmp_path / "runner")[1] == path
    assert copy.read_text() == MENDED
    copy.unlink()
    copy.symlink_to("nowhere")
    assert fuzz_runner_args(zig, tmp_path / "runner")[1] == path
    assert copy.read_text() == MENDED
    copy.unlink()
    os.mkfifo(copy)
    assert fuzz_runner_args(zig, tmp_path / "runner")[1] == path
    assert copy.read_text() == MENDED


def test_folder_in_the_place_of_the_copy(tmp_path: Path, caplog) -> None:
    """A folder is not replaced: it is told that there is no copy."""
    zig = zig_with(tmp_path / "zig", BROKEN)
    _, path = fuzz_runner_args(zig, tmp_path / "runner")
    Path(path).unlink()
    Path(path).mkdir()
    assert fuzz_runner_args(zig, tmp_path / "runner") == ["-fno-error-tracing"]
    assert "Is a directory" in caplog.text
    assert list(Path(path).parent.iterdir()) == [Path(path)]


@pytest.mark.parametrize("version", ["0.14.1", "0.15.2", "0.17.0", "0.18.0"])
def test_other_releases(tmp_path: Path, version: str) -> None:
    """Other releases are not touched, whatever is in their runner."""
    assert fuzz_runner_args(zig_with(tmp_path / "zig", BROKEN, version), tmp_path / "runner") == []
    assert not (tmp_path / "runner").exists()


def test_mended_by_somebody_else(tmp_path: Path, caplog) -> None:
    """A later 0.16, or a distribution's, may be right already."""
    assert fuzz_runner_args(zig_with(tmp_path / "zig", MENDED), tmp_path / "runner") == []
    assert caplog.text == ""


def test_unknown_text(tmp_path: Path, caplog) -> None:
    """What is not as we know it is not guessed at: there is a way without error traces, which is told."""
    strange = BROKEN.replace("(trace, ", "(trace.*, ")
    zig = zig_with(tmp_path / "zig", strange)
    assert fuzz_runner_args(zig, tmp_path / "runner") == ["-fno-error-tracing"]
    assert (
        f"findings will have no error traces: Zig's '{zig.lib_dir}/compiler/test_runner.zig'" in caplog.text
    )


def test_no_original(tmp_path: Path, caplog) -> None:
    """The same holds where it cannot be read."""
    zig = zig_with(tmp_path / "zig", None)
    assert fuzz_runner_args(zig, tmp_path / "runner") == ["-fno-error-tracing"]
    assert "No such file" in caplog.text


def test_no_place_for_a_copy(tmp_path: Path, caplog) -> None:
    """The same holds where the copy cannot be written."""
    (tmp_path / "runner").touch()
    zig = zig_with(tmp_path / "zig", BROKEN)
    assert fuzz_runner_args(zig, tmp_path / "runner") == ["-fno-error-tracing"]
    assert f"'{zig.lib_dir}/compiler/test_runner.zig'" in caplog.text


@pytest.mark.all_zigs
@pytest.mark.parametrize("is_known", [True, False])
def test_compiles(work: Path, zig_cache: Path, monkeypatch, is_known: bool) -> None:
    """With either way, the real compiler makes an instrumented Debug build, which it does not without. With a
    mended copy, its tests may use ``std.testing.io``."""
    if not is_known:
        monkeypatch.setattr(mended_runner, "_CALL", re.compile(b"(?!)()"))
    command = TestCommand.of_root(write(work / "mended-runner", main=FUZZ))
    built = build_tests(ZigCompileClient(zig_of("0.16.0"), zig_cache), command, "fuzz")
    with Executable(built.path) as executable:
        assert executable.section_size(PCS_SECTION) > 0
    limit = StartFuzzing(1, 100, ("main.test.fuzz one",))
    argv = test_runner_argv(built.path, command.cache_root, 1)
    (command.cache_root / "tmp").mkdir(exist_ok=True)
    with PipedChild(argv) as child:
        child.send(client_bytes(ClientTag.START_FUZZING, limit.serialize()))
        said = b"".join(data for name, data in child.output() if name == "stderr")
        assert (child.wait() == 0) == is_known, said
    (runner,) = {each.sub_path for each in built.inputs if each.sub_path.endswith("test_runner.zig")}
    assert (runner == mended_runner.RUNNER) != is_known
