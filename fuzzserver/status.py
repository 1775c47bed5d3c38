"""What goes on, for people and scripts to read: the server, each target, each test in it.

These are values only. Whoever builds and fuzzes makes them; the server passes them on as JSON, in its
status messages and as ``/targets.json``.
"""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Progress", "Status", "TargetStatus", "TestStatus"]


@dataclass(frozen=True, slots=True)
class Status:
    """What the server as a whole does."""

    state: str = "waiting"
    """``building``, ``waiting``, ``fuzzing``, ``serving``, ``stopped`` or ``failed``."""
    text: str = ""
    """One or more lines."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far something is that people wait for: a build, or the reading of debug info."""

    text: str
    done: int | None = None
    total: int | None = None
    """Both None where nobody knows."""

    def to_json(self) -> dict[str, Any]:
        """As it is sent."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TestStatus:
    """One fuzz test."""

    __test__ = False  # The name begins with "Test", but it is no test class for pytest.

    name: str
    state: str
    """``waiting``, ``fuzzing``, ``crashed``, ``restarting``, ``stopped``, ``failed`` or ``never started``."""
    text: str = ""
    """Why, where the state alone does not tell."""
    n_runs: int | None = 0
    """None where it cannot be told from the runs of other tests."""
    restarts: int = 0
    findings: int = 0
    """Different findings, of this session and earlier ones."""


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """One test executable, over all its builds."""

    key: str
    """The same for each build; no two targets share it."""
    name: str
    state: str
    """As for a test, and ``building`` or ``serving``."""
    text: str = ""
    id: str | None = None
    """The current coverage map: its file's name. None until a fuzzer has said it."""
    earlier: tuple[str, ...] = ()
    """The maps of earlier builds, the oldest first."""
    tests: tuple[TestStatus, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As it is sent."""
        return asdict(self)
