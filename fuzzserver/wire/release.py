"""What changes from one release of Zig to the next, as data.

The first message of a compiler and of a test executable is its version, and that chooses the row of the
table by which all else is read. (Zig: ``std/zig/Server.zig``, ``std/zig/Client.zig`` of each release.)
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from fuzzserver.wire.messages import (
    MAX_BODY,
    Message,
    MessageReader,
    PathPrefix,
    ServerTag,
    TestResults,
)

__all__ = [
    "NEWEST",
    "OLDEST",
    "RELEASES",
    "ServerMessage",
    "ServerReader",
    "ZigRelease",
    "is_newer",
    "number_of",
    "release_of",
]


@dataclass(frozen=True, slots=True, eq=False)
class ZigRelease:
    """How one release speaks and behaves."""

    number: tuple[int, int]
    """``(0, 14)`` for 0.14.0 and 0.14.1."""

    server_tags: Mapping[int, ServerTag] = field(repr=False)
    """What the tags of a child's messages mean. The tags of ours are the same in all releases."""

    path_prefixes: Mapping[int, PathPrefix] = field(repr=False)
    """What the first byte of each string in ``file_system_inputs`` means."""

    parse_test_results: Callable[[bytes], TestResults] = field(repr=False)

    coverage_id_size: int
    """Bytes of a ``coverage_id``: the id alone, or with the counts of earlier runs behind it."""

    fuzzes: Literal["one test", "all tests"]
    """Whether a process fuzzes the test that ``start_fuzzing`` has the index of, and says its
    ``coverage_id`` before it is asked; or all tests that are named there, and says nothing before.

    In the second case one process runs for each core: an instance, with a number.
    """

    stores_lengths: bool
    """Whether files of inputs are as long as the inputs, and the one that is being tried lies in
    ``f/inN`` with a header. Else they are padded to pages."""

    reads_smith: bool
    """Whether a test is given a ``std.testing.Smith``, which makes values of the input's bytes, and not
    the bytes."""

    index_has_runs: bool
    """Whether its page ``build-web`` expects in the index of sources how many runs there were when fuzzing
    started. Releases before 0.15 have no such page."""

    breaks_error_tracing: bool
    """Whether Zig's own test runner does not compile for the fuzzer where errors are traced, as in Debug."""

    @property
    def name(self) -> str:
        """As people write it."""
        return ".".join(map(str, self.number))


_TAGS_0_14 = (
    ServerTag.ZIG_VERSION,
    ServerTag.ERROR_BUNDLE,
    ServerTag.EMIT_DIGEST,
    ServerTag.TEST_METADATA,
    ServerTag.TEST_RESULTS,
    ServerTag.FILE_SYSTEM_INPUTS,
    ServerTag.COVERAGE_ID,
    ServerTag.FUZZ_START_ADDR,
)
_TAGS_0_16 = (
    *_TAGS_0_14[:5],
    ServerTag.TEST_STARTED,
    *_TAGS_0_14[5:],
    ServerTag.FUZZ_TEST_CHANGE,
    ServerTag.BROADCAST_FUZZ_INPUT,
    ServerTag.TIME_REPORT,
)

_PREFIXES_0_14 = (PathPrefix.CWD, PathPrefix.ZIG_LIB, PathPrefix.LOCAL_CACHE, PathPrefix.GLOBAL_CACHE)


_0_14 = ZigRelease(
    number=(0, 14),
    server_tags=dict(enumerate(_TAGS_0_14)),
    path_prefixes=dict(enumerate(_PREFIXES_0_14, 1)),
    parse_test_results=TestResults.parse,
    coverage_id_size=8,
    fuzzes="one test",
    stores_lengths=False,
    reads_smith=False,
    index_has_runs=False,
    breaks_error_tracing=False,
)
_0_15 = replace(
    _0_14,
    number=(0, 15),
    server_tags=dict(enumerate((*_TAGS_0_14, ServerTag.TIME_REPORT))),
)
_0_16 = replace(
    _0_15,
    number=(0, 16),
    server_tags=dict(enumerate(_TAGS_0_16)),
    parse_test_results=TestResults.parse_with_status,
    coverage_id_size=32,
    fuzzes="all tests",
    stores_lengths=True,
    reads_smith=True,
    index_has_runs=True,
    breaks_error_tracing=True,
)
_0_17 = replace(
    _0_16,
    number=(0, 17),
    server_tags=dict(enumerate((*_TAGS_0_16, ServerTag.DISCOVERED_INPUTS, ServerTag.CONFIG))),
    path_prefixes=dict(enumerate((*_PREFIXES_0_14, PathPrefix.BUILD_ROOT), 1)),
    breaks_error_tracing=False,
)

RELEASES = (_0_14, _0_15, _0_16, _0_17)
"""All that are known, the oldest first. Newer ones are taken for the last."""
OLDEST, NEWEST = RELEASES[0], RELEASES[-1]

# The rest is of one line, and of bytes that can be shown anywhere.
_VERSION = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})\.[0-9][!-~]{0,100}")


def number_of(version: str) -> tuple[int, int] | None:
    """The first two of ``0.14.1``, say, or of ``0.16.0-dev.3061+9b1eaad13``; None if it is no version."""
    match = _VERSION.fullmatch(version)
    return match and (int(match[1]), int(match[2]))


def release_of(version: str) -> ZigRelease | None:
    """The release that speaks as ``version`` does; None if it is older than all known ones, or no version.

    Versions of the future are taken for the newest: ``is_newer`` tells.
    """
    number = number_of(version)
    if number is None:
        return None
    return next((release for release in reversed(RELEASES) if release.number <= number), None)


def is_newer(version: str) -> bool:
    """Whether ``version`` is of a release that nobody has tried."""
    number = number_of(version)
    return number is not None and number > NEWEST.number


@dataclass(frozen=True, slots=True)
class ServerMessage:
    """One message of the child, and what it means in its release; None if we do not know its tag."""

    tag: ServerTag | None
    body: bytes


class ServerReader:
    """Cuts what a child writes into messages, and reads their tags as its release numbers them."""

    def __init__(self, release: ZigRelease = OLDEST, max_body: int = MAX_BODY) -> None:
        """``release`` holds until the child tells its version. ``max_body``: bytes, more are absurd."""
        self._reader = MessageReader(max_body)
        self.release = release

    def feed(self, data: bytes) -> Iterator[ServerMessage]:
        """Take bytes, give the messages completed by them; then MessageError if a length is absurd."""
        while messages := self._reader.feed(data):
            yield from map(self._read, messages)
            data = b""

    def _read(self, message: Message) -> ServerMessage:
        tag = self.release.server_tags.get(message.tag)
        if tag is ServerTag.ZIG_VERSION:
            self.release = release_of(message.body.decode("utf-8", "replace")) or self.release
        return ServerMessage(tag, message.body)

    def finish(self) -> None:
        """The stream has ended: MessageError with the counts when it ended within a message."""
        self._reader.finish()
