"""From a test command to its test executables."""

import logging
import re
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

QUICKLY = ("-fno-llvm", "-fno-lld")
"""Flags for a build of which it does not matter how it is made."""


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
    command = TestCommand.of_root(write(tmp_path, lonely=NO_FUZZ))
    built = build_tests(client, replace(command, args=(*QUICKLY, *command.args)), "normal")
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
    args = (*QUICKLY, f"-Mroot={root}")
    command = TestCommand("main.zig", args, tmp_path, tmp_path / ".zig-cache", zig_cache)
    built = build_tests(ZigCompileClient(client.zig, tmp_path / "ours"), command, "normal")
    assert SourcePath(str(zig_cache), "p/package/main.zig") in built.inputs


@pytest.mark.parametrize(
    ("mode", "args", "name"),
    [
        ("normal", COMMAND.args, "test"),
        ("fuzz", ("-ffuzz", *COMMAND.args, "-fllvm"), "test"),
        ("repro", (*COMMAND.args, "-fllvm", "--test-runner", str(paths.repro_runner())), "repro"),
    ],
)
def test_command(tmp_path, mode: BuildMode, args: tuple[str, ...], name: str) -> None:
    """Normally the command line is that of Zig's build runner, in the project's folder.

    What is fuzzed, or run again on a finding, is made with LLVM, whatever the project says: the last flag
    counts. That it is fuzzed holds for all modules, for it is said before them.
    """
    zig = fake_zig(tmp_path / "bin")
    cache = tmp_path / "project cache"
    built = build_tests(ZigCompileClient(zig, Path("/ours")), replace(COMMAND, cache_root=cache), mode)
    (call,) = compile_calls(zig)
    caches = ("--cache-dir", str(cache), "--global-cache-dir", "/global cache")
    assert call["argv"] == ["test", *args, *caches, "--name", name, "--listen=-"]
    assert call["cwd"] == str(PROJECT)
    assert built.path.name == name
    assert built.path.is_relative_to(cache / "o")


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
    command = replace(COMMAND, cache_root=tmp_path / "cache", global_cache_dir=None)
    build_tests(ZigCompileClient(zig, Path("/ours")), command, "normal")
    (call,) = compile_calls(zig)
    argv = call["argv"]
    assert argv[argv.index("--global-cache-dir") + 1] == "/ours"


def test_log(tmp_path, caplog) -> None:
    """Builds that run at the same time can be told apart in the log."""
    client = ZigCompileClient(fake_zig(tmp_path / "bin"), Path("/ours"))
    modes: tuple[BuildMode, ...] = ("normal", "fuzz", "repro")
    # Each in a cache of its own, for the fake compiler does not lock what it writes.
    commands = [replace(COMMAND, cache_root=tmp_path / mode) for mode in modes]
    threads = [
        threading.Thread(target=build_tests, args=(client, command, mode))
        for command, mode in zip(commands, modes, strict=True)
    ]
    with caplog.at_level(logging.INFO, "fuzzserver"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    client.stop()
    lines = [record.getMessage() for record in caplog.records]
    for suffix in ("", " in fuzz mode", " for reproduction"):
        assert f"compiling the tests of src/main.zig (unit){suffix}" in lines
        compiled = re.compile(rf"compiled the tests of src/main\.zig \(unit\){suffix} in \d+\.\d s")
        assert any(map(compiled.fullmatch, lines))


def test_heartbeat(tmp_path, caplog, monkeypatch) -> None:
    """A compile that takes long says from time to time that it goes on."""
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.001)
    go = tmp_path / "bin" / "go"
    monkeypatch.setattr(heartbeat.log, "filters", [lambda record: go.touch() or True])
    with caplog.at_level(logging.INFO, "fuzzserver"):
        client = ZigCompileClient(fake_zig(tmp_path / "bin", compile="wait_for_file"), tmp_path)
        build_tests(client, replace(COMMAND, cache_root=tmp_path / "cache"), "fuzz")
    said = r"still compiling the tests of src/main\.zig \(unit\) in fuzz mode after \d+ s"
    assert re.search(said, caplog.text)
