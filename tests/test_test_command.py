"""What is kept of one test executable, and how it is stored."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzserver.errors import InputError
from fuzzserver.fuzz.test_command import TestCommand

FULL = TestCommand(
    name="src/main.zig",
    args=("-cflags", '-DX="a b"', "--", "src/ä ö.c", "-Mroot=src/main.zig"),
    project=Path("/home/me/my project"),
    cache_root=Path("/home/me/my project/.zig-cache"),
    global_cache_dir=Path("/home/me/.cache/zig"),
)


def make(folder: Path, *names: str) -> None:
    """Empty files."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("files", "project", "name"),
    [
        (("build.zig", "src/deep/main.zig"), ".", "src/deep/main.zig"),
        (("build.zig", "src/build.zig", "src/deep/main.zig"), "src", "deep/main.zig"),
        (("src/deep/build.zig", "src/deep/main.zig"), "src/deep", "main.zig"),
        (("src/deep/main.zig",), "src/deep", "main.zig"),
        (("src/deep/main.zig", "src/other/build.zig"), "src/deep", "main.zig"),
        (("build.zig/file", "src/deep/main.zig"), "src/deep", "main.zig"),
    ],
)
def test_project_folder(tmp_path, files: tuple[str, ...], project: str, name: str) -> None:
    """The project is the nearest folder above with a build.zig, else the file's own folder."""
    make(tmp_path, *files)
    path = tmp_path / "src" / "deep" / "main.zig"
    folder = tmp_path / project
    assert TestCommand.of_root(path) == TestCommand(name, (f"-Mroot={path}",), folder, folder / ".zig-cache")


def test_relative_path(tmp_path, monkeypatch) -> None:
    """A relative path holds when the working folder changes later."""
    make(tmp_path, "build.zig", "src/main.zig")
    monkeypatch.chdir(tmp_path / "src")
    command = TestCommand.of_root(Path("main.zig"))
    assert command.args == (f"-Mroot={tmp_path}/src/main.zig",)
    assert command.project == tmp_path


def test_path_through_a_parent(tmp_path, monkeypatch) -> None:
    """A folder that a path leaves again by ".." is not above the file."""
    make(tmp_path, "inner/build.zig", "outer/main.zig")
    monkeypatch.chdir(tmp_path / "inner")
    assert TestCommand.of_root(Path("../outer/main.zig")).project == tmp_path / "outer"


def test_missing_file(tmp_path) -> None:
    """A root that is not there is an error with its path."""
    with pytest.raises(InputError, match=r"root source file '.*main\.zig' does not exist"):
        TestCommand.of_root(tmp_path / "main.zig")


def test_folder(tmp_path) -> None:
    """A folder is no root."""
    with pytest.raises(InputError, match="is no file"):
        TestCommand.of_root(tmp_path)


def test_key() -> None:
    """The key is readable and depends on nothing but the name."""
    assert FULL.key == "src-main.zig-d924ca21"
    assert replace(FULL, args=(), project=Path("/else")).key == FULL.key


def test_keys_are_folder_names() -> None:
    """Whatever the names are, the keys are different names of files, and not too long."""
    names = [
        "src/a.zig",
        "src-a.zig",
        "src/a.zig #2",
        "..",
        "",
        "/",
        "ä ö/☃.zig",
        "x" * 300,
        "\udcff",
        "a\nb",
    ]
    keys = [replace(FULL, name=name).key for name in names]
    assert len(set(keys)) == len(names)
    for key in keys:
        assert key.isascii() and key.isprintable()
        assert not set(key) & set("/\\ ") and not key.startswith((".", "-"))
        assert len(key) < 80


@pytest.mark.parametrize(
    "command",
    [
        FULL,
        replace(FULL, global_cache_dir=None),
        replace(FULL, args=()),
        replace(FULL, name="not UTF-8 \udcff"),
    ],
    ids=["full", "own cache", "no arguments", "bytes"],
)
def test_storage(command: TestCommand) -> None:
    """What was stored as JSON is what comes back."""
    assert TestCommand.from_json(json.loads(json.dumps(command.to_json()))) == command


@pytest.mark.parametrize(
    "change",
    [
        {"name": 1},
        {"name": None},
        {"args": "-Mroot=x"},
        {"args": ["-lc", 5]},
        {"project": "relative"},
        {"cache_root": ""},
        {"global_cache_dir": 7},
        {"global_cache_dir": "relative"},
    ],
)
def test_wrong_values(change: dict[str, object]) -> None:
    """A value that no command has is an error that shows it."""
    with pytest.raises(InputError, match="no stored test command"):
        TestCommand.from_json({**FULL.to_json(), **change})


@pytest.mark.parametrize("missing", list(FULL.to_json()))
def test_missing_values(missing: str) -> None:
    """So is one that is missing."""
    with pytest.raises(InputError, match="no stored test command"):
        TestCommand.from_json({name: value for name, value in FULL.to_json().items() if name != missing})


@pytest.mark.parametrize("data", [None, [], "text", 3, {}])
def test_something_else(data: object) -> None:
    """So is what is no command at all."""
    with pytest.raises(InputError, match="no stored test command"):
        TestCommand.from_json(data)
