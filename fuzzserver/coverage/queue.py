"""Messages of the fuzz workers, and the thread that turns them into coverage maps.

*Runs on* the thread ``coverage``. *Takes* ``CoverageMsg`` and ``EntryPointMsg``, posted from any
thread. *Gives* coverage maps to all who wait for them; the thread ``history`` follows how they fill.
(Zig: ``msg_queue``, ``coverage_files`` and ``coverageRun`` of ``WebServer``.)
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzzserver.coverage.coverage_map import CoverageMap, prepare_tables
from fuzzserver.errors import FuzzServerError, Stopped
from fuzzserver.step import FuzzRunStep
from fuzzserver.wire.abi import coverage_file_name

__all__ = [
    "CoverageFiles",
    "CoverageMsg",
    "EntryPointMsg",
    "Loading",
    "Msg",
    "MsgQueue",
    "coverage_run",
    "history_run",
]

log = logging.getLogger(__name__)

RECORD_INTERVAL = 0.5
"""Seconds between two entries into the histories: how exact times of first coverage are."""


@dataclass(frozen=True, slots=True)
class CoverageMsg:
    """A worker of ``run`` writes the coverage file with this id."""

    coverage_id: int
    run: FuzzRunStep
    cache_root: Path | None = None
    """The worker's own cache folder, if it does not share that of ``run`` with others."""


@dataclass(frozen=True, slots=True)
class EntryPointMsg:
    """The test at address ``addr`` is fuzzed."""

    coverage_id: int
    addr: int


Msg = CoverageMsg | EntryPointMsg


@dataclass(frozen=True, slots=True)
class Loading:
    """Debug info that is being read, which may take seconds."""

    name: str
    """The step."""
    done: int | None = None
    """How many points have got their source locations; None before the first."""
    total: int | None = None

    @property
    def text(self) -> str:
        """What goes on, as a sentence."""
        return f"Reading the debug info of {self.name}"


class MsgQueue:
    """Messages in the order in which they were posted."""

    def __init__(self) -> None:
        # Guards ``_messages`` and ``_closed``; notified when either changes. It is never held
        # while debug info is parsed.
        self._condition = threading.Condition()
        self._messages: list[Msg] = []
        self._closed = False
        self._idle = True

    def post(self, msg: Msg) -> None:
        """Append a message. After ``close`` it is dropped."""
        with self._condition:
            if not self._closed:
                self._messages.append(msg)
                self._idle = False
                self._condition.notify_all()

    def take_all(self) -> list[Msg] | None:
        """Wait for messages and take them; None once the queue is closed."""
        with self._condition:
            if not self._messages:
                self._idle = True
                self._condition.notify_all()
            self._condition.wait_for(lambda: self._messages or self._closed)
            if self._closed:
                return None
            messages, self._messages = self._messages, []
            return messages

    def wait_until_idle(self, timeout: float) -> bool:
        """Wait until all that was posted is worked through; False after ``timeout`` seconds."""
        with self._condition:
            return self._condition.wait_for(lambda: self._idle or self._closed, timeout)

    @property
    def closed(self) -> bool:
        """Whether nobody wants anything of it any more."""
        return self._closed

    def close(self) -> None:
        """End the thread that waits in ``take_all``."""
        with self._condition:
            self._closed = True
            self._messages.clear()
            self._condition.notify_all()


