"""A sign of life from work that may take minutes."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

__all__ = ["heartbeat"]

log = logging.getLogger(__name__)

INTERVAL = 10.0
"""Seconds between two lines."""


@contextlib.contextmanager
def heartbeat(what: str) -> Iterator[None]:
    """Log every few seconds that we are still doing ``what``: ``compiling the tests of main.zig``."""
    started = time.monotonic()
    done = threading.Event()

    def run() -> None:
        while not done.wait(INTERVAL):
            log.info("still %s after %.0f s", what, time.monotonic() - started)

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
