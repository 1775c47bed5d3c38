"""The HTTP server: one thread for each connection, a table of routes (Zig: ``accept``, ``serveRequest``).

*Runs on* the thread ``http`` (accepting) and one thread ``http-N`` for each connection, which becomes
``ws-N`` when the connection is upgraded. *Takes* a ``Site``. *Gives* responses.
"""

import contextlib
import logging
import re
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request

from fuzzserver.corpus import Corpus
from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.coverage.queue import CoverageFiles
from fuzzserver.errors import CompileErrors, FuzzServerError, Stopped
from fuzzserver.findings import FindingStore
from fuzzserver.logbook import LogBook
from fuzzserver.step import SourcePath
from fuzzserver.web.answer import Answer
from fuzzserver.web.fuzz_data import fuzz_data
from fuzzserver.web.map_data import MapData, coverage_id_of
from fuzzserver.web.news import News
from fuzzserver.web.session import SUBPROTOCOL, Session
from fuzzserver.web.sources_tar import write_sources_tar

__all__ = ["HttpServer", "Site"]

log = logging.getLogger(__name__)

CACHE_CONTROL = ("cache-control", "max-age=0, must-revalidate")
STOP_TIMEOUT = 3.0
"""Seconds that connections get to end when the server stops."""

FILES = {
    "/": ("index.html", "text/html"),
    "/debug": ("index.html", "text/html"),
    "/debug/": ("index.html", "text/html"),
    "/main.js": ("main.js", "application/javascript"),
    "/debug/main.js": ("main.js", "application/javascript"),
}
"""What every page consists of. Ours has more files, which are served by their names."""
PAGE_FILE = re.compile(r"(?:/debug)?/([a-z_]+\.(?:js|css))")
WASM = {"/main.wasm": "ReleaseFast", "/debug/main.wasm": "Debug"}
SOURCES = ("/sources.tar", "/debug/sources.tar")

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""All that our own page needs. What findings and logs hold is nothing that a browser may run."""


@dataclass(frozen=True, slots=True)
class Site:
    """What is served. All callables are called on connection threads."""

    lib_dir: Path
    """The page's files lie in its ``fuzzer/web/``."""
    own_page: bool
    """Whether that is our page. Others may do what we forbid ours."""
    build_wasm: Callable[[str], Path]
    """Builds the page's wasm in an optimize mode, ``Debug`` or ``ReleaseFast``."""
    sources: Callable[[], list[SourcePath]]
    coverage_files: CoverageFiles
    now: Callable[[], int]
    """The server's clock, in nanoseconds."""
    status: Callable[[], dict[str, Any]]
    """What goes on, for JSON: ``state``, ``text``, ``targets`` and ``findings``."""
    details: Callable[[CoverageMap | None], dict[str, Any]]
    """Further fields for clients that are shown this map, for JSON."""
    log_book: LogBook
    findings: Callable[[], FindingStore | None]
    corpora: Callable[[], list[Corpus]]


