"""A worker since Zig 0.16: an instance of the fuzzer, which fuzzes many tests (Zig: ``FuzzTestRunner``).

It is told the names of its tests and its number, and chooses itself which test is next, for about a second
each. What an instance finds it tells us, and we tell the others. Instance 0 alone writes the corpus, and says
which coverage file it has; all read the corpus when they come to a test for the first time.

Instances share the folder ``f``, as those of Zig's build runner do: Zig's locks in it are for that, and so is
``f/inN``, the input that instance N is trying. Coverage files are not shared: of one file, nobody could tell
which instance hangs, nor which test made the runs. So each has a folder, in which ``f`` is a link.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzzserver.errors import CoverageFileError, MessageError
from fuzzserver.files import open_regular
from fuzzserver.fuzz.mailbox import MAX_WAITING, Mailbox
from fuzzserver.fuzz.worker import FuzzProcess, FuzzTest
from fuzzserver.instance_input import input_file, read_instance_input
from fuzzserver.wire.abi import SeenPcsHeader
from fuzzserver.wire.messages import (
    BroadcastFuzzInput,
    ClientTag,
    CoverageId,
    ServerTag,
    StartFuzzing,
    client_bytes,
    parse_u32,
)
from fuzzserver.wire.release import ServerMessage
from fuzzserver.zig.process import PipedChild

__all__ = ["InstanceWorker", "instance_folder"]

FOREVER = 0
"""The limit in ``start_fuzzing``. The other kind counts the runs of each test of a process that has no others
beside it, and none that it made before it was restarted: so we count ourselves."""


def instance_folder(cache_root: Path, instance: int) -> Path:
    """The cache folder of one instance, in ``cache_root``, which is that of all; OSError if it cannot be."""
    folder = cache_root / f"instance{instance}"
    folder.mkdir(parents=True, exist_ok=True)
    (cache_root / "f").mkdir(exist_ok=True)
    link = folder / "f"
    if not link.is_symlink():
        link.symlink_to(Path("..", "f"))
    return folder


@dataclass
class InstanceWorker(FuzzProcess):
    """One process of an instance. ``test`` is the one whose turn it is."""

    instance: int = field(kw_only=True)
    tests: Sequence[FuzzTest] = field(kw_only=True)
    """In the order in which the process numbers them."""
    mailbox: Mailbox = field(kw_only=True)
    found: Callable[[str, bytes], None] = field(kw_only=True)
    """Told the test and the input, when it finds one."""
    counted: Callable[[FuzzTest, int, bytes], None] = field(kw_only=True)
    """Told how many more runs a test has made, and what the coverage file has now.

    An estimate: the runs between two looks at the file are those of the test whose turn was then. A test
    begins a moment before we hear of it.
    """
    lost: Callable[[FuzzTest, str], None]
    """Told whose turn it was, and why, when what it says is not understood any more."""
    first: FuzzTest | None = field(default=None, init=False)
    """The test that it fuzzed first, once it has said so."""

    max_message = MAX_WAITING
    """Zig sets no limit but 4 GiB: inputs are as long as what the test asks for. But one that is longer than
    all that may wait for another instance could not be handed on; and the fuzzer, which changes a few bytes
    at a time, would not get far with it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._runs_before: dict[str, int] = {}
        self._counted_runs = 0
        self._runs_of: dict[str, int] = {}

    def _begin(self, child: PipedChild) -> None:
        input_file(self.cache_root, self.instance).unlink(missing_ok=True)
        self._runs_before = {path.name: _n_runs(path) for path in (self.cache_root / "v").glob("*")}
        names = tuple(test.name for test in self.tests)
        start = StartFuzzing(FOREVER, self.instance, names).serialize()
        self.mailbox.connect(child.write, names, client_bytes(ClientTag.START_FUZZING, start))

    def _leave(self) -> None:
        self.mailbox.disconnect()

    def _lose(self, why: MessageError) -> None:
        self.lost(self.test, str(why))

    def _tick(self) -> None:
        self.mailbox.deliver()
        super()._tick()

    def _handle(self, message: ServerMessage, child: PipedChild) -> None:
        if message.tag == ServerTag.COVERAGE_ID:
            size = self._reader.release.coverage_id_size
            self._open_coverage(CoverageId.parse(message.body, size).id)
        elif message.tag == ServerTag.FUZZ_START_ADDR:
            self._note_entry_point(message.body)
        elif message.tag == ServerTag.FUZZ_TEST_CHANGE:
            self._change_to(self._test(parse_u32(message.body, "fuzz_test_change")))
        elif message.tag == ServerTag.BROADCAST_FUZZ_INPUT:
            broadcast = BroadcastFuzzInput.parse(message.body)
            self.found(self._test(broadcast.index).name, broadcast.data)

    def _change_to(self, test: FuzzTest) -> None:
        if self._coverage is None:  # Only instance 0 says it, but all write it down.
            tried = read_instance_input(self.cache_root, self.instance)
            if tried is None:
                raise MessageError("fuzz_test_change came before there was a file for the input")
            self._open_coverage(tried.pc_digest)
        self._count()
        self.test = test
        if self.first is None:
            self.first = test
            self._fuzzing = True
            self.set_state("fuzzing")

    def _test(self, index: int) -> FuzzTest:
        if index >= len(self.tests):
            raise MessageError(f"it has a test {index}, of {len(self.tests)}")
        return self.tests[index]

    def _open_coverage(self, coverage_id: int) -> None:
        is_first = self._coverage is None
        super()._open_coverage(coverage_id)
        assert self._coverage is not None
        if is_first:  # It may have made runs before we came to look.
            self._start_runs = self._counted_runs = self._runs_before.get(self._coverage.path.name, 0)

    def _count(self) -> None:
        super()._count()
        if self.total_runs > self._counted_runs:
            runs = self.total_runs - self._counted_runs
            self._counted_runs = self.total_runs
            self._runs_of[self.test.name] = self.runs_of(self.test) + runs
            self.counted(self.test, runs, self.seen_bits)

    def runs_of(self, test: FuzzTest) -> int:
        """How many runs a test has made, about."""
        return self._runs_of.get(test.name, 0)

    def tried(self) -> tuple[FuzzTest, bytes] | None:
        """What it tried last, once it has ended, and for which test; None if it never came to that."""
        tried = read_instance_input(self.cache_root, self.instance)
        if self.first is None or tried is None or tried.test_index >= len(self.tests):
            return None
        return self.tests[tried.test_index], tried.data


def _n_runs(path: Path) -> int:
    """How many runs a coverage file has; 0 if it is none."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return SeenPcsHeader.parse(file.read(SeenPcsHeader.LAYOUT.size)).n_runs
    except (OSError, CoverageFileError):
        return 0
