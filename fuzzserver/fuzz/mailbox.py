"""Inputs on their way to one instance, found by the others of its target.

Who puts one in never waits: what the instance has no room for is kept, up to a limit, and is written when
there is room. It is kept as well while the instance is paused, or between two of its processes, or while
it leaves out the test: the first instance alone writes the corpus, and must get to know all of it.
"""

import itertools
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

OVERHEAD = 128
"""Bytes that an input takes besides its own: even empty ones take some."""


@dataclass(frozen=True, slots=True)
class _Letter:
    """One input."""

    number: int
    """In the order in which they came."""
    test: str
    data: bytes

    @property
    def size(self) -> int:
        return OVERHEAD + len(self.data)


class Mailbox:
    """Where the others leave inputs for an instance. May be used from any thread."""

    def __init__(self, owner: str) -> None:
        """``owner`` is for the log."""
        self._owner = owner
        # Guards all below, and that nobody writes to a pipe that is being closed.
        self._lock = threading.Lock()
        self._letters: deque[_Letter] = deque()
        self._for_later: deque[_Letter] = deque()
        """Those of tests that the child does not fuzz, so that nobody has to look at them with each input."""
        self._numbers = itertools.count()
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
            letters = sorted([*self._letters, *self._for_later], key=lambda letter: letter.number)
            self._letters = deque(letter for letter in letters if letter.test in self._indexes)
            self._for_later = deque(letter for letter in letters if letter.test not in self._indexes)
            self._deliver()

    def disconnect(self) -> None:
        """The child is not written to any more."""
        with self._lock:
            self._write = None

    def put(self, test: str, data: bytes) -> None:
        """Leave an input. If there are too many, the oldest are lost."""
        with self._lock:
            letter = _Letter(next(self._numbers), test, data)
            (self._letters if test in self._indexes else self._for_later).append(letter)
            self._waiting += letter.size
            self._deliver()
            while self._waiting > MAX_WAITING:
                queues = [queue for queue in (self._letters, self._for_later) if queue]
                self._waiting -= min(queues, key=lambda queue: queue[0].number).popleft().size
                if not self._overflows:
                    self._overflows = True
                    log.info("%s takes inputs of the others too slowly; the oldest are lost", self._owner)

    def deliver(self) -> None:
        """Write what there is room for now."""
        with self._lock:
            self._deliver()

    def _deliver(self) -> None:
        if self._write is None:
            return
        while self._flush() and self._letters:
            letter = self._letters.popleft()
            self._waiting -= letter.size
            body = BroadcastFuzzInput(self._indexes[letter.test], letter.data).serialize()
            self._begun = memoryview(client_bytes(ClientTag.NEW_FUZZ_INPUT, body))
        self._overflows = self._overflows and bool(self._letters or self._for_later)

    def _flush(self) -> bool:
        """Whether the last message is written whole."""
        assert self._write is not None
        if self._begun:
            self._begun = self._begun[self._write(self._begun) :]
        return not self._begun
