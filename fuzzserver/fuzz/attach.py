"""Watching fuzzers that somebody else runs: ``zig build test --fuzz``, say.

*Runs on* the thread ``attach``, which its caller owns. *Takes* Zig cache folders. *Gives* what a driver
gives for fuzzers of its own: steps, messages, a status, and the status of each target.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fuzzserver.coverage.queue import CoverageMsg, EntryPointMsg, Msg
from fuzzserver.coverage.zig_cache import Pair, Problem, ZigCache, find_cache
from fuzzserver.status import TargetStatus, TestStatus
from fuzzserver.step import FuzzRunStep

__all__ = ["Attacher"]

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two looks."""

STILL_FUZZING = 3.0
"""Seconds without a run after which a fuzzer is taken for stopped: single runs may take that long."""


@dataclass(slots=True, eq=False)
class _Build:
    """One coverage file, the executable that writes it, and what was told of them."""

    cache: ZigCache
    pair: Pair
    """As it was at the last look."""
    active: float = float("-inf")
    """When it was last seen to have counted runs, on the monotonic clock."""
    told: tuple[object, ...] | None = None
    """Which file and which executable were posted."""
    told_as_current: bool = False
    told_tests: set[str] = field(default_factory=set)

    @property
    def key(self) -> str:
        """That of its target: builds of the same root source file are one target."""
        return f"{self.cache.path}:{self.pair.name}"

    @property
    def coverage_id(self) -> str:
        """The coverage file's name."""
        return self.pair.coverage_file.path.name

    @property
    def is_fuzzed(self) -> bool:
        """Whether a fuzzer is at work on it."""
        return time.monotonic() - self.active < STILL_FUZZING


