"""Watching processes that are not our children, or not any more."""

import os
import select
import sys

from tests.support_time import WAIT


def python(code: str, *args: str) -> list[str]:
    """The command line of a small child process that runs ``code``."""
    return [sys.executable, "-I", "-S", "-c", code, *args]


def wait_until_gone(pid: int) -> None:
    """Wait for the end of any process. One that nobody has reaped yet counts as ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([handle], [], [], WAIT)
        assert ready, f"process {pid} lives on"
    finally:
        os.close(handle)


def is_alive(pid: int) -> bool:
    """Whether a process runs; not so if it only waits to be reaped."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_naming(text: str) -> list[int]:
    """Processes that run and have ``text`` in their command line: children of children as well."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                command = file.read()
        except OSError:
            continue
        if text.encode() in command and is_alive(int(entry)):
            found.append(int(entry))
    return found
