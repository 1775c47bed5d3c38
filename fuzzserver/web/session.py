"""What one viewer was sent, and what it must be sent next (Zig: ``serveWebSocket``).

*Runs on* the client's connection thread. *Takes* the coverage files and news of what goes on.
*Gives* messages: a new update is made when the last one has left, of what is newest then.
"""

import time
from collections.abc import Callable

from wsproto.events import BytesMessage, TextMessage

from fuzzserver.coverage.coverage_map import (
    CoverageMap,
    coverage_delta_message,
    coverage_update_message,
)
from fuzzserver.coverage.history import Cursor
from fuzzserver.coverage.queue import CoverageFiles
from fuzzserver.coverage.seen_pcs import SeenPcsSnapshot
from fuzzserver.web.news import News
from fuzzserver.web.web_socket import WebSocket
from fuzzserver.wire.abi import CoverageDeltaHeader, CurrentTime

__all__ = ["SUBPROTOCOL", "Session"]

SUBPROTOCOL = "fuzzserver"
"""A client that asks for it gets what goes on as JSON text, and messages that Zig's page does not know."""

UPDATE_INTERVAL = 0.5
"""Seconds between two looks at the coverage file, as in Zig."""


class Session:
    """The conversation with one viewer, in which it only listens."""

    def __init__(
        self,
        *,
        coverage_files: CoverageFiles,
        read: Callable[[CoverageMap], SeenPcsSnapshot],
        now: Callable[[], int],
        target: int | None,
        news: News | None,
    ) -> None:
        """Args:
        read: gives how far the coverage of a map is.
        target: the coverage id of the map to send; None for the first target's newest one.
        news: what goes on; None for clients that know nothing beyond Zig's messages.
        """
        self._coverage_files = coverage_files
        self._read = read
        self._now = now
        self._target = target
        self._news = news
        # What the client has seen.
        self._greeted = False
        self._sent_map: CoverageMap | None = None
        self._sent_snapshot: SeenPcsSnapshot | None = None
        self._sent_entry_points: tuple[int, ...] = ()
        self._sent_history: Cursor | None = None

    def hear(self, web_socket: WebSocket, message: TextMessage | BytesMessage) -> None:
        """Viewers have nothing to say: what they send is dropped."""

    def speak(self, web_socket: WebSocket) -> float:
        """Send what the client has not seen yet, in the order that Zig's page relies on."""
        next_look = time.monotonic() + UPDATE_INTERVAL
        if not self._greeted:
            self._greeted = True
            web_socket.send(BytesMessage(CurrentTime(self._now()).serialize()))
        coverage_map = self._wanted_map()
        if self._news is not None:
            for text in self._news.texts(coverage_map):
                web_socket.send(TextMessage(text))
        if coverage_map is not None:
            self._send_coverage(web_socket, coverage_map)
        return next_look

    def _send_coverage(self, web_socket: WebSocket, coverage_map: CoverageMap) -> None:
        if coverage_map is not self._sent_map:
            web_socket.send(BytesMessage(coverage_map.source_index))
            self._sent_map = coverage_map
            self._sent_snapshot = None
            self._sent_entry_points = ()
            self._sent_history = None
        snapshot = self._read(coverage_map)
        if snapshot != self._sent_snapshot:
            web_socket.send(BytesMessage(self._update_message(snapshot)))
            self._sent_snapshot = snapshot
        entry_points = coverage_map.entry_points
        if entry_points != self._sent_entry_points:
            web_socket.send(BytesMessage(coverage_map.entry_points_message()))
            self._sent_entry_points = entry_points
        if self._news is not None:
            self._sent_history, _, history = coverage_map.history.since(self._sent_history)
            if history is not None:
                web_socket.send(BytesMessage(history))

    def _update_message(self, snapshot: SeenPcsSnapshot) -> bytes:
        """What says the client how far coverage is now: what is new of it, where that is shorter."""
        if self._news is not None and self._sent_snapshot is not None:
            # A worker that joins brings runs and points along that are not of now.
            joined = snapshot.files != self._sent_snapshot.files
            moment = CoverageDeltaHeader.UNKNOWN_TIME if joined else time.time()
            delta = coverage_delta_message(self._sent_snapshot, snapshot, moment)
            if delta is not None:
                return delta
        return coverage_update_message(snapshot)

    def _wanted_map(self) -> CoverageMap | None:
        if self._target is None:
            return self._coverage_files.first()
        return self._coverage_files.get(self._target)
