"""A fuzz test as people and budgets see it, whoever runs its workers."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from fuzzserver.corpus import Corpus, SharedCorpus
from fuzzserver.errors import InputError
from fuzzserver.fuzz.backoff import result_of
from fuzzserver.fuzz.failure import Failure, FuzzerFault
from fuzzserver.fuzz.worker import FuzzTest, WorkerEnd
from fuzzserver.logbook import Level
from fuzzserver.status import TestStatus

__all__ = ["ENDED", "FuzzedTest"]

log = logging.getLogger(__name__)
worker_log = logging.getLogger("fuzzserver.worker")
"""What workers wrote on stderr, as it is."""

MAX_TEXT = 4000
"""Characters of last words in a status."""

ENDED = ("stopped", "failed")
"""States that nothing follows."""


@dataclass(eq=False)
class FuzzedTest:
    """What becomes of a test. May be used from any thread; callables are called on that of a worker."""

    test: FuzzTest
    corpus: Corpus
    shared: SharedCorpus | None
    """Where inputs come from and go to, besides the cache folder."""
    changed: Callable[[], None]
    """Called when ``status`` has changed."""
    failed: Callable[[WorkerEnd, Failure, bytes], int]
    """Told of a failure and the input that the fuzzer tried; returns how many findings the test has now."""
    say: Callable[[str, Level], None]
    """Told what its workers write, and what becomes of them."""
    retired: bool = field(default=False, init=False)
    """Whether the newest build has no such test."""
    _status: TestStatus = field(init=False)

    def __post_init__(self) -> None:
        # Guards all that changes.
        self._lock = threading.Lock()
        self._status = TestStatus(self.test.name, "never started")
        self._stopping = threading.Event()
        self._obstacle: str | None = None
        """Why the last worker could not be started, if it could not."""

    @property
    def is_over(self) -> bool:
        """Whether no more workers are started for it."""
        return self._stopping.is_set() or self._status.state in ENDED

    @property
    def status(self) -> TestStatus:
        """With the runs as they are now."""
        raise NotImplementedError

    @property
    def session_runs(self) -> int:
        """Runs that its workers have made in this session."""
        raise NotImplementedError

    @property
    def seen(self) -> tuple[Path, bytes]:
        """Its executable, and a bit for each point that was reached; no bits before the first worker."""
        raise NotImplementedError

    def _end_workers(self, hurry: bool = True) -> None:
        """End its workers, because it has changed or stopped."""
        raise NotImplementedError

    def note_findings(self, count: int) -> None:
        """How many findings the test has, from earlier sessions for instance."""
        self._set(findings=count)

    def retire(self, why: str) -> None:
        """End the workers and start no more, because there is no such test any more."""
        self.retired = True
        self.stop(why)

    def stop(self, text: str = "", *, hurry: bool = True) -> None:
        """End the workers and start no more. Without ``hurry``, one that just fails may say how."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._end_workers(hurry)
            if self._status.state != "failed":
                self._set(state="stopped", text=text)

    def tidy(self) -> None:
        """Leave the corpus in good order. The next worker does it, too."""
        try:
            self.corpus.tidy()
        except OSError as error:
            log.error("cannot tidy the corpus in '%s': %s", self.corpus.folder, error.strerror)

    def prepare(self) -> None:
        """Before a worker starts that writes the corpus. OSError or InputError if it must not start."""
        self.corpus.tidy()
        if self.shared is not None:
            self.shared.give(self.corpus)

    def exchange(self) -> bool:
        """While it runs: save new inputs now and then. True if it should end, so that some can be given."""
        return self._with_folder(lambda shared: shared.exchange(self.corpus))

    def save(self) -> None:
        """When it has ended: save new inputs in the user's folder."""
        self._with_folder(lambda shared: shared.save(self.corpus))

    def _with_folder(self, work: Callable[[SharedCorpus], bool | None]) -> bool:
        if self.shared is None:
            return False
        try:
            return bool(work(self.shared))
        except InputError as error:
            log.error("%s; inputs of '%s' are not saved until that is mended", error, self.test.name)
            return False

    def judge(self, end: WorkerEnd, data: bytes) -> str:
        """Report an end that nobody asked for, on the input ``data``; returns it in words."""
        result = result_of(end)
        if isinstance(result, Failure):
            text = f"Worker {end.how}: {result.message}"
            self.say(text, "error")
            findings = self.failed(end, result, data)
            self._set(n_runs=end.total_runs, findings=findings)
            return text  # The finding has the rest.
        return self.describe(end)

    def describe(self, end: WorkerEnd) -> str:
        """Report an end that is not known to be the test's fault; returns it in words."""
        self._set(n_runs=end.total_runs)
        text = f"Worker {end.how}."
        result = result_of(end)
        if isinstance(result, FuzzerFault):
            text += f" Zig's fuzzer itself failed: {result.message}"
        if end.status is not None or self._obstacle != text:  # A full disk is worth one line, not thousands.
            log.error("fuzz worker for '%s': %s", end.test.name, text)
        self._obstacle = text if end.status is None else None
        if end.stderr.strip():
            worker_log.error("%s", end.stderr.rstrip("\n"))
        return f"{text}\n{end.stderr.strip()[-MAX_TEXT:]}".strip()

    def give_up(self, deaths: int, how: str) -> None:
        """No more workers are started: the last ones made no run, and ended for ``how``."""
        log.error("'%s': %d workers in succession made no run; no more are started", self.test.name, deaths)
        self._set(state="failed", text=f"Gave up after {deaths} workers that made no run.\n{how}")

    def _set(self, **changes: object) -> None:
        with self._lock:
            if self._stopping.is_set() and self._status.state in ENDED:
                changes = {name: value for name, value in changes.items() if name not in ("state", "text")}
            self._status = replace(self._status, **changes)  # type: ignore[arg-type]
        self.changed()
