"""The client that ``smoke`` tries the server out with: requests, and a WebSocket."""

import http.client
import json
import socket
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, RejectConnection, Request, TextMessage

from fuzzserver.wire.abi import CoverageDeltaHeader, CoverageUpdateHeader, OwnTag, ToClientTag

__all__ = ["Client", "Deadline", "Failed", "Viewer"]

READ_BYTES = 64 * 1024


class Failed(Exception):
    """Something is not as it should be; the text says what."""


class Deadline:
    """When everything must be over."""

    def __init__(self, seconds: float) -> None:
        """Counted from now."""
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """More than 0; Failed if there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise Failed(f"the {self._seconds:g} s for all checks are over")
        return left


class Client:
    """Asks a server on this machine."""

    def __init__(self, port: int, deadline: Deadline) -> None:
        self.port = port
        self.deadline = deadline

    def ask(self, path: str, **headers: str) -> tuple[int, bytes]:
        """Status and body of an answer. OSError if there is none in time."""
        seconds = self.deadline.seconds_left
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)) as connection:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()

    def get(self, path: str) -> bytes:
        """The body; Failed if there is none."""
        status, body = self.ask(path)
        if status != 200:
            raise Failed(f"{status}: {body.decode(errors='replace')[:200]}")
        return body

    def get_json(self, path: str) -> dict[str, Any]:
        """What an answer says."""
        value: dict[str, Any] = json.loads(self.get(path))
        return value


class Viewer:
    """One WebSocket that speaks our subprotocol, and all that was heard on it."""

    def __init__(self, port: int, deadline: Deadline) -> None:
        """Connect and ask for it."""
        self._deadline = deadline
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=deadline.seconds_left)
        self._bytes = b""
        self._text = ""
        self.accepted = False
        self.kinds: set[str] = set()
        """Names of the binary messages that came."""
        self.fields: dict[str, Any] = {}
        """What the texts said."""
        self.runs: list[int] = []
        """Each count that came."""
        request = Request(host=f"127.0.0.1:{port}", target="/", subprotocols=["fuzzserver"])
        self._socket.sendall(self._protocol.send(request))

    def wait_for(self, what: str, is_heard: Callable[[], bool]) -> None:
        """Listen until that is so; Failed if it does not come."""
        while not is_heard():
            try:
                self._socket.settimeout(self._deadline.seconds_left)
                data = self._socket.recv(READ_BYTES)
            except (Failed, TimeoutError):
                raise Failed(f"{what} does not come") from None
            if not data:
                raise Failed(f"the server has hung up before {what} came")
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                self._hear(event)

    def _hear(self, event: object) -> None:
        if isinstance(event, AcceptConnection):
            self.accepted = True
        elif isinstance(event, RejectConnection):
            raise Failed(f"the server refuses the WebSocket with {event.status_code}")
        elif isinstance(event, TextMessage):
            self._text += event.data
            if event.message_finished:
                self.fields.update(json.loads(self._text))
                self._text = ""
        elif isinstance(event, BytesMessage):
            self._bytes += event.data
            if event.message_finished:
                self._note(self._bytes)
                self._bytes = b""

    def _note(self, message: bytes) -> None:
        tag = message[0]
        self.kinds.add((OwnTag if tag >= min(OwnTag) else ToClientTag)(tag).name.lower())
        if tag == ToClientTag.COVERAGE_UPDATE:
            self.runs.append(CoverageUpdateHeader.parse(message).n_runs)
        elif tag == OwnTag.COVERAGE_DELTA:
            self.runs.append(CoverageDeltaHeader.parse(message).n_runs)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
