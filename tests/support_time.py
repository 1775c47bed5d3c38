"""Waiting, for as long as it takes."""

import time
from collections.abc import Callable

WAIT = 60.0
"""Seconds after which a test gives up. Nothing takes this long unless something is broken."""


class Clock:
    """In place of the module ``time``: a clock that a test puts forward, as if it had waited."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic() + self.ahead


def eventually(condition: Callable[[], object], what: str, wait: float | None = None) -> None:
    """Wait for what nothing tells us of: a file that another process writes, say.

    ``wait``: seconds, for what takes longer than others.
    """
    deadline = time.monotonic() + (WAIT if wait is None else wait)
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
