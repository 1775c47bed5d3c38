"""Part ``eye``: from a command and a click to something to see, beside Zig's own server."""

import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from selenium import webdriver

from tests.bench.big_target import Target, big_target
from tests.bench.row import Row, Settings, taking_turns
from tests.bench.servers import running, serving
from tests.bench.tables import zig_target
from tests.projects import write_project, zig_web_server
from tests.support_audience import Audience
from tests.support_browser import PATIENCE, chromium
from tests.support_facts import facts, peak, reset_peak
from tests.support_http import connected
from tests.support_program import Program
from tests.support_web import request
from tests.support_zig_cli import REPOSITORY
from tests.support_zig_server import end_fuzzers, find_pair

ZIG = "Zig's server"
FETCHERS = 6
"""Who fetch all sources at once; the server has a place for eight."""
WRK_SECONDS = 5
IDLE_SECONDS = 30

# Both pages show their coverage in an element of this name.
NOTE_FIRST_COVERAGE = """
(() => {
  const look = () => {
    const dom = document.getElementById("statCoverage");
    if (dom?.getClientRects().length && /[0-9]/.test(dom.textContent)) window.shownAfter = performance.now();
    else requestAnimationFrame(look);
  };
  look();
})();
"""

IMPORT = "import time; start = time.perf_counter(); import fuzzserver; print(time.perf_counter() - start)"


def eye(settings: Settings) -> Iterator[Row]:
    """First what takes both servers, then what ours does alone."""
    target = big_target(settings.zig, settings.work, 1000) if settings.quick else zig_target(settings)
    if not settings.quick:
        yield from _beside_zig(settings)
    started, imported = taking_turns(
        settings.many_rounds, partial(_exec_to_listening, settings, target), _import_seconds
    )
    yield Row("exec of serve to listening", min(started), "s", at_most=0.25)
    yield Row("import fuzzserver", min(imported) * 1000, "ms", at_most=80)
    with serving(settings, target, new_points=0) as program:
        for path in ("/", "/main.js"):
            rate = _requests_per_second(program.wait_for_port(), path, 1 if settings.quick else WRK_SECONDS)
            yield Row(f"GET {path}, 8 connections", rate, "a second", at_least=5000)
        cpu = _idle_cpu(program, 2 if settings.quick else IDLE_SECONDS)
        yield Row("idle with one viewer: processor time", cpu, "% of a core", at_most=1)


def _beside_zig(settings: Settings) -> Iterator[Row]:
    """What both servers do with the same executable, coverage file and sources."""
    project = settings.work / "bench-project"
    write_project(project)
    zig_cache = settings.work / "zig-cache"
    with zig_web_server(settings.zig.path, project, zig_cache) as (zig, pid):
        step, coverage_id = find_pair(project)
        names = tarfile.open(fileobj=io.BytesIO(request(zig, "/sources.tar").body)).getnames()
        shown = ("--executable", step.rebuilt_executable, "--coverage", step.coverage_file_path(coverage_id))
        sources = [part for name in names for part in ("--source", Path("/", name))]
        with running(settings, "serve", *shown, *sources) as program:
            port = program.wait_for_port()
            ours, theirs = _seconds_to_coverage(settings, port, zig)
            yield Row("page: navigation to first coverage, warm", ours, "s", ZIG, theirs, at_most=0.5)
            end_fuzzers(pid)
            yield from _wasm(settings, port, zig)
            yield from _sources(settings, program, zig)


def _seconds_to_coverage(settings: Settings, *ports: int) -> list[float]:
    """Of each of the pages, in a browser that has seen it before."""
    profile = Path(tempfile.mkdtemp(dir=settings.folder))
    with chromium(profile) as browser:
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": NOTE_FIRST_COVERAGE})
        loads = [partial(_load, browser, f"http://127.0.0.1:{port}/") for port in ports]
        for load in loads:
            load()
        return [min(seconds) for seconds in taking_turns(settings.many_rounds, *loads)]


def _load(browser: webdriver.Chrome, url: str) -> float:
    browser.get("about:blank")
    browser.get(url)
    deadline = time.monotonic() + PATIENCE
    while (found := browser.execute_script("return window.shownAfter")) is None:
        assert time.monotonic() < deadline, f"{url} shows no coverage"
        time.sleep(0.05)
    return float(found) / 1000


