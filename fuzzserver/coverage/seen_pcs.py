"""The coverage file: a fuzzer maps it and changes it, we read it.

It is read with ``os.pread``, never mapped: a mapped file that its writer truncates kills the
reading process on the next access, and a read does not.
"""

from __future__ import annotations

import os
import sys
import threading
from array import array
from dataclasses import dataclass
from pathlib import Path

from fuzzserver.errors import CoverageFileError
from fuzzserver.files import open_regular
from fuzzserver.wire.abi import SeenPcsHeader

__all__ = ["SeenPcs", "SeenPcsSnapshot"]


@dataclass(frozen=True, slots=True)
class SeenPcsSnapshot:
    """Counters and bits, copied in one read."""

    n_runs: int
    unique_runs: int
    seen_bits: bytes
    """One bit per PC, least significant first, in whole 64-bit words."""


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
