"""From a root source file to its project and its test executables."""

import logging
from pathlib import Path

import pytest

from fuzzserver.coverage.executable import PCS_SECTION, Executable
from fuzzserver.errors import CompileErrors, InputError
from fuzzserver.fuzz import build
from fuzzserver.fuzz.build import FuzzRoot, build_tests
from fuzzserver.zig.compile_client import ZigCompileClient
from tests.support_zig_fake import compile_calls, fake_zig
from tests.support_zig_sources import BROKEN, NO_FUZZ, write

pytestmark = pytest.mark.usefixtures("nothing_left")


def make(folder: Path, *names: str) -> None:
    """Empty files."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("files", "project"),
    [
        (("build.zig", "src/deep/main.zig"), "."),
        (("build.zig", "src/build.zig", "src/deep/main.zig"), "src"),
        (("src/deep/build.zig", "src/deep/main.zig"), "src/deep"),
        (("src/deep/main.zig",), "src/deep"),
        (("src/deep/main.zig", "src/other/build.zig"), "src/deep"),
        (("build.zig/file", "src/deep/main.zig"), "src/deep"),
    ],
)
def test_project_folder(tmp_path, files: tuple[str, ...], project: str) -> None:
    """The project is the nearest folder above with a build.zig, else the file's own folder."""
    make(tmp_path, *files)
    root = FuzzRoot.find(tmp_path / "src" / "deep" / "main.zig")
    assert root.path == tmp_path / "src" / "deep" / "main.zig"
    assert root.project == tmp_path / project
    assert root.cache_root == tmp_path / project / ".zig-cache"


def test_relative_path(tmp_path, monkeypatch) -> None:
    """A relative path holds when the working folder changes later."""
    make(tmp_path, "build.zig", "src/main.zig")
    monkeypatch.chdir(tmp_path / "src")
    assert FuzzRoot.find(Path("main.zig")) == FuzzRoot(tmp_path / "src" / "main.zig", tmp_path)


def test_path_through_a_parent(tmp_path, monkeypatch) -> None:
    """A folder that a path leaves again by ".." is not above the file."""
    make(tmp_path, "inner/build.zig", "outer/main.zig")
    monkeypatch.chdir(tmp_path / "inner")
    root = FuzzRoot.find(Path("../outer/main.zig"))
    assert root == FuzzRoot(tmp_path / "outer" / "main.zig", tmp_path / "outer")


def test_missing_file(tmp_path) -> None:
    """A root that is not there is an error with its path."""
    with pytest.raises(InputError, match=r"root source file '.*main\.zig' does not exist"):
        FuzzRoot.find(tmp_path / "main.zig")


def test_folder(tmp_path) -> None:
    """A folder is no root."""
    with pytest.raises(InputError, match="is no file"):
        FuzzRoot.find(tmp_path)


def test_executables(client: ZigCompileClient, project_root: Path) -> None:
    """Only the one in fuzz mode is instrumented; both name the sources that they were compiled from."""
    root = FuzzRoot.find(project_root)
    for fuzz in (False, True):
        built = build_tests(client, root, fuzz=fuzz)
        with Executable(built.path) as executable:
            assert executable.has_section(PCS_SECTION) == fuzz
        inputs = {str(path) for path in built.inputs}
        assert {str(project_root), str(project_root.parent / "parser.zig")} <= inputs


def test_root_without_a_project(client: ZigCompileClient, tmp_path) -> None:
    """A single file is compiled with a cache beside it."""
    root = FuzzRoot.find(write(tmp_path, lonely=NO_FUZZ))
    built = build_tests(client, root, fuzz=False)
    assert built.path.is_relative_to(tmp_path / ".zig-cache" / "o")
    assert built.path.stat().st_mode & 0o100


def test_compile_errors(client: ZigCompileClient, tmp_path) -> None:
    """Errors in the source are the compiler's own, with paths relative to the project."""
    make(tmp_path, "build.zig")
    write(tmp_path / "src", main=BROKEN + "test { main(); }")
    with pytest.raises(CompileErrors, match=r"^src/main\.zig:4:5: error: "):
        build_tests(client, FuzzRoot.find(tmp_path / "src" / "main.zig"), fuzz=False)


@pytest.mark.parametrize("fuzz", [False, True])
def test_command(tmp_path, caplog, fuzz: bool) -> None:
    """The command line is that of Zig's build runner, in the project's folder."""
    make(tmp_path, "build.zig", "src/main.zig")
    zig = fake_zig(tmp_path / "bin")
    root = FuzzRoot.find(tmp_path / "src" / "main.zig")
    with caplog.at_level(logging.INFO, "fuzzserver"):
        build_tests(ZigCompileClient(zig, Path("/global")), root, fuzz=fuzz)
    (call,) = compile_calls(zig)
    cache_dirs = ["--cache-dir", str(root.cache_root), "--global-cache-dir", "/global"]
    flags = ["-ffuzz"] if fuzz else []
    assert call["argv"] == [
        "test",
        *flags,
        f"-Mroot={root.path}",
        *cache_dirs,
        "--name",
        "test",
        "--listen=-",
    ]
    assert call["cwd"] == str(tmp_path)
    assert f"compiling the tests of main.zig{' in fuzz mode' if fuzz else ''}" in caplog.text


def test_heartbeat(tmp_path, caplog, monkeypatch) -> None:
    """A compile that takes long says from time to time that it goes on."""
    monkeypatch.setattr(build, "HEARTBEAT", 0.001)
    make(tmp_path, "main.zig")
    with caplog.at_level(logging.INFO, "fuzzserver"):
        client = ZigCompileClient(fake_zig(tmp_path / "bin"), tmp_path)
        build_tests(client, FuzzRoot.find(tmp_path / "main.zig"), fuzz=True)
    assert "still compiling the tests of main.zig in fuzz mode after 0 s" in caplog.text
