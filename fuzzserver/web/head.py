"""The head of an HTTP/1 request, read strictly: bytes in, values or an error out (RFC 9112, RFC 9110).

What clients of today send is taken; what is ambiguous is refused, since two readers that see two different
requests in the same bytes are how requests are smuggled. Opens nothing, waits for nothing.
"""

import re
from dataclasses import dataclass
from http import HTTPStatus

__all__ = ["MAX_HEAD", "MAX_HEADERS", "MAX_LINE", "BadRequest", "HeadBuffer", "NotHttp", "RequestHead"]

MAX_HEAD = 16 * 1024
"""Bytes of a whole head."""
MAX_LINE = 8 * 1024
"""Bytes of one line of it."""
MAX_HEADERS = 100

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# In the target, "#" and "\" are where servers were once led astray; no client sends them.
_REQUEST_LINE = re.compile(rb"(%b) ([!\"$-\[\]-~]+) HTTP/([0-9])\.([0-9])" % _TOKEN)
_VERSION_TOO_NEW = re.compile(rb".* HTTP/(?:1\.[2-9]|[2-9]\.[0-9])", re.DOTALL)
# White space behind a value is not left to the expression: it would take time with its square.
_HEADER = re.compile(rb"(%b):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)" % _TOKEN)
_STRAY = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ABSOLUTE = re.compile(r"https?://([^/?]*)(.*)", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,18}")
_TLS_HANDSHAKE = b"\x16"


class BadRequest(Exception):
    """The bytes are no request that is served. ``reason`` is a fixed sentence: it holds nothing of them."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class NotHttp(Exception):
    """The client speaks something else and would not understand an answer."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request line and headers, of which each means one thing."""

    method: str
    target: str
    """As it was sent."""
    authority: str | None
    """Host and port in the target, where they are in front of the path: it comes before ``Host``."""
    path: str
    """Of the target, undecoded; ``*`` and the target of CONNECT stand as they are."""
    query: str
    """What follows the ``?``."""
    version: tuple[int, int]
    """(1, 0) or (1, 1)."""
    headers: tuple[tuple[str, str], ...]
    """Names in lower case; values as Latin-1, without white space around them."""

    def values(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for each, value in self.headers if each == name]

    def value(self, name: str) -> str | None:
        """The value of a header; None if there is none. BadRequest if there are several."""
        values = self.values(name)
        if len(values) > 1:
            raise BadRequest(HTTPStatus.BAD_REQUEST, f"several headers {name}")
        return values[0] if values else None

    def tokens(self, name: str) -> list[str]:
        """What a list such as ``Connection`` holds, in lower case."""
        return [token.strip(" \t").lower() for value in self.values(name) for token in value.split(",")]

    @property
    def content_length(self) -> int:
        """Bytes that follow the head."""
        return int(self.value("content-length") or "0")

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants to send another request on this connection."""
        options = self.tokens("connection")
        return "close" not in options and (self.version == (1, 1) or "keep-alive" in options)

    @property
    def upgrades(self) -> bool:
        """Whether the client asks for a WebSocket."""
        return self.method == "GET" and self.version == (1, 1) and "websocket" in self.tokens("upgrade")


class HeadBuffer:
    """Takes in bytes as they come and gives heads. What comes after a head stays for whoever is next."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._line_skipped = False
        # How much of the data was looked at: who sends byte by byte must not make us look at all each time.
        self._looked = 0

    def feed(self, data: bytes) -> None:
        """Append what was received."""
        self._data += data

    @property
    def rest(self) -> bytes:
        """What was received and not taken."""
        return bytes(self._data)

    def skip(self, size: int) -> int:
        """Drop up to ``size`` bytes of the rest; how many there were."""
        dropped = min(size, len(self._data))
        del self._data[:dropped]
        return dropped

    def take(self) -> RequestHead | None:
        """The next head; None if it is not whole yet. BadRequest as soon as no head can become of it."""
        if not self._line_skipped and self._data.startswith(b"\r\n"):
            # Some clients of old end a body with a line break that belongs to nothing.
            del self._data[:2]
            self._line_skipped, self._looked = True, 0
        if self._data.startswith(_TLS_HANDSHAKE):
            raise NotHttp
        end = self._data.find(b"\r\n\r\n", 0, MAX_HEAD)
        seen = bytes(self._data[: end + 4] if end >= 0 else self._data[:MAX_HEAD])
        line, line_break, _ = seen.partition(b"\r\n")
        if len(line.removesuffix(b"\r")) > MAX_LINE:  # Its LF may be yet to come.
            raise BadRequest(HTTPStatus.REQUEST_URI_TOO_LONG, "the request line is too long")
        if _STRAY.search(seen, max(0, self._looked - 1)) is not None:
            raise BadRequest(
                HTTPStatus.BAD_REQUEST, "a control character, or a line that does not end in CR LF"
            )
        if line_break:
            _request_line(line)
        if end < 0:
            if (
                len(self._data) >= MAX_HEAD
                or max(map(len, seen.removesuffix(b"\r").split(b"\r\n"))) > MAX_LINE
            ):
                raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is too long")
            self._looked = len(seen)
            return None
        del self._data[: end + 4]
        self._line_skipped, self._looked = False, 0
        return _parse_head(seen[:-4])


def _request_line(line: bytes) -> tuple[str, str, tuple[int, int]]:
    """Method, target and version."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "the request line is none")
    version = (int(match[3]), int(match[4]))
    if version not in ((1, 0), (1, 1)):
        if _VERSION_TOO_NEW.fullmatch(line) is not None:
            raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here")
        raise BadRequest(HTTPStatus.BAD_REQUEST, "the request line is none")
    return match[1].decode(), match[2].decode(), version


def _parse_head(data: bytes) -> RequestHead:
    line, *lines = data.split(b"\r\n")
    method, target, version = _request_line(line)
    if len(lines) > MAX_HEADERS or max(map(len, lines), default=0) > MAX_LINE:
        raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many headers, or one too long")
    headers = []
    for each in lines:
        match = _HEADER.fullmatch(each)
        if match is None:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "a line of the head is no header")
        headers.append((match[1].decode().lower(), match[2].decode("latin-1").rstrip(" \t")))
    authority, path, query = _split_target(method, target)
    head = RequestHead(method, target, authority, path, query, version, tuple(headers))
    _check(head)
    return head


def _split_target(method: str, target: str) -> tuple[str | None, str, str]:
    """Authority, path and query."""
    authority = None
    if method == "CONNECT" or (method == "OPTIONS" and target == "*"):
        return None, target, ""
    if (match := _ABSOLUTE.fullmatch(target)) is not None:
        authority, target = match[1], match[2] if match[2].startswith("/") else "/" + match[2]
    elif not target.startswith("/"):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "the target of the request is no path")
    path, _, query = target.partition("?")
    return authority, path, query


def _check(head: RequestHead) -> None:
    """What headers say about the request as a whole."""
    if len(head.values("host")) != 1:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "a request has one header Host")
    length = head.value("content-length")
    if length is not None and _LENGTH.fullmatch(length) is None:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "the content-length is none")
    if head.values("transfer-encoding"):
        if length is not None:
            raise BadRequest(
                HTTPStatus.BAD_REQUEST, "transfer-encoding and content-length contradict each other"
            )
        raise BadRequest(HTTPStatus.NOT_IMPLEMENTED, "no transfer-encoding is taken")
    expect = head.value("expect")
    if expect is not None and expect.lower() != "100-continue":
        raise BadRequest(HTTPStatus.EXPECTATION_FAILED, "that cannot be expected here")
