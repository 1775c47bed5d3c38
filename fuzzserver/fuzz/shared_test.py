"""A fuzz test since Zig 0.16, which shares the instances of its target with the other tests there."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fuzzserver.fuzz.fuzzed_test import ENDED, FuzzedTest
from fuzzserver.fuzz.worker import FuzzTest
from fuzzserver.status import TestStatus

__all__ = ["SharedTest"]

log = logging.getLogger(__name__)

STATES = ("fuzzing", "restarting", "waiting", "crashed")
"""What is said of the test if instances do not agree: the first of these."""


@dataclass(eq=False)
class SharedTest(FuzzedTest):
    """What becomes of it in all instances together.

    Its runs are those of this session: the coverage file of an earlier one does not tell whose they were.
    """

    ended: Callable[["SharedTest", bool], None]
    """Told that it has stopped, and whether in a hurry."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._runs = 0
        self._seen = 0
        """A bit for each point."""
        self._instances: dict[int, tuple[str, str]] = {}
        """State and text in each."""
        self._is_noisy = False

    @property
    def status(self) -> TestStatus:
        """With the runs as they are now."""
        with self._lock:
            return replace(self._status, n_runs=self._runs)

    @property
    def session_runs(self) -> int:
        """Runs that were made while it had its turn in some instance."""
        with self._lock:
            return self._runs

    @property
    def seen(self) -> tuple[Path, bytes]:
        """Its executable, and a bit for each point that came to be reached while it had its turn."""
        with self._lock:
            return self.test.step.rebuilt_executable, self._seen.to_bytes(
                (self._seen.bit_length() + 7) // 8, "little"
            )

    def count(self, runs: int, points: int) -> None:
        """It has made so many more runs, and reached these points, as bits."""
        with self._lock:
            self._runs += runs
            self._seen |= points

    def enter(self, instance: int, state: str, text: str = "", *, restarts: int = 0) -> None:
        """Note its state in one instance."""
        with self._lock:
            if self._instances.get(instance) == (state, text):
                return
            self._instances[instance] = (state, text)
            if self._status.state in ENDED:
                return
            states = {each for each, _ in self._instances.values()}
            self._status = replace(
                self._status,
                state=next(each for each in STATES if each in states),
                text=next((text for _, text in self._instances.values() if text), ""),
                restarts=self._status.restarts + restarts,
            )
        self.changed()

    def note_noise(self, instance: int, why: str) -> None:
        """In its turn, an instance ceased to be understood. Said once: each of its processes may do so."""
        if not self._is_noisy:
            self._is_noisy = True
            log.warning(
                "instance %d cannot be understood any more since '%s' had its turn (%s): what it finds is "
                "not handed on to other instances, and all its runs are counted for that test. A test that "
                "writes to stdout does this, for the fuzzer speaks there: print to stderr instead, with "
                "std.debug.print",
                instance,
                self.test.name,
                why,
            )

    def move(self, test: FuzzTest) -> None:
        """It is part of another build from now on."""
        with self._lock:
            if self.test.step.rebuilt_executable != test.step.rebuilt_executable:
                self._seen = 0  # Other points have these numbers.
            self.test = test

    def give_up(self, deaths: int, how: str) -> None:
        """No more workers are started with it."""
        super().give_up(deaths, how)
        self.stop(hurry=False)

    def _end_workers(self, hurry: bool = True) -> None:
        self.ended(self, hurry)
