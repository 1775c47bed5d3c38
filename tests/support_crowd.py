"""A hundred clients of one server, of all the kinds that could keep it from ending."""

import selectors
import socket
import threading
import time
from dataclasses import dataclass, field

from tests.support_http import upgrade_request
from tests.support_sockets import Frames
from tests.support_time import WAIT

KINDS = {
    "idle": 25,
    "half a head": 25,
    "slow tar": 6,
    "wasm": 2,
    "viewer": 27,
    "deaf viewer": 15,
}
"""How many there are of each kind."""

TICK = 0.05
"""Seconds between two sips of those who read slowly."""


@dataclass(eq=False)
class _Client:
    kind: str
    connection: socket.socket
    frames: Frames = field(default_factory=Frames)
    """What a viewer got."""
    received: int = 0


class Crowd:
    """All of them on one thread. Those whom the server turns away before it ends come again."""

    def __init__(self, port: int) -> None:
        """Connect all; this takes some milliseconds."""
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._clients: set[_Client] = set()
        self._ending = threading.Event()
        self._connected = threading.Event()
        self.viewers_there = threading.Event()
        """Set once all viewers that read are connected and have got something."""
        self._thread = threading.Thread(target=self._run, name="crowd")
        self._thread.start()
        assert self._connected.wait(WAIT)

    def farewells(self) -> list[int | None]:
        """With which code each viewer that read was sent away; call it once the server has ended."""
        self._ending.set()
        self._thread.join()
        return [client.frames.close_code for client in self._viewers() if client.frames.upgraded]

    def close(self) -> None:
        """Leave. May be called twice, and while the server runs."""
        self._ending.set()
        self._thread.join()
        for client in self._clients:
            client.connection.close()
        self._clients.clear()
        self._selector.close()

    def _viewers(self) -> list[_Client]:
        return [client for client in self._clients if client.kind == "viewer"]

    def _run(self) -> None:
        for kind, count in KINDS.items():
            for _ in range(count):
                self._connect(kind)
        self._connected.set()
        while not self._ending.is_set():
            for key, _ in self._selector.select(TICK):
                self._read(key.data, 65536)
            for client in list(self._clients):
                if client.kind == "slow tar":
                    self._read(client, 1024)
            if all(client.received for client in self._viewers()):
                self.viewers_there.set()
        deadline = time.monotonic() + WAIT
        while self._selector.get_map() and time.monotonic() < deadline:
            for key, _ in self._selector.select(TICK):  # What was sent before the end, and not read yet.
                self._read(key.data, 65536)

    def _connect(self, kind: str) -> None:
        connection = socket.socket()
        if kind in ("slow tar", "deaf viewer"):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(WAIT)
        client = _Client(kind, connection)
        try:
            connection.connect(("127.0.0.1", self._port))
            connection.sendall(self._greeting(kind))
        except OSError:  # The server has ended.
            connection.close()
            return
        connection.setblocking(False)
        self._clients.add(client)
        # Who reads nothing, or in sips, is not to be told that there is something.
        if kind not in ("slow tar", "deaf viewer"):
            self._selector.register(connection, selectors.EVENT_READ, client)

    def _greeting(self, kind: str) -> bytes:
        upgrade = upgrade_request(self._port, sec_websocket_protocol="fuzzserver")
        host = f"Host: 127.0.0.1:{self._port}\r\n"
        return {
            "idle": b"",
            "half a head": f"GET / HTTP/1.1\r\n{host}X-Half: a".encode(),
            "slow tar": f"GET /sources.tar HTTP/1.1\r\n{host}\r\n".encode(),
            "wasm": f"GET /main.wasm HTTP/1.1\r\n{host}\r\n".encode(),
            "viewer": upgrade,
            "deaf viewer": upgrade,
        }[kind]

    def _read(self, client: _Client, size: int) -> None:
        try:
            data = client.connection.recv(size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.received += len(data)
        if data:
            if client.kind == "viewer":
                client.frames.feed(data)
            return
        if client.connection in self._selector.get_map():
            self._selector.unregister(client.connection)
        if client.kind == "viewer":
            return  # Kept, for what it was told.
        client.connection.close()
        self._clients.discard(client)
        if not self._ending.is_set():
            self._connect(client.kind)