class HttpServer(ThreadingHTTPServer):
    """Accepts connections for one ``Site``, and knows all of them, so that it can end them."""

    request_queue_size = 1024  # With the default of 5, a burst of browsers waits for seconds.
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], site: Site) -> None:
        """Bind and listen; OSError if the address is taken."""
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.site = site
        self.map_data = MapData(site.coverage_files)
        # Guards ``_connections``, ``_sessions`` and ``_stopping``.
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._sessions: set[Session] = set()
        self._stopping = False
        self._accepted = 0
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Bind without asking the resolver for our own name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Start the connection's thread."""
        self._accepted += 1
        thread = threading.Thread(
            target=self._serve_connection,
            args=(request, client_address),
            name=f"http-{self._accepted}",
            daemon=True,
        )
        with self._lock:
            self._connections[thread] = request
        thread.start()

    def _serve_connection(self, request: socket.socket, client_address: object) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._connections.pop(threading.current_thread(), None)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error of ours, and not worth a traceback."""
        error = sys.exc_info()[1]
        if isinstance(error, (ConnectionError, TimeoutError)):
            log.debug("connection of %s ended: %r", client_address, error)
        else:
            log.exception("connection of %s failed", client_address)

    @contextlib.contextmanager
    def session(self, session: Session) -> Iterator[None]:
        """Register a session for the time that it runs."""
        with self._lock:
            self._sessions.add(session)
            if self._stopping:
                session.stop()
        try:
            yield
        finally:
            with self._lock:
                self._sessions.discard(session)

    def stop(self) -> None:
        """Stop accepting, end all connections, and wait for their threads. Call it once."""
        self.shutdown()
        self.server_close()
        with self._lock:
            self._stopping = True
            threads = list(self._connections)
            for session in self._sessions:
                session.stop()
        deadline = time.monotonic() + STOP_TIMEOUT
        for thread in threads:
            # A session says good-bye by itself; what waits for a request is woken up here.
            if not thread.name.startswith("ws-"):
                self._wake(thread)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self._wake(thread)
                thread.join(0.5)

    def _wake(self, thread: threading.Thread) -> None:
        with self._lock:
            request = self._connections.get(thread)
        if request is not None:
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    """One connection: any number of requests, then perhaps a WebSocket."""

    server: HttpServer
    protocol_version = "HTTP/1.1"
    timeout = 30
    """Seconds for each read and write. A WebSocket has its own."""
    disable_nagle_algorithm = True
    wbufsize = -1  # Head and body leave together.

    def do_GET(self) -> None:
        """Upgrade, or serve a route."""
        if "websocket" in self.headers.get("Upgrade", "").lower():
            self._serve_web_socket()
        else:
            self._serve_request()

    def do_HEAD(self) -> None:
        """The head that GET would send."""
        self._serve_request()

    def _serve_request(self) -> None:
        path = self.requestline.split()[1]  # Not ``self.path``, in which "//" has become "/".
        if path.startswith(("/?", "/debug?", "/debug/?")):
            path = path.partition("?")[0]  # Other routes have no query, as in Zig.
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            # Nobody reads that body; what follows it must not be taken for a request.
            self.close_connection = True
        try:
            if path in FILES:
                self._serve_file(self._page_folder / FILES[path][0], FILES[path][1])
            elif (page_file := PAGE_FILE.fullmatch(path)) is not None:
                self._serve_page_file(page_file[1])
            elif path in WASM:
                self._serve_file(self.server.site.build_wasm(WASM[path]), "application/wasm")
            elif path in SOURCES:
                self._serve_sources_tar()
            elif (answer := self._answer(path.removeprefix("/debug"))) is not None:
                headers = (CACHE_CONTROL, *answer.headers)
                self._respond(answer.status, answer.content_type, answer.content, *headers)
            else:
                self._respond(HTTPStatus.NOT_FOUND, "text/plain", b"not found")
        except FuzzServerError as error:
            # Compile errors are in the log already, once for all who wait for the compile.
            if not isinstance(error, (CompileErrors, Stopped)):
                log.error("unable to serve %s: %s", path, error)
            body = str(error).encode("utf-8", "backslashreplace")
            self._respond(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", body)

    def _answer(self, path: str) -> Answer | None:
        """What was found, or a part of a coverage map."""
        return fuzz_data(self.server.site, path) or self.server.map_data.answer(path)

    @property
    def _page_folder(self) -> Path:
        return self.server.site.lib_dir / "fuzzer" / "web"

    def _serve_page_file(self, name: str) -> None:
        """A further script or style sheet, of which Zig's own page has none."""
        path = self._page_folder / name
        if path.is_file():
            self._serve_file(path, "text/css" if name.endswith(".css") else "application/javascript")
        else:
            self._respond(HTTPStatus.NOT_FOUND, "text/plain", b"not found")

    def _serve_file(self, path: Path, content_type: str) -> None:
        """Read at each request, so that an edit of the page shows on reload."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise FuzzServerError(f"failed to read '{path}': no such file") from None
        except OSError as error:
            raise FuzzServerError(f"failed to read '{path}': {error.strerror}") from error
        self._respond(HTTPStatus.OK, content_type, content, CACHE_CONTROL)

    def _serve_sources_tar(self) -> None:
        paths = self.server.site.sources()
        self.send_response_only(HTTPStatus.OK)
        chunked = self.request_version != "HTTP/1.0"
        if chunked:
            self.send_header("transfer-encoding", "chunked")
        else:
            self.close_connection = True
        self.send_header("content-type", "application/x-tar")
        self.send_header(*CACHE_CONTROL)
        self.end_headers()
        if self.command == "HEAD":
            return
        write_sources_tar(paths, self._write_chunk if chunked else self.wfile.write)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _write_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _respond(self, status: HTTPStatus, content_type: str, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response_only(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", content_type)
        for name, value in headers:
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def end_headers(self) -> None:
        """Whatever is sent, it is sent under the rules of the page."""
        if self.server.site.own_page:
            self.send_header("content-security-policy", CONTENT_SECURITY_POLICY)
        super().end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the base class refuses: in plain text, and 405 for methods that nobody has."""
        self.close_connection = True
        # Until a version is understood, the base class takes the client for one of 1991, which gets no head.
        self.request_version = self.protocol_version
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._respond(
                HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"method not allowed", ("allow", "GET, HEAD")
            )
        else:
            status = HTTPStatus(code)
            self._respond(status, "text/plain", status.phrase.lower().encode())

    def log_message(self, format: str, *args: object) -> None:
        """To the log instead of stderr."""
        log.debug("%s %s", self.address_string(), format % args)

    def _serve_web_socket(self) -> None:
        self.close_connection = True
        web_socket = WSConnection(ConnectionType.SERVER)
        try:
            headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
            web_socket.initiate_upgrade_connection(headers, self.path)
            request = next(web_socket.events())
            assert isinstance(request, Request)
        # wsproto lets many errors escape besides its own: h11's, and those of decoding, for instance.
        except Exception as error:
            log.info("initializing web socket: %s", error)
            self._refuse_web_socket()
            return
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in request.subprotocols else None
        self.wfile.write(web_socket.send(AcceptConnection(subprotocol=subprotocol)))
        self.wfile.flush()
        threading.current_thread().name = threading.current_thread().name.replace("http-", "ws-")
        self.connection.setblocking(False)
        # The client's first frame may have arrived together with the handshake.
        received = self.rfile.peek()  # type: ignore[attr-defined]
        if received:
            self.rfile.read(len(received))
        site = self.server.site
        session = Session(
            self.connection,
            web_socket,
            coverage_files=site.coverage_files,
            now=site.now,
            target=_target(self.path),
            news=None if subprotocol is None else News(site.status, site.details, site.log_book),
        )
        with self.server.session(session):
            session.run(received)

    def _refuse_web_socket(self) -> None:
        if self.headers.get("Sec-WebSocket-Version", "13") != "13":
            self._respond(
                HTTPStatus.UPGRADE_REQUIRED,
                "text/plain",
                b"upgrade required",
                ("sec-websocket-version", "13"),
                ("upgrade", "websocket"),
            )
        else:
            self._respond(HTTPStatus.BAD_REQUEST, "text/plain", b"bad request")


def _target(request_target: str) -> int | None:
    """The coverage id that ``?target=`` names; -1, which no map has, if it is none."""
    values = parse_qs(urlsplit(request_target).query, keep_blank_values=True).get("target")
    if not values:
        return None
    coverage_id = coverage_id_of(values[-1])
    return -1 if coverage_id is None else coverage_id
