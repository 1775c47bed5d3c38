"""The coverage file: a fuzzer maps it and changes it, we read it.

It is read with ``os.pread``, never mapped: a mapped file that its writer truncates kills the
reading process on the next access, and a read does not.

Anybody may do anything to such a file while it is followed. Each read looks whether the file is still
whole and still the one at its path; what is not is a fault, which is told and looked at again by the next
read. There is no way into a fault out of which no way leads.
"""

from __future__ import annotations

import itertools
import logging
import os
import stat
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fuzzserver.errors import CoverageFileError
from fuzzserver.files import open_regular
from fuzzserver.wire.abi import SeenPcsHeader

__all__ = ["JoinedSeenPcs", "SeenPcs", "SeenPcsSnapshot"]

log = logging.getLogger(__name__)

MAX_FILE_SIZE = 1 << 30
"""No executable has so many points; a file with holes costs nothing and may claim to list them."""

CHECK_INTERVAL = 0.1
"""Seconds between two looks at the addresses of a file that belongs to another build: there may be many."""

LOG_BURST = 10
"""So many lines about one file, one more each second: a file may break as often as it is read."""


@dataclass(frozen=True, slots=True)
class SeenPcsSnapshot:
    """Counters and bits, copied in one read."""

    n_runs: int
    unique_runs: int
    seen_bits: bytes
    """One bit per PC, least significant first, in whole 64-bit words."""
    files: int = field(default=1, compare=False)
    """How many files were opened so far: a new one brings along what happened before it was looked at."""


