"""How to fuzz, and who wants to know what comes of it."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fuzzserver.corpus import Corpus
from fuzzserver.coverage.queue import Msg
from fuzzserver.findings import ALL_CATEGORIES, Category, FindingStore
from fuzzserver.fuzz.budget import NO_BUDGET, Budget
from fuzzserver.fuzz.worker import WorkerLimits
from fuzzserver.logbook import Level
from fuzzserver.status import Progress, TargetStatus
from fuzzserver.step import FuzzRunStep

__all__ = ["Audience", "FuzzOptions"]


@dataclass(frozen=True, slots=True)
class FuzzOptions:
    """How to fuzz."""

    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Workers that run at once; one for each core by default."""
    tests: tuple[str, ...] = ()
    """Patterns of test names; all tests if there are none."""
    limits: WorkerLimits = field(default_factory=WorkerLimits)
    corpus: Path | None = None
    """The user's folder of inputs."""
    watch: bool = False
    """Whether to build again when a source file changes."""
    budget: Budget = NO_BUDGET
    """When the session ends."""
    test_budget: Budget = NO_BUDGET
    """When each test ends; the session does when all have ended."""
    fail_on: frozenset[Category] = ALL_CATEGORIES
    """Findings of these kinds count."""
    max_findings: int | None = None
    """The session ends when there are so many findings that count."""

    slice_seconds: float = 5.0
    """How long a worker runs before another one that waits gets its turn."""
    fresh: bool = False
    """Whether to forget what earlier sessions left."""

    @property
    def is_limited(self) -> bool:
        """Whether the session ends by itself."""
        return self.budget.is_limited or self.test_budget.is_limited or self.max_findings is not None


class Audience(Protocol):
    """Who is told what goes on: a ``WebServer``, say. Called on the driver's threads."""

    def add_step(self, step: FuzzRunStep) -> None:
        """An executable was built."""

    def post(self, msg: Msg) -> None:
        """A worker said something."""

    def set_status(self, state: str, text: str) -> None:
        """What the session does."""

    def set_progress(self, progress: Progress | None) -> None:
        """How far a build is; None when it is over."""

    def add_log(self, source: str, text: str, level: Level = "info") -> None:
        """A worker wrote this, or this has become of it; ``source`` is the name of its test."""

    def set_target(self, target: TargetStatus) -> None:
        """What a target does, in place of what was said before."""

    def set_findings(self, findings: FindingStore) -> None:
        """Where the findings are."""

    def add_corpus(self, corpus: Corpus) -> None:
        """Where the inputs of a test are."""

    def notify(self) -> None:
        """The findings have changed."""

    def set_rebuild(self, rebuild: Callable[[], object] | None) -> None:
        """What a viewer calls who wants the tests built again; None when that is over."""
