"""From a failure to a finding: noted, counted, and handed on to be looked at."""

import hashlib
import logging
import threading
import time

from fuzzserver.corpus import form_of
from fuzzserver.errors import InputError
from fuzzserver.findings import Finding, FindingStore
from fuzzserver.fuzz.analysis import Analysis
from fuzzserver.fuzz.failure import Failure
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.fuzz.worker import WorkerEnd
from fuzzserver.zig.installation import Zig

__all__ = ["Recorder"]

log = logging.getLogger(__name__)

MAX_STDERR = 64 * 1024
"""Characters of last words that a finding keeps."""


MAX_FINDINGS = 100
"""Findings of one test that are kept: more of them are the same few faults, which we cannot tell to be so."""


class Recorder:
    """Notes what workers break. May be used from any thread."""

    def __init__(self, findings: FindingStore, analysis: Analysis, zig: Zig) -> None:
        self._findings = findings
        self._analysis = analysis
        self._zig = zig
        # Guards ``found``.
        self._lock = threading.Lock()
        self._full: set[str] = set()
        self.found: list[str] = []
        """Ids of the findings of this session, in the order in which they came."""

    def note(self, command: TestCommand, end: WorkerEnd, failure: Failure, data: bytes) -> int:
        """Note a failure of a worker on the input ``data``; returns how many findings the test has."""
        moment = time.time()
        finding = Finding(
            id=self._id(command, end.test.name, failure),
            kind=failure.kind,
            message=failure.message,
            target=command.name,
            test=end.test.name,
            first_time=moment,
            last_time=moment,
            n_runs=end.total_runs,
            stack=failure.stack,
            stderr=end.stderr[-MAX_STDERR:],
            build=command.to_json(),
            place=failure.place,
            exact=self._zig.release.stores_lengths,
            form=form_of(self._zig.release),
        )
        count = self.count(command, end.test.name)
        if count >= MAX_FINDINGS and self._findings.get(finding.id) is None:
            if end.test.name not in self._full:
                self._full.add(end.test.name)
                log.error("'%s' has %d findings; new ones are not kept", end.test.name, count)
            return count
        try:
            finding = self._findings.add(finding, data)
        except InputError as error:
            log.error("%s; the finding is kept in memory only, until it can be written", error)
        self._tell(finding)
        self._analysis.add(command, finding, failure, data)
        return self.count(command, end.test.name)

    def _id(self, command: TestCommand, test: str, failure: Failure) -> str:
        """The id of the finding that this failure is.

        Zig cannot always tell where a worker was that was interrupted: then it is taken for what is known
        to hang, or to use too much memory, in the same test.
        """
        if failure.kind in ("hang", "out of memory"):
            known = [
                each
                for each in self._findings.all()
                if (each.target, each.test, each.kind) == (command.name, test, failure.kind)
            ]
            nowhere = [each for each in known if not each.stack]
            if known and not failure.frames:
                return known[0].id
            if nowhere and len(known) == 1:
                return nowhere[0].id
        return _finding_id(command, test, failure)

    def _tell(self, finding: Finding) -> None:
        """Log it, once in a session."""
        with self._lock:
            if finding.id in self.found:
                return
            self.found.append(finding.id)
        again = f" (found before, {finding.count} times in all)" if finding.count > 1 else ""
        log.error(
            "finding %s: %s in '%s': %s%s", finding.id, finding.kind, finding.test, finding.message, again
        )

    def count(self, command: TestCommand, test: str) -> int:
        """How many findings a test has, earlier sessions included."""
        return sum(each.target == command.name and each.test == test for each in self._findings.all())


def _finding_id(command: TestCommand, test: str, failure: Failure) -> str:
    text = "\0".join((command.name, test, failure.fingerprint))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
