"""The mended copy of the test runner of Zig 0.16."""

import re
from pathlib import Path

import pytest

from fuzzserver.coverage.executable import PCS_SECTION, Executable
from fuzzserver.fuzz.build import build_tests
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.zig import mended_runner
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.mended_runner import fuzz_runner_args
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
MENDED = RUNNER.replace("NAME", "writeErrorReturnTrace")

FUZZ = """
const std = @import("std");

fn one(_: void, smith: *std.testing.Smith) anyerror!void {
    if (smith.value(u8) == 7) return error.Found;
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
    """With either way, the real compiler makes an instrumented Debug build, which it does not without."""
    if not is_known:
        monkeypatch.setattr(mended_runner, "_CALL", re.compile(b"(?!)()"))
    command = TestCommand.of_root(write(work / "mended-runner", main=FUZZ))
    built = build_tests(ZigCompileClient(zig_of("0.16.0"), zig_cache), command, "fuzz")
    with Executable(built.path) as executable:
        assert executable.section_size(PCS_SECTION) > 0
    (runner,) = {each.sub_path for each in built.inputs if each.sub_path.endswith("test_runner.zig")}
    assert (runner == mended_runner.RUNNER) != is_known
