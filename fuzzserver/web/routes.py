"""What is answered to which path (Zig: ``serveRequest``).

*Runs on* connection threads. *Takes* paths. *Gives* answers. No path is used as the name of a file.
"""

import logging
import re
import threading
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import TypeVar

from fuzzserver.errors import CompileErrors, FuzzServerError, Stopped
from fuzzserver.web.answer import Answer, Archive, Heavy
from fuzzserver.web.api import api
from fuzzserver.web.bundle import Bundle
from fuzzserver.web.fuzz_data import fuzz_data
from fuzzserver.web.gate import PAGE_PATHS
from fuzzserver.web.kept_sources import KeptSources
from fuzzserver.web.limits import Load, SparseLog
from fuzzserver.web.map_data import MapData
from fuzzserver.web.metrics import metrics
from fuzzserver.web.page_files import PageFiles
from fuzzserver.web.site import Site

__all__ = ["CACHE_CONTROL", "PAGE_WASM_MODE", "Routes", "Site"]

log = logging.getLogger(__name__)

Found = TypeVar("Found")

CACHE_CONTROL = ("cache-control", "max-age=0, must-revalidate")

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
HOME = ("/", "/debug", "/debug/")
BUILD_WEB = re.compile("(/debug|)/build-web(/.*|)")

_BELOW_BUILD_WEB = Answer(
    "text/plain", b"it is at build-web/", (("location", "build-web/"),), HTTPStatus.TEMPORARY_REDIRECT
)
"""What the page asks for, it asks for by relative names."""


class Routes:
    """The answers of one site."""

    def __init__(self, site: Site, load: Callable[[], Load]) -> None:
        self.site = site
        self._load = load
        self._page = PageFiles(site.lib_dir / "fuzzer" / "web", site.build_wasm)
        build_web = site.build_web
        self._build_web = None if build_web is None else PageFiles(build_web.folder, build_web.build_wasm)
        self._sparse_log = SparseLog(log)
        self._map_data = MapData(site.coverage_files)
        self._kept_sources = KeptSources(site.sources)
        self._bundle = Bundle(self._page.folder, BUNDLE)
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
        match = BUILD_WEB.fullmatch(path)
        if match is not None and self._build_web is not None:
            return self._find_of_page(self._build_web, match[1] + match[2]) if match[2] else _BELOW_BUILD_WEB
        if path == f"/{BUNDLE}" and self.site.own_page:
            return self._joined_scripts()
        found = self._find_of_page(self._page, path)
        if found is not None:
            return found
        path = path.removeprefix("/debug")
        if path == METRICS:
            return metrics(self.site, self._load())
        return fuzz_data(self.site, path) or self._map_data.answer(path) or api(self.site, path)

    def _find_of_page(self, page: PageFiles, path: str) -> Answer | Archive | None:
        if path in HOME:
            return page.html()
        if path in SCRIPTS:
            return page.script()
        if (match := PAGE_FILE.fullmatch(path)) is not None:
            return page.further(match[1])
        if path in WASM:
            return page.wasm(WASM[path])
        return Archive(self._kept_sources.write_to) if path in SOURCES else None

    def _joined_scripts(self) -> Answer:
        try:
            return Answer("application/javascript", self._bundle.content(), is_page=True)
        except OSError as error:
            raise FuzzServerError(f"failed to read '{error.filename}': {error.strerror}") from error
