"""When a session is over: for each test and in all, met or too early."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from fuzzserver.fuzz import budget
from fuzzserver.fuzz.budget import NO_BUDGET, Budget, BudgetWatch, Ending
from fuzzserver.status import TestStatus

EXECUTABLE = Path("/o/test")


@dataclass(eq=False)
class Fuzzed:
    """A test of which is said how far it is."""

    name: str
    state: str = "fuzzing"
    session_runs: int = 0
    bits: int = 0
    executable: Path = EXECUTABLE
    stopped: list[str] = field(default_factory=list)

    @property
    def status(self) -> TestStatus:
        """As a run has it."""
        return TestStatus(self.name, self.state)

    @property
    def seen(self) -> tuple[Path, bytes]:
        """As a run has it."""
        return self.executable, self.bits.to_bytes(8, "little")

    def stop(self, text: str = "", *, hurry: bool = True) -> None:
        """Note why."""
        self.stopped.append(text)
        self.state = "stopped"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is a second after the one before."""
    seconds = itertools.count(1000.0)
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: next(seconds)))


def looks(watch: BudgetWatch, fuzzed: list[Fuzzed], most: int = 100) -> tuple[int, Ending | None]:
    """Look until there is an ending; returns how often, too."""
    for count in range(1, most + 1):
        ending = watch.look(fuzzed)
        if ending is not None:
            return count, ending
    return most, None


def test_without_a_budget_there_is_no_end() -> None:
    """Until no worker is left, which is none of ours to complain about."""
    tests = [Fuzzed("a"), Fuzzed("b", "crashed")]
    watch = BudgetWatch(NO_BUDGET, NO_BUDGET)
    assert watch._seconds_left() is None
    assert looks(watch, tests) == (100, None)
    tests[0].state, tests[1].state = "failed", "stopped"
    assert watch.look(tests) == Ending("All fuzz workers have ended.", met=True)


def test_time() -> None:
    """It is over after so many seconds, and that is what was asked for."""
    watch = BudgetWatch(Budget(time=10.0), NO_BUDGET)
    assert looks(watch, [Fuzzed("a")]) == (10, Ending("The time of 10 s is over.", met=True))
    assert watch._seconds_left() == 0.0


def test_workers_that_end_before_the_time_is_over() -> None:
    """That is too early; unless a rebuild may bring new ones."""
    done = [Fuzzed("a", "failed")]
    assert BudgetWatch(Budget(time=10.0), NO_BUDGET).look(done) == Ending(
        "All fuzz workers have ended.", met=False
    )
    assert looks(BudgetWatch(Budget(time=10.0), NO_BUDGET, is_open=True), done)[0] == 10


def test_runs_are_those_of_all_tests() -> None:
    """Together they reach the number."""
    tests = [Fuzzed("a", session_runs=999_999), Fuzzed("b")]
    watch = BudgetWatch(Budget(runs=1_000_000), NO_BUDGET)
    assert watch.look(tests) is None
    tests[1].session_runs = 1
    assert watch.look(tests) == Ending("1,000,000 runs were made.", met=True)


def test_a_goal_that_is_not_reached_in_time() -> None:
    """The ending says how far it was."""
    tests = [Fuzzed("a", session_runs=5, bits=1)]
    ending = looks(BudgetWatch(Budget(10.0, 100, 60.0), NO_BUDGET), tests)[1]
    assert ending == Ending(
        "The time of 10 s is over: 5 of 100 runs were made, and the last new coverage was 9 s ago, not 60.",
        met=False,
    )


def test_quiet_begins_anew_with_each_new_point() -> None:
    """A point that another test of the same executable has reached before is not new."""
    tests = [Fuzzed("a", bits=0b1), Fuzzed("b")]
    watch = BudgetWatch(Budget(until_quiet=5.0), NO_BUDGET)
    for _ in range(4):
        assert watch.look(tests) is None
    tests[0].bits = 0b11
    for _ in range(3):
        assert watch.look(tests) is None
    tests[1].bits = 0b10
    assert looks(watch, tests) == (3, Ending("Nothing new was covered for 5 s.", met=True))


def test_same_points_of_another_executable_are_new() -> None:
    """Bits count by executable."""
    tests = [Fuzzed("a", bits=1), Fuzzed("b", executable=Path("/o/other"))]
    watch = BudgetWatch(Budget(until_quiet=3.0), NO_BUDGET)
    assert [watch.look(tests) for _ in range(3)] == [None] * 3
    tests[1].bits = 1
    assert looks(watch, tests)[0] == 4


def test_each_test_has_its_own_budget() -> None:
    """Time counts while it has its turn; when all are done, it is over."""
    first, second = Fuzzed("a"), Fuzzed("b", "waiting")
    watch = BudgetWatch(NO_BUDGET, Budget(time=3.0))
    assert looks(watch, [first, second], 3) == (3, None)
    assert (first.stopped, second.stopped) == (["The time of 3 s is over."], [])
    assert looks(watch, [first, second], 50) == (50, None)
    second.state = "fuzzing"
    assert looks(watch, [first, second]) == (3, Ending("Each test has used up its budget.", met=True))
    assert len(first.stopped) == 1


def test_a_test_that_does_not_reach_its_goal() -> None:
    """Whether its own time or that of all is over first, it is too early, and the ending names it."""
    slow, quick = Fuzzed("slow", session_runs=1), Fuzzed("quick", session_runs=10)
    ending = looks(BudgetWatch(NO_BUDGET, Budget(time=3.0, runs=10)), [slow, quick])[1]
    assert ending is not None and not ending.met
    assert "'slow': The time of 3 s is over: 1 of 10 runs were made." in ending.text
    slow, quick = Fuzzed("slow", session_runs=1), Fuzzed("quick", session_runs=10)
    ending = looks(BudgetWatch(Budget(time=3.0), Budget(runs=10)), [slow, quick])[1]
    text = "The time of 3 s is over. 'slow' has not reached what each test should."
    assert ending == Ending(text, met=False)


def test_a_test_that_ends_by_itself() -> None:
    """With budgets of the tests, one that was given up is too early."""
    tests = [Fuzzed("a"), Fuzzed("b", "failed")]
    ending = looks(BudgetWatch(NO_BUDGET, Budget(time=3.0)), tests)[1]
    assert ending == Ending("All fuzz workers have ended.", met=False)
