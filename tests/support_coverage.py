"""Coverage files to which anything happens: what can be done to one, a server that shows it, and writers.

As a program it is one of the processes of a test: ``serve`` shows a file, ``harm`` does things to it when it
is told to.
"""

import json
import logging
import mmap
import os
import random
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuzzserver.coverage.coverage_map import CoverageMap, ExecutableFacts
from fuzzserver.coverage.executable import FileState
from fuzzserver.coverage.functions import NO_FUNCTION, Functions
from fuzzserver.coverage.history import History
from fuzzserver.coverage.seen_pcs import SeenPcs, SeenPcsSnapshot
from fuzzserver.coverage.tables import Coverage
from fuzzserver.step import FuzzRunStep
from fuzzserver.webserver import WebServer
from fuzzserver.wire.abi import SeenPcsHeader
from tests.support_facts import open_files
from tests.support_native import coverage_bytes

ROOT = Path(__file__).resolve().parent.parent

PCS = range(0x1000, 0x1000 + 8 * 20_000, 8)
"""So many that the file has pages of which a mapping can lose some."""

PAUSE = 0.008
"""Seconds between two things that happen to a file."""


def program(*args: str, **options) -> subprocess.Popen[str]:
    """One of the processes below; it ends at the end of its input."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support_coverage", *args],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def say(process: subprocess.Popen[str], text: str) -> str:
    """Send a line to a process; what it answers, or nothing if it is gone."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()
    return process.stdout.readline()


def opened_in(folder: Path) -> int:
    """How many files of a folder this process has open, be they deleted by now."""
    return sum(target.startswith(f"{folder}/") for _, target in open_files())


@contextmanager
def plain_user() -> Iterator[None]:
    """Somebody to whom permissions apply, which root is not."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder into which everybody may look, unlike those that pytest makes."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


# ---------------------------------------------------------------------- good files


def good_snapshot(number: int, pcs_len: int = len(PCS)) -> SeenPcsSnapshot:
    """One of many states of a coverage file, each other than the others; the number of runs tells which."""
    bits = random.Random(number).getrandbits(pcs_len) if pcs_len else 0
    size = SeenPcsHeader(0, 0, pcs_len).seen_bits_size
    return SeenPcsSnapshot(1000 * number + 7, number, bits.to_bytes(size, "little"))


def good_bytes(number: int, pcs: range = PCS) -> bytes:
    """A coverage file in that state."""
    snapshot = good_snapshot(number, len(pcs))
    header = SeenPcsHeader(snapshot.n_runs, snapshot.unique_runs, len(pcs))
    return header.serialize() + snapshot.seen_bits + array("Q", pcs).tobytes()


def plain_map(path: Path, pcs: range = PCS, history_file: Path | None = None) -> CoverageMap:
    """The map of an executable without debug info, and that is not there."""
    return CoverageMap(
        7,
        ExecutableFacts(path.parent / "test", FileState(1, 2, 3, 4), False, None),
        SeenPcs(path),
        array("Q", pcs),
        Coverage(),
        array("I", (0xFFFFFFFF, 0, 0)) * len(pcs),
        Functions(array("I", [NO_FUNCTION]) * len(pcs), array("I"), b""),
        History(len(pcs), history_file),
        0,
    )


# ---------------------------------------------------------------------- harm


def clear(path: Path) -> None:
    """Let nothing be at a path."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


