"""How the coverage of one executable grew: samples of the numbers, marks, and when each point was reached.

*Fed by* the thread ``history``, which shows it a snapshot every half second. *Read by* the sessions, each
with a cursor of its own, so that each client gets what it has not got yet. All of it is bounded, however
long the fuzzer runs.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from array import array
from dataclasses import replace
from itertools import compress
from pathlib import Path

from fuzzserver.coverage.history_file import Mark, StoredHistory, load_history, save_history
from fuzzserver.coverage.seen_pcs import SeenPcsSnapshot
from fuzzserver.errors import InputError
from fuzzserver.wire.abi import HistoryHeader, HistorySample

__all__ = [
    "MAX_MARKS",
    "MAX_SAMPLES",
    "NOT_COVERED",
    "UNKNOWN_TIME",
    "Cursor",
    "History",
    "newly_covered",
]

log = logging.getLogger(__name__)

MAX_SAMPLES = 4000
"""More than these, and the older half is thinned out."""

MAX_MARKS = 500
"""The oldest marks go first."""

SAMPLE_INTERVAL = 0.9
"""Seconds that lie between two samples at least."""

SAVE_INTERVAL = 10.0
"""Seconds between two writes of the file at least; what came since is lost if the process is killed."""

MAX_TEXT = 1000
"""Characters of a mark's text that are kept."""

NOT_COVERED = 0
UNKNOWN_TIME = 1
"""Instead of the time of first coverage: it was covered while nobody looked."""

_U32_MAX = 0xFFFFFFFF

_ONES = [array("I", [byte >> bit & 1 for bit in range(8)]).tobytes() for byte in range(256)]
"""What the eight points of each byte of seen bits are."""

Cursor = tuple[int, int]
"""What a reader has got: the number of the series of samples, and how many of them."""


