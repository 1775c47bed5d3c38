"""The history: the same as a simple model tells, bounded, and kept from one start to the next."""

import itertools
import logging
import os
import random
import statistics
import struct
import threading
import time
import zlib
from array import array
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzserver.coverage import history as history_module
from fuzzserver.coverage.history import (
    MAX_MARKS,
    MAX_SAMPLES,
    SAMPLE_INTERVAL,
    Cursor,
    History,
    newly_covered,
)
from fuzzserver.coverage.history_file import MAGIC, MAX_FILES, Mark
from fuzzserver.coverage.seen_pcs import SeenPcsSnapshot
from fuzzserver.wire.abi import HistoryHeader, HistorySample

POINTS = 70
NAME = "00112233445566ff"


def snapshot(n_runs: int, seen: set[int] | range = range(0), unique_runs: int = 0) -> SeenPcsSnapshot:
    """A snapshot of 70 points, of which some are covered."""
    bits = sum(1 << point for point in seen)
    return SeenPcsSnapshot(n_runs, unique_runs, bits.to_bytes(16, "little"))


def new_history(path: Path | None = None) -> History:
    """A history that has begun."""
    history = History(POINTS, path)
    history.begin(1000.0, "start", "first")
    return history


def stamps(history: History) -> dict[int, int]:
    """The points that are covered, and since when."""
    return {point: when for point, when in enumerate(history.first_covered) if when}


def received(history: History, cursor: Cursor | None, had: list[HistorySample]) -> Cursor:
    """Change ``had`` as a client does, by the message since ``cursor``."""
    cursor, whole, message = history.since(cursor)
    if message is None:
        assert not whole
        return cursor
    header = HistoryHeader.parse(message)
    size = HistorySample.LAYOUT.size
    samples = [HistorySample.parse(message[start:]) for start in range(8, len(message), size)]
    assert header == HistoryHeader(whole, len(samples))
    if whole:
        had.clear()
    had += samples
    return cursor


@given(st.binary(min_size=24, max_size=24), st.binary(min_size=24, max_size=24))
def test_new_bits_are_found(before, now):
    """Those that are set now and were not; also in the highest bit of a word."""
    one, other = (int.from_bytes(bits, "little") for bits in (before, now))
    expected = [index for index in range(192) if (other & ~one) >> index & 1]
    assert newly_covered(before, now).tolist() == expected
    assert newly_covered(now, now) == array("I")


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.1, 0.5, 1.0, 1.5, 60.0]),
        st.integers(0, 3),
        st.sets(st.integers(0, POINTS - 1), max_size=4),
        st.sampled_from(["go on", "go on", "go on", "go on", "reset", "look anew"]),
    ),
    max_size=40,
)


@given(STEPS)
def test_a_history_is_what_a_simple_model_tells(steps):
    """Stamps, samples and flags after any looks, with resets and with workers that join."""
    history = new_history()
    moment, n_runs, seen = 1000.0, 0, set()
    times: dict[int, int] = {}
    looks: list[tuple[float, int, int]] = []
    seams = []
    had: list[HistorySample] = []
    cursor = None
    unseen = True
    for seconds, runs, points, what in steps:
        moment += seconds
        if what == "reset":
            seen, n_runs = set(), 0
        elif what == "look anew":
            history.look_anew()
            unseen = True
        seen, n_runs = seen | points, n_runs + runs
        history.record(moment, snapshot(n_runs, seen))
        times = {point: times.get(point, 1 if unseen else int(moment)) for point in seen}
        assert stamps(history) == times
        if unseen:
            seams.append(moment)
        unseen = False
        looks.append((moment, n_runs, len(seen)))
        cursor = received(history, cursor, had)
        assert had == history.samples
    samples = history.samples
    assert [sample.time for sample in samples] == sorted({sample.time for sample in samples})
    assert {sample.time for sample in samples} <= {moment for moment, _, _ in looks}
    by_time = {moment: (n_runs, covered) for moment, n_runs, covered in looks}
    for sample in samples:
        assert (sample.n_runs, sample.covered) == by_time[sample.time]
    flagged = {sample.time for sample in samples if sample.flags}
    assert set(seams) <= flagged
    fell = [b.time for a, b in itertools.pairwise(samples) if b.n_runs < a.n_runs]
    assert flagged == {*seams, *fell}
    for first, before, after in zip(samples[:1] + samples, samples, samples[1:], strict=False):
        ends_a_pause = (first.n_runs, first.covered) == (before.n_runs, before.covered)
        assert after.flags or after.time - before.time >= SAMPLE_INTERVAL or ends_a_pause
    _nothing_is_missed(looks, samples)


