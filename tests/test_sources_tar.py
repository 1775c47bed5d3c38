"""The archive of sources: Zig's own bytes, readable for others, whole whatever happens to the files."""

import io
import logging
import os
import subprocess
import tarfile
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzserver.step import SourcePath
from fuzzserver.web.sources_tar import BLOCK, CHUNK, SIZE_MAX, tar_header, write_sources_tar
from tests.support_native import build_exe

MTIME = 1_755_000_000
NOBODY = 65534
CONTENT = b"hello"

ARCHIVE_ZIG = """
//! Writes a tar entry for each two arguments, root folder and path below it.
const std = @import("std");
pub fn main() !void {
    var args = std.process.args();
    _ = args.skip();
    while (args.next()) |prefix| {
        var archiver = std.tar.writer(std.io.getStdOut().writer());
        archiver.prefix = prefix;
        try archiver.writeFileBytes(args.next().?, "hello", .{ .mtime = 1_755_000_000 });
    }
}
"""


def deep(length: int, part: int = 9) -> str:
    """A path of this length whose folders have names of ``part`` letters."""
    return ((("d" * part) + "/") * length)[: length - 1] + "f"


NAMES = [
    ("/root", "a.zig"),
    ("/root", "src/a.zig"),
    ("/", "etc/a"),
    ("/root/caf\u00e9", "\u6f22.zig"),
    # Both fit into the name field, or just do not.
    ("/" + "r" * 39, deep(59)),
    ("/" + "r" * 39, deep(60)),
    ("/" + "r" * 39, deep(61)),
    # Path in the name, root in the prefix.
    ("/" + "r" * 99, deep(99)),
    ("/" + "r" * 99, deep(100)),
    ("/" + "r" * 154, deep(100)),
    ("/" + "r" * 154, "f"),
    # The path is cut at a slash.
    ("/" + "r" * 39, deep(101)),
    ("/" + "r" * 39, deep(150)),
    ("/" + "r" * 39, deep(200)),
    ("/" + "r" * 19, "d" * 100 + "/" + "f" * 100),
    ("/" + "r" * 19, deep(236)),
]
"""Root folders and paths around each limit of the format."""

LONG_NAMES = [
    ("/" + "r" * 39, deep(216)),
    ("/" + "r" * 39, "f" * 101),
    ("/" + "r" * 149, deep(101)),
    ("/" + "r" * 19, "d/" + "f" * 200),
    ("/" + "r" * 155, "f"),
    ("/" + "r" * 155, deep(400)),
    ("/root", deep(600)),
    ("/" + "r" * 254, "f"),
    ("/" + "r" * 254, deep(257)),
    ("/" + "r" * 254, deep(258)),
]
"""Names that take a long-name record in front."""


@pytest.fixture(scope="module")
def zig_archive(client, work):
    """Gives the entry that Zig's own writer makes for a name."""
    source = work / "archive.zig"
    source.write_text(ARCHIVE_ZIG)
    exe = build_exe(client, source)

    def run(*name: str) -> bytes:
        return subprocess.run([exe, *name], stdout=subprocess.PIPE, check=True).stdout

    return run


def entry(root: str, path: str, content: bytes = CONTENT) -> bytes:
    """Our entry for a name."""
    header = tar_header(os.fsencode(root), os.fsencode(path), len(content), MTIME)
    return header + content + bytes(-len(content) % BLOCK)


def archive_of(*paths: SourcePath, write=None) -> bytes:
    """The archive of these files; ``write`` sees each piece before it is kept."""
    out = io.BytesIO()

    def both(data: bytes) -> None:
        if write is not None:
            write(data)
        out.write(data)

    write_sources_tar(paths, both)
    assert len(out.getvalue()) % BLOCK == 0
    return out.getvalue()


