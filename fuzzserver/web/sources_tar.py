"""The ``sources.tar`` that the page reads (Zig: ``serveSourcesTar``, and ``std/tar/writer.zig``).

Names are absolute paths: root folder and sub-path of each file. Where both do not fit into the name
field together, the root goes into the ustar prefix; where that does not suffice either, a GNU long
name record comes first. There is no trailer after the last file, and no reader needs one.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from fuzzserver.step import SourcePath
from fuzzserver.web.source_files import SourceFolders, folder_of

__all__ = ["tar_header", "write_sources_tar"]

log = logging.getLogger(__name__)

BLOCK = 512
CHUNK = 256 * 1024
NAME_MAX = 100
PREFIX_MAX = 155
SIZE_MAX = 8**11 - 1
"""The largest size that eleven octal digits can tell."""
MAX_FILES = 200_000
MAX_BYTES = 4 << 30
"""Bytes of all files. No page can unpack more: a wasm's memory ends there."""
MAX_LOGGED = 100
"""How many files that cannot be opened are logged. More are counted."""


def write_sources_tar(paths: Iterable[SourcePath], write: Callable[[bytes], object]) -> None:
    """Stream all files to ``write``, each once, sorted by root folder, then path.

    The entry ``.`` means a whole folder and is skipped. What is missing, unreadable, no source or more than
    an archive may hold is logged and skipped; what changes while it is read is cut or padded to the size
    that its header tells.
    """
    paths = [path for path in paths if path.sub_path != "."]
    folders = SourceFolders({folder_of(path) for path in paths})
    n_files = n_bytes = n_failed = n_left_out = 0
    for path in _each_once(paths):
        if n_files == MAX_FILES:
            n_left_out += 1
            continue
        try:
            file = os.fdopen(folders.open(path.location), "rb", buffering=0)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name.
            n_failed += 1
            if n_failed <= MAX_LOGGED:
                log.error("failed to open '%s': %s", path, getattr(error, "strerror", None) or error)
            continue
        with file:
            status = os.fstat(file.fileno())
            if status.st_size > SIZE_MAX:
                log.error("'%s' is too large for a tar: %d bytes", path, status.st_size)
            elif status.st_size > MAX_BYTES - n_bytes:
                n_left_out += 1
            else:
                _write_file(path, file, status, write)
                n_files += 1
                n_bytes += status.st_size
    if n_failed > MAX_LOGGED:
        log.error("failed to open %d more files", n_failed - MAX_LOGGED)
    if n_left_out:
        log.warning(
            "the archive of sources lacks %d files: it holds %d files and %d MiB at most; name fewer sources",
            n_left_out,
            MAX_FILES,
            MAX_BYTES >> 20,
        )


def _each_once(paths: Iterable[SourcePath]) -> Iterator[SourcePath]:
    """In Zig's order, which is that of the names' bytes."""
    by_root: dict[str, list[SourcePath]] = {}
    for path in paths:
        by_root.setdefault(path.root_dir, []).append(path)
    # Two splits of the same path are one file, and the page trips over a name that comes twice.
    seen = set()
    for root in sorted(by_root, key=os.fsencode):
        for path in sorted(by_root[root], key=lambda path: os.fsencode(path.sub_path)):
            if (name := str(path)) not in seen:
                seen.add(name)
                yield path


def _write_file(
    path: SourcePath, file: BinaryIO, status: os.stat_result, write: Callable[[bytes], object]
) -> None:
    write(tar_header(os.fsencode(path.root_dir), os.fsencode(path.sub_path), status.st_size, status.st_mtime))
    left = status.st_size
    while left > 0:
        try:
            data = file.read(min(CHUNK, left))
        except OSError as error:
            log.error("failed to read '%s': %s", path, error.strerror)
            data = b""
        if not data:
            break
        write(data)
        left -= len(data)
    padding = left + -status.st_size % BLOCK
    while padding > 0:
        write(bytes(min(padding, CHUNK)))
        padding -= CHUNK


def tar_header(prefix: bytes, sub_path: bytes, size: int, mtime: float) -> bytes:
    """The blocks in front of a file's content."""
    split = _split_path(prefix, sub_path)
    if split is not None:
        return _block(*split, size, max(0, int(mtime)), b"0", b"0000664")
    long_name = prefix + b"/" + sub_path
    record = _block(b"", b"", len(long_name), 0, b"L", b"0000000")
    padding = bytes(-len(long_name) % BLOCK)
    return record + long_name + padding + _block(b"", b"", size, max(0, int(mtime)), b"0", b"0000664")


def _split_path(prefix: bytes, sub_path: bytes) -> tuple[bytes, bytes] | None:
    """Name and prefix field, chosen as Zig's writer does; None if the path is too long for both."""
    if len(prefix) + len(sub_path) > NAME_MAX + PREFIX_MAX or len(prefix) > PREFIX_MAX:
        return None
    if len(prefix) + len(sub_path) < NAME_MAX:
        return prefix + b"/" + sub_path, b""
    if len(sub_path) <= NAME_MAX:
        return sub_path, prefix
    # As much of the sub-path as possible goes to the prefix; it must be cut at a slash.
    room = max(0, PREFIX_MAX - len(prefix) - 1)
    slash = sub_path.rfind(b"/", 0, room)
    if slash < 0 or len(sub_path) - slash - 1 > NAME_MAX:
        return None
    return sub_path[slash + 1 :], prefix + b"/" + sub_path[:slash]


def _block(name: bytes, prefix: bytes, size: int, mtime: int, typeflag: bytes, mode: bytes) -> bytes:
    """One ustar header block (POSIX.1-1988); owner and device fields are not used."""
    fields = (
        name.ljust(NAME_MAX, b"\0"),
        mode + b"\0",
        bytes(16),  # uid and gid
        b"%011o\0" % size,
        b"%011o\0" % min(mtime, SIZE_MAX),
        b" " * 8,  # The checksum counts as blanks while it is computed.
        typeflag,
        bytes(100),  # link name
        b"ustar\0" + b"00",
        bytes(80),  # user and group name, device numbers
        prefix.ljust(PREFIX_MAX, b"\0"),
        bytes(12),
    )
    block = b"".join(fields)
    return block[:148] + b"%7o\0" % sum(block) + block[156:]
