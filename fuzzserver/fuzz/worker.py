"""One process that fuzzes one test (Zig: ``fuzzWorkerRun`` and ``rerunInFuzzMode``).

*Runs on* a thread ``fuzz-worker-N``. *Takes* a test executable built in fuzz mode. *Gives* a
``CoverageMsg`` and an ``EntryPointMsg``, and, when the process ends, how it ended.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzzserver.coverage.queue import CoverageMsg, EntryPointMsg, Msg
from fuzzserver.errors import MessageError
from fuzzserver.step import FuzzRunStep
from fuzzserver.wire.messages import ClientTag, Message, MessageReader, ServerTag, client_message, parse_u64
from fuzzserver.zig.process import ChildGroup, PipedChild, describe_exit
from fuzzserver.zig.test_runner import test_runner_argv

__all__ = ["FuzzTest", "WorkerEnd", "fuzz_worker_run"]

MAX_STDERR = 256 * 1024
"""How much of a worker's last words is kept, in bytes."""


@dataclass(frozen=True, slots=True)
class FuzzTest:
    """A fuzz test: which executable, which test in it."""

    step: FuzzRunStep
    index: int
    name: str


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """How a worker ended, without being asked to."""

    test: FuzzTest
    how: str
    """``exited with code 1``, say."""
    stderr: str


def fuzz_worker_run(
    children: ChildGroup, test: FuzzTest, cache_root: Path, cwd: Path, seed: int, post: Callable[[Msg], None]
) -> WorkerEnd:
    """Fuzz ``test`` until its process ends. OSError if it cannot be started."""
    argv = test_runner_argv(test.step.rebuilt_executable, cache_root, seed)
    with children.spawn(argv, cwd) as child:
        child.send(client_message(ClientTag.START_FUZZING, test.index))
        stderr, fault = _listen(child, test, post)
        how = describe_exit(child.wait()) if fault is None else f"broke the protocol ({fault}) and was ended"
    return WorkerEnd(test, how, stderr.decode("utf-8", "replace"))


def _listen(
    child: PipedChild, test: FuzzTest, post: Callable[[Msg], None]
) -> tuple[bytearray, MessageError | None]:
    """Post what the worker tells until it ends; returns its stderr, and what was wrong with it."""
    reader = MessageReader()
    stderr = bytearray()
    coverage_id: int | None = None
    for name, data in child.output():
        if name == "stderr":
            stderr += data
            del stderr[:-MAX_STDERR]
            continue
        try:
            for message in reader.feed(data):
                coverage_id = _handle(message, test, coverage_id, post)
        except MessageError as error:
            return stderr, error
    return stderr, None


def _handle(
    message: Message, test: FuzzTest, coverage_id: int | None, post: Callable[[Msg], None]
) -> int | None:
    """Post what one message means; returns the coverage id as far as it is known."""
    if message.tag == ServerTag.COVERAGE_ID:
        coverage_id = parse_u64(message.body, "coverage_id")
        post(CoverageMsg(coverage_id, test.step))
    elif message.tag == ServerTag.FUZZ_START_ADDR:
        if coverage_id is None:
            raise MessageError("fuzz_start_addr came before coverage_id")
        post(EntryPointMsg(coverage_id, parse_u64(message.body, "fuzz_start_addr")))
    return coverage_id
