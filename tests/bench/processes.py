"""What can be seen of processes from outside, besides what ``support_facts`` tells."""

import contextlib
from pathlib import Path

import psutil


def memory_of_all(pid: int) -> float:
    """MB of a process and all that it has started. What several share counts once."""
    found = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            # It may be gone by now, or end while it is looked at.
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                found += _shared_out(each.pid)
    return found / 1024


def _shared_out(pid: int) -> int:
    """KiB of a process, each page divided among those who have it (proc(5), ``smaps_rollup``)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
