"""Attaching to fuzzers that somebody else runs."""

import logging
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuzzserver.coverage.queue import CoverageFiles, CoverageMsg, EntryPointMsg, Msg, MsgQueue, coverage_run
from fuzzserver.errors import InputError
from fuzzserver.fuzz import attach
from fuzzserver.fuzz.attach import Attacher
from fuzzserver.status import TargetStatus
from fuzzserver.step import FuzzRunStep
from fuzzserver.wire.messages import ClientTag, client_message
from fuzzserver.zig.test_runner import test_runner_argv
from tests.support_native import coverage_bytes
from tests.support_time import WAIT
from tests.support_zig_cache import add_corpus, add_coverage_file, add_executable, add_pair, set_time

pytestmark = pytest.mark.usefixtures("nothing_left")

SUM, DEPTH = 0, 1
"""Indexes of the fuzz tests of the project."""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a test takes, what was fuzzed at one look is so at the next."""
    monkeypatch.setattr(attach, "STILL_FUZZING", 10 * WAIT)


class Server:
    """What an attacher tells its server, in order; tests wait for it."""

    def __init__(self) -> None:
        self.told: list[FuzzRunStep | Msg | TargetStatus | tuple[str, str]] = []
        self._condition = threading.Condition()

    def tell(self, what: FuzzRunStep | Msg | TargetStatus | tuple[str, str]) -> None:
        """Note one thing."""
        with self._condition:
            self.told.append(what)
            self._condition.notify_all()

    def of(self, kind: type) -> list:
        """All that is of one kind; a status is a tuple."""
        return [what for what in self.told if isinstance(what, kind)]

    def take(self, kind: type) -> list:
        """As above, and forget everything."""
        found = self.of(kind)
        self.told.clear()
        return found

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Until ``condition`` holds."""
        with self._condition:
            assert self._condition.wait_for(condition, WAIT), self.told


@pytest.fixture
def server() -> Server:
    """A listener."""
    return Server()


@pytest.fixture
def cache(tmp_path) -> Path:
    """An empty cache of a project."""
    folder = tmp_path / "project" / ".zig-cache"
    folder.mkdir(parents=True)
    return folder


def attacher(server: Server, *paths: Path) -> Attacher:
    """An attacher that tells ``server``."""
    return Attacher(
        paths,
        add_step=server.tell,
        post=server.tell,
        set_status=lambda state, text: server.tell((state, text)),
        set_target=server.tell,
    )


@contextmanager
def running(attached: Attacher) -> Iterator[None]:
    """The attacher on its thread."""
    stop = threading.Event()
    thread = threading.Thread(target=attached.run, args=(stop,), name="attach")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(WAIT)
        assert not thread.is_alive()


