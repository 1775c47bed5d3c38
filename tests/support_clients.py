"""WebSocket clients that people use, each made to look alike, and what each of them must get to see."""

import asyncio
import base64
import json
import re
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import websocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from fuzzserver import WebServer

SUBPROTOCOL = "fuzzserver"
NODE_PACKAGES = {"ws": "8", "undici": "7"}
PATIENCE = 60.0
"""Seconds for a message or a good-bye."""

UPDATES = 100
BURST = 300
"""Lines at once; the log keeps more."""


class Client(ABC):
    """One connection of a kind of client."""

    @abstractmethod
    def __init__(self, url: str) -> None:
        """Connect."""

    @abstractmethod
    def receive(self) -> str | bytes | None:
        """The next message; None if the connection is closed."""

    @abstractmethod
    def leave(self) -> None:
        """Say good-bye with code 1000, while another thread receives."""

    @abstractmethod
    def end(self) -> int | None:
        """Free everything, once it is closed. With which code it was, or None if that was not by a frame."""


class WebsocketsClient(Client):
    """The package ``websockets``, without asyncio."""

    def __init__(self, url: str) -> None:
        self._stack = ExitStack()
        options = connect(
            url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            proxy=None,
            max_size=None,
            open_timeout=PATIENCE,
        )
        self._connection = self._stack.enter_context(options)

    def receive(self) -> str | bytes | None:
        """The next message."""
        try:
            return self._connection.recv(PATIENCE)
        except ConnectionClosed:
            return None

    def leave(self) -> None:
        """Say good-bye."""
        self._connection.close()

    def end(self) -> int | None:
        """With which code."""
        self._stack.close()
        return self._connection.close_code


class WebsocketClient(Client):
    """The package ``websocket-client``."""

    def __init__(self, url: str) -> None:
        self._connection = websocket.create_connection(url, timeout=PATIENCE, subprotocols=[SUBPROTOCOL])
        self._code: int | None = None

    def receive(self) -> str | bytes | None:
        """The next message."""
        opcode, data = self._connection.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            self._code = int.from_bytes(data[:2], "big")
            return None
        return data.decode() if opcode == websocket.ABNF.OPCODE_TEXT else data

    def leave(self) -> None:
        """Say good-bye."""
        self._connection.send_close(1000)

    def end(self) -> int | None:
        """With which code."""
        self._connection.shutdown()
        return self._code


