"""What is answered to which path (Zig: ``serveRequest``).

*Runs on* connection threads. *Takes* paths. *Gives* answers. No path is used as the name of a file.
"""

import logging
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

from fuzzserver.errors import CompileErrors, FuzzServerError, Stopped
from fuzzserver.files import read_regular
from fuzzserver.freshness import SETTLED_NS, Stamp, stamp_of
from fuzzserver.web.answer import Answer, Archive, Heavy, etag_of
from fuzzserver.web.api import api
from fuzzserver.web.bundle import Bundle
from fuzzserver.web.fuzz_data import fuzz_data
from fuzzserver.web.gate import PAGE_PATHS
from fuzzserver.web.kept_sources import KeptSources
from fuzzserver.web.limits import Load, SparseLog
from fuzzserver.web.map_data import MapData
from fuzzserver.web.metrics import metrics
from fuzzserver.web.site import Site

__all__ = ["CACHE_CONTROL", "PAGE_WASM_MODE", "Routes", "Site"]

log = logging.getLogger(__name__)

Found = TypeVar("Found")

CACHE_CONTROL = ("cache-control", "max-age=0, must-revalidate")

MAX_FILE = 64 << 20
"""Bytes of a file of the page, its wasm above all."""

SCRIPTS = ("/main.js", "/debug/main.js")
"""What every page has. Ours has more files, which are served by their names."""
PAGE_FILE = re.compile(r"(?:/debug)?/([a-z_]+\.(?:js|css))")
BUNDLE = "app.js"
"""The module of our page that needs all others. Below ``/debug``, each comes as it is."""
PAGE_WASM_MODE = "ReleaseSmall"
"""Zig's server has it compiled for speed, and it takes many times as long to load."""
WASM = {"/main.wasm": PAGE_WASM_MODE, "/debug/main.wasm": "Debug"}
SOURCES = ("/sources.tar", "/debug/sources.tar")
METRICS = "/metrics"


class Routes:
    """The answers of one site."""

    def __init__(self, site: Site, load: Callable[[], Load]) -> None:
        self.site = site
        self._load = load
        self._page_folder = site.lib_dir / "fuzzer" / "web"
        self._sparse_log = SparseLog(log)
        self._map_data = MapData(site.coverage_files)
        self._kept_sources = KeptSources(site.sources)
        self._bundle = Bundle(self._page_folder, BUNDLE)
        # Guards ``_files``: what the files of the page hold, and of which version of them.
        self._lock = threading.Lock()
        self._files: dict[str, tuple[Stamp, Answer]] = {}
        # Guards ``_is_making`` and ``_stopped``; notified when they change.
        self._condition = threading.Condition()
        self._is_making = False
        self._stopped = False

    def stop(self) -> None:
        """Begin nothing heavy any more: who waits for it is told so."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def close(self) -> None:
        """Remove what is kept, when nobody asks any more."""
        self._kept_sources.close()

    def answer(self, path: str, query: str) -> Answer | Archive | Heavy:
        """The answer to a GET. Whatever goes wrong is an answer, too."""
        if query and path not in PAGE_PATHS:
            return self.refusal(HTTPStatus.NOT_FOUND, "not found")  # Other routes have no query, as in Zig.
        found = self._guarded(path, lambda: self._find(path))
        if isinstance(found, Heavy):
            return Heavy(partial(self._make, path, found))
        return found or self.refusal(HTTPStatus.NOT_FOUND, "not found")

    def _make(self, path: str, heavy: Heavy) -> Answer:
        with self._condition:
            self._condition.wait_for(lambda: self._stopped or not self._is_making)
            if self._stopped:
                return self.refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the server stops")
            self._is_making = True
        try:
            return self._guarded(path, heavy.make)
        finally:
            with self._condition:
                self._is_making = False
                self._condition.notify()

    def _guarded(self, path: str, find: Callable[[], Found]) -> Found | Answer:
        """What is found, or what went wrong."""
        try:
            return find()
        except FuzzServerError as error:
            # Compile errors are in the log already, once for all who wait for the compile.
            if not isinstance(error, (CompileErrors, Stopped)):
                self._sparse_log(logging.ERROR, "unable to serve %s: %s", path, error)
            return self.refusal(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    @staticmethod
    def refusal(status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Answer:
        """An answer in plain words."""
        return Answer("text/plain", text.encode("utf-8", "backslashreplace"), headers, status)

    def _find(self, path: str) -> Answer | Archive | Heavy | None:
        if path in PAGE_PATHS:
            return self._page_file("index.html", "text/html")
        if path in SCRIPTS:
            return self._page_file("main.js", "application/javascript")
        if path == f"/{BUNDLE}" and self.site.own_page:
            return self._joined_scripts()
        if (match := PAGE_FILE.fullmatch(path)) is not None:
            return self._further_page_file(match[1])
        if path in WASM:
            return self._file(self.site.build_wasm(WASM[path]), "application/wasm")
        if path in SOURCES:
            return Archive(self._kept_sources.write_to)
        path = path.removeprefix("/debug")
        if path == METRICS:
            return metrics(self.site, self._load())
        return fuzz_data(self.site, path) or self._map_data.answer(path) or api(self.site, path)

    def _page_file(self, name: str, content_type: str) -> Answer:
        return self._file(self._page_folder / name, content_type)

    def _further_page_file(self, name: str) -> Answer | None:
        """A further script or style sheet, of which Zig's own page has none."""
        if not (self._page_folder / name).is_file():
            return None
        return self._page_file(name, "text/css" if name.endswith(".css") else "application/javascript")

    def _joined_scripts(self) -> Answer:
        try:
            return Answer("application/javascript", self._bundle.content(), is_page=True)
        except OSError as error:
            raise FuzzServerError(f"failed to read '{error.filename}': {error.strerror}") from error

    def _file(self, path: Path, content_type: str) -> Answer:
        """Read anew when it has changed, so that an edit of the page shows on reload."""
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
