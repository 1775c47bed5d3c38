"""Requests that nobody would send, thousands of them, at a server in a process of its own."""

import os
from pathlib import Path

import pytest

from tests.support_mutation import MAX_GROWTH, WARM_UP, send_mutated
from tests.support_server import ServerProcess

REQUESTS = int(os.environ.get("MUTATED_REQUESTS", "10000"))
"""How many; a soak sends more."""


@pytest.mark.timeout(300 + REQUESTS // 50)
def test_mutated_requests(tmp_path: Path) -> None:
    """Each is answered by HTTP or by silence; no exception, thread, descriptor or memory is left behind."""
    with ServerProcess(tmp_path) as server:
        resources = server.resources
        send_mutated(server.port, range(-WARM_UP, 0))
        server.settle(resources)
        memory = server.memory
        outcome = send_mutated(server.port, range(REQUESTS))
        server.settle(resources)
        growth = server.memory - memory
        errors = server.errors
    print(f"{REQUESTS} requests: {sorted(outcome.statuses.items())}, {growth / 1024:.0f} KiB more memory")
    assert outcome.faults == []
    assert errors == []
    assert growth < MAX_GROWTH
    # Nothing failed, and of what matters, good and bad, there was enough.
    assert outcome.statuses[500] == outcome.statuses[503] == 0
    assert min(outcome.statuses[status] for status in (0, 101, 200, 400, 404, 405, 421)) > REQUESTS // 200
