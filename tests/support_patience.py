"""How long a server bears with clients that take their time."""

import contextlib
import socket
import time
from collections.abc import Callable

from tests.support_time import WAIT

SHORT = 0.5
"""Seconds of each deadline."""
LATE = 5.0
"""Seconds more that a busy machine may take."""
PAUSE = 0.05
"""Seconds between two bytes of those who are slow: always in time, each of them."""


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
