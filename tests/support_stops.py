"""Ending the program at any moment, with a hundred clients, compilers and fuzzers at work."""

import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from fuzzserver.signals import LONGEST_END
from fuzzserver.web.server import STOP_SECONDS
from tests.support_crowd import Crowd
from tests.support_program import POLL, Program, own_page
from tests.support_time import WAIT
from tests.support_zig_cli import forget_sessions
from tests.support_zig_sources import write

REPEAT = 0.01
"""Seconds between two signals of somebody who is impatient."""

PROMISE = 3.0
"""Seconds in which the program ends, mostly, on a machine that has time for it."""

QUIET_START = 0.04
"""Seconds in which Python starts on such a machine, with a good margin."""

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
"""The documented exit codes of a session without findings."""

FINDINGS = 3
PYTHON_FAILED = 1

FINDS = """
const std = @import("std");

fn fuzzByte(_: void, input: []const u8) anyerror!void {
    for (input) |byte| if (byte == 'b') std.mem.doNotOptimizeAway(byte);
    if (std.mem.indexOfScalar(u8, input, 'b') != null) @panic("there is a b");
}

fn fuzzLetters(_: void, input: []const u8) anyerror!void {
    for (input) |byte| switch (byte) {
        'a'...'z' => std.mem.doNotOptimizeAway(byte),
        else => {},
    };
    std.time.sleep(1_000_000);
}

test "fuzz byte" {
    try std.testing.fuzz({}, fuzzByte, .{});
}

test "fuzz letters" {
    try std.testing.fuzz({}, fuzzLetters, .{});
}
"""
"""One test that finds something within a second, and one that never does."""

MOMENTS = ("", "listening at", "compiling the tests", "info: fuzzing", "error: finding")
"""What a stop may come after, by what the program says: its start, if it is nothing."""


@dataclass(frozen=True)
class Plan:
    """What is ended when, and how."""

    cold: bool
    """Whether nothing is compiled yet."""
    after: str
    """The delay begins when the program says this."""
    delay: float
    """Seconds."""
    number: signal.Signals
    again: float | None
    """Seconds after which the signal comes again, and from then on all the time; None if it comes once."""

    def __str__(self) -> str:
        again = "" if self.again is None else f", {self.again:.2f} s later again and again"
        after = self.after or "the start"
        return (
            f"{'cold' if self.cold else 'warm'}, {self.delay:.2f} s after '{after}' {self.number.name}{again}"
        )


def plans(seed: int, count: int) -> list[Plan]:
    """Random plans, always the same for a seed."""
    generator = random.Random(seed)
    found = []
    for index in range(count):
        cold = index % 3 == 0
        after = MOMENTS[index % 3 if cold else index % len(MOMENTS)]
        found.append(
            Plan(
                cold,
                after,
                generator.choice((generator.uniform(0, 0.4), generator.uniform(0, 2.5))),
                generator.choice(list(CODES)),
                generator.uniform(0, 0.5) if index % 4 == 3 else None,
            )
        )
    return found


@dataclass
class Stop:
    """How one end went."""

    seconds: float
    """From the signal to the end of the process."""
    said: str
    """The last line before the signal."""
    viewers: int = 0
    """Viewers that were told good-bye."""
    problems: list[str] = field(default_factory=list)

    def check(self, condition: object, problem: str) -> None:
        """Note a problem unless ``condition`` holds."""
        if not condition:
            self.problems.append(problem)


