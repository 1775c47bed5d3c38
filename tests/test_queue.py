"""The thread ``coverage``: messages in any order become maps and entry points."""

import dataclasses
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fuzzserver.coverage.queue import (
    CoverageFiles,
    CoverageMsg,
    EntryPointMsg,
    Loading,
    MsgQueue,
    coverage_run,
    history_run,
)
from fuzzserver.coverage.seen_pcs import SeenPcs
from fuzzserver.step import FuzzRunStep
from tests.support_native import hand_made_step
from tests.support_time import eventually


class Running:
    """A queue, its thread, and what came of it."""

    def __init__(self) -> None:
        self.queue = MsgQueue()
        self.files = CoverageFiles()
        self.errors: list[str] = []
        self.times = iter(range(100, 200))
        # Guards nothing but waiting: notified at each change and each error.
        self._changed = threading.Condition()
        self.changes = 0
        self.thread = threading.Thread(target=self._run, name="coverage")

    def _run(self) -> None:
        coverage_run(self.queue, self.files, lambda: next(self.times), self._on_error)

    def _on_error(self, error: str) -> None:
        with self._changed:
            self.errors.append(error)
            self._changed.notify_all()

    def _on_change(self) -> None:
        with self._changed:
            self.changes += 1
            self._changed.notify_all()

    def wait(self, condition) -> None:
        """Wait until ``condition()`` holds; it is looked at after each change and each error."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout=60), self.errors

    def settle(self) -> None:
        """Wait until all that was posted is done: the queue is worked through in order."""
        count = len(self.errors)
        nothing = Path("/nothing")
        self.queue.post(CoverageMsg(2**64 - 1, FuzzRunStep("settle", nothing, coverage_file=nothing)))
        self.wait(lambda: len(self.errors) > count)
        assert "'settle'" in self.errors[-1]
        self.errors.pop()

    def start(self) -> None:
        """Watch, then start the thread."""
        self.files.watch(self._on_change)
        self.thread.start()

    def stop(self) -> None:
        """End the thread and close all files."""
        self.queue.close()
        self.thread.join(60)
        assert not self.thread.is_alive()
        self.files.close()


@pytest.fixture
def running(nothing_left) -> Iterator[Running]:
    """A started thread, which is ended and leaves nothing behind."""
    running = Running()
    running.start()
    yield running
    running.stop()


def messages(pair) -> tuple[CoverageMsg, list[EntryPointMsg]]:
    """What the workers of a pair post."""
    entry_points = [EntryPointMsg(pair.coverage_id, addr) for addr in pair.entry_points]
    return CoverageMsg(pair.coverage_id, pair.step), entry_points


def entry_points_of(running: Running, coverage_id: int) -> tuple[int, ...]:
    """The entry points of a map."""
    coverage_map = running.files.get(coverage_id)
    assert coverage_map is not None
    return coverage_map.entry_points


def test_a_map_and_its_entry_points(running, debug_pair):
    """The usual order: coverage id, then the test; the watcher hears of each."""
    coverage, entry_points = messages(debug_pair)
    running.queue.post(coverage)
    running.wait(lambda: running.changes == 1)
    coverage_map = running.files.get(debug_pair.coverage_id)
    assert coverage_map is running.files.first()
    assert (coverage_map.coverage_id, coverage_map.start_timestamp) == (debug_pair.coverage_id, 100)
    for count, msg in enumerate(entry_points, 1):
        running.queue.post(msg)
        running.wait(lambda count=count: running.changes == 1 + count)
    expected = tuple(coverage_map.find_entry_point(addr) for addr in debug_pair.entry_points)
    assert coverage_map.entry_points == expected
    assert len(set(expected)) == 2
    assert running.errors == []


def test_an_entry_point_before_its_map_waits_for_it(running, debug_pair, caplog):
    """Nothing is lost when messages of several workers cross."""
    caplog.set_level(logging.INFO)
    coverage, entry_points = messages(debug_pair)
    for msg in (*entry_points, coverage):
        running.queue.post(msg)
    running.wait(lambda: running.changes == 3)
    assert len(entry_points_of(running, debug_pair.coverage_id)) == 2
    assert f"entry point 0x{debug_pair.entry_points[0]:x} waits for coverage map" in caplog.text
    assert running.errors == []


def test_a_map_that_failed_may_succeed_later(running, debug_pair, tmp_path):
    """The coverage file came late: entry points that were posted meanwhile are kept for it."""
    path = tmp_path / "late"
    step = FuzzRunStep("late one", debug_pair.executable, coverage_file=path)
    _, entry_points = messages(debug_pair)
    running.queue.post(CoverageMsg(debug_pair.coverage_id, step))
    running.wait(lambda: len(running.errors) == 1)
    assert "step 'late one': failed to prepare code coverage tables: cannot open" in running.errors[0]
    for msg in entry_points:
        running.queue.post(msg)
    running.queue.post(CoverageMsg(debug_pair.coverage_id, step))
    running.wait(lambda: len(running.errors) == 2)
    assert running.errors[1].endswith("(2 entry points wait for it)")
    path.write_bytes(debug_pair.coverage_file.read_bytes())
    running.queue.post(CoverageMsg(debug_pair.coverage_id, step))
    running.wait(lambda: running.changes == 3)
    assert len(entry_points_of(running, debug_pair.coverage_id)) == 2


def test_the_same_coverage_id_loads_once(running, debug_pair):
    """Two workers of one executable may write one file: the first message makes the map."""
    coverage, entry_points = messages(debug_pair)
    running.queue.post(coverage)
    running.wait(lambda: running.changes == 1)
    first = running.files.first()
    n_runs = first.read().n_runs
    running.queue.post(coverage)
    running.queue.post(coverage)
    running.queue.post(entry_points[0])
    running.wait(lambda: running.changes == 2)
    assert running.files.get(debug_pair.coverage_id) is first
    assert first.read().n_runs == n_runs
    assert running.errors == []


def test_workers_with_caches_of_their_own_are_joined(running, debug_pair, tmp_path):
    """The second worker's runs are added to the map that the first one made."""
    coverage, _ = messages(debug_pair)
    (tmp_path / "v").mkdir()
    shutil.copy(debug_pair.coverage_file, tmp_path / "v")
    running.queue.post(coverage)
    running.queue.post(CoverageMsg(debug_pair.coverage_id, coverage.run, tmp_path))
    running.settle()
    alone = SeenPcs(debug_pair.coverage_file)
    assert running.files.first().read().n_runs == 2 * alone.read().n_runs
    alone.close()
    running.queue.post(CoverageMsg(debug_pair.coverage_id, coverage.run, tmp_path / "nowhere"))
    running.wait(lambda: len(running.errors) == 1)
    assert "cannot open coverage file" in running.errors[0]