@contextmanager
def fuzzer(executable: Path, cache: Path, index: int) -> Iterator[subprocess.Popen]:
    """A real fuzzer of one test, which somebody else started."""
    (cache / "tmp").mkdir(exist_ok=True)
    process = subprocess.Popen(
        test_runner_argv(executable, cache, 1), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        process.stdin.write(client_message(ClientTag.START_FUZZING, index))
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.stdin.close()
        process.wait()


def count_runs(coverage_file: Path, more: int = 1) -> None:
    """Do to a coverage file what a fuzzer does."""
    with coverage_file.open("r+b") as file:
        runs = int.from_bytes(file.read(8), "little")
        file.seek(0)
        file.write((runs + more).to_bytes(8, "little"))


def test_a_fuzzer_that_starts_later_is_noticed(cache, server, debug_pair, monkeypatch):
    """Its executable is known; the coverage file and the corpus come while the attacher looks."""
    executable = add_executable(cache, debug_pair.executable)
    attached = attacher(server, cache.parent)
    with running(attached):
        server.wait_for(lambda: server.of(tuple))
        assert server.of(tuple) == [("waiting", f"Waiting for a fuzzer to write to '{cache}'.")]
        with fuzzer(executable, cache, SUM):
            server.wait_for(lambda: server.of(EntryPointMsg))
            server.wait_for(lambda: any(target.state == "fuzzing" for target in server.of(TargetStatus)))
            (step,) = server.of(FuzzRunStep)
            assert (step.rebuilt_executable, step.cache_root, step.inputs) == (executable, cache, None)
            assert server.of(CoverageMsg) == [CoverageMsg(debug_pair.coverage_id, step)]
            assert {msg.addr for msg in server.of(EntryPointMsg)} < set(debug_pair.entry_points)
            with fuzzer(executable, cache, DEPTH):
                server.wait_for(lambda: len(server.of(EntryPointMsg)) == 2)
                assert {msg.addr for msg in server.of(EntryPointMsg)} == set(debug_pair.entry_points)
    monkeypatch.setattr(attach, "STILL_FUZZING", 0)
    attached.look()
    assert server.of(tuple)[-1][0] == "stopped"
    last = server.of(TargetStatus)[-1]
    assert {test.name for test in last.tests} == {"main.test.fuzz sum", "main.test.fuzz depth"}
    assert {test.state for test in last.tests} == {"stopped"}
    assert len(server.of(CoverageMsg)) == 1


def test_what_is_posted_becomes_a_coverage_map(cache, server, debug_pair):
    """The coverage thread makes tables and entry points of it."""
    add_pair(cache, debug_pair)
    add_corpus(cache, "main.test.fuzz sum")
    attacher(server, cache).look()
    queue, files, reports = MsgQueue(), CoverageFiles(), []
    thread = threading.Thread(target=coverage_run, args=(queue, files, lambda: 0, reports.append))
    thread.start()
    try:
        files.watch(lambda: server.tell(("map", "")))
        for msg in [*server.of(CoverageMsg), *server.of(EntryPointMsg)]:
            queue.post(msg)
        server.wait_for(lambda: files.first() is not None and files.first().entry_points)
        point = files.first().describe(files.first().entry_points[0])
        assert point.rpartition("/")[2].startswith("main.zig:")
        assert reports == []
    finally:
        queue.close()
        thread.join()
        files.close()


def test_what_was_written_last_is_posted_first(cache, tmp_path, server, debug_pair, safe_pair):
    """Over all caches: it is what the page shows when it is opened."""
    other = tmp_path / "other"
    add_pair(cache, debug_pair, after=10)
    add_pair(other, safe_pair, after=20)
    attacher(server, cache, other).look()
    assert [msg.coverage_id for msg in server.take(CoverageMsg)] == [
        safe_pair.coverage_id,
        debug_pair.coverage_id,
    ]
    other_server = Server()
    add_coverage_file(cache, debug_pair.coverage_file, after=30)
    attacher(other_server, cache, other).look()
    assert [msg.coverage_id for msg in other_server.take(CoverageMsg)] == [
        debug_pair.coverage_id,
        safe_pair.coverage_id,
    ]


def test_nothing_is_told_twice(cache, server, debug_pair):
    """A second look at the same tells nothing, and one with more runs only what they mean."""
    _, file = add_pair(cache, debug_pair)
    add_corpus(cache, "main.test.fuzz sum")
    attached = attacher(server, cache, cache.parent)
    attached.look()
    kinds = [type(what) for what in server.told]
    assert kinds == [FuzzRunStep, CoverageMsg, EntryPointMsg, TargetStatus, tuple]
    assert server.of(TargetStatus)[0].state == "stopped"
    server.told.clear()
    attached.look()
    assert server.told == []
    count_runs(file)
    attached.look()
    assert [type(what) for what in server.told] == [TargetStatus, tuple]
    assert server.of(TargetStatus)[0].state == server.of(tuple)[0][0] == "fuzzing"
    server.told.clear()
    attached.look()
    assert server.told == []


def test_a_fuzzer_that_counts_no_runs_for_a_while_has_stopped(cache, server, debug_pair, monkeypatch):
    """Not at once: a run may take longer than the time between two looks."""
    _, file = add_pair(cache, debug_pair)
    attached = attacher(server, cache)
    attached.look()
    count_runs(file)
    attached.look()
    attached.look()
    assert server.of(TargetStatus)[-1].state == "fuzzing"
    monkeypatch.setattr(attach, "STILL_FUZZING", 0)
    attached.look()
    assert server.of(TargetStatus)[-1].state == "stopped"


def test_builds_of_one_source_file_are_one_target(cache, server, debug_pair, safe_pair):
    """A rebuild takes over; only its step bears the key of the target, so that it is what is shown."""
    add_pair(cache, debug_pair, "d" * 32, after=10)
    attached = attacher(server, cache)
    attached.look()
    (first,) = server.of(TargetStatus)
    server.told.clear()
    add_pair(cache, safe_pair, "5" * 32, after=20)
    attached.look()
    (msg,) = server.of(CoverageMsg)
    assert (msg.coverage_id, msg.run.key) == (safe_pair.coverage_id, first.key)
    (target,) = server.take(TargetStatus)
    assert target.key == first.key
    assert (target.id, target.earlier) == (safe_pair.coverage_file.name, (first.id,))
    assert target.state == "fuzzing"


def test_the_build_that_is_fuzzed_is_the_current_one(cache, server, debug_pair, safe_pair, monkeypatch):
    """An old build that is fuzzed again is posted again, with the key; of two, the shown one stays."""
    _, debug = add_pair(cache, debug_pair, "d" * 32, after=10)
    _, safe = add_pair(cache, safe_pair, "5" * 32, after=20)
    attached = attacher(server, cache)
    attached.look()
    key = server.of(TargetStatus)[0].key
    assert [(msg.coverage_id, msg.run.key) for msg in server.of(CoverageMsg)] == [
        (safe_pair.coverage_id, key),
        (debug_pair.coverage_id, ""),
    ]
    assert len(server.take(FuzzRunStep)) == 2
    count_runs(debug)
    attached.look()
    assert [(msg.coverage_id, msg.run.key) for msg in server.of(CoverageMsg)] == [
        (debug_pair.coverage_id, key)
    ]
    assert server.of(TargetStatus)[-1].id == debug.name
    assert server.take(FuzzRunStep) == []
    count_runs(safe)
    attached.look()
    assert server.told == []


def test_a_coverage_file_that_is_replaced_is_posted_again(cache, server, debug_pair):
    """Who deletes ``v/`` and fuzzes anew writes another file of the same name."""
    _, file = add_pair(cache, debug_pair)
    attached = attacher(server, cache)
    attached.look()
    (msg,) = server.take(CoverageMsg)
    with file.open("rb"):  # The server has it open, so no new file gets its inode.
        file.unlink()
        attached.look()
        assert [target.text for target in server.of(TargetStatus)] == [
            "The coverage file or the executable was deleted."
        ]
        shutil.copy(debug_pair.coverage_file, file)
        attached.look()
    assert server.of(CoverageMsg) == [msg]
    assert server.of(TargetStatus)[-1].text == ""


def test_a_rebuild_with_the_same_pcs_is_posted_again(cache, server, debug_pair):
    """Its lines may be others. Its entry points come with it."""
    add_pair(cache, debug_pair)
    add_corpus(cache, "main.test.fuzz sum")
    attached = attacher(server, cache)
    attached.look()
    server.told.clear()
    newer = add_executable(cache, debug_pair.executable, "b" * 32, after=5)
    attached.look()
    (msg,) = server.of(CoverageMsg)
    assert msg.run.rebuilt_executable == newer
    assert len(server.of(EntryPointMsg)) == 1


def test_problems_are_logged_once(cache, server, debug_pair, safe_pair, caplog):
    """And stand in the status, unless something else was written later."""
    add_executable(cache, debug_pair.executable)
    lost = add_coverage_file(cache, safe_pair.coverage_file, after=10)
    attached = attacher(server, cache)
    for _ in range(4):
        attached.look()
    assert caplog.text.count(str(lost)) == 1
    assert str(lost) in server.of(tuple)[-1][1]
    add_coverage_file(cache, debug_pair.coverage_file, after=20)
    attached.look()
    assert str(lost) not in server.of(tuple)[-1][1]
    assert caplog.text.count(str(lost)) == 1


def test_no_instrumentation_is_explained(cache, server):
    """In Debug, Zig 0.15 and 0.17 write a file without PCs: there is nothing to show but why."""
    (cache / "v").mkdir()
    (cache / "v" / "59e4bde28e630904").write_bytes(coverage_bytes([]))
    attached = attacher(server, cache)
    attached.look()
    attached.look()
    state, text = server.of(tuple)[-1]
    assert state == "waiting"
    assert "lists no PCs" in text and ".use_llvm = true" in text
    assert server.of(CoverageMsg) == []


def test_a_crash_is_news(cache, server, debug_pair, caplog):
    """Since Zig 0.16, its input is kept in one file for all; an old one is no news, one that comes is."""
    add_pair(cache, debug_pair)
    crash = cache / "f" / "crash"
    crash.parent.mkdir()
    crash.write_bytes(b"old")
    set_time(crash, 10)
    attached = attacher(server, cache)
    attached.look()
    attached.look()
    assert "has crashed" not in server.take(tuple)[-1][1]
    crash.write_bytes(b"new")
    for _ in range(2):
        attached.look()
    ((state, text),) = server.of(tuple)
    assert state == "stopped"
    assert text.endswith(f"\na fuzzer has crashed; 'zig build' has kept the input in '{crash}'.")
    assert caplog.text.count(str(crash)) == 1


def test_a_fault_of_ours_does_not_end_the_thread(cache, server, debug_pair, monkeypatch, caplog):
    """It is logged, and the next look works."""
    monkeypatch.setattr(attach, "INTERVAL", 0.01)
    attached = attacher(server, cache)
    really_look = attached.caches[0].look
    failures = [RuntimeError("on purpose")]

    def look():
        if failures:
            raise failures.pop()
        return really_look()

    monkeypatch.setattr(attached.caches[0], "look", look)
    add_pair(cache, debug_pair)
    with caplog.at_level(logging.ERROR), running(attached):
        server.wait_for(lambda: server.of(CoverageMsg))
    assert "on purpose" in caplog.text


def test_a_cache_that_is_not_there_is_refused(tmp_path, server):
    """At once, not on the thread."""
    with pytest.raises(InputError, match="does not exist"):
        attacher(server, tmp_path / "nothing")
