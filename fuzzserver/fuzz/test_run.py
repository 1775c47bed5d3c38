"""The life of a fuzz test until Zig 0.15: workers, one after the other, and what becomes of each.

*Runs on* a thread ``fuzz-worker-N``. *Takes* a fuzz test, and turns to fuzz in. *Gives* messages of the
workers, the test's status, and failures.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fuzzserver.coverage.queue import Msg
from fuzzserver.errors import FuzzServerError
from fuzzserver.fuzz.backoff import Backoff, result_of
from fuzzserver.fuzz.failure import Failure
from fuzzserver.fuzz.fuzzed_test import FuzzedTest
from fuzzserver.fuzz.turns import Turn, Turns
from fuzzserver.fuzz.worker import FuzzTest, FuzzWorker, WorkerEnd, WorkerLimits
from fuzzserver.status import TestStatus
from fuzzserver.zig.process import ChildGroup

__all__ = ["FuzzTestRun"]

log = logging.getLogger(__name__)


@dataclass(eq=False)
class FuzzTestRun(FuzzedTest):
    """Runs workers for one test until ``stop``, or until they make no sense.

    ``run`` is the target of a thread; all else may be called from any thread.
    """

    children: ChildGroup
    cache_root: Path
    """Its own cache folder."""
    cwd: Path
    seed: int
    limits: WorkerLimits
    turns: Turns
    post: Callable[[Msg], None]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._worker: FuzzWorker | None = None
        self._turn: Turn | None = None
        # Runs that earlier workers of this session made.
        self._earlier_runs = 0
        self._news = threading.Event()
        """Set when it makes no sense to wait any longer: there is another build, or it is all over."""

    @property
    def status(self) -> TestStatus:
        """With the runs as they are now."""
        with self._lock:
            if self._worker is None or self._worker.total_runs == 0:
                return self._status
            return replace(self._status, n_runs=self._worker.total_runs)

    @property
    def session_runs(self) -> int:
        """Runs that its workers have made in this session."""
        with self._lock:
            return self._earlier_runs + (0 if self._worker is None else self._worker.n_runs)

    @property
    def seen(self) -> tuple[Path, bytes]:
        """Its executable, and a bit for each point that was reached; no bits before the first worker."""
        with self._lock:
            return self.test.step.rebuilt_executable, b"" if self._worker is None else self._worker.seen_bits

    def move(self, test: FuzzTest) -> None:
        """Go on with another build."""
        with self._lock:
            self.test = test
        self._end_workers()

    def _end_workers(self, hurry: bool = True) -> None:
        self._news.set()
        with self._lock:
            if self._worker is not None:
                self._worker.end(hurry)
            if self._stopping.is_set() and self._turn is not None:
                self._turn.cancel()

    def run(self) -> None:
        """Run workers."""
        try:
            problem = self.corpus.problem
            if problem is not None:
                log.error("'%s' cannot be fuzzed: %s", self.test.name, problem)
                self._set(state="failed", text=problem)
                return
            self._run_workers()
            self.tidy()
        except Exception as error:  # Of all that can go wrong, the state must tell.
            log.exception("the thread of '%s' failed", self.test.name)
            self._set(state="failed", text=f"internal error: {error!r}")

    def _run_workers(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            started = time.monotonic()
            end = self._run_worker()
            if end is None:
                return
            if self._stopping.is_set():
                if isinstance(result_of(end), Failure):  # It came just before.
                    self.judge(end, self.corpus.current_input())
                return
            if end.why == "asked":
                backoff.reset()
                self._news.clear()
                continue
            how = self.judge(end, self.corpus.current_input())
            delay = backoff.note(end, time.monotonic() - started)
            if backoff.gives_up(end):
                self.give_up(backoff.deaths, how)
                return
            self._set(state="crashed", text=f"{how}\nThe next worker starts in {delay:.2g} s.")
            self.say(f"The next worker starts in {delay:.2g} s.", "info")
            if self._news.wait(delay):
                backoff.reset()
                self._news.clear()
            if not self._stopping.is_set():
                self._set(state="restarting", restarts=self._status.restarts + 1)

    def _run_worker(self) -> WorkerEnd | None:
        """One worker from turn to end; None if there will be no turn."""
        if self._status.state == "never started":
            self._set(state="waiting")
        with self._lock:
            turn = self._turn = Turn(self.turns)
        if self._stopping.is_set() or not turn.take():
            return None
        try:
            with self._lock:
                if self._worker is not None:
                    self._earlier_runs += self._worker.n_runs
                worker = self._worker = FuzzWorker(
                    self.children,
                    self.test,
                    self.cache_root,
                    self.cwd,
                    self.seed,
                    self.limits,
                    turn,
                    self.post,
                    lambda state: self._set(state=state, text=""),
                    self._look,
                    lambda text: self.say(text, "info"),
                )
            if self._stopping.is_set():
                return None
            self.prepare()
            if self._status.restarts:
                self.corpus.stir()
            end = worker.run()
            self.save()
            return end
        except (OSError, FuzzServerError) as error:
            return WorkerEnd(worker.test, "ended", None, f"could not be run: {error}", "", 0, 0)
        finally:
            turn.give_back()

    def _look(self) -> None:
        if self.exchange():
            self._end_workers()
