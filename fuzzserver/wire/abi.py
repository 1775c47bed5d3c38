"""Layouts that the fuzzer, this server and the web page share (Zig: ``std/Build/Fuzz/abi.zig``).

All integers are little-endian. One WebSocket message to the page is one header of this module and
what its ``Trailing:`` list names. Sizes and offsets are those of 64-bit targets; the tests ask the
compiler for each. The messages of ``OwnTag`` are ours alone: Zig knows nothing of them. All that is sent,
texts included, is described in ``docs/protocol.md``.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, NewType, Self

from fuzzserver.errors import CoverageFileError, MessageError

__all__ = [
    "CoverageDeltaHeader",
    "CoverageUpdateHeader",
    "CurrentTime",
    "EntryPointHeader",
    "File",
    "FileIndex",
    "HistoryHeader",
    "HistorySample",
    "OwnTag",
    "PointsHeader",
    "SeenPcsHeader",
    "SourceIndexHeader",
    "SourceLocation",
    "StringIndex",
    "ToClientTag",
    "coverage_file_name",
    "coverage_id_of",
    "seen_elems_len",
]

FileIndex = NewType("FileIndex", int)
"""Position in the files of a ``Coverage``."""

StringIndex = NewType("StringIndex", int)
"""Byte offset of a NUL-terminated string in the string bytes of a ``Coverage``."""

USIZE = 8
BITS_PER_ELEM = 64


class ToClientTag(IntEnum):
    """First byte of each message to the page. Zig's page knows these four and no others."""

    CURRENT_TIME = 0
    SOURCE_INDEX = 1
    COVERAGE_UPDATE = 2
    ENTRY_POINTS = 3


class OwnTag(IntEnum):
    """First byte of each message of our own. Only clients that asked for our subprotocol, or for the
    points over HTTP, get any: Zig's page stops at a tag that it does not know.
    """

    COVERAGE_DELTA = 16
    HISTORY = 17
    POINTS = 18


def seen_elems_len(pcs_len: int) -> int:
    """How many 64-bit words hold one bit for each of ``pcs_len`` PCs."""
    return (pcs_len + BITS_PER_ELEM - 1) // BITS_PER_ELEM


def coverage_file_name(coverage_id: int) -> str:
    """The name of a coverage file below ``<cache>/v/``: the id's bytes in memory order, in hex."""
    return coverage_id.to_bytes(8, "little").hex()


def coverage_id_of(name: str) -> int | None:
    """The coverage id that the name of a coverage file stands for; None if it is no such name."""
    try:
        coverage_id = int.from_bytes(bytes.fromhex(name), "little")
        return coverage_id if coverage_file_name(coverage_id) == name.lower() else None
    except (ValueError, OverflowError):
        return None


def _unpack(layout: struct.Struct, data: bytes, name: str) -> tuple[Any, ...]:
    if len(data) < layout.size:
        raise MessageError(f"{name} needs {layout.size} bytes, got {len(data)}")
    return layout.unpack_from(data)


def _check_tag(got: int, want: ToClientTag | OwnTag) -> None:
    if got != want:
        raise MessageError(f"expected message tag {want:d} ({want.name.lower()}), got {got}")


@dataclass(frozen=True, slots=True)
class SeenPcsHeader:
    """Start of a coverage file, which a running fuzzer maps and changes.

    Trailing:
    * one bit per PC, least significant first, in ``seen_elems_len(pcs_len)`` 64-bit words
    * PC address: u64 for each ``pcs_len``
    """

    n_runs: int
    unique_runs: int
    pcs_len: int

    LAYOUT: ClassVar = struct.Struct("<QQQ")

    @property
    def seen_bits_size(self) -> int:
        """Size of the seen bits, in bytes."""
        return seen_elems_len(self.pcs_len) * USIZE

    @property
    def pc_addrs_offset(self) -> int:
        """Where the PC addresses begin in the file, in bytes."""
        return self.LAYOUT.size + self.seen_bits_size

    @property
    def file_size(self) -> int:
        """The one size that a file with this header can have, in bytes."""
        return self.pc_addrs_offset + self.pcs_len * USIZE

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the header from the first 24 bytes of a coverage file."""
        if len(data) < cls.LAYOUT.size:
            raise CoverageFileError(
                f"a coverage file has a header of {cls.LAYOUT.size} bytes, this one ends after {len(data)}"
            )
        return cls(*cls.LAYOUT.unpack_from(data))

    def serialize(self) -> bytes:
        """The header's 24 bytes."""
        return self.LAYOUT.pack(self.n_runs, self.unique_runs, self.pcs_len)