class History:
    """The history of one coverage map. May be used from any thread."""

    def __init__(self, points_len: int, path: Path | None) -> None:
        """``path`` is where it is kept from one start of the server to the next; None to keep it in memory.

        Nothing is read or written before ``begin``.
        """
        self.path = path
        # Held while a snapshot is taken in, and while the file is read or written: one at a time.
        self._record_lock = threading.Lock()
        # Guards all that follows, for short: senders wait for it.
        self._lock = threading.Lock()
        self._samples: list[HistorySample] = []
        # Another one each time that samples were taken away, and readers need all of them anew.
        self._series = 0
        self._marks: tuple[Mark, ...] = ()
        self._first_covered = array("I", bytes(4 * points_len))
        # Times, by point, that were kept of points that no worker of this start has brought along yet.
        self._waiting: dict[int, int] = {}
        self._changed = False
        # Only with ``_record_lock`` held.
        self._begun = False
        self._seen_bits = b""
        self._covered = 0
        self._looked = False
        self._last_look = 0.0
        self._next_save = 0.0
        self._write_failed = False

    def begin(self, moment: float, kind: str, text: str) -> None:
        """Go on from what was kept, if anything can be read, and set a mark there.

        The next ``record`` is the first after a time that nobody knows anything of. May be called again,
        when the map is shown again after another build.
        """
        with self._record_lock:
            stored = None if self._begun else self._load()
            self._begun = True
            if stored is not None:
                with self._lock:
                    self._samples = stored.samples[-MAX_SAMPLES:]
                    self._marks = stored.marks[-MAX_MARKS:]
                    self._first_covered = stored.first_covered
                    self._series += 1
            self._looked = False
        self.mark(moment, kind, text)

    def _load(self) -> StoredHistory | None:
        return None if self.path is None else load_history(self.path, len(self._first_covered))

    def look_anew(self) -> None:
        """From now on there is more to see: what the next snapshot has more than the last is older than it.

        So it is when one more worker is counted, who may have run for long.
        """
        with self._record_lock:
            self._looked = False

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The oldest first. Replaced as a whole when it changes."""
        return self._marks

    def mark(self, moment: float, kind: str, text: str) -> None:
        """Note that something has happened: ``start``, ``restart`` or ``build``."""
        with self._lock:
            self._marks = (*self._marks, Mark(moment, kind, text[:MAX_TEXT]))[-MAX_MARKS:]
            self._changed = True

    def record(self, moment: float, snapshot: SeenPcsSnapshot) -> None:
        """Take in how things are at ``moment``, in seconds since 1970.

        There is a new sample if something has changed and the last one is old enough.
        """
        with self._record_lock:
            with self._lock:
                if self._samples and self._samples[-1].time > moment:
                    self._move_back(self._samples[-1].time - moment)
            before, self._seen_bits = self._seen_bits, snapshot.seen_bits
            if not before:
                self._take_in_first(snapshot.seen_bits)
            elif before != snapshot.seen_bits:
                self._take_in_changes(moment, before, snapshot.seen_bits)
            with self._lock:
                self._add_sample(moment, snapshot)
            self._last_look = moment

    def _take_in_first(self, bits: bytes) -> None:
        """What is covered at the first look was covered at the time that was kept, or nobody knows when."""
        seen = _ones_where_covered(bits, len(self._first_covered))
        with self._lock:
            times, points = self._first_covered, range(len(seen))
            # What was covered at the last start need not be now: a worker is yet to come, or began anew.
            self._waiting = {point: times[point] for point in compress(points, times) if not seen[point]}
            for point in self._waiting:
                times[point] = NOT_COVERED
            for point in compress(points, seen):
                times[point] = times[point] or UNKNOWN_TIME
            self._covered = seen.count(1)

    def _take_in_changes(self, moment: float, before: bytes, bits: bytes) -> None:
        """Stamp what is covered now and was not before; forget of what is not covered any more."""
        points_len = len(self._first_covered)
        # The last word may have more bits than there are points.
        new, gone = (
            [point for point in points if point < points_len]
            for points in (newly_covered(before, bits), newly_covered(bits, before))
        )
        self._covered += len(new) - len(gone)
        now = min(max(int(moment), UNKNOWN_TIME), _U32_MAX)
        with self._lock:
            times = self._first_covered
            for point in gone:
                times[point] = NOT_COVERED
            for point in new:
                waiting = self._waiting.pop(point, UNKNOWN_TIME)
                times[point] = now if self._looked else waiting
            self._changed = self._changed or bool(new or gone)

    def _add_sample(self, moment: float, snapshot: SeenPcsSnapshot) -> None:
        samples = self._samples
        numbers = snapshot.n_runs, snapshot.unique_runs, self._covered
        last = samples[-1] if samples else None
        if last is not None and self._looked:
            before = last.n_runs, last.unique_runs, last.covered
            if numbers == before or moment - last.time < SAMPLE_INTERVAL:
                return
            if snapshot.n_runs < last.n_runs:
                self._looked = False  # The fuzzer has begun anew.
            elif last.time + 2 * SAMPLE_INTERVAL < self._last_look < moment:
                # Nothing had happened for a while: the line is flat until the last look.
                samples.append(HistorySample(self._last_look, *before))
        samples.append(HistorySample(moment, *numbers, 0 if self._looked else HistorySample.START))
        self._looked = True
        self._changed = True
        if len(samples) > MAX_SAMPLES:
            self._samples = thinned(samples)
            self._series += 1

    def _move_back(self, seconds: float) -> None:
        """Somebody has set the clock back: what lies before that moves along, and nothing is lost."""
        self._samples = [replace(each, time=each.time - seconds) for each in self._samples]
        self._marks = tuple(replace(each, time=each.time - seconds) for each in self._marks)
        self._last_look -= seconds
        self._series += 1
        for times in (self._first_covered, self._waiting):
            _move_times_back(times, round(seconds))

    def since(self, cursor: Cursor | None) -> tuple[Cursor, bool, bytes | None]:
        """What a reader has not got: cursor for the next call, whether it is all of it, the message.

        The message is None if there is nothing new. A new reader has the cursor None.
        """
        with self._lock:
            now = self._series, len(self._samples)
            if cursor == now:
                return now, False, None
            whole = cursor is None or cursor[0] != self._series
            samples = self._samples[0 if cursor is None or whole else cursor[1] :]
        head = HistoryHeader(whole, len(samples)).serialize()
        return now, whole, head + b"".join(sample.serialize() for sample in samples)

    @property
    def samples(self) -> list[HistorySample]:
        """A copy of all samples, in the order of their times."""
        with self._lock:
            return list(self._samples)

    @property
    def first_covered(self) -> array[int]:
        """A copy: for each point when it was covered first (seconds since 1970), or one of the two above."""
        with self._lock:
            return self._first_covered[:]

    def save_if_due(self) -> None:
        """Write the file if something has changed and it is a while since."""
        if time.monotonic() >= self._next_save:
            self.save()

    def save(self) -> None:
        """Write the file if something has changed. What cannot be written is kept in memory."""
        with self._record_lock:
            self._next_save = time.monotonic() + SAVE_INTERVAL
            with self._lock:
                changed, self._changed = self._changed, False
                stored = StoredHistory(list(self._samples), self._marks, self._first_covered[:])
                for point, when in self._waiting.items():
                    stored.first_covered[point] = when
            if self.path is None or not self._begun or not changed:
                return
            try:
                save_history(self.path, stored)
                if self._write_failed:
                    log.info("history '%s' is saved again", self.path)
                self._write_failed = False
            except InputError as error:
                if not self._write_failed:
                    log.warning("%s; the history is lost when the server stops", error)
                self._write_failed = True
                self._changed = True


def _move_times_back(times: array[int] | dict[int, int], seconds: int) -> None:
    """Make all times of first coverage earlier; those that nobody knows stay so."""
    stamped = enumerate(times) if isinstance(times, array) else times.items()
    for point, when in stamped:
        if when > UNKNOWN_TIME and seconds:
            times[point] = max(UNKNOWN_TIME, when - seconds)


def newly_covered(before: bytes, now: bytes) -> array[int]:
    """The bits that are set in ``now`` and not in ``before``, ascending. Both are whole 64-bit words."""
    new = array("I")
    # Most often there is none, which integers of any length tell much faster than a loop.
    added = int.from_bytes(now, "little") & ~int.from_bytes(before, "little")
    if not added:
        return new
    words = array("Q", added.to_bytes(len(now), "little"))
    if sys.byteorder == "big":
        words.byteswap()
    for index, word in enumerate(words):
        while word:
            lowest = word & -word
            new.append(index * 64 + lowest.bit_length() - 1)
            word ^= lowest
    return new


def _ones_where_covered(bits: bytes, points_len: int) -> array[int]:
    """For each point 1 if it is covered, else 0; a million of them in some milliseconds."""
    ones = array("I")
    ones.frombytes(b"".join(map(_ONES.__getitem__, bits)))
    return ones[:points_len]


def thinned(samples: list[HistorySample]) -> list[HistorySample]:
    """The first sample, the newer half as it is, and at most half of what lies between, evenly in time.

    Always dropping every second sample would leave nothing of the first hours of a long run.
    """
    half = len(samples) // 2
    older, newer = samples[:half], samples[half:]
    distance = 2 * SAMPLE_INTERVAL
    kept, flags = _spaced(older, distance)
    while len(kept) > half // 2:
        distance *= 2
        kept, flags = _spaced(older, distance)
    newer[0] = replace(newer[0], flags=newer[0].flags | flags)
    return kept + newer


def _spaced(samples: list[HistorySample], distance: float) -> tuple[list[HistorySample], int]:
    """Samples that are ``distance`` apart, the first among them; and the flags that go to the one behind.

    The flags of a sample that is dropped go to the next that is kept.
    """
    kept: list[HistorySample] = []
    flags = 0
    for sample in samples:
        flags |= sample.flags
        if not kept or sample.time - kept[-1].time >= distance:
            kept.append(replace(sample, flags=flags))
            flags = 0
    return kept, flags