def test_the_newest_build_of_a_target_is_shown(running, debug_pair, safe_pair):
    """A rebuild takes the place of the build before it, which can still be had by its id."""
    old, new = (
        CoverageMsg(pair.coverage_id, dataclasses.replace(pair.step, key="same"))
        for pair in (debug_pair, safe_pair)
    )
    for msg, coverage_id in ((old, old.coverage_id), (new, new.coverage_id), (old, old.coverage_id)):
        running.queue.post(msg)
        running.settle()
        assert running.files.first().coverage_id == coverage_id
    assert running.files.get(new.coverage_id) is not None


def test_a_build_with_the_same_points_on_other_lines(running, debug_pair, tmp_path):
    """An executable with the same id is read anew: where its points are may have changed."""
    coverage, entry_points = messages(debug_pair)
    copy = shutil.copy(debug_pair.executable, tmp_path / "test")
    running.queue.post(coverage)
    running.settle()
    first = running.files.first()
    step = dataclasses.replace(coverage.run, rebuilt_executable=Path(copy))
    running.queue.post(CoverageMsg(debug_pair.coverage_id, step))
    running.queue.post(entry_points[0])
    running.settle()
    second = running.files.get(debug_pair.coverage_id)
    assert second is not first
    assert second.executable == Path(copy)
    assert len(second.entry_points) == 1
    assert first.read().n_runs == second.read().n_runs


def test_a_duplicate_entry_point_appears_once(running, debug_pair):
    """A worker that starts anew reports its test again; nobody is told of no change."""
    coverage, (first, second) = messages(debug_pair)
    for msg in (coverage, first, first, second, first):
        running.queue.post(msg)
    running.settle()
    assert len(entry_points_of(running, debug_pair.coverage_id)) == 2
    assert running.changes == 3


def test_two_executables_have_two_maps(running, debug_pair, safe_pair):
    """Each has its own entry points, and the one that came first stays first."""
    for fuzzed in (debug_pair, safe_pair):
        coverage, entry_points = messages(fuzzed)
        for msg in (coverage, *entry_points):
            running.queue.post(msg)
    running.wait(lambda: running.changes == 6)
    assert running.files.first() is running.files.get(debug_pair.coverage_id)
    assert running.files.get(safe_pair.coverage_id) is not running.files.first()
    assert len(entry_points_of(running, safe_pair.coverage_id)) == 2


