"""The HTTP server: accepts connections, so many and no more, and ends them (Zig: ``accept``).

*Runs on* the thread ``http``, and one thread for each connection; the thread ``hub`` tells viewers what is
new. *Takes* a ``Site``. *Gives* connections.
"""

import contextlib
import errno
import logging
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

from wsproto.events import BytesMessage, TextMessage

from fuzzserver.access import Limits
from fuzzserver.errors import InputError
from fuzzserver.web.build_web import BuildWebTold, RebuildRequests
from fuzzserver.web.connection import OVERLOADED, Connection
from fuzzserver.web.entrance import Entrance
from fuzzserver.web.hub import Hub
from fuzzserver.web.limits import Load, Places, SparseLog
from fuzzserver.web.routes import Routes
from fuzzserver.web.session import AnyTold
from fuzzserver.web.site import Site
from fuzzserver.web.web_socket import Hear, WebSocket

__all__ = ["HttpServer"]

log = logging.getLogger(__name__)

STOP_SECONDS = 1.5
"""For connections to end when the server stops."""
ACCEPT_PAUSE = 0.1
"""Seconds before the next try when a connection cannot be accepted: it stays in the queue meanwhile, and
trying at once would take a whole core."""


class HttpServer(ThreadingHTTPServer):
    """Accepts connections for one ``Site``, and knows all of them, so that it can end them."""

    request_queue_size = 1024  # With the default of 5, a burst of browsers waits for seconds.
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, entrance: Entrance, site: Site, limits: Limits) -> None:
        """Bind and listen; OSError if the address is taken."""
        if ":" in entrance.address[0]:
            self.address_family = socket.AF_INET6
        self.limits = limits
        self.routes = Routes(site, self._load)
        self.viewers = Places(limits.viewers)
        self.archives = Places(limits.archives)
        self.reports = Places(limits.reports)
        self.sparse_log = SparseLog(log)
        self.hub = Hub(site)
        self._hub_thread = threading.Thread(target=self.hub.run, name="hub", daemon=True)
        self._tls = entrance.tls
        # Guards ``_connections``, ``_sessions`` and ``_stopping``.
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._sessions: set[WebSocket] = set()
        self._stopping = False
        self._accepted = 0
        super().__init__(entrance.address, Connection)
        self.gate = entrance.gate(self.bound)
        self._hub_thread.start()

    def server_bind(self) -> None:
        """Bind without asking the resolver for our own name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def bound(self) -> tuple[str, int]:
        """The address and port that are listened on."""
        host, port = self.socket.getsockname()[:2]
        return host, port

    def _load(self) -> Load:
        with self._lock:
            return Load(len(self._connections), self.viewers.taken)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; OSError, after a pause, if there is no file descriptor for it."""
        try:
            return super().get_request()
        except OSError as error:
            self.sparse_log(logging.WARNING, "cannot accept a connection: %s", error.strerror)
            time.sleep(ACCEPT_PAUSE)
            raise

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Start the connection's thread, or turn the connection away."""
        self._accepted += 1
        thread = threading.Thread(
            target=self._serve_connection,
            args=(request, client_address),
            name=f"http-{self._accepted}",
            daemon=True,
        )
        with self._lock:
            full = len(self._connections) >= self.limits.connections
            if not full:
                self._connections[thread] = request
        if full:
            self.sparse_log(logging.WARNING, "more than %d connections at once", self.limits.connections)
            self._turn_away(request)
            return
        try:
            thread.start()
        except RuntimeError as error:
            with self._lock:
                del self._connections[thread]
            self.sparse_log(logging.WARNING, "cannot serve a connection: %s", error)
            self._turn_away(request)

    def _turn_away(self, request: socket.socket) -> None:
        """Say why, without waiting for anybody."""
        with contextlib.suppress(OSError):
            request.setblocking(False)
            if self._tls is None:
                request.send(OVERLOADED)
                request.shutdown(socket.SHUT_WR)
                request.recv(65536)  # A socket that is closed with unread input takes its answer back.
        request.close()

    def _serve_connection(self, request: socket.socket, client_address: object) -> None:
        try:
            if self._tls is not None:
                request = self._shake_hands(self._tls, request)
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            # First the socket, then the entry: while there is an entry, ``stop`` waits for us.
            self.shutdown_request(request)
            with self._lock:
                del self._connections[threading.current_thread()]

    def _shake_hands(self, tls: ssl.SSLContext, request: socket.socket) -> socket.socket:
        """Begin to speak TLS, within the time that a head may take."""
        request.settimeout(self.limits.head_seconds)
        wrapped = tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._connections[threading.current_thread()] = wrapped
        try:
            wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        return wrapped

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error of ours, and not worth a traceback."""
        error = sys.exc_info()[1]
        if isinstance(error, (ConnectionError, TimeoutError, ssl.SSLError)):
            log.debug("connection of %s ended: %r", client_address, error)
        elif isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            self.sparse_log(logging.WARNING, "cannot serve a connection: %s", error.strerror)
        else:
            log.exception("connection of %s failed", client_address)

    def hear(self, web_socket: WebSocket, message: TextMessage | BytesMessage) -> None:
        """Viewers have nothing to say: what they send is dropped."""

    def listener(self, told: AnyTold) -> Hear:
        """What is done with what a new viewer sends."""
        return RebuildRequests(self._rebuild).hear if isinstance(told, BuildWebTold) else self.hear

    def _rebuild(self) -> None:
        try:
            self.routes.site.rebuild()
        except InputError as error:
            self.sparse_log(logging.WARNING, "a viewer wants a rebuild: %s", error)

    @contextlib.contextmanager
    def session(self, web_socket: WebSocket, told: AnyTold) -> Iterator[None]:
        """Tell a viewer what is new, for the time that its WebSocket runs."""
        with self._lock:
            self._sessions.add(web_socket)
            if self._stopping:
                web_socket.stop()
        self.hub.join(web_socket, told)
        try:
            yield
        finally:
            self.hub.leave(web_socket)
            with self._lock:
                self._sessions.discard(web_socket)

    def stop(self) -> None:
        """Stop accepting, end all connections, and wait for their threads. Call it once."""
        deadline = time.monotonic() + STOP_SECONDS
        self.routes.stop()  # First, or the reports that are waited for would be made one after the other.
        self.shutdown()
        self.server_close()
        self.hub.stop()
        self._hub_thread.join(STOP_SECONDS / 2)  # The last status says why.
        with self._lock:
            self._stopping = True
            for web_socket in self._sessions:
                web_socket.stop()
            threads = list(self._connections)
        for thread in threads:
            # A WebSocket says good-bye by itself; what waits for a request is woken up here.
            if not thread.name.startswith("ws-"):
                self._wake(thread)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for thread in threads:
            self._wake(thread)
        for thread in threads:
            thread.join(max(0.0, deadline + 0.5 - time.monotonic()))
        self.routes.close()

    def _wake(self, thread: threading.Thread) -> None:
        with self._lock:
            request = self._connections.get(thread)
        if request is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(request, socket.SHUT_RDWR)  # Not TLS's, which is not for two threads.
