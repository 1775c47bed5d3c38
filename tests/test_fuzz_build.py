"""From a test command to its test executables."""

import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzserver import paths
from fuzzserver.coverage.executable import PCS_SECTION, Executable
from fuzzserver.errors import CompileErrors, InputError
from fuzzserver.fuzz import heartbeat
from fuzzserver.fuzz.build import BuildMode, build_tests
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.step import SourcePath
from fuzzserver.zig.compile_client import ZigCompileClient
from tests.support_zig_fake import compile_calls, fake_zig
from tests.support_zig_sources import BROKEN, NO_FUZZ, write

pytestmark = pytest.mark.usefixtures("nothing_left")

PROJECT = Path("/")
COMMAND = TestCommand(
    name="src/main.zig (unit)",
    args=("-fno-llvm", "-lc", "-OReleaseSafe", "-Mroot=src/main.zig"),
    project=PROJECT,
    cache_root=Path("/project cache"),
    global_cache_dir=Path("/global cache"),
)


def test_executables(client: ZigCompileClient, project_root: Path) -> None:
    """Only the one in fuzz mode is instrumented; both name the sources that they were compiled from."""
    command = TestCommand.of_root(project_root)
    modes: tuple[BuildMode, ...] = ("normal", "fuzz")
    for mode in modes:
        built = build_tests(client, command, mode)
        with Executable(built.path) as executable:
            assert executable.has_section(PCS_SECTION) == (mode == "fuzz")
        inputs = {str(path) for path in built.inputs}
        assert {str(project_root), str(project_root.parent / "parser.zig")} <= inputs


def test_root_without_a_project(client: ZigCompileClient, tmp_path) -> None:
    """A single file is compiled with a cache beside it."""
    built = build_tests(client, TestCommand.of_root(write(tmp_path, lonely=NO_FUZZ)), "normal")
    assert built.path.is_relative_to(tmp_path / ".zig-cache" / "o")
    assert built.path.stat().st_mode & 0o100


def test_compile_errors(client: ZigCompileClient, tmp_path) -> None:
    """Errors in the source are the compiler's own, with paths relative to the project."""
    (tmp_path / "build.zig").touch()
    root = write(tmp_path / "src", main=BROKEN + "test { main(); }")
    with pytest.raises(CompileErrors, match=r"^src/main\.zig:4:5: error: "):
        build_tests(client, TestCommand.of_root(root), "normal")


def test_inputs_in_a_global_cache(client: ZigCompileClient, zig_cache: Path, tmp_path) -> None:
    """Packages lie in the global cache that the command names, whatever our own is."""
    root = write(zig_cache / "p" / "package", main=NO_FUZZ)
    command = TestCommand("main.zig", (f"-Mroot={root}",), tmp_path, tmp_path / ".zig-cache", zig_cache)
    built = build_tests(ZigCompileClient(client.zig, tmp_path / "ours"), command, "normal")
    assert SourcePath(str(zig_cache), "p/package/main.zig") in built.inputs


CACHES = ["--cache-dir", "/project cache", "--global-cache-dir", "/global cache"]


@pytest.mark.parametrize(
    ("mode", "args"),
    [
        ("normal", [*COMMAND.args, *CACHES, "--name", "test"]),
        ("fuzz", ["-ffuzz", *COMMAND.args, "-fllvm", *CACHES, "--name", "test"]),
        (
            "repro",
            [*COMMAND.args, "-fllvm", "--test-runner", str(paths.repro_runner()), *CACHES, "--name", "repro"],
        ),
    ],
)
def test_command(tmp_path, mode: BuildMode, args: list[str]) -> None:
    """Normally the command line is that of Zig's build runner, in the project's folder.

    What is fuzzed, or run again on a finding, is made with LLVM, whatever the project says: the last flag
    counts. That it is fuzzed holds for all modules, for it is said before them.
    """
    zig = fake_zig(tmp_path / "bin")
    built = build_tests(ZigCompileClient(zig, Path("/ours")), COMMAND, mode)
    (call,) = compile_calls(zig)
    assert call["argv"] == ["test", *args, "--listen=-"]
    assert call["cwd"] == str(PROJECT)
    assert built.path.name == args[-1]
    assert built.path.is_relative_to("/project cache/o")


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (("-Mroot=a.zig",), "although its compiler was told -ffuzz and -fllvm: try another version of Zig"),
        (
            ("-fno-fuzz", "-Mroot=a.zig"),
            "since build.zig says 'fuzz = false' for their root module: remove that",
        ),
    ],
)
def test_nothing_is_instrumented(tmp_path, flags: tuple[str, ...], hint: str) -> None:
    """What the fuzzer could see nothing in is not fuzzed, and one line says why; other modes do not care."""
    client = ZigCompileClient(fake_zig(tmp_path / "bin", compile="blind"), tmp_path)
    command = TestCommand("a.zig", flags, tmp_path, tmp_path / ".zig-cache")
    executable = build_tests(client, command, "normal").path
    with pytest.raises(InputError) as caught:
        build_tests(client, command, "fuzz")
    assert str(caught.value) == (
        f"the tests of a.zig cannot be fuzzed: no code in '{executable}' is instrumented, {hint}"
    )


def test_our_global_cache(tmp_path) -> None:
    """A command that names no global cache gets that of the compile client."""
    zig = fake_zig(tmp_path / "bin")
    build_tests(ZigCompileClient(zig, Path("/ours")), replace(COMMAND, global_cache_dir=None), "normal")
    (call,) = compile_calls(zig)
    argv = call["argv"]
    assert argv[argv.index("--global-cache-dir") + 1] == "/ours"


def test_log(tmp_path, caplog) -> None:
    """Builds that run at the same time can be told apart in the log."""
    client = ZigCompileClient(fake_zig(tmp_path / "bin"), Path("/ours"))
    modes: tuple[BuildMode, ...] = ("normal", "fuzz", "repro")
    threads = [threading.Thread(target=build_tests, args=(client, COMMAND, mode)) for mode in modes]
    with caplog.at_level(logging.INFO, "fuzzserver"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    client.stop()
    lines = [record.getMessage() for record in caplog.records]
    for suffix in ("", " in fuzz mode", " for reproduction"):
        assert f"compiling the tests of src/main.zig (unit){suffix}" in lines
        assert any(
            line.startswith(f"compiled the tests of src/main.zig (unit){suffix} in 0.") for line in lines
        )


def test_heartbeat(tmp_path, caplog, monkeypatch) -> None:
    """A compile that takes long says from time to time that it goes on."""
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.001)
    with caplog.at_level(logging.INFO, "fuzzserver"):
        client = ZigCompileClient(fake_zig(tmp_path / "bin"), tmp_path)
        build_tests(client, COMMAND, "fuzz")
    assert "still compiling the tests of src/main.zig (unit) in fuzz mode after 0 s" in caplog.text
