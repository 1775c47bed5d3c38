"""A sign of life from work that takes long."""

import itertools
import logging
import threading
from types import SimpleNamespace

import pytest

from fuzzserver.fuzz import heartbeat
from tests.support_time import WAIT

pytestmark = pytest.mark.usefixtures("nothing_left")


class _Waiter(logging.Handler):
    """Lets a test wait for a number of log lines."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.enough = threading.Event()
        self._count = count

    def emit(self, record: logging.LogRecord) -> None:
        """One line more."""
        self.lines.append(record.getMessage())
        if len(self.lines) >= self._count:
            self.enough.set()


def test_lines(caplog, monkeypatch) -> None:
    """There is a line each time that the interval has passed, and none after the end."""
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.001)
    clock = itertools.count(100, 10)
    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    waiter = _Waiter(3)
    logger = logging.getLogger(heartbeat.__name__)
    logger.addHandler(waiter)
    try:
        with caplog.at_level(logging.INFO, logger.name):
            with heartbeat.heartbeat("counting sheep"):
                assert waiter.enough.wait(WAIT)
    finally:
        logger.removeHandler(waiter)
    assert waiter.lines[:3] == [f"still counting sheep after {seconds} s" for seconds in (10, 20, 30)]


def test_silence(caplog, monkeypatch) -> None:
    """Work that is soon done is not mentioned."""
    monkeypatch.setattr(heartbeat, "INTERVAL", 10 * WAIT)
    with caplog.at_level(logging.INFO, "fuzzserver"):
        with heartbeat.heartbeat("counting sheep"):
            pass
    assert caplog.text == ""


def test_failure() -> None:
    """Work that fails ends it as well."""
    with pytest.raises(ValueError, match="black sheep"):
        with heartbeat.heartbeat("counting sheep"):
            raise ValueError("black sheep")
