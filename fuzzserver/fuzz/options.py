"""How to fuzz, and who wants to know what comes of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fuzzserver.corpus import Corpus
from fuzzserver.coverage.queue import Msg
from fuzzserver.findings import FindingStore
from fuzzserver.fuzz.worker import Limits
from fuzzserver.logbook import Level
from fuzzserver.status import Progress, TargetStatus
from fuzzserver.step import FuzzRunStep

__all__ = ["Audience", "FuzzOptions"]


@dataclass(frozen=True, slots=True)
class FuzzOptions:
    """How to fuzz."""

    jobs: int
    """Workers that run at once."""
    tests: tuple[str, ...] = ()
    """Patterns of test names; all tests if there are none."""
    limits: Limits = field(default_factory=Limits)
    corpus: Path | None = None
    """The user's folder of inputs."""
    watch: bool = False
    """Whether to build again when a source file changes."""
    time: float | None = None
    """Seconds that are planned for fuzzing, in which each test should get a turn; None if there is no end."""
    slice_seconds: float = 5.0
    """How long a worker runs before another one that waits gets its turn."""
    fresh: bool = False
    """Whether to forget what earlier sessions left."""


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
