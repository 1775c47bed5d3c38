"""One connection: requests, one after the other, then perhaps a WebSocket (Zig: ``serveRequest``).

*Runs on* the thread ``http-N``, which becomes ``ws-N`` when the connection is upgraded. *Takes* bytes, for
so long and no longer. *Gives* responses: to what is no request, to what the gate turns away, and from the
routes.
"""

import contextlib
import logging
import socket
import threading
import time
from http import HTTPStatus
from socketserver import BaseRequestHandler
from typing import TYPE_CHECKING

from fuzzserver.web.answer import Answer, Archive, Heavy, etag_of
from fuzzserver.web.body import Body, send_all
from fuzzserver.web.gate import BUILD_WEB_PATHS
from fuzzserver.web.handshake import read_handshake
from fuzzserver.web.head import BadRequest, HeadBuffer, NotHttp, RequestHead
from fuzzserver.web.response import Policy, response_head
from fuzzserver.web.routes import CACHE_CONTROL
from fuzzserver.web.web_socket import WOULD_BLOCK, WebSocket

if TYPE_CHECKING:
    from fuzzserver.web.server import HttpServer

__all__ = ["OVERLOADED", "Connection"]

log = logging.getLogger(__name__)

READ_BYTES = 16 * 1024
UNSENT_BYTES = 128 * 1024
"""Bytes that wait in the system until the client has room for them."""
MAX_BODY = 64 * 1024
"""Bytes of a body that is read, and dropped: nobody has anything to send."""
LINGER = 0.5
"""Seconds for a client to read the last answer. A socket that is closed with unread input takes it back."""
MAX_LINGER = 1024 * 1024
"""Bytes of input that are dropped meanwhile."""
METHODS = ("allow", "GET, HEAD, OPTIONS")

_BUSY = Answer(
    "text/plain",
    b"The server has as many of these at once as it may have. Try again in a moment.",
    (("retry-after", "1"),),
    HTTPStatus.SERVICE_UNAVAILABLE,
)
OVERLOADED = (
    response_head(
        _BUSY.status,
        (
            ("content-length", str(len(_BUSY.content))),
            ("content-type", _BUSY.content_type),
            *_BUSY.headers,
            ("connection", "close"),
        ),
        Policy.DATA,
    )
    + _BUSY.content
)
"""All that a connection too many is sent."""


