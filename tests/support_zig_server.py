"""Zig's own server from outside: its processes, and what its fuzzers have left."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from fuzzserver.coverage.coverage_map import check_inputs
from fuzzserver.errors import InputError
from fuzzserver.step import FuzzRunStep


def end_fuzzers(build_pid: int) -> None:
    """Kill the test processes that Zig's build runner has started, so that the file is at rest."""
    for child in list(descendants(build_pid)):
        try:
            executable = os.readlink(f"/proc/{child}/exe")
        except OSError:
            continue  # It has just ended.
        if os.path.basename(executable) == "test":
            os.kill(child, signal.SIGKILL)
            while state(child) not in "ZX":
                time.sleep(0.01)


def state(pid: int) -> str:
    """The state letter of a process; X if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "X"


def descendants(pid: int) -> Iterator[int]:
    """All children, and theirs, but for those of what ends just then."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return
    for task in tasks:
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in map(int, children):
            yield child
            yield from descendants(child)


def find_pair(project: Path) -> tuple[FuzzRunStep, int]:
    """The executable and the coverage file that belong together, among all in a project's cache."""
    cache_root = project / ".zig-cache"
    newest = sorted((cache_root / "v").iterdir(), key=lambda path: path.stat().st_mtime)[-1]
    coverage_id = int.from_bytes(bytes.fromhex(newest.name), "little")
    for executable in (cache_root / "o").glob("*/test"):
        step = FuzzRunStep("test", executable, cache_root)
        try:
            check_inputs(step, coverage_id)
            return step, coverage_id
        except InputError:
            continue
    raise AssertionError("no executable fits the coverage file")