def members(archive: bytes) -> dict[str, bytes]:
    """Names and contents, as Python's reader has them, in their order."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        for info in tar:
            assert info.name not in found
            file = tar.extractfile(info)
            assert file is not None
            found["/" + info.name.lstrip("/")] = file.read()
    return found


@pytest.mark.parametrize(("root", "path"), NAMES, ids=lambda name: str(len(name)))
def test_headers_are_those_of_zig(zig_archive, root, path):
    """Byte for byte, around each limit of the name fields."""
    assert entry(root, path) == zig_archive(root, path)


@pytest.mark.parametrize(("root", "path"), LONG_NAMES, ids=lambda name: str(len(name)))
def test_headers_with_a_long_name_are_those_of_zig(zig_archive, root, path):
    """Byte for byte, but for the prefix field, in which Zig leaves a piece of what did not fit."""
    ours, theirs = entry(root, path), zig_archive(root, path)
    assert b"L" == ours[156:157] == theirs[156:157]
    last = len(ours) - 2 * BLOCK
    assert ours[:last] == theirs[:last]
    assert without_prefix(ours[last:]) == without_prefix(theirs[last:])


def without_prefix(block: bytes) -> bytes:
    """A header block without its prefix field, and without the checksum that counts it."""
    return block[:148] + block[156:345] + block[500:]


@pytest.mark.parametrize(("root", "path"), NAMES + LONG_NAMES, ids=lambda name: str(len(name)))
def test_names_are_read_by_python_and_gnu_tar(root, path, tmp_path):
    """Both find the whole path and the content, without a trailer at the end."""
    archive = entry(root, path)
    assert members(archive) == {"/" + f"{root}/{path}".lstrip("/"): CONTENT}
    (tmp_path / "a.tar").write_bytes(archive)
    listed = subprocess.run(
        ["tar", "--quoting-style=literal", "-Ptf", tmp_path / "a.tar"], capture_output=True, check=True
    )
    assert os.fsdecode(listed.stdout).strip() == f"{root}/{path}".replace("//", "//")


letters = st.text("abc/.", max_size=400).map(lambda text: text + "f")


@given(letters, letters, st.integers(0, SIZE_MAX), st.integers(-5, 2**40))
def test_any_name_is_read_back(root, path, size, mtime):
    """Python's reader gives name, size and time of any header."""
    header = tar_header(b"/" + root.encode(), path.encode(), size, mtime)
    info = tarfile.open(fileobj=io.BytesIO(header + bytes(BLOCK)), mode="r:").next()
    assert info is not None
    assert info.name == f"/{root}/{path}"
    assert (info.size, info.mtime) == (size, min(max(0, mtime), SIZE_MAX))


def test_files_are_sorted_by_root_then_path(tmp_path):
    """By their bytes, as Zig sorts, whatever the order in which they come."""
    names = [("b", "a"), ("a", "z"), ("a", "\xe9"), ("a", "Z"), ("a", "a/b"), ("a", "a.b")]
    paths = []
    for root, name in names:
        file = tmp_path / root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
        paths.append(SourcePath(str(tmp_path / root), name))
    expected = [f"{tmp_path}/{name}" for name in ("a/Z", "a/a.b", "a/a/b", "a/z", "a/\xe9", "b/a")]
    assert list(members(archive_of(*paths))) == expected
    assert list(members(archive_of(*reversed(paths), *paths))) == expected


def test_two_splits_of_a_path_are_one_file(tmp_path):
    """The page trips over a name that comes twice."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_text("text")
    archive = archive_of(
        SourcePath(f"{tmp_path}/a/b", "c"),
        SourcePath(f"{tmp_path}/a", "b/c"),
        SourcePath(str(tmp_path), "a/b/c"),
    )
    assert members(archive) == {f"{tmp_path}/a/b/c": b"text"}


def test_what_is_no_readable_file_is_skipped_and_logged(tmp_path, caplog):
    """Each with its reason; the files around it are there."""
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to_folder").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zz").write_text("last")
    bad = {
        "missing": "No such file or directory",
        "folder": "not a regular file",
        "to_folder": "not a regular file",
        "dangling": "No such file or directory",
        "loop": "Too many levels of symbolic links",
        "pipe": "not a regular file",
        "file/below": "Not a directory",
        "x" * 300: "File name too long",
        "a\0b": "embedded null byte",
    }
    archive = archive_of(*(SourcePath(str(tmp_path), name) for name in ("zz", *bad, "file")))
    assert members(archive) == {f"{tmp_path}/file": b"text", f"{tmp_path}/zz": b"last"}
    for name, reason in bad.items():
        assert f"failed to open '{tmp_path}/{name}': {reason}" in caplog.text
    assert len(caplog.records) == len(bad)
    assert all(record.levelno == logging.ERROR for record in caplog.records)


@contextmanager
def without_privileges():
    """Root may read everything; be somebody else for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_file_that_we_may_not_read_is_skipped_and_logged(caplog):
    """The error is the system's own."""
    # Not in pytest's folder, which others may not enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file, mode in (("open", 0o644), ("secret", 0)):
            (folder / file).write_text("text")
            (folder / file).chmod(mode)
        with without_privileges():
            archive = archive_of(SourcePath(name, "open"), SourcePath(name, "secret"))
    assert members(archive) == {f"{name}/open": b"text"}
    assert "Permission denied" in caplog.text


