"""Ports for servers that come back at the same one."""

import random
import socket
from pathlib import Path


def quiet_port() -> int:
    """A free port outside of those that the system hands out: nobody gets it while its server is away."""
    handed_out = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    end = int(handed_out.split()[0])
    ports = range(20_000, end if end > 21_000 else 32_000)
    while True:
        port = random.choice(ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
