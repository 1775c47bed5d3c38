"""A fuzzing session from build to outcome, as a thread: what the command line runs, and build drivers may.

*Runs on* a thread ``fuzz-driver``, beside those of the driver. *Takes* a project and options. *Gives* an
observer all that goes on, and at the end what came of it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from fuzzserver import paths
from fuzzserver.errors import InputError
from fuzzserver.findings import Finding, FindingStore
from fuzzserver.fuzz.budget import Ending
from fuzzserver.fuzz.build_zig import test_commands
from fuzzserver.fuzz.driver import FuzzDriver
from fuzzserver.fuzz.options import Audience, FuzzOptions
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.report.model import Report
from fuzzserver.status import TargetStatus, TestStatus
from fuzzserver.verdict import Judged
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig, find_zig
from fuzzserver.zig.process import ChildGroup

__all__ = ["FuzzProject", "FuzzSession", "Outcome"]

LAST_LOOK = 60.0
"""Seconds that findings get to be reproduced, at the end of a session."""


@dataclass(frozen=True, slots=True)
class FuzzProject:
    """What is to be fuzzed."""

    cache_root: Path
    """The project's ``.zig-cache``, where findings are kept."""
    find_commands: Callable[[Zig, ChildGroup], list[TestCommand]]
    """Finds out how its tests are compiled; called on the session's thread, before each build."""

    @classmethod
    def of_root(cls, root: Path) -> Self:
        """The tests of one Zig file. InputError if there is no such file."""
        command = TestCommand.of_root(root)
        return cls(command.cache_root, lambda *_: [command])

    @classmethod
    def of_build(cls, folder: Path, step: str = "test", options: tuple[str, ...] = ()) -> Self:
        """All tests that a step of a ``build.zig`` runs. InputError if there is none.

        ``options`` are for ``zig build``, such as ``-Doptimize=ReleaseSafe``.
        """
        folder = folder.absolute()
        if not (folder / "build.zig").is_file():  # Before a cache is made in some other folder.
            raise InputError(
                f"there is no build.zig in '{folder}': give ROOT.zig or --build FOLDER; "
                "'fuzzserver --help' explains"
            )

        def find(zig: Zig, children: ChildGroup) -> list[TestCommand]:
            return test_commands(zig, folder, step, list(options), children)

        return cls(folder / ".zig-cache", find)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a session came to."""

    started: bool
    """Whether anything was fuzzed at all."""
    seconds: float
    """How long."""
    ending: Ending | None
    """Why it has ended; None if it was stopped."""
    findings: tuple[Finding, ...]
    """All of this session, in the order in which they came."""
    failing: tuple[Finding, ...]
    """Those of them that count: see ``FuzzOptions.fail_on``."""
    targets: tuple[TargetStatus, ...]
    build_failed: bool
    """Whether a target could not be built."""
    not_fuzzed: tuple[TestStatus, ...]
    """The tests that made no run and broke nothing."""
    session_runs: dict[str, int]
    """Runs of this session, by the keys of targets."""

    def completed(self, report: Report) -> Report:
        """The session's report with what only the session knows: how many runs were its own."""
        targets = (
            replace(each, session_runs=self.session_runs.get(each.key, each.session_runs))
            for each in report.targets
        )
        return replace(report, targets=tuple(targets))

    def judged(self, report: Report) -> Judged:
        """What a verdict goes by, with the session's report."""
        return Judged(report, self.failing, self.build_failed, self.not_fuzzed, self.ending)


class FuzzSession:
    """Builds a project and fuzzes it. All methods may be called from any thread."""

    def __init__(
        self,
        project: FuzzProject,
        options: FuzzOptions,
        audience: Audience,
        *,
        zig: Zig | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        """Nothing runs before ``start``.

        Args:
            project: what to fuzz.
            options: how, and for how long.
            audience: an ``Observer`` or a ``WebServer``, which outlives the session.
            zig: the compiler; by default the one of the environment.
            cache_dir: where compiled files of our own are kept; by default ``~/.cache/fuzzserver``.

        Raises ZigNotFound if there is no compiler, and InputError if another process fuzzes the project.
        """
        zig = zig or Zig(find_zig())
        self._driver = FuzzDriver(
            ZigCompileClient(zig, (cache_dir or paths.default_cache_dir()).absolute()),
            lambda children: project.find_commands(zig, children),
            project.cache_root,
            options,
            audience,
        )
        self._audience = audience
        self.ended: Future[Ending | None] = Future()
        """Done when the session is over; with an error if nothing could be built."""
        self._thread = threading.Thread(target=self._run, name="fuzz-driver", daemon=True)

    def start(self) -> None:
        """Build and fuzz, in the background."""
        self._thread.start()

    def _run(self) -> None:
        driver = self._driver
        try:
            driver.start(driver.build())
            self._audience.set_rebuild(driver.rebuild_asked.set)
            self.ended.set_result(driver.wait())
        except Exception as error:
            if not driver.stopped:
                self._audience.set_status("failed", str(error))
            self.ended.set_exception(error)

    @property
    def findings(self) -> FindingStore:
        """Where findings are kept, those of earlier sessions as well."""
        return self._driver.findings

    @property
    def started(self) -> float | None:
        """When fuzzing began, on the clock of ``time.monotonic``; None while it is built."""
        return self._driver.started

    @property
    def targets(self) -> list[TargetStatus]:
        """All targets as they are now."""
        return self._driver.targets

    @property
    def found(self) -> list[str]:
        """Ids of the findings of this session, in the order in which they came."""
        return self._driver.found

    def finish(self, patience: float = LAST_LOOK) -> Outcome:
        """End the session and say what came of it.

        Findings get up to ``patience`` seconds to be reproduced. What else is wrong is raised by
        ``ended.result()``.
        """
        driver = self._driver
        try:
            driver.finish(patience)
        finally:
            self.stop()
        started = driver.started
        ending = self.ended.result() if self.ended.done() and self.ended.exception() is None else None
        if started is not None:
            self._audience.set_status("stopped", "It was stopped." if ending is None else ending.text)
        found = filter(None, map(driver.findings.get, driver.found))
        return Outcome(
            started is not None,
            0.0 if started is None else driver.ended - started,
            ending,
            tuple(found),
            tuple(driver.failing),
            tuple(driver.targets),
            driver.build_failed,
            tuple(driver.not_fuzzed),
            driver.session_runs,
        )

    def stop(self) -> None:
        """End it at once. May be called twice."""
        self._driver.stop()
        self._audience.set_rebuild(None)
        if self._thread.ident is not None:  # Else it was never started.
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