class Attacher:
    """Looks into caches again and again, and tells what has changed.

    The callables are how it tells its server: ``add_step`` and ``post`` for each pair of coverage file
    and executable, ``set_target`` for what becomes of it, ``set_status`` for all of it in one sentence.
    They are called on the thread that calls ``run``.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        add_step: Callable[[FuzzRunStep], None],
        post: Callable[[Msg], None],
        set_status: Callable[[str, str], None],
        set_target: Callable[[TargetStatus], None],
    ) -> None:
        """``paths`` are caches, or projects with one; InputError if one is neither."""
        self.caches = [ZigCache(path) for path in dict.fromkeys(map(find_cache, paths))]
        self._add_step = add_step
        self._post = post
        self._set_status = set_status
        self._set_target = set_target
        # What was told, by coverage file, by key, and as it is.
        self._builds: dict[Path, _Build] = {}
        self._targets: dict[str, TargetStatus] = {}
        self._executables: set[Path] = set()
        self._problems: set[str] = set()
        # By cache, when an input was kept that crashed a fuzzer, and what was said of it.
        self._crashes: dict[Path, int | None] = {}
        self._news_of_crashes: dict[Path, str] = {}
        self._status = ("", "")
        self._looked = False

    def run(self, stop: threading.Event) -> None:
        """Look every second until ``stop`` is set."""
        while not stop.is_set():
            try:
                self.look()
            except Exception:  # A fault of ours must not end the thread.
                log.exception("looking into %s failed", self._places())
            stop.wait(INTERVAL)

    def look(self) -> None:
        """Look once, and tell what has changed."""
        looks = [(cache, cache.look()) for cache in self.caches]
        pairs = [(cache, pair) for cache, look in looks for pair in look.pairs]
        # What was written last comes first: it is what people see first.
        pairs.sort(key=lambda item: item[1].coverage_file.mtime_ns, reverse=True)
        targets: dict[str, list[_Build]] = {}
        for cache, pair in pairs:
            build = self._noticed(cache, pair)
            targets.setdefault(build.key, []).append(build)
        current = {key: self._current(key, builds) for key, builds in targets.items()}
        for key, build in current.items():
            self._tell(build, key)
        for key, builds in targets.items():
            for build in builds:
                if build is not current[key]:
                    self._tell(build, "")
            self._tell_target(_status_of(current[key], builds))
        for key in self._targets.keys() - targets.keys():
            self._tell_target(_gone(self._targets[key]))
        problems = [problem for _, look in looks for problem in look.problems]
        self._log_problems(problems)
        for cache, look in looks:
            self._note_crash(cache, look.crash_mtime_ns)
        # An old file without executable is no news; one that is written while no other is, is.
        newest = pairs[0][1].coverage_file.mtime_ns if pairs else 0
        news = [problem.text for problem in problems if problem.mtime_ns > newest]
        self._tell_status([*self._news_of_crashes.values(), *news])
        self._looked = True

    def _noticed(self, cache: ZigCache, pair: Pair) -> _Build:
        """Remember what a pair is now; a fuzzer is at work on it if it has counted runs."""
        path = pair.coverage_file.path
        build = self._builds.get(path)
        if build is None:
            log.info("'%s' of '%s' writes '%s'", pair.executable.path, pair.name, path)
            build = self._builds[path] = _Build(cache, pair)
            # A file that was not there at the last look has a fuzzer that has just started.
            counted = self._looked
        else:
            counted = build.pair.coverage_file.n_runs != pair.coverage_file.n_runs
            build.pair = pair
        if counted:
            build.active = time.monotonic()
        return build

    def _current(self, key: str, builds: list[_Build]) -> _Build:
        """Which build of a target to show: while the one that is shown is fuzzed, that."""
        running = [build for build in builds if build.is_fuzzed]
        known = self._targets.get(key)
        for build in running:
            if known is not None and build.coverage_id == known.id:
                return build
        return (running or builds)[0]

    def _tell(self, build: _Build, key: str) -> None:
        """Post a build, if it is new or another one than before, and its new entry points.

        Only the current build of a target bears the target's ``key``: the newest one posted with it is
        the one that is shown.
        """
        pair = build.pair
        version = (pair.coverage_file.identity, pair.executable.path, pair.executable.signature)
        if build.told != version or (key and not build.told_as_current):
            step = FuzzRunStep(pair.name, pair.executable.path, build.cache.path, key=key)
            if step.rebuilt_executable not in self._executables:
                self._executables.add(step.rebuilt_executable)
                self._add_step(step)
            self._post(CoverageMsg(pair.coverage_file.coverage_id, step))
            build.told = version
            build.told_tests.clear()  # Whoever makes a new map of it has none of them.
        build.told_as_current = bool(key)
        for name, addr in pair.fuzz_tests.items():
            if name not in build.told_tests:
                build.told_tests.add(name)
                self._post(EntryPointMsg(pair.coverage_file.coverage_id, addr))

    def _tell_target(self, target: TargetStatus) -> None:
        """Say what a target does, if that has changed."""
        if self._targets.get(target.key) != target:
            self._targets[target.key] = target
            self._set_target(target)

    def _note_crash(self, cache: ZigCache, mtime_ns: int | None) -> None:
        """Say that a fuzzer has crashed, if that was since the first look; which one, nobody tells."""
        if self._looked and mtime_ns is not None and mtime_ns != self._crashes[cache.path]:
            text = f"a fuzzer has crashed; 'zig build' has kept the input in '{cache.crash_input}'."
            self._news_of_crashes[cache.path] = text
            log.warning("%s", text)
        self._crashes[cache.path] = mtime_ns

    def _log_problems(self, problems: list[Problem]) -> None:
        """Log each problem once, and again if it comes back."""
        texts = {problem.text for problem in problems}
        for text in sorted(texts - self._problems):
            log.warning("%s", text)
        self._problems = texts

    def _tell_status(self, news: list[str]) -> None:
        """Say what goes on and what is new or wrong, if that has changed."""
        running = sum(target.state == "fuzzing" for target in self._targets.values())
        if self._targets:
            state = "fuzzing" if running else "stopped"
            summary = f"Watching {self._places()}: {running} of {len(self._targets)} fuzzed now."
        else:
            state = "waiting"
            summary = f"Waiting for a fuzzer to write to {self._places()}."
        status = (state, "\n".join((summary, *news)))
        if status != self._status:
            self._status = status
            self._set_status(*status)

    def _places(self) -> str:
        return ", ".join(f"'{cache.path}'" for cache in self.caches)


def _status_of(current: _Build, builds: list[_Build]) -> TargetStatus:
    """What the target of ``builds`` does, which are sorted from the newest to the oldest."""
    state = "fuzzing" if current.is_fuzzed else "stopped"
    earlier = [build.coverage_id for build in reversed(builds) if build is not current]
    names = current.pair.fuzz_tests
    # One file counts the runs of all tests.
    n_runs = current.pair.coverage_file.n_runs if len(names) == 1 else None
    return TargetStatus(
        key=current.key,
        name=current.pair.name,
        state=state,
        id=current.coverage_id,
        earlier=tuple(earlier),
        tests=tuple(TestStatus(name, state, n_runs=n_runs) for name in names),
    )


def _gone(target: TargetStatus) -> TargetStatus:
    """A target of which neither coverage file nor executable are there any more."""
    tests = tuple(replace(test, state="stopped") for test in target.tests)
    text = "The coverage file or the executable was deleted."
    return replace(target, state="stopped", text=text, tests=tests)
