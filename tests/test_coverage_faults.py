"""Everything that can happen to a watched coverage file.

Nothing of it ends the server or makes it show wrong numbers; it is said, and over when the cause is gone.
"""

import errno
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzserver.coverage import seen_pcs as seen_pcs_module
from fuzzserver.coverage.seen_pcs import JoinedSeenPcs, SeenPcs, SeenPcsSnapshot
from fuzzserver.errors import CoverageFileError
from fuzzserver.webserver import WebServer
from fuzzserver.wire.abi import SeenPcsHeader
from tests import support_coverage
from tests.support_browser import Page
from tests.support_coverage import (
    PCS,
    Harm,
    clear,
    counter,
    good_bytes,
    good_snapshot,
    opened_in,
    plain_map,
    plain_user,
    say,
)
from tests.support_facts import open_files
from tests.support_puppet import Puppet
from tests.support_time import eventually
from tests.support_watched import Watched

public = support_coverage.public

FEW = range(0x1000, 0x1000 + 8 * 70, 8)
"""The points of files that one test has many of."""

OPERATIONS = 1000
ROUNDS = 10
"""So many times the file is made good, and everybody waits until all viewers see it."""

RECOVERY = 1.0
"""Seconds in which a good file is to be shown."""

KILLS = 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good coverage file of few points."""
    path = tmp_path / "coverage"
    path.write_bytes(good_bytes(0, FEW))
    return path


@pytest.fixture
def joined(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JoinedSeenPcs]:
    """A reader that follows it, and never waits before it looks at addresses again."""
    monkeypatch.setattr(seen_pcs_module, "CHECK_INTERVAL", 0.0)
    joined = JoinedSeenPcs(SeenPcs(path), array("Q", FEW))
    yield joined
    assert opened_in(path.parent) == 1
    joined.close()


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as an error."""
    return [record.getMessage() for record in of_readers(caplog) if record.levelno == logging.ERROR]


