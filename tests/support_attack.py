"""Somebody else's web page: its server, and a name that is first that server's and then ours."""

import selectors
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(__file__).with_name("attack")
ATTEMPTS = tuple(
    line.split('"')[1]
    for line in (FOLDER / "attack.js").read_text(encoding="utf-8").splitlines()
    if line.startswith('  "')
)
"""The names of all that the page can try."""


class _Files(SimpleHTTPRequestHandler):
    """The attacker's files, each on a connection of its own."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def _served(server: socketserver.TCPServer) -> Iterator[int]:
    """The port of a server that runs until the end of the block."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="attacker")
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def attacker() -> Iterator[int]:
    """Serves the page at a port of this machine, under whatever name the browser has for it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(FOLDER))) as server:
        server.daemon_threads = True
        with _served(server) as port:
            yield port


class Rebound(socketserver.ThreadingTCPServer):
    """A name that leads elsewhere from one moment to the next.

    To a browser it makes no difference whether a name gets another address or the address another server,
    so this hands each connection on to the port that is asked for just then.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HandOn)
        self.leads_to = 0
        """The port on this machine that the name stands for."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Either side may break off; whoever waits for the other one finds out."""

    @contextmanager
    def running(self) -> Iterator["Rebound"]:
        """It, for as long as the block runs."""
        with _served(self):
            yield self

    @property
    def port(self) -> int:
        """Where the browser should be sent."""
        return int(self.server_address[1])


class _HandOn(socketserver.BaseRequestHandler):
    """Carries bytes both ways until one side ends."""

    server: Rebound
    request: socket.socket

    def handle(self) -> None:
        """One connection."""
        first = self.request.recv(65536)
        if not first:
            return
        # Not before: browsers open connections that they may need later.
        with socket.create_connection(("127.0.0.1", self.server.leads_to)) as other:
            other.sendall(first)
            with selectors.DefaultSelector() as selector:
                selector.register(self.request, selectors.EVENT_READ, other)
                selector.register(other, selectors.EVENT_READ, self.request)
                while True:
                    for key, _ in selector.select():
                        data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                        if not data:
                            return
                        key.data.sendall(data)
