"""One build at a time, and one for all who want the same.

*Runs on* the threads of requests. *Takes* what builds. *Gives* each of them the result of the one run.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzzserver.errors import Stopped

__all__ = ["SharedBuilds"]


@dataclass(eq=False)
class _Build:
    """One run, and what became of it: one of the two, when it is over."""

    result: Path | None = None
    error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        return self.result is not None or self.error is not None


class SharedBuilds:
    """Simultaneous requests for the same build share one run of it; different builds take turns.

    A compiler takes a processor and some hundred MiB for seconds, and requests cost nothing. A build goes
    on when nobody waits for it any more: its result is kept by the compiler for the next one who asks.
    """

    def __init__(self) -> None:
        # Guards all below; notified when a build is over, and by ``stop``.
        self._condition = threading.Condition()
        self._wanted: dict[str, _Build] = {}
        """Those that run or wait for their turn."""
        self._busy = False
        self._stopped = False

    def run(self, key: str, build: Callable[[], Path]) -> Path:
        """The result of ``build``, or of the run of it that is under way for ``key``; or its error.

        Stopped after ``stop``, whatever the build does.
        """
        with self._condition:
            wanted = self._wanted.get(key)
            if wanted is None:
                wanted = self._wanted[key] = _Build()
                self._condition.wait_for(lambda: self._stopped or not self._busy)
                self._check_stopped()
                self._busy = True
            else:
                self._condition.wait_for(lambda: self._stopped or wanted.is_over)
                self._check_stopped()
                return _outcome(wanted)
        try:
            wanted.result = build()
        except BaseException as error:
            wanted.error = error
        with self._condition:
            self._busy = False
            del self._wanted[key]
            self._condition.notify_all()
        return _outcome(wanted)

    def stop(self) -> None:
        """Start no more; who waits gets Stopped. Whoever owns the compilers ends what runs."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def _check_stopped(self) -> None:
        if self._stopped:
            raise Stopped("no more builds are started")


def _outcome(build: _Build) -> Path:
    if build.error is not None:
        # The same error is raised on several threads, each of which adds its own frames.
        raise build.error.with_traceback(None)
    assert build.result is not None
    return build.result
