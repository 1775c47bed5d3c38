"""Requests that nobody would send, thousands of them, at a server in a process of its own."""

import os
import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support_http import NotHttp, exchange, parse_responses
from tests.support_mutation import HEADS, mutated
from tests.support_server import ServerProcess

REQUESTS = int(os.environ.get("MUTATED_REQUESTS", "10000"))
"""How many; a soak sends more."""
WARM_UP = 2000
"""Requests after which a server has taken the memory that it works with."""
SLOW = 20
"""One in so many is sent byte by byte."""
CLIENTS = 4
MAX_GROWTH = 5 << 20


@dataclass
class Outcome:
    """What came back."""

    statuses: Counter[int] = field(default_factory=Counter)
    """How many answers of each status; 0 counts the connections without any."""
    faults: list[str] = field(default_factory=list)
    """What was no answer at all, and the number of the request with which to see it again."""


def send_mutated(port: int, numbers: range) -> Outcome:
    """Send the requests with these numbers, each on a connection of its own, by several clients at once."""
    outcome = Outcome()
    # Guards ``outcome``.
    lock = threading.Lock()

    def send(own: range) -> None:
        for number in own:
            data = mutated(HEADS, random.Random(number)).replace(b"HOST", b"localhost:%d" % port)
            fault, statuses = None, [0]
            try:
                received = exchange(port, data, bytewise=number % SLOW == 0)
                answers = parse_responses(received, maybe_head=b"HEAD" in data)
                statuses = [answer.status for answer in answers] or [0]
            except (NotHttp, OSError) as error:
                fault = f"request {number}: {error!r}"
            with lock:
                outcome.statuses.update(statuses)
                if fault is not None:
                    outcome.faults.append(fault)

    clients = [threading.Thread(target=send, args=(numbers[first::CLIENTS],)) for first in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return outcome


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
