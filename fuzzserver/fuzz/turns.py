"""Who may fuzz now: so many workers at once, the others in turn."""

import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ["Turn", "Turns"]


class Turns:
    """So many turns at once. Who waits longest is next; who has a turn keeps it while nobody waits."""

    def __init__(self, jobs: int, slice_seconds: float = 5.0) -> None:
        self.slice_seconds = slice_seconds
        """How long a turn lasts, once others wait."""
        # Guards all below; notified when a turn is free.
        self._condition = threading.Condition()
        self._free = jobs
        self._queue: deque[object] = deque()
        self._closed = False

    def take(self, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Wait for a turn; False if there will be none, because of ``close``, or ``cancelled`` says so."""
        ticket = object()

        def over() -> bool:
            return self._closed or cancelled()

        with self._condition:
            self._queue.append(ticket)
            self._condition.wait_for(lambda: over() or (self._free > 0 and self._queue[0] is ticket))
            self._queue.remove(ticket)
            self._condition.notify_all()
            if over():
                return False
            self._free -= 1
            return True

    def look_again(self) -> None:
        """Something that was handed to ``take`` may give another answer now."""
        with self._condition:
            self._condition.notify_all()

    def give_back(self) -> None:
        """Let the next one have the turn."""
        with self._condition:
            self._free += 1
            self._condition.notify_all()

    @property
    def wanted(self) -> bool:
        """Whether somebody waits."""
        with self._condition:
            return bool(self._queue)

    def close(self) -> None:
        """Nobody gets a turn from now on."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()


class Turn:
    """One worker's right to run, which may be taken from it for a while.

    Used by one thread; only ``cancel`` may be called from others.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._held = False
        self._cancelled = False
        self._since = 0.0

    def take(self) -> bool:
        """Wait for it; False if there will be none."""
        self._held = self._turns.take(lambda: self._cancelled)
        self._since = time.monotonic()
        return self._held

    @property
    def over(self) -> bool:
        """Whether it is time to let another one run."""
        return time.monotonic() - self._since >= self._turns.slice_seconds and self._turns.wanted

    def cancel(self) -> None:
        """It is not wanted any more: who waits for it gets none."""
        self._cancelled = True
        self._turns.look_again()

    def give_back(self) -> None:
        """Let another one run. May be called twice."""
        if self._held:
            self._held = False
            self._turns.give_back()