class AiohttpClient(Client):
    """The package ``aiohttp``, with its event loop on a thread."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._call(self._connect(url))

    async def _connect(self, url: str) -> None:
        self._session = aiohttp.ClientSession()
        self._connection = await self._session.ws_connect(url, protocols=[SUBPROTOCOL], max_msg_size=0)

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def receive(self) -> str | bytes | None:
        """The next message."""
        message = self._call(self._connection.receive())
        return message.data if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY) else None

    def leave(self) -> None:
        """Say good-bye."""
        self._call(self._connection.close(code=1000))

    def end(self) -> int | None:
        """With which code."""
        self._call(self._session.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        return self._connection.close_code


class NodeClient(Client):
    """A script in ``clients/``, for which ``folder`` has the packages."""

    folder: Path
    script: str

    def __init__(self, url: str) -> None:
        self._child = subprocess.Popen(
            ["node", self.folder / self.script, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._code: int | None = None

    def receive(self) -> str | bytes | None:
        """The next message."""
        assert self._child.stdout is not None
        said = json.loads(self._child.stdout.readline())
        if "close" in said:
            self._code = said["close"]
            return None
        return said["text"] if "text" in said else base64.b64decode(said["binary"])

    def leave(self) -> None:
        """Say good-bye."""
        assert self._child.stdin is not None
        self._child.stdin.write("close\n")
        self._child.stdin.flush()

    def end(self) -> int | None:
        """With which code."""
        with self._child:
            return self._code


class Watched:
    """What a client has seen so far, on a thread of its own."""

    def __init__(self, client: Client, n_runs_of: Callable[[bytes], int | None]) -> None:
        """``n_runs_of`` says what a binary message tells of the number of runs."""
        self.lines: list[int] = []
        """The numbers in the lines of the log, as they came."""
        self.states: list[int] = []
        """The numbers in what was said to go on."""
        self.runs: list[int] = []
        self._client = client
        self._n_runs_of = n_runs_of
        self._condition = threading.Condition()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while (message := self._client.receive()) is not None:
                with self._condition:
                    self._take(message)
                    self._condition.notify_all()
        except Exception as error:
            with self._condition:
                self._error = error
                self._condition.notify_all()

    def _take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            n_runs = self._n_runs_of(message)
            if n_runs is not None:
                self.runs.append(n_runs)
            return
        told = json.loads(message)
        for entry in told.get("log", {}).get("entries", []):
            if (line := re.fullmatch(r"line (\d+) .*", entry["text"])) is not None:
                self.lines.append(int(line[1]))
        if (state := re.fullmatch(r"state (\d+)", told.get("text", ""))) is not None:
            self.states.append(int(state[1]))

    def wait_for(self, number: int, n_runs: int | None) -> None:
        """Wait for the line and the state with this number, and for so many runs if that is known."""

        def seen() -> bool:
            runs = n_runs is None or n_runs in self.runs[-1:]
            return runs and number in self.lines[-1:] and number in self.states[-1:]

        with self._condition:
            assert self._condition.wait_for(lambda: seen() or self._error, PATIENCE), self._last()
        assert self._error is None, repr(self._error)

    def _last(self) -> str:
        return f"lines {self.lines[-3:]}, states {self.states[-3:]}, runs {self.runs[-3:]}"

    def end(self) -> int | None:
        """Wait until it is closed; the code."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "still open"
        assert self._error is None, repr(self._error)
        return self._client.end()


def exercise(
    connect_to: Callable[[str], Client],
    server: WebServer,
    update: Callable[[int], int | None],
    n_runs_of: Callable[[bytes], int | None],
) -> None:
    """Watch updates one by one and in a burst, leave, come back, and be sent away when the server stops.

    Args:
        connect_to: makes a client.
        update: called with the number of each update, to change the number of runs, too; gives that.
        n_runs_of: as in ``Watched``.
    """
    url = f"ws://127.0.0.1:{server.port}/"
    client = connect_to(url)
    watched = Watched(client, n_runs_of)
    runs = []
    for number in range(1, UPDATES + 1):
        # Only the newest state is promised. So each is waited for, and then none may be missing.
        runs.append(update(number))
        _say(server, number)
        server.notify()
        watched.wait_for(number, runs[-1])
    assert sorted(set(watched.states)) == list(range(1, UPDATES + 1))
    assert runs[0] is None or watched.runs[-UPDATES:] == runs
    total = UPDATES + BURST
    for number in range(UPDATES + 1, total + 1):
        _say(server, number)
    server.notify()
    watched.wait_for(total, runs[-1])
    assert watched.lines == list(range(1, total + 1)), "lines are missing, doubled, or in another order"
    assert watched.states == sorted(watched.states)

    client.leave()
    assert watched.end() == 1000
    watched = Watched(connect_to(url), n_runs_of)
    watched.wait_for(total, runs[-1])
    assert watched.lines == list(range(1, total + 1))
    server.stop()
    assert watched.end() == 1001


def _say(server: WebServer, number: int) -> None:
    server.add_log("test", f"line {number} of many: 🎲 {'x' * (number % 200)}")
    server.set_status("serving", f"state {number}")


def npm_clients(folder: Path) -> list[type[NodeClient]]:
    """Clients for Node, whose packages are put into the folder."""
    packages = [f"{name}@{version}" for name, version in NODE_PACKAGES.items()]
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *packages]
    subprocess.run(command, check=True)
    clients = []
    for name in NODE_PACKAGES:
        script = Path(__file__).with_name("clients") / f"{name}.mjs"
        (folder / script.name).write_bytes(script.read_bytes())
        clients.append(type(name, (NodeClient,), {"folder": folder, "script": script.name}))
    return clients
