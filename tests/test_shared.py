"""What is made once for all viewers."""

import gc
import threading
import weakref

import pytest

from fuzzserver.web import shared
from fuzzserver.web.shared import Shared


class Thing:
    """Something that values are made of."""


def test_value_is_made_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each thing, also for those who ask while it is made; another version or moment makes a new one."""
    monkeypatch.setattr(shared, "MOMENT", 1000.0)
    version, made, go_on = [0], [], threading.Event()

    def make(thing: Thing) -> int:
        go_on.wait(30)
        made.append(thing)
        return len(made)

    values = Shared(make, lambda: version[0])
    one, two = Thing(), Thing()
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(values(one))) for _ in range(5)]
    for thread in threads:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert (found, made) == ([1] * 5, [one])
    assert [values(two), values(one), values(two)] == [2, 1, 2]
    version[0] += 1
    assert [values(one), values(one)] == [3, 3]
    monkeypatch.setattr(shared, "MOMENT", 0.0)
    version[0] += 1
    assert [values(one), values(one)] == [4, 5]


def test_one_that_waits_keeps_nobody_from_another() -> None:
    """The file of one target may lie on a disk that does not answer."""
    stuck, entered = threading.Event(), threading.Event()
    slow, quick = Thing(), Thing()

    def make(thing: Thing) -> str:
        if thing is slow:
            entered.set()
            stuck.wait(30)
        return "made"

    values = Shared(make, lambda: 0)
    thread = threading.Thread(target=lambda: values(slow))
    thread.start()
    assert entered.wait(30)
    assert values(quick) == "made"
    stuck.set()
    thread.join(30)


def test_things_that_are_gone_are_forgotten() -> None:
    """A map of an earlier build may be large."""
    values = Shared(lambda _: 1, lambda: 0)
    thing = Thing()
    values(thing)
    gone = weakref.ref(thing)
    del thing
    gc.collect()
    assert gone() is None
