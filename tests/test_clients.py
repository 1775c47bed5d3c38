"""The WebSocket clients that people use, each watching a server: none of them misses anything."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fuzzserver import CoverageMsg, FuzzRunStep, WebServer
from fuzzserver.wire.abi import CoverageDeltaHeader, CoverageUpdateHeader, OwnTag, SeenPcsHeader, ToClientTag
from tests.projects import FuzzedPair
from tests.support_browser import Page
from tests.support_clients import (
    AiohttpClient,
    Client,
    WebsocketClient,
    WebsocketsClient,
    exercise,
)

CONNECT = """
const [url, done] = arguments;
window.got = [];
window.socket = new WebSocket(url, ["fuzzserver"]);
socket.binaryType = "arraybuffer";
socket.onopen = () => done("open");
socket.onmessage = ({ data }) => got.push(typeof data === "string" ? data : [...new Uint8Array(data)]);
socket.onclose = ({ code, wasClean }) => { got.push({ code: wasClean ? code : null }); done("closed"); };
"""


def n_runs_of(message: bytes) -> int | None:
    """What a binary message tells of the number of runs."""
    if message[0] == ToClientTag.COVERAGE_UPDATE:
        return CoverageUpdateHeader.parse(message).n_runs
    if message[0] == OwnTag.COVERAGE_DELTA:
        return CoverageDeltaHeader.parse(message).n_runs
    return None


@pytest.fixture
def update(web_server: WebServer, debug_pair: FuzzedPair, tmp_path: Path) -> Callable[[int], int]:
    """Sets the number of runs in a coverage file that the server shows, and gives it."""
    path = tmp_path / "coverage"
    shutil.copy(debug_pair.coverage_file, path)
    web_server.post(CoverageMsg(1, FuzzRunStep("copied", debug_pair.executable, coverage_file=path)))
    header = SeenPcsHeader.parse(path.read_bytes())

    def update(number: int) -> int:
        n_runs = header.n_runs + number
        with path.open("r+b") as file:
            file.write(replace(header, n_runs=n_runs).serialize())
        return n_runs

    return update


@pytest.mark.parametrize("package", [WebsocketsClient, WebsocketClient, AiohttpClient])
def test_packages(
    nothing_left: None, web_server: WebServer, update: Callable[[int], int], package: type[Client]
) -> None:
    """Those that Python programs use."""
    exercise(package, web_server, update, n_runs_of)


class ChromiumClient(Client):
    """A ``WebSocket`` in a page that the server itself has served: others may have none."""

    page: Page

    def __init__(self, url: str) -> None:
        self._driver = self.page.driver
        # Two threads must not talk to the driver at once.
        self._lock = threading.Lock()
        self._got: list[Any] = []
        self._code: int | None = None
        assert self._driver.execute_async_script(CONNECT, url) == "open"

    def receive(self) -> str | bytes | None:
        """The next message."""
        while not self._got:
            with self._lock:
                self._got = self._driver.execute_script("return got.splice(0)")
        message = self._got.pop(0)
        if isinstance(message, dict):
            self._code = message["code"]
            return None
        return message if isinstance(message, str) else bytes(message)

    def leave(self) -> None:
        """Say good-bye."""
        with self._lock:
            self._driver.execute_script("socket.close(1000, 'bye')")

    def end(self) -> int | None:
        """With which code."""
        return self._code


def test_chromium(web_server: WebServer, update: Callable[[int], int], page: Page) -> None:
    """Beside the page's own connection."""
    page.open(web_server.url)
    page.expect_lost_server()
    page.expect("main.wasm")  # It may not be built yet when the server stops.
    exercise(type("Client", (ChromiumClient,), {"page": page}), web_server, update, n_runs_of)
