"""What is written to stderr: on a terminal, and into a log."""

import fcntl
import logging
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from fuzzserver import console
from fuzzserver.console import CLEAR, StatusLine, set_up_logging
from tests.support_time import WAIT, eventually

pytestmark = pytest.mark.usefixtures("nothing_left")

REPOSITORY = Path(__file__).resolve().parent.parent

PROGRAM = """
import logging, sys, threading
from fuzzserver.console import StatusLine, set_up_logging

log = logging.getLogger("fuzzserver")
set_up_logging(log, "info")
text = ["first"]
with StatusLine(log, lambda: text[0]):
    for line in sys.stdin:
        command, _, rest = line.rstrip("\\n").partition(" ")
        if command == "text":
            text[0] = rest
        elif command == "log":
            log.warning(rest.replace("|", "\\n"))
        elif command == "worker":
            logging.getLogger("fuzzserver.worker").error(rest)
log.info("over")
"""


class Terminal:
    """The program above, on a terminal that is 40 columns wide."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=slave,  # Whose width is asked for.
            stderr=slave,
            cwd=REPOSITORY,
            env={name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")},
            text=True,
        )
        os.close(slave)
        self._written = b""

    def say(self, command: str) -> None:
        """Have the program do something."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def wait_for(self, bottom: str) -> None:
        """Until the last line of the screen is this one."""
        while self.screen()[-1] != bottom:
            data = self._read()
            assert data, f"the program has ended; on the screen: {self.screen()}"

    def end(self) -> list[str]:
        """End the program; returns the screen."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        while self._read():
            pass
        assert self._process.wait(WAIT) == 0
        return self.screen()

    def _read(self) -> bytes:
        try:
            data = os.read(self._master, 4096)
        except OSError:  # Nobody has the other end any more.
            return b""
        self._written += data
        return data

    def screen(self) -> list[str]:
        """What a person sees."""
        lines = [""]
        written = self._written.decode()
        for size in range(1, len(CLEAR)):  # What obeys only once the rest of it has come.
            written = written.removesuffix(CLEAR[:size])
        for part in written.replace("\r\n", "\n").split("\n"):
            shown = part.split(CLEAR)[-1]
            assert "\r" not in shown and "\x1b" not in shown
            lines[-1] = shown
            lines.append("")
        return lines[:-1]

    def close(self) -> None:
        """Release all."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        os.close(self._master)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A running program."""
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_one_line_that_changes(terminal: Terminal) -> None:
    """The status takes one line, however often it changes, and none at the end."""
    terminal.wait_for("first")
    terminal.say("text second")
    terminal.wait_for("second")
    assert terminal.screen() == ["second"]
    assert terminal.end() == ["info: over", ""]


def test_log_lines_above_the_status(terminal: Terminal) -> None:
    """Log lines, short or many, stand above the status, whole, and the status stays below them."""
    terminal.wait_for("first")
    terminal.say("log one")
    terminal.say("log two|and more")
    terminal.say("worker as it was")
    terminal.say("text last")
    terminal.wait_for("last")
    lines = ["warning: one", "warning: two", "and more", "as it was"]
    assert terminal.screen() == [*lines, "last"]
    assert terminal.end() == [*lines, "info: over", ""]


def test_long_status(terminal: Terminal) -> None:
    """A status that is too long is cut, for one that is wrapped could not be replaced."""
    terminal.wait_for("first")
    terminal.say("text " + "x" * 39)
    terminal.wait_for("x" * 39)
    terminal.say("text " + "y" * 40)
    terminal.wait_for("y" * 36 + "...")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[logging.Logger, StringIO]]:
    """A logger that writes to what is no terminal, and what it wrote."""
    stream = StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log = logging.getLogger("test_console")
    set_up_logging(log, "info")
    yield log, stream
    log.handlers.clear()


def test_log_without_a_terminal(log, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a log, the status is a line now and then, without any control character."""
    monkeypatch.setattr(console, "LOG_INTERVAL", 0.01)
    logger, stream = log
    texts = iter(["one", "two"])
    with StatusLine(logger, lambda: next(texts, "more")):
        eventually(lambda: "info: two\n" in stream.getvalue(), "there is no status")
        logger.warning("careful")
    written = stream.getvalue()
    assert written.startswith("info: one\ninfo: two\n")
    assert "warning: careful\n" in written
    assert CLEAR not in written


def test_status_is_seldom_in_a_log(log) -> None:
    """A short session leaves no status in a log, and does not wait for one."""
    logger, stream = log
    with StatusLine(logger, lambda: "text"):
        pass
    assert stream.getvalue() == ""


def test_level(log, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is less than the level is not written; a second set-up replaces the first."""
    logger, stream = log
    monkeypatch.setattr(sys, "stderr", stream)
    set_up_logging(logger, "error")
    logger.warning("no")
    logger.error("yes")
    assert stream.getvalue() == "error: yes\n"


def test_status_without_a_handler_of_ours() -> None:
    """A logger that somebody else has set up gets log lines only."""
    logger = logging.getLogger("test_console.other")
    logger.handlers[:] = [logging.NullHandler()]
    with StatusLine(logger, lambda: "text"):
        pass
