"""The ``--listen=-`` protocol of Zig 0.14 (Zig: ``std/zig/Server.zig`` and ``std/zig/Client.zig``).

A message in either direction is a header of two u32, tag and body length in bytes, and the body.
The compiler and every test executable speak it; "server" is the child process, "client" is us.
Numbers are little-endian and unaligned.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Self

from fuzzserver.errors import MessageError

__all__ = [
    "ClientTag",
    "EmitDigest",
    "FileSystemInput",
    "Message",
    "MessageReader",
    "PathPrefix",
    "ServerTag",
    "TestMetadata",
    "TestResults",
    "client_message",
    "parse_emit_bin_path",
    "parse_file_system_inputs",
    "parse_u64",
]


class ServerTag(IntEnum):
    """Messages of the child process, in the numbering of Zig 0.14."""

    ZIG_VERSION = 0
    ERROR_BUNDLE = 1
    EMIT_DIGEST = 2
    TEST_METADATA = 3
    TEST_RESULTS = 4
    FILE_SYSTEM_INPUTS = 5
    COVERAGE_ID = 6
    FUZZ_START_ADDR = 7


class ClientTag(IntEnum):
    """Messages to the child process, in the numbering of Zig 0.14."""

    EXIT = 0
    UPDATE = 1
    RUN = 2
    HOT_UPDATE = 3
    QUERY_TEST_METADATA = 4
    RUN_TEST = 5
    START_FUZZING = 6


HEADER = struct.Struct("<II")
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")

MAX_BODY = 256 * 1024 * 1024
"""No real message comes near this; a larger length is a lie or noise on the pipe."""


def client_message(tag: ClientTag, *args: int) -> bytes:
    """A message to the child: ``args`` are u32 each (the test index of ``run_test``, say)."""
    body = b"".join(U32.pack(arg) for arg in args)
    return HEADER.pack(tag, len(body)) + body


@dataclass(frozen=True, slots=True)
class Message:
    """One whole message of the child. Tags that we do not know are kept as plain numbers."""

    tag: int
    body: bytes


class MessageReader:
    """Cuts a byte stream into messages, however the stream is split.

    ``feed`` returns the messages that the new bytes complete; ``finish`` says whether the stream
    ended at the end of a message.
    """

    def __init__(self, max_body: int = MAX_BODY) -> None:
        """``max_body``: bytes of a body, more than which are absurd."""
        self._max_body = max_body
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes, give the messages completed by them; MessageError if a length is absurd."""
        self._buffer += data
        messages = []
        position = 0
        while len(self._buffer) - position >= HEADER.size:
            tag, bytes_len = HEADER.unpack_from(self._buffer, position)
            if bytes_len > self._max_body:
                raise MessageError(
                    f"message with tag {tag} claims a body of {bytes_len} bytes; "
                    f"the limit is {self._max_body}"
                )
            end = position + HEADER.size + bytes_len
            if end > len(self._buffer):
                break
            messages.append(Message(tag, bytes(self._buffer[position + HEADER.size : end])))
            position = end
        del self._buffer[:position]
        return messages

    def finish(self) -> None:
        """The stream has ended: MessageError with the counts when it ended within a message."""
        have = len(self._buffer)
        if have == 0:
            return
        if have < HEADER.size:
            raise MessageError(f"stream ended after {have} of the {HEADER.size} bytes of a message header")
        tag, bytes_len = HEADER.unpack_from(self._buffer)
        raise MessageError(
            f"stream ended after {have - HEADER.size} of the {bytes_len} bytes of a message body (tag {tag})"
        )


def parse_u64(body: bytes, name: str) -> int:
    """The body of ``coverage_id`` and ``fuzz_start_addr``: one u64. ``name`` is for the error."""
    if len(body) != U64.size:
        raise MessageError(f"{name} must have {U64.size} bytes, got {len(body)}")
    (value,) = U64.unpack(body)
    assert isinstance(value, int)
    return value