def test_an_entry_point_in_an_empty_table_is_an_error(running, debug_pair, tmp_path):
    """The map is there, the error is reported, and the thread goes on."""
    step = hand_made_step(tmp_path, debug_pair.normal_executable, [])
    running.queue.post(CoverageMsg(5, step))
    running.queue.post(EntryPointMsg(5, 0x1000))
    running.wait(lambda: running.changes == 1 and len(running.errors) == 2)
    assert "lists no PCs" in running.errors[0]
    assert "no instrumented PCs" in running.errors[1]
    assert entry_points_of(running, 5) == ()


def test_a_bad_entry_point_does_not_cost_those_that_wait_with_it(running, debug_pair):
    """Each of the entry points that came before their map is answered by itself, in order."""
    first, second = debug_pair.entry_points
    for addr in (second, 0x10, first):
        running.queue.post(EntryPointMsg(debug_pair.coverage_id, addr))
    running.queue.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
    running.wait(lambda: running.changes == 3)
    assert len(entry_points_of(running, debug_pair.coverage_id)) == 2
    assert [error for error in running.errors if "0x10" in error]


def test_garbage_does_not_end_the_thread(running, debug_pair, tmp_path, caplog):
    """Files that are nothing, and messages that are none, are errors; the next message works."""
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"garbage" * 100)
    for step in (
        FuzzRunStep("no executable", garbage, coverage_file=debug_pair.coverage_file),
        FuzzRunStep("no coverage file", debug_pair.executable, coverage_file=garbage),
        FuzzRunStep("nowhere", debug_pair.executable),
    ):
        running.queue.post(CoverageMsg(5, step))
    running.queue.post("no message")  # type: ignore[arg-type]
    running.wait(lambda: len(running.errors) == 4)
    assert "is not an ELF executable" in running.errors[0]
    assert "no coverage file" in running.errors[1]
    assert all("internal error" in error for error in running.errors[2:])
    running.queue.post(messages(debug_pair)[0])
    running.wait(lambda: running.changes == 1)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 4


def test_watchers_are_called_until_they_leave(running, debug_pair):
    """A watcher that left hears nothing; one that is twice added hears once."""
    calls: list[str] = []

    def left() -> None:
        calls.append("left")

    def stays() -> None:
        calls.append("stays")

    for watcher in (left, stays, stays):
        running.files.watch(watcher)
    running.files.unwatch(left)
    running.files.unwatch(left)
    coverage, entry_points = messages(debug_pair)
    running.queue.post(coverage)
    running.queue.post(entry_points[0])
    running.settle()
    assert calls == ["stays", "stays"]


def test_nothing_is_there_before_the_first_map(running):
    """A page that connects early finds no map."""
    assert running.files.first() is None
    assert running.files.get(1) is None
    assert not running.files.add_entry_point(1, 2)


def test_close_ends_the_thread_and_drops_what_waits(nothing_left):
    """Also when it was closed before it started, and twice; later posts are dropped."""
    running = Running()
    running.queue.post(EntryPointMsg(1, 2))
    running.queue.close()
    running.queue.close()
    running.queue.post(EntryPointMsg(1, 2))
    assert running.queue.take_all() is None
    running.start()
    running.stop()
    assert running.errors == []


def test_messages_come_in_the_order_in_which_they_were_posted():
    """One call takes all that wait."""
    queue = MsgQueue()
    posted = [EntryPointMsg(1, addr) for addr in range(5)]
    for msg in posted:
        queue.post(msg)
    assert queue.take_all() == posted


def test_maps_are_readable_while_entry_points_come(running, debug_pair):
    """A session's thread reads tables and bits without ever waiting for the thread."""
    coverage, entry_points = messages(debug_pair)
    running.queue.post(coverage)
    running.wait(lambda: running.changes == 1)
    coverage_map = running.files.first()
    seen_bits_size = len(coverage_map.read().seen_bits)
    assert seen_bits_size > 800
    lengths = set()
    for msg in entry_points * 20:
        running.queue.post(msg)
        lengths.add(len(coverage_map.entry_points_message()))
        assert len(coverage_map.read().seen_bits) == seen_bits_size
    running.settle()
    assert lengths <= {4, 8, 12}


def step_with_cache(pair, folder: Path, key: str = "") -> CoverageMsg:
    """What a worker posts that writes to a cache of its own in ``folder``."""
    (folder / "v").mkdir(exist_ok=True)
    shutil.copy(pair.coverage_file, folder / "v")
    return CoverageMsg(pair.coverage_id, dataclasses.replace(pair.step, cache_root=folder, key=key))


def kinds(coverage_map) -> list[str]:
    """The kinds of the marks of a map's history."""
    return [mark.kind for mark in coverage_map.history.marks]


