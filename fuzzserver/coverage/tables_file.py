"""The file in which finished tables wait for the next look at the same executable.

A line with name and version, a checksum of the rest, a digest of all that the tables are made of, how long
each table is, the tables. What is damaged, of another version, or not what it says, is not used: all that is
lost is the time to make the tables again.
"""

from __future__ import annotations

import logging
import os
import re
import struct
import sys
import zlib
from array import array
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from fuzzserver.coverage.executable import Executable
from fuzzserver.coverage.functions import NO_FUNCTION, Functions
from fuzzserver.coverage.tables import Coverage, little_endian_bytes
from fuzzserver.errors import InputError
from fuzzserver.files import open_regular, remove_oldest
from fuzzserver.findings import write_whole
from fuzzserver.version import __version__
from fuzzserver.wire.abi import SourceLocation, coverage_file_name

__all__ = ["FinishedTables", "load_tables", "save_tables"]

log = logging.getLogger(__name__)

MAGIC = b"fuzzserver tables 1\n"

MAX_FILES = 30
"""Each build has a file of its own; of so many builds, the newest, the tables are kept."""

MAX_BYTES = 512 << 20
"""That all files together may take. A million points take 17 MB."""

_CHECKSUM = struct.Struct("<I")
_DIGEST_SIZE = 16
_LENGTHS = struct.Struct("<7I")
"""Of the compiler's version, directories, files, strings, source locations, functions and their names."""
_HEAD_SIZE = len(MAGIC) + _CHECKSUM.size + _DIGEST_SIZE + _LENGTHS.size

_NAME = re.compile(r"\.?[0-9a-f]{16}-[0-9a-f]{32}(\.\w+)?")
"""Our files, and those that a killed process has not finished."""


@dataclass(frozen=True, slots=True)
class FinishedTables:
    """What takes long to find out about an executable and its points."""

    has_debug_info: bool
    """Those of an executable without are not kept: there is little to them."""
    zig_version: str | None
    """The compiler's, as the debug info tells."""
    coverage: Coverage
    source_locations: array[int]
    """Three items for each point: file, line, column."""
    functions: Functions


def load_tables(
    folder: Path, coverage_id: int, executable: Executable, pcs: array[int]
) -> FinishedTables | None:
    """The tables of ``executable`` for these points, if they are there."""
    name = coverage_file_name(coverage_id)
    try:
        if not any(each.startswith(name) for each in os.listdir(folder)):
            return None  # The digest takes a while, which is not lost on what is new.
    except OSError:
        return None
    digest = _digest(executable, pcs)
    path = _path(folder, coverage_id, digest)
    try:
        # We make no links: where one leads is none of ours.
        with os.fdopen(open_regular(path, os.O_NOFOLLOW), "rb") as file:
            head = file.read(_HEAD_SIZE)
            sizes = _check_head(head, digest, len(pcs), os.fstat(file.fileno()).st_size)
            body = file.read(sum(sizes))
        checksum = zlib.crc32(body, zlib.crc32(head[len(MAGIC) + _CHECKSUM.size :]))
        if _CHECKSUM.unpack_from(head, len(MAGIC)) != (checksum,):
            raise InputError("it is damaged")
        return _parse(body, sizes)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("cannot read tables '%s': %s; they are made anew", path, error.strerror)
    except InputError as error:
        log.warning("tables '%s' are of no use: %s; they are made anew", path, error)
    return None


def _digest(executable: Executable, pcs: array[int]) -> bytes:
    """Of all that the tables of these points are made of, our own program included."""
    digest = blake2b(__version__.encode(), digest_size=_DIGEST_SIZE)
    digest.update(little_endian_bytes(pcs))
    executable.digest_debug_info(digest.update)
    return digest.digest()


def _path(folder: Path, coverage_id: int, digest: bytes) -> Path:
    return folder / f"{coverage_file_name(coverage_id)}-{digest.hex()}"