class Harm:
    """Does things to the coverage file at ``path``, whatever is there; ``good`` makes it good again."""

    def __init__(self, path: Path, seed: int, pcs: range = PCS) -> None:
        self.path = path
        self.pcs = pcs
        self.random = random.Random(seed)
        self.number = 0
        """The last state that was written."""
        self.aside = path.with_name(f"{path.name}.aside")

    def _write(self, data: bytes) -> None:
        """Write in place, so that it is the same file, if there is one."""
        if not self.path.is_file():
            clear(self.path)
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.truncate(0)
            file.write(data)

    def _replace(self, data: bytes) -> None:
        """Put another file in its place."""
        self.aside.write_bytes(data)
        if self.path.is_dir():
            clear(self.path)
        os.replace(self.aside, self.path)

    def _good_bytes(self) -> bytes:
        self.number += 1
        return good_bytes(self.number, self.pcs)

    def truncate(self) -> None:
        """A part of it is gone."""
        if self.path.is_file():
            os.truncate(self.path, self.random.randrange(self.path.stat().st_size or 1))

    def empty(self) -> None:
        """All of it is gone."""
        self._write(b"")

    def delete(self) -> None:
        """Nothing is there."""
        clear(self.path)

    def grow(self) -> None:
        """There is more than there should be."""
        if self.path.is_file():
            with self.path.open("ab") as file:
                file.write(self.random.randbytes(self.random.randint(1, 5000)))

    def tear(self) -> None:
        """Whoever wrote it has died meanwhile."""
        data = good_bytes(self.random.randrange(10**6), self.pcs)
        self._write(data[: self.random.randrange(len(data))])

    def overwrite(self) -> None:
        """It is the same file and no coverage file."""
        self._write(self.random.randbytes(len(good_bytes(0, self.pcs))))

    def replace_by_garbage(self) -> None:
        """Another file, and no coverage file."""
        self._replace(self.random.randbytes(self.random.randrange(10_000)))

    def replace_by_other_build(self) -> None:
        """Another coverage file, of as many points."""
        self._replace(coverage_bytes([pc + 4 for pc in self.pcs], seen=[1], n_runs=3))

    def folder(self) -> None:
        """A folder has its name."""
        clear(self.path)
        self.path.mkdir()

    def pipe(self) -> None:
        """A pipe has its name, to which nobody writes."""
        clear(self.path)
        os.mkfifo(self.path)

    def link_to_nothing(self) -> None:
        """A link leads nowhere."""
        clear(self.path)
        self.path.symlink_to("nothing")

    def link_in_a_circle(self) -> None:
        """A link leads to itself."""
        clear(self.path)
        self.path.symlink_to(self.path)

    def good_in_place(self) -> None:
        """Write all of it anew."""
        self._write(self._good_bytes())

    def good_replaced(self) -> None:
        """Put a good file there, in one step where that can be."""
        self._replace(self._good_bytes())

    def good_link(self) -> None:
        """Have a link lead to a good file."""
        target = self.path.with_name(f"{self.path.name}.target{self.number}")
        target.write_bytes(self._good_bytes())
        clear(self.path)
        self.path.symlink_to(target)

    def harms(self) -> list[Callable[[], None]]:
        """All that makes it bad."""
        return [
            self.truncate,
            self.empty,
            self.delete,
            self.grow,
            self.tear,
            self.overwrite,
            self.replace_by_garbage,
            self.replace_by_other_build,
            self.folder,
            self.pipe,
            self.link_to_nothing,
            self.link_in_a_circle,
        ]

    def goods(self) -> list[Callable[[], None]]:
        """All that makes it good again."""
        return [self.good_in_place, self.good_replaced, self.good_link]


def harm(path: Path, seed: int) -> None:
    """For each number that is read, do so many things at random; then make it good, and tell."""
    harm = Harm(path, seed)
    for line in sys.stdin:
        for _ in range(int(line) - 1):
            harm.random.choice(harm.harms() + harm.goods())()
            time.sleep(harm.random.uniform(0, 2 * PAUSE))
        good = harm.random.choice(harm.goods())
        good()
        told = {"number": harm.number, "how": good.__name__, "time": time.monotonic()}
        print(json.dumps(told), flush=True)


# ---------------------------------------------------------------------- a server


def serve(path: Path, *flags: str) -> None:
    """Show a coverage file; prints the port, and for each line that is read what is wrong with the file."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    if "--mmap" in flags:
        SeenPcs._pread = mapped_pread  # type: ignore[method-assign]
    # No page is opened, and a compiler that runs meanwhile has pipes, which a test would count.
    WebServer._build_ahead = lambda self: None  # type: ignore[method-assign]
    with WebServer(cache_dir=path.parent) as server:
        coverage_map = plain_map(path)
        server.coverage_files.add(coverage_map, FuzzRunStep("test", coverage_map.executable))
        print(server.port, flush=True)
        for _ in sys.stdin:
            print(json.dumps(coverage_map.describe_json()["fault"]), flush=True)


def mapped_pread(self: SeenPcs, size: int, offset: int) -> bytes:
    """What a reader does that maps the file instead."""
    with self._opened() as fd:
        if not hasattr(self, "memory"):
            self.memory = mmap.mmap(fd, 0, prot=mmap.PROT_READ)  # type: ignore[attr-defined]
        return self.memory[offset : offset + size]


# ---------------------------------------------------------------------- a fuzzer

COUNTER = """
import mmap, os, random, sys
path, head, size = sys.argv[1], bytes.fromhex(sys.argv[2]), int(sys.argv[3])
addresses = sys.stdin.buffer.read()
file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
if os.fstat(file.fileno()).st_size != size:
    file.write(head)
    file.seek(size - len(addresses))
    file.write(addresses)
    file.flush()
memory = mmap.mmap(file.fileno(), 0)
words = memoryview(memory).cast("Q")
points = words[2]
print("counting", flush=True)
while True:
    words[0] += 1
    if random.random() < 0.01:
        words[1] += 1
        point = random.randrange(points)
        words[3 + point // 64] |= 1 << point % 64
"""
"""Counts runs and sets bits of a mapped coverage file, as a fuzzer does, until it is killed."""


def counter(path: Path) -> subprocess.Popen[bytes]:
    """A process that counts in a coverage file, which it makes if there is none; it counts already."""
    head = SeenPcsHeader(0, 0, len(PCS)).serialize().hex()
    argv = [sys.executable, "-S", "-E", "-c", COUNTER, str(path), head, str(len(good_bytes(0)))]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(array("Q", PCS).tobytes())
    process.stdin.close()
    assert process.stdout.readline() == b"counting\n"
    process.stdout.close()
    return process


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]), *sys.argv[3:])
    else:
        harm(Path(sys.argv[2]), int(sys.argv[3]))
