"""The end: soon, in good order, and nothing is left, whatever goes on at that moment."""

import contextlib
import itertools
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

from fuzzserver import signals
from fuzzserver.access import Limits
from fuzzserver.coverage import queue
from fuzzserver.coverage.queue import CoverageMsg
from fuzzserver.errors import InputError
from fuzzserver.signals import Signalled, wait_for
from fuzzserver.step import FuzzRunStep, SourcePath
from fuzzserver.web import server
from fuzzserver.webserver import WebServer
from fuzzserver.zig.installation import Zig
from tests.support_crowd import Crowd
from tests.support_ports import quiet_port
from tests.support_stops import CODES, PROMISE, Plan, Stops
from tests.support_time import WAIT, eventually
from tests.support_zig_children import is_alive
from tests.support_zig_cli import REPOSITORY
from tests.support_zig_fake import compile_calls, fake_zig

pytestmark = pytest.mark.usefixtures("nothing_left")

FOR_EVER = 1000.0
SOON = WAIT / 2
"""Seconds that an end may take on a busy machine. Nobody who is waited for would be done by then."""

PLANS = {
    "while Python starts": Plan(True, "", 0.02, signal.SIGTERM, None),
    # Where Python swallows an exception, as it does in some places of an import, one signal is lost.
    "while it is imported": Plan(True, "", 0.12, signal.SIGINT, 0.5),
    "at the first compile": Plan(True, "compiling the tests", 0.0, signal.SIGHUP, None),
    "in a compile": Plan(True, "compiling the tests", 1.0, signal.SIGINT, None),
    "in a compile, often": Plan(True, "compiling the tests", 0.4, signal.SIGTERM, 0.05),
    "when it begins to listen": Plan(False, "listening at", 0.0, signal.SIGTERM, None),
    "when it begins to fuzz": Plan(False, "info: fuzzing", 0.0, signal.SIGINT, 0.02),
    "while it fuzzes": Plan(False, "info: fuzzing", 1.0, signal.SIGHUP, None),
    "at a finding": Plan(False, "error: finding", 0.0, signal.SIGTERM, None),
    "at a finding, often": Plan(False, "error: finding", 0.1, signal.SIGINT, 0.1),
    "while a finding is looked at": Plan(False, "for reproduction", 0.1, signal.SIGINT, None),
    "after it was looked at": Plan(False, " reproduces with ", 0.0, signal.SIGHUP, 0.2),
}


@pytest.fixture(scope="module")
def stops(work: Path, zig_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stops]:
    """The program, ready to be started and ended. Mostly, it ends soon; a machine may stand still."""
    stops = Stops(tmp_path_factory.mktemp("stops"), zig_cache, work / "stops")
    yield stops
    assert statistics.median(stops.paces) <= PROMISE, stops.paces


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_signal(stops: Stops, plan: Plan) -> None:
    """Compilers, fuzzers and a hundred clients at work: the program ends, and nothing is left of it."""
    stop = stops.stop(plan)
    assert not stop.problems, f"{plan}, when it had said: {stop.said}"


HANGING = """
import sys, threading
from fuzzserver import signals
signals.LONGEST_END = 0.2
signals.handle_signals()
threading.Thread(target=threading.Event().wait).start()
print("ready", flush=True)
try:
    signals.wait_for_signal()
except signals.Signalled as signalled:
    sys.exit(signalled.exit_code)  # Python waits for the thread.
"""


