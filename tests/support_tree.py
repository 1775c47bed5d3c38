"""Trees of sources that are odd, huge, or never at rest, and a server that is asked for them.

``python -m tests.support_tree FOLDER OUTSIDE SEED`` changes a tree until its stdin ends.
"""

import contextlib
import os
import random
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TypeVar

from tests.support_time import WAIT

REPOSITORY = Path(__file__).resolve().parent.parent

FOLDERS = ("", "a", "b/c")
NAMES = tuple(os.path.join(folder, f"{number}.zig") for folder in FOLDERS for number in range(8))
"""The files of a tree that changes."""

BLOCK = 512

LATENCIES = 11
"""How many another client is to be answered at least while a tree is sent."""

T = TypeVar("T")


def in_time(do: Callable[[], T]) -> T:
    """What ``do`` returns or raises; TimeoutError if it waits for ever, as for the writer of a pipe."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(do())
        except Exception as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future.result(WAIT)


def write_tree(folder: Path, content: bytes) -> None:
    """A tree with all of ``NAMES``, each with the same content."""
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@contextmanager
def changing(folder: Path, outside: Path, seed: int) -> Iterator[None]:
    """While this lasts, a process does to a tree what can be done to one. Its links lead ``outside``."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.support_tree", str(folder), str(outside), str(seed)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        assert child.stdout.readline() == b"changing\n"
        yield
        assert child.poll() is None, "nothing was changed any more"
    finally:
        child.stdin.close()
        child.stdout.close()
        try:
            assert child.wait(WAIT) == 0
        finally:
            child.kill()