def test_a_file_that_the_format_cannot_tell_is_skipped(tmp_path, caplog):
    """Eleven octal digits end at 8 GiB."""
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(SIZE_MAX + 1)
    assert archive_of(SourcePath(str(tmp_path), "huge")) == b""
    assert "too large" in caplog.text


def test_a_whole_folder_is_skipped_silently(tmp_path, caplog):
    """The compiler lists "." for it."""
    assert archive_of(SourcePath(str(tmp_path), ".")) == b""
    assert caplog.text == ""


def test_a_symlink_to_a_file_is_that_file(tmp_path):
    """Sources of a package may be links."""
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    assert members(archive_of(SourcePath(str(tmp_path), "link"))) == {f"{tmp_path}/link": b"text"}


def test_files_of_every_size_are_padded(tmp_path):
    """Around a block and around a chunk of reading."""
    sizes = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5]
    for size in sizes:
        (tmp_path / str(size)).write_bytes(os.urandom(size))
    found = members(archive_of(*(SourcePath(str(tmp_path), str(size)) for size in sizes)))
    assert found == {
        f"{tmp_path}/{size}": (tmp_path / str(size)).read_bytes() for size in sorted(map(str, sizes))
    }


def test_names_in_any_bytes_are_kept(tmp_path):
    """A file name need not be UTF-8."""
    name = os.fsdecode(b"caf\xe9.zig")
    (tmp_path / name).write_text("text")
    archive = archive_of(SourcePath(str(tmp_path), name))
    assert os.fsencode(f"{tmp_path}/{name}") in archive


@pytest.mark.parametrize("change", ["grow", "shrink", "empty", "vanish"])
@pytest.mark.parametrize("after", [1, 2])
def test_a_file_that_changes_while_it_is_read_does_not_break_the_archive(tmp_path, change, after):
    """Its entry has the size that its header tells; what follows is where it must be."""
    size = 2 * CHUNK + 700
    path = tmp_path / "changing"
    path.write_bytes(b"x" * size)
    (tmp_path / "next").write_text("text")
    pieces = 0

    def disturb(_: bytes) -> None:
        nonlocal pieces
        pieces += 1
        if pieces == after:
            change_file(path, change)

    archive = archive_of(
        SourcePath(str(tmp_path), "changing"), SourcePath(str(tmp_path), "next"), write=disturb
    )
    found = members(archive)
    kept = {"grow": size, "vanish": size, "shrink": CHUNK + 10, "empty": CHUNK * (after - 1)}[change]
    assert found == {f"{tmp_path}/changing": (b"x" * kept).ljust(size, b"\0"), f"{tmp_path}/next": b"text"}


def change_file(path, change: str) -> None:
    """What an editor, a build or a user may do meanwhile."""
    match change:
        case "grow":
            with path.open("ab") as file:
                file.write(b"y" * 5000)
        case "shrink":
            os.truncate(path, CHUNK + 10)
        case "empty":
            os.truncate(path, 0)
        case "vanish":
            path.unlink()


def test_no_descriptor_is_left_when_the_reader_goes(tmp_path, nothing_left):
    """A browser that closes the page ends the archive with its own error."""
    (tmp_path / "file").write_text("text")

    def gone(_: bytes) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        write_sources_tar([SourcePath(str(tmp_path), "file")], gone)


def test_the_sources_of_a_fuzzed_executable_are_in_the_archive(debug_pair, project_root):
    """What the compiler read is what the page gets."""
    assert debug_pair.step.inputs is not None
    found = members(archive_of(*debug_pair.step.inputs))
    assert found[str(project_root)] == project_root.read_bytes()
    assert any(name.endswith("/std/std.zig") for name in found)
