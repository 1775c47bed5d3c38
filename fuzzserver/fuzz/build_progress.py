"""How far the build of several targets is, for those who wait for it."""

import threading

from fuzzserver.fuzz.options import Audience
from fuzzserver.status import Progress

__all__ = ["BuildProgress"]


class BuildProgress:
    """Tells how many targets are built, and what is being done. May be used from any thread."""

    def __init__(self, audience: Audience, total: int) -> None:
        self._audience = audience
        self._total = total
        # Guards ``_done`` and ``_text``, and keeps what is told in order.
        self._lock = threading.Lock()
        self._done = 0
        self._text = ""

    def say(self, text: str) -> None:
        """Something is being done."""
        with self._lock:
            self._text = text
            self._audience.set_progress(Progress(text, self._done, self._total))

    def one_more(self) -> None:
        """A target is built, or cannot be."""
        with self._lock:
            self._done += 1
            self._audience.set_progress(Progress(self._text, self._done, self._total))