def _wasm(settings: Settings, port: int, zig: int) -> Iterator[Row]:
    def best(port: int) -> tuple[float, int]:
        # One after the other, or the most of so short a time is what a processor takes to wake up.
        return min(_fetch(port, "/main.wasm") for _ in range(5))

    ours, theirs = taking_turns(settings.many_rounds, partial(best, port), partial(best, zig))
    yield Row("/main.wasm, unchanged", min(ours)[0], "s", ZIG, min(theirs)[0], at_most=0.05)
    size, zig_size = ours[0][1] / 1000, theirs[0][1] / 1000
    yield Row("/main.wasm: size on the wire", size, "KB", at_most=250)
    yield Row("/main.wasm: size on the wire", size, "KB", ZIG, zig_size)


def _sources(settings: Settings, program: Program, zig: int) -> Iterator[Row]:
    port = program.wait_for_port()
    counts = [len(tarfile.open(fileobj=io.BytesIO(request(each, "/sources.tar").body)).getnames())
              for each in (port, zig)]  # fmt: skip
    yield Row("/sources.tar: files", counts[0], "files", ZIG, counts[1], at_most=1, at_least=1)
    ours, theirs = taking_turns(
        settings.many_rounds, partial(_fetch, port, "/sources.tar"), partial(_fetch, zig, "/sources.tar")
    )
    yield Row(f"/sources.tar, {ours[0][1] / 1e6:.0f} MB", min(ours)[0], "s", ZIG, min(theirs)[0], at_most=0.5)
    before = facts(program.pid).memory
    reset_peak(program.pid)
    with ThreadPoolExecutor(FETCHERS) as fetchers:
        sizes = {size for _, size in fetchers.map(_fetch, [port] * FETCHERS, ["/sources.tar"] * FETCHERS)}
    assert sizes == {ours[0][1]}, sizes
    growth = peak(program.pid) - before
    yield Row(f"/sources.tar: memory for {FETCHERS} at once", growth, "MB more", at_most=8)


def _fetch(port: int, path: str) -> tuple[float, int]:
    """How many seconds it takes to get this as a browser asks for it, and how many bytes are sent.

    They are counted and not looked at: a client that takes its time would hide what the server takes.
    """
    head = (
        f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Accept-Encoding: gzip, deflate, br, zstd",
        "Connection: close", "", "",
    )  # fmt: skip
    buffer = bytearray(1 << 20)
    started = time.perf_counter()
    with connected(port) as connection:
        connection.sendall("\r\n".join(head).encode())
        size = connection.recv_into(buffer)
        assert buffer.startswith(b"HTTP/1.1 200 "), f"{path} is {bytes(buffer[:200])!r}"
        while received := connection.recv_into(buffer):
            size += received
    return time.perf_counter() - started, size


def _exec_to_listening(settings: Settings, target: Target) -> float:
    """Seconds from starting the program until it has told its port, which it does when it listens."""
    folder = Path(tempfile.mkdtemp(dir=settings.folder))
    target = target.copied(settings.folder)
    started = time.perf_counter()
    program = Program(folder, "serve", "--executable", target.executable, "--coverage", target.coverage_file)
    try:
        while program.port is None:
            assert program.process.poll() is None, program.text
            time.sleep(0.001)
        return time.perf_counter() - started
    finally:
        program.close()


def _import_seconds() -> float:
    """In a Python that has only started."""
    command: Sequence[str] = [sys.executable, "-c", IMPORT]
    return float(subprocess.run(command, stdout=subprocess.PIPE, cwd=REPOSITORY, check=True).stdout)


def _requests_per_second(port: int, path: str, seconds: int) -> float:
    """What wrk gets answered over connections that it keeps."""
    assert shutil.which("wrk"), "wrk is not installed"
    command = ["wrk", "-t1", "-c8", f"-d{seconds}s", f"http://127.0.0.1:{port}{path}"]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "Non-2xx" not in told and "Socket errors" not in told, told
    found = re.search(r"Requests/sec: +([0-9.]+)", told)
    assert found, told
    return float(found[1])


def _idle_cpu(program: Program, seconds: float) -> float:
    """Percent of a core while somebody watches a coverage file at rest."""
    audience = Audience(program.wait_for_port(), 1)
    try:
        time.sleep(1)  # It has been sent all that there is.
        before = facts(program.pid).cpu
        time.sleep(seconds)
        return (facts(program.pid).cpu - before) / seconds * 100
    finally:
        audience.close()