def of_readers(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What those who read coverage files have logged."""
    return [record for record in caplog.records if record.name == seen_pcs_module.__name__]


# ---------------------------------------------------------------------- one thing at a time

HARMS = [harm.__name__ for harm in Harm(Path("x"), 0).harms()]
GOODS = [good.__name__ for good in Harm(Path("x"), 0).goods()]


@pytest.mark.parametrize("good", GOODS)
@pytest.mark.parametrize("harm", HARMS)
def test_harm_is_told_once_and_the_next_good_file_is_shown(
    joined: JoinedSeenPcs, path: Path, caplog: pytest.LogCaptureFixture, harm: str, good: str
) -> None:
    """Whatever it is, and however it is mended: what was read before stays, then the new numbers come."""
    caplog.set_level(logging.INFO)
    harmer = Harm(path, 1, FEW)
    before = joined.read()
    assert before == good_snapshot(0, len(FEW))
    getattr(harmer, harm)()
    for _ in range(5):
        assert joined.read() == before
        assert str(path) in (joined.fault or "")
    (error,) = errors(caplog)
    assert error == joined.fault
    getattr(harmer, good)()
    assert joined.read() == good_snapshot(1, len(FEW))
    assert joined.fault is None
    assert joined.read().files > before.files, "what is new may be older than this look"
    assert of_readers(caplog)[-1].getMessage() == f"coverage file '{path}' can be read again"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("empty", "was truncated: it ends after 0 of 40 bytes; showing what was read before"),
        ("overwrite", "was overwritten: it claims"),
        ("grow", "has another size than it had"),
        ("delete", "No such file or directory; showing the file that was there before"),
        ("folder", "is not a regular file any more; showing the file that was there before"),
        ("pipe", "is not a regular file any more"),
        ("link_to_nothing", "No such file or directory"),
        ("link_in_a_circle", "Too many levels of symbolic links"),
        ("replace_by_garbage", "it is truncated or no coverage file"),
        ("replace_by_other_build", "lists other PCs than before: it belongs to another build"),
    ],
)
def test_the_fault_says_what_is_wrong(joined: JoinedSeenPcs, path: Path, harm: str, said: str) -> None:
    """In one sentence, with the path."""
    getattr(Harm(path, 1, FEW), harm)()
    joined.read()
    assert said in (joined.fault or "")


STEPS = st.lists(st.sampled_from(HARMS + GOODS), max_size=25)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(0, 2**32))
def test_any_row_of_faults_is_what_a_simple_model_tells(steps: list[str], seed: int) -> None:
    """What is shown is the last state in which the file could be read; the fault lasts as long as it does."""
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(seen_pcs_module, "CHECK_INTERVAL", 0.0)
        path = Path(folder).resolve() / "coverage"
        path.write_bytes(good_bytes(0, FEW))
        harmer = Harm(path, seed, FEW)
        joined = JoinedSeenPcs(SeenPcs(path), array("Q", FEW))
        number, files = 0, 0
        for step in steps:
            getattr(harmer, step)()
            is_good = path.is_file() and path.read_bytes() == good_bytes(harmer.number, FEW)
            number = harmer.number if is_good else number
            snapshot = joined.read()
            assert snapshot == good_snapshot(number, len(FEW))
            assert (joined.fault is None) == is_good
            assert snapshot.files >= files
            files = snapshot.files
        assert opened_in(path.parent) == 1
        joined.close()
        assert opened_in(path.parent) == 0


def test_a_deleted_file_is_read_on(joined: JoinedSeenPcs, path: Path) -> None:
    """A fuzzer that still runs counts there."""
    with path.open("r+b") as file:
        path.unlink()
        file.write(good_bytes(5, FEW))
        file.flush()
        assert joined.read() == good_snapshot(5, len(FEW))
        assert "No such file" in (joined.fault or "")
        file.truncate(3)
        assert joined.read() == good_snapshot(5, len(FEW))
        assert "No such file" in (joined.fault or "")


def test_a_file_of_another_build_with_fewer_points_is_refused(joined: JoinedSeenPcs, path: Path) -> None:
    """Also where the bits need as many bytes."""
    Harm(path, 1, FEW[:-1]).good_replaced()
    assert joined.read() == good_snapshot(0, len(FEW))
    assert "belongs to another build" in (joined.fault or "")


def test_addresses_that_were_damaged_meanwhile_are_refused(joined: JoinedSeenPcs, path: Path) -> None:
    """After a fault they are looked at once more, for somebody may have written another build's there."""
    os.truncate(path, 100)
    joined.read()
    path.write_bytes(good_bytes(1, range(0x2000, 0x2000 + 8 * len(FEW), 8)))
    assert joined.read() == good_snapshot(0, len(FEW))
    assert "belongs to another build" in (joined.fault or "")
    path.write_bytes(good_bytes(1, FEW))
    assert joined.read() == good_snapshot(1, len(FEW))
    assert joined.fault is None


def test_the_addresses_of_another_build_are_not_looked_at_all_the_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be megabytes, and a thousand viewers read."""
    looks: list[SeenPcs] = []
    pc_addrs = SeenPcs.pc_addrs
    monkeypatch.setattr(SeenPcs, "pc_addrs", lambda self: looks.append(self) or pc_addrs(self))
    monkeypatch.setattr(seen_pcs_module, "CHECK_INTERVAL", 0.05)
    joined = JoinedSeenPcs(SeenPcs(path), array("Q", FEW))
    harmer = Harm(path, 1, FEW)
    harmer.replace_by_other_build()
    began = time.monotonic()
    for _ in range(300):
        joined.read()
    assert 1 <= len(looks) <= 2 + (time.monotonic() - began) / 0.05
    harmer.good_replaced()
    while joined.read() != good_snapshot(1, len(FEW)):
        assert "belongs to another build" in (joined.fault or "")
    joined.close()


def test_a_file_that_may_not_be_read(public: Path) -> None:
    """The open one is read on; another in its place must be allowed first."""
    (public / "in").mkdir()
    (public / "in").chmod(0o755)
    path = public / "in" / "coverage"
    path.write_bytes(good_bytes(0, FEW))
    joined = JoinedSeenPcs(SeenPcs(path), array("Q", FEW))
    path.chmod(0)
    with plain_user():
        assert joined.read() == good_snapshot(0, len(FEW))
        assert joined.fault is None, "who has it open may read it"
        with pytest.raises(CoverageFileError, match="Permission denied"):
            SeenPcs(path)
    Harm(path, 1, FEW).good_replaced()
    path.chmod(0)
    with plain_user():
        assert joined.read() == good_snapshot(0, len(FEW))
        assert "Permission denied" in (joined.fault or "")
    path.chmod(0o644)
    path.parent.chmod(0)
    with plain_user():
        assert joined.read() == good_snapshot(0, len(FEW))
        assert "Permission denied" in (joined.fault or "")
    path.parent.chmod(0o755)
    with plain_user():
        assert joined.read() == good_snapshot(1, len(FEW))
        assert joined.fault is None
    joined.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_reads_that_fail_now_and_then(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """As they do on a network: numbers stay or are right, and many faults do not fill the log."""
    # A clock that stands still: in time, more lines may be logged.
    monkeypatch.setattr(seen_pcs_module, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    joined = JoinedSeenPcs(SeenPcs(path), array("Q", FEW))
    harmer = Harm(path, 1, FEW)
    chance = random.Random(1)
    pread, fstat, stat = os.pread, os.fstat, os.stat

    def fail_now_and_then(call: Callable) -> Callable:
        def called(*args: object, **options: object) -> object:
            if chance.random() < 0.2:
                raise OSError(number, os.strerror(number))
            return call(*args, **options)

        return called

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail_now_and_then(pread))
        patch.setattr(os, "fstat", fail_now_and_then(fstat))
        patch.setattr(os, "stat", fail_now_and_then(stat))
        faults = 0
        for _ in range(2000):
            faults += joined.fault is not None
            assert joined.read() == good_snapshot(0, len(FEW))
    assert faults > 500
    assert 0 < len(errors(caplog)) <= seen_pcs_module.LOG_BURST + 1
    harmer.good_in_place()
    assert joined.read() == good_snapshot(1, len(FEW))
    assert joined.fault is None
    joined.close()


def test_a_file_that_stays_broken_after_many_faults_is_logged(
    joined: JoinedSeenPcs, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Lines that were held back are not the last ones that matter."""
    clock = 1000.0
    monkeypatch.setattr(seen_pcs_module, "time", SimpleNamespace(monotonic=lambda: clock))
    harmer = Harm(path, 1, FEW)
    for _ in range(20):
        harmer.good_in_place()
        joined.read()
        harmer.empty()
        joined.read()
    harmer.folder()
    joined.read()
    assert len(errors(caplog)) <= seen_pcs_module.LOG_BURST
    assert "regular" not in caplog.text
    clock += 2
    joined.read()
    assert errors(caplog)[-1] == joined.fault
    assert "not a regular file any more" in caplog.text


def test_the_fault_of_many_files_is_one_sentence(tmp_path: Path, nothing_left: None) -> None:
    """The first one, and how many they are."""
    paths = [tmp_path / f"worker{number}" for number in range(4)]
    for path in paths:
        path.write_bytes(good_bytes(0, FEW))
    joined = JoinedSeenPcs(SeenPcs(paths[0]), array("Q", FEW))
    for path in paths[1:]:
        joined.add(SeenPcs(path))
    assert joined.read().n_runs == 4 * 7
    paths[1].unlink()
    joined.read()
    what = f"cannot find coverage file '{paths[1]}': No such file or directory"
    assert joined.fault == f"{what}; showing the file that was there before"
    paths[2].unlink()
    assert joined.read().n_runs == 4 * 7
    assert (
        joined.fault == f"{what}; showing the file that was there before; so it is with 2 of 4 coverage files"
    )
    joined.close()
    assert joined.fault is None, "nobody waits for them any more"


def test_runs_of_a_file_that_began_anew(joined: JoinedSeenPcs, path: Path) -> None:
    """There were no more runs before the server looked than there are."""
    Harm(path, 1, FEW)._replace(good_bytes(9, FEW))
    joined.read()
    assert joined.start_n_runs == 7
    path.write_bytes(SeenPcsHeader(2, 0, len(FEW)).serialize() + good_bytes(0, FEW)[24:])
    assert joined.read().n_runs == 2
    assert joined.start_n_runs == 2


def test_many_threads_read_while_the_file_is_replaced(joined: JoinedSeenPcs, path: Path) -> None:
    """Each gets a whole snapshot, and no descriptor is left."""
    harmer = Harm(path, 3, FEW)
    goods = {good_snapshot(number, len(FEW)) for number in range(400)}
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            try:
                snapshot = joined.read()
                if snapshot not in goods:
                    wrong.append(snapshot)
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(5)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        harmer.random.choice((harmer.good_replaced, harmer.delete, harmer.good_in_place))()
    stop.set()
    for thread in threads:
        thread.join()
    harmer.good_replaced()
    assert joined.read() == good_snapshot(harmer.number, len(FEW))
    assert wrong == []


# ---------------------------------------------------------------------- what is in it

DAMAGED = st.tuples(st.integers(0, 1000), st.lists(st.tuples(st.integers(0, 610), st.binary(max_size=9))))


@settings(max_examples=600, deadline=None)
@given(st.one_of(st.binary(max_size=700), DAMAGED))
def test_any_bytes_are_a_file_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | tuple[int, list[tuple[int, bytes]]]
) -> None:
    """At the start, and under a reader; what was read before stays unless it is a file as before."""
    if isinstance(content, tuple):
        data = bytearray(good_bytes(1, FEW)[: content[0]])
        for place, damage in content[1]:
            data[place : place + len(damage)] = damage
        content = bytes(data)
    path = tmp_path_factory.getbasetemp() / "any-bytes"
    path.write_bytes(content)
    try:
        one = SeenPcs(path)
        assert one.header.file_size == len(content)
        assert 8 * len(one.read().seen_bits) >= len(one.pc_addrs())
        one.close()
    except CoverageFileError as error:
        assert str(path) in str(error)
    whole = good_bytes(0, FEW)
    path.write_bytes(whole)
    joined = JoinedSeenPcs(SeenPcs(path), array("Q", FEW))
    path.write_bytes(content)
    snapshot = joined.read()
    if len(content) == len(whole) and content[16:24] == whole[16:24]:
        n_runs, unique_runs = (int.from_bytes(content[at : at + 8], "little") for at in (0, 8))
        assert snapshot == SeenPcsSnapshot(n_runs, unique_runs, content[24:40])
        assert joined.fault is None
    else:
        assert snapshot == good_snapshot(0, len(FEW))
        assert joined.fault is not None
    joined.close()


