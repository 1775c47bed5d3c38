"""The archive of sources, made once and kept for as long as no source changes.

*Runs on* connection threads. *Takes* the sources' names. *Gives* what ``write_sources_tar`` does, most of the
time from a file that has no name, which the system sends by itself.
"""

import contextlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO

from fuzzserver.freshness import SETTLED_NS, Stamp, stamp_of
from fuzzserver.step import SourcePath
from fuzzserver.web.answer import Sink
from fuzzserver.web.sources_tar import BLOCK, CHUNK, write_sources_tar

__all__ = ["KeptSources"]

log = logging.getLogger(__name__)

CLOSE_SECONDS = 0.2
"""For an archive to be finished when the server stops. A disk that hangs must not keep it."""

MAX_KEPT = 64 << 20
"""Bytes of an archive that is kept: the folder for temporary files may be in memory. More is made anew, while
it is sent."""


class KeptSources:
    """The archive of one server's sources. May be used from any thread."""

    def __init__(self, sources: Callable[[], list[SourcePath]]) -> None:
        self._sources = sources
        # Guards both below. Held while sources are looked at and read: who comes meanwhile wants the same.
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        # What it was made of; None if that may have changed since without a change of its times.
        self._made_of: tuple[list[SourcePath], list[Stamp | None]] | None = None

    def write_to(self, sink: Sink) -> None:
        """Send it."""
        paths = self._sources()
        with self._kept(paths) as file:
            if file is None:
                write_sources_tar(paths, sink.write)
            else:
                sink.send_file(file, os.fstat(file).st_size)

    def close(self) -> None:
        """Remove what is kept, unless it is just being made: then it goes with this process at the latest."""
        if self._lock.acquire(timeout=CLOSE_SECONDS):
            self._drop()
            self._lock.release()

    @contextlib.contextmanager
    def _kept(self, paths: list[SourcePath]) -> Iterator[int | None]:
        """A descriptor of the archive of ``paths``; None if it cannot be kept.

        It stays as it is: another one is another file.
        """
        file = None
        with self._lock:
            now = time.time_ns()
            stamps = [stamp_of(path.location) for path in paths]
            size = sum(2 * BLOCK + (0 if stamp is None else stamp[2]) for stamp in stamps)
            if size <= MAX_KEPT and self._made_of != (paths, stamps):
                self._make(paths)
                settled = all(stamp is None or stamp[-1] < now - SETTLED_NS for stamp in stamps)
                self._made_of = (paths, stamps) if settled else None
            if size <= MAX_KEPT and self._file is not None:
                file = os.dup(self._file.fileno())
        try:
            yield file
        finally:
            if file is not None:
                os.close(file)

    def _make(self, paths: list[SourcePath]) -> None:
        self._drop()
        try:
            file = tempfile.TemporaryFile(buffering=CHUNK)  # noqa: SIM115 -- kept open
        except OSError as error:
            log.debug("the archive of sources is not kept: %s", error)
            return
        try:
            write_sources_tar(paths, file.write)
            file.flush()
        except OSError as error:
            log.debug("the archive of sources is not kept: %s", error)
            with contextlib.suppress(OSError):  # What it could not write, it tries again.
                file.close()
            return
        self._file = file

    def _drop(self) -> None:
        self._made_of = None
        if self._file is not None:
            self._file.close()
            self._file = None
