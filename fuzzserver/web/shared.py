"""What all viewers are sent, made once: a thousand of them would ask for it a thousand times."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["Shared"]

Key = TypeVar("Key")
Value = TypeVar("Value")

MOMENT = 0.05
"""Seconds for which a value is as good as new. Viewers look twice a second."""


class Shared(Generic[Key, Value]):
    """Gives what a function of one thing gives, or gave a moment ago. May be used from any thread.

    What has changed with notice is never missed: a value of another ``version`` is made anew.
    """

    def __init__(self, make: Callable[[Key], Value], version: Callable[[], int]) -> None:
        self._make = make
        self._version = version
        # Guards ``_made``. Held while a value is made, so that it is not made by others at the same time.
        self._lock = threading.Lock()
        # Values with their version and the time until which they are good.
        self._made: WeakKeyDictionary[Key, tuple[Value, int, float]] = WeakKeyDictionary()

    def __call__(self, key: Key) -> Value:
        """The value for ``key``, which must not be changed."""
        version = self._version()
        with self._lock:
            made = self._made.get(key)
            if made is not None and made[1] == version and time.monotonic() < made[2]:
                return made[0]
            value = self._make(key)
            self._made[key] = value, version, time.monotonic() + MOMENT
            return value
