"""Turns: so many at once, in the order of arrival."""

import threading
from collections.abc import Iterator

import pytest

from fuzzserver.fuzz.turns import Turn, Turns
from tests.support_time import WAIT, eventually


@pytest.fixture
def threads() -> Iterator[list[threading.Thread]]:
    """Threads of a test, joined at its end."""
    started: list[threading.Thread] = []
    yield started
    for thread in started:
        thread.join(WAIT)
        assert not thread.is_alive()


def queue_up(turns: Turns, threads: list[threading.Thread], order: list[str], name: str) -> None:
    """A thread that takes a turn, notes its name and gives the turn back; returns once it waits."""
    before = turns.wanted
    waiting = len(turns._queue)

    def work() -> None:
        if turns.take():
            order.append(name)
            turns.give_back()

    thread = threading.Thread(target=work)
    threads.append(thread)
    thread.start()
    eventually(lambda: len(turns._queue) > waiting, "the thread does not queue up")
    assert turns.wanted or before


def test_who_waits_longest_is_next(threads: list[threading.Thread]) -> None:
    """Turns are given in the order in which they were asked for."""
    turns, order = Turns(1), []
    assert turns.take()
    for name in "abcde":
        queue_up(turns, threads, order, name)
    assert order == []
    turns.give_back()
    for thread in threads:
        thread.join(WAIT)
    assert order == list("abcde")


def test_so_many_at_once() -> None:
    """Two turns may be held at once, and a third not before one is given back."""
    turns = Turns(2)
    assert turns.take() and turns.take()
    got = threading.Event()
    third = threading.Thread(target=lambda: turns.take() and got.set())
    third.start()
    eventually(lambda: turns.wanted, "the third does not queue up")
    assert not got.is_set()
    turns.give_back()
    assert got.wait(WAIT)
    third.join()
    assert not turns.wanted


def test_a_turn_is_over_only_when_wanted(threads: list[threading.Thread]) -> None:
    """However long it lasts, a turn is nobody's loss while nobody waits."""
    turns, order = Turns(1, slice_seconds=0.0), []
    turn = Turn(turns)
    assert turn.take()
    assert not turn.over
    queue_up(turns, threads, order, "other")
    assert turn.over
    turn.give_back()
    turn.give_back()
    threads[0].join(WAIT)
    assert order == ["other"]
    assert turn.take()


def test_a_turn_lasts_its_time(threads: list[threading.Thread]) -> None:
    """Who waits does not cut a turn short."""
    turns = Turns(1, slice_seconds=1e6)
    turn = Turn(turns)
    turn.take()
    queue_up(turns, threads, [], "other")
    assert not turn.over
    turn.give_back()


def test_close_lets_all_go() -> None:
    """Who waits when turns are closed gets none, and neither does who asks later."""
    turns = Turns(1)
    assert turns.take()
    answers: list[bool] = []
    waiting = [threading.Thread(target=lambda: answers.append(turns.take())) for _ in range(3)]
    for thread in waiting:
        thread.start()
    eventually(lambda: len(turns._queue) == 3, "they do not queue up")
    turns.close()
    for thread in waiting:
        thread.join(WAIT)
    assert answers == [False] * 3
    assert not turns.take()