def test_flipped_bits_in_a_real_file(debug_pair, tmp_path: Path, nothing_left: None) -> None:
    """Each of a thousand: no other error than ours, numbers as in the file, and all is well after."""
    path = Path(shutil.copy(debug_pair.coverage_file, tmp_path / "coverage"))
    whole = path.read_bytes()
    first = SeenPcs(path)
    joined = JoinedSeenPcs(first, first.pc_addrs())
    before = joined.read()
    head = 24 + len(before.seen_bits)
    chance = random.Random(4)
    bits = [*range(24 * 8), *(chance.randrange(8 * len(whole)) for _ in range(1000 - 24 * 8))]
    with path.open("r+b", buffering=0) as file:
        for bit in bits:
            at = bit // 8
            os.pwrite(file.fileno(), bytes([whole[at] ^ 1 << bit % 8]), at)
            snapshot = joined.read()
            if 16 <= at < 24:
                assert snapshot == before
                assert "was overwritten" in (joined.fault or "")
                with pytest.raises(CoverageFileError):
                    SeenPcs(path)
            else:
                now = path.read_bytes()[:head]
                assert snapshot.n_runs == int.from_bytes(now[:8], "little")
                assert snapshot.unique_runs == int.from_bytes(now[8:16], "little")
                assert snapshot.seen_bits == now[24:]
                SeenPcs(path).close()
            os.pwrite(file.fileno(), whole[at : at + 1], at)
            assert joined.read() == before
            assert joined.fault is None
    joined.close()