class Changer:
    """Does one thing after the other to the files of ``write_tree``."""

    def __init__(self, folder: Path, outside: Path, rng: random.Random) -> None:
        self._folder, self._outside, self._rng = folder, outside, rng
        self._aside = folder.with_name(folder.name + "-aside")
        # Each with how often it is done: most of the files should be files.
        self._deeds = {
            self._write: 12,
            self._grow: 4,
            self._shrink: 6,
            self._rename: 2,
            self._delete: 2,
            self._link_out: 2,
            self._link_out_relative: 1,
            self._link_in: 2,
            self._pipe: 2,
            self._folder_for_file: 1,
            self._swap_folder: 1,
        }

    def change(self) -> None:
        """Do something. That what is needed for it is not there just now does not matter."""
        name = self._rng.choice(NAMES)
        path = self._folder / name
        (deed,) = self._rng.choices(*zip(*self._deeds.items(), strict=True))
        with contextlib.suppress(OSError):
            deed(path, name)

    def _content(self, size: int) -> bytes:
        return self._rng.randbytes(64) * (size // 64)

    def _grow(self, path: Path, _: str) -> None:
        if path.is_file() and not path.is_symlink():
            with path.open("ab") as file:
                file.write(self._content(self._rng.randrange(70_000)))

    def _shrink(self, path: Path, _: str) -> None:
        if path.is_file() and not path.is_symlink():
            os.truncate(path, self._rng.randrange(path.stat().st_size + 1))

    def _write(self, path: Path, _: str) -> None:
        self._clear(path)
        # Some are longer than what is read at once.
        path.write_bytes(self._content(self._rng.randrange(self._rng.choice((2000, 2000, 2000, 400_000)))))

    def _rename(self, path: Path, _: str) -> None:
        os.replace(path, self._folder / self._rng.choice(NAMES))

    def _delete(self, path: Path, _: str) -> None:
        self._clear(path)

    def _link_out(self, path: Path, name: str) -> None:
        self._replace_by_link(path, str(self._outside / name))

    def _link_out_relative(self, path: Path, name: str) -> None:
        self._replace_by_link(path, os.path.relpath(self._outside / name, path.parent))

    def _link_in(self, path: Path, _: str) -> None:
        self._replace_by_link(path, str(self._folder / self._rng.choice(NAMES)))

    def _replace_by_link(self, path: Path, target: str) -> None:
        self._clear(self._aside)
        self._aside.symlink_to(target)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        os.replace(self._aside, path)

    def _pipe(self, path: Path, _: str) -> None:
        self._clear(path)
        os.mkfifo(path)

    def _folder_for_file(self, path: Path, _: str) -> None:
        self._clear(path)
        path.mkdir()

    def _swap_folder(self, path: Path, name: str) -> None:
        """A whole folder is a link to another one for a moment."""
        folder = path.parent
        if folder == self._folder:
            return
        os.rename(folder, self._aside)
        folder.symlink_to(self._outside / os.path.dirname(name))
        time.sleep(0.0005)
        folder.unlink()
        os.rename(self._aside, folder)

    def _clear(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def _main(folder: str, outside: str, seed: str) -> None:
    changer = Changer(Path(folder), Path(outside), random.Random(int(seed)))
    print("changing", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        changer.change()


def write_huge_tree(folder: Path, n_files: int, sparse_bytes: int) -> int:
    """Many small files and one large one with nothing in it. Returns the size of their archive.

    Names are short enough for a header of one block.
    """
    for number in range(n_files):
        if number % 1000 == 0:
            part = folder / f"{number // 1000:04}"
            part.mkdir(parents=True)
        (part / f"{number}.zig").write_bytes(b"// %d\n" % number)
    with (folder / "sparse.zig").open("wb") as file:
        file.truncate(sparse_bytes)
    return 2 * BLOCK * n_files + BLOCK + (sparse_bytes + BLOCK - 1) // BLOCK * BLOCK


@dataclass(frozen=True)
class HugeTree:
    """What it took to send a huge tree."""

    seconds: float
    sent: int
    """Bytes of the archive."""
    growth: int
    """By how many bytes the server's memory grew at its peak."""
    latencies: tuple[float, ...]
    """Seconds until another client was answered, in ascending order."""

    @property
    def p99(self) -> float:
        """Of the latencies."""
        return statistics.quantiles(self.latencies, n=100, method="inclusive")[98]


def measure_huge_tree(pid: int, port: int, path: str = "/", pause: float = 0.01) -> HugeTree:
    """Have a server, which is another process, send its sources while another client asks for ``path``."""
    _ask(port, path)
    before = _memory(pid, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # The peak is that of now.
    latencies = []
    start = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", _DOWNLOAD, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as download:
        assert download.stdin is not None and download.stdout is not None
        assert download.stdout.readline() == b"begun\n"
        while download.poll() is None:
            asked = time.monotonic()
            _ask(port, path)
            latencies.append(time.monotonic() - asked)
            if len(latencies) == LATENCIES:
                download.stdin.close()
            time.sleep(pause)
        seconds = time.monotonic() - start
        sent = int(download.stdout.read())
    return HugeTree(seconds, sent, _memory(pid, "VmHWM") - before, tuple(sorted(latencies)))


_DOWNLOAD = """
import http.client, select, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=600)
connection.request("GET", "/sources.tar")
response = connection.getresponse()
assert response.status == 200
buffer = memoryview(bytearray(1 << 20))
size, is_slow = 0, True
while got := response.readinto(buffer[:1 << 16] if is_slow else buffer):
    if not size:
        print("begun", flush=True)
    is_slow = is_slow and not select.select([sys.stdin], [], [], 0.01)[0]
    size += got
print(size)
"""
"""Run in a process of its own: it must not keep the other client waiting. It is slow until its stdin ends."""


def _ask(port: int, path: str) -> None:
    """One request whose answer has no body."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as connection:
        connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            data = connection.recv(65536)
            assert data, "the other client was turned away"
            answer += data
    assert answer.startswith(b"HTTP/1.1 200 "), answer


def _memory(pid: int, name: str) -> int:
    """``VmRSS`` or ``VmHWM`` of a process, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"there is no {name}")


if __name__ == "__main__":
    _main(*sys.argv[1:])
