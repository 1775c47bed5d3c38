"""The file in which a history waits for the next start of the server.

A line with name and version, then, compressed, a header, the samples, the times of first coverage and the
marks. What is damaged, or of another version, is not used: all that is lost is how things came about.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import struct
import sys
import zlib
from array import array
from dataclasses import astuple, dataclass
from pathlib import Path

from fuzzserver.coverage.tables import little_endian_bytes
from fuzzserver.errors import InputError
from fuzzserver.files import open_regular, remove_oldest
from fuzzserver.findings import write_whole
from fuzzserver.wire.abi import HistorySample

__all__ = ["Mark", "StoredHistory", "load_history", "save_history"]

log = logging.getLogger(__name__)

MAGIC = b"fuzzserver history 1\n"

MAX_FILES = 50
"""Each build has a file of its own; of so many builds, the newest, the history is kept."""

MAX_BYTES = 256 << 20
"""That all files together may take."""

_HEAD = struct.Struct("<III")
"""How many samples, points, and bytes of marks."""

_MAX_BODY = 256 * 1024 * 1024
"""No history is larger; a damaged file might claim to be."""

_DAMAGES = (InputError, ValueError, TypeError, OverflowError, RecursionError, struct.error, zlib.error)
"""What comes of content that is no history."""

_OUR_NAME = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened while the coverage grew."""

    time: float
    """Seconds since 1970."""
    kind: str
    text: str

    def to_json(self) -> dict[str, float | str]:
        """As it is sent."""
        return {"time": self.time, "kind": self.kind, "text": self.text}


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """What is kept of a history."""

    samples: list[HistorySample]
    marks: tuple[Mark, ...]
    first_covered: array[int]


def save_history(path: Path, stored: StoredHistory) -> None:
    """Write a history, whole or not at all; InputError if that fails. Files of old builds are removed."""
    marks = json.dumps([astuple(mark) for mark in stored.marks]).encode()
    body = b"".join(
        (
            _HEAD.pack(len(stored.samples), len(stored.first_covered), len(marks)),
            *(sample.serialize() for sample in stored.samples),
            little_endian_bytes(stored.first_covered),
            marks,
        )
    )
    is_new = not os.path.exists(path)  # Unlike Path.exists, it does not fail where nobody may look.
    write_whole(path, MAGIC + zlib.compress(body, 1))
    if is_new:
        remove_oldest(path.parent, _OUR_NAME, MAX_FILES, MAX_BYTES)


def load_history(path: Path, points_len: int) -> StoredHistory | None:
    """The history at ``path``, if there is one that can be used for so many points."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            # What is no history may be as large as the disk.
            is_ours = file.read(len(MAGIC)) == MAGIC
            stored = _parse(file.read(_MAX_BODY) if is_ours else None)
        if len(stored.first_covered) != points_len:
            raise InputError(f"it is of {len(stored.first_covered)} points, not of {points_len}")
        return stored
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("cannot read history '%s': %s; it begins anew", path, error.strerror)
    except _DAMAGES as error:
        log.warning("history '%s' is of no use: %s; it begins anew", path, error)
    return None


def _parse(data: bytes | None) -> StoredHistory:
    """``data`` is what follows the first line, None if that is another."""
    if data is None:
        raise InputError("it is damaged, or of another version")
    unpacker = zlib.decompressobj()
    body = unpacker.decompress(data, _MAX_BODY)
    if not unpacker.eof or unpacker.unused_data:
        raise InputError("it has another length than it should have")
    samples_len, points_len, marks_len = _HEAD.unpack_from(body)
    sample_size = HistorySample.LAYOUT.size
    times_start = _HEAD.size + samples_len * sample_size
    marks_start = times_start + points_len * 4
    if len(body) != marks_start + marks_len:
        raise InputError("it has another length than it should have")
    samples = [
        HistorySample.parse(body[start : start + sample_size])
        for start in range(_HEAD.size, times_start, sample_size)
    ]
    times = [sample.time for sample in samples]
    if not all(map(math.isfinite, times)) or times != sorted(times):
        raise InputError("its times are out of order")
    first_covered = array("I", body[times_start:marks_start])
    if sys.byteorder == "big":
        first_covered.byteswap()
    return StoredHistory(samples, _parse_marks(body[marks_start:]), first_covered)


def _parse_marks(data: bytes) -> tuple[Mark, ...]:
    marks = tuple(Mark(float(when), str(kind), str(text)) for when, kind, text in json.loads(data))
    if not all(math.isfinite(mark.time) for mark in marks):
        raise InputError("a mark has no time")
    return marks
