"""What a part of the soak is told, and what it tells."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """How hard to try."""

    folder: Path
    """For all that is written."""
    zig_cache: Path
    """What one part has compiled, the others need not."""
    minutes: float
    """Of the long run."""
    quick: bool
    """Whether to do only a little of everything, to see that the parts themselves work."""

    def some(self, number: int) -> int:
        """So many, or few of them."""
        return max(1, number // 20) if self.quick else number


@dataclass(frozen=True)
class Row:
    """One figure: what it is, what is wanted, what it is in fact."""

    what: str
    wanted: str
    measured: str
    met: bool


def percentile(values: list[float], percent: int) -> float:
    """The value that so many percent do not go beyond; 0 if there is none."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)] if values else 0.0


def counted(what: str, good: int, total: int, bad: list[str]) -> Row:
    """All of so many should be good; the first that is not is told."""
    told = f"{good} of {total}" + (f"; {bad[0]}" if bad else "")
    return Row(what, f"{total} of {total}", told, good == total > 0)


def none_of(what: str, problems: list[str]) -> Row:
    """There should be no problems; the first is told."""
    told = f"{len(problems)}: {problems[0]}" if problems else "0"
    return Row(what, "0", told, not problems)