def _check_head(head: bytes, digest: bytes, points_len: int, file_size: int) -> tuple[int, ...]:
    """The sizes of all parts in bytes, which together are those of the file; InputError if they are not."""
    digest_start = len(MAGIC) + _CHECKSUM.size
    if len(head) < _HEAD_SIZE or not head.startswith(MAGIC):
        raise InputError("it is damaged, or of another version")
    if head[digest_start : digest_start + _DIGEST_SIZE] != digest:
        raise InputError("it is of another executable")
    lengths = _LENGTHS.unpack_from(head, digest_start + _DIGEST_SIZE)
    version, directories, files, strings, locations, functions, names = lengths
    sizes = version, 4 * directories, 8 * files, strings, 12 * locations, 4 * locations, 4 * functions, names
    if locations != points_len or _HEAD_SIZE + sum(sizes) != file_size or file_size > MAX_BYTES:
        raise InputError("it has another length than it should have")
    return sizes


def _parse(body: bytes, sizes: tuple[int, ...]) -> FinishedTables:
    parts = []
    rest = memoryview(body)
    for size in sizes:
        parts.append(rest[:size])
        rest = rest[size:]
    version, directories, files, strings, locations, of_points, names, function_names = parts
    coverage = Coverage()
    coverage.directories = _numbers(directories)
    coverage.files = _numbers(files)
    coverage.string_bytes = bytearray(strings)
    source_locations = _numbers(locations)
    functions = Functions(_numbers(of_points), _numbers(names), bytes(function_names))
    _check_strings(coverage.directories, coverage.string_bytes)
    _check_strings(coverage.files[1::2], coverage.string_bytes)
    _check_strings(functions.names, functions.string_bytes)
    _check_indexes(coverage.files[0::2], len(coverage.directories))
    _check_indexes(source_locations[0::3], coverage.files_len, SourceLocation.INVALID.file)
    _check_indexes(functions.of_points, len(functions.names), NO_FUNCTION)
    zig_version = bytes(version).decode("ascii", "replace") or None
    return FinishedTables(True, zig_version, coverage, source_locations, functions)


def _numbers(data: memoryview) -> array[int]:
    numbers = array("I")
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _check_indexes(indexes: array[int], length: int, none: int | None = None) -> None:
    """InputError if one leads beyond the end, unless it is the one that stands for nothing."""
    if max(set(indexes) - {none}, default=-1) >= length:
        raise InputError("it leads nowhere")


def _check_strings(starts: array[int], strings: bytes | bytearray) -> None:
    _check_indexes(starts, len(strings))
    if strings and strings[-1] != 0:
        raise InputError("a string has no end")


def save_tables(
    folder: Path, coverage_id: int, executable: Executable, pcs: array[int], tables: FinishedTables
) -> None:
    """Keep tables, whole or not at all; InputError if that fails. Files of old builds are removed."""
    digest = _digest(executable, pcs)
    coverage, functions = tables.coverage, tables.functions
    version = (tables.zig_version or "").encode()
    lengths = _LENGTHS.pack(
        len(version),
        len(coverage.directories),
        coverage.files_len,
        len(coverage.string_bytes),
        len(tables.source_locations) // 3,
        len(functions.names),
        len(functions.string_bytes),
    )
    checked = b"".join(
        (
            digest,
            lengths,
            version,
            little_endian_bytes(coverage.directories),
            little_endian_bytes(coverage.files),
            coverage.string_bytes,
            little_endian_bytes(tables.source_locations),
            little_endian_bytes(functions.of_points),
            little_endian_bytes(functions.names),
            functions.string_bytes,
        )
    )
    head = MAGIC + _CHECKSUM.pack(zlib.crc32(checked))
    write_whole(_path(folder, coverage_id, digest), head + checked)
    remove_oldest(folder, _NAME, MAX_FILES, MAX_BYTES)
