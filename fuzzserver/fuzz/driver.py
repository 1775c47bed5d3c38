"""A whole fuzzing session: build, fuzz, note what breaks, build again (Zig: ``Fuzz.start`` and more).

*Runs on* the thread of its caller while it builds, then on one thread ``fuzz-worker-N`` for each fuzz
test, one for findings, and one that looks for changed sources. *Takes* the commands that compile the
tests. *Gives* an audience what a server wants to know: steps, messages, states, findings, corpora.
"""

import logging
import math
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fuzzserver import paths
from fuzzserver.errors import CompileErrors, FuzzServerError, Stopped
from fuzzserver.findings import Finding, FindingStore
from fuzzserver.fuzz.analysis import Analysis
from fuzzserver.fuzz.budget import BudgetWatch, Ending
from fuzzserver.fuzz.build_progress import BuildProgress
from fuzzserver.fuzz.fuzzed_test import FuzzedTest
from fuzzserver.fuzz.lock import ProjectLock
from fuzzserver.fuzz.options import Audience, FuzzOptions
from fuzzserver.fuzz.recorder import Recorder
from fuzzserver.fuzz.target import Build, FuzzTarget, NoFuzzTests, build_target, select_tests
from fuzzserver.fuzz.target_runs import Session, TargetRuns, runs_of
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.fuzz.turns import Turns
from fuzzserver.fuzz.watch import SourceWatch
from fuzzserver.fuzz.worker import FuzzTest
from fuzzserver.report.words import count
from fuzzserver.status import Progress, TargetStatus, TestStatus
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.process import ChildGroup
from fuzzserver.zig.test_runner import FoundTests

__all__ = ["FuzzDriver"]

log = logging.getLogger(__name__)

FINDING_OUT = "Finding out how the tests are compiled ..."

HURRY = 1.0  # Seconds of patience below which nobody may finish what it says.

TELL_INTERVAL = 0.5
"""Seconds between two counts of runs that are told."""

SAVE_INTERVAL = 2.0
"""Seconds between two attempts to write findings that could not be written."""


