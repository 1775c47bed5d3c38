"""The archive of sources: Zig's own bytes, readable for others, whole whatever happens to the files."""

import contextlib
import io
import logging
import os
import random
import secrets
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzserver.step import SourcePath
from fuzzserver.web import sources_tar
from fuzzserver.web.sources_tar import BLOCK, CHUNK, SIZE_MAX, tar_header, write_sources_tar
from tests import support_wasm
from tests.support_native import build_exe
from tests.support_tree import LATENCIES, changing, in_time, measure_huge_tree, write_huge_tree, write_tree
from tests.support_tree import NAMES as TREE_NAMES
from tests.support_wasm import Map, Page
from tests.support_zig_cli import running

binary, page = support_wasm.binary, support_wasm.page

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
    archive = archive_in_time([SourcePath(str(tmp_path), name) for name in ("zz", *bad, "file")])
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


# ----------------------------------------------------------------------- trees that are not what they seem


def names_in(root: Path) -> list[SourcePath]:
    """All that a folder and the folders in it hold, whatever it is, as ``--source`` names it."""
    found = []
    for folder, folders, names in os.walk(root):
        found += [SourcePath(str(root), os.path.relpath(os.path.join(folder, name), root)) for name in names]
        # A link to a folder is not walked into, but what is behind it may be named all the same.
        found += [
            SourcePath(str(root), os.path.relpath(os.path.join(folder, name), root)) for name in folders
        ]
    return found


def archive_in_time(paths: list[SourcePath], write=None) -> bytes:
    """The archive, or a failure if it takes for ever."""
    return in_time(lambda: archive_of(*paths, write=write))


def gnu_names(archive: bytes, path: Path) -> list[str]:
    """What GNU tar says is in an archive. It must not complain."""
    path.write_bytes(archive)
    listed = subprocess.run(
        ["tar", "--quoting-style=escape", "-Ptf", path], capture_output=True, env={"LC_ALL": "C"}, check=True
    )
    assert listed.stderr == b""
    return listed.stdout.decode().splitlines()


def read_by_page(page: Page, archive: bytes) -> int:
    """How many sources the page finds in an archive."""
    page.put(archive)
    return page.number("unpack")


@pytest.fixture
def canary(tmp_path) -> bytes:
    """What is written in all files that nobody may be sent."""
    return f"canary {secrets.token_hex(16)}\n".encode()


def test_tree_with_everything_odd(tmp_path, canary, page, caplog):
    """Of all that can be in a folder, the files are sent, and the links that stay inside."""
    root, outside = tmp_path / "root", tmp_path / "root-secret"
    write_tree(outside, canary)
    (root / "sub").mkdir(parents=True)
    (root / "file.zig").write_text("file")
    (root / "sub" / "deep.zig").write_text("deep")
    os.link(root / "file.zig", root / "hard.zig")
    good = {"file.zig": "file", "sub/deep.zig": "deep", "hard.zig": "file"}
    for name, target in {
        "in.zig": "sub/deep.zig",
        "sub/up.zig": "../file.zig",
        "round.zig": "../root/sub/../file.zig",
        "absolute.zig": root / "file.zig",
    }.items():
        (root / name).symlink_to(target)
        good[name] = "deep" if name == "in.zig" else "file"
    (root / "inner").symlink_to("sub")
    good["inner/deep.zig"] = "deep"
    bad = {"inner": "not a regular file", "sub": "not a regular file"}
    for name, target in {
        "out.zig": outside / "1.zig",
        "relative_out.zig": "../root-secret/1.zig",
        "sub/out.zig": "../../root-secret/1.zig",
        "passwd.zig": "/etc/passwd",
        "twice.zig": "out.zig",
    }.items():
        (root / name).symlink_to(target)
        bad[name] = "a link that leads out of the folders of sources"
    (root / "outer").symlink_to(outside)
    bad |= {"outer": "not a regular file", "outer/1.zig": bad["out.zig"], "outer/a/1.zig": bad["out.zig"]}
    (root / "environ.zig").symlink_to("/proc/self/environ")
    bad["environ.zig"] = "a file of the system, not of a program"
    (root / "loop.zig").symlink_to("pool.zig")
    (root / "pool.zig").symlink_to("loop.zig")
    bad |= dict.fromkeys(("loop.zig", "pool.zig"), "Too many levels of symbolic links")
    os.mkfifo(root / "pipe.zig")
    (root / "device.zig").symlink_to("/dev/zero")
    special = ["pipe.zig", "device.zig"]
    if os.geteuid() == 0:
        os.mknod(root / "node.zig", 0o20666, os.makedev(1, 5))
        special.append("node.zig")
    with contextlib.chdir(root), socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.zig")
    bad |= dict.fromkeys([*special, "socket.zig"], "not a regular file")
    (root / ".env").write_bytes(canary)
    (root / "named.zig").symlink_to(".env")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_bytes(canary)
    for name in ("server.PEM", "server.key", "id_rsa", "id_ed25519.pub"):
        (root / name).write_bytes(canary)
    secret = [".env", "named.zig", ".git/config", "server.PEM", "server.key", "id_rsa", "id_ed25519.pub"]
    bad |= dict.fromkeys(secret, "by its name, it is not for others")
    bad[".git"] = bad[".env"]

    paths = names_in(root)
    paths += [SourcePath(str(root), name) for name in ("inner/deep.zig", "outer/1.zig", "outer/a/1.zig")]
    archive = archive_in_time(paths)
    assert members(archive) == {f"{root}/{name}": text.encode() for name, text in good.items()}
    assert canary.strip() not in archive
    assert len(gnu_names(archive, tmp_path / "a.tar")) == read_by_page(page, archive) == len(good)
    said = {record.getMessage() for record in caplog.records}
    assert said == {f"failed to open '{root}/{name}': {why}" for name, why in bad.items()}
    assert archive_in_time(paths) == archive


