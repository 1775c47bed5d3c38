"""Part ``viewers``: updates to many of them, beside Zig's own server, and some who never read."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.bench.big_target import big_target
from tests.bench.row import Row, Settings
from tests.bench.servers import running, serving, wait_for_tables
from tests.bench.tables import MILLION, zig_root, zig_target
from tests.projects import write_project, zig_web_server
from tests.support_audience import UPDATES, Audience, deaf_viewer
from tests.support_facts import facts, held
from tests.support_sockets import BINARY, TEXT, RawClient
from tests.support_viewers import percentile
from tests.support_zig_server import descendants

COUNTS = (1, 10, 100, 1000)
READERS = 20
DEAF = 20
GONE = 45.0
"""Seconds until the server must have got rid of those."""
ZIG_COUNT = 100
"""Viewers of Zig's server: a thousand take 3 GB."""


@dataclass(frozen=True)
class Watched:
    """What some viewers have seen, and what it cost the server."""

    connecting: float
    """Seconds until all were let in."""
    updates: float
    """Of each viewer, in a second."""
    gap: float
    """Milliseconds between two updates, the 99th percentile."""
    problems: int
    """Viewers who were sent away."""
    cpu: float
    """Percent of a core, of the server's process."""
    memory: float
    """MB resident, of the server's process."""


def viewers(settings: Settings) -> Iterator[Row]:
    """More and more of them; then with real fuzzers; then beside the deaf; then those of Zig's server."""
    for count in (1, 10) if settings.quick else COUNTS:
        yield from _rows(called(count), crowd(settings, count))
    if settings.quick:
        return
    fuzzing = _beside_fuzzers(settings, 1000)
    yield from _rows("1,000 viewers, a real fuzzer", fuzzing, judged=True)
    yield from _beside_the_deaf(settings)
    yield from _typical_update(settings)
    count = 1000 if settings.slow else ZIG_COUNT
    zig, name = _zig(settings, count), "Zig's server"
    ours = fuzzing if settings.slow else _beside_fuzzers(settings, count)
    yield Row(f"{count:,} viewers, a real fuzzer: gap, p99", ours.gap, "ms", name, zig.gap)
    yield Row(f"{count:,} viewers, a real fuzzer: processor time", ours.cpu, "% of a core", name, zig.cpu)
    yield Row(f"{count:,} viewers, a real fuzzer: memory", ours.memory, "MB", name, zig.memory)
    yield Row(f"{count:,} viewers, a real fuzzer: let in", ours.connecting, "s", name, zig.connecting)


def called(count: int) -> str:
    """So many of them, for people to read."""
    return "1 viewer" if count == 1 else f"{count:,} viewers"


@cache
def crowd(settings: Settings, count: int) -> Watched:
    """So many viewers of 12,000 points, where a thread of ours does what a fuzzer does to the file."""
    target = big_target(settings.zig, settings.work, 1000) if settings.quick else zig_target(settings)
    with serving(settings, target) as program:
        return _watch(settings, program.wait_for_port(), program.pid, count)


def _watch(settings: Settings, port: int, pid: int, count: int) -> Watched:
    audience = Audience(port, count)
    seconds = 2.0 if settings.quick else 20.0
    try:
        audience.settle()
        before, began = facts(pid), time.monotonic()
        audience.begin()
        time.sleep(seconds)
        after, updates, gaps = facts(pid), audience.updates, list(audience.gaps)
        seconds = time.monotonic() - began  # On a busy machine, it is more than was asked for.
    finally:
        audience.close()
    return Watched(
        connecting=audience.let_in,
        updates=updates / count / seconds,
        gap=percentile(gaps, 99) * 1000 if gaps else float("inf"),
        problems=len(audience.problems),
        cpu=(after.cpu - before.cpu) / seconds * 100,
        memory=after.memory,
    )


