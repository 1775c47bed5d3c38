"""Talking to a server: plain HTTP, and WebSocket messages taken apart."""

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from websockets.sync.client import ClientConnection, connect

from fuzzserver.access import Limits
from fuzzserver.wire.abi import CoverageUpdateHeader, SourceIndexHeader, ToClientTag

PATIENT = Limits(head_seconds=60.0, body_seconds=60.0, write_seconds=60.0)
"""For servers whose clients are not to be dropped, however slow the machine is."""


@dataclass(frozen=True)
class Answer:
    """A response to one request."""

    status: int
    headers: dict[str, str]
    body: bytes


def request(port: int, path: str, method: str = "GET", **headers: str) -> Answer:
    """One request as a library sends it: for tests of what is answered, not of how that is written."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=240)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return Answer(
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            response.read(),
        )
    finally:
        connection.close()


@contextmanager
def viewer(port: int, path: str = "/", **options) -> Iterator[ClientConnection]:
    """A WebSocket client."""
    options = {"open_timeout": 60, **options}
    with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None, **options) as connection:
        yield connection


@dataclass
class Seen:
    """The latest message of each kind."""

    current_time: bytes = b""
    source_index: bytes = b""
    coverage_update: bytes = b""
    entry_points: bytes = b""
    order: list[str] = field(default_factory=list)

    def take(self, message: bytes) -> str:
        """Keep a message and name its kind."""
        kind = ToClientTag(message[0]).name.lower()
        setattr(self, kind, message)
        self.order.append(kind)
        return kind

    @property
    def tables(self) -> bytes:
        """What follows the header of the source index, whose time is never twice the same."""
        return self.source_index[SourceIndexHeader.LAYOUT.size :]

    @property
    def update(self) -> CoverageUpdateHeader:
        """The counters of the latest update."""
        return CoverageUpdateHeader.parse(self.coverage_update)


def watch(connection: ClientConnection, *kinds: str, timeout: float = 60) -> Seen:
    """Receive until each of ``kinds`` has come (default: all that a page needs).

    TimeoutError if that takes longer than ``timeout`` seconds in all.
    """
    deadline = time.monotonic() + timeout
    wanted = set(kinds or ("current_time", "source_index", "coverage_update", "entry_points"))
    seen = Seen()
    while wanted:
        message = connection.recv(max(0.0, deadline - time.monotonic()))
        if isinstance(message, bytes):
            wanted.discard(seen.take(message))
    return seen
