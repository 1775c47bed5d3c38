"""A server whose WebSockets say what they hear: what test suites for WebSockets talk to."""

import time

from wsproto.events import BytesMessage, TextMessage

from fuzzserver import WebServer
from fuzzserver.access import Limits
from fuzzserver.web.web_socket import WebSocket

LIMITS = Limits(message_bytes=32 << 20, messages_per_second=1_000_000_000)
"""What the suites send goes beyond what viewers may."""


class Echo:
    """The conversation: each message goes back once it is whole."""

    def __init__(self) -> None:
        self._parts: list[str | bytes] = []

    def hear(self, web_socket: WebSocket, message: TextMessage | BytesMessage) -> None:
        """Keep a part, and send the whole when it was the last one."""
        self._parts.append(message.data)
        if message.message_finished:
            whole = message.data[:0].join(self._parts)
            web_socket.send(TextMessage(whole) if isinstance(whole, str) else BytesMessage(whole))
            self._parts = []

    def speak(self, web_socket: WebSocket) -> float:
        """There is nothing to say without being asked."""
        return time.monotonic() + 60.0


def make_echo(server: WebServer) -> None:
    """Have a started server answer all WebSockets by echo, from the next one on."""
    assert server._http_server is not None
    server._http_server.conversation = lambda target, with_news: Echo()