def _rows(name: str, seen: Watched, judged: bool = False) -> Iterator[Row]:
    def limit(value: float) -> float | None:
        return value if judged else None

    yield Row(f"{name}: all let in", seen.connecting, "s", at_most=limit(2))
    yield Row(f"{name}: updates of each", seen.updates, "a second", at_least=limit(1.9))
    yield Row(f"{name}: gap between updates, p99", seen.gap, "ms", at_most=limit(550))
    yield Row(f"{name}: dropped", seen.problems, "viewers", at_most=limit(0))
    yield Row(f"{name}: processor time", seen.cpu, "% of a core", at_most=limit(8.5))
    yield Row(f"{name}: memory", seen.memory, "MB", at_most=limit(150))


def _beside_fuzzers(settings: Settings, count: int) -> Watched:
    with running(settings, "run", zig_root(settings), "--jobs", 1) as program:
        port = program.wait_for_port()
        wait_for_tables(port)
        return _watch(settings, port, program.pid, count)


def _beside_the_deaf(settings: Settings) -> Iterator[Row]:
    """Those who never read, at a million points, where what they do not read is large."""
    target = big_target(settings.zig, settings.work, MILLION, one_unit=True)
    name = f"{DEAF} deaf viewers, 1,000,000 PCs"
    with serving(settings, target) as program:
        port = program.wait_for_port()
        audience = Audience(port, READERS)
        deaf = []
        try:
            audience.settle()
            gap, memory = _gap_and_memory(audience, program.pid)
            deaf = [deaf_viewer(port) for _ in range(DEAF)]
            came = time.monotonic()
            gap_beside, memory_beside = _gap_and_memory(audience, program.pid)
            yield Row(f"{name}: p99 gap of others grows by", gap_beside - gap, "ms", at_most=20)
            each = (memory_beside - memory) / DEAF * 1024
            yield Row(f"{name}: memory for each", each, "KiB", at_most=256)
            ports = {viewer.getsockname()[1] for viewer in deaf}
            while ports & held(port) and time.monotonic() < came + 2 * GONE:
                time.sleep(0.1)
            yield Row(f"{name}: all are gone after", time.monotonic() - came, "s", at_most=GONE)
            yield Row(f"{name}: others dropped", len(audience.problems), "viewers", at_most=0)
        finally:
            audience.close()
            for viewer in deaf:
                viewer.close()


def _gap_and_memory(audience: Audience, pid: int) -> tuple[float, float]:
    """The 99th percentile of the gaps, in ms, and the most memory, in MB, of the next 20 seconds."""
    audience.begin()
    most = 0.0
    for _ in range(200):
        time.sleep(0.1)
        most = max(most, facts(pid).memory)
    return percentile(audience.gaps, 99) * 1000, most


def _typical_update(settings: Settings) -> Iterator[Row]:
    """What is sent when a fuzzer has found some new points of a million, to our page and to Zig's."""
    target = big_target(settings.zig, settings.work, MILLION, one_unit=True)
    name = "1,000,000 PCs: bytes of an update"
    with serving(settings, target) as program:
        port = program.wait_for_port()
        ours = _bytes_of_update(port, sec_websocket_protocol="fuzzserver")
        yield Row(name, ours, "bytes", at_most=1024)
        yield Row(name, ours, "bytes", "as Zig sends it", _bytes_of_update(port))


def _bytes_of_update(port: int, **headers: str) -> float:
    """All that comes from one update to the next, texts too, on average."""
    sizes: list[int] = []
    with RawClient(port, **headers) as viewer:
        while len(sizes) < 12:
            found = viewer.next_frame()
            if found.opcode == BINARY and found.payload[0] in UPDATES:
                sizes.append(0)
            if sizes and found.opcode in (BINARY, TEXT):
                sizes[-1] += len(found.payload)
    return sum(sizes[1:-1]) / len(sizes[1:-1])  # The first is the whole state, the last may not be all.


def _zig(settings: Settings, count: int) -> Watched:
    project = settings.work / "bench-project"
    write_project(project)
    with zig_web_server(settings.zig.path, project, settings.work / "zig-cache") as (port, pid):
        return _watch(settings, port, zig_server_pid(pid), count)


def zig_server_pid(pid: int) -> int:
    """The process that serves, below ``zig build``."""
    children = {Path(os.readlink(f"/proc/{child}/exe")).name: child for child in descendants(pid)}
    return children["build"]
