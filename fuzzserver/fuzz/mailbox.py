"""Inputs on their way to one instance, found by the others of its target.

Who puts one in never waits: what the instance has no room for is kept, up to a limit, and is written when
there is room. It is kept as well while the instance is paused, or between two of its processes.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fuzzserver.wire.messages import BroadcastFuzzInput, ClientTag, client_bytes

__all__ = ["Mailbox"]

log = logging.getLogger(__name__)

MAX_WAITING = 4 << 20
"""Bytes of inputs that wait for one instance."""


@dataclass(frozen=True, slots=True)
class _Letter:
    """One input."""

    test: str
    data: bytes


class Mailbox:
    """Where the others leave inputs for an instance. May be used from any thread."""

    def __init__(self, owner: str) -> None:
        """``owner`` is for the log."""
        self._owner = owner
        # Guards all below, and that nobody writes to a pipe that is being closed.
        self._lock = threading.Lock()
        self._letters: deque[_Letter] = deque()
        self._waiting = 0
        self._write: Callable[[memoryview], int] | None = None
        self._indexes: dict[str, int] = {}
        self._begun = memoryview(b"")
        """What is left of a message of which the child has the beginning."""
        self._overflows = False

    def connect(self, write: Callable[[memoryview], int], tests: Sequence[str], greeting: bytes) -> None:
        """Deliver to this child from now on, which numbers ``tests`` so; ``greeting`` comes first.

        ``write`` takes what there is room for, and returns how many bytes that were.
        """
        with self._lock:
            self._write, self._begun = write, memoryview(greeting)
            self._indexes = {test: index for index, test in enumerate(tests)}
            self._deliver()

    def disconnect(self) -> None:
        """The child is not written to any more."""
        with self._lock:
            self._write = None

    def put(self, test: str, data: bytes) -> None:
        """Leave an input. If there are too many, the oldest are lost."""
        with self._lock:
            self._letters.append(_Letter(test, data))
            self._waiting += len(data)
            self._deliver()
            while self._waiting > MAX_WAITING:
                self._waiting -= len(self._letters.popleft().data)
                if not self._overflows:
                    self._overflows = True
                    log.info("%s takes inputs of the others too slowly; the oldest are lost", self._owner)

    def deliver(self) -> None:
        """Write what there is room for now."""
        with self._lock:
            self._deliver()

    def _deliver(self) -> None:
        """Inputs of tests that the child does not fuzz now are kept for the next one."""
        if self._write is None:
            return
        kept: deque[_Letter] = deque()
        while self._flush() and self._letters:
            letter = self._letters.popleft()
            index = self._indexes.get(letter.test)
            if index is None:
                kept.append(letter)
                continue
            self._waiting -= len(letter.data)
            body = BroadcastFuzzInput(index, letter.data).serialize()
            self._begun = memoryview(client_bytes(ClientTag.NEW_FUZZ_INPUT, body))
        self._letters.extendleft(reversed(kept))
        self._overflows = self._overflows and bool(self._letters)

    def _flush(self) -> bool:
        """Whether the last message is written whole."""
        assert self._write is not None
        if self._begun:
            self._begun = self._begun[self._write(self._begun) :]
        return not self._begun
