"""The wiring: all stages of the server in the order in which data flows through them.

This is the one module that knows every layer, and what a build driver uses.
"""

import logging
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from fuzzserver import paths
from fuzzserver.access import DEFAULT_ACCESS, DEFAULT_LIMITS, Access, Limits
from fuzzserver.corpus import Corpus
from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.coverage.debug_sources import DebugSources
from fuzzserver.coverage.queue import CoverageFiles, Msg, MsgQueue, coverage_run, history_run
from fuzzserver.errors import FuzzServerError, InputError, Stopped
from fuzzserver.findings import FindingStore
from fuzzserver.logbook import Level, LogBook
from fuzzserver.status import Progress, Status, TargetStatus
from fuzzserver.step import FuzzRunStep, SourcePath
from fuzzserver.web.entrance import Entrance
from fuzzserver.web.routes import PAGE_WASM_MODE, Site
from fuzzserver.web.server import HttpServer
from fuzzserver.wire.abi import coverage_file_name, coverage_id_of
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig, find_zig
from fuzzserver.zig.shared_builds import SharedBuilds
from fuzzserver.zig.wasm import OptimizeMode, build_wasm_binary

__all__ = ["WebServer"]

log = logging.getLogger(__name__)

_NO_STATUS = Status("waiting", "Waiting for a fuzzer to report its coverage.")
MAX_PROBLEMS = 10
"""How many problems are shown; the log has all."""
MAX_MARKS = 500
"""How many marks in a history are shown: the last ones."""

BACKGROUND = 10
"""How nice a compiler is for whose result nobody waits, as in setpriority(2)."""

BUILD_WAIT = 120.0
"""Seconds that a request for the sources waits for the build that finds out what they are."""


