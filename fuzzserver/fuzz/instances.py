"""The instances of a target since Zig 0.16, each with one process after the other, and all tests in each.

*Runs on* a thread ``fuzz-worker-N`` for each instance. *Takes* the tests of a target, and turns to fuzz in.
*Gives* messages of the workers, what becomes of each test, and failures.

An instance that ends because of a test goes on without that test for a while, since the next process would
soon meet the same fault: so one test does not take the time of the others. The other instances go on.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fuzzserver.coverage.queue import Msg
from fuzzserver.errors import FuzzServerError
from fuzzserver.fuzz.backoff import Backoff, blames_the_test
from fuzzserver.fuzz.instance import InstanceWorker, instance_folder
from fuzzserver.fuzz.long_inputs import LongInputs
from fuzzserver.fuzz.mailbox import Mailbox
from fuzzserver.fuzz.shared_test import SharedTest
from fuzzserver.fuzz.turns import Turn, Turns
from fuzzserver.fuzz.worker import WorkerEnd, WorkerLimits
from fuzzserver.zig.process import ChildGroup

__all__ = ["Instances"]

log = logging.getLogger(__name__)

SEED_STEP = 0x9E3779B1
"""What the seed of an instance grows by with each process: else it would do what it did before."""


@dataclass(eq=False)
class Instances:
    """All instances of one target. May be used from any thread; callables are called on its threads."""

    children: ChildGroup
    cache_root: Path
    """The cache folder that the instances have together."""
    cwd: Path
    seed: int
    limits: WorkerLimits
    turns: Turns
    number: int
    """How many there are."""
    post: Callable[[Msg], None]
    start_thread: Callable[[Callable[[], None]], None]

    def __post_init__(self) -> None:
        # Guards all below.
        self._lock = threading.Lock()
        self._tests: list[SharedTest] = []
        self.builds = 0
        """How often ``go_on`` was called."""
        self._alive: set[int] = set()
        self._runs = [_InstanceRun(self, number) for number in range(self.number)]

    def go_on(self, tests: Sequence[SharedTest]) -> None:
        """Fuzz these tests from now on, as they are built now."""
        with self._lock:
            self._tests = list(tests)
            self.builds += 1
            asleep = [run for run in self._runs if run.number not in self._alive]
            self._alive.update(run.number for run in asleep)
        for run in self._runs:
            run.look_again()
        for run in asleep:
            self.start_thread(run.run)

    def test_ended(self, test: SharedTest, hurry: bool) -> None:
        """Go on without this test."""
        for run in self._runs:
            run.look_again(test, hurry)

    def open_tests(self) -> tuple[int, list[SharedTest]]:
        """Those that are to be fuzzed, and the number of the build that they are of."""
        with self._lock:
            return self.builds, [test for test in self._tests if not test.is_over]

    def may_end(self, number: int, build: int) -> bool:
        """Whether an instance that is done with this build may end, until ``go_on`` starts it again."""
        with self._lock:
            if build == self.builds:
                self._alive.discard(number)
            return build == self.builds

    def broadcast(self, finder: int, test: str, data: bytes) -> None:
        """Pass on what an instance has found."""
        for run in self._runs:
            if run.number != finder:
                run.mailbox.put(test, data)


class _InstanceRun:
    """The life of one instance. ``run`` is the target of a thread, again if there are tests again."""

    def __init__(self, group: Instances, number: int) -> None:
        self.number = number
        self.mailbox = Mailbox(f"instance {number}")
        self._group = group
        # Guards ``_worker`` and ``_turn``.
        self._lock = threading.Lock()
        self._worker: InstanceWorker | None = None
        self._tests: list[SharedTest] = []
        """Those of the worker, in its order. What it calls them may be of an older build."""
        self._turn: Turn | None = None
        self._news = threading.Event()
        """Set when the tests are not the same as before."""
        self._build = 0
        self._processes = 0
        self._known_points = 0
        self._backoffs: dict[SharedTest, Backoff] = {}
        self._rests: dict[SharedTest, float] = {}
        """Until when a test is left out."""
        self._long_inputs: dict[SharedTest, LongInputs] = {}

    def look_again(self, ended: SharedTest | None = None, hurry: bool = True) -> None:
        """The tests have changed: one has ended, or any."""
        self._news.set()
        with self._lock:
            if self._worker is None:
                if self._turn is not None:
                    self._turn.cancel()
            elif ended is None or ended in self._tests:
                self._worker.end(hurry)

    def run(self) -> None:
        """Run processes as long as there are tests. New ones may come while the last ones are tidied."""
        while True:
            try:
                while (tests := self._next_tests()) and self._run_process(tests):
                    pass
                self._keep([])
            except Exception as error:  # Of all that can go wrong, the state must tell.
                log.exception("the thread of instance %d failed", self.number)
                for test in self._group.open_tests()[1]:
                    test.enter(self.number, "crashed", f"internal error: {error!r}")
            if self._group.may_end(self.number, self._build):
                return

    def _next_tests(self) -> list[SharedTest]:
        """Wait until there are tests that have not to be left out; none if there are none at all."""
        while True:
            self._news.clear()
            build, tests = self._group.open_tests()
            is_new, self._build = build != self._build, build
            self._keep(tests)
            if is_new:
                self._known_points = 0
                self._backoffs.clear()
                self._rests.clear()
            for test in tests:
                self._backoffs.setdefault(test, Backoff())
            ready = [test for test in tests if self._rests.get(test, 0.0) <= time.monotonic()]
            if ready or not tests:
                return ready
            self._news.wait(max(0.0, min(self._rests[test] for test in tests) - time.monotonic()))

    def _keep(self, tests: list[SharedTest]) -> None:
        """Be done with all other tests."""
        kept = set(tests)
        for test in [test for test in self._backoffs if test not in kept]:
            del self._backoffs[test]
            self._rests.pop(test, None)
            self._long_inputs.pop(test, None)
            if self.number == 0:
                test.tidy()

    def _run_process(self, tests: list[SharedTest]) -> bool:
        """One process from turn to end; False if there will be no turn."""
        for test in tests:
            again = self._rests.pop(test, None) is not None
            test.enter(self.number, "restarting" if again else "waiting", restarts=int(again))
        with self._lock:
            turn = self._turn = Turn(self._group.turns)
        if self._news.is_set():
            return True
        if not turn.take():
            return self._news.is_set()
        started = time.monotonic()
        try:
            end = self._fuzz(tests, turn)
        finally:
            turn.give_back()
            with self._lock:
                worker, self._worker = self._worker, None
        if end is not None and end.why != "asked":
            self._note_end(tests, end, worker, time.monotonic() - started)
        return True

    def _fuzz(self, tests: list[SharedTest], turn: Turn) -> WorkerEnd | None:
        """One process; None if it is not wanted any more."""
        group = self._group
        built = [test.test for test in tests]
        try:
            worker = InstanceWorker(
                group.children,
                built[0],
                instance_folder(group.cache_root, self.number),
                group.cwd,
                (group.seed + self._processes * SEED_STEP) % (1 << 32),
                group.limits,
                turn,
                group.post,
                lambda state: self._show(tests, None),
                lambda: self._look(tests),
                lambda text: self._current(tests).say(text, "info"),
                instance=self.number,
                tests=built,
                mailbox=self.mailbox,
                found=lambda test, data: group.broadcast(self.number, test, data),
                counted=lambda test, runs, bits: self._count(tests[built.index(test)], runs, bits),
                lost=lambda test, why: tests[built.index(test)].note_noise(self.number, why),
            )
            self._processes += 1
            with self._lock:
                self._worker, self._tests = worker, tests
            if self._news.is_set():
                return None
            if self.number == 0:
                for test in tests:
                    test.prepare()
            end = worker.run()
            if self.number == 0:
                for test in tests:
                    test.save()
            return end
        except (OSError, FuzzServerError) as error:
            return WorkerEnd(built[0], "ended", None, f"could not be run: {error}", "", 0, 0)

    def _current(self, tests: list[SharedTest]) -> SharedTest:
        """The test whose turn it is."""
        worker = self._worker
        return tests[0] if worker is None else tests[worker.tests.index(worker.test)]

    def _show(self, tests: list[SharedTest], current: SharedTest | None) -> None:
        for test in tests:
            test.enter(self.number, "fuzzing" if test is current else "waiting")

    def _look(self, tests: list[SharedTest]) -> None:
        """Some times a second, while a process runs."""
        worker = self._worker
        assert worker is not None
        if worker.first is not None:
            self._show(tests, self._current(tests))
        if any(moment <= time.monotonic() and not test.is_over for test, moment in self._rests.items()):
            worker.end(hurry=False)
        if self.number == 0:
            for test in tests:
                if test.exchange():
                    worker.end()

    def _count(self, test: SharedTest, runs: int, bits: bytes) -> None:
        points = int.from_bytes(bits, "little")
        test.count(runs, points & ~self._known_points)
        self._known_points |= points
        if test not in self._long_inputs:
            self._long_inputs[test] = LongInputs(test.corpus, self._group.seed + self.number)
        if long_input := self._long_inputs[test].after(runs):
            self.mailbox.put(test.test.name, long_input)

    def _note_end(
        self, tests: list[SharedTest], end: WorkerEnd, worker: InstanceWorker | None, lived: float
    ) -> None:
        """Report an end that nobody asked for; leave out the test that is to blame for a while, or all."""
        tried = None if worker is None else worker.tried()
        if worker is not None and tried is not None and blames_the_test(end):
            built, data = tried
            culprit = tests[worker.tests.index(built)]
            suspects = [culprit]
            end = replace(end, test=built, n_runs=worker.runs_of(built), total_runs=culprit.session_runs)
            how = culprit.judge(end, data)
            culprit.corpus.forget(data)  # Each instance that begins with it would fail.
        else:
            suspects = tests
            how = tests[0].describe(end)
        is_sure = worker is None or worker.first in (None, end.test)
        now = time.monotonic()
        others = any(
            test not in suspects and self._rests.get(test, 0.0) <= now for test in self._group.open_tests()[1]
        )
        for test in suspects:
            if test.is_over:
                continue
            delay = self._backoffs[test].note(end, lived, others=others, is_sure=is_sure)
            if self._backoffs[test].gives_up(end):
                test.give_up(self._backoffs[test].deaths, how)
                continue
            self._rests[test] = now + delay
            after = (
                f"Instance {self.number} goes on without it for" if others else "The next worker starts in"
            )
            test.say(f"{after} {delay:.2g} s.", "info")
            test.enter(self.number, "crashed", f"{how}\n{after} {delay:.2g} s.")
