"""How long to fuzz, for each test and in all, and when that is over.

*Runs on* the thread ``fuzz-budget``. *Takes* what the runs of all tests have come to. *Gives* the ending of
a session, and stops tests whose own budget is used up.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fuzzserver.status import TestStatus

__all__ = ["NO_BUDGET", "Budget", "BudgetWatch", "Ending"]


INTERVAL = 0.1
"""Seconds between two looks at what was used up."""


@dataclass(frozen=True, slots=True)
class Budget:
    """When to end: at the first of these that is reached. Without any, there is no end.

    Runs and quiet are goals. Where there is one, an end because of the time comes too early.
    """

    time: float | None = None
    """Seconds of fuzzing; of a test, those in which it had its turn."""
    runs: int | None = None
    until_quiet: float | None = None
    """Seconds without new coverage."""

    @property
    def has_goal(self) -> bool:
        """Whether something is to be reached, and not only to be kept."""
        return self.runs is not None or self.until_quiet is not None

    @property
    def is_limited(self) -> bool:
        """Whether there is an end."""
        return self.has_goal or self.time is not None


NO_BUDGET = Budget()


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a session ended by itself."""

    text: str
    """A sentence."""
    met: bool
    """Whether all was done that the budgets ask for."""


class _Fuzzed(Protocol):
    """A test and its workers."""

    @property
    def status(self) -> TestStatus:
        """Its name and state."""

    @property
    def session_runs(self) -> int:
        """Runs in this session."""

    @property
    def seen(self) -> tuple[Path, bytes]:
        """Its executable, and a bit for each point of it that was reached."""

    def stop(self, text: str = "", *, hurry: bool = True) -> None:
        """End it."""


@dataclass(slots=True)
class _Usage:
    """What was used up of a budget."""

    seconds: float = 0.0
    runs: int = 0
    quiet: float = 0.0
    """Seconds since something new was covered."""
    seen: dict[Path, int] = field(default_factory=dict)
    """The points that were covered, as bits of an integer, by executable."""

    def note(self, seconds: float, fuzzed: Sequence[_Fuzzed]) -> None:
        """So many seconds later, it has come to this."""
        self.seconds += seconds
        self.quiet += seconds
        self.runs = sum(each.session_runs for each in fuzzed)
        for each in fuzzed:
            executable, bits = each.seen
            known = self.seen.get(executable, 0)
            self.seen[executable] = now = known | int.from_bytes(bits, "little")
            if now != known:
                self.quiet = 0.0


class BudgetWatch:
    """Looks what was used up. Its methods are called on one thread."""

    def __init__(self, budget: Budget, test_budget: Budget, *, is_open: bool = False) -> None:
        """``budget`` is for all tests together, ``test_budget`` for each.

        ``is_open``: there may be other tests later, so that it is not over when none is left.
        """
        self._is_open = is_open
        self._budget = budget
        self._test_budget = test_budget
        self._last_look = time.monotonic()
        self._all = _Usage()
        self._tests: dict[_Fuzzed, _Usage] = {}
        # Tests that were stopped because their budget was used up, and why some of those came too early.
        self._done: set[_Fuzzed] = set()
        self._short: list[str] = []

    def run(
        self,
        fuzzed: Callable[[], Sequence[_Fuzzed]],
        enough: Callable[[], Ending | None],
        stopped: threading.Event,
    ) -> Ending | None:
        """Look until there is an ending, which ``enough`` may give, too; None if it is stopped before."""
        while True:
            left = self._seconds_left()
            if stopped.wait(INTERVAL if left is None else min(left, INTERVAL)):
                return None
            ending = enough() or self.look(fuzzed())
            if ending is not None:
                return ending

    def look(self, fuzzed: Sequence[_Fuzzed]) -> Ending | None:
        """Stop the tests whose budget is used up. Returns the ending if that of all is, or all have ended."""
        now = time.monotonic()
        seconds, self._last_look = now - self._last_look, now
        self._all.note(seconds, fuzzed)
        for each in fuzzed:
            if each not in self._done:
                self._look_at_test(each, seconds)
        ending = _ending(self._budget, self._all)
        if ending is not None:
            return self._judged(ending, fuzzed)
        if not self._is_open and all(each.status.state in _ENDED for each in fuzzed):
            if self._done.issuperset(fuzzed):
                return self._judged(Ending("Each test has used up its budget.", True), fuzzed)
            is_asked = self._budget.is_limited or self._test_budget.is_limited
            return Ending("All fuzz workers have ended.", met=not is_asked)
        return None

    def _seconds_left(self) -> float | None:
        """Until the time of all is over."""
        return None if self._budget.time is None else max(0.0, self._budget.time - self._all.seconds)

    def _look_at_test(self, each: _Fuzzed, seconds: float) -> None:
        usage = self._tests.setdefault(each, _Usage())
        usage.note(seconds if each.status.state == "fuzzing" else 0.0, [each])
        ending = _ending(self._test_budget, usage)
        if ending is not None and each.status.state not in _ENDED:
            self._done.add(each)
            if not ending.met:
                self._short.append(f"'{each.status.name}': {ending.text}")
            each.stop(ending.text, hurry=False)

    def _judged(self, ending: Ending, fuzzed: Sequence[_Fuzzed]) -> Ending:
        """The ending, which is too early as well if a test has not reached what is asked of each."""
        if not ending.met:
            return ending
        if self._short:
            return Ending(f"{ending.text} {self._short[0]}", met=False)
        left = [each for each in fuzzed if each not in self._done]
        if left and self._test_budget.has_goal:
            return Ending(
                f"{ending.text} '{left[0].status.name}' has not reached what each test should.", False
            )
        return ending


_ENDED = ("stopped", "failed")


def _ending(budget: Budget, usage: _Usage) -> Ending | None:
    if budget.runs is not None and usage.runs >= budget.runs:
        return Ending(f"{budget.runs:,} runs were made.", True)
    if budget.until_quiet is not None and usage.quiet >= budget.until_quiet:
        return Ending(f"Nothing new was covered for {budget.until_quiet:g} s.", True)
    if budget.time is not None and usage.seconds >= budget.time:
        missing = []
        if budget.runs is not None:
            missing.append(f"{usage.runs:,} of {budget.runs:,} runs were made")
        if budget.until_quiet is not None:
            missing.append(f"the last new coverage was {usage.quiet:.0f} s ago, not {budget.until_quiet:g}")
        what = f": {', and '.join(missing)}" if missing else ""
        return Ending(f"The time of {budget.time:g} s is over{what}.", not budget.has_goal)
    return None
