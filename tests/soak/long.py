"""Part ``soak``: whether a server that runs for long takes ever more of anything."""

import contextlib
import http.client
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.row import Row, Settings, none_of
from tests.soak.servers import fuzzing
from tests.support_audience import Audience
from tests.support_facts import Facts, facts, slope
from tests.support_program import Program, touch_page
from tests.support_web import request

VIEWERS = 100
STAY = 20.0
"""Seconds that a viewer stays: five come in each second."""
PATHS = ("/", "/main.js", "/targets.json", "/findings.json", "/corpus.json", "/debug/")
LOAD, RESTART, COMPILE, SAMPLE = 1.0, 20.0, 60.0, 10.0
"""Seconds between two page loads, restarts of a fuzzer, compiles, looks at the server."""
WARM_UP = 0.25
"""The share of the time in which a server may still grow."""
MOST_GROWTH = 1.0
"""MB in an hour."""
SETTLE = 60.0
"""Seconds in which threads and files of those who have left must be gone."""


@dataclass
class _Work:
    """What is done to the server all the time, besides its viewers."""

    program: Program
    port: int
    folder: Path
    choose: random.Random = field(default_factory=lambda: random.Random(1))
    loads: int = 0
    compiles: int = 0
    restarts: int = 0
    problems: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def every(self, seconds: float, do: str) -> threading.Thread:
        """Do this as often as that, on a thread."""

        def run() -> None:
            while not self.over.wait(seconds):
                try:
                    getattr(self, do)()
                except (OSError, http.client.HTTPException) as error:
                    self.problems.append(f"{do}: {error!r}")

        thread = threading.Thread(target=run, name=do)
        thread.start()
        return thread

    def load(self) -> None:
        """Load what a page consists of."""
        for path in PATHS:
            self._get(path)
        self.loads += 1

    def compile(self) -> None:
        """Have the page's wasm compiled anew."""
        touch_page(self.folder / "lib")
        self._get("/debug/main.wasm")
        self.compiles += 1

    def restart(self) -> None:
        """Kill a fuzzer, which is started again; its coverage file is another one by then."""
        # Compilers, which are none, have the name of their cache folder in an argument of its own.
        caches = {
            pid: arg.partition(b"=")[2].decode()
            for pid in self.program.family()
            for arg in _command(pid)
            if arg.startswith(b"--cache-dir=")
        }
        if not caches:
            return
        victim = self.choose.choice(list(caches))
        os.kill(victim, signal.SIGKILL)
        for path in Path(caches[victim], "v").iterdir():
            copy = path.with_suffix(".copy")
            shutil.copy(path, copy)
            os.replace(copy, path)
        self.restarts += 1

    def _get(self, path: str) -> None:
        answer = request(self.port, path)
        if answer.status != 200:
            self.problems.append(f"{path} is {answer.status}: {answer.body[:200]!r}")


def _command(pid: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return []


def soak(settings: Settings) -> Iterator[Row]:
    """Run for so many minutes."""
    folder = settings.folder / "soak"
    with fuzzing(settings, "soak") as program:
        port = program.wait_for_port()
        program.wait_for("entry point at")
        work = _Work(program, port, folder)
        work.load()
        work.compile()
        base = facts(program.pid)
        guest = Audience(port, 1)  # Who stays all the time.
        audience = Audience(port, settings.some(VIEWERS), STAY)
        threads = [
            work.every(LOAD, "load"), work.every(RESTART, "restart"), work.every(COMPILE, "compile")
        ]  # fmt: skip
        samples: list[tuple[float, Facts]] = []
        started = time.monotonic()
        try:
            while time.monotonic() < started + 60 * settings.minutes and program.process.poll() is None:
                time.sleep(SAMPLE)
                samples.append((time.monotonic() - started, facts(program.pid)))
        finally:
            work.over.set()
            audience.close()
            guest.close()
            for thread in threads:
                thread.join()
            yield from _rows(samples, base, work, audience, guest)


def _rows(
    samples: list[tuple[float, Facts]], base: Facts, work: _Work, audience: Audience, guest: Audience
) -> Iterator[Row]:
    program = work.program
    problems = [*work.problems, *audience.problems, *guest.problems]
    if "Traceback" in program.text or "internal error" in program.text:
        problems.append(program.text[-2000:])
    if program.process.poll() is None:
        yield from _flat(samples)
        yield from _back(program, base)
    else:
        problems.append(f"the server has ended with {program.process.returncode}")
    yield none_of(
        f"errors: {audience.connects} viewers, {guest.updates} updates of one who stayed, {work.loads} page "
        f"loads, {work.compiles} compiles, {work.restarts} restarts of a fuzzer",
        problems,
    )


def _flat(samples: list[tuple[float, Facts]]) -> Iterator[Row]:
    warm = [(at / 3600, each.memory) for at, each in samples if at > WARM_UP * samples[-1][0]]
    if len(warm) < 3:
        yield Row("growth of memory", f"< {MOST_GROWTH} MB/h", "too short a time to tell", False)
        return
    rise, error = slope(warm)
    minutes = (warm[-1][0] - warm[0][0]) * 60
    yield Row(
        f"growth of memory in the last {minutes:.0f} min",
        f"< {MOST_GROWTH:.0f} MB/h",
        f"{rise:+.1f} +- {error:.1f} MB/h, {warm[0][1]:.0f} to {warm[-1][1]:.0f} MB",
        rise - 2 * error < MOST_GROWTH,
    )


def _back(program: Program, base: Facts) -> Iterator[Row]:
    deadline = time.monotonic() + SETTLE
    while (now := facts(program.pid)).threads > base.threads or now.files > base.files:
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    for what, then, there in (("threads", base.threads, now.threads), ("files", base.files, now.files)):
        yield Row(f"{what} after all have left", f"<= {then}", str(there), there <= then)