class Connection(BaseRequestHandler):
    """Reads requests and answers them, until either side has enough."""

    server: "HttpServer"
    request: socket.socket

    def setup(self) -> None:
        """Before the first byte."""
        with contextlib.suppress(OSError):
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            # Else the system takes in megabytes for each slow reader, which looks as if they were read: for
            # hundreds, it comes to a standstill.
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._limits = self.server.limits
        self._buffer = HeadBuffer()
        # The last request had it all, and another one may follow.
        self._keep_alive = True
        self._is_head = False

    def handle(self) -> None:
        """All requests of the connection."""
        try:
            while self._keep_alive and (head := self._read_head()) is not None:
                self._serve(head)
        except NotHttp:
            return
        except BadRequest as error:
            self._refuse(error.status, error.reason)
        if not self._keep_alive:
            self._linger()

    def _read_head(self) -> RequestHead | None:
        """The next head; None if the client leaves or has nothing to say."""
        self._is_head = False
        begun = bool(self._buffer.rest)
        deadline = time.monotonic() + self._limits.head_seconds
        while True:
            if begun and (head := self._buffer.take()) is not None:
                return head
            try:
                data = self._receive(deadline)
            except TimeoutError:
                if begun:
                    raise BadRequest(HTTPStatus.REQUEST_TIMEOUT, "the request takes too long") from None
                return None
            if not data:
                return None
            if not begun:
                begun, deadline = True, time.monotonic() + self._limits.head_seconds
            self._buffer.feed(data)

    def _receive(self, deadline: float) -> bytes:
        # What has come is taken even if the time is over: a busy machine may have been the slow one.
        self.request.settimeout(max(0.0, deadline - time.monotonic()))
        try:
            return self.request.recv(READ_BYTES)
        except WOULD_BLOCK:
            raise TimeoutError from None

    def _serve(self, head: RequestHead) -> None:
        self._is_head = head.method == "HEAD"
        refusal = self.server.gate.refusal(head)
        if refusal is not None:
            told = (self.client_address[0], head.values("host"), head.values("origin"))
            self.server.sparse_log(
                logging.WARNING, "refused a request of %s, Host %.99r, Origin %.99r: %s", *told, refusal.text
            )
            challenge = [("www-authenticate", "Bearer")] if refusal.status == HTTPStatus.UNAUTHORIZED else []
            self._refuse(refusal.status, refusal.text, *challenge)
        elif head.upgrades:
            self._serve_web_socket(head)
        else:
            self._keep_alive = head.keep_alive
            self._drop_body(head)
            self._answer(head)

    def _drop_body(self, head: RequestHead) -> None:
        """Read what belongs to this request, so that it is not taken for the next one."""
        left = head.content_length
        if left > MAX_BODY:
            raise BadRequest(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "nothing is taken here, and this is too much"
            )
        if left and head.values("expect"):
            self._keep_alive = False  # The client waits for a word before it sends a body. This is it.
            return
        left -= self._buffer.skip(left)
        deadline = time.monotonic() + self._limits.body_seconds
        while left:
            try:
                data = self._receive(deadline)
            except TimeoutError:
                raise BadRequest(HTTPStatus.REQUEST_TIMEOUT, "the request takes too long") from None
            if not data:
                raise ConnectionResetError("client left in the middle of a request")
            self._buffer.feed(data)
            left -= self._buffer.skip(left)

    def _answer(self, head: RequestHead) -> None:
        log.debug("%s %s %s", self.client_address, head.method, head.path)
        routes = self.server.routes
        if head.method == "OPTIONS":
            self._send(Answer("text/plain", b"", (METHODS,), HTTPStatus.NO_CONTENT))
            return
        if head.method not in ("GET", "HEAD"):
            self._send(routes.refusal(HTTPStatus.METHOD_NOT_ALLOWED, "method not allowed", METHODS))
            return
        answer = routes.answer(head.path, head.query)
        if isinstance(answer, Archive):
            self._send_archive(answer, head)
            return
        if isinstance(answer, Heavy):
            self._send_heavy(answer, head)
            return
        cookie = self.server.gate.cookie(head)
        self._send(answer, head, [] if cookie is None else [("set-cookie", cookie)])

    def _refuse(self, status: HTTPStatus, text: str, *headers: tuple[str, str]) -> None:
        """Answer, and listen no more: what follows may be anything."""
        self._keep_alive = False
        self._send(self.server.routes.refusal(status, text, *headers))

    def _send(
        self, answer: Answer, head: RequestHead | None = None, more: list[tuple[str, str]] | None = None
    ) -> None:
        """Head and body together, in as few pieces as they need."""
        status, body, headers = answer.status, answer.content, [*answer.headers, *(more or ())]
        if head is not None and status == HTTPStatus.OK:
            etag = answer.etag or etag_of(body)
            headers += [CACHE_CONTROL, ("etag", etag)]
            if _is_among(etag, head):
                status, body = HTTPStatus.NOT_MODIFIED, b""
        if status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            headers = [("content-length", str(len(body))), ("content-type", answer.content_type), *headers]
        if not self._keep_alive:
            headers.append(("connection", "close"))
        policy = self._policy(answer, head)
        self._write(response_head(status, headers, policy), b"" if self._is_head else body)

    def _policy(self, answer: Answer, head: RequestHead | None) -> str:
        if head is None or not answer.is_page:
            return Policy.DATA
        if head.path.startswith(BUILD_WEB_PATHS):
            return Policy.BUILD_WEB_PAGE
        return Policy.OWN_PAGE if self.server.routes.site.own_page else Policy.FOREIGN_PAGE

    def _write(self, head: bytes, body: bytes = b"") -> None:
        send_all(self.request, self._limits.write_seconds, head, body)

    def _send_archive(self, archive: Archive, head: RequestHead) -> None:
        with self.server.archives.take() as taken:
            if not taken:
                self._send(_BUSY)
                return
            chunked = head.version != (1, 0)
            headers = [("transfer-encoding", "chunked")] if chunked else []
            self._keep_alive = self._keep_alive and chunked
            headers += [("content-type", "application/x-tar"), CACHE_CONTROL, *archive.headers]
            if not self._keep_alive:
                headers.append(("connection", "close"))
            self._write(response_head(HTTPStatus.OK, headers, Policy.DATA))
            if not self._is_head:
                body = Body(self.request, self._limits.write_seconds, chunked)
                archive.write_to(body)
                body.end()

    def _send_heavy(self, heavy: Heavy, head: RequestHead) -> None:
        """Who waits for one, or reads it, holds a place: each may be large."""
        with self.server.reports.take() as taken:
            self._send(heavy.make() if taken else _BUSY, head)

    def _linger(self) -> None:
        """Let the client read what it was sent before the socket is closed."""
        deadline, left = time.monotonic() + LINGER, MAX_LINGER
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_WR)
            while left > 0 and (data := self._receive(deadline)):
                left -= len(data)

    def _serve_web_socket(self, head: RequestHead) -> None:
        self._keep_alive = False
        handshake = read_handshake(head)
        if handshake is None:
            self._refuse_web_socket(head)
            return
        with self.server.viewers.take() as taken:
            if not taken:
                self._send(_BUSY)
                return
            told = handshake.told(self.server.routes.site.build_web)
            hear = self.server.listener(told)
            try:
                web_socket = WebSocket(self.request, handshake.protocol, self._limits, hear)
            except OSError as error:
                self.server.sparse_log(logging.WARNING, "cannot serve a viewer: %s", error.strerror)
                self._send(_BUSY)
                return
            web_socket.accept(handshake.acceptance())
            thread = threading.current_thread()
            thread.name = thread.name.replace("http-", "ws-")
            with self.server.session(web_socket, told):
                web_socket.run(self._buffer.rest)

    def _refuse_web_socket(self, head: RequestHead) -> None:
        if head.values("sec-websocket-version") not in ([], ["13"]):
            self._refuse(
                HTTPStatus.UPGRADE_REQUIRED,
                "WebSockets of version 13 are spoken here",
                ("sec-websocket-version", "13"),
                ("upgrade", "websocket"),
            )
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "this asks for a WebSocket in a wrong way")


def _is_among(etag: str, head: RequestHead) -> bool:
    """Whether the client has that already (RFC 9110, section 13.1.2)."""
    known = [
        each.strip(" \t").removeprefix("W/") for each in ",".join(head.values("if-none-match")).split(",")
    ]
    return etag in known or known == ["*"]
