"""From a test command to its test executable (Zig: ``rebuildInFuzzMode``)."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from fuzzserver import paths
from fuzzserver.fuzz.heartbeat import heartbeat
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.step import SourcePath
from fuzzserver.zig.compile_client import ZigCompileClient

__all__ = ["BuildMode", "TestExecutable", "build_tests"]

log = logging.getLogger(__name__)

BuildMode = Literal["normal", "fuzz", "repro"]
"""As ``zig build test`` builds it; instrumented for the fuzzer; or with a test runner that runs one test
on one input."""

TEST_BIN_NAME = "test"
REPRO_BIN_NAME = "repro"


@dataclass(frozen=True, slots=True)
class TestExecutable:
    """A built test executable and the files that it was compiled from."""

    __test__: ClassVar[bool] = False  # The name begins with "Test", but it is no test class for pytest.

    path: Path
    inputs: tuple[SourcePath, ...]


def build_tests(client: ZigCompileClient, command: TestCommand, mode: BuildMode) -> TestExecutable:
    """Compile the tests of ``command``. Raises a ZigError. May run in several threads at once."""
    what = f"the tests of {command.name}{_IN_MODE[mode]}"
    log.info("compiling %s", what)
    started = time.monotonic()
    name = REPRO_BIN_NAME if mode == "repro" else TEST_BIN_NAME
    global_cache_dir = command.global_cache_dir or client.global_cache_dir
    with heartbeat(f"compiling {what}"):
        result = client.compile(
            [
                "test",
                *_args(command, mode),
                *("--cache-dir", str(command.cache_root)),
                *("--global-cache-dir", str(global_cache_dir)),
                *("--name", name),
            ],
            command.cache_root,
            command.project,
            global_cache_dir=global_cache_dir,
        )
    log.info("compiled %s in %.1f s", what, time.monotonic() - started)
    return TestExecutable(result.artifact(name), result.inputs)


_IN_MODE = {"normal": "", "fuzz": " in fuzz mode", "repro": " for reproduction"}


def _args(command: TestCommand, mode: BuildMode) -> list[str]:
    args = list(command.args)
    if mode == "fuzz":
        # In front of all modules, for it to hold for all of them, and where Zig's build runner has it.
        args.insert(args.index("-fllvm") + 1 if "-fllvm" in args else 0, "-ffuzz")
    if mode == "repro":
        args += ["--test-runner", str(paths.repro_runner())]
    return args
