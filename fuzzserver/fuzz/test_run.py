"""The life of one fuzz test: workers, one after the other, and what becomes of each.

*Runs on* a thread ``fuzz-worker-N``. *Takes* a fuzz test, and turns to fuzz in. *Gives* messages of the
workers, the test's status, and failures.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from fuzzserver.corpus import Corpus, SharedCorpus
from fuzzserver.coverage.queue import Msg
from fuzzserver.errors import FuzzServerError, InputError
from fuzzserver.fuzz.failure import Failure, FuzzerFault, Killed, failure_of
from fuzzserver.fuzz.turns import Turn, Turns
from fuzzserver.fuzz.worker import FuzzTest, FuzzWorker, WorkerEnd, WorkerLimits
from fuzzserver.logbook import Level
from fuzzserver.status import TestStatus
from fuzzserver.zig.process import ChildGroup

__all__ = ["FuzzTestRun"]

log = logging.getLogger(__name__)
worker_log = logging.getLogger("fuzzserver.worker")
"""What workers wrote on stderr, as it is."""

MAX_DEATHS = 5
"""Workers in succession that end without a single run, after which no more are started, if it is the test's
fault. A disk that is full, or a folder that is gone, may not stay so: then there is always another try."""

FIRST_DELAY = 0.25
LEAST_LONGEST_DELAY = 2.0
LONGEST_DELAY = 10.0
"""Seconds until the next worker starts: they grow, but not beyond how long the last one lived, or these."""

MAX_TEXT = 4000
"""Characters of last words in a status."""


@dataclass(eq=False)
class FuzzTestRun:
    """Runs workers for one test until ``stop``, or until they make no sense.

    ``run`` is the target of a thread; all else may be called from any thread. Callables are called on
    that thread.
    """

    children: ChildGroup
    test: FuzzTest
    cache_root: Path
    """Its own cache folder."""
    cwd: Path
    seed: int
    limits: WorkerLimits
    turns: Turns
    corpus: Corpus
    shared: SharedCorpus | None
    """Where inputs come from and go to, besides the cache folder."""
    post: Callable[[Msg], None]
    changed: Callable[[], None]
    """Called when ``status`` has changed."""
    failed: Callable[[WorkerEnd, Failure, bytes], int]
    """Told of a failure and the input that the fuzzer tried; returns how many findings the test has now."""
    say: Callable[[str, Level], None]
    """Told what its workers write, and what becomes of them."""
    _status: TestStatus = field(init=False)

    def __post_init__(self) -> None:
        # Guards ``_status``, ``_worker``, ``_turn`` and ``test``.
        self._lock = threading.Lock()
        self._status = TestStatus(self.test.name, "never started")
        self._worker: FuzzWorker | None = None
        self._turn: Turn | None = None
        # Runs that earlier workers of this session made.
        self._earlier_runs = 0
        self._obstacle: str | None = None
        """Why the last worker could not be started, if it could not."""
        self.retired = False
        """Whether the newest build has no such test."""
        self._stopping = threading.Event()
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

    def note_findings(self, count: int) -> None:
        """How many findings the test has, from earlier sessions for instance."""
        self._set(findings=count)

    def retire(self, why: str) -> None:
        """End the worker and start no more, because there is no such test any more."""
        self.retired = True
        self.stop(why)

    def stop(self, text: str = "", *, hurry: bool = True) -> None:
        """End the worker and start no more. Without ``hurry``, one that just fails may say how."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._news.set()
            self._end_worker(hurry)
            if self._status.state != "failed":
                self._set(state="stopped", text=text)

    def move(self, test: FuzzTest) -> None:
        """Go on with another build."""
        with self._lock:
            self.test = test
        self._news.set()
        self._end_worker()

    def _end_worker(self, hurry: bool = True) -> None:
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
            self._tidy()
        except Exception as error:  # Of all that can go wrong, the state must tell.
            log.exception("the thread of '%s' failed", self.test.name)
            self._set(state="failed", text=f"internal error: {error!r}")

    def _tidy(self) -> None:
        """Leave the corpus in good order. The next worker does it, too."""
        try:
            self.corpus.tidy()
        except OSError as error:
            log.error("cannot tidy the corpus in '%s': %s", self.corpus.folder, error.strerror)

    def _run_workers(self) -> None:
        deaths = 0
        delay = FIRST_DELAY
        while not self._stopping.is_set():
            started = time.monotonic()
            end = self._run_worker()
            if end is None:
                return
            if self._stopping.is_set():
                if isinstance(_result(end), Failure):  # It came just before.
                    self._judge(end)
                return
            if end.why == "asked":
                deaths, delay = 0, FIRST_DELAY
                self._news.clear()
                continue
            how = self._judge(end)
            deaths = 0 if end.n_runs else deaths + 1
            if deaths >= MAX_DEATHS and _blames_the_test(end):
                log.error(
                    "'%s': %d workers in succession made no run; no more are started", end.test.name, deaths
                )
                self._set(state="failed", text=f"Gave up after {deaths} workers that made no run.\n{how}")
                return
            # At least half of the time is for fuzzing, unless workers fail faster than they can be started.
            delay = min(2 * delay, max(LEAST_LONGEST_DELAY, time.monotonic() - started), LONGEST_DELAY)
            if end.status is None or deaths >= MAX_DEATHS:
                delay = LONGEST_DELAY
            self._set(state="crashed", text=f"{how}\nThe next worker starts in {delay:.2g} s.")
            self.say(f"The next worker starts in {delay:.2g} s.", "info")
            if self._news.wait(delay):
                deaths, delay = 0, FIRST_DELAY
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
            self.corpus.tidy()
            if self.shared is not None:
                self.shared.give(self.corpus)
            if self._status.restarts:
                self.corpus.stir()
            end = worker.run()
            self._exchange(lambda shared: shared.save(self.corpus))
            return end
        except (OSError, FuzzServerError) as error:
            return WorkerEnd(worker.test, "ended", None, f"could not be run: {error}", "", 0, 0)
        finally:
            turn.give_back()

    def _look(self) -> None:
        if self._exchange(lambda shared: shared.exchange(self.corpus)):
            self._end_worker()

    def _exchange(self, work: Callable[[SharedCorpus], bool | None]) -> bool | None:
        """Do something with the user's folder, if there is one."""
        if self.shared is None:
            return False
        try:
            return work(self.shared)
        except InputError as error:
            log.error("%s; inputs of '%s' are not saved until that is mended", error, self.test.name)
            return False

    def _judge(self, end: WorkerEnd) -> str:
        """Report an end that nobody asked for; returns it in words."""
        result = _result(end)
        if isinstance(result, Failure):
            text = f"Worker {end.how}: {result.message}"
            self.say(text, "error")
            findings = self.failed(end, result, self.corpus.current_input())
            self._set(n_runs=end.total_runs, findings=findings)
            return text  # The finding has the rest.
        self._set(n_runs=end.total_runs)
        text = f"Worker {end.how}."
        if isinstance(result, FuzzerFault):
            text += f" Zig's fuzzer itself failed: {result.message}"
        if end.status is not None or self._obstacle != text:  # A full disk is worth one line, not thousands.
            log.error("fuzz worker for '%s': %s", end.test.name, text)
        self._obstacle = text if end.status is None else None
        if end.stderr.strip():
            worker_log.error("%s", end.stderr.rstrip("\n"))
        return f"{text}\n{end.stderr.strip()[-MAX_TEXT:]}".strip()

    def _set(self, **changes: object) -> None:
        with self._lock:
            if self._stopping.is_set() and self._status.state in ("stopped", "failed"):
                changes = {name: value for name, value in changes.items() if name not in ("state", "text")}
            self._status = replace(self._status, **changes)  # type: ignore[arg-type]
        self.changed()


def _blames_the_test(end: WorkerEnd) -> bool:
    """Whether the end has to do with the test, and not with the machine or with Zig's fuzzer."""
    return end.why == "protocol" or isinstance(_result(end), Failure)


def _result(end: WorkerEnd) -> Failure | FuzzerFault | Killed | None:
    """What the end says of the test; None if it says nothing."""
    if end.why == "hang" or end.why == "out of memory":
        return failure_of(end.why, end.status, end.stderr, end.how)
    if end.why == "ended" and end.status is not None:
        return failure_of("ended", end.status, end.stderr, fuzzer_log=end.fuzzer_log)
    return None
