"""Layouts that the page ``build-web`` of Zig 0.15 and later shares with its server (``std/Build/abi.zig``).

All integers are little-endian. One WebSocket message is one layout of this module and what its ``Trailing:``
list names. Reports of times, which Zig's server sends if it is told to measure them, are left out: ``Hello``
says that there are none.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from fuzzserver.wire.abi import SourceIndexHeader

__all__ = [
    "REBUILD",
    "BuildStatus",
    "Hello",
    "StatusUpdate",
    "StepStatus",
    "StepUpdate",
    "ToClientTag",
    "fuzz_message",
    "fuzz_source_index",
]

REBUILD = 0
"""First byte of the only message that the page sends."""


class ToClientTag(IntEnum):
    """First byte of each message to the page, which stops at any other."""

    HELLO = 0
    STATUS_UPDATE = 1
    STEP_UPDATE = 2
    FUZZ_SOURCE_INDEX = 3
    FUZZ_COVERAGE_UPDATE = 4
    FUZZ_ENTRY_POINTS = 5


class BuildStatus(IntEnum):
    """What goes on as a whole. While it runs or starts, the page lets nobody ask for a rebuild."""

    IDLE = 0
    WATCHING = 1
    RUNNING = 2
    FUZZ_INIT = 3


class StepStatus(IntEnum):
    """What has become of a step."""

    PENDING = 0
    WIP = 1
    SUCCESS = 2
    FAILURE = 3


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message, and again when there are other steps: the page begins anew then.

    Trailing:
    * u32 bytes of its name for each step
    * the names
    * two bits for each step, its ``StepStatus``, lowest bits first
    """

    status: BuildStatus
    timestamp: int
    """What time it is, in nanoseconds on the server's clock; other timestamps refer to it."""
    names: tuple[str, ...]
    statuses: tuple[StepStatus, ...]

    LAYOUT: ClassVar = struct.Struct("<BBHqI")
    NO_FLAGS: ClassVar = 0
    """The lowest bit would say that there are reports of times."""

    def serialize(self) -> bytes:
        """The whole message."""
        names = [name.encode("utf-8", "backslashreplace") for name in self.names]
        head = self.LAYOUT.pack(ToClientTag.HELLO, self.status, self.NO_FLAGS, self.timestamp, len(names))
        lengths = struct.pack(f"<{len(names)}I", *map(len, names))
        return b"".join((head, lengths, *names, _status_bits(self.statuses)))


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """Something else goes on."""

    status: BuildStatus

    LAYOUT: ClassVar = struct.Struct("<BB")

    def serialize(self) -> bytes:
        """The whole message."""
        return self.LAYOUT.pack(ToClientTag.STATUS_UPDATE, self.status)


@dataclass(frozen=True, slots=True)
class StepUpdate:
    """Something has become of a step."""

    index: int
    """Which of those that the last ``Hello`` named."""
    status: StepStatus

    LAYOUT: ClassVar = struct.Struct("<BIB")

    def serialize(self) -> bytes:
        """The whole message."""
        return self.LAYOUT.pack(ToClientTag.STEP_UPDATE, self.index, self.status)


def fuzz_message(tag: ToClientTag, message: bytes) -> bytes:
    """A message for the page of Zig 0.14 under the tag that it has here: the rest is the same."""
    return bytes((tag,)) + message[1:]


def fuzz_source_index(message: bytes, start_n_runs: int | None) -> bytes:
    """The ``source_index`` for the page of Zig 0.14 as it is here.

    ``start_n_runs``: the runs that there were when fuzzing started; None for a page that expects none.
    """
    head = fuzz_message(ToClientTag.FUZZ_SOURCE_INDEX, message[: SourceIndexHeader.LAYOUT.size])
    runs = b"" if start_n_runs is None else struct.pack("<Q", start_n_runs)
    return head + runs + message[SourceIndexHeader.LAYOUT.size :]


def _status_bits(statuses: Sequence[StepStatus]) -> bytes:
    bits = bytearray((len(statuses) + 3) // 4)
    for index, status in enumerate(statuses):
        bits[index // 4] |= status << index % 4 * 2
    return bytes(bits)