ODD_NAMES = (
    b"new\nline.zig",
    b"return\r.zig",
    b"-rf",
    b"--checkpoint-action=exec=true",
    b"a..zig",
    b"a...",
    b" ",
    b"a b.zig",
    b"tab\t.zig",
    b"back\\slash.zig",
    b"quote\"'.zig",
    b"%2e%2e%2fx",
    b"script><!--\xe2\x80\xa8.zig",
    b"\xff\xfe\x80.zig",
    "\u202egiz.\u6f22".encode(),
    b"\x1b[31m.zig",
    b"\x01",
    b"x" * 255,
    b"y" * 100,
    b"z" * 101,
    b"d" * 255 + b"/" + b"e" * 255 + b"/" + b"f" * 255,
    b"</script>",
)
"""Names of files; one has a folder in it because it has a slash."""


def test_odd_names(tmp_path, page):
    """Each file is there under its own name, for each reader."""
    root = tmp_path / "root"
    for number, name in enumerate(ODD_NAMES):
        path = Path(os.fsdecode(os.fsencode(root) + b"/" + name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    (tmp_path / "beside.zig").write_text("beside")
    paths = [SourcePath(str(root), os.fsdecode(name)) for name in ODD_NAMES]
    # The compiler names what is beside its folder so, and some debug info has whole paths in the wrong place.
    paths += [SourcePath(str(root), "../beside.zig"), SourcePath("/none", str(root / "-rf"))]
    archive = archive_in_time(paths)
    found = members(archive)
    assert found == {
        **{f"{root}/{os.fsdecode(name)}": b"%d" % number for number, name in enumerate(ODD_NAMES)},
        f"{root}/../beside.zig": b"beside",
        f"/none/{root}/-rf": b"%d" % ODD_NAMES.index(b"-rf"),
    }
    assert len(gnu_names(archive, tmp_path / "a.tar")) == len(paths)
    assert read_by_page(page, archive) == len(paths)
    extract(archive, tmp_path / "out")


def extract(archive: bytes, folder: Path) -> None:
    """Unpack as Python advises to; nothing may be outside of the folder, or be anything but a file."""
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        assert all(info.isreg() for info in tar.getmembers())
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
        else:  # Pythons before 3.11.4 would write to the absolute names.
            for info in tar.getmembers():
                assert len(tar.extractfile(info).read()) == info.size
    shutil.rmtree(folder)


ROUNDS = 200
"""As many archives at least; more on a machine that is too busy to change much meanwhile."""


def test_tree_that_is_never_at_rest(tmp_path, canary, page, caplog):
    """Whatever happens meanwhile, each archive is whole, ends, and has nothing from elsewhere in it."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    write_tree(root, b"first")
    write_tree(outside, canary)
    (root / "steady.zig").write_text("steady")
    paths = [SourcePath(str(root), name) for name in (*TREE_NAMES, "steady.zig")]
    rng = random.Random(4)

    def slow(data: bytes) -> None:
        # A client that takes its time, so that much can happen between two pieces.
        if rng.randrange(4) == 0:
            time.sleep(0.0005)

    usual = {
        "not a regular file",
        "a link that leads out of the folders of sources",
        "No such file or directory",
        "Too many levels of symbolic links",
    }
    n_members = number = 0
    met: set[str] = set()
    with changing(root, outside, seed=5):
        # It must be no easy time.
        while number < ROUNDS or not (usual <= met and number * 6 < n_members < number * len(TREE_NAMES)):
            assert number < 20 * ROUNDS, (met, n_members)
            number += 1
            archive = archive_in_time(paths, slow)
            assert b"canary" not in archive
            found = members(archive)
            assert found[f"{root}/steady.zig"] == b"steady"
            n_found = len(found)
            assert len(gnu_names(archive, tmp_path / "a.tar")) == n_found
            extract(archive, tmp_path / "out")
            if number % 10 == 0:
                assert read_by_page(page, archive) == n_found
            n_members += n_found
            met.update(record.getMessage().rpartition(": ")[2] for record in caplog.records)
            caplog.clear()
    assert met <= {*usual, "Not a directory"}


def test_same_tree_gives_the_same_bytes(tmp_path):
    """In any order, and at any time."""
    write_tree(tmp_path, b"content")
    paths = [SourcePath(str(tmp_path), name) for name in TREE_NAMES]
    first = archive_of(*paths)
    for seed in range(5):
        random.Random(seed).shuffle(paths)
        assert archive_of(*paths) == first


# ----------------------------------------------------------------------- limits


def test_too_many_files(tmp_path, monkeypatch, caplog):
    """The first are sent; how many are not is told in one line."""
    monkeypatch.setattr(sources_tar, "MAX_FILES", 5)
    write_tree(tmp_path, b"content")
    archive = archive_of(*(SourcePath(str(tmp_path), name) for name in TREE_NAMES))
    assert list(members(archive)) == [f"{tmp_path}/{number}.zig" for number in range(5)]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"the archive of sources lacks {len(TREE_NAMES) - 5} files: ")


def test_too_many_bytes(tmp_path, monkeypatch, caplog):
    """What does not fit any more is left out, and what fits is not."""
    monkeypatch.setattr(sources_tar, "MAX_BYTES", 2 << 20)
    for name, size in (("a", 1 << 20), ("b", (1 << 20) + 1), ("c", 1 << 20), ("d", 0), ("e", 1)):
        (tmp_path / name).write_bytes(bytes(size))
    archive = archive_of(*(SourcePath(str(tmp_path), name) for name in "abcde"))
    assert list(members(archive)) == [f"{tmp_path}/{name}" for name in "acd"]
    (record,) = caplog.records
    assert record.getMessage() == (
        "the archive of sources lacks 2 files: it holds 200000 files and 2 MiB at most; name fewer sources"
    )


def test_many_files_that_are_gone_do_not_fill_the_log(tmp_path, caplog):
    """The first are named, and the others counted."""
    archive = archive_of(*(SourcePath(str(tmp_path), f"{number}.zig") for number in range(1000)))
    assert archive == b""
    assert len(caplog.records) == 101
    assert caplog.records[-1].getMessage() == "failed to open 900 more files"


def test_huge_tree(debug_pair, tmp_path):
    """Files are sent as they are read: a server's memory does not grow with them, and others are answered."""
    size = write_huge_tree(tmp_path / "tree", 10_000, 512 << 20)
    args = ("--executable", debug_pair.executable, "--coverage", debug_pair.coverage_file)
    with running(tmp_path, "serve", *args, "--source", tmp_path / "tree") as cli:
        found = measure_huge_tree(cli.pid, cli.port())
    assert found.sent == size
    assert found.growth < 32 << 20
    assert len(found.latencies) >= LATENCIES


# ----------------------------------------------------------------------- the page's reader


def odd_archive(rng: random.Random) -> bytes:
    """Blocks in the shape of headers, of which each field may be anything."""
    parts = []
    for _ in range(rng.randrange(1, 8)):
        size = rng.choice((0, 1, 511, 512, 513, 5000, 2**32 - 1, SIZE_MAX))
        header = bytearray(tar_header(b"/root", rng.choice((b"a.zig", b"d" * 120 + b"/f")), size, 0))
        for start, length in rng.sample(
            [(0, 100), (124, 12), (156, 1), (257, 6), (345, 155)], rng.randrange(5)
        ):
            piece = rng.choice((rng.randbytes(1), b"\xff", b"\0", b"7", b"L", b"-1", b"../", b"\x80\0", b" "))
            header[start : start + length] = (piece * length)[:length]
        header[156:157] = rng.choice(
            (b"0", b"\0", b"L", b"K", b"x", b"g", b"1", b"2", b"5", b"3", b"6", b"\xff")
        )
        parts += [bytes(header), rng.randbytes(min(size, 6000)) + bytes(-size % BLOCK if size < 6000 else 0)]
    return b"".join(parts)[: rng.choice((None, -1, -300, -512, 100))]


def test_page_reads_archives_of_any_kind(page):
    """An archive that makes no sense gives fewer sources, and no trouble: the next one is read as ever."""
    rng = random.Random(7)
    page.send(Map(["/root/a.zig"], [(0, 1, 1)]).index())
    whole = entry("/root", "a.zig", b"1\n2\n")
    for _ in range(2000):
        archive = odd_archive(rng)
        assert read_by_page(page, archive) <= len(archive) // BLOCK
        page.number("openTarSource", 0)
    assert read_by_page(page, whole) == 1
    assert page.number("openTarSource", 0) == 2
