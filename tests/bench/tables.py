"""Part ``tables``: from debug info to what a page is sent, beside Zig's own code and other programs."""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fuzzserver.wire.abi import ToClientTag
from tests.bench.big_target import Target, big_target
from tests.bench.peers import Decoder, Oracle, Peer, Symbolizer
from tests.bench.processes import memory_of_all
from tests.bench.row import Row, Settings, taking_turns
from tests.projects import fuzz_for_a_moment
from tests.support_program import Program
from tests.support_sockets import BINARY, RawClient
from tests.support_zig_cli import REPOSITORY

MILLION = 975_998
LOOK = 0.01
"""Seconds between two looks at memory."""


@dataclass(frozen=True)
class Limits:
    """What is wanted for a size, as shares of the peers'."""

    cold: float
    cold_fast: float | None
    warm: float
    memory: float
    """MB over the idle server."""
    index: float


AT_12_000 = Limits(0.9, None, 0.2, 60, 3)
AT_A_MILLION = Limits(0.25, 0.9, 0.05, 300, 0.4)


@dataclass(frozen=True)
class Prepared:
    """What it took to make tables."""

    seconds: float
    cpu: float
    memory: float
    """MB at the peak, over those of the same process before; 0 if nobody looked."""


def tables(settings: Settings) -> Iterator[Row]:
    """Each size in turn."""
    if settings.quick:
        yield from _size(settings, "1,000 PCs", big_target(settings.zig, settings.work, 1000), None)
        return
    yield from _size(settings, "12,000 PCs, made by Zig", zig_target(settings), AT_12_000)
    for one_unit, name in ((True, "1,000,000 PCs, one unit"), (False, "1,000,000 PCs, many units")):
        target = big_target(settings.zig, settings.work, MILLION, one_unit=one_unit)
        yield from _size(settings, name, target, AT_A_MILLION)


def zig_root(settings: Settings) -> Path:
    """The root file of some fuzz tests, in a folder of its own."""
    folder = settings.work / "twelve-thousand"
    folder.mkdir(exist_ok=True)
    root = folder / "twelve_thousand.zig"
    source = Path(__file__).with_name(root.name)
    if not root.exists() or root.read_bytes() != source.read_bytes():
        shutil.copy(source, root)
    return root


def zig_target(settings: Settings) -> Target:
    """What Zig makes of them."""
    pair = fuzz_for_a_moment(settings.client, zig_root(settings))
    return Target(pair.executable, pair.coverage_file)


def _size(settings: Settings, name: str, target: Target, limits: Limits | None) -> Iterator[Row]:
    debug = Oracle(settings, "Debug")
    known = target.copied(settings.folder)
    made = known.cache_root / "made"
    first = prepare(known, made)
    different = float(made.read_bytes() != debug.tables(target))
    yield Row(f"{name}: tables that differ from Zig's", different, "of 1", at_most=0)

    often, once = _peers(settings, target)
    is_big = len(target.pcs) > 100_000
    cold, warm, index, zig, *others = taking_turns(
        settings.rounds if is_big else settings.many_rounds,
        lambda: prepare(target.copied(settings.folder)).seconds,
        lambda: prepare(known).seconds,
        lambda: exec_to_index(settings, target),
        partial(debug.time, target),
        *(partial(peer.time, target) for peer in often),
    )
    others += [[peer.time(target)] for peer in once]
    theirs = min(time.seconds for time in zig)
    yield Row(f"{name}: cold", min(cold), "s", debug.name, theirs, limits and limits.cold)
    for peer, times in zip([*often, *once], others, strict=True):
        wanted = limits.cold_fast if limits and peer.name == "Zig ReleaseFast" else None
        yield Row(f"{name}: cold", min(cold), "s", peer.name, min(time.seconds for time in times), wanted)
    yield Row(f"{name}: warm", min(warm), "s", debug.name, theirs, limits and limits.warm)
    yield Row(f"{name}: processor time, cold", first.cpu, "s")
    memory = prepare(target.copied(settings.folder), look=True).memory
    yield Row(f"{name}: peak memory over idle", memory, "MB", at_most=limits and limits.memory)
    whole, wanted = min(time.whole for time in zig), limits and limits.index
    yield Row(f"{name}: exec to source_index, cold", min(index), "s", f"whole {debug.name}", whole, wanted)


def _peers(settings: Settings, target: Target) -> tuple[list[Peer], list[Peer]]:
    """Besides Zig in Debug: those who take their turns, and those who are too slow for that."""
    if settings.quick:
        return [], []
    addr2line, decoder = Symbolizer(settings, "addr2line"), Decoder(settings)
    often = [
        Oracle(settings, "ReleaseFast"),
        Symbolizer(settings, "llvm-symbolizer", "--functions=none", "--no-inlines"),
    ]
    if len(target.pcs) < 100_000:
        return [*often, addr2line], [decoder]
    # In one large unit, addr2line looks through all its ranges for each address.
    return often, [addr2line, decoder] if settings.slow else []


def prepare(target: Target, made: Path | None = None, look: bool = False) -> Prepared:
    """Make tables in a process of its own.

    ``made`` is where to write them, ``look`` says whether to measure memory, which takes time.
    """
    coverage_id = int.from_bytes(bytes.fromhex(target.coverage_file.name), "little")
    arguments = [target.executable, f"{coverage_id:x}", target.cache_root, *([made] if made else [])]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.prepare", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    with process:
        try:
            assert process.stdin is not None and process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            before = memory_of_all(process.pid)
            over = threading.Event()
            peaks = [before]

            def watch() -> None:
                while not over.wait(LOOK):
                    peaks.append(memory_of_all(process.pid))

            watcher = threading.Thread(target=watch)
            if look:
                watcher.start()
            process.stdin.write("go\n")
            process.stdin.flush()
            line = process.stdout.readline()
            over.set()
            if look:
                watcher.join()
                peaks.append(memory_of_all(process.pid))
            process.communicate("end\n")
        finally:
            process.kill()
    assert process.returncode == 0 and line, "making the tables failed"
    return Prepared(**json.loads(line), memory=max(peaks) - before)


def exec_to_index(settings: Settings, target: Target) -> float:
    """Seconds from starting the program until a viewer has the ``source_index``."""
    folder = Path(tempfile.mkdtemp(dir=settings.folder))
    coverage_file = target.copied(settings.folder).coverage_file
    started = time.perf_counter()
    program = Program(folder, "serve", "--executable", target.executable, "--coverage", coverage_file)
    try:
        while (port := program.port) is None:
            assert program.process.poll() is None, program.text
            time.sleep(0.001)
        with RawClient(port, sec_websocket_protocol="fuzzserver") as viewer:
            viewer.socket.settimeout(120)
            while viewer.frame_with(BINARY).payload[0] != ToClientTag.SOURCE_INDEX:
                pass
            return time.perf_counter() - started
    finally:
        program.close()
