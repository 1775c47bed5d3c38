"""The request for a WebSocket, read strictly (RFC 6455, section 4.2.1)."""

import logging
import re
from dataclasses import dataclass
from urllib.parse import parse_qs

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request

from fuzzserver.web.build_web import BuildWebTold
from fuzzserver.web.gate import BUILD_WEB_PATHS
from fuzzserver.web.head import RequestHead
from fuzzserver.web.session import AnyTold, Told
from fuzzserver.web.site import BuildWebPage
from fuzzserver.wire.abi import coverage_id_of

__all__ = ["Handshake", "read_handshake"]

log = logging.getLogger(__name__)

SUBPROTOCOL = "fuzzserver"
"""A client that asks for it gets what goes on as JSON text, and messages that Zig's page does not know."""

_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
"""16 bytes, as base64."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """What the client wants."""

    protocol: WSConnection
    """Has read the request, and waits for the answer."""
    path: str
    subprotocol: str | None
    """Ours, if the client speaks it."""
    target: int | None
    """The coverage id that ``?target=`` names; -1, which no map has, if it is none."""
    index_id: str | None
    """What ``?index=`` names: the index that the client has kept from an earlier connection."""

    def acceptance(self) -> AcceptConnection:
        """The answer."""
        return AcceptConnection(subprotocol=self.subprotocol)

    def told(self, build_web: BuildWebPage | None) -> AnyTold:
        """What the client was told before it came.

        ``build_web`` is the page of Zig 0.15 or later, if it is served.
        """
        if build_web is not None and self.path in BUILD_WEB_PATHS and self.subprotocol is None:
            return BuildWebTold(self.target, build_web.index_has_runs)
        return Told(self.target, self.subprotocol is not None, self.index_id)


def read_handshake(head: RequestHead) -> Handshake | None:
    """What the client wants; None if it does not ask for it as it should."""
    keys = head.values("sec-websocket-key")
    if head.content_length or len(keys) != 1 or _KEY.fullmatch(keys[0]) is None:
        return None  # wsproto takes any key, and the last one of several.
    if len(head.values("sec-websocket-version")) > 1:
        return None
    protocol = WSConnection(ConnectionType.SERVER)
    try:
        headers = [(name.encode(), value.encode("latin-1")) for name, value in head.headers]
        protocol.initiate_upgrade_connection(headers, head.target)
        request = next(protocol.events())
    # wsproto lets many errors escape besides its own: h11's, and those of decoding, for instance.
    except Exception as error:
        log.debug("initializing web socket: %s", error)
        return None
    assert isinstance(request, Request)
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in request.subprotocols else None
    query = parse_qs(head.query, keep_blank_values=True)
    return Handshake(protocol, head.path, subprotocol, _target(query), query.get("index", [None])[-1])


def _target(query: dict[str, list[str]]) -> int | None:
    values = query.get("target")
    if not values:
        return None
    coverage_id = coverage_id_of(values[-1])
    return -1 if coverage_id is None else coverage_id