@dataclass(frozen=True, slots=True)
class EmitDigest:
    """Where the compiler put its result: ``<cache>/o/<digest in hex>/``.

    Trailing:
    * the digest: 16 raw bytes (Zig's comment calls it hex; what is sent is not)
    """

    cache_hit: bool
    digest: bytes

    SIZE: ClassVar = 17

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read flag byte and digest."""
        if len(body) != cls.SIZE:
            raise MessageError(f"emit_digest must have {cls.SIZE} bytes, got {len(body)}")
        return cls(bool(body[0] & 1), body[1:])

    def serialize(self) -> bytes:
        """Flag byte and digest."""
        return bytes([self.cache_hit]) + self.digest


def parse_emit_bin_path(body: bytes) -> tuple[bool, str]:
    """Before 0.14, tag 2 was ``emit_bin_path``: the flag byte, then the path of the result.

    Returns (cache hit, path). The two forms differ in length unless a path has exactly 16 bytes,
    and no path of a compiler cache is that short.
    """
    if len(body) < 2:
        raise MessageError(f"emit_bin_path must have at least 2 bytes, got {len(body)}")
    return bool(body[0] & 1), body[1:].decode("utf-8", "surrogateescape")


class PathPrefix(IntEnum):
    """The folder that a ``file_system_inputs`` path is relative to."""

    CWD = 0
    ZIG_LIB = 1
    LOCAL_CACHE = 2
    GLOBAL_CACHE = 3


@dataclass(frozen=True, slots=True)
class FileSystemInput:
    """A file that the compiler read."""

    prefix: PathPrefix
    sub_path: str


def parse_file_system_inputs(body: bytes) -> list[FileSystemInput]:
    """NUL-separated strings; the first byte of each is its prefix plus one."""
    inputs = []
    for entry in body.split(b"\0"):
        if not entry:
            continue
        try:
            prefix = PathPrefix(entry[0] - 1)
        except ValueError:
            raise MessageError(f"file_system_inputs has unknown path prefix {entry[0]}") from None
        inputs.append(FileSystemInput(prefix, entry[1:].decode("utf-8", "surrogateescape")))
    return inputs


@dataclass(frozen=True, slots=True)
class TestMetadata:
    """The tests of an executable.

    Trailing:
    * name: u32 offset into the string bytes for each ``tests_len``
    * expected panic message: u32 offset, 0 for none, for each ``tests_len``
    * string bytes: u8 for each ``string_bytes_len``
    """

    __test__: ClassVar = False  # For pytest: no test class.

    names: tuple[str, ...]

    LAYOUT: ClassVar = struct.Struct("<II")

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read the names; every offset and length is checked."""
        if len(body) < cls.LAYOUT.size:
            raise MessageError(f"test_metadata needs {cls.LAYOUT.size} bytes, got {len(body)}")
        string_bytes_len, tests_len = cls.LAYOUT.unpack_from(body)
        strings_start = cls.LAYOUT.size + 2 * U32.size * tests_len
        if len(body) != strings_start + string_bytes_len:
            raise MessageError(
                f"test_metadata with {tests_len} tests and {string_bytes_len} string bytes "
                f"must have {strings_start + string_bytes_len} bytes, got {len(body)}"
            )
        strings = body[strings_start:]
        offsets = struct.unpack_from(f"<{tests_len}I", body, cls.LAYOUT.size)
        return cls(tuple(_string_at(strings, offset) for offset in offsets))

    @classmethod
    def serialize(cls, names: Iterable[str]) -> bytes:
        """The body for ``names``, none of which expects a panic."""
        strings = bytearray(b"\0")
        offsets = []
        for name in names:
            offsets.append(len(strings))
            strings += name.encode("utf-8", "surrogateescape") + b"\0"
        words = struct.pack(f"<{len(offsets) * 2}I", *offsets, *([0] * len(offsets)))
        return cls.LAYOUT.pack(len(strings), len(offsets)) + words + bytes(strings)


def _string_at(strings: bytes, offset: int) -> str:
    end = strings.find(b"\0", offset)
    if end < 0:
        raise MessageError(f"string at offset {offset} does not end within {len(strings)} string bytes")
    return strings[offset:end].decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class TestResults:
    """How one test went. ``fuzz`` tells that it called ``std.testing.fuzz``."""

    __test__: ClassVar = False  # For pytest: no test class.

    index: int
    fail: bool
    skip: bool
    leak: bool
    fuzz: bool
    log_err_count: int

    LAYOUT: ClassVar = struct.Struct("<II")

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read index and flags: four bits, then 28 bits of logged errors."""
        if len(body) != cls.LAYOUT.size:
            raise MessageError(f"test_results must have {cls.LAYOUT.size} bytes, got {len(body)}")
        index, flags = cls.LAYOUT.unpack(body)
        fail, skip, leak, fuzz = (bool(flags >> bit & 1) for bit in range(4))
        return cls(index, fail, skip, leak, fuzz, log_err_count=flags >> 4)

    def serialize(self) -> bytes:
        """Index and flags."""
        bits = (self.fail, self.skip, self.leak, self.fuzz)
        flags = sum(bit << position for position, bit in enumerate(bits)) | self.log_err_count << 4
        return self.LAYOUT.pack(self.index, flags)