@dataclass(frozen=True, slots=True)
class CurrentTime:
    """What time the server thinks it is, in nanoseconds; other timestamps refer to it."""

    base: int

    LAYOUT: ClassVar = struct.Struct("<Bq")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the 9 bytes of the message."""
        tag, base = _unpack(cls.LAYOUT, data, cls.__name__)
        _check_tag(tag, ToClientTag.CURRENT_TIME)
        return cls(base)

    def serialize(self) -> bytes:
        """The whole message."""
        return self.LAYOUT.pack(ToClientTag.CURRENT_TIME, self.base)


@dataclass(frozen=True, slots=True)
class SourceIndexHeader:
    """Head of the message that holds all tables of one coverage map.

    Trailing:
    * directory: u32 StringIndex for each ``directories_len``
    * ``File`` for each ``files_len``
    * ``SourceLocation`` for each ``source_locations_len``
    * u8 for each ``string_bytes_len``
    """

    directories_len: int
    files_len: int
    source_locations_len: int
    string_bytes_len: int
    start_timestamp: int
    """When fuzzing started, in nanoseconds on the server's clock."""

    LAYOUT: ClassVar = struct.Struct("<B3xIIIIq")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the 28 bytes of the header."""
        tag, *fields = _unpack(cls.LAYOUT, data, cls.__name__)
        _check_tag(tag, ToClientTag.SOURCE_INDEX)
        return cls(*fields)

    def serialize(self) -> bytes:
        """The header's 28 bytes."""
        return self.LAYOUT.pack(
            ToClientTag.SOURCE_INDEX,
            self.directories_len,
            self.files_len,
            self.source_locations_len,
            self.string_bytes_len,
            self.start_timestamp,
        )


@dataclass(frozen=True, slots=True)
class CoverageUpdateHeader:
    """Head of the message that says what was reached so far.

    Trailing:
    * one bit per source location, in whole 64-bit words, as in the coverage file
    """

    n_runs: int
    unique_runs: int

    LAYOUT: ClassVar = struct.Struct("<B7xQQ")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the 24 bytes of the header."""
        tag, *fields = _unpack(cls.LAYOUT, data, cls.__name__)
        _check_tag(tag, ToClientTag.COVERAGE_UPDATE)
        return cls(*fields)

    def serialize(self) -> bytes:
        """The header's 24 bytes."""
        return self.LAYOUT.pack(ToClientTag.COVERAGE_UPDATE, self.n_runs, self.unique_runs)


@dataclass(frozen=True, slots=True)
class EntryPointHeader:
    """Head of the message that names the fuzz tests. The tag is the low byte of the one word.

    Trailing:
    * u32 index into the source locations for each ``locs_len``
    """

    locs_len: int

    LAYOUT: ClassVar = struct.Struct("<I")
    MAX_LOCS: ClassVar = (1 << 24) - 1

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the 4 bytes of the header."""
        (word,) = _unpack(cls.LAYOUT, data, cls.__name__)
        _check_tag(word & 0xFF, ToClientTag.ENTRY_POINTS)
        return cls(word >> 8)

    def serialize(self) -> bytes:
        """The header's 4 bytes."""
        return self.LAYOUT.pack(ToClientTag.ENTRY_POINTS | self.locs_len << 8)


@dataclass(frozen=True, slots=True)
class CoverageDeltaHeader:
    """Head of the message that takes the place of a ``coverage_update`` if little has changed.

    It means: all bits that the client has stay set, and these are set besides.

    Trailing:
    * u32 index of a newly covered source location for each ``new_len``, ascending
    """

    new_len: int
    n_runs: int
    unique_runs: int
    time: float
    """When the bits were read, in seconds since 1970; or ``UNKNOWN_TIME``."""

    LAYOUT: ClassVar = struct.Struct("<B3xIQQd")
    UNKNOWN_TIME: ClassVar = 1.0
    """For runs and points of one more worker, who may have been at it for long: they are no news."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the 32 bytes of the header."""
        tag, *fields = _unpack(cls.LAYOUT, data, cls.__name__)
        _check_tag(tag, OwnTag.COVERAGE_DELTA)
        return cls(*fields)

    def serialize(self) -> bytes:
        """The header's 32 bytes."""
        return self.LAYOUT.pack(OwnTag.COVERAGE_DELTA, self.new_len, self.n_runs, self.unique_runs, self.time)


