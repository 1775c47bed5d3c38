"""What can be learnt of a finding after it was noted: does it reproduce, and how long is its input?

*Runs on* the thread ``findings``. *Takes* findings as they come. *Gives* updates of the store. Fuzzing does
not wait for any of it.
"""

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

from fuzzserver.errors import FuzzServerError, Stopped
from fuzzserver.findings import Finding, FindingStore
from fuzzserver.fuzz.build import build_tests
from fuzzserver.fuzz.failure import Failure
from fuzzserver.fuzz.reproducer import Reproducer
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.process import ChildGroup

__all__ = ["Analysis", "make_reproducer"]

log = logging.getLogger(__name__)

LONGEST_HANG = 10.0
"""Seconds that a run may take here: the fuzzer found out that this input takes longer."""

MAX_TRIES = 5
"""Inputs of the same finding that are tried, until one reproduces it."""


@dataclass(frozen=True, slots=True)
class _Job:
    command: TestCommand
    finding: Finding
    failure: Failure
    data: bytes


class Analysis:
    """Reproduces findings, one after the other."""

    def __init__(self, client: ZigCompileClient, store: FindingStore, hang: float, memory: int) -> None:
        """``hang`` (seconds) and ``memory`` (bytes) are the limits at which a run counts as such."""
        self._client = client
        self._store = store
        self._hang = min(hang, LONGEST_HANG)
        self._memory = memory
        self._children = ChildGroup()
        # Guards all below; notified when they change.
        self._condition = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._busy = False
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="findings", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, command: TestCommand, finding: Finding, failure: Failure, data: bytes) -> None:
        """Look at a finding, whose last input is ``data``, unless enough is known of it."""
        if finding.reproduces is not True and finding.count <= MAX_TRIES:
            with self._condition:
                self._jobs.append(_Job(command, finding, failure, data))
                self._condition.notify_all()

    def drain(self, timeout: float) -> bool:
        """Wait until nothing is left to do; False if that takes longer than ``timeout`` seconds."""
        with self._condition:
            return self._condition.wait_for(
                lambda: self._stopped or not (self._jobs or self._busy), max(0.0, timeout)
            )

    def stop(self) -> None:
        """End what runs, forget the rest, and wait for the thread. May be called twice."""
        with self._condition:
            self._stopped = True
            self._jobs.clear()
            self._condition.notify_all()
        self._children.stop()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._busy = False
                self._condition.notify_all()
                self._condition.wait_for(lambda: self._jobs or self._stopped)
                if self._stopped:
                    return
                job = self._jobs.popleft()
                self._busy = True
            try:
                self._reproduce(job)
            except Stopped:
                pass
            except Exception as error:
                if not self._stopped:
                    unexpected = not isinstance(error, (FuzzServerError, OSError))
                    log.error("cannot reproduce finding %s: %s", job.finding.id, error, exc_info=unexpected)

    def _reproduce(self, job: _Job) -> None:
        known = self._store.get(job.finding.id)
        if known is None or known.reproduces:
            return
        started = time.monotonic()
        reproducer = make_reproducer(
            self._client, self._children, job.command, job.finding.test, self._hang, self._memory
        )
        data = self._failing_input(job, reproducer)
        if self._stopped:
            return
        argv = tuple(reproducer.argv(self._store.input_path(job.finding.id)))
        if data is None:
            self._store.update(job.finding.id, lambda each: replace(each, reproduces=False, argv=argv))
            log.warning("finding %s does not reproduce in a process of its own", job.finding.id)
            return
        stack, place = known.stack, known.place
        if not stack and (again := reproducer.run(data)) is not None:
            # Zig's fuzzer may have crashed instead of telling where it was; here is no fuzzer.
            stack, place = again.stack, again.place
        self._store.update(
            job.finding.id,
            lambda each: replace(each, reproduces=True, exact=True, argv=argv, stack=stack, place=place),
            data,
        )
        log.info(
            "finding %s reproduces with %d bytes (%.1f s): fuzzserver repro %s",
            job.finding.id, len(data), time.monotonic() - started, job.finding.id,
        )  # fmt: skip

    def _failing_input(self, job: _Job, reproducer: Reproducer) -> bytes | None:
        """What is known to fail; None if nothing is."""
        if not self._client.zig.release.stores_lengths:
            return reproducer.shortest_prefix(job.data, job.failure)
        found = reproducer.run(job.data)
        return job.data if found is not None and job.failure.same_as(found) else None


def make_reproducer(
    client: ZigCompileClient,
    children: ChildGroup,
    command: TestCommand,
    test_name: str,
    hang: float,
    memory: int,
) -> Reproducer:
    """Build what runs one test on one input. Raises a ZigError."""
    executable: Path = build_tests(client, command, "repro").path
    return Reproducer(children, executable, test_name, command.project, timeout=hang, max_memory=memory)
