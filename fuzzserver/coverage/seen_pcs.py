"""The coverage file: a fuzzer maps it and changes it, we read it.

It is read with ``os.pread``, never mapped: a mapped file that its writer truncates kills the
reading process on the next access, and a read does not.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from array import array
from dataclasses import dataclass, field
from pathlib import Path

from fuzzserver.errors import CoverageFileError
from fuzzserver.files import open_regular
from fuzzserver.wire.abi import SeenPcsHeader

__all__ = ["JoinedSeenPcs", "SeenPcs", "SeenPcsSnapshot"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SeenPcsSnapshot:
    """Counters and bits, copied in one read."""

    n_runs: int
    unique_runs: int
    seen_bits: bytes
    """One bit per PC, least significant first, in whole 64-bit words."""
    files: int = field(default=1, compare=False)
    """How many files were read: one more brings along what happened before it was looked at."""


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
            stat = os.fstat(self._fd)
            self.identity = (stat.st_dev, stat.st_ino)
            """Differs from that of a file that takes its place."""
            self.header = self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> SeenPcsHeader:
        size = os.fstat(self._fd).st_size
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
        return header

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
        """Copy counters and bits; CoverageFileError if the file has shrunk."""
        size = SeenPcsHeader.LAYOUT.size + self.header.seen_bits_size
        data = self._pread(size, 0)
        if len(data) != size:
            raise CoverageFileError(
                f"coverage file '{self.path}' was truncated: it ends after {len(data)} of {size} bytes"
            )
        header = SeenPcsHeader.parse(data)
        return SeenPcsSnapshot(header.n_runs, header.unique_runs, data[SeenPcsHeader.LAYOUT.size :])

    def _pread(self, size: int, offset: int) -> bytes:
        with self._lock:
            if self._fd < 0:
                raise CoverageFileError(f"coverage file '{self.path}' is closed")
            try:
                return os.pread(self._fd, size, offset)
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


class JoinedSeenPcs:
    """The coverage files of all workers of one executable, read as if they were one.

    Runs are added up, bits are joined. ``read`` may be called from any thread. A file that cannot be
    read any more counts as it was when it could.
    """

    def __init__(self, first: SeenPcs) -> None:
        # Guards ``_parts``. Held while files are read, which is two copies of some kilobytes each.
        self._lock = threading.Lock()
        self._parts = [_Part(first)]

    def holds(self, seen_pcs: SeenPcs) -> bool:
        """Whether this very file is among the joined ones."""
        with self._lock:
            return any(part.open and part.seen_pcs.identity == seen_pcs.identity for part in self._parts)

    def add(self, seen_pcs: SeenPcs) -> None:
        """Join one more file, which lists the same PCs. It takes the place of one at the same path."""
        part = _Part(seen_pcs)
        with self._lock:
            gone = [old for old in self._parts if old.seen_pcs.path == seen_pcs.path]
            self._parts = [old for old in self._parts if old not in gone] + [part]
            for old in gone:
                old.close()

    @property
    def start_n_runs(self) -> int:
        """Runs that the files held when they were joined."""
        with self._lock:
            return sum(part.start_n_runs for part in self._parts)

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
            len(snapshots),
        )

    def close(self) -> None:
        """Read all files once more and close them; they count as they are now."""
        with self._lock:
            for part in self._parts:
                part.close()


class _Part:
    """One of the joined files, and what was last read from it."""

    def __init__(self, seen_pcs: SeenPcs) -> None:
        self.seen_pcs = seen_pcs
        self._snapshot = seen_pcs.read()
        self._faulty = False
        self.open = True
        self.start_n_runs = self._snapshot.n_runs

    def close(self) -> None:
        self.read()
        self.open = False
        self.seen_pcs.close()

    def read(self) -> SeenPcsSnapshot:
        if not self.open:
            return self._snapshot
        try:
            self._snapshot = self.seen_pcs.read()
            self._faulty = False
        except CoverageFileError as error:
            if not self._faulty:
                log.error("%s; showing what was read before", error)
            self._faulty = True
        return self._snapshot
