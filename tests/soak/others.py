"""The parts that do what the tests do, only more of it."""

import statistics
from collections import Counter
from collections.abc import Iterator

from fuzzserver.webserver import WebServer
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig, find_zig
from tests.projects import fuzz_for_a_moment, write_project
from tests.soak.row import Row, Settings, counted, none_of
from tests.support_clients import (
    BURST,
    UPDATES,
    AiohttpClient,
    WebsocketClient,
    WebsocketsClient,
    exercise,
    npm_clients,
)
from tests.support_mutation import MAX_GROWTH, WARM_UP, send_mutated
from tests.support_program import Program
from tests.support_server import ServerProcess
from tests.support_stops import PROMISE, Plan, Stop, Stops, plans
from tests.support_tree import measure_huge_tree, write_huge_tree
from tests.support_watched import Watched

MIB = 1 << 20


def stops(settings: Settings) -> Iterator[Row]:
    """End the program at a hundred moments."""
    program = Stops(settings.folder / "stops", settings.zig_cache, settings.folder / "warm")
    done: list[tuple[Plan, Stop]] = []
    try:
        for plan in plans(2, settings.some(100)):
            done.append((plan, program.stop(plan)))
    finally:
        if done:
            yield from _stops(done)


def _stops(done: list[tuple[Plan, Stop]]) -> Iterator[Row]:
    bad = [f"{plan}: {stop.problems}" for plan, stop in done if stop.problems]
    yield counted("stops after which nothing is left", len(done) - len(bad), len(done), bad)
    seconds = [stop.seconds for _, stop in done]
    busy = max(stop.slowness for _, stop in done)
    yield Row(
        f"time to end, of a machine that was up to {busy:.1f} times too busy",
        f"<= {PROMISE:.0f} s",
        f"median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s",
        all(stop.seconds <= PROMISE * stop.slowness for _, stop in done),
    )
    told = sum(stop.viewers for _, stop in done)
    yield none_of(f"viewers, of {told}, without a good-bye", [each for each in bad if "sent away" in each])


def requests(settings: Settings) -> Iterator[Row]:
    """A million requests that nobody would send."""
    total, at_once = settings.some(1_000_000), 10_000
    statuses: Counter[int] = Counter()
    faults: list[str] = []
    with ServerProcess(settings.folder / "requests") as server:
        resources = server.resources
        send_mutated(server.port, range(-WARM_UP, 0))
        server.settle(resources)
        memory = server.memory
        try:
            for first in range(0, total, at_once):
                outcome = send_mutated(server.port, range(first, first + at_once))
                statuses += outcome.statuses
                faults += outcome.faults
        finally:
            answers = sum(statuses.values())
            yield none_of(f"of {answers:,} answers, those that were no HTTP", faults)
            yield none_of("exceptions", server.errors)
            server.settle(resources)
            growth = server.memory - memory
            yield Row(
                "growth of memory",
                f"< {MAX_GROWTH >> 20} MiB",
                f"{growth / MIB:.1f} MiB",
                growth < MAX_GROWTH,
            )
            yield Row(
                "threads and files after that", f"<= {resources}", f"{server.resources}",
                all(now <= then for now, then in zip(server.resources, resources, strict=True)),
            )  # fmt: skip
            failed = statuses[500] + statuses[503]
            yield Row("answers 500 or 503", "0", str(failed), failed == 0)


def clients(settings: Settings) -> Iterator[Row]:
    """Each client that people use, from PyPI and from npm."""
    packages = settings.folder / "clients"
    packages.mkdir()
    for client in (WebsocketsClient, WebsocketClient, AiohttpClient, *npm_clients(packages)):
        total = UPDATES + BURST
        problem = ""
        try:
            with WebServer(cache_dir=settings.zig_cache) as server:
                exercise(client, server, lambda number: None, lambda message: None)
        except AssertionError as error:
            problem = f"{error}"
        yield Row(
            f"{client.__name__}: updates seen, twice, and clean good-byes", f"{total} of {total}",
            problem or f"{total} of {total}", not problem,
        )  # fmt: skip


def tree(settings: Settings) -> Iterator[Row]:
    """An archive of a hundred thousand files, and one of two gigabytes."""
    folder = settings.folder / "tree"
    size = write_huge_tree(folder / "sources", settings.some(100_000), settings.some(2 << 30))
    client = ZigCompileClient(Zig(find_zig()), settings.zig_cache)
    pair = fuzz_for_a_moment(client, write_project(folder / "project"))
    shown = ("--executable", pair.executable, "--coverage", pair.coverage_file)
    program = Program(folder / "run", "serve", *shown, "--source", folder / "sources")
    try:
        found = measure_huge_tree(program.pid, program.wait_for_port())
    finally:
        program.close()
    yield Row(
        f"bytes of the archive, in {found.seconds:.0f} s", f"{size:,}", f"{found.sent:,}", found.sent == size
    )
    yield Row(
        "growth of memory at its peak", "< 32 MiB", f"{found.growth / MIB:.1f} MiB", found.growth < 32 * MIB
    )
    yield Row(
        "another client meanwhile, p99", "< 100 ms",
        f"{found.p99 * 1000:.1f} ms of {len(found.latencies)}", found.p99 < 0.1,
    )  # fmt: skip


def files(settings: Settings) -> Iterator[Row]:
    """Ten thousand things that happen to a coverage file with five viewers."""
    rounds, at_once = settings.some(100), 100
    folder = settings.folder / "files"
    folder.mkdir()
    watched = Watched(folder, 23)
    recoveries: list[float] = []
    try:
        for _ in range(rounds):
            told = watched.harm(at_once)
            recoveries.append(watched.wait_for(told["number"]) - told["time"])
    finally:
        status = watched.stop()
        done = len(recoveries) * at_once
        yield Row(f"how the server ended after {done:,} of them", "0", str(status), status == 0)
        wrong = [text for watcher in watched.watchers for text in watcher.wrong]
        yield none_of("wrong numbers that viewers saw", wrong)
        worst = max(recoveries, default=0.0)
        yield Row("time until a good file is shown", "< 1 s", f"worst {worst:.2f} s", 0 < worst < 1)
