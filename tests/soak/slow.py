"""Part ``slow``: five hundred clients that take their time, by slowhttptest, and one that does not."""

import http.client
import subprocess
import threading
import time
from collections.abc import Iterator

from tests.soak.row import Row, Settings, none_of, percentile
from tests.soak.servers import fuzzing
from tests.support_facts import facts, held, peak, reset_peak
from tests.support_web import request

SECONDS = 30
LONGEST = 7.0
"""Seconds after which the server must have let go of each of them."""
PROBE = 0.05
"""Seconds in which the other client must be answered."""
PATIENCE = 10.0
"""Seconds for those who are still connected at the end."""
GROWTH = 64
"""MB that so many threads may take: one that sends a large answer shares it with the others."""
LOOK = 0.2
"""Seconds between two looks at who is still connected."""

# Each reads some bytes in five seconds of an answer that no buffer can take.
READ = ("-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3")
ATTACKS = {
    "slow head": ("-H", "/", "-i", "10"),
    "slow body": ("-B", "/", "-i", "10", "-s", "8192"),
    "slow reading of sources": ("-X", "/sources.tar", *READ),
    "slow reading of wasm": ("-X", "/debug/main.wasm", *READ),
}


def slow(settings: Settings) -> Iterator[Row]:
    """Attack in each way."""
    count = settings.some(500)
    with fuzzing(settings, "slow", "--jobs", 1) as program:
        port = program.wait_for_port()
        program.wait_for("entry point at")
        assert request(port, "/debug/main.wasm").status == 200
        for name, (mode, path, *options) in ATTACKS.items():
            attack = [
                *("slowhttptest", mode, "-c", str(count), "-r", str(count), "-l", str(SECONDS)),
                *("-p", "5", "-u", f"http://127.0.0.1:{port}{path}", *options),
            ]
            memory = facts(program.pid).memory
            reset_peak(program.pid)
            longest, seen, latencies, failures = _attack(attack, port)
            yield Row(
                f"{name}: {count} connections closed",
                f"each <= {LONGEST:.0f} s",
                f"{seen} seen, longest {longest:.1f} s",
                0 < longest <= LONGEST + LOOK,
            )
            p99 = percentile(latencies, 99)
            yield Row(
                f"{name}: probe p99", f"< {PROBE * 1000:.0f} ms",
                f"{p99 * 1000:.1f} ms of {len(latencies)}", 0 < p99 < PROBE,
            )  # fmt: skip
            yield none_of(f"{name}: probes that failed", failures)
            growth = peak(program.pid) - memory
            yield Row(
                f"{name}: growth of memory at its peak", f"< {GROWTH} MB", f"{growth:.0f} MB", growth < GROWTH
            )


def _attack(attack: list[str], port: int) -> tuple[float, int, list[float], list[str]]:
    """Attack, and look. How long the longest connection was held, how many were seen, and the probes."""
    latencies: list[float] = []
    failures: list[str] = []
    over = threading.Event()

    def probe() -> None:
        due = time.monotonic()
        while not over.wait(max(0.0, due - time.monotonic())):
            due += 1
            started = time.monotonic()
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/")
                response = connection.getresponse()
                response.read()
                connection.close()
                if response.status != 200:
                    failures.append(f"status {response.status}")
            except (OSError, http.client.HTTPException) as error:
                failures.append(repr(error))
            latencies.append(time.monotonic() - started)

    begun: dict[int, float] = {}
    lives: list[float] = []
    thread = threading.Thread(target=probe)
    thread.start()
    started = moment = time.monotonic()
    with subprocess.Popen(attack, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            while moment < started + SECONDS or (begun and moment < started + SECONDS + PATIENCE):
                moment = time.monotonic()
                now = held(port)
                lives += [moment - begun.pop(remote) for remote in begun.keys() - now]
                for remote in now - begun.keys():
                    begun[remote] = moment
                time.sleep(LOOK)
        finally:
            process.kill()
            over.set()
            thread.join()
    lives += [moment - since for since in begun.values()]
    return max(lives, default=0.0), len(lives), latencies, failures