class CoverageFiles:
    """All coverage maps, by coverage id, in the order in which they came.

    Watchers are called after each change, on the thread that made it; they must be quick.
    """

    def __init__(self) -> None:
        # Guards all below but ``loading``. Taken for look-ups only, never while sending.
        self._lock = threading.Lock()
        self._maps: dict[int, CoverageMap] = {}
        # The newest map of each target, in the order in which targets came.
        self._newest: dict[str, CoverageMap] = {}
        self._watchers: set[Callable[[], None]] = set()
        self._version = 0
        self.loading: Loading | None = None
        """What is on its way to become a map. Set by the coverage thread, without a call to watchers."""

    def get(self, coverage_id: int) -> CoverageMap | None:
        """The map with this id."""
        with self._lock:
            return self._maps.get(coverage_id)

    def first(self) -> CoverageMap | None:
        """The newest map of the target that came first: what a page without further choice shows."""
        with self._lock:
            return next(iter(self._newest.values()), None)

    def newest(self) -> list[CoverageMap]:
        """The newest map of each target, in the order in which targets came."""
        with self._lock:
            return list(self._newest.values())

    def add(self, coverage_map: CoverageMap, run: FuzzRunStep) -> None:
        """Publish a finished map, or say once more that it is the newest of its target.

        Called by one thread only.
        """
        key = run.key or str(run.rebuilt_executable)
        with self._lock:
            if self._newest.get(key) is coverage_map:
                return
            replaced = [self._newest.get(key), self._maps.get(coverage_map.coverage_id)]
        for old in replaced:
            # Nobody fuzzes the old build any more; each one would cost a file descriptor for each worker.
            # It keeps its history before the new one looks for it: the id may be the same.
            if old is not None and old is not coverage_map:
                old.close()
        if replaced[0] is None:
            coverage_map.begin_history("start", f"The server began to follow {run.name}")
        else:
            coverage_map.begin_history("build", f"{run.name} was built anew")
        with self._lock:
            self._maps[coverage_map.coverage_id] = coverage_map
            self._newest[key] = coverage_map
        self.loading = None  # Not earlier: until now, there was nothing else to tell of it.
        self.notify()

    def add_entry_point(self, coverage_id: int, addr: int) -> bool:
        """Add the test at ``addr`` to its map, once; False if that map is not there (yet).

        InputError if the map has no source location for it.
        """
        coverage_map = self.get(coverage_id)
        if coverage_map is None:
            return False
        index = coverage_map.find_entry_point(addr)
        if index not in coverage_map.entry_points:
            log.info("entry point at %s", coverage_map.describe(index))
            coverage_map.entry_points += (index,)
            self.notify()
        return True

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` after each change from now on."""
        with self._lock:
            self._watchers.add(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Stop calling ``watcher``."""
        with self._lock:
            self._watchers.discard(watcher)

    @property
    def version(self) -> int:
        """Another one after each change of which watchers are told."""
        return self._version

    def notify(self) -> None:
        """Call all watchers."""
        with self._lock:
            self._version += 1
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher()

    def close(self) -> None:
        """Close the coverage files of all maps."""
        with self._lock:
            maps = list(self._maps.values())
        for coverage_map in maps:
            coverage_map.close()


def coverage_run(
    queue: MsgQueue,
    coverage_files: CoverageFiles,
    now: Callable[[], int],
    report: Callable[[str], None],
) -> None:
    """Work through the queue until it is closed (Zig: ``coverageRun``).

    Entry points whose map is missing, because it comes later or failed to load, are kept for it.
    What is wrong or odd is logged, then handed to ``report``; no message can end the thread.
    """
    waiting: dict[int, list[EntryPointMsg]] = {}
    while (messages := queue.take_all()) is not None:
        todo = deque(messages)
        while todo:
            msg = todo.popleft()
            try:
                if isinstance(msg, CoverageMsg):
                    kept = len(waiting.get(msg.coverage_id, ()))
                    _on_coverage(msg, queue, coverage_files, now, kept, report)
                    todo.extendleft(reversed(waiting.pop(msg.coverage_id, [])))
                elif not coverage_files.add_entry_point(msg.coverage_id, msg.addr):
                    waiting.setdefault(msg.coverage_id, []).append(msg)
                    name = coverage_file_name(msg.coverage_id)
                    log.info("entry point 0x%x waits for coverage map %s", msg.addr, name)
            except Stopped:
                return
            except FuzzServerError as error:
                log.error("%s", error)
                report(str(error))
            except Exception as error:  # A fault of ours must not take the thread down with it.
                log.exception("coverage message %r failed", msg)
                report(f"internal error: {error!r}")


def _on_coverage(
    msg: CoverageMsg,
    queue: MsgQueue,
    coverage_files: CoverageFiles,
    now: Callable[[], int],
    kept: int,
    report: Callable[[str], None],
) -> None:
    """Load a map, or, if it is there, add the worker's coverage file to it.

    Another build may have the same id, with the same points on other lines. ``kept`` is how many entry
    points wait for the map.
    """
    coverage_map = coverage_files.get(msg.coverage_id)
    if coverage_map is not None and coverage_map.executable == msg.run.rebuilt_executable:
        coverage_files.add(coverage_map, msg.run)
        coverage_map.add_coverage_file(msg.run.coverage_file_path(msg.coverage_id, msg.cache_root))
        return

    def progress(done: int, total: int) -> None:
        if queue.closed:
            raise Stopped("the server stops")
        coverage_files.loading = Loading(msg.run.name, done, total)

    coverage_files.loading = Loading(msg.run.name)
    try:
        coverage_map = prepare_tables(msg.run, msg.coverage_id, now(), msg.cache_root, progress)
        for oddity in coverage_map.oddities:
            log.warning("%s", oddity)
            report(oddity)
        coverage_files.add(coverage_map, msg.run)
    except Stopped:
        raise
    except FuzzServerError as error:
        note = f" ({kept} entry points wait for it)" if kept else ""
        raise FuzzServerError(
            f"step '{msg.run.name}': failed to prepare code coverage tables: {error}{note}"
        ) from error
    finally:
        coverage_files.loading = None
    files, points = coverage_map.coverage.files_len, coverage_map.source_locations_len
    log.info("step '%s': %d points in %d source files", msg.run.name, points, files)


def history_run(coverage_files: CoverageFiles, stopped: threading.Event) -> None:
    """Follow the coverage of what is fuzzed until ``stopped`` is set. *Runs on* the thread ``history``."""
    failed: set[int] = set()
    while not stopped.wait(RECORD_INTERVAL):
        for coverage_map in coverage_files.newest():
            try:
                coverage_map.record()
            except Exception:  # A fault of ours must not take the thread down with it, nor fill the log.
                if coverage_map.coverage_id not in failed:
                    failed.add(coverage_map.coverage_id)
                    log.exception("cannot record the coverage of '%s'", coverage_map.executable)
