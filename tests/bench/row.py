"""What a part of the bench is told, and what it tells."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What is measured with, and how much of it."""

    zig: Zig
    work: Path
    """A folder that outlives the run, in which the tests keep what they have built."""
    folder: Path
    """For all that is written and not kept."""
    quick: bool = False
    """Whether to measure only what takes seconds, to see that the parts themselves work."""
    slow: bool = False
    """Whether to measure the peers, too, that take minutes or gigabytes."""

    @property
    def rounds(self) -> int:
        """How often each does the same, if that takes long. The best time counts."""
        return 1 if self.quick else 3

    @property
    def many_rounds(self) -> int:
        """The same, of what takes less than a second."""
        return 1 if self.quick else 10

    @property
    def client(self) -> ZigCompileClient:
        """Compiles into the cache of the tests."""
        return ZigCompileClient(self.zig, self.work / "zig-cache")


@dataclass(frozen=True)
class Row:
    """One figure, beside that of a peer if there is one."""

    what: str
    ours: float
    unit: str
    peer: str = ""
    theirs: float | None = None
    at_most: float | None = None
    """Of the ratio if there is a peer, else of the figure itself."""
    at_least: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours as a share of the peer's."""
        return self.ours / self.theirs if self.theirs else None

    @property
    def met(self) -> bool | None:
        """Whether it is as wanted; None if nothing is."""
        judged = self.ours if self.theirs is None else self.ratio
        if self.at_most is None and self.at_least is None:
            return None
        if judged is None:
            return False
        return (self.at_most is None or judged <= self.at_most) and (
            self.at_least is None or judged >= self.at_least
        )

    @property
    def cells(self) -> tuple[str, ...]:
        """What, ours, peer, ratio, target, verdict."""
        sign, limit = (">=", self.at_least) if self.at_least is not None else ("<=", self.at_most)
        unit = self.unit if self.theirs is None else "x"
        return (
            self.what,
            f"{number(self.ours)} {self.unit}",
            f"{self.peer} {number(self.theirs)} {self.unit}" if self.theirs is not None else "",
            f"{number(self.ratio)} x" if self.ratio is not None else "",
            f"{sign} {number(limit)} {unit}" if limit is not None else "",
            {True: "met", False: "MISSED", None: ""}[self.met],
        )

    def describe_json(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**asdict(self), "ratio": self.ratio, "met": self.met}


HEAD = ("what", "ours", "peer", "ratio", "target", "verdict")


def number(value: float) -> str:
    """For people to read: three digits that matter, and no exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.6f}"


def table(rows: Iterable[Row]) -> Iterator[str]:
    """Lines of Markdown."""
    lines = [HEAD, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    lines.insert(1, tuple("-" * width for width in widths))
    for line in lines:
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"


def missed(rows: Iterable[Row]) -> list[Row]:
    """Those that are not as wanted."""
    return [row for row in rows if row.met is False]


def taking_turns(rounds: int, *runs: Callable[[], T]) -> list[list[T]]:
    """The results of each: what else the machine does meanwhile slows all of them alike."""
    results: list[list[T]] = [[] for _ in runs]
    for _ in range(rounds):
        for result, run in zip(results, runs, strict=True):
            result.append(run())
    return results