def slowness() -> float:
    """How many times slower than a quiet machine this one is now; at least 1."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return max(1.0, (time.monotonic() - started) / QUIET_START)


class Stops:
    """Starts and ends the program over and over."""

    def __init__(self, folder: Path, zig_cache: Path, warm: Path) -> None:
        """``warm`` is where what is not to be cold stays compiled; ``folder`` is for all else."""
        self._folder = folder
        self._zig_cache = zig_cache
        self._warm = write(warm, finds=FINDS)
        self._number = 0
        self.paces: list[float] = []
        """How long each end took, in seconds of a quiet machine."""

    def stop(self, plan: Plan) -> Stop:
        """Start the program, end it, and look at what remains."""
        self._number += 1
        folder = self._folder / str(self._number)
        before = slowness()
        program = Program(folder, *self._arguments(folder, plan))
        crowd: Crowd | None = None
        try:
            program.wait_for(plan.after)
            due = time.monotonic() + plan.delay
            while time.monotonic() < due:
                if crowd is None and program.port is not None:
                    crowd = Crowd(program.port)
                time.sleep(min(POLL, max(0.0, due - time.monotonic())))
            said = program.text
            port = program.port
            seconds = _end(program, plan)
            stop = Stop(seconds, said.rpartition("\n")[0].rpartition("\n")[2])
            self.paces.append(seconds / max(before, slowness()))
            self._judge(stop, plan, program, begun=bool(said))
            if crowd is not None:
                _judge_crowd(stop, crowd)
            if port is not None:
                _judge_port(stop, port)
        finally:
            if crowd is not None:
                crowd.close()
            program.close()
        if not stop.problems:
            shutil.rmtree(folder)
        return stop

    def _arguments(self, folder: Path, plan: Plan) -> list[object]:
        page = ["--lib-dir", own_page(folder / "lib")]
        if plan.cold:
            return ["demo", "--cache-dir", folder / "cache", *page]
        forget_sessions(self._warm.parent)
        return ["run", self._warm, "--cache-dir", self._zig_cache, *page]

    def _judge(self, stop: Stop, plan: Plan, program: Program, begun: bool) -> None:
        code, text = program.process.returncode, program.text
        stop.check(stop.seconds < LONGEST_END, f"it took {stop.seconds:.2f} s to end")
        wanted = {FINDINGS if re.search("^[1-9][0-9]* findings? in ", text, re.M) else CODES[plan.number]}
        if not begun:  # It may have been Python that was ended; it calls a SIGINT while it starts an error.
            wanted |= {-plan.number, PYTHON_FAILED}
        stop.check(code in wanted, f"the exit code is {code} and not one of {wanted}")
        if begun:
            stop.check("Traceback" not in text and "internal error" not in text, f"it said: {text}")
        stop.check(not (left := program.family()), f"these processes outlive it: {left}")
        stop.check(not (files := list(program.temporary.rglob("*"))), f"temporary files remain: {files}")
        stop.check(not (files := self._unfinished(program.temporary.parent)), f"unfinished files: {files}")

    def _unfinished(self, folder: Path) -> list[Path]:
        """What was being written, by us and by compilers."""
        project = self._warm.parent / ".zig-cache"
        caches = [project, folder / "cache", folder / "cache" / "demo" / ".zig-cache"]
        left = [path for cache in caches for path in (cache / "fuzzserver").rglob(".*")]
        return left + [path for cache in caches for path in (cache / "tmp").glob("*")]


def _end(program: Program, plan: Plan) -> float:
    """Send the signals and wait; returns how long that took."""
    started = time.monotonic()
    program.process.send_signal(plan.number)
    pause = WAIT if plan.again is None else plan.again
    while time.monotonic() < started + WAIT:
        try:
            program.process.wait(pause)
            break
        except subprocess.TimeoutExpired:
            program.process.send_signal(plan.number)
            pause = REPEAT
    return time.monotonic() - started


def _judge_crowd(stop: Stop, crowd: Crowd) -> None:
    codes = crowd.farewells()
    stop.viewers = len(codes)
    # Where the machine has no time for that, they are sent away without a word.
    is_polite = set(codes) <= {1001} or stop.seconds > STOP_SECONDS
    stop.check(is_polite, f"viewers were sent away with {codes}")


def _judge_port(stop: Stop, port: int) -> None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        stop.check(False, f"port {port} cannot be taken again: {error}")
