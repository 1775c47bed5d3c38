"""HTTP by hand: requests as bytes, and answers read strictly."""

import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support_time import WAIT

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) ([\x20-\x7e]*)")
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\x20-\x7e]*)")
_SIZE_LINE = re.compile(rb"[0-9a-f]{1,8}")


class NotHttp(AssertionError):
    """What was received is no answer that each client understands alike."""


@dataclass(frozen=True)
class Response:
    """One answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def value(self, name: str) -> str | None:
        """The one value of a header; None if there is none."""
        values = [value for each, value in self.headers if each == name]
        assert len(values) <= 1, f"{name} was sent {len(values)} times"
        return values[0] if values else None

    @property
    def closes(self) -> bool:
        """Whether the answer says that it is the last one."""
        return self.value("connection") == "close"


def parse_responses(data: bytes, methods: str = "", *, maybe_head: bool = False) -> list[Response]:
    """All answers in what a server has sent until it closed; NotHttp if anything else is in it.

    ``methods`` are those of the requests, as far as they matter: an answer to HEAD has no body. With
    ``maybe_head`` each may have been a HEAD.
    """
    wanted = iter(methods.split())
    found = []
    while data:
        rest = data.partition(b"\r\n\r\n")[2]
        is_head = maybe_head and (not rest or _STATUS_LINE.match(rest) is not None)
        response, data = _parse_response(data, "HEAD" if is_head else next(wanted, "GET"))
        found.append(response)
        if response.status == 101:
            break  # What follows are frames.
    return found


def _parse_response(data: bytes, method: str) -> tuple[Response, bytes]:
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        raise NotHttp(f"a head without an end: {data[:200]!r}")
    line, *lines = head.split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(line)
    if status_line is None:
        raise NotHttp(f"no status line: {line[:200]!r}")
    headers = []
    for each in lines:
        match = _HEADER_LINE.fullmatch(each)
        if match is None:
            raise NotHttp(f"no header: {each[:200]!r}")
        headers.append((match[1].decode().lower(), match[2].decode()))
    names = [name for name, _ in headers]
    if len(set(names) - {"set-cookie"}) != len(names) - names.count("set-cookie"):
        raise NotHttp(f"a header twice: {names}")
    response = Response(int(status_line[1]), tuple(headers), b"")
    if 100 <= response.status < 200 and response.status != 101:
        raise NotHttp(f"an interim answer that nobody asked for: {response.status}")
    length, coding = response.value("content-length"), response.value("transfer-encoding")
    if length is not None and coding is not None:
        raise NotHttp("two lengths")
    if response.status in (101, 204) and (length or coding):
        raise NotHttp(f"{response.status} with a length")
    if method == "HEAD" or response.status in (101, 204, 304):
        body = b""
    elif coding is not None:
        if coding != "chunked":
            raise NotHttp(f"an unknown coding: {coding}")
        body, rest = _parse_chunks(rest)
    elif length is not None:
        if not length.isascii() or not length.isdigit() or len(rest) < int(length):
            raise NotHttp(f"{len(rest)} bytes of {length}")
        body, rest = rest[: int(length)], rest[int(length) :]
    elif response.closes:
        body, rest = rest, b""
    else:
        raise NotHttp("a body whose end nobody knows")
    return Response(response.status, response.headers, body), rest


def _parse_chunks(data: bytes) -> tuple[bytes, bytes]:
    body = bytearray()
    while True:
        size_line, _, data = data.partition(b"\r\n")
        if _SIZE_LINE.fullmatch(size_line) is None:
            raise NotHttp(f"no size of a chunk: {size_line[:100]!r}")
        size = int(size_line, 16)
        if data[size : size + 2] != b"\r\n":
            raise NotHttp("a chunk that does not end where it says")
        body += data[:size]
        data = data[size + 2 :]
        if size == 0:
            return bytes(body), data


@contextmanager
def connected(port: int, timeout: float = WAIT, *, receive_buffer: int = 0) -> Iterator[socket.socket]:
    """A connection to a server on this machine; the system takes about ``receive_buffer`` bytes for it."""
    with socket.socket() as connection:
        if receive_buffer:  # Once it is connected, the other side has been promised more.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(timeout)
        connection.connect(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def receive_all(connection: socket.socket) -> bytes:
    """What the server sends until it closes. TimeoutError if it does not, and it must not reset either."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def exchange(port: int, data: bytes, *, bytewise: bool = False, hang_up: bool = True) -> bytes:
    """Send ``data``, perhaps one byte at a time, and receive all until the server closes.

    With ``hang_up`` the server knows that nothing more will come. Without it, it has to close by itself.
    """
    with connected(port) as connection:
        try:
            for start in range(0, len(data), 1 if bytewise else len(data) or 1):
                connection.sendall(data[start : start + 1] if bytewise else data)
            if hang_up:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # It has heard enough. Its answer is there all the same.
        return receive_all(connection)


def ask(port: int, path: str = "/", method: str = "GET", *headers: str, host: str = "") -> Response:
    """One request with these header lines, and its answer, read strictly.

    For tests of how things are written: nothing is added to the lines but Host and Connection.
    """
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {host or f'localhost:{port}'}",
        *headers,
        "Connection: close",
    ]
    data = exchange(port, "\r\n".join((*lines, "", "")).encode("latin-1"))
    (response,) = parse_responses(data, method)
    return response


KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
)


def upgrade_request(
    host: str | int, /, *lines: str, path: str = "/", without: str = "", **changes: str
) -> bytes:
    """The first half of a WebSocket's handshake; a number is a port of this machine.

    ``lines`` come besides, one header is left out. Keyword arguments replace headers or add some, ``_``
    standing for ``-``.
    """
    headers = {name.replace("_", "-"): value for name, value in changes.items()}
    whole = (f"Host: {f'127.0.0.1:{host}' if isinstance(host, int) else host}", *UPGRADE)
    kept = [line for line in whole if line.partition(":")[0].lower() not in {without, *headers}]
    own = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((f"GET {path} HTTP/1.1", *kept, *own, *lines, "", "")).encode("latin-1")


def reset(connection: socket.socket) -> None:
    """Close so that the other side gets RST instead of an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