@dataclass(frozen=True, slots=True)
class HistoryHeader:
    """Head of the message that says how the numbers grew.

    Trailing:
    * ``HistorySample`` for each ``samples_len``, in the order of their times
    """

    whole: bool
    """Whether the samples take the place of those sent before, or follow them."""
    samples_len: int

    LAYOUT: ClassVar = struct.Struct("<B?2xI")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the 8 bytes of the header."""
        tag, *fields = _unpack(cls.LAYOUT, data, cls.__name__)
        _check_tag(tag, OwnTag.HISTORY)
        return cls(*fields)

    def serialize(self) -> bytes:
        """The header's 8 bytes."""
        return self.LAYOUT.pack(OwnTag.HISTORY, self.whole, self.samples_len)


@dataclass(frozen=True, slots=True)
class HistorySample:
    """The numbers as they were at one moment."""

    time: float
    """Seconds since 1970."""
    n_runs: int
    unique_runs: int
    covered: int
    """How many points were covered."""
    flags: int = 0

    LAYOUT: ClassVar = struct.Struct("<dQQII")
    START: ClassVar = 1
    """Flag: nobody looked between the sample before and this one, so no line leads from there."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read 32 bytes."""
        return cls(*_unpack(cls.LAYOUT, data, cls.__name__))

    def serialize(self) -> bytes:
        """32 bytes."""
        return self.LAYOUT.pack(self.time, self.n_runs, self.unique_runs, self.covered, self.flags)


@dataclass(frozen=True, slots=True)
class PointsHeader:
    """Head of the answer that tells the details of all points of one coverage map.

    Trailing:
    * address: u64 for each ``points_len``
    * time of first coverage: u32 for each ``points_len``, in seconds since 1970;
      0 if it is not covered, 1 if it was covered before anybody looked
    * function: u32 for each ``points_len``, 0xffffffff if none is known
    * name: u32 offset into the string bytes for each ``functions_len``
    * u8 for each ``string_bytes_len``: names, each with a NUL at its end
    """

    points_len: int
    functions_len: int
    string_bytes_len: int

    LAYOUT: ClassVar = struct.Struct("<B3xIII")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the 16 bytes of the header."""
        tag, *fields = _unpack(cls.LAYOUT, data, cls.__name__)
        _check_tag(tag, OwnTag.POINTS)
        return cls(*fields)

    def serialize(self) -> bytes:
        """The header's 16 bytes."""
        return self.LAYOUT.pack(OwnTag.POINTS, self.points_len, self.functions_len, self.string_bytes_len)


@dataclass(frozen=True, slots=True)
class File:
    """A source file in the tables (Zig: ``std/debug/Coverage.zig``)."""

    directory_index: int
    basename: StringIndex

    LAYOUT: ClassVar = struct.Struct("<II")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read 8 bytes."""
        directory_index, basename = _unpack(cls.LAYOUT, data, cls.__name__)
        return cls(directory_index, StringIndex(basename))

    def serialize(self) -> bytes:
        """8 bytes."""
        return self.LAYOUT.pack(self.directory_index, self.basename)


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """A point in the source (Zig: ``std/debug/Coverage.zig``). Line and column count from 1."""

    file: FileIndex
    line: int
    column: int

    LAYOUT: ClassVar = struct.Struct("<III")
    INVALID: ClassVar["SourceLocation"]
    """A PC of which the debug info knows no place."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read 12 bytes."""
        file, line, column = _unpack(cls.LAYOUT, data, cls.__name__)
        return cls(FileIndex(file), line, column)

    def serialize(self) -> bytes:
        """12 bytes."""
        return self.LAYOUT.pack(self.file, self.line, self.column)


SourceLocation.INVALID = SourceLocation(FileIndex(0xFFFFFFFF), 0, 0)
