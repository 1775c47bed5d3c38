"""The files of a page, as they are when they are asked for: who edits one sees it on reload.

*Runs on* connection threads. *Takes* names of files in the page's folder. *Gives* answers.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from fuzzserver.errors import FuzzServerError
from fuzzserver.files import read_regular
from fuzzserver.freshness import SETTLED_NS, Stamp, stamp_of
from fuzzserver.web.answer import Answer, etag_of

__all__ = ["PageFiles"]

MAX_FILE = 64 << 20
"""Bytes of a file of the page, its wasm above all."""


class PageFiles:
    """The files of one page. May be used from any thread; FuzzServerError if one cannot be had."""

    def __init__(self, folder: Path, build_wasm: Callable[[str], Path]) -> None:
        self.folder = folder
        self._build_wasm = build_wasm
        # Guards ``_files``: what the files hold, and of which version of them.
        self._lock = threading.Lock()
        self._files: dict[str, tuple[Stamp, Answer]] = {}

    def html(self) -> Answer:
        """The page itself."""
        return self._read(self.folder / "index.html", "text/html")

    def script(self) -> Answer:
        """The script that every page has."""
        return self._read(self.folder / "main.js", "application/javascript")

    def further(self, name: str) -> Answer | None:
        """A further script or style sheet; None if there is none of that name."""
        if not (self.folder / name).is_file():
            return None
        content_type = "text/css" if name.endswith(".css") else "application/javascript"
        return self._read(self.folder / name, content_type)

    def wasm(self, optimize_mode: str) -> Answer:
        """The page's wasm, compiled first if it must be."""
        return self._read(self._build_wasm(optimize_mode), "application/wasm")

    def _read(self, path: Path, content_type: str) -> Answer:
        stamp = stamp_of(path)
        with self._lock:
            known = self._files.get(path.name)
        if known is not None and known[0] == stamp:
            return known[1]
        try:
            content = read_regular(path, MAX_FILE)
        except FileNotFoundError:
            raise FuzzServerError(f"failed to read '{path}': no such file") from None
        except OSError as error:
            raise FuzzServerError(f"failed to read '{path}': {error.strerror}") from error
        answer = Answer(content_type, content, is_page=True, etag=etag_of(content))
        # A file that was written a moment ago may be written again without a change of its times.
        if stamp is not None and stamp[-1] < time.time_ns() - SETTLED_NS:
            with self._lock:
                self._files[path.name] = stamp, answer
        return answer
