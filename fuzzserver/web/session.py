"""What a viewer was sent, and what it must be sent next (Zig: ``serveWebSocket``, ``sendUpdate``).

*Runs on* the thread ``hub``, and wherever a static page is made. *Takes* a site: coverage files and what goes
on. *Gives* speeches: the bytes between what a viewer was told and how things are. Most viewers were told the
same, and are told the same next: such a speech is made once, however many they are.
"""

import time
from typing import NamedTuple

from fuzzserver.coverage.coverage_map import (
    CoverageMap,
    coverage_delta_message,
    coverage_update_message,
)
from fuzzserver.coverage.history import Cursor
from fuzzserver.coverage.seen_pcs import SeenPcsSnapshot
from fuzzserver.web.build_web import BuildWebTold, build_web_messages
from fuzzserver.web.frames import Frames
from fuzzserver.web.news import Bulletin, make_bulletin, news_texts
from fuzzserver.web.site import Site
from fuzzserver.wire.abi import CoverageDeltaHeader, CurrentTime

__all__ = ["AnyTold", "Moment", "Speech", "Told"]


class Told(NamedTuple):
    """What one viewer was told. Those who were told the same are equal."""

    target: int | None
    """The coverage id of the map that it wants; None for the first target's newest one."""
    is_ours: bool
    """Whether it knows more than Zig's messages."""
    index_id: str | None = None
    """The index that it has kept from an earlier connection."""
    greeted: bool = False
    coverage_map: CoverageMap | None = None
    snapshot: SeenPcsSnapshot | None = None
    entry_points: tuple[int, ...] = ()
    history: Cursor | None = None
    bulletin: Bulletin | None = None
    log_seq: int | None = None


AnyTold = Told | BuildWebTold
"""The same for each kind of page."""


class Speech(NamedTuple):
    """What to send, and what is told by that."""

    data: list[bytes | memoryview]
    """Whole frames, in few pieces; none if there is nothing to say."""
    told: AnyTold


class Moment:
    """How things are now, looked at once for all viewers."""

    def __init__(self, site: Site, before: "Moment | None" = None) -> None:
        """``before``: what has not changed since then is the same object, so that viewers stay equal."""
        self._site = site
        self._time = time.time()
        self._snapshots: dict[CoverageMap, SeenPcsSnapshot] = {}
        self._bulletins: dict[CoverageMap | None, Bulletin] = {}
        # Not ``before`` itself, which would keep all moments there ever were.
        self._snapshots_before = {} if before is None else before._snapshots
        self._bulletins_before = {} if before is None else before._bulletins
        self._speeches: dict[AnyTold, Speech] = {}

    def speech(self, told: AnyTold) -> Speech:
        """What to say to a viewer who was told this, in the order that Zig's page relies on."""
        speech = self._speeches.get(told)
        if speech is None:
            speech = self._speeches[told] = self._speak(told)
        return speech

    def _speak(self, told: AnyTold) -> Speech:
        messages: list[bytes | str]
        now: AnyTold
        messages, now = self.messages(told) if isinstance(told, Told) else build_web_messages(self, told)
        frames = Frames()
        for message in messages:
            frames.add(message)
        return Speech(frames.pieces(), now)

    def messages(self, told: Told) -> tuple[list[bytes | str], Told]:
        """What a viewer who was told this is to be told, and what it was told then."""
        messages: list[bytes | str] = []
        coverage_map = self.wanted_map(told.target)
        if not told.greeted:
            messages.append(CurrentTime(self.now).serialize())
            told = told._replace(greeted=True)
        if told.is_ours:
            bulletin = self.bulletin(coverage_map)
            log_seq, whole, entries = self._site.log_book.since(told.log_seq or 0)
            log = None if told.log_seq == log_seq else (whole, entries)
            messages += news_texts(told.bulletin, bulletin, log)
            told = told._replace(bulletin=bulletin, log_seq=log_seq)
        if coverage_map is not None:
            told = self._add_coverage(told, coverage_map, messages)
        return messages, told

    def _add_coverage(self, told: Told, coverage_map: CoverageMap, messages: list[bytes | str]) -> Told:
        if coverage_map is not told.coverage_map:
            if coverage_map.index_id != told.index_id:
                messages.append(coverage_map.source_index)
            told = Told(
                told.target,
                told.is_ours,
                greeted=True,
                coverage_map=coverage_map,
                bulletin=told.bulletin,
                log_seq=told.log_seq,
            )
        snapshot = self.snapshot(coverage_map)
        if snapshot != told.snapshot:
            messages.append(self._update_message(told, snapshot))
        entry_points = coverage_map.entry_points
        if entry_points != told.entry_points:
            messages.append(coverage_map.entry_points_message())
        cursor = told.history
        if told.is_ours:
            cursor, _, history = coverage_map.history.since(cursor)
            if history is not None:
                messages.append(history)
        return told._replace(snapshot=snapshot, entry_points=entry_points, history=cursor)

    def _update_message(self, told: Told, snapshot: SeenPcsSnapshot) -> bytes:
        """What says how far coverage is now: what is new of it, where that is shorter."""
        if told.is_ours and told.snapshot is not None:
            # A worker that joins brings runs and points along that are not of now.
            joined = snapshot.files != told.snapshot.files
            when = CoverageDeltaHeader.UNKNOWN_TIME if joined else self._time
            delta = coverage_delta_message(told.snapshot, snapshot, when)
            if delta is not None:
                return delta
        return coverage_update_message(snapshot)

    def snapshot(self, coverage_map: CoverageMap) -> SeenPcsSnapshot:
        """How far the coverage of a map is."""
        snapshot = self._snapshots.get(coverage_map)
        if snapshot is None:
            snapshot, before = coverage_map.read(), self._snapshots_before.get(coverage_map)
            if before is not None and snapshot == before:
                snapshot = before
            self._snapshots[coverage_map] = snapshot
        return snapshot

    def bulletin(self, coverage_map: CoverageMap | None) -> Bulletin:
        """What goes on, for those who are shown this map."""
        bulletin = self._bulletins.get(coverage_map)
        if bulletin is None:
            site = self._site
            bulletin = make_bulletin(site.status(), site.details(coverage_map), coverage_map)
            before = self._bulletins_before.get(coverage_map)
            if before is not None and bulletin.says_the_same_as(before):
                bulletin = before
            self._bulletins[coverage_map] = bulletin
        return bulletin

    @property
    def now(self) -> int:
        """What time it is, in nanoseconds on the server's clock."""
        return self._site.now()

    def wanted_map(self, target: int | None) -> CoverageMap | None:
        """The map with this coverage id, or the newest one of the first target."""
        coverage_files = self._site.coverage_files
        return coverage_files.first() if target is None else coverage_files.get(target)
