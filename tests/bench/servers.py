"""The program as users start it, on targets of the bench."""

import os
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuzzserver.wire.abi import SeenPcsHeader, ToClientTag
from tests.bench.big_target import Target
from tests.bench.row import Settings
from tests.support_program import Program
from tests.support_sockets import BINARY, RawClient
from tests.support_web import request

WRITES = 4
"""Of the coverage file in a second: twice as many as there are updates, so that each has something new."""
NEW_POINTS = 3
"""Of each write: a fuzzer that goes on for a while finds little that is new."""
PATIENCE = 120.0


@contextmanager
def running(settings: Settings, *args: object) -> Iterator[Program]:
    """``fuzzserver ARGS``, with the page's wasm compiled: no compiler runs while something is measured."""
    cache = settings.work / "zig-cache"
    program = Program(Path(tempfile.mkdtemp(dir=settings.folder)), *args, "--cache-dir", cache)
    try:
        assert request(program.wait_for_port(), "/main.wasm").status == 200
        yield program
    finally:
        program.close()


@contextmanager
def serving(settings: Settings, target: Target, new_points: int = NEW_POINTS) -> Iterator[Program]:
    """The program shows a target, to whose coverage file so many points come all the time (0: it rests)."""
    target = target.copied(settings.folder)
    shown = ("--executable", target.executable, "--coverage", target.coverage_file)
    over = threading.Event()
    writer = threading.Thread(target=_write, args=(target.coverage_file, over, new_points))
    with running(settings, "serve", *shown) as program:
        wait_for_tables(program.wait_for_port())
        if new_points:
            writer.start()
        try:
            yield program
        finally:
            if new_points:
                over.set()
                writer.join()


def wait_for_tables(port: int) -> None:
    """Until a viewer is sent an update."""
    with RawClient(port) as viewer:
        viewer.socket.settimeout(PATIENCE)
        while viewer.frame_with(BINARY).payload[0] != ToClientTag.COVERAGE_UPDATE:
            pass


def _write(path: Path, over: threading.Event, new_points: int) -> None:
    """Do what a fuzzer does to its coverage file."""
    fd = os.open(path, os.O_RDWR)
    try:
        header = SeenPcsHeader.parse(os.pread(fd, SeenPcsHeader.LAYOUT.size, 0))
        n_runs, unique_runs, place = header.n_runs, header.unique_runs, 0
        due = time.monotonic()
        while not over.wait(max(0.0, due - time.monotonic())):
            due += 1 / WRITES
            n_runs, unique_runs = n_runs + 1000, unique_runs + new_points
            for _ in range(new_points):
                # In places of which none has been taken before, all over the file.
                place = (place + 1001) % header.pcs_len
                byte = SeenPcsHeader.LAYOUT.size + place // 8
                bits = os.pread(fd, 1, byte)[0] | 1 << place % 8
                os.pwrite(fd, bytes([bits]), byte)
            os.pwrite(fd, struct.pack("<QQ", n_runs, unique_runs), 0)
    finally:
        os.close(fd)
