"""What is known of a session, by whoever it is told: coverage, states, findings, corpora, log.

*Runs* the threads ``coverage`` and ``history``. *Takes* what a build driver and its workers say, from any
thread. *Gives* it as JSON and as a report. It serves nothing; ``WebServer`` does.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fuzzserver.corpus import Corpus
from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.coverage.debug_sources import DebugSources
from fuzzserver.coverage.queue import CoverageFiles, Msg, MsgQueue, coverage_run, history_run
from fuzzserver.errors import InputError
from fuzzserver.events import (
    CoverageEvent,
    Event,
    Events,
    FindingEvent,
    ProgressEvent,
    StatusEvent,
    TargetEvent,
)
from fuzzserver.findings import Finding, FindingStore
from fuzzserver.logbook import Level, LogBook
from fuzzserver.report.collect import collect_findings, collect_targets
from fuzzserver.report.model import Report
from fuzzserver.status import Progress, Status, TargetStatus
from fuzzserver.step import FuzzRunStep, SourcePath
from fuzzserver.version import __version__
from fuzzserver.wire.abi import coverage_file_name, coverage_id_of

__all__ = ["Observer"]

log = logging.getLogger(__name__)

_NO_STATUS = Status("waiting", "Waiting for a fuzzer to report its coverage.")
MAX_PROBLEMS = 10
"""How many problems are shown; the log has all."""
MAX_MARKS = 500
"""How many marks in a history are shown: the last ones."""

BUILD_WAIT = 120.0
"""Seconds that a request for the sources waits for the build that finds out what they are."""


class Observer:
    """Follows a session. All methods may be called from any thread."""

    def __init__(self, *, fuzz_run_steps: tuple[FuzzRunStep, ...] = ()) -> None:
        """Nothing runs before ``start``. ``fuzz_run_steps``: what is fuzzed, as far as it is known."""
        self._base_timestamp = time.monotonic_ns()
        self._started = time.time()
        self._debug_sources = DebugSources()
        self.coverage_files = CoverageFiles()
        """The coverage maps that there are."""
        self.log_book = LogBook()
        """What the page shows as log; ``add_log`` adds to it."""
        self._msg_queue = MsgQueue()
        # Guards all of what was told, from ``_fuzz_run_steps`` to ``_rebuild``; notified when it changes.
        self._condition = threading.Condition()
        self._fuzz_run_steps = list(fuzz_run_steps)
        self._status = _NO_STATUS
        self._progress: Progress | None = None
        self._problems: deque[str] = deque(maxlen=MAX_PROBLEMS)
        self._targets: dict[str, TargetStatus] = {}
        self._findings: FindingStore | None = None
        # How often each finding was found before this session.
        self._counts_before: dict[str, int] = {}
        self._corpora: dict[Path, Corpus] = {}
        self._rebuild: Callable[[], object] | None = None
        self._stop_history = threading.Event()
        self._events = Events(self._look)
        self._threads: list[threading.Thread] = []
        self._stopped = False
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the threads."""
        self._start_thread(
            "coverage", coverage_run, self._msg_queue, self.coverage_files, self.now, self._report_problem
        )
        self._start_thread("history", history_run, self.coverage_files, self._stop_history)

    def _start_thread(self, name: str, work: Callable[..., None], *args: object) -> None:
        """Start a thread for which ``stop`` waits."""
        thread = threading.Thread(target=work, args=args, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def now(self) -> int:
        """The server's clock: nanoseconds since it was made."""
        return time.monotonic_ns() - self._base_timestamp

    def post(self, msg: Msg) -> None:
        """Hand a message of a fuzz worker to the coverage thread."""
        self._msg_queue.post(msg)

    def settle(self, timeout: float) -> bool:
        """Wait until the tables of all that was posted are made; False after ``timeout`` seconds."""
        return self._msg_queue.wait_until_idle(timeout)

    def add_step(self, step: FuzzRunStep) -> None:
        """Serve the sources of one more step."""
        with self._condition:
            self._fuzz_run_steps.append(step)

    def set_status(self, state: str, text: str) -> None:
        """Tell the page what goes on; see ``Status`` for the states."""
        with self._condition:
            self._status = Status(state, text)
            self._condition.notify_all()
        self.coverage_files.notify()

    @property
    def status(self) -> Status:
        """What goes on, with all problems. Who says nothing is not waiting for ever."""
        with self._condition:
            status, problems = self._status, list(self._problems)
        if status is _NO_STATUS and self.coverage_files.first() is not None:
            status = Status("serving")
        return replace(status, text="\n".join(filter(None, (status.text, *problems))))

    def set_progress(self, progress: Progress | None) -> None:
        """Tell the page how far a build is; None when it is over."""
        with self._condition:
            self._progress = progress
        self.coverage_files.notify()

    def add_log(self, source: str, text: str, level: Level = "info") -> None:
        """Show a text in the page's log; ``source`` says who wrote it. It is sent with the next update."""
        self.log_book.add(source, level, text)

    def set_target(self, target: TargetStatus) -> None:
        """Tell of a target, or what has become of it. Counts that move on are sent with the next update."""
        with self._condition:
            known = self._targets.get(target.key)
            self._targets[target.key] = target
        self._mark_restarts(known, target)
        if known is None or _without_counts(known) != _without_counts(target):
            self.coverage_files.notify()

    @property
    def findings(self) -> FindingStore | None:
        """Where the findings are; None if nobody has said."""
        return self._findings

    def set_findings(self, findings: FindingStore) -> None:
        """Show the findings of a store. It should call ``notify`` when it changes."""
        self._counts_before = {finding.id: finding.count for finding in findings.all()}
        self._findings = findings
        self.notify()

    def add_corpus(self, corpus: Corpus) -> None:
        """Show one more corpus."""
        with self._condition:
            self._corpora[corpus.folder] = corpus

    def set_rebuild(self, rebuild: Callable[[], object] | None) -> None:
        """Have ``rebuild`` called, from any thread, when a viewer wants the tests built again.

        It should only take note of it. None: nobody builds any more.
        """
        with self._condition:
            self._rebuild = rebuild

    def rebuild(self) -> None:
        """Have the tests built again. InputError if nobody here builds them."""
        with self._condition:
            rebuild = self._rebuild
        if rebuild is None:
            raise InputError("nobody builds here; 'fuzzserver run' does, while it fuzzes")
        rebuild()

    @property
    def loading(self) -> str | None:
        """The executable whose debug info is being read."""
        loading = self.coverage_files.loading
        return None if loading is None else loading.name

    def notify(self) -> None:
        """Something has changed that browsers should see now."""
        self.coverage_files.notify()

    def subscribe(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Have ``callback`` called with how things stand, and then with news; returns ``unsubscribe``.

        It is called on the thread ``events``, with one event after the other, and may call any method,
        ``stop`` and ``unsubscribe`` among them. What changes several times while it works is told once, as it
        is then; each finding is told. What it raises is logged once. It is not called any more when
        ``unsubscribe`` or ``stop`` has returned; before that, ``stop`` has the last news told.
        """
        self.coverage_files.watch(self._events.wake)
        return self._events.subscribe(callback)

    def _look(self) -> list[Event]:
        """How things stand. Who hears of the end has heard of all that came before it.

        So what is told last is looked at first.
        """
        status, progress = self.status, self._progress_now()
        with self._condition:
            targets = list(self._targets.values())
        coverage = [_coverage_event(coverage_map) for coverage_map in self.coverage_files.newest()]
        findings = [] if self._findings is None else self._findings.all()
        new = [each for each in findings if each.count != self._counts_before.get(each.id)]
        return [
            *(FindingEvent(finding, is_new=False) for finding in new),
            *coverage,
            *map(TargetEvent, targets),
            ProgressEvent(progress),
            StatusEvent(status),
        ]

    @property
    def corpora(self) -> list[Corpus]:
        """The corpora of all tests."""
        with self._condition:
            return list(self._corpora.values())

    @property
    def problems(self) -> list[str]:
        """What went wrong with coverage, the oldest first."""
        with self._condition:
            return list(self._problems)

    def _report_problem(self, problem: str) -> None:
        """Show a problem along with the status, once, and not for ever."""
        with self._condition:
            if problem not in self._problems:
                self._problems.append(problem)
        self.coverage_files.notify()

    def status_json(self) -> dict[str, Any]:
        """What was said, and what went wrong."""
        with self._condition:
            targets = list(self._targets.values())
        status = self.status
        return {
            "state": status.state,
            "text": status.text,
            "targets": [target.to_json() for target in targets],
            "findings": [] if self._findings is None else [each.summary() for each in self._findings.all()],
        }

    def details_json(self, coverage_map: CoverageMap | None) -> dict[str, Any]:
        """What clients are told besides, of which some depends on the map that they are shown."""
        progress = self._progress_now()
        return {
            "started": self._started,
            "progress": None if progress is None else progress.to_json(),
            "map": None if coverage_map is None else coverage_map.describe_json(),
            "marks": [] if coverage_map is None else self._marks_json(coverage_map),
        }

    def _progress_now(self) -> Progress | None:
        """How far a build is, or the reading of debug info."""
        with self._condition:
            progress = self._progress
        loading = self.coverage_files.loading
        if progress is None and loading is not None:
            return Progress(loading.text, loading.done, loading.total)
        return progress

    def _marks_json(self, coverage_map: CoverageMap) -> list[dict[str, Any]]:
        """What happened while the map was made, in order: what its history holds, and findings."""
        name = coverage_file_name(coverage_map.coverage_id)
        with self._condition:
            owners = {each.name for each in self._targets.values() if name in (each.id, *each.earlier)}
        findings = [] if self._findings is None else self._findings.all()
        marks = [mark.to_json() for mark in coverage_map.history.marks] + [
            {"time": each.first_time, "kind": "finding", "text": f"{each.kind}: {each.message}"}
            for each in findings
            if each.target in owners
        ]
        return sorted(marks, key=lambda mark: mark["time"])[-MAX_MARKS:]

    def _mark_restarts(self, known: TargetStatus | None, target: TargetStatus) -> None:
        """Put a mark into the history of the target's map for each test that was started again."""
        coverage_id = None if target.id is None else coverage_id_of(target.id)
        coverage_map = None if coverage_id is None else self.coverage_files.get(coverage_id)
        if known is None or coverage_map is None:
            return
        before = {test.name: test.restarts for test in known.tests}
        for test in target.tests:
            if test.restarts > before.get(test.name, 0):
                why = test.text.partition("\n")[0]
                coverage_map.history.mark(time.time(), "restart", f"{test.name}: {why}" if why else test.name)

    def sources(self) -> list[SourcePath]:
        """The inputs of all steps. While a build finds out what they are, this waits for it."""
        with self._condition:
            self._condition.wait_for(lambda: self._status.state != "building" or self._stopped, BUILD_WAIT)
            steps = list(self._fuzz_run_steps)
        found: list[SourcePath] = []
        for step in steps:
            found += self._debug_sources.of(step)
        return found

    def report(self, findings: Sequence[Finding] | None = None, seconds: float | None = None) -> Report:
        """All that is known now.

        ``findings`` are those to tell of, by default all that there are; ``seconds`` is how long was fuzzed,
        by default the time since the start.
        """
        with self._condition:
            targets = list(self._targets.values())
        store = self._findings
        chosen = findings if findings is not None or store is None else store.all()
        return Report(
            time=time.time(),
            started=self._started,
            seconds=self.now() / 1e9 if seconds is None else seconds,
            targets=tuple(collect_targets(targets, self.coverage_files)),
            findings=() if store is None else tuple(collect_findings(store, chosen or ())),
            generator=f"fuzzserver {__version__}",
        )

    def stop(self) -> None:
        """End all threads and close all files. May be called twice."""
        with self._condition:
            is_first, self._stopped = not self._stopped, True
            self._condition.notify_all()
        if not is_first:
            if self._events.is_current_thread:
                self._events.stop()  # The first caller waits for this thread.
            else:
                self._ended.wait()  # Whoever returns from here may rely on it.
            return
        try:
            self._end()
        finally:
            self._ended.set()

    def _close(self) -> None:
        """Have the threads end, without waiting for them."""
        self._msg_queue.close()
        self._stop_history.set()

    def _end(self) -> None:
        self._close()
        for thread in self._threads:
            thread.join()
        self._events.stop()
        self.coverage_files.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _without_counts(target: TargetStatus) -> TargetStatus:
    return replace(target, tests=tuple(replace(test, n_runs=0) for test in target.tests))


def _coverage_event(coverage_map: CoverageMap) -> CoverageEvent:
    snapshot = coverage_map.read()
    return CoverageEvent(
        coverage_file_name(coverage_map.coverage_id),
        coverage_map.executable,
        coverage_map.source_locations_len,
        int.from_bytes(snapshot.seen_bits, "little").bit_count(),
        snapshot.n_runs,
    )
