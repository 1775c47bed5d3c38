"""What is written to stderr: log lines, and below them, on a terminal, one line that is kept up to date."""

import logging
import re
import shutil
import sys
import threading
from collections.abc import Callable
from typing import TextIO

__all__ = ["StatusLine", "printable", "set_up_logging"]

INTERVAL = 0.25
"""Seconds between two looks on a terminal."""

LOG_INTERVAL = 60.0
"""Seconds between two lines in a log."""

CLEAR = "\r\x1b[K"

_AS_IT_IS = ("fuzzserver.compiler", "fuzzserver.worker")
"""Loggers of what other programs wrote."""


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Besides what terminals obey: what turns the direction of writing, so that text looks like another."""


def printable(text: str) -> str:
    """``text`` with control characters but line breaks and tabs written out.

    What fuzz tests print may hold any byte of an input, and a terminal would obey it.
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class _Formatter(logging.Formatter):
    """``level: message``, except for what other programs wrote, which is passed on as it is."""

    def format(self, record: logging.LogRecord) -> str:
        text = printable(super().format(record))
        return text if record.name in _AS_IT_IS else f"{record.levelname.lower()}: {text}"


class _Handler(logging.StreamHandler[TextIO]):
    """Writes log lines above the line that is kept up to date. The handler's lock guards both."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._line = ""

    def show(self, line: str) -> None:
        """Replace the line at the bottom; an empty one removes it."""
        with self.lock:  # type: ignore[union-attr]
            if line != self._line:
                self._line = line
                self.stream.write(CLEAR + line)
                self.stream.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, which may have several lines."""
        if not self._line:
            super().emit(record)
            return
        self.stream.write(CLEAR)
        super().emit(record)
        self.stream.write(self._line)
        self.stream.flush()


def set_up_logging(log: logging.Logger, level: str) -> None:
    """Have ``log``, and all below it, write to stderr and nowhere else."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Formatter())
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(level.upper())


class StatusLine:
    """Shows what goes on: on a terminal in one line that changes, else in a log line now and then.

    A context manager, on whose thread ``status`` the callable is asked for the text.
    """

    def __init__(self, log: logging.Logger, text: Callable[[], str]) -> None:
        self._log = log
        self._text = text
        self._handler = next((each for each in log.handlers if isinstance(each, _Handler)), None)
        self._terminal = self._handler is not None and self._handler.stream.isatty()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def _run(self) -> None:
        while not self._done.wait(INTERVAL if self._terminal else LOG_INTERVAL):
            text = self._text()
            if not self._terminal:
                self._log.info("%s", text)
            elif self._handler is not None:
                width = shutil.get_terminal_size().columns - 1
                self._handler.show(text if len(text) <= width else text[: max(0, width - 3)] + "...")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if self._terminal and self._handler is not None:
            self._handler.show("")
