"""One target: a test executable over all its builds, and the fuzz tests in it."""

import fnmatch
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzzserver.errors import InputError
from fuzzserver.fuzz.build import build_tests
from fuzzserver.fuzz.fuzzed_test import FuzzedTest
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.fuzz.worker import FuzzTest
from fuzzserver.status import TargetStatus
from fuzzserver.step import FuzzRunStep
from fuzzserver.wire.abi import coverage_file_name
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.process import ChildGroup
from fuzzserver.zig.test_runner import FoundTests, find_fuzz_tests, test_runner_argv

__all__ = ["Build", "FuzzTarget", "NoFuzzTests", "build_target", "select_tests"]


class NoFuzzTests(InputError):
    """There is nothing to fuzz."""

    def __init__(self, commands: Sequence[TestCommand], found: Sequence[FoundTests]) -> None:
        """Name the tests that there are."""
        where = ", ".join(f"'{command.name}'" for command in commands)
        names = [f"'{name}'" for tests in found for name in tests.names]
        if not names:
            super().__init__(f"no fuzz tests found in {where}: there are no tests")
            return
        count = "the only test does not call" if len(names) == 1 else f"none of the {len(names)} tests calls"
        listed = ", ".join(names[:MAX_LISTED] + ["..."] * (len(names) > MAX_LISTED))
        super().__init__(f"no fuzz tests found in {where}: {count} std.testing.fuzz: {listed}")


MAX_LISTED = 20
"""Names of tests in a message."""


@dataclass(frozen=True, slots=True)
class Build:
    """What compiling one target gave."""

    command: TestCommand
    step: FuzzRunStep
    tests: tuple[FuzzTest, ...]


def build_target(
    client: ZigCompileClient,
    children: ChildGroup,
    command: TestCommand,
    seed: int,
    say: Callable[[str], None],
) -> tuple[FoundTests, Build | None]:
    """Compile, find the fuzz tests, and if there are some, compile in fuzz mode. Raises a FuzzServerError.

    ``say`` is told what is being done.
    """
    say(f"Compiling the tests of {command.name} ...")
    normal = build_tests(client, command, "normal")
    say(f"Running the tests of {command.name} once, to find the fuzz tests ...")
    found = find_fuzz_tests(
        children, test_runner_argv(normal.path, command.cache_root, seed), command.project
    )
    if not found.fuzz_tests:
        return found, None
    say(f"Compiling the tests of {command.name} in fuzz mode ...")
    instrumented = build_tests(client, command, "fuzz")
    step = FuzzRunStep(
        command.name, instrumented.path, command.cache_root, instrumented.inputs, key=command.key
    )
    tests = tuple(FuzzTest(step, index, found.names[index]) for index in found.fuzz_tests)
    return found, Build(command, step, tests)


def select_tests(builds: Sequence[Build], patterns: Sequence[str]) -> dict[Build, list[FuzzTest]]:
    """The tests of each build whose names match one of ``patterns``; all if there are none.

    A pattern matches the whole name, or what follows ``test.`` in it. InputError if nothing matches.
    """
    selected = {build: [test for test in build.tests if _matches(test.name, patterns)] for build in builds}
    if not any(selected.values()):
        names = ", ".join(f"'{test.name}'" for build in builds for test in build.tests)
        raise InputError(f"no fuzz test matches --test {' '.join(patterns)}; there are {names}")
    return selected


def _matches(name: str, patterns: Sequence[str]) -> bool:
    short = name.partition(".test.")[2]
    return not patterns or any(
        fnmatch.fnmatchcase(each, pattern) for each in (name, short) for pattern in patterns
    )


class FuzzTarget:
    """A target as people see it. May be used from any thread."""

    def __init__(self, command: TestCommand, told: Callable[[TargetStatus], None]) -> None:
        """``told`` is called with the status when it has changed."""
        self.command = command
        self._told = told
        # Guards all below.
        self._lock = threading.Lock()
        self._state = "building"
        self._text = ""
        self._ids: list[str] = []
        self._runs: list[FuzzedTest] = []

    @property
    def runs(self) -> list[FuzzedTest]:
        """The fuzz tests, those that are gone from the source included."""
        with self._lock:
            return list(self._runs)

    def add_run(self, run: FuzzedTest) -> None:
        """One more fuzz test, or one that was given up, anew."""
        name = run.status.name
        with self._lock:
            self._runs = [each for each in self._runs if each.status.name != name] + [run]

    def set(self, state: str, text: str = "") -> None:
        """What the target does; ``fuzzing`` stands for what its tests do."""
        with self._lock:
            self._state, self._text = state, text
        self.tell()

    def set_coverage_id(self, coverage_id: int) -> None:
        """Its coverage map is this one from now on."""
        name = coverage_file_name(coverage_id)
        with self._lock:
            if self._ids[-1:] != [name]:
                self._ids = [each for each in self._ids if each != name] + [name]
        self.tell()

    def status(self) -> TargetStatus:
        """As it is now."""
        with self._lock:
            runs, ids = list(self._runs), list(self._ids)
            state, text = self._state, self._text
        tests = tuple(run.status for run in runs)
        if state == "fuzzing":
            states = {test.state for test in tests}
            # What most deserves to be known: that it works, else what it waits for, else how it ended.
            state = next((each for each in STATES if each in states), "waiting")
        return TargetStatus(
            self.command.key,
            self.command.name,
            state,
            text,
            ids[-1] if ids else None,
            tuple(ids[:-1]),
            tests,
        )

    def tell(self) -> None:
        """Tell the status to whoever wants to know."""
        self._told(self.status())

    def worker_cache(self, test: str) -> Path:
        """The cache folder of the workers of one test."""
        slug = "".join(char if char.isalnum() or char in "-_." else "_" for char in test)[-60:]
        name = f"{slug}-{hashlib.sha256(os.fsencode(test)).hexdigest()[:8]}"
        return self.command.cache_root / "fuzzserver" / self.command.key / name


STATES = ("fuzzing", "restarting", "crashed", "waiting", "never started", "failed", "stopped")
