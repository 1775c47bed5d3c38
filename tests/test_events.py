"""What subscribers are told, when, and what they may do about it."""

import logging
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzserver import (
    CoverageEvent,
    CoverageMsg,
    Event,
    Finding,
    FindingEvent,
    FindingStore,
    FuzzRunStep,
    Observer,
    Progress,
    ProgressEvent,
    Status,
    StatusEvent,
    TargetEvent,
    TargetStatus,
    TestStatus,
    events,
)
from tests.projects import FuzzedPair
from tests.support_time import WAIT, eventually

TARGET = TargetStatus("key", "parser", "fuzzing", tests=(TestStatus("test.a", "fuzzing", n_runs=1),))
FINDING = Finding(
    id="0123456789ab",
    kind="panic",
    message="boom",
    target="parser",
    test="test.a",
    first_time=100.0,
    last_time=100.0,
)


class Heard:
    """A subscriber that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._condition = threading.Condition()

    def __call__(self, event: Event) -> None:
        """Keep an event."""
        with self._condition:
            self.events.append(event)
            self._condition.notify_all()

    def until(self, is_it: Callable[[Event], bool]) -> Event:
        """Wait for an event that is the one; returns it."""
        with self._condition:
            assert self._condition.wait_for(lambda: any(map(is_it, self.events)), WAIT), self.events
            return next(filter(is_it, self.events))

    def until_status(self, text: str) -> None:
        """Wait until the status is this one: all that was told before has come, too."""
        self.until(lambda event: isinstance(event, StatusEvent) and event.status.text == text)

    def of(self, kind: type) -> list[Event]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end, subscribers get all the time that they need on a busy machine."""
    monkeypatch.setattr(events, "STOP_SECONDS", WAIT)


@pytest.fixture
def observer(nothing_left: None) -> Iterator[Observer]:
    """A started observer that must leave nothing behind."""
    with Observer() as observer:
        yield observer


def event_threads() -> list[threading.Thread]:
    """The threads that tell events."""
    return [thread for thread in threading.enumerate() if thread.name == "events"]


