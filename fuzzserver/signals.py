"""The signals that end the program, as an exception in its main thread."""

import atexit
import os
import signal
import time
from concurrent.futures import Future
from typing import NoReturn, TypeVar

from fuzzserver.exit_code import ExitCode

__all__ = ["Signalled", "handle_signals", "pause", "take_time", "wait_for", "wait_for_signal"]

Result = TypeVar("Result")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends the program. The workers do not belong to the terminal, so its end must reach us."""


WAKE = 0.2
"""Seconds after which a main thread that waits looks for signals again. One that comes a moment before it
begins to wait does not end the wait: on a busy machine, Ctrl-C was lost that way."""

LOOK = 0.05
"""Seconds between two looks at whether a result is there."""

LONGEST_END = 30.0
"""Seconds after a signal in which the program ends in good order, for which it needs two at most unless the
machine is very busy. After that something hangs, a disk say, and is not waited for any longer."""


class Signalled(BaseException):
    """One of ``SIGNALS`` has come. As KeyboardInterrupt, it passes everything that handles errors."""

    def __init__(self, number: int) -> None:
        self.exit_code = ExitCode.SIGINT if number == signal.SIGINT else ExitCode.SIGTERM


def handle_signals() -> None:
    """Have the signals raise ``Signalled`` in the main thread."""
    for number in SIGNALS:
        # nohup has SIGHUP ignored and means it; shells do so with SIGINT and mean something else.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _on_signal)
    atexit.register(_ignore_signals)


def _ignore_signals() -> None:
    """Nothing is left to end, but Python would give the signals their usual effect back before it is gone."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _on_signal(number: int, _frame: object) -> NoReturn:
    """End what the main thread does, in good order, which is soon done: no further signal disturbs it."""
    signalled = Signalled(number)
    for each in SIGNALS:
        signal.signal(each, lambda *_: None)  # What is ignored, children would ignore as well.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(signalled.exit_code))
    signal.setitimer(signal.ITIMER_REAL, LONGEST_END)
    raise signalled


def take_time(seconds: float) -> None:
    """What follows may take so long, though a signal has ended the program: reports must be written."""
    if signal.getitimer(signal.ITIMER_REAL)[0] > 0:
        signal.setitimer(signal.ITIMER_REAL, seconds)


def wait_for(result: Future[Result]) -> Result:
    """The result, or its error. For the main thread, where a signal raises instead.

    It looks without a lock: what a signal raises could leave that taken, and who sets the result would wait
    for ever.
    """
    done: list[object] = []
    result.add_done_callback(done.append)
    while not done:
        time.sleep(LOOK)
    return result.result()


def wait_for_signal() -> NoReturn:
    """Until there is one, which raises. For the main thread."""
    while True:
        time.sleep(WAKE)


def pause(seconds: float) -> None:
    """Wait so long, or until there is a signal, which raises. For the main thread."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(WAKE, left))
