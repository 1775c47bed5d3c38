"""Firefox, driven by its own WebDriver BiDi, for which nothing but a WebSocket is needed."""

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

WAIT = 60.0
"""Seconds for anything to happen."""

LISTENING = re.compile(r"WebDriver BiDi listening on (ws://\S+)")


class FirefoxPage:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._last_id = 0
        self.logged: list[str] = []
        """Errors that the page or the browser wrote to the console."""
        self._call("session.new", capabilities={})
        self._call("session.subscribe", events=["log.entryAdded"])
        self._context = self._call("browsingContext.getTree")["contexts"][0]["context"]

    def open(self, url: str) -> None:
        """Go to ``url`` and wait for the document."""
        self._call("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def script(self, expression: str) -> Any:
        """The value of a JavaScript expression: a string, a number, a truth value, or None."""
        answer = self._call(
            "script.evaluate", expression=expression, target={"context": self._context}, awaitPromise=True
        )
        assert answer["type"] == "success", answer
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + WAIT
        while not self.script(f"Boolean({expression})"):
            assert time.monotonic() < deadline, f"{expression} does not come true; logged: {self.logged}"
            time.sleep(0.05)

    def _call(self, method: str, **params: Any) -> Any:
        self._last_id += 1
        self._connection.send(json.dumps({"id": self._last_id, "method": method, "params": params}))
        while True:
            message = json.loads(self._connection.recv(WAIT))
            if message.get("method") == "log.entryAdded" and message["params"]["level"] == "error":
                self.logged.append(message["params"]["text"])
            if message.get("id") == self._last_id:
                assert message["type"] == "success", message
                return message["result"]


@contextmanager
def firefox(profile: Path) -> Iterator[FirefoxPage]:
    """A Firefox without a window, for as long as the block runs. ``profile`` is an empty folder."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [
                "firefox-esr",
                "--headless",
                "--no-remote",
                "--profile",
                profile,
                "--remote-debugging-port",
                "0",
            ],
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"{_address(process, said)}/session"
            with connect(
                address, max_size=None, compression=None, open_timeout=WAIT, ping_interval=None
            ) as connection:
                yield FirefoxPage(connection)
        finally:
            process.terminate()
            process.wait()


def _address(process: subprocess.Popen, said: Any) -> str:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline and process.poll() is None:
        said.seek(0)
        found = LISTENING.search(said.read())
        if found:
            return found[1]
        time.sleep(0.05)
    said.seek(0)
    raise AssertionError(f"Firefox does not listen: {said.read()[-2000:]}")
