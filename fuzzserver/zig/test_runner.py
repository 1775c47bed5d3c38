"""Asking a test executable which tests it has and which of them are fuzz tests.

This is the first of two phases (Zig: ``evalZigTest`` of ``std/Build/Step/Run.zig``): the executable
that was built normally runs each test once, and a test that calls ``std.testing.fuzz`` says so in its
result. In the second phase the executable built in fuzz mode is told to fuzz one test.
"""

import logging
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from fuzzserver.errors import MessageError, TestRunnerError
from fuzzserver.wire.messages import ClientTag, ServerTag, TestMetadata, client_message
from fuzzserver.wire.release import ServerMessage, ServerReader, ZigRelease
from fuzzserver.zig.process import ChildGroup, ChildTimeout, KeptOutput, PipedChild, describe_exit

__all__ = ["FoundTests", "find_fuzz_tests", "test_runner_argv"]

log = logging.getLogger(__name__)

MAX_STDERR = 16 * 1024
"""How much of what a test writes is kept, in bytes."""

TEST_TIMEOUT = 60.0
"""Seconds for one test; a unit test that takes longer is no base for fuzzing."""


def test_runner_argv(executable: Path, cache_root: Path, seed: int) -> list[str]:
    """How Zig's build runner starts a test executable, in both phases."""
    return [str(executable), f"--seed=0x{seed:x}", f"--cache-dir={cache_root}", "--listen=-"]


test_runner_argv.__test__ = False  # type: ignore[attr-defined]  # For pytest: no test.


@dataclass(slots=True)
class FoundTests:
    """The tests of an executable, by index."""

    names: tuple[str, ...] = ()
    fuzz_tests: list[int] = field(default_factory=list)


def find_fuzz_tests(children: ChildGroup, argv: list[str], cwd: Path) -> FoundTests:
    """Run each test of a normally built executable once and note which are fuzz tests.

    Tests that fail, crash or hang are logged; a crash costs that test, not the others.
    TestRunnerError if the executable does not speak the protocol.
    """
    found = FoundTests()
    next_test = 0
    while True:
        try:
            with children.spawn(argv, cwd) as child, closing(_Conversation(child)) as conversation:
                next_test = _run_tests(children, conversation, found, next_test)
        except (OSError, MessageError, TestRunnerError) as error:
            raise TestRunnerError(f"test executable '{argv[0]}': {error}") from error
        if next_test >= len(found.names):
            return found


class _Conversation:
    """Questions to one test process, each with its answer."""

    def __init__(self, child: PipedChild) -> None:
        self._child = child
        self._reader = ServerReader()
        self._stderr = KeptOutput(MAX_STDERR)
        self._deadline = 0.0
        self._messages = self._receive()

    def ask(self, question: bytes, answer_tag: ServerTag) -> bytes:
        """Send a message and return the body of the answer; TestRunnerError if none comes."""
        self._stderr = KeptOutput(MAX_STDERR)
        self._deadline = time.monotonic() + TEST_TIMEOUT
        self._child.send(question)
        try:
            for message in self._messages:
                if message.tag == answer_tag:
                    return message.body
            status = describe_exit(self._child.wait(TEST_TIMEOUT))
        except ChildTimeout:
            raise TestRunnerError(f"gave no answer in {TEST_TIMEOUT:g} s") from None
        except MessageError as error:
            raise TestRunnerError(f"broke the test runner's protocol: {error}") from error
        stderr = self._stderr.text.strip()
        raise TestRunnerError(f"{status}{': ' if stderr else ''}{stderr}")

    @property
    def release(self) -> ZigRelease:
        """That of the compiler that made the executable."""
        return self._reader.release

    def close(self) -> None:
        """Let go what waits for the pipes: the generator refers to us, and so would linger."""
        self._messages.close()

    def _receive(self) -> Generator[ServerMessage, None, None]:
        for name, data in self._child.output(lambda: self._deadline):
            if name == "stderr":
                self._stderr += data
            else:
                yield from self._reader.feed(data)


def _run_tests(children: ChildGroup, child: _Conversation, found: FoundTests, next_test: int) -> int:
    """Run tests from ``next_test`` on; returns the test to go on with in a new process."""
    try:
        metadata = child.ask(client_message(ClientTag.QUERY_TEST_METADATA), ServerTag.TEST_METADATA)
    except TestRunnerError as error:
        if children.stopped:
            raise TestRunnerError("was stopped") from error
        raise
    found.names = TestMetadata.parse(metadata).names
    for index in range(next_test, len(found.names)):
        try:
            answer = child.ask(client_message(ClientTag.RUN_TEST, index), ServerTag.TEST_RESULTS)
        except TestRunnerError as error:
            if children.stopped:
                raise TestRunnerError("was stopped") from error
            log.warning(
                "test '%s' %s; it cannot be told whether it is a fuzz test", found.names[index], error
            )
            return index + 1
        results = child.release.parse_test_results(answer)
        if results.fail or results.leak:
            log.warning("test '%s' %s", found.names[index], "failed" if results.fail else "leaked memory")
        if results.fuzz:
            found.fuzz_tests.append(index)
    return len(found.names)