class FuzzDriver:
    """Builds the tests of a project and fuzzes all fuzz tests in them."""

    def __init__(
        self,
        client: ZigCompileClient,
        find_commands: Callable[[ChildGroup], list[TestCommand]],
        project_cache: Path,
        options: FuzzOptions,
        audience: Audience,
    ) -> None:
        """``find_commands`` is asked for the commands before each build.

        ``project_cache`` is the project's ``.zig-cache``, where findings are kept. InputError if
        another process fuzzes the project. ``stop`` the driver, whatever comes.
        """
        self._client = client
        self._find_commands = find_commands
        self._options = options
        self._audience = audience
        self._seed = secrets.randbits(32)
        self._lock = ProjectLock(paths.data_folder(project_cache))
        if options.fresh:
            _forget(paths.data_folder(project_cache))
        self._children = ChildGroup()
        self._turns = Turns(options.jobs, options.slice_seconds)
        self.findings = FindingStore(paths.findings_folder(project_cache), audience.notify)
        self.findings.remove_unfinished()
        self._analysis = Analysis(client, self.findings, options.limits.hang, options.limits.memory)
        self._recorder = Recorder(self.findings, self._analysis, client.zig)
        # Guards all below; notified when a run has ended or the driver is stopped.
        self._condition = threading.Condition()
        self._targets: dict[str, FuzzTarget] = {}
        self._runs_of: dict[str, TargetRuns] = {}
        self._jobs_each = 1
        """The share of each target in them, rounded up."""
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._stopping = threading.Event()
        self.rebuild_asked = threading.Event()  # Set by who wants the tests built again.
        self._ending = threading.Event()
        """Set by ``finish``, before ``_stopping``: nothing new is begun."""
        self._built = 0.0
        self.started: float | None = None
        """When the first worker was started, on the clock of ``time.monotonic``."""
        self.ended = 0.0
        """When the workers were ended."""
        self.build_failed = False
        """Whether a target could not be built."""
        self._ended_by: Ending | None = None

    # ------------------------------------------------------------------ building

    def build(self) -> dict[Build, list[FuzzTest]]:
        """Compile all targets; returns the tests to fuzz in each. Raises a FuzzServerError.

        A target that cannot be built costs the others nothing, unless there are none.
        """
        self._built = time.time()
        self._audience.set_findings(self.findings)
        self._audience.set_status("building", FINDING_OUT)
        self._audience.set_progress(Progress(FINDING_OUT))
        try:
            commands = self._find_commands(self._children)
            for command in commands:
                self._targets[command.key] = FuzzTarget(command, self._audience.set_target)
                self._targets[command.key].tell()
            builds, found = self._build_all(commands)
        finally:
            self._audience.set_progress(None)
        if not builds:
            raise NoFuzzTests(commands, found)
        return select_tests(builds, self._options.tests)

    def _build_all(self, commands: Sequence[TestCommand]) -> tuple[list[Build], list[FoundTests]]:
        """Compile in parallel. Raises the first error if nothing could be built."""
        progress = BuildProgress(self._audience, len(commands))
        with ThreadPoolExecutor(max(1, self._options.jobs), "build") as pool:
            futures = [pool.submit(self._build_one, command, progress) for command in commands]
        builds: list[Build] = []
        found: list[FoundTests] = []
        errors: list[FuzzServerError] = []
        for command, future in zip(commands, futures, strict=True):
            try:
                tests, build = future.result()
            except FuzzServerError as error:
                errors.append(error)
                self._targets[command.key].set("failed", str(error))
                continue
            found.append(tests)
            if build is None:
                self._targets[command.key].set("never started", "It has no fuzz tests.")
            else:
                builds.append(build)
        if errors and not builds:
            raise errors[0]
        self.build_failed = bool(errors)
        for each in errors:
            if not isinstance(each, CompileErrors):  # Those are in the log already.
                log.error("%s", each)
        return builds, found

    def _build_one(self, command: TestCommand, progress: BuildProgress) -> tuple[FoundTests, Build | None]:
        target = self._targets[command.key]

        def say(text: str) -> None:
            target.set("building", text)
            self._audience.set_status("building", text)
            progress.say(text)

        try:
            return build_target(self._client, self._children, command, self._seed, say)
        finally:
            progress.one_more()

    # ------------------------------------------------------------------- fuzzing

    def start(self, builds: dict[Build, list[FuzzTest]]) -> None:
        """Start a worker for each test and return. Stopped if the session has ended while it was built."""
        if self._ending.is_set():
            raise Stopped("the session ends")
        names = [f"'{test.name}'" for tests in builds.values() for test in tests]
        log.info("fuzzing %s", ", ".join(names))
        self._analysis.start()
        self._jobs_each = math.ceil(self._options.jobs / max(1, sum(map(bool, builds.values()))))
        for build, tests in builds.items():
            self._audience.add_step(build.step)
            target = self._targets[build.command.key]
            target.set(
                "fuzzing" if tests else "never started", "" if tests else "--test selects none of its tests."
            )
            for test in tests:
                self._runs_in(target).add(test)
        if self._options.budget.time is not None:
            planned = self._options.budget.time * self._options.jobs / (2 * max(1, len(names)))
            self._turns.slice_seconds = min(self._options.slice_seconds, planned)
        self.started = time.monotonic()
        self._audience.set_status("fuzzing", f"Fuzzing {count(len(names), 'test')}.")
        for runs in self._runs_of.values():
            runs.start()
        self._start_thread("fuzz-status", self._tell_counts)
        self._start_thread("fuzz-budget", self._watch_budget)
        self._start_thread("fuzz-watch", lambda: self._watch(dict(builds)))

    def _runs_in(self, target: FuzzTarget) -> TargetRuns:
        """What fuzzes the tests of a target."""
        key = target.command.key
        if key not in self._runs_of:
            session = Session(
                self._children,
                self._seed,
                self._options,
                self._turns,
                self._recorder,
                self._audience,
                self._start_worker,
            )
            self._runs_of[key] = runs_of(session, target, self._client.zig.release, self._jobs_each)
        return self._runs_of[key]

    def _start_worker(self, target: FuzzTarget, fuzz: Callable[[], None]) -> None:
        def work() -> None:
            try:
                fuzz()
            finally:
                with self._condition:
                    self._running -= 1
                    self._condition.notify_all()
                target.tell()
                if self._running == 0 and not self._ending.is_set():
                    log.error("no worker is left")
                    self._audience.set_status("stopped", "All fuzz workers have ended.")

        with self._condition:
            self._running += self._start_thread(f"fuzz-worker-{len(self._threads)}", work)

    def _start_thread(self, name: str, work: Callable[[], None]) -> bool:
        """False if the session ends: nobody would wait for it."""
        thread = threading.Thread(target=work, name=name, daemon=True)
        with self._condition:
            if self._ending.is_set():
                return False
            thread.start()  # Who finds it in the list may join it.
            self._threads.append(thread)
            return True

    def _watch_budget(self) -> None:
        """Until something is used up, or nobody is left who could use it."""
        watch = BudgetWatch(self._options.budget, self._options.test_budget, is_open=self._options.watch)
        ending = watch.run(lambda: self._runs, self._enough_findings, self._ending)
        with self._condition:
            self._ended_by = ending
            self._condition.notify_all()

    def _enough_findings(self) -> Ending | None:
        most, found = self._options.max_findings, len(self.failing)
        return None if most is None or found < most else Ending(f"{count(found, 'finding')}.", met=True)

    @property
    def _runs(self) -> list[FuzzedTest]:
        """Those of all tests that the newest builds have."""
        return [run for target in list(self._targets.values()) for run in target.runs if not run.retired]

    def _tell_counts(self) -> None:
        next_save = time.monotonic()
        while not self._ending.wait(TELL_INTERVAL):
            for target in list(self._targets.values()):
                target.tell()
            if time.monotonic() >= next_save:
                next_save = time.monotonic() + SAVE_INTERVAL
                self.findings.save_again()

    # ---------------------------------------------------------------- rebuilding

    def _watch(self, builds: dict[Build, list[FuzzTest]]) -> None:
        """Build again whenever a viewer asks; and if sources are watched, when they or executables change."""
        built = self._built
        failed = False
        while not self._ending.is_set():
            watched = list(self._targets.values()) if self._options.watch else []
            commands = [target.command for target in watched]
            steps = [build.step for build in builds] if watched else []
            watch = SourceWatch(commands, steps, built, self.rebuild_asked, expect_executables=not failed)
            if not watch.wait(self._ending):
                return
            built = time.time()
            try:
                builds = self._rebuild(watch.why, watch.executables_gone)
                failed = False
            except Stopped:
                return
            except Exception as error:
                failed = True
                if not self._ending.is_set():
                    self._rebuild_failed(error)

    def _rebuild(self, why: str, gone: bool) -> dict[Build, list[FuzzTest]]:
        log.info("%s; building again", why)
        self._audience.set_status("fuzzing", f"{why.capitalize()}: building again while fuzzing goes on ...")
        commands = self._find_commands(self._children)
        for command in commands:
            if command.key not in self._targets:
                self._targets[command.key] = FuzzTarget(command, self._audience.set_target)
        results = self._build_in_turn(commands)
        built = [build for _, build in results if build is not None]
        if not built:
            raise NoFuzzTests(commands, [found for found, _ in results])
        if self._ending.is_set():
            raise Stopped("the session ends")
        self.build_failed = False
        builds = select_tests(built, self._options.tests)
        for build, tests in builds.items():
            self._move(self._targets[build.command.key], build, tests, gone)
        for key in self._targets.keys() - {build.command.key for build in builds}:
            self._runs_in(self._targets[key]).retire()
        self._audience.set_status("fuzzing", f"Fuzzing the build of {time.strftime('%H:%M:%S')}.")
        return builds

    def _build_in_turn(self, commands: Sequence[TestCommand]) -> list[tuple[FoundTests, Build | None]]:
        """Compile one after the other, for the workers need the processors. Raises the first error."""
        progress = BuildProgress(self._audience, len(commands))
        results = []
        try:
            for command in commands:
                results.append(build_target(self._client, self._children, command, self._seed, progress.say))
                progress.one_more()
        finally:
            self._audience.set_progress(None)
        return results

    def _move(self, target: FuzzTarget, build: Build, tests: list[FuzzTest], anew: bool) -> None:
        """Have the tests of a target go on with a new build; ``anew``, though it may be the same again."""
        target.command = build.command
        self._audience.add_step(build.step)
        target.set("fuzzing")
        self._runs_in(target).move(tests, anew)
        self._runs_in(target).retire(tests)

    def _rebuild_failed(self, error: Exception) -> None:
        log.error("the build failed; fuzzing goes on with the old one")
        if not isinstance(error, CompileErrors):
            log.error("%s", error, exc_info=not isinstance(error, FuzzServerError))
        self._audience.set_status("fuzzing", f"The build failed; fuzzing goes on with the old one.\n{error}")

    # ------------------------------------------------------------------- the end

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called: what fails from then on fails because of it."""
        return self._stopping.is_set()

    @property
    def found(self) -> list[str]:
        """Ids of the findings of this session, in the order in which they came."""
        return list(self._recorder.found)

    @property
    def failing(self) -> list[Finding]:
        """The findings of this session that count."""
        return [each for each in self._found_findings if each.category in self._options.fail_on]

    @property
    def _found_findings(self) -> list[Finding]:
        return list(filter(None, map(self.findings.get, self.found)))

    @property
    def session_runs(self) -> dict[str, int]:
        """Runs of this session, by the keys of targets."""
        return {key: sum(run.session_runs for run in each.runs) for key, each in list(self._targets.items())}

    @property
    def not_fuzzed(self) -> list[TestStatus]:
        """The tests that made no run in this session, and broke nothing; without those that are gone."""
        broken = {each.test for each in self._found_findings}
        return [run.status for run in self._runs if run.session_runs == 0 and run.status.name not in broken]

    @property
    def targets(self) -> list[TargetStatus]:
        """All targets as they are now."""
        return [target.status() for target in list(self._targets.values())]

    def wait(self, timeout: float | None = None) -> Ending | None:
        """Wait until a budget is used up, or no worker is left to run; returns which.

        None if it was stopped before, or ``timeout`` seconds are over. Who watches sources may start new
        workers at any time.
        """
        with self._condition:
            self._condition.wait_for(lambda: self.stopped or self._ended_by is not None, timeout)
            return self._ended_by

    def finish(self, patience: float) -> None:
        """End the workers, let findings be looked at for up to ``patience`` seconds, and stop."""
        self.ended = time.monotonic()
        self._ending.set()
        for target in list(self._targets.values()):
            for run in target.runs:
                run.stop(hurry=patience < HURRY)
        with self._condition:  # Else what a worker is just saying of its end would be lost.
            self._condition.wait_for(lambda: self._running == 0, patience)
        if not self._analysis.drain(0):
            log.info("reproducing findings ...")
            self._analysis.drain(patience)
        self.stop()
        self.findings.save_again()
        for finding_id in self.findings.unsaved:
            log.error("finding %s could not be saved in '%s'", finding_id, self.findings.folder)

    def stop(self) -> None:
        """End compiles and workers, and wait for their threads. May be called twice, from any thread."""
        self._ending.set()
        self._stopping.set()
        with self._condition:
            self._condition.notify_all()
            threads = list(self._threads)
        for target in list(self._targets.values()):
            for run in target.runs:
                run.stop()
        self._turns.close()
        self._children.stop()
        self._client.stop()
        self._analysis.stop()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()
        with self._condition:
            self._lock.release()


def _forget(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