class WebServer:
    """Shows the coverage of running fuzzers to browsers (Zig: ``WebServer``).

    A build driver starts it, tells it of its steps, and posts what its workers say::

        with WebServer() as web_server:
            step = FuzzRunStep("parser", rebuilt_executable, cache_root, inputs)
            web_server.add_step(step)
            web_server.post(CoverageMsg(coverage_id, step))
            web_server.post(EntryPointMsg(coverage_id, address))

    All methods may be called from any thread. Several servers may run in one process. Nothing is
    printed and no signal is handled; logging goes to the loggers below ``fuzzserver``.
    """

    def __init__(
        self,
        *,
        fuzz_run_steps: tuple[FuzzRunStep, ...] = (),
        listen_address: tuple[str, int] = ("127.0.0.1", 0),
        zig: Zig | None = None,
        lib_dir: Path | None = None,
        cache_dir: Path | None = None,
        access: Access = DEFAULT_ACCESS,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Nothing runs before ``start``.

        Args:
            fuzz_run_steps: what is fuzzed, as far as it is known; ``add_step`` adds more.
            listen_address: host and port; port 0 picks a free one.
            zig: the compiler for the page's wasm; by default the one of the environment.
            lib_dir: the folder whose ``fuzzer/web/`` is served; by default our own page.
            cache_dir: where compiled wasm is kept; by default ``~/.cache/fuzzserver``.
            access: who may come in. Where other machines can reach the server, a token is always needed.
            limits: how many, how much and how long.

        Raises ZigNotFound if there is no compiler, and InputError if there is no home folder and no
        ``cache_dir``, or if ``access`` names no certificate, or a host that is none.
        """
        self._base_timestamp = time.monotonic_ns()
        self._started = time.time()
        self._entrance = Entrance(listen_address, access)
        self._limits = limits
        self._lib_dir = (lib_dir or paths.lib_dir()).absolute()
        self._compile_client = ZigCompileClient(
            zig or Zig(find_zig()), (cache_dir or paths.default_cache_dir()).absolute()
        )
        self._wasm_builds = SharedBuilds()
        # Until somebody asks for what they make, compilers give way to fuzzers.
        self._compile_client.set_nice(BACKGROUND)
        self._has_map = threading.Event()
        self._debug_sources = DebugSources()
        self.coverage_files = CoverageFiles()
        self.log_book = LogBook()
        """What the page shows as log; ``add_log`` adds to it."""
        self._msg_queue = MsgQueue()
        # Guards all of what was told, from ``_fuzz_run_steps`` to ``_corpora``; notified when it changes.
        self._condition = threading.Condition()
        self._fuzz_run_steps = list(fuzz_run_steps)
        self._status = _NO_STATUS
        self._progress: Progress | None = None
        self._problems: deque[str] = deque(maxlen=MAX_PROBLEMS)
        self._targets: dict[str, TargetStatus] = {}
        self._findings: FindingStore | None = None
        self._corpora: dict[Path, Corpus] = {}
        self._http_server: HttpServer | None = None
        self._stop_history = threading.Event()
        self._threads: list[threading.Thread] = []
        self._stopped = False
        self._ended = threading.Event()

    def start(self) -> None:
        """Listen, and start all threads. InputError if the address cannot be listened on."""
        host, port = self._entrance.address
        site = Site(
            lib_dir=self._lib_dir,
            own_page=self._lib_dir == paths.lib_dir().absolute(),
            build_wasm=self._build_wasm,
            sources=self._sources,
            coverage_files=self.coverage_files,
            now=self.now,
            status=self._status_json,
            details=self._details_json,
            log_book=self.log_book,
            findings=lambda: self._findings,
            corpora=self._all_corpora,
        )
        try:
            self._http_server = HttpServer(self._entrance, site, self._limits)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"cannot listen on {host} port {port}: {reason}; port 0 picks a free one"
            ) from error
        self._threads = [
            threading.Thread(
                target=coverage_run,
                args=(self._msg_queue, self.coverage_files, self.now, self._report),
                name="coverage",
                daemon=True,
            ),
            threading.Thread(
                target=history_run,
                args=(self.coverage_files, self._stop_history),
                name="history",
                daemon=True,
            ),
            threading.Thread(target=self._http_server.serve_forever, args=(0.1,), name="http", daemon=True),
            threading.Thread(target=self._build_ahead, name="wasm", daemon=True),
        ]
        self.coverage_files.watch(self._look_for_map)
        for thread in self._threads:
            thread.start()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._http_server is not None, "the server was not started"
        return self._http_server.server_port

    @property
    def url(self) -> str:
        """Where a browser finds the page, with the token that it needs."""
        assert self._http_server is not None, "the server was not started"
        return self._entrance.url(self._http_server.bound)

    @property
    def token(self) -> str | None:
        """What a browser must know to come in; None if nothing."""
        return self._entrance.token

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return self._entrance.is_local

    def now(self) -> int:
        """The server's clock: nanoseconds since it was made."""
        return time.monotonic_ns() - self._base_timestamp

    def post(self, msg: Msg) -> None:
        """Hand a message of a fuzz worker to the coverage thread."""
        self._msg_queue.post(msg)

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

    def set_findings(self, findings: FindingStore) -> None:
        """Show the findings of a store. It should call ``notify`` when it changes."""
        self._findings = findings
        self.notify()

    def add_corpus(self, corpus: Corpus) -> None:
        """Show one more corpus."""
        with self._condition:
            self._corpora[corpus.folder] = corpus

    @property
    def loading(self) -> str | None:
        """The executable whose debug info is being read."""
        loading = self.coverage_files.loading
        return None if loading is None else loading.name

    def notify(self) -> None:
        """Something has changed that browsers should see now."""
        self.coverage_files.notify()

    def _report(self, problem: str) -> None:
        """Show a problem along with the status, once, and not for ever."""
        with self._condition:
            if problem not in self._problems:
                self._problems.append(problem)
        self.coverage_files.notify()

    def _status_json(self) -> dict[str, Any]:
        """What was said, and what went wrong. Who says nothing is not waiting for ever."""
        with self._condition:
            status, problems, targets = self._status, list(self._problems), list(self._targets.values())
        if status is _NO_STATUS and self.coverage_files.first() is not None:
            status = Status("serving")
        return {
            "state": status.state,
            "text": "\n".join(filter(None, (status.text, *problems))),
            "targets": [target.to_json() for target in targets],
            "findings": [] if self._findings is None else [each.summary() for each in self._findings.all()],
        }

    def _details_json(self, coverage_map: CoverageMap | None) -> dict[str, Any]:
        """What clients are told besides, of which some depends on the map that they are shown."""
        with self._condition:
            progress = self._progress
        loading = self.coverage_files.loading
        if progress is None and loading is not None:
            progress = Progress(loading.text, loading.done, loading.total)
        return {
            "started": self._started,
            "progress": None if progress is None else progress.to_json(),
            "map": None if coverage_map is None else coverage_map.describe_json(),
            "marks": [] if coverage_map is None else self._marks_json(coverage_map),
        }

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

    def _all_corpora(self) -> list[Corpus]:
        with self._condition:
            return list(self._corpora.values())

    def _sources(self) -> list[SourcePath]:
        """The inputs of all steps. While a build finds out what they are, this waits for it."""
        with self._condition:
            self._condition.wait_for(lambda: self._status.state != "building" or self._stopped, BUILD_WAIT)
            steps = list(self._fuzz_run_steps)
        found: list[SourcePath] = []
        for step in steps:
            found += self._debug_sources.of(step) if step.inputs is None else step.inputs
        return found

    def _build_wasm(self, optimize_mode: str) -> Path:
        """The page's wasm, for somebody who waits for it."""
        self._compile_client.set_nice(0)
        return self._run_build(optimize_mode)

    def _build_ahead(self) -> None:
        """Have the page's wasm made as soon as there is something to show. *Runs on* the thread ``wasm``."""
        self._has_map.wait()
        try:
            self._run_build(PAGE_WASM_MODE)
        except Stopped:
            pass
        except FuzzServerError as error:  # Whoever asks for it is told, unless it can be made by then.
            log.info("the page's wasm is not there yet: %s", error)

    def _run_build(self, optimize_mode: str) -> Path:
        mode = cast(OptimizeMode, optimize_mode)
        return self._wasm_builds.run(
            mode, lambda: build_wasm_binary(self._compile_client, self._lib_dir, mode)
        )

    def _look_for_map(self) -> None:
        if self.coverage_files.first() is not None:
            self._has_map.set()
            self.coverage_files.unwatch(self._look_for_map)

    def stop(self) -> None:
        """End compiles, connections and threads, and close all files. May be called twice."""
        with self._condition:
            is_first, self._stopped = not self._stopped, True
            self._condition.notify_all()
        if not is_first:
            self._ended.wait()  # Whoever returns from here may rely on it.
            return
        try:
            self._end()
        finally:
            self._ended.set()

    def _end(self) -> None:
        self._wasm_builds.stop()
        self._compile_client.stop()
        self._msg_queue.close()
        self._stop_history.set()
        self._has_map.set()
        if self._http_server is not None:
            self._http_server.stop()
        for thread in self._threads:
            thread.join()
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
