"""A server whose WebSockets say what they hear: what test suites for WebSockets talk to."""

from dataclasses import replace
from weakref import WeakKeyDictionary

from wsproto.events import BytesMessage, TextMessage

from fuzzserver import WebServer
from fuzzserver.web.web_socket import WebSocket
from tests.support_patience import PATIENT

LIMITS = replace(PATIENT, message_bytes=32 << 20, messages_per_second=1_000_000_000)
"""What the suites send goes beyond what viewers may."""


class Echo:
    """Sends each message back once it is whole."""

    def __init__(self) -> None:
        self._parts: WeakKeyDictionary[WebSocket, list[str | bytes]] = WeakKeyDictionary()

    def hear(self, web_socket: WebSocket, message: TextMessage | BytesMessage) -> None:
        """Keep a part, and send the whole when it was the last one."""
        parts = self._parts.setdefault(web_socket, [])
        parts.append(message.data)
        if message.message_finished:
            whole = message.data[:0].join(parts)
            web_socket.send(TextMessage(whole) if isinstance(whole, str) else BytesMessage(whole))
            parts.clear()


def make_echo(server: WebServer) -> None:
    """Have a started server answer all WebSockets by echo and nothing else, from the next one on."""
    http_server = server._http_server
    assert http_server is not None
    http_server.hear = Echo().hear
    http_server.hub.join = lambda web_socket, told: None