def test_nobody_subscribed_costs_nothing(observer: Observer, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no thread, and nobody looks, before the first subscriber comes or after the last has gone."""
    monkeypatch.setattr(events, "LOOK_INTERVAL", 0.001)
    looks = []
    monkeypatch.setattr(observer._events, "_look", lambda: looks.append(1) or [])
    observer.set_status("fuzzing", "x")
    assert event_threads() == []
    unsubscribe = observer.subscribe(lambda event: None)
    assert len(event_threads()) == 1
    unsubscribe()
    count = len(looks)
    often = threading.Semaphore(0)
    others = events.Events(lambda: often.release() or [])
    others.subscribe(lambda event: None)
    for _ in range(20):  # While another one looks so often, this one would, too.
        observer.set_status("fuzzing", "y")
        assert often.acquire(timeout=WAIT)
    others.stop()
    assert len(looks) <= count + 1  # One was under way.
    observer.stop()
    assert event_threads() == []


def test_how_things_stand_then_news(observer: Observer) -> None:
    """A late subscriber knows as much as an early one; what has not changed is not told again."""
    early, late = Heard(), Heard()
    observer.subscribe(early)
    early.until_status("Waiting for a fuzzer to report its coverage.")
    observer.set_target(TARGET)
    observer.set_progress(Progress("compiling", 1, 3))
    observer.set_status("building", "one")
    early.until_status("one")
    observer.subscribe(late)
    late.until_status("one")
    assert late.events == [
        TargetEvent(TARGET),
        ProgressEvent(Progress("compiling", 1, 3)),
        StatusEvent(Status("building", "one")),
    ]
    moved = replace(TARGET, tests=(replace(TARGET.tests[0], n_runs=2),))
    observer.set_target(moved)  # Runs alone wake nobody; they are told with the next look.
    observer.set_progress(None)
    observer.set_status("building", "two")
    for each in (early, late):
        each.until_status("two")
        assert each.of(TargetEvent) == [TargetEvent(TARGET), TargetEvent(moved)]
        assert each.of(ProgressEvent)[-2:] == [
            ProgressEvent(Progress("compiling", 1, 3)),
            ProgressEvent(None),
        ]
        texts = [event.status.text for event in each.events if isinstance(event, StatusEvent)]
        assert texts[-2:] == ["one", "two"]


def test_counts_are_told_without_a_word(observer: Observer) -> None:
    """Nobody is notified when only runs go on; the next look sees them."""
    heard = Heard()
    observer.set_target(TARGET)
    observer.subscribe(heard)
    heard.until(lambda event: isinstance(event, TargetEvent))
    moved = replace(TARGET, tests=(replace(TARGET.tests[0], n_runs=77),))
    observer.set_target(moved)
    heard.until(lambda event: event == TargetEvent(moved))


def test_problems_are_part_of_the_status(observer: Observer, tmp_path: Path) -> None:
    """What goes wrong with coverage is told, as it is shown on the page."""
    heard = Heard()
    observer.subscribe(heard)
    step = FuzzRunStep("parser", tmp_path / "gone", cache_root=tmp_path)
    observer.post(CoverageMsg(1, step))
    event = heard.until(lambda event: isinstance(event, StatusEvent) and "parser" in event.status.text)
    assert isinstance(event, StatusEvent)
    assert "failed to prepare code coverage tables" in event.status.text


def test_findings_of_this_session(observer: Observer, tmp_path: Path) -> None:
    """New ones, and known ones that were found again, are new once; what is learnt of them follows."""
    before = FindingStore(tmp_path)
    before.add(FINDING, b"old")
    before.add(replace(FINDING, id="beef"), b"never again")
    store = FindingStore(tmp_path, observer.notify)
    heard = Heard()
    observer.set_findings(store)
    observer.subscribe(heard)
    fresh = store.add(replace(FINDING, id="cafe"), b"new")
    heard.until(lambda event: event == FindingEvent(fresh, is_new=True))
    learnt = store.update("cafe", lambda each: replace(each, reproduces=True))
    heard.until(lambda event: event == FindingEvent(learnt, is_new=False))
    again = store.add(FINDING, b"old")
    heard.until(lambda event: event == FindingEvent(again, is_new=True))
    assert [event.finding.id for event in heard.events if isinstance(event, FindingEvent)] == [
        "cafe",
        "cafe",
        FINDING.id,
    ]


def test_every_finding_is_told_before_the_end(tmp_path: Path, nothing_left: None) -> None:
    """However slow a subscriber is, it hears of each finding, before the status that came after them."""
    with Observer() as observer:
        store = FindingStore(tmp_path, observer.notify)
        observer.set_findings(store)
        heard = Heard()
        working, go_on = threading.Event(), threading.Event()

        def slow(event: Event) -> None:
            if not working.is_set():
                working.set()
                assert go_on.wait(WAIT)
            heard(event)

        observer.subscribe(slow)
        assert working.wait(WAIT)
        ids = [f"{number:x}" for number in range(1, 41)]
        for each in ids:
            store.add(replace(FINDING, id=each), b"")
        observer.set_status("stopped", "over")
        go_on.set()
    told = [event.finding.id for event in heard.events if isinstance(event, FindingEvent)]
    assert sorted(told) == sorted(ids)
    assert heard.events[-1] == StatusEvent(Status("stopped", "over"))


def test_a_finding_that_comes_while_we_look(observer: Observer, tmp_path: Path) -> None:
    """A finding and the end right behind it, just when the findings were read, are told in this order."""

    class LateStore(FindingStore):
        is_late = False

        def all(self) -> list[Finding]:
            findings = super().all()
            if self.is_late:
                self.is_late = False
                self.add(FINDING, b"")
                observer.set_status("stopped", "over")
            return findings

    store = LateStore(tmp_path, observer.notify)
    observer.set_findings(store)
    heard = Heard()
    store.is_late = True
    observer.subscribe(heard)
    heard.until_status("over")
    assert heard.events[-2:] == [
        FindingEvent(FINDING, is_new=True),
        StatusEvent(Status("stopped", "over")),
    ]


def test_coverage(observer: Observer, debug_pair: FuzzedPair) -> None:
    """It is told when there is something to show, with the numbers of the coverage file, and once."""
    heard = Heard()
    observer.subscribe(heard)
    observer.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
    event = heard.until(lambda event: isinstance(event, CoverageEvent))
    report = observer.report()
    (target,) = report.targets
    assert event == CoverageEvent(
        debug_pair.coverage_file.name,
        debug_pair.executable,
        len(target.points),
        target.points.covered_len,
        target.runs,
    )
    assert event.covered > 0 and event.runs >= 100
    observer.set_status("fuzzing", "later")
    heard.until_status("later")
    assert heard.of(CoverageEvent) == [event]


def test_a_queue_is_told_at_once(observer: Observer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever would rather wait than be called reads a queue. What is said waits for no look."""
    monkeypatch.setattr(events, "LOOK_INTERVAL", 10 * WAIT)
    told: queue.SimpleQueue[Event] = queue.SimpleQueue()
    observer.subscribe(told.put)
    assert isinstance(told.get(timeout=WAIT), StatusEvent)
    observer.set_status("fuzzing", "x")
    assert told.get(timeout=WAIT) == StatusEvent(Status("fuzzing", "x"))


def test_callbacks_may_call_everything(observer: Observer, tmp_path: Path) -> None:
    """No lock is held while they run, also where one is held while others are notified."""
    store = FindingStore(tmp_path, observer.notify)
    observer.set_findings(store)
    done = threading.Event()

    def call_all(event: Event) -> None:
        if isinstance(event, FindingEvent):
            if event.is_new:
                store.update(event.finding.id, lambda each: replace(each, reproduces=True))
                return
            unsubscribe = observer.subscribe(lambda event: None)
            observer.set_status("fuzzing", "from a callback")
            observer.set_target(TARGET)
            observer.status_json()
            assert len(observer.report().findings) == 1
            unsubscribe()
            done.set()

    observer.subscribe(call_all)
    store.add(FINDING, b"")
    assert done.wait(WAIT)


def test_callbacks_that_fail(observer: Observer, caplog: pytest.LogCaptureFixture) -> None:
    """Each is logged once and told on; others are told all the same; even an exit ends nothing."""
    calls = []

    def fail(event: Event) -> None:
        calls.append(event)
        raise ValueError("a fault of the subscriber")

    heard = Heard()
    observer.subscribe(fail)
    observer.subscribe(lambda event: sys.exit(1))
    observer.subscribe(heard)
    with caplog.at_level(logging.ERROR):
        for text in ("one", "two"):
            observer.set_status("fuzzing", text)
            heard.until_status(text)
    assert len(calls) >= 2
    assert len([each for each in caplog.records if "subscriber" in each.message]) == 2
    assert "a fault of the subscriber" in caplog.text


def test_a_fault_of_ours_ends_nothing(
    observer: Observer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that fails is logged, and the next one tells what is new."""
    heard = Heard()
    look = observer._events._look
    faults = iter([KeyError("a fault of ours")])

    def careless_look() -> object:
        for fault in faults:
            raise fault
        return look()

    monkeypatch.setattr(observer._events, "_look", careless_look)
    observer.subscribe(heard)
    observer.set_status("fuzzing", "x")
    heard.until_status("x")
    assert "a fault of ours" in caplog.text


def test_nothing_is_called_after_unsubscribe(observer: Observer) -> None:
    """It waits for a call that is under way; what comes later is for the others."""
    working, go_on, over = threading.Event(), threading.Event(), threading.Event()
    calls = []

    def work(event: Event) -> None:
        calls.append(event)
        working.set()
        assert go_on.wait(WAIT)

    def leave() -> None:
        unsubscribe()
        over.set()

    unsubscribe = observer.subscribe(work)
    assert working.wait(WAIT)
    thread = threading.Thread(target=leave)
    thread.start()
    assert not over.wait(0.05)
    go_on.set()
    thread.join(WAIT)
    assert over.is_set()
    unsubscribe()  # Once more does no harm.
    count = len(calls)
    heard = Heard()
    observer.subscribe(heard)
    observer.set_status("fuzzing", "x")
    heard.until_status("x")
    assert len(calls) == count


def test_unsubscribe_in_a_callback(observer: Observer) -> None:
    """It is the last call, though there was more to tell at the time."""
    calls = []
    ready = threading.Event()

    def once(event: Event) -> None:
        assert ready.wait(WAIT)
        calls.append(event)
        unsubscribe()

    heard = Heard()
    observer.set_target(TARGET)
    unsubscribe = observer.subscribe(once)
    ready.set()
    observer.subscribe(heard)
    observer.set_status("fuzzing", "x")
    heard.until_status("x")
    assert len(calls) == 1


def test_stop_tells_the_last_news_and_no_more(nothing_left: None) -> None:
    """What was said before the stop is told before it returns, and nothing that is said later."""
    heard = Heard()
    working, go_on = threading.Event(), threading.Event()

    def slow(event: Event) -> None:
        working.set()
        assert go_on.wait(WAIT)
        heard(event)

    observer = Observer()
    observer.start()
    observer.subscribe(slow)
    assert working.wait(WAIT)
    observer.set_status("stopped", "the last words")
    thread = threading.Thread(target=observer.stop)
    thread.start()
    eventually(lambda: observer._events._stopping, "it is not stopped")
    go_on.set()
    thread.join(WAIT)
    assert heard.events[-1] == StatusEvent(Status("stopped", "the last words"))
    count = len(heard.events)
    observer.set_status("fuzzing", "too late")
    observer.stop()
    assert (len(heard.events), event_threads()) == (count, [])


def test_subscribers_that_come_too_late(nothing_left: None) -> None:
    """After the stop, no thread is started any more."""
    observer = Observer()
    observer.start()
    observer.stop()
    heard = Heard()
    unsubscribe = observer.subscribe(heard)
    assert event_threads() == []
    unsubscribe()
    assert heard.events == []


def test_stop_in_a_callback(nothing_left: None) -> None:
    """It stops all, waits for no thread of its own, and is told nothing more."""
    calls = []
    over = threading.Event()
    observer = Observer()
    observer.set_target(TARGET)

    def stop(event: Event) -> None:
        calls.append(event)
        observer.stop()
        observer.stop()
        over.set()

    with observer:
        observer.subscribe(stop)
        assert over.wait(WAIT)
    assert len(calls) == 1


def test_stop_in_a_callback_while_another_stops(nothing_left: None) -> None:
    """The one who was first waits for the callback; so the callback must not wait for it."""
    calls = []
    working, go_on = threading.Event(), threading.Event()
    observer = Observer()
    observer.set_target(TARGET)

    def stop(event: Event) -> None:
        calls.append(event)
        working.set()
        assert go_on.wait(WAIT)
        observer.stop()

    observer.start()
    observer.subscribe(stop)
    assert working.wait(WAIT)
    thread = threading.Thread(target=observer.stop)
    thread.start()
    with observer._condition:
        assert observer._condition.wait_for(lambda: observer._stopped, WAIT)
    go_on.set()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert len(calls) == 1


def test_before_the_start(nothing_left: None) -> None:
    """Subscribers may come before it, and it need not come."""
    observer = Observer()
    heard = Heard()
    observer.subscribe(heard)
    observer.set_status("building", "x")
    heard.until_status("x")
    observer.stop()


def test_a_callback_that_does_not_return(
    nothing_left: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not waited for at the end, but named; it is told no more, and may still leave."""
    monkeypatch.setattr(events, "STOP_SECONDS", 0.05)
    calls = []
    working, go_on = threading.Event(), threading.Event()

    def block(event: Event) -> None:
        calls.append(event)
        working.set()
        assert go_on.wait(WAIT)

    observer = Observer()
    observer.start()
    observer.set_target(TARGET)
    unsubscribe = observer.subscribe(block)
    assert working.wait(WAIT)
    (thread,) = event_threads()
    observer.stop()
    observer.stop()
    unsubscribe()
    (record,) = caplog.records
    assert "subscriber <function" in record.message and "block" in record.message
    assert record.message.endswith("is still at work and is not waited for")
    go_on.set()
    thread.join(WAIT)
    assert (len(calls), thread.is_alive(), len(caplog.records)) == (1, False, 1)


def test_callbacks_that_stop_each_other(nothing_left: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the other, but not for ever."""
    monkeypatch.setattr(events, "STOP_SECONDS", 0.05)
    both_work = threading.Barrier(2)
    ended = queue.SimpleQueue[Observer]()
    observers = Observer(), Observer()

    def stop(observer: Observer) -> None:
        both_work.wait(WAIT)
        observer.stop()
        ended.put(observer)

    for observer, other in (observers, observers[::-1]):
        observer.start()
        observer.subscribe(lambda event, other=other: stop(other))
    assert {ended.get(timeout=WAIT), ended.get(timeout=WAIT)} == set(observers)
    eventually(lambda: event_threads() == [], "they were told more")
