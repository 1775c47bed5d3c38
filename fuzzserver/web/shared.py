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
        # Guards ``_made``.
        self._lock = threading.Lock()
        self._made: WeakKeyDictionary[Key, _Made[Value]] = WeakKeyDictionary()

    def __call__(self, key: Key) -> Value:
        """The value for ``key``, which must not be changed."""
        with self._lock:
            made = self._made.setdefault(key, _Made())
        version = self._version()
        with made.lock:
            if made.version != version or time.monotonic() >= made.good_until:
                made.value = self._make(key)
                made.version, made.good_until = version, time.monotonic() + MOMENT
            return made.value


class _Made(Generic[Value]):
    """The last value for one thing."""

    value: Value

    def __init__(self) -> None:
        # Guards all of it. Held while a value is made, so that it is not made by others at the same time.
        self.lock = threading.Lock()
        self.version = -1
        self.good_until = 0.0
