"""The ``--listen=-`` protocol (Zig: ``std/zig/Server.zig`` and ``std/zig/Client.zig``).

A message in either direction is a header of two u32, tag and body length in bytes, and the body.
The compiler and every test executable speak it; "server" is the child process, "client" is us.
Numbers are little-endian and unaligned. Tags of the child's messages, and some bodies, are not the same in
all releases: ``release`` knows which is which.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import ClassVar, Self

from fuzzserver.errors import MessageError

__all__ = [
    "BroadcastFuzzInput",
    "ClientTag",
    "CoverageId",
    "EmitDigest",
    "FileSystemInput",
    "Message",
    "MessageReader",
    "PathPrefix",
    "ServerTag",
    "StartFuzzing",
    "TestMetadata",
    "TestResults",
    "client_bytes",
    "client_message",
    "parse_emit_bin_path",
    "parse_file_system_inputs",
    "parse_u32",
    "parse_u64",
]


class ServerTag(Enum):
    """What a message of the child process is about; its number depends on the release."""

    ZIG_VERSION = "zig_version"
    ERROR_BUNDLE = "error_bundle"
    EMIT_DIGEST = "emit_digest"
    TEST_METADATA = "test_metadata"
    TEST_STARTED = "test_started"
    TEST_RESULTS = "test_results"
    FILE_SYSTEM_INPUTS = "file_system_inputs"
    COVERAGE_ID = "coverage_id"
    FUZZ_START_ADDR = "fuzz_start_addr"
    FUZZ_TEST_CHANGE = "fuzz_test_change"
    BROADCAST_FUZZ_INPUT = "broadcast_fuzz_input"
    TIME_REPORT = "time_report"
    DISCOVERED_INPUTS = "discovered_inputs"
    CONFIG = "config"


class ClientTag(IntEnum):
    """Messages to the child process; each release only adds some."""

    EXIT = 0
    UPDATE = 1
    RUN = 2
    HOT_UPDATE = 3
    QUERY_TEST_METADATA = 4
    RUN_TEST = 5
    START_FUZZING = 6
    NEW_FUZZ_INPUT = 7


HEADER = struct.Struct("<II")
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")

MAX_BODY = 256 * 1024 * 1024
"""No real message comes near this; a larger length is a lie or noise on the pipe."""


def client_message(tag: ClientTag, *args: int) -> bytes:
    """A message to the child: ``args`` are u32 each (the test index of ``run_test``, say)."""
    return client_bytes(tag, b"".join(U32.pack(arg) for arg in args))


def client_bytes(tag: ClientTag, body: bytes) -> bytes:
    """A message to the child with any body."""
    return HEADER.pack(tag, len(body)) + body


@dataclass(frozen=True, slots=True)
class StartFuzzing:
    """What an instance is to fuzz, from Zig 0.16 on: the body of ``start_fuzzing``.

    Trailing:
    * for each test: u32 length of its name, the name
    """

    limit_kind: int
    """0: for ever; 1: for so many runs."""
    amount: int
    """The number of the instance, or of runs."""
    names: tuple[str, ...]

    LAYOUT: ClassVar = struct.Struct("<BQI")

    def serialize(self) -> bytes:
        """Kind, amount, and the names."""
        names = [name.encode("utf-8", "surrogateescape") for name in self.names]
        head = self.LAYOUT.pack(self.limit_kind, self.amount, len(names))
        return head + b"".join(U32.pack(len(name)) + name for name in names)


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
        messages: list[Message] = []
        position = 0
        while len(self._buffer) - position >= HEADER.size:
            tag, bytes_len = HEADER.unpack_from(self._buffer, position)
            if bytes_len > self._max_body:
                if messages:
                    break  # They are good; the next call comes to this one again.
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
    """The body of ``fuzz_start_addr``: one u64. ``name`` is for the error."""
    return _parse_int(U64, body, name)


def parse_u32(body: bytes, name: str) -> int:
    """The body of ``fuzz_test_change``: one u32. ``name`` is for the error."""
    return _parse_int(U32, body, name)


def _parse_int(layout: struct.Struct, body: bytes, name: str) -> int:
    if len(body) != layout.size:
        raise MessageError(f"{name} must have {layout.size} bytes, got {len(body)}")
    (value,) = layout.unpack(body)
    assert isinstance(value, int)
    return value


@dataclass(frozen=True, slots=True)
class CoverageId:
    """Which coverage file a worker writes, and, from Zig 0.16 on, what was in it before."""

    id: int
    n_runs: int = 0
    unique_runs: int = 0
    seen_pcs: int = 0

    LAYOUT: ClassVar = struct.Struct("<QQQQ")

    @classmethod
    def parse(cls, body: bytes, size: int) -> Self:
        """Read ``size`` bytes: the id, or all four."""
        if len(body) != size:
            raise MessageError(f"coverage_id must have {size} bytes, got {len(body)}")
        return cls(*struct.unpack(f"<{size // U64.size}Q", body))


@dataclass(frozen=True, slots=True)
class BroadcastFuzzInput:
    """An input that an instance found, for the others: also the body of ``new_fuzz_input``.

    Trailing:
    * the input
    """

    index: int
    """Of its test, in the list of ``start_fuzzing``."""
    data: bytes

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read the index; what follows is the input."""
        if len(body) < U32.size:
            raise MessageError(f"broadcast_fuzz_input needs {U32.size} bytes, got {len(body)}")
        (index,) = U32.unpack_from(body)
        return cls(index, body[U32.size :])

    def serialize(self) -> bytes:
        """The index and the input."""
        return U32.pack(self.index) + self.data


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


class PathPrefix(Enum):
    """The folder that a ``file_system_inputs`` path is relative to."""

    CWD = "cwd"
    ZIG_LIB = "zig_lib"
    LOCAL_CACHE = "local_cache"
    GLOBAL_CACHE = "global_cache"
    BUILD_ROOT = "build_root"


@dataclass(frozen=True, slots=True)
class FileSystemInput:
    """A file that the compiler read."""

    prefix: PathPrefix
    sub_path: str


def parse_file_system_inputs(body: bytes, prefixes: Mapping[int, PathPrefix]) -> list[FileSystemInput]:
    """NUL-separated strings; the first byte of each is one of ``prefixes``. A file is named once."""
    inputs: dict[FileSystemInput, None] = {}
    for entry in body.split(b"\0"):
        if not entry:
            continue
        prefix = prefixes.get(entry[0])
        if prefix is None:
            raise MessageError(f"file_system_inputs has unknown path prefix {entry[0]}")
        inputs[FileSystemInput(prefix, entry[1:].decode("utf-8", "surrogateescape"))] = None
    return list(inputs)


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
    WIDE_LAYOUT: ClassVar = struct.Struct("<IQ")

    @classmethod
    def parse_with_status(cls, body: bytes) -> Self:
        """As since Zig 0.16: index and flags. Two bits say pass, fail or skip; then one for a fuzz test, 30
        of logged errors, 31 of leaks."""
        if len(body) != cls.WIDE_LAYOUT.size:
            raise MessageError(f"test_results must have {cls.WIDE_LAYOUT.size} bytes, got {len(body)}")
        index, flags = cls.WIDE_LAYOUT.unpack(body)
        status = flags & 3
        log_err_count = flags >> 3 & (1 << 30) - 1
        return cls(index, status == 1, status == 2, flags >> 33 != 0, bool(flags & 4), log_err_count)

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
