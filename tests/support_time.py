"""Waiting, for as long as it takes."""

import time
from collections.abc import Callable

WAIT = 60.0
"""Seconds after which a test gives up. Nothing takes this long unless something is broken."""


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait for what nothing tells us of: a file that another process writes, say."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
