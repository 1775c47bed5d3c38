"""How long to wait before the next worker, after some that ended by themselves."""

from fuzzserver.fuzz.failure import Failure, FuzzerFault, Killed, failure_of
from fuzzserver.fuzz.worker import WorkerEnd

__all__ = ["MAX_DEATHS", "Backoff", "blames_the_test", "result_of"]

MAX_DEATHS = 5
"""Workers in succession that end without a single run, after which no more are started, if it is the test's
fault. A disk that is full, or a folder that is gone, may not stay so: then there is always another try."""

FIRST_DELAY = 0.25
LEAST_LONGEST_DELAY = 2.0
LONGEST_DELAY = 10.0
"""Seconds until the next worker starts: they grow, but not beyond how long the last one lived, or these."""

LONGEST_REST = 30.0
"""The same where other tests use the time."""


def result_of(end: WorkerEnd) -> Failure | FuzzerFault | Killed | None:
    """What the end says of the test; None if it says nothing."""
    if end.why == "hang" or end.why == "out of memory":
        return failure_of(end.why, end.status, end.stderr, end.how)
    if end.why == "ended" and end.status is not None:
        return failure_of("ended", end.status, end.stderr, fuzzer_log=end.fuzzer_log)
    return None


def blames_the_test(end: WorkerEnd) -> bool:
    """Whether the end has to do with the test, and not with the machine or with Zig's fuzzer."""
    return end.why == "protocol" or isinstance(result_of(end), Failure)


class Backoff:
    """Of one test."""

    def __init__(self) -> None:
        self._deaths = 0
        self._delay = FIRST_DELAY

    def reset(self) -> None:
        """What has been does not count any more: it is another build, say."""
        self._deaths, self._delay = 0, FIRST_DELAY

    def note(self, end: WorkerEnd, lived: float, *, others: bool = False, is_sure: bool = True) -> float:
        """A worker lived so many seconds; returns how many to wait.

        At least half of the time is for fuzzing, unless workers fail faster than they can be started. If
        there are ``others``, tests that fuzz in the meantime, it is theirs. Not ``is_sure``: it may have made
        runs that nobody saw.
        """
        if end.n_runs:
            self._deaths = 0
        elif is_sure:
            self._deaths += 1
        if others:
            self._delay = min(max(2 * self._delay, lived), LONGEST_REST)
        else:
            self._delay = min(2 * self._delay, max(LEAST_LONGEST_DELAY, lived), LONGEST_DELAY)
        if end.status is None or self._deaths >= MAX_DEATHS:
            self._delay = LONGEST_DELAY
        return self._delay

    def gives_up(self, end: WorkerEnd) -> bool:
        """Whether it makes no sense to start one more, after this one."""
        return self._deaths >= MAX_DEATHS and blames_the_test(end)

    @property
    def deaths(self) -> int:
        """Workers in succession that ended without a single run."""
        return self._deaths
