"""How long a server bears with clients that take their time."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from fuzzserver import WebServer
from fuzzserver.access import Limits
from tests.support_time import WAIT

PATIENT = Limits(head_seconds=2 * WAIT, body_seconds=2 * WAIT, write_seconds=2 * WAIT)
"""With these, no connection is closed because its time is over: a test would have given up before."""

SHORT = 0.5
"""Seconds of each deadline."""
LATE = 30.0
"""Seconds more that a busy machine may take."""
PAUSE = 0.05
"""Seconds between two bytes of those who are slow: always in time, each of them."""


@contextlib.contextmanager
def nobody_let_in(server: WebServer) -> Iterator[None]:
    """Connections wait to be accepted: what is sent meanwhile has come before any time begins to run."""
    http_server: Any = server._http_server
    accept, let_in = http_server.get_request, threading.Event()
    http_server.get_request = lambda: let_in.wait(WAIT) and accept()
    try:
        yield
    finally:
        del http_server.get_request
        let_in.set()


def seconds_until_closed(
    connection: socket.socket, begun: float, send: Callable[[], None]
) -> tuple[float, bytes]:
    """How long the server bears with a client that goes on sending; and what it says in the end."""
    connection.settimeout(PAUSE)
    received = b""
    while time.monotonic() < begun + WAIT:
        try:
            part = connection.recv(65536)
        except TimeoutError:
            with contextlib.suppress(OSError):
                send()
            continue
        except ConnectionResetError:
            part = b""
        if not part:
            return time.monotonic() - begun, received
        received += part
    raise AssertionError("the server bears with it for ever")
