"""From a test command to its test executable (Zig: ``rebuildInFuzzMode``)."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from fuzzserver import paths
from fuzzserver.coverage.executable import PCS_SECTION, Executable
from fuzzserver.errors import InputError
from fuzzserver.fuzz.heartbeat import heartbeat
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.step import SourcePath
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.mended_runner import fuzz_runner_args

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
    """Compile the tests of ``command``. May run in several threads at once.

    Raises a ZigError; InputError if what was built for the fuzzer has nothing that it could see.
    """
    what = f"the tests of {command.name}{_IN_MODE[mode]}"
    log.info("compiling %s", what)
    started = time.monotonic()
    name = REPRO_BIN_NAME if mode == "repro" else TEST_BIN_NAME
    global_cache_dir = command.global_cache_dir or client.global_cache_dir
    with heartbeat(f"compiling {what}"):
        result = client.compile(
            [
                "test",
                *_args(client, command, mode),
                *("--cache-dir", str(command.cache_root)),
                *("--global-cache-dir", str(global_cache_dir)),
                *("--name", name),
            ],
            command.cache_root,
            command.project,
            global_cache_dir=global_cache_dir,
        )
    log.info("compiled %s in %.1f s", what, time.monotonic() - started)
    executable = TestExecutable(result.artifact(name), result.inputs)
    if mode == "fuzz":
        _check_instrumented(command, executable.path)
    return executable


_IN_MODE = {"normal": "", "fuzz": " in fuzz mode", "repro": " for reproduction"}


def _args(client: ZigCompileClient, command: TestCommand, mode: BuildMode) -> list[str]:
    if mode == "normal":
        return list(command.args)
    # Only LLVM instruments. Without the flag, Zig 0.15 and later make Debug builds without it, and all
    # do if build.zig says so; of several such flags, the last one counts. What is to reproduce a finding
    # is to have the same code.
    args = [*command.args, "-fllvm"]
    if mode == "repro":
        return [*args, "--test-runner", str(paths.repro_runner())]
    # In front of all modules, for it to hold for all of them.
    return ["-ffuzz", *fuzz_runner_args(client.zig, paths.data_folder(command.cache_root) / "runner"), *args]


def _check_instrumented(command: TestCommand, executable: Path) -> None:
    """A fuzzer that sees nothing tries the same inputs for ever."""
    with Executable(executable) as file:
        if file.section_size(PCS_SECTION) == 0:
            why = (
                "since build.zig says 'fuzz = false' for their root module: remove that"
                if "-fno-fuzz" in command.args
                else "although its compiler was told -ffuzz and -fllvm: try another version of Zig"
            )
            raise InputError(
                f"the tests of {command.name} cannot be fuzzed: no code in '{executable}' is "
                f"instrumented, {why}"
            )