class SeenPcs:
    """An open coverage file.

    ``read`` may be called from any thread. Only the first read of the PC addresses looks at the
    whole file; an update copies header and bits.
    """

    def __init__(self, path: Path) -> None:
        """Open and check ``path``; CoverageFileError says what is wrong with it."""
        self.path = path
        try:
            self._fd = open_regular(path)
        except OSError as error:
            raise CoverageFileError(f"cannot open coverage file '{path}': {error.strerror}") from error
        # Guards ``_fd`` against a close while another thread reads from it.
        self._lock = threading.Lock()
        try:
            self.identity = _identity(self._fstat())
            """Differs from that of a file that takes its place."""
            self.header = self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> SeenPcsHeader:
        size = self._fstat().st_size
        if size == 0:
            raise CoverageFileError(f"coverage file '{self.path}' is empty: no fuzzer has written it yet")
        try:
            header = SeenPcsHeader.parse(self._pread(SeenPcsHeader.LAYOUT.size, 0))
        except CoverageFileError as error:
            raise CoverageFileError(f"coverage file '{self.path}': {error}") from None
        # There is no magic number: that the size fits the header is the check.
        if header.file_size != size:
            raise CoverageFileError(
                f"coverage file '{self.path}' claims {header.pcs_len} PCs, which takes "
                f"{header.file_size} bytes, but has {size}: it is truncated or no coverage file"
            )
        if size > MAX_FILE_SIZE:
            raise CoverageFileError(
                f"coverage file '{self.path}' has {size} bytes, more than any executable needs"
            )
        return header

    def check_size(self) -> None:
        """CoverageFileError if it is not as long as it was when it was opened."""
        size = self._fstat().st_size
        if size != self.header.file_size:
            raise CoverageFileError(
                f"coverage file '{self.path}' has another size than it had: {size} bytes instead of "
                f"{self.header.file_size}"
            )

    def is_at_path(self) -> bool:
        """Whether this very file is still at its path; CoverageFileError if no regular file is.

        A pipe or a device at the path is not opened.
        """
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise CoverageFileError(f"cannot find coverage file '{self.path}': {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise CoverageFileError(f"coverage file '{self.path}' is not a regular file any more")
        return _identity(status) == self.identity

    def pc_addrs(self) -> array[int]:
        """The address of each instrumented point, in the order of the bits."""
        size = self.header.file_size - self.header.pc_addrs_offset
        data = self._pread(size, self.header.pc_addrs_offset)
        if len(data) != size:
            raise CoverageFileError(
                f"coverage file '{self.path}' ended after {len(data)} of {size} bytes of addresses"
            )
        addrs = array("Q", data)
        if sys.byteorder == "big":
            addrs.byteswap()
        return addrs

    def read(self) -> SeenPcsSnapshot:
        """Copy counters and bits; CoverageFileError if the file has shrunk or begins in another way."""
        size = SeenPcsHeader.LAYOUT.size + self.header.seen_bits_size
        data = self._pread(size, 0)
        if len(data) != size:
            raise CoverageFileError(
                f"coverage file '{self.path}' was truncated: it ends after {len(data)} of {size} bytes"
            )
        header = SeenPcsHeader.parse(data)
        if header.pcs_len != self.header.pcs_len:
            raise CoverageFileError(
                f"coverage file '{self.path}' was overwritten: it claims {header.pcs_len} PCs and had "
                f"{self.header.pcs_len}"
            )
        return SeenPcsSnapshot(header.n_runs, header.unique_runs, data[SeenPcsHeader.LAYOUT.size :])

    def _pread(self, size: int, offset: int) -> bytes:
        with self._opened() as fd:
            return os.pread(fd, size, offset)

    def _fstat(self) -> os.stat_result:
        with self._opened() as fd:
            return os.fstat(fd)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        with self._lock:
            if self._fd < 0:
                raise CoverageFileError(f"coverage file '{self.path}' is closed")
            try:
                yield self._fd
            except OSError as error:
                raise CoverageFileError(
                    f"cannot read coverage file '{self.path}': {error.strerror}"
                ) from error

    def close(self) -> None:
        """Close the file; later reads fail with CoverageFileError. May be called twice."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


class JoinedSeenPcs:
    """The coverage files of all workers of one executable, read as if they were one.

    Runs are added up, bits are joined. ``read`` may be called from any thread, and never fails: a file
    that cannot be read counts as it was when it could, until there is a good one again.
    """

    def __init__(self, first: SeenPcs, pcs: array[int]) -> None:
        """``pcs`` are the addresses that ``first`` lists, and that the others must list, too."""
        self._pcs = pcs
        # Guards ``_parts``. Held while files are read, which is two copies of some kilobytes each.
        self._lock = threading.Lock()
        self._openings = itertools.count(1)
        self._parts = [_Part(first, pcs, self._openings)]

    def holds(self, seen_pcs: SeenPcs) -> bool:
        """Whether this very file is among the joined ones."""
        with self._lock:
            return any(part.open and part.seen_pcs.identity == seen_pcs.identity for part in self._parts)

    def add(self, seen_pcs: SeenPcs) -> None:
        """Join one more file, which lists the same PCs. It takes the place of one at the same path."""
        with self._lock:
            part = _Part(seen_pcs, self._pcs, self._openings)
            gone = [old for old in self._parts if old.seen_pcs.path == seen_pcs.path]
            self._parts = [old for old in self._parts if old not in gone] + [part]
            for old in gone:
                old.close()

    @property
    def start_n_runs(self) -> int:
        """Runs that the files held when they were joined."""
        with self._lock:
            return sum(part.start_n_runs for part in self._parts)

    @property
    def fault(self) -> str | None:
        """What was wrong with the files at the last read, as a sentence."""
        with self._lock:
            faults = [part.fault for part in self._parts if part.fault is not None]
        if len(faults) < 2:
            return faults[0] if faults else None
        return f"{faults[0]}; so it is with {len(faults)} of {len(self._parts)} coverage files"

    def read(self) -> SeenPcsSnapshot:
        """Counters and bits of all files together."""
        with self._lock:
            snapshots = [part.read() for part in self._parts]
        if len(snapshots) == 1:
            return snapshots[0]
        # Longer than 64 bits, these integers are the fastest bit sets that Python has.
        bits = 0
        for snapshot in snapshots:
            bits |= int.from_bytes(snapshot.seen_bits, "little")
        return SeenPcsSnapshot(
            sum(snapshot.n_runs for snapshot in snapshots),
            sum(snapshot.unique_runs for snapshot in snapshots),
            bits.to_bytes(len(snapshots[0].seen_bits), "little"),
            max(snapshot.files for snapshot in snapshots),
        )

    def close(self) -> None:
        """Read all files once more and close them; they count as they are now."""
        with self._lock:
            for part in self._parts:
                part.close()


class _Part:
    """One of the joined files, and what was last read from it. Used by one thread at a time."""

    def __init__(self, seen_pcs: SeenPcs, pcs: array[int], openings: Iterator[int]) -> None:
        self.seen_pcs = seen_pcs
        self._pcs = pcs
        self._openings = openings
        self._opening = next(openings)
        self._snapshot = self._copied()
        self.start_n_runs = self._snapshot.n_runs
        self.open = True
        self.fault: str | None = None
        """What was wrong at the last read, with the file or with what is at its path."""
        # Whether the open file was not as it should be when it was read last.
        self._harmed = False
        self._next_check = 0.0
        self._logged: str | None = None
        self._log_debt = 0.0

    def close(self) -> None:
        self.read()
        self.open = False
        self.fault = None  # Nobody waits for news of it any more.
        self.seen_pcs.close()

    def read(self) -> SeenPcsSnapshot:
        if self.open:
            self.fault = self._look()
            self._log_fault()
        return self._snapshot

    def _look(self) -> str | None:
        """Take in what the file holds; returns what is wrong.

        A file that was deleted, or whose place another has taken that is no good, is read on: a fuzzer
        that still runs counts there.
        """
        fault = None
        try:
            if not self.seen_pcs.is_at_path():
                self._open_anew()
        except CoverageFileError as error:
            fault = f"{error}; showing the file that was there before"
        try:
            snapshot = self._copied()
            self.seen_pcs.check_size()
            if self._harmed:
                # Whatever has happened to it may have left the addresses of another build.
                self._check_pcs(self.seen_pcs)
                self._healed()
                snapshot = self._copied()  # The one above may be older than the addresses are.
        except CoverageFileError as error:
            self._harmed = True
            return fault or f"{error}; showing what was read before"
        self._snapshot = snapshot
        self.start_n_runs = min(self.start_n_runs, snapshot.n_runs)
        return fault

    def _copied(self) -> SeenPcsSnapshot:
        snapshot = self.seen_pcs.read()
        return SeenPcsSnapshot(snapshot.n_runs, snapshot.unique_runs, snapshot.seen_bits, self._opening)

    def _open_anew(self) -> None:
        """Go on with the file that is at the path now, if it is one of the same executable."""
        fresh = SeenPcs(self.seen_pcs.path)
        try:
            self._check_pcs(fresh)
        except BaseException:
            fresh.close()
            raise
        self.seen_pcs.close()
        self.seen_pcs = fresh
        self._healed()

    def _check_pcs(self, seen_pcs: SeenPcs) -> None:
        """CoverageFileError if the file lists other PCs than it must."""
        is_due = time.monotonic() >= self._next_check
        if is_due and seen_pcs.header.pcs_len == len(self._pcs) and seen_pcs.pc_addrs() == self._pcs:
            return
        if is_due:
            self._next_check = time.monotonic() + CHECK_INTERVAL
        raise CoverageFileError(
            f"coverage file '{seen_pcs.path}' lists other PCs than before: it belongs to another build"
        )

    def _healed(self) -> None:
        """What the file holds now may have happened at any time since it could be read last."""
        self._harmed = False
        self._opening = next(self._openings)

    def _log_fault(self) -> None:
        """Log each fault once, and its end."""
        moment = time.monotonic()
        if self.fault == self._logged or self._log_debt > moment + LOG_BURST:
            return
        self._log_debt = max(self._log_debt, moment) + 1
        self._logged = self.fault
        if self.fault is None:
            log.info("coverage file '%s' can be read again", self.seen_pcs.path)
        else:
            log.error("%s", self.fault)