def _nothing_is_missed(looks: list[tuple[float, int, int]], samples: list[HistorySample]) -> None:
    """Each look has a sample at or before it that says the same, or was made a moment before it."""
    for moment, n_runs, covered in looks:
        last = [sample for sample in samples if sample.time <= moment][-1]
        same = (last.n_runs, last.covered) == (n_runs, covered)
        assert same or moment - last.time < SAMPLE_INTERVAL


def test_nothing_new_is_no_sample():
    """While the fuzzer pauses, nothing grows; the line is flat until it goes on."""
    history = new_history()
    for second in range(10):
        history.record(1000.0 + second, snapshot(5, {1}))
    assert [sample.time for sample in history.samples] == [1000.0]
    history.record(1010.0, snapshot(6, {1}))
    assert [(sample.time, sample.n_runs) for sample in history.samples] == [(1000, 5), (1009, 5), (1010, 6)]


def test_samples_are_a_second_apart_and_stamps_are_not():
    """Many looks a second make times exact, and no more samples than a second has."""
    history = new_history()
    for look in range(40):
        history.record(1000 + look / 4, snapshot(look, range(look)))
    assert len(history.samples) == 10
    assert history.first_covered[:6].tolist() == [1000, 1000, 1000, 1001, 1001, 1001]


def test_a_clock_that_is_set_back_takes_all_with_it():
    """The page needs ascending times, none in the future; nothing is lost, and readers get all anew."""
    history = new_history()
    had: list[HistorySample] = []
    for second in range(10):
        history.record(1000.0 + second, snapshot(second))
    cursor = received(history, None, had)
    history.mark(1008.0, "restart", "again")
    history.record(1004.5, snapshot(20))
    cursor = received(history, cursor, had)
    assert [sample.time for sample in had] == [995.5 + second for second in range(10)]
    assert [mark.time for mark in history.marks] == [995.5, 1003.5]
    history.record(1005.5, snapshot(20))
    received(history, cursor, had)
    assert (len(had), had[-1]) == (11, HistorySample(1005.5, 20, had[-1].unique_runs, 0))
    # A pause during which the clock goes back.
    for moment in (1006, 1009, 1007.5):
        history.record(moment, snapshot(20 + (moment == 1007.5)))
    times = [sample.time for sample in history.samples]
    assert times == sorted(times)


def test_a_reader_gets_what_it_has_not_got():
    """All at first, then what is new, then nothing; an empty history, too, replaces what there was."""
    history = new_history()
    cursor, whole, message = history.since(None)
    assert (whole, message) == (True, HistoryHeader(True, 0).serialize())
    assert history.since(cursor)[1:] == (False, None)
    history.record(1000.0, snapshot(5, {1, 2}, 3))
    cursor, whole, message = history.since(cursor)
    sample = HistorySample(1000.0, 5, 3, 2, HistorySample.START)
    assert (whole, message) == (False, HistoryHeader(False, 1).serialize() + sample.serialize())
    assert history.since(cursor) == (cursor, False, None)
    assert history.since(None)[1:] == (True, HistoryHeader(True, 1).serialize() + sample.serialize())