def test_what_is_loading_is_told(running, debug_pair, monkeypatch):
    """The step, then how far it is; nothing before and after."""
    seen: list[Loading | None] = []

    def note(self, name, value):
        object.__setattr__(self, name, value)
        if name == "loading":
            seen.append(value)

    monkeypatch.setattr(CoverageFiles, "__setattr__", note)
    running.queue.post(messages(debug_pair)[0])
    running.settle()
    begun, *steps, ended = seen[: seen.index(None) + 1]
    assert begun == Loading("main.zig")
    assert begun.text == "Reading the debug info of main.zig"
    assert ended is None
    assert [step.name for step in steps] == ["main.zig"] * len(steps)
    assert 0 < steps[0].done <= steps[-1].done <= steps[-1].total
    assert steps == sorted(steps, key=lambda step: step.done)


def test_the_newest_map_of_each_target_is_followed(running, debug_pair, safe_pair, tmp_path):
    """A map has a history as soon as it is there; a rebuild ends that of the build before."""
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder in folders:
        folder.mkdir()
    first = step_with_cache(debug_pair, folders[0], "a")
    other = step_with_cache(safe_pair, folders[1], "b")
    running.queue.post(first)
    running.settle()
    one = running.files.first()
    assert running.files.newest() == [one]
    assert len(one.history.samples) == 1
    assert kinds(one) == ["start"]
    running.queue.post(other)
    running.settle()
    two = running.files.get(other.coverage_id)
    assert running.files.newest() == [one, two]
    running.queue.post(CoverageMsg(other.coverage_id, dataclasses.replace(other.run, key="a")))
    running.settle()
    assert running.files.newest() == [two, two]
    assert kinds(two) == ["start", "build"]
    kept = folders[0] / "fuzzserver/history" / debug_pair.coverage_file.name
    assert kept.exists(), "the old build's history was kept when it was closed"


def test_another_build_with_the_same_id_goes_on_with_the_history(running, debug_pair, tmp_path):
    """What was recorded a moment before is not lost, though the file is written every ten seconds only."""
    msg = step_with_cache(debug_pair, tmp_path, "a")
    running.queue.post(msg)
    running.settle()
    old = running.files.first()
    old.history.mark(5.0, "restart", "just before the rebuild")
    copy = shutil.copy(debug_pair.executable, tmp_path / "test")
    step = dataclasses.replace(msg.run, rebuilt_executable=Path(copy))
    running.queue.post(CoverageMsg(msg.coverage_id, step))
    running.settle()
    new = running.files.first()
    assert new is not old
    assert kinds(new) == ["start", "restart", "build"]
    assert [sample.flags for sample in new.history.samples] == [1, 1]


def test_a_map_that_is_shown_again_goes_on(running, debug_pair, safe_pair, tmp_path):
    """One build, another, and the first again, as a revert makes them."""
    first = step_with_cache(debug_pair, tmp_path, "a")
    for msg in (first, step_with_cache(safe_pair, tmp_path, "a"), first):
        running.queue.post(msg)
        running.settle()
    shown = running.files.first()
    assert shown.coverage_id == debug_pair.coverage_id
    assert kinds(shown) == ["start", "build"]


def test_histories_grow_while_the_thread_runs(running, debug_pair, tmp_path, monkeypatch, caplog):
    """New points get the time, the file is written, and a map that fails costs the others nothing."""
    monkeypatch.setattr("fuzzserver.coverage.queue.RECORD_INTERVAL", 0.01)
    running.queue.post(step_with_cache(debug_pair, tmp_path))
    running.settle()
    coverage_map = running.files.first()
    newest = running.files.newest
    faulty = SimpleNamespace(coverage_id=9, executable=Path("faulty"))
    monkeypatch.setattr(running.files, "newest", lambda: [faulty, *newest()])
    bits = coverage_map.read().seen_bits
    at = next(index for index, byte in enumerate(bits[:-8]) if byte == 0)
    stopped = threading.Event()
    thread = threading.Thread(target=history_run, args=(running.files, stopped), name="history")
    begun = int(time.time())
    thread.start()
    try:
        with (tmp_path / "v" / debug_pair.coverage_file.name).open("r+b") as file:
            file.seek(24 + at)
            file.write(b"\x01")
        eventually(lambda: coverage_map.history.first_covered[8 * at], "a new point gets no time")
    finally:
        stopped.set()
        thread.join(60)
    assert begun <= coverage_map.history.first_covered[8 * at] <= time.time()
    assert (tmp_path / "fuzzserver/history" / debug_pair.coverage_file.name).exists()
    told = [record for record in caplog.records if "cannot record" in record.getMessage()]
    assert [record.getMessage() for record in told] == ["cannot record the coverage of 'faulty'"]
