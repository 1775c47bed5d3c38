"""A tab that keeps what it was sent, and can be cut off or told something by a test."""

import json
from collections.abc import Iterator

import pytest

from fuzzserver.wire.abi import ToClientTag
from tests.support_browser import Page

RECORDER = """
window.sockets = [];
window.heard = [];
window.WebSocket = class extends WebSocket {
  constructor(...args) {
    super(...args);
    sockets.push(this);
    heard.push([]);
    const own = heard.at(-1);
    this.addEventListener("message", ({ data }) => {
      if (typeof data !== "string") own.push([...new Uint8Array(data, 0, 2)]);
    });
  }
};
"""
"""Keeps the first two bytes of each binary message, connection by connection."""


@pytest.fixture
def recorded(page: Page) -> Iterator[Page]:
    """A tab that remembers what it was sent."""
    command = "Page.addScriptToEvaluateOnNewDocument"
    made = page.driver.execute_cdp_cmd(command, {"source": RECORDER})
    yield page
    page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", made)


def heard(page: Page) -> list[list[int]]:
    """The messages of the newest connection: tag, and the byte behind it."""
    return page.script("return heard.at(-1) ?? []")


def tags(page: Page) -> list[int]:
    """The tags of the newest connection's messages."""
    return [tag for tag, _ in heard(page)]


def asked(page: Page) -> str:
    """With what the newest connection was opened, from the question mark on."""
    return page.script("return new URL(sockets.at(-1).url).search")


def cut(page: Page, tag: int = ToClientTag.COVERAGE_UPDATE) -> None:
    """End the connection, and wait until a new one has brought a message."""
    count = page.script("const n = sockets.length; sockets.at(-1).close(); return n")
    page.until(lambda: page.script("return sockets.length") > count and tag in tags(page))


def tell(page: Page, **fields: object) -> None:
    """Let the newest connection bring a JSON text."""
    code = "sockets.at(-1).dispatchEvent(new MessageEvent('message', { data: arguments[0] }))"
    page.script(code, json.dumps(fields))
