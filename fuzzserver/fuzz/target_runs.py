"""Who fuzzes the tests of a target: a worker for each test, or instances that have all of them.

Which of the two depends on the release of Zig. For all others, both are the same.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fuzzserver.corpus import Corpus, SharedCorpus, corpus_of
from fuzzserver.coverage.queue import CoverageMsg, Msg
from fuzzserver.fuzz.fuzzed_test import ENDED, FuzzedTest
from fuzzserver.fuzz.instances import Instances
from fuzzserver.fuzz.options import Audience, FuzzOptions
from fuzzserver.fuzz.recorder import Recorder
from fuzzserver.fuzz.shared_test import SharedTest
from fuzzserver.fuzz.target import FuzzTarget
from fuzzserver.fuzz.test_run import FuzzTestRun
from fuzzserver.fuzz.turns import Turns
from fuzzserver.fuzz.worker import FuzzTest
from fuzzserver.logbook import Level
from fuzzserver.wire.release import ZigRelease
from fuzzserver.zig.process import ChildGroup

__all__ = ["Session", "TargetRuns", "runs_of"]

WITH_ALL_TESTS = "all tests"
"""Name of the folder of instances, where otherwise there is one for each test."""


@dataclass(frozen=True, slots=True)
class Session:
    """What the targets of a session have in common."""

    children: ChildGroup
    seed: int
    options: FuzzOptions
    turns: Turns
    recorder: Recorder
    audience: Audience
    start_worker: Callable[[FuzzTarget, Callable[[], None]], None]
    """Starts a thread of a target."""


class TargetRuns(ABC):
    """The fuzz tests of one target over all its builds. Used by one thread at a time."""

    def __init__(self, session: Session, target: FuzzTarget, release: ZigRelease) -> None:
        self._session = session
        self._target = target
        self._release = release

    @abstractmethod
    def add(self, test: FuzzTest) -> FuzzedTest:
        """One more fuzz test; nothing is started yet."""

    @abstractmethod
    def start(self) -> None:
        """Begin to fuzz all of them."""

    @abstractmethod
    def move(self, tests: Sequence[FuzzTest], anew: bool) -> None:
        """Go on with the tests of a new build; ``anew``, though it may be the same again."""

    def retire(self, keep: Sequence[FuzzTest] = ()) -> None:
        """Stop those that are not in the newest build."""
        names = {test.name for test in keep}
        for run in self._target.runs:
            if run.test.name not in names and run.status.state not in ENDED:
                run.retire("It is not in the newest build.")

    def _introduce(self, run: FuzzedTest) -> None:
        self._target.add_run(run)
        run.note_findings(self._session.recorder.count(self._target.command, run.test.name))
        self._session.audience.add_corpus(run.corpus)

    def _shared_corpus(self, test: FuzzTest) -> SharedCorpus | None:
        folder = self._session.options.corpus
        return None if folder is None else SharedCorpus(folder, test.name)

    def _corpus(self, test: FuzzTest, folder: str) -> Corpus:
        root = self._target.worker_cache(folder)
        return corpus_of(self._release, root, self._target.command.name, test.name)

    def _post(self, msg: Msg) -> None:
        if isinstance(msg, CoverageMsg):
            self._target.set_coverage_id(msg.coverage_id)
        self._session.audience.post(msg)

    def _log(self, test: FuzzTest) -> Callable[[str, Level], None]:
        return lambda text, level: self._session.audience.add_log(test.name, text, level)


class _WorkerForEach(TargetRuns):
    """Until Zig 0.15."""

    def add(self, test: FuzzTest) -> FuzzTestRun:
        target, session = self._target, self._session
        run = FuzzTestRun(
            test,
            self._corpus(test, test.name),
            self._shared_corpus(test),
            target.tell,
            lambda end, failure, data: session.recorder.note(target.command, end, failure, data),
            self._log(test),
            session.children,
            target.worker_cache(test.name),
            target.command.project,
            session.seed,
            session.options.limits,
            session.turns,
            self._post,
        )
        self._introduce(run)
        return run

    def start(self) -> None:
        for run in self._target.runs:
            assert isinstance(run, FuzzTestRun)
            self._session.start_worker(self._target, run.run)

    def move(self, tests: Sequence[FuzzTest], anew: bool) -> None:
        runs = {run.test.name: run for run in self._target.runs if run.status.state not in ENDED}
        for test in tests:
            run = runs.get(test.name)
            if run is None:
                self._session.start_worker(self._target, self.add(test).run)
            elif anew or run.test.step.rebuilt_executable != test.step.rebuilt_executable:
                assert isinstance(run, FuzzTestRun)
                run.move(test)


class _AllInEachInstance(TargetRuns):
    """Since Zig 0.16."""

    def __init__(self, session: Session, target: FuzzTarget, release: ZigRelease, instances: int) -> None:
        super().__init__(session, target, release)
        self._instances = Instances(
            session.children,
            target.worker_cache(WITH_ALL_TESTS),
            target.command.project,
            session.seed,
            session.options.limits,
            session.turns,
            instances,
            self._post,
            lambda work: session.start_worker(target, work),
        )
        self._tests: dict[str, SharedTest] = {}

    def add(self, test: FuzzTest) -> SharedTest:
        target, session = self._target, self._session
        run = SharedTest(
            test,
            self._corpus(test, WITH_ALL_TESTS),
            self._shared_corpus(test),
            target.tell,
            lambda end, failure, data: session.recorder.note(target.command, end, failure, data),
            self._log(test),
            self._instances.test_ended,
        )
        self._tests[test.name] = run
        self._introduce(run)
        return run

    def start(self) -> None:
        self._instances.go_on(list(self._tests.values()))

    def move(self, tests: Sequence[FuzzTest], anew: bool) -> None:
        known, self._tests = self._tests, {}
        is_new = anew
        for test in tests:
            run = known.get(test.name)
            if run is None or run.status.state in ENDED:
                self.add(test)
                is_new = True
            else:
                is_new = is_new or run.test.step.rebuilt_executable != test.step.rebuilt_executable
                run.move(test)
                self._tests[test.name] = run
        if is_new:
            self.start()


def runs_of(session: Session, target: FuzzTarget, release: ZigRelease, instances: int) -> TargetRuns:
    """For a target that this release has built.

    So many ``instances`` are its share of the jobs: all have the same tests, so more than can run at once
    would only wait, with locks on the corpus that others need.
    """
    if release.fuzzes == "one test":
        return _WorkerForEach(session, target, release)
    return _AllInEachInstance(session, target, release, instances)