def test_a_file_that_claims_more_than_any_memory_holds(path: Path) -> None:
    """A file with holes is as long as it likes."""
    pcs_len = 1 << 32
    header = SeenPcsHeader(0, 0, pcs_len)
    path.write_bytes(header.serialize())
    os.truncate(path, header.file_size)
    with pytest.raises(CoverageFileError, match=f"has {header.file_size} bytes, more than any executable"):
        SeenPcs(path)


# ---------------------------------------------------------------------- writers that die


def test_writers_that_are_killed_again_and_again(tmp_path: Path, nothing_left: None) -> None:
    """Four of them, two of which leave their files to the next: what is shown in the end is what is there."""
    paths = [tmp_path / f"worker{number}" for number in range(4)]
    processes = [counter(path) for path in paths]
    watchers = [JoinedSeenPcs(SeenPcs(path), array("Q", PCS)) for path in paths]
    joined = JoinedSeenPcs(SeenPcs(paths[0]), array("Q", PCS))
    for path in paths[1:]:
        joined.add(SeenPcs(path))
    stop = threading.Event()
    lost: list[str] = []

    def watch() -> None:
        before = [watcher.read() for watcher in watchers]
        while not stop.is_set():
            joined.read()
            now = [watcher.read() for watcher in watchers]
            for number in (0, 1):  # These files are never deleted.
                if _falls(before[number], now[number]):
                    lost.append(f"worker {number}: {before[number].n_runs}, then {now[number].n_runs}")
            before = now
            stop.wait(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    chance = random.Random(5)
    try:
        for _ in range(KILLS):
            number = chance.randrange(4)
            time.sleep(chance.uniform(0, 0.02))
            _kill(processes[number])
            if number > 1 and chance.random() < 0.5:
                paths[number].unlink()
            processes[number] = counter(paths[number])
    finally:
        for process in processes:
            _kill(process)
        stop.set()
        thread.join()
    assert lost == []
    merged = joined.read()
    assert joined.fault is None
    offline = [path.read_bytes() for path in paths]
    bits = 0
    for data in offline:
        bits |= int.from_bytes(data[24 : 24 + len(merged.seen_bits)], "little")
    heads = [SeenPcsHeader.parse(data) for data in offline]
    assert merged.n_runs == sum(head.n_runs for head in heads) > 0
    assert merged.unique_runs == sum(head.unique_runs for head in heads) > 0
    assert merged.seen_bits == bits.to_bytes(len(merged.seen_bits), "little")
    for each in (joined, *watchers):
        each.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _falls(before: SeenPcsSnapshot, now: SeenPcsSnapshot) -> bool:
    old, new = (int.from_bytes(each.seen_bits, "little") for each in (before, now))
    return now.n_runs < before.n_runs or now.unique_runs < before.unique_runs or bool(old & ~new)


# ---------------------------------------------------------------------- a whole server


def test_a_thousand_things_happen_to_a_watched_file(tmp_path: Path) -> None:
    """Nobody is shown a number that never was, and each good file is shown, most often within a second."""
    watched = Watched(tmp_path, 17)
    before = len(open_files(watched.server.pid))
    recoveries = []
    for _ in range(ROUNDS):
        told = watched.harm(OPERATIONS // ROUNDS)
        recoveries.append(watched.wait_for(told["number"]) - told["time"])
    fault = say(watched.server, "fault?")
    eventually(lambda: len(open_files(watched.server.pid)) <= before, "descriptors are left")
    assert watched.stop() == 0
    log = watched.log.read()
    print("recoveries:", *(f"{seconds:.3f} s" for seconds in sorted(recoveries)))
    assert [watcher.wrong for watcher in watched.watchers] == [[]] * 5
    assert json.loads(fault) is None
    assert "Traceback" not in log
    assert "ERROR coverage file" in log
    # Many of them may have met a moment in which the machine had something else to do.
    assert sorted(recoveries)[ROUNDS // 4] < RECOVERY


@pytest.mark.slow
def test_a_reader_that_maps_the_file_dies(tmp_path: Path) -> None:
    """The test above would see it: the same things, and a server that does not use ``pread``."""
    watched = Watched(tmp_path, 17, "--mmap")
    for _ in range(OPERATIONS):
        watched.harm(10)
        if watched.server.poll() is not None:
            break
    assert watched.stop() == -signal.SIGBUS


def test_the_page_tells_the_fault_while_it_lasts(page: Page, web_server: WebServer, tmp_path: Path) -> None:
    """Beside the numbers, which stay."""
    puppet = Puppet(tmp_path).show(web_server)
    puppet.cover(0, 1)
    page.visit(web_server.url)
    page.until_text("#statTotalRuns", "1,000")
    whole = puppet.coverage_file.read_bytes()
    os.truncate(puppet.coverage_file, 30)
    page.until_text("#noticeLines", "The coverage file is not as it should be", "it ends after 30")
    page.until_text("#noticeLines", str(puppet.coverage_file))
    assert page.is_shown("#overview")
    assert not page.is_shown("#notice")
    page.until_text("#statTotalRuns", "1,000")
    puppet.coverage_file.write_bytes(whole)
    page.until_hidden("#noticeLines")
    puppet.cover(2)
    page.until_text("#statTotalRuns", "2,000")
    clear(puppet.coverage_file)
    page.until_text("#noticeLines", "No such file or directory")
    puppet.coverage_file.write_bytes(whole)
    page.until_hidden("#noticeLines")
    page.until_text("#statTotalRuns", "1,000")
    puppet.coverage_file.write_bytes(b"")
    page.until_text("#noticeLines", "it ends after 0 of")
    web_server.coverage_files.first().close()
    web_server.notify()
    page.until_hidden("#noticeLines")


def test_what_is_covered_behind_a_fault_has_no_time(tmp_path: Path) -> None:
    """Nobody knows when it was, and no line leads to the runs of that time."""
    path = tmp_path / "coverage"
    header = SeenPcsHeader(5, 1, len(FEW)).serialize()
    addresses = array("Q", FEW).tobytes()
    path.write_bytes(header + b"\1" + bytes(15) + addresses)
    coverage_map = plain_map(path, FEW)
    coverage_map.begin_history("start", "x")
    assert coverage_map.describe_json()["fault"] is None
    os.truncate(path, 3)
    coverage_map.record()
    assert "was truncated" in coverage_map.describe_json()["fault"]
    path.write_bytes(SeenPcsHeader(50, 1, len(FEW)).serialize() + b"\7" + bytes(15) + addresses)
    coverage_map.record()
    with path.open("r+b") as file:
        file.seek(24)
        file.write(b"\x0f")
    coverage_map.record()
    first_covered = coverage_map.history.first_covered[:5].tolist()
    assert first_covered[:3] == [1, 1, 1]
    assert first_covered[3] > 1_600_000_000
    # The last look is a sample of its own if it was a second after the one before.
    samples = [(sample.n_runs, sample.flags) for sample in coverage_map.history.samples]
    assert samples in ([(5, 1), (50, 1)], [(5, 1), (50, 1), (50, 0)])
    coverage_map.close()
