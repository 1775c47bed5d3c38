"""A server of which five viewers watch one coverage file, while that is harmed."""

import json
import threading
import time
from pathlib import Path

from websockets.exceptions import ConnectionClosed

from fuzzserver.coverage.seen_pcs import SeenPcsSnapshot
from fuzzserver.wire.abi import CoverageUpdateHeader, ToClientTag
from tests.support_coverage import good_bytes, good_snapshot, program, say
from tests.support_time import WAIT
from tests.support_web import viewer


class Watcher(threading.Thread):
    """A viewer that notes which states of the file it was shown, until the server goes away."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
        self.shown: dict[int, float] = {}
        """When each state came first, by its number."""
        self.wrong: list[str] = []

    def run(self) -> None:
        """Watch."""
        try:
            with viewer(self.port, ping_timeout=WAIT) as connection:
                while True:
                    message = connection.recv()
                    if isinstance(message, bytes) and message[0] == ToClientTag.COVERAGE_UPDATE:
                        self._take(message)
        except (ConnectionClosed, OSError):
            pass

    def _take(self, message: bytes) -> None:
        header = CoverageUpdateHeader.parse(message)
        number = header.unique_runs
        bits = message[CoverageUpdateHeader.LAYOUT.size :]
        if SeenPcsSnapshot(header.n_runs, number, bits) != good_snapshot(number):
            self.wrong.append(f"{header} with {bits[:20].hex()}")
        self.shown.setdefault(number, time.monotonic())


class Watched:
    """A server in a process of its own, five viewers, and a process that harms the file."""

    def __init__(self, folder: Path, seed: int, *flags: str) -> None:
        self.path = folder / "coverage"
        self.path.write_bytes(good_bytes(0))
        self.log = (folder / "log").open("w+")
        self.server = program("serve", str(self.path), *flags, stderr=self.log)
        self.harmer = program("harm", str(self.path), str(seed))
        assert self.server.stdout is not None
        port = int(self.server.stdout.readline())
        self.watchers = [Watcher(port) for _ in range(5)]
        for watcher in self.watchers:
            watcher.start()
        self.wait_for(0)

    def wait_for(self, number: int) -> float:
        """Wait until everybody has seen this state; when it came to the last one."""
        while self.server.poll() is None:
            if all(number in watcher.shown for watcher in self.watchers):
                return max(watcher.shown[number] for watcher in self.watchers)
            assert all(watcher.is_alive() for watcher in self.watchers), "a viewer was lost"
            time.sleep(0.002)
        return 0.0

    def harm(self, operations: int) -> dict:
        """Do so many things; what the file is at last."""
        return json.loads(say(self.harmer, str(operations)))

    def stop(self) -> int:
        """End all; how the server ended."""
        for process in (self.harmer, self.server):
            process.communicate()
        for watcher in self.watchers:
            watcher.join()
        self.log.seek(0)
        return self.server.returncode
