"""How answers leave: piece by piece, each of which has its time.

A client that reads a byte a second would hold a thread for ever.
"""

import os
import select
import socket
import ssl
import time

__all__ = ["Body", "send_all"]

PIECE = 64 * 1024
"""Bytes that a client must take within the time that it has for one answer, or for a part of it."""


def send_all(connection: socket.socket, seconds: float, head: bytes, body: bytes = b"") -> None:
    """Send both, together as far as they fit; TimeoutError if a piece takes longer than ``seconds``.

    The body is not copied as a whole: it may be large, and many may be sent it at once.
    """
    connection.settimeout(seconds)
    connection.sendall(head + body[:PIECE])
    for begin in range(PIECE, len(body), PIECE):
        connection.sendall(memoryview(body)[begin : begin + PIECE])


class Body:
    """The body of an answer whose length is not known when it begins (RFC 9112, section 7.1)."""

    def __init__(self, connection: socket.socket, seconds: float, chunked: bool) -> None:
        """``chunked``: whether the client can tell the end by anything else than that we close."""
        self._connection = connection
        self._seconds = seconds
        self._chunked = chunked

    def write(self, data: bytes) -> None:
        """Send a part of it, which must not be empty."""
        if self._chunked:
            send_all(self._connection, self._seconds, b"%x\r\n" % len(data), data + b"\r\n")
        else:
            send_all(self._connection, self._seconds, b"", data)

    def send_file(self, file: int, size: int) -> None:
        """Send the first ``size`` bytes of an open file as one part."""
        if size == 0:
            return
        if self._chunked:
            send_all(self._connection, self._seconds, b"%x\r\n" % size)
        if isinstance(self._connection, ssl.SSLSocket):  # The system knows no TLS.
            for begin in range(0, size, PIECE):
                piece = os.pread(file, min(PIECE, size - begin), begin)
                send_all(self._connection, self._seconds, b"", piece)
        else:
            self._send_by_system(file, size)
        if self._chunked:
            send_all(self._connection, self._seconds, b"\r\n")

    def end(self) -> None:
        """There is no more."""
        if self._chunked:
            send_all(self._connection, self._seconds, b"0\r\n\r\n")

    def _send_by_system(self, file: int, size: int) -> None:
        sent = piece_begun = 0
        deadline = time.monotonic() + self._seconds
        while sent < size:
            try:
                sent += os.sendfile(self._connection.fileno(), file, sent, size - sent)
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._connection, select.POLLOUT)
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise TimeoutError("a client takes too long to read") from None
            if sent >= piece_begun + PIECE:
                piece_begun, deadline = sent, time.monotonic() + self._seconds