@pytest.mark.parametrize("number", CODES)
def test_what_hangs_is_not_waited_for(number: signal.Signals) -> None:
    """If something hangs that nobody can end, the program ends without it, with the same exit code."""
    with subprocess.Popen(
        [sys.executable, "-c", HANGING], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(WAIT) == CODES[number]


def test_no_lock_is_taken_while_a_result_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal could leave it taken, and who sets the result would wait for ever."""
    result: Future[None] = Future()
    looks = itertools.count()

    def sleep(_seconds: float) -> None:
        result._condition = None
        if next(looks) == 3:
            raise Signalled(signal.SIGINT)

    monkeypatch.setattr(signals, "time", SimpleNamespace(sleep=sleep))
    with pytest.raises(Signalled):
        wait_for(result)


@contextlib.contextmanager
def ends_soon() -> Iterator[None]:
    """The block does not wait for clients, nor for what goes on."""
    started = time.monotonic()
    yield
    seconds = time.monotonic() - started
    assert seconds <= SOON, f"it took {seconds:.2f} s"


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is waited for at the end is waited for longer than is soon."""
    monkeypatch.setattr(server, "STOP_SECONDS", FOR_EVER)


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[tuple[WebServer, Crowd, Zig]]:
    """A server with all kinds of clients, a compiler that hangs, and an archive that nobody waits for."""
    zig = fake_zig(tmp_path / "bin", compile="hang")
    source = tmp_path / "large.zig"
    with source.open("wb") as file:
        file.truncate(50 * 1024 * 1024)
    step = FuzzRunStep("large", tmp_path / "test", inputs=(SourcePath(str(tmp_path), source.name),))
    web_server = WebServer(
        fuzz_run_steps=(step,),
        listen_address=("127.0.0.1", quiet_port()),
        zig=zig,
        cache_dir=tmp_path / "cache",
        limits=Limits(head_seconds=FOR_EVER, body_seconds=FOR_EVER, write_seconds=FOR_EVER),
    )
    web_server.start()
    crowd = Crowd(web_server.port)
    assert crowd.viewers_there.wait(WAIT)
    eventually(lambda: compile_calls(zig), "the compiler does not start")
    yield web_server, crowd, zig
    crowd.close()
    web_server.stop()


@pytest.mark.usefixtures("patience")
class TestEmbedded:
    """The server as a part of another program, which goes on."""

    def test_stop_from_many_threads(self, busy: tuple[WebServer, Crowd, Zig]) -> None:
        """Many may stop it at once and again: each returns when it has ended, and clients got a good-bye."""
        web_server, crowd, zig = busy
        port = web_server.port
        problems: list[object] = []

        def stop() -> None:
            for _ in range(2):
                web_server.stop()
                pids = [call["pid"] for call in compile_calls(zig)]
                problems.extend(pid for pid in pids if is_alive(pid))
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    problems.append("it listens")

        threads = [threading.Thread(target=stop) for _ in range(5)]
        with ends_soon():
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert problems == []
        assert set(crowd.farewells()) == {1001}
        socket.create_server(("127.0.0.1", port)).close()

    def test_stop_while_debug_info_is_read(self, zig: Zig, tmp_path: Path, monkeypatch) -> None:
        """Reading that of a large executable takes long, for which nobody waits at the end."""
        begun = threading.Event()

        def prepare(_run, _coverage_id, _now, _cache_root, progress) -> None:
            begun.set()
            for done in itertools.count():
                progress(done, 2000)
                time.sleep(0.01)

        monkeypatch.setattr(queue, "prepare_tables", prepare)
        web_server = WebServer(zig=zig, cache_dir=tmp_path)
        web_server.start()
        web_server.post(CoverageMsg(1, FuzzRunStep("large", tmp_path / "test")))
        assert begun.wait(WAIT)
        with ends_soon():
            web_server.stop()

    def test_stop_before_start(self, zig: Zig, tmp_path: Path) -> None:
        """There is nothing to end, which is no error; twice as well."""
        web_server = WebServer(zig=zig, cache_dir=tmp_path)
        web_server.stop()
        web_server.stop()

    def test_start_that_fails(self, zig: Zig, tmp_path: Path) -> None:
        """Where somebody else listens, nothing is begun; once the port is free, another one takes it."""
        port = quiet_port()
        with socket.create_server(("127.0.0.1", port)):
            web_server = WebServer(listen_address=("127.0.0.1", port), zig=zig, cache_dir=tmp_path)
            threads = threading.active_count()
            with pytest.raises(InputError, match=f"port {port}"):
                web_server.start()
            assert threading.active_count() == threads
            web_server.stop()
        with WebServer(listen_address=("127.0.0.1", port), zig=zig, cache_dir=tmp_path) as another:
            assert another.port == port

    def test_same_port_at_once(self, zig: Zig, tmp_path: Path) -> None:
        """A server may follow another on its port, though there were clients, over and over."""
        port = quiet_port()
        with WebServer(listen_address=("127.0.0.1", port), zig=zig, cache_dir=tmp_path):
            crowd = Crowd(port)
            assert crowd.viewers_there.wait(WAIT)
        assert set(crowd.farewells()) == {1001}
        for _ in range(5):
            with WebServer(listen_address=("127.0.0.1", port), zig=zig, cache_dir=tmp_path):
                with socket.create_connection(("127.0.0.1", port)) as connection:
                    connection.sendall(b"GET")
        crowd.close()
