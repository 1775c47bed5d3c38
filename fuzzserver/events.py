"""What happens in a session, told to whoever subscribes: a build driver, say.

*Runs on* the thread ``events``, which the first subscriber starts. *Takes* looks at how things stand, when
something has changed and twice a second. *Gives* each subscriber what is news to it, one event after the
other, while no lock is held that it could need.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fuzzserver.findings import Finding
from fuzzserver.status import Progress, Status, TargetStatus

__all__ = [
    "CoverageEvent",
    "Event",
    "Events",
    "FindingEvent",
    "ProgressEvent",
    "StatusEvent",
    "TargetEvent",
]

log = logging.getLogger(__name__)

LOOK_INTERVAL = 0.5
"""Seconds between two looks at what changes without a word: counts of runs, coverage."""

STOP_SECONDS = 2.0
"""For subscribers to hear the last news. One may wait for what never comes, or for whoever stops us."""


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """What goes on as a whole is something else now."""

    status: Status


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """Something that people wait for has come further, or is over."""

    progress: Progress | None
    """None when it is over."""


@dataclass(frozen=True, slots=True)
class TargetEvent:
    """A target or one of its tests is in another state, or has made runs."""

    target: TargetStatus


@dataclass(frozen=True, slots=True)
class FindingEvent:
    """Something was found, or more is known of it."""

    finding: Finding
    is_new: bool
    """Whether this is the first event of this finding. It may have been found in earlier sessions, too."""


@dataclass(frozen=True, slots=True)
class CoverageEvent:
    """Coverage can be shown, or there is more of it."""

    id: str
    """The coverage file's name, as in ``TargetStatus.id``."""
    executable: Path
    points: int
    covered: int
    runs: int
    """Of all workers of the executable."""


Event = StatusEvent | ProgressEvent | TargetEvent | FindingEvent | CoverageEvent
"""What subscribers are told."""


def _subject(event: Event) -> tuple[type, str]:
    """What an event is about: of two about the same, the later one replaces the earlier."""
    match event:
        case TargetEvent(target):
            return TargetEvent, target.key
        case FindingEvent(finding):
            return FindingEvent, finding.id
        case CoverageEvent(id=coverage_id):
            return CoverageEvent, coverage_id
        case _:
            return type(event), ""


class _Subscription:
    """One subscriber, and what it was told. Used by the thread alone."""

    def __init__(self, callback: Callable[[Event], object]) -> None:
        self.callback = callback
        # The last event about each subject. That nothing is waited for is no news at first.
        self.told: dict[tuple[type, str], Event] = {(ProgressEvent, ""): ProgressEvent(None)}
        self.has_failed = False

    def news(self, event: Event) -> Event | None:
        """The event as it is to be told; None if it was."""
        subject = _subject(event)
        known = self.told.get(subject)
        if known == event:
            return None
        self.told[subject] = event
        return replace(event, is_new=known is None) if isinstance(event, FindingEvent) else event


class Events:
    """Knows all subscribers. May be used from any thread."""

    def __init__(self, look: Callable[[], Sequence[Event]]) -> None:
        """``look`` gives how things stand: an event about each thing, findings with ``is_new`` False."""
        self._look = look
        # Guards all below; notified when it changes. Never held while somebody else's code is called.
        self._condition = threading.Condition()
        self._subscriptions: list[_Subscription] = []
        self._calling: _Subscription | None = None
        self._changed = False
        self._stopping = False
        self._thread: threading.Thread | None = None

    def subscribe(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``callback`` with how things stand, then with what is news, until the result is called."""
        subscription = _Subscription(callback)

        def unsubscribe() -> None:
            with self._condition:
                if subscription in self._subscriptions:
                    self._subscriptions.remove(subscription)
                if not self.is_current_thread:
                    self._condition.wait_for(lambda: self._calling is not subscription)

        with self._condition:
            if not self._stopping:
                self._subscriptions.append(subscription)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="events", daemon=True)
                    self._thread.start()
        self.wake()
        return unsubscribe

    def wake(self) -> None:
        """Something has changed: look now."""
        with self._condition:
            self._changed = True
            self._condition.notify_all()

    @property
    def is_current_thread(self) -> bool:
        """Whether a callback is what calls this."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """Tell the last news and end the thread. A callback that calls this is told nothing more.

        One that is still at work after ``STOP_SECONDS`` is left to itself. May be called twice.
        """
        with self._condition:
            self._stopping = True
            if self.is_current_thread:
                self._subscriptions.clear()
            self._condition.notify_all()
            thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        thread.join(STOP_SECONDS)
        with self._condition:
            self._subscriptions.clear()
            calling, self._calling = self._calling, None
            if calling is not None:
                self._thread = None
                self._condition.notify_all()
        if calling is None:
            thread.join()  # If it is there at all, it looks, and calls nobody any more.
        else:
            log.warning("subscriber %r is still at work and is not waited for", calling.callback)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._wait()
            with self._condition:
                subscriptions = list(self._subscriptions)
            if not subscriptions:  # What we look at may be closed already.
                continue
            try:
                events = self._look()
            except Exception:  # A fault of ours must not end the thread.
                log.exception("cannot tell subscribers what is new")
                continue
            for subscription in subscriptions:
                self._tell(subscription, events)

    def _wait(self) -> bool:
        """Until it is time to look; returns whether it is for the last time."""
        with self._condition:
            self._condition.wait_for(lambda: self._subscriptions or self._stopping)
            self._condition.wait_for(lambda: self._changed or self._stopping, LOOK_INTERVAL)
            self._changed = False
            return self._stopping

    def _tell(self, subscription: _Subscription, events: Sequence[Event]) -> None:
        for event in events:
            news = subscription.news(event)
            if news is None:
                continue
            with self._condition:
                if subscription not in self._subscriptions:
                    return
                self._calling = subscription
            try:
                subscription.callback(news)
            except BaseException:  # Of any kind: sys.exit() in a callback is for no other subscriber either.
                if not subscription.has_failed:
                    subscription.has_failed = True
                    log.exception(
                        "subscriber %r failed; it is told the next events all the same", subscription.callback
                    )
            finally:
                with self._condition:
                    self._calling = None
                    self._condition.notify_all()