def test_a_long_run_stays_bounded_and_whole():
    """Half a day, a look each second: few samples, the first and the last among them, evenly apart."""
    history = new_history()
    had: list[HistorySample] = []
    cursor = None
    count = 12 * 3600
    for second in range(count):
        history.record(1000.0 + second, snapshot(second))
        if second % 501 == 0:
            cursor = received(history, cursor, had)
    received(history, cursor, had)
    samples = history.samples
    assert had == samples
    assert MAX_SAMPLES // 2 < len(samples) <= MAX_SAMPLES
    assert (samples[0].time, samples[0].flags) == (1000.0, HistorySample.START)
    assert samples[-1].time == 1000.0 + count - 1
    gaps = [after.time - before.time for before, after in itertools.pairwise(samples)]
    assert set(gaps[-MAX_SAMPLES // 2 :]) == {1.0}
    # 2000 samples for the rest would be 21 seconds apart.
    assert max(gaps) <= 4 * 21
    assert sum(sample.flags for sample in samples) == 1


def test_thinning_keeps_seams():
    """Where nobody looked, no line leads, though the sample there is gone; long pauses cost nothing."""
    samples = []
    moment = 0.0
    for index in range(4000):
        moment += 100_000 if index in (501, 1302) else 1
        samples.append(HistorySample(moment, index, 0, 0, int(index in (0, 501, 777, 1302, 1999))))
    thin = history_module.thinned(samples)
    assert thin[0] == samples[0]
    assert [replace_flags(sample) for sample in thin[-2000:]] == [
        replace_flags(sample) for sample in samples[-2000:]
    ]
    assert 400 < len(thin) - 2000 <= 1000
    flagged = [sample for sample in thin if sample.flags]
    assert [sample.n_runs for sample in flagged[:1]] == [0]
    for seam, sample in zip((0, 501, 777, 1302, 1999), flagged, strict=True):
        assert seam <= sample.n_runs <= seam + 16


def replace_flags(sample: HistorySample) -> tuple[float, int]:
    """What does not change when a flag is handed on."""
    return sample.time, sample.n_runs


def test_samples_at_one_moment_are_thinned_out_too():
    """It ends, whatever the times are."""
    assert len(history_module.thinned([HistorySample(5.0, 1, 1, 1)] * 4000)) == 2001


def test_marks_are_bounded():
    """The last 500, in order; the tuple is another one when something was added."""
    history = new_history()
    before = history.marks
    assert before == (Mark(1000.0, "start", "first"),)
    assert history.marks is before
    for index in range(MAX_MARKS + 20):
        history.mark(2000.0 + index, "restart", "x" * 5000)
    assert history.marks is not before
    assert [mark.time for mark in history.marks] == [2020.0 + index for index in range(MAX_MARKS)]
    assert {len(mark.text) for mark in history.marks} == {1000}
    assert history.marks[0].to_json() == {"time": 2020.0, "kind": "restart", "text": "x" * 1000}


def test_the_next_start_goes_on(tmp_path):
    """Samples, marks and times of the start before; points that were covered meanwhile have no time."""
    path = tmp_path / "not" / "yet" / NAME
    first = new_history(path)
    first.record(1001.0, snapshot(1, {0}))
    first.record(1002.0, snapshot(5, {0, 1, 2}))
    first.record(1010.0, snapshot(9, {0, 1, 2, 9}))
    first.mark(1010.5, "restart", "t\u00e4st")
    first.save()
    assert stamps(first) == {0: 1, 1: 1002, 2: 1002, 9: 1010}
    second = History(POINTS, path)
    second.begin(5000.0, "start", "second")
    assert second.samples == first.samples
    had: list[HistorySample] = []
    cursor = received(second, None, had)
    # Point 2 is gone: the coverage file was made anew in between.
    second.record(5000.0, snapshot(7, {0, 1, 5, 9}))
    received(second, cursor, had)
    assert stamps(second) == {0: 1, 1: 1002, 5: 1, 9: 1010}
    assert had == [*first.samples, HistorySample(5000.0, 7, 0, 4, HistorySample.START)]
    second.record(5001.0, snapshot(8, {0, 1, 2, 5, 9}))
    assert stamps(second)[2] == 5001
    assert [mark.text for mark in second.marks] == ["first", "t\u00e4st", "second"]


def test_workers_that_come_one_by_one_bring_their_times(tmp_path):
    """At the next start the first worker is counted alone; what the others had covered has its time."""
    path = tmp_path / NAME
    first = new_history(path)
    first.record(1001.0, snapshot(1))
    first.record(1002.0, snapshot(5, {0, 1, 2, 3}))
    first.save()
    second = History(POINTS, path)
    second.begin(5000.0, "start", "second")
    second.record(5000.0, snapshot(2, {0}))
    second.save()
    assert stamps(second) == {0: 1002}
    killed = History(POINTS, path)
    killed.begin(5001.0, "start", "the second was killed at once")
    killed.record(5001.0, snapshot(2, {0, 1, 2, 3}))
    assert stamps(killed) == dict.fromkeys(range(4), 1002)
    second.record(5001.0, snapshot(3, {0, 1}))
    second.look_anew()
    second.record(5002.0, snapshot(4, {0, 1, 2, 8}))
    assert stamps(second) == {0: 1002, 1: 5001, 2: 1002, 8: 1}


def test_a_start_that_finds_the_same_numbers_is_a_seam(tmp_path):
    """Even if nothing was fuzzed in between."""
    path = tmp_path / NAME
    first = new_history(path)
    first.record(1001.0, snapshot(1, {0}))
    first.save()
    second = History(POINTS, path)
    second.begin(1001.2, "start", "second")
    second.record(1001.2, snapshot(1, {0}))
    assert [(sample.time, sample.flags) for sample in second.samples] == [(1001.0, 1), (1001.2, 1)]


def test_beginning_again_keeps_what_is_in_memory(tmp_path):
    """A map that is shown again, after another build, goes on where it stopped."""
    history = new_history(tmp_path / NAME)
    history.record(1001.0, snapshot(1, {0}))
    history.begin(1005.0, "build", "again")
    history.record(1006.0, snapshot(1, {0, 3}))
    assert stamps(history) == {0: 1, 3: 1}
    assert [sample.time for sample in history.samples] == [1001.0, 1006.0]


def test_nothing_is_written_before_it_begins_or_without_need(tmp_path, monkeypatch):
    """Another server's file is safe from a map that nobody shows."""
    clock = 1000.0
    monkeypatch.setattr(history_module, "time", SimpleNamespace(monotonic=lambda: clock))
    path = tmp_path / NAME
    history = History(POINTS, path)
    history.record(1.0, snapshot(1))
    history.save()
    assert not path.exists()
    history.begin(2.0, "start", "x")
    history.save()
    path.unlink()
    history.save()
    assert not path.exists()
    history.record(3.0, snapshot(2))
    clock += 9.9
    history.save_if_due()
    assert not path.exists(), "it was written less than ten seconds ago"
    clock += 0.2
    history.save_if_due()
    assert path.exists()


def test_a_history_without_a_path_is_in_memory(tmp_path, monkeypatch):
    """Nothing is written anywhere."""
    monkeypatch.chdir(tmp_path)
    history = new_history()
    history.record(1001.0, snapshot(1, {0}))
    history.save()
    assert list(tmp_path.iterdir()) == []


def saved(path: Path) -> bytes:
    """A history file of some content."""
    history = new_history(path)
    for second in range(5):
        history.record(1001.0 + second, snapshot(second * 10, range(second)))
    history.save()
    return path.read_bytes()


def test_a_damaged_file_is_not_used(tmp_path, caplog):
    """Cut off at any byte, or with any byte changed: a line in the log, and an empty history."""
    path = tmp_path / NAME
    whole = saved(path)
    damaged = [whole[:length] for length in range(len(whole))]
    for index in range(len(whole)):
        damaged.append(whole[:index] + bytes([whole[index] ^ 0x10]) + whole[index + 1 :])
    damaged += [whole + b"x", whole + whole, b"", MAGIC, whole.replace(b" 1\n", b" 2\n", 1)]
    used = 0
    for data in damaged:
        path.write_bytes(data)
        caplog.clear()
        history = History(POINTS, path)
        history.begin(2000.0, "start", "x")
        if history.samples:
            used += 1
            continue
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert f"'{path}' is of no use" in caplog.text
        assert history.first_covered == array("I", bytes(4 * POINTS))
        assert len(history.marks) == 1
    # A byte of the compressor's own header, whose value nobody depends on, may be another.
    assert used <= 2


@pytest.mark.parametrize("seed", range(3))
def test_any_content_is_not_used(tmp_path, seed):
    """Whole, but nonsense inside: lengths that lie, times out of order, marks that are none."""
    rng = random.Random(seed)
    path = tmp_path / NAME
    body = zlib.decompress(saved(path)[len(MAGIC) :])
    for _ in range(200):
        changed = bytearray(body)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        path.write_bytes(MAGIC + zlib.compress(bytes(changed)))
        history = History(POINTS, path)
        history.begin(2000.0, "start", "x")
        times = [sample.time for sample in history.samples]
        assert times == sorted(times)
        history.record(2001.0, snapshot(3, {1}))
        history.since(None)
    for head in ((0, POINTS, 0), (0xFFFFFFFF,) * 3):
        path.write_bytes(MAGIC + zlib.compress(struct.pack("<III", *head) + body[12:]))
        history = History(POINTS, path)
        history.begin(2000.0, "start", "x")
        assert history.samples == []


def test_a_file_that_unpacks_to_far_too_much_is_not_used(tmp_path, monkeypatch):
    """A bomb is not unpacked."""
    monkeypatch.setattr("fuzzserver.coverage.history_file._MAX_BODY", 1000)
    path = tmp_path / NAME
    path.write_bytes(MAGIC + zlib.compress(bytes(10**6)))
    assert new_history(path).samples == []


def test_the_file_of_another_executable_is_not_used(tmp_path, caplog):
    """It has another number of points."""
    path = tmp_path / NAME
    saved(path)
    history = History(POINTS + 1, path)
    history.begin(2000.0, "start", "x")
    assert history.samples == []
    assert "is of 70 points, not of 71" in caplog.text


def test_a_folder_that_cannot_be_written_is_told_of_once(tmp_path, caplog):
    """The history goes on in memory, and is written when it can be."""
    (tmp_path / "history").write_text("a file in the way")
    history = new_history(tmp_path / "history" / NAME)
    for second in range(3):
        history.record(1001.0 + second, snapshot(second))
        history.save()
    warnings = [record.getMessage() for record in caplog.records if "is lost" in record.getMessage()]
    assert len(warnings) == 1
    assert len(history.samples) == 3
    (tmp_path / "history").unlink()
    history.save()
    again = new_history(history.path)
    assert again.samples == history.samples


def test_histories_of_old_builds_are_removed(tmp_path):
    """The newest files stay; what is not ours is let alone."""
    (tmp_path / "keep me").touch()
    for index in range(MAX_FILES + 5):
        path = tmp_path / f"{index:016x}"
        path.touch()
        os.utime(path, (1000 + index, 1000 + index))
    new_history(tmp_path / NAME).save()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"keep me", NAME, *(f"{index:016x}" for index in range(6, MAX_FILES + 5))}


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_what_is_kept_is_what_was(tmp_path_factory, steps):
    """Any history is read as it was written."""
    path = tmp_path_factory.getbasetemp() / "round-trip" / NAME
    path.unlink(missing_ok=True)
    history = new_history(path)
    moment, seen = 1000.0, set()
    for seconds, runs, points, _ in steps:
        moment += seconds
        seen |= points
        history.record(moment, snapshot(runs, seen))
    history.save()
    again = new_history(path)
    assert again.samples == history.samples
    assert again.first_covered == history.first_covered
    assert again.marks[:-1] == history.marks


def _points_of(bits: bytes | bytearray) -> list[int]:
    """The points that are covered, found out in the slowest way."""
    return [point for point in range(8 * len(bits)) if bits[point >> 3] >> (point & 7) & 1]


def test_a_million_points_that_do_not_change_cost_nothing():
    """Looked at twice a second for days: comparing must be cheap, and so must be a few new points."""
    points = 1_000_000
    bits = bytearray(os.urandom(points // 8))
    history = History(points, None)
    history.begin(1.0, "start", "x")
    history.record(2.0, SeenPcsSnapshot(1, 1, bytes(bits)))
    begun = time.thread_time()
    _points_of(bits)
    one_pass = time.thread_time() - begun
    snapshots = [SeenPcsSnapshot(count, 1, bytes(bits)) for count in range(2, 22)]
    times = []
    for count, each in enumerate(snapshots):
        begun = time.thread_time()
        history.record(3.0 + count, each)
        times.append(time.thread_time() - begun)
    assert statistics.median(times) < one_pass / 20
    at = next(index for index, byte in enumerate(bits) if byte == 0)
    bits[at] = 0x81
    history.record(50.0, SeenPcsSnapshot(99, 1, bytes(bits)))
    assert [point for point, when in enumerate(history.first_covered) if when == 50] == [at * 8, at * 8 + 7]


def test_the_first_look_at_a_million_points_is_quick(tmp_path):
    """A map is not shown before; with times of the last start, and of points that are not covered now."""
    points = 1_000_000
    bits = os.urandom(points // 8)
    begun = time.thread_time()
    covered = _points_of(bits)
    one_pass = time.thread_time() - begun
    first = History(points, tmp_path / NAME)
    first.begin(1.0, "start", "x")
    begun = time.thread_time()
    first.record(2.0, SeenPcsSnapshot(1, 1, bits))
    assert time.thread_time() - begun < 7 * one_pass
    assert [point for point, when in enumerate(first.first_covered) if when == 1] == covered
    assert first.samples[-1].covered == len(covered)
    first.save()
    second = History(points, tmp_path / NAME)
    second.begin(3.0, "start", "y")
    half = bits[: points // 16] + bytes(points // 16)
    begun = time.thread_time()
    second.record(4.0, SeenPcsSnapshot(1, 1, half))
    assert time.thread_time() - begun < 14 * one_pass
    second.look_anew()  # A worker joins.
    second.record(5.0, SeenPcsSnapshot(1, 1, bits))
    assert second.first_covered == first.first_covered


def test_readers_and_the_recorder_do_not_get_in_each_others_way(tmp_path):
    """Each reader ends with exactly the samples that there are."""
    history = new_history(tmp_path / NAME)
    ended = threading.Event()
    results: list[list[HistorySample]] = []

    def read() -> None:
        had: list[HistorySample] = []
        cursor = None
        while not ended.is_set():
            cursor = received(history, cursor, had)
        received(history, cursor, had)
        results.append(had)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for second in range(6000):
        history.record(1000.0 + second, snapshot(second, range(second % 70)))
        if second % 2000 == 0:
            history.save()
    ended.set()
    for thread in threads:
        thread.join()
    assert [had == history.samples for had in results] == [True] * 4
