"""What can be seen of a server's process from outside."""

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

ESTABLISHED, CLOSE_WAIT = "01", "08"
"""States of a connection that its process still holds (Linux: ``tcp_states.h``)."""


@dataclass(frozen=True)
class Facts:
    """A process at one moment."""

    memory: float
    """Resident, in MB."""
    threads: int
    files: int
    """Open file descriptors."""
    cpu: float
    """Seconds of processor time so far."""


def _status(pid: int) -> dict[str, str]:
    """What Linux says of a process, by name (proc(5), ``status``)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def facts(pid: int) -> Facts:
    """As it is now."""
    status = _status(pid)
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Facts(
        int(status["VmRSS"].split()[0]) / 1024,
        int(status["Threads"]),
        len(os.listdir(f"/proc/{pid}/fd")),
        (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK"),
    )


def open_files(pid: int | str = "self") -> set[tuple[str, str]]:
    """The file descriptors of a process: the number of each, and what it leads to, which no other has."""
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # It is closed by now, as is that of this very listing.
            found.add((number, os.readlink(f"/proc/{pid}/fd/{number}")))
    return found


def reset_peak(pid: int) -> None:
    """Have ``peak`` be that of the time from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak(pid: int) -> float:
    """The most memory that a process had, in MB."""
    return int(_status(pid)["VmHWM"].split()[0]) / 1024


def held(port: int) -> set[int]:
    """The ports of the clients whose connections to a server on ``port`` it still holds."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if local == f"0100007F:{port:04X}" and state in (ESTABLISHED, CLOSE_WAIT):
            found.add(int(remote.rpartition(":")[2], 16))
    return found


def unread(port: int, client: socket.socket) -> bool:
    """Whether a server on ``port`` has yet to read some of what a client has sent."""
    ends = {port, client.getsockname()[1]}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, *addresses, _, queues, _ = line.split(maxsplit=5)
        if {int(each.rpartition(":")[2], 16) for each in addresses} == ends:
            sending, received = (int(each, 16) for each in queues.split(":"))
            if (received if addresses[0].endswith(f":{port:04X}") else sending) > 0:
                return True
    return False


def slope(values: list[tuple[float, float]]) -> tuple[float, float]:
    """The slope of a straight line through points, and its standard error."""
    n = len(values)
    mean_x = sum(x for x, _ in values) / n
    mean_y = sum(y for _, y in values) / n
    spread = sum((x - mean_x) ** 2 for x, _ in values)
    rise = sum((x - mean_x) * (y - mean_y) for x, y in values) / spread
    rest = sum((y - mean_y - rise * (x - mean_x)) ** 2 for x, y in values)
    return rise, (rest / (n - 2) / spread) ** 0.5
