"""How long, how many, and clients that break off: the server goes on, quietly."""

import contextlib
import errno
import fcntl
import logging
import os
import random
import select
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from fuzzserver import FuzzRunStep, SourcePath, WebServer
from fuzzserver.access import Limits
from fuzzserver.web import body
from fuzzserver.web.limits import SparseLog
from fuzzserver.web.server import HttpServer
from tests.support_http import (
    Response,
    ask,
    connected,
    exchange,
    parse_responses,
    receive_all,
    reset,
    upgrade_request,
)
from tests.support_patience import LATE, PATIENT, PAUSE, SHORT, nobody_let_in, seconds_until_closed
from tests.support_probes import head, post
from tests.support_server import ServerProcess
from tests.support_site import Site, furnished
from tests.support_time import WAIT, eventually

BIG = 24 << 20
"""Bytes of a source: more than the buffers of two sockets hold."""

QUICK = Limits(head_seconds=SHORT, body_seconds=SHORT, write_seconds=SHORT)
FOR_EVER = 1000.0


@contextlib.contextmanager
def running(folder: Path, limits: Limits) -> Iterator[Site]:
    """A server with everything, among it a source that takes some time to send."""
    with (folder / "big.zig").open("wb") as file:
        file.truncate(BIG)
    with furnished(folder, limits=limits) as site:
        step = FuzzRunStep("big", folder / "canary", inputs=(SourcePath(str(folder), "big.zig"),))
        site.server.add_step(step)
        yield site


def to(site: Site, data: bytes) -> bytes:
    """A request for this server."""
    return data.replace(b"HOST", site.host.encode())


def serving_threads(server: WebServer) -> list[str]:
    """Those of connections and WebSockets of a server."""
    assert server._http_server is not None
    return [thread.name for thread in list(server._http_server._connections)]


SLOW = {
    "byte by byte": (b"", b"G", None),
    "header by header": (b"GET / HTTP/1.1\r\n", b"A: b\r\n", 408),
    "slow target": (b"GET /", b"a", 408),
    "slow value": (b"GET / HTTP/1.1\r\nA: ", b"b", 408),
    "nothing more": (b"GET / HTTP/1.1\r\nHost: HOST\r\n", b"", 408),
    "nothing after an empty line": (b"\r\n", b"", None),
    "nothing at all": (b"", b"", None),
    "nothing after a request": (head(), b"", 200),
    "slow body": (post("Content-Length: 1000"), b"x", 408),
    "no body": (post("Content-Length: 1000"), b"", 408),
    "slow second head": (head() + b"G", b"G", 408),
}
"""What is sent first, what then again and again, and the status of the last answer; None: if any."""


@pytest.mark.parametrize("name", SLOW)
def test_slow_requests(quick: Site, name: str) -> None:
    """A whole head or body has its time: to send some of it now and then does not prolong that."""
    first, then, status = SLOW[name]
    with contextlib.ExitStack() as stack:
        with nobody_let_in(quick.server):
            connection = stack.enter_context(connected(quick.port))
            connection.sendall(to(quick, first))
            begun = time.monotonic()
        seconds, received = seconds_until_closed(connection, begun, lambda: connection.sendall(then))
    answers = parse_responses(received)
    if status is None:
        assert [answer.status for answer in answers] in ([], [408])
    else:
        assert answers[-1].status == status
    assert all(answer.closes for answer in answers if answer.status == 408)
    assert SHORT * 0.9 < seconds < 2 * SHORT + 1 + LATE  # Two deadlines, and a moment to read the answer.


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that loses patience soon."""
    with running(tmp_path_factory.mktemp("quick"), QUICK) as site:
        yield site


def test_slow_readers_are_dropped(quick: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for much and reads little of it now and then, or nothing, is not waited for."""
    http_server = quick.server._http_server
    assert http_server is not None
    monkeypatch.setattr(http_server, "limits", replace(http_server.limits, head_seconds=FOR_EVER))
    with contextlib.ExitStack() as stack:
        readers = []
        for path in ("/sources.tar", "/debug/sources.tar"):
            for _ in range(3):
                reader = stack.enter_context(connected(quick.port, receive_buffer=4096))
                reader.sendall(to(quick, head(target=path)))
                assert reader.recv(12) == b"HTTP/1.1 200"
                readers.append(reader)
        begun = time.monotonic()
        while serving_threads(quick.server):
            assert time.monotonic() < begun + SHORT * 4 + LATE
            assert ask(quick.port, "/targets.json").status == 200  # Others do not notice.
            time.sleep(PAUSE)
            for reader in readers[::2]:
                reader.recv(10)
        for reader in readers:
            with contextlib.suppress(ConnectionResetError):
                assert len(receive_all(reader)) < BIG


def waiting_bytes(connection: socket.socket) -> int:
    """What the system holds for a client."""
    return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def takes_more(connection: socket.socket) -> bool:
    """Whether the system has room for more of an answer."""
    return bool(select.select([], [connection], [], 0)[1])


def serving_socket(server: WebServer) -> socket.socket:
    """The server's end of its one connection."""
    http_server = server._http_server
    assert http_server is not None
    eventually(lambda: http_server._connections, "it is not served")
    (connection,) = http_server._connections.values()
    return connection


def test_little_waits_for_a_client_that_does_not_read(tmp_path: Path) -> None:
    """The rest stays where it is: with hundreds of such clients, the system would come to a standstill."""
    with running(tmp_path, PATIENT) as site, connected(site.port, receive_buffer=4096) as reader:
        reader.sendall(to(site, head(target="/sources.tar")))
        assert reader.recv(12) == b"HTTP/1.1 200"
        connection = serving_socket(site.server)
        eventually(lambda: not takes_more(connection), "all of it is sent")
        assert 32 * 1024 < waiting_bytes(connection)
        assert waiting_bytes(connection) < 512 * 1024


def test_steady_readers_get_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes in all: each part has its own time."""
    clock = 0.0
    sendfile = os.sendfile

    def send(out: int, file: int, offset: int, count: int) -> int:
        nonlocal clock
        sent = sendfile(out, file, offset, min(count, body.PIECE // 4))
        clock += 0.9 * FOR_EVER * sent / body.PIECE
        return sent

    monkeypatch.setattr(body, "os", SimpleNamespace(sendfile=send))
    monkeypatch.setattr(body, "time", SimpleNamespace(monotonic=lambda: clock))
    limits = replace(PATIENT, write_seconds=FOR_EVER)
    with running(tmp_path, limits) as site, connected(site.port, receive_buffer=1 << 16) as connection:
        connection.sendall(to(site, head("Connection: close", target="/sources.tar")))
        served = serving_socket(site.server)
        eventually(lambda: not takes_more(served), "all of it is sent")
        assert clock > FOR_EVER
        (answer,) = parse_responses(receive_all(connection))
    assert (answer.status, len(answer.body) > BIG) == (200, True)


def answers_on(connection: socket.socket) -> list[Response]:
    """What comes until the server closes. Who is turned away while it sends may see a reset after that."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    return parse_responses(received)


def test_too_many_connections(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One more than there may be is told so, has no thread, and is let in as soon as another one leaves."""
    begun = time.monotonic()
    with (
        running(tmp_path, replace(PATIENT, connections=10)) as site,
        contextlib.ExitStack() as stack,
    ):
        held = [stack.enter_context(connected(site.port)) for _ in range(10)]
        eventually(lambda: len(serving_threads(site.server)) == 10, "not all are served")
        threads = set(threading.enumerate())
        for number in range(300):
            with connected(site.port) as connection:
                if number % 2:
                    with contextlib.suppress(OSError):
                        connection.sendall(to(site, head()))
                (answer,) = answers_on(connection)
            assert (answer.status, answer.closes, answer.value("retry-after")) == (503, True, "1")
            assert set(threading.enumerate()) <= threads
        warnings = [record for record in caplog.records if "connections at once" in record.getMessage()]
        assert 1 <= len(warnings) <= 2 + time.monotonic() - begun
        # Those who are in notice nothing.
        for connection in held:
            connection.sendall(to(site, head(target="/targets.json")))
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        held[3].close()
        eventually(lambda: ask(site.port, "/targets.json").status == 200, "there is no room")
    assert all(record.exc_info is None for record in caplog.records)


def test_burst_waits_to_be_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes while the server has something else to do is connected; a second try would take a second."""
    free = threading.Event()
    free.set()
    get_request = HttpServer.get_request
    monkeypatch.setattr(HttpServer, "get_request", lambda self: free.wait(WAIT) and get_request(self))
    with running(tmp_path, PATIENT) as site, contextlib.ExitStack() as stack:
        free.clear()
        stack.callback(free.set)
        crowd = [stack.enter_context(connected(site.port)) for _ in range(300)]
        free.set()
        for connection in crowd:
            connection.sendall(to(site, head("Connection: close", target="/targets.json")))
        statuses = [answers_on(connection)[0].status for connection in crowd]
    assert statuses == [200] * 300


def test_parts_of_an_answer_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """The system would hold back a small part until it has heard that the last one arrived: for 40 ms."""
    with furnished(tmp_path, limits=PATIENT) as site, connected(site.port) as connection:
        seconds = []
        for _ in range(20):
            # The client's system would say at once that the first parts arrived, and those after a pause.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            begun, received = time.monotonic(), b""
            connection.sendall(to(site, head(target="/sources.tar")))
            while not received.endswith(b"\r\n0\r\n\r\n"):
                received += connection.recv(65536)
            seconds.append(time.monotonic() - begun)
    # The system would wait each time, a busy machine does not.
    assert min(seconds) < 0.03


def test_too_many_viewers(tmp_path: Path) -> None:
    """The next one gets 503, requests are answered all the same, and who leaves makes room."""
    with running(tmp_path, replace(PATIENT, viewers=3)) as site, contextlib.ExitStack() as stack:
        viewers = [stack.enter_context(connected(site.port)) for _ in range(3)]
        for viewer in viewers:
            viewer.sendall(upgrade_request(site.host))
            assert viewer.recv(12) == b"HTTP/1.1 101"
        for _ in range(20):
            (answer,) = parse_responses(exchange(site.port, upgrade_request(site.host)))
            assert (answer.status, answer.closes) == (503, True)
        assert ask(site.port, "/targets.json").status == 200
        reset(viewers.pop())
        eventually(
            lambda: parse_responses(exchange(site.port, upgrade_request(site.host)))[0].status == 101,
            "there is no room",
        )


def test_too_many_archives(tmp_path: Path) -> None:
    """The next one gets 503, and the connection may be used for something else."""
    with running(tmp_path, replace(PATIENT, archives=2)) as site, contextlib.ExitStack() as stack:
        readers = [stack.enter_context(connected(site.port, receive_buffer=4096)) for _ in range(2)]
        for reader in readers:
            reader.sendall(to(site, head(target="/sources.tar")))
            assert reader.recv(12) == b"HTTP/1.1 200"
        both = head(target="/sources.tar") + head(target="/targets.json")
        answers = parse_responses(exchange(site.port, to(site, both)))
        assert [answer.status for answer in answers] == [503, 200]
        reset(readers.pop())
        again = to(site, head(target="/sources.tar"))
        eventually(lambda: parse_responses(exchange(site.port, again))[0].status == 200, "there is no room")


def test_no_thread_for_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When the system gives no more threads, clients are told, and the server tries again with the next."""
    monkeypatch.setattr(SparseLog, "INTERVAL", FOR_EVER)
    with running(tmp_path, PATIENT) as site:
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if thread.name.startswith("http-"):
                raise RuntimeError("can't start new thread")
            start(thread)

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            for _ in range(5):
                with connected(site.port) as connection:
                    assert [answer.status for answer in answers_on(connection)] == [503]
        assert ask(site.port).status == 200
        eventually(lambda: not serving_threads(site.server), "connections are left")
    assert len([record for record in caplog.records if "cannot serve" in record.getMessage()]) == 1
    assert all(record.exc_info is None for record in caplog.records)


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED]
)
def test_connections_that_cannot_be_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """They wait until they can: there is a pause between two tries, and a line in the log now and then."""
    tries = []

    def refuse(_: socket.socket) -> None:
        tries.append(time.monotonic())
        raise OSError(number, os.strerror(number))

    with running(tmp_path, PATIENT) as site, connected(site.port) as connection:
        eventually(lambda: serving_threads(site.server), "it is not served")
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "accept", refuse)
            with connected(site.port) as waiting:
                waiting.sendall(to(site, head("Connection: close", target="/targets.json")))
                eventually(lambda: len(tries) >= 8, "it gives up")
                assert min(later - earlier for earlier, later in pairwise(tries)) > 0.09
                # Those who are in notice nothing.
                connection.sendall(to(site, head(target="/targets.json")))
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
                patch.undo()
                assert parse_responses(receive_all(waiting))[0].status == 200
    lines = [record for record in caplog.records if "cannot accept" in record.getMessage()]
    assert 1 <= len(lines) <= 2 + tries[-1] - tries[0]
    assert all(record.exc_info is None for record in caplog.records)


def test_out_of_descriptors(tmp_path: Path) -> None:
    """A process that has none left waits without taking time, and goes on when it has some again."""
    with ServerProcess(tmp_path, files=64) as server, contextlib.ExitStack() as stack:
        host = f"localhost:{server.port}"
        resources = server.resources
        first, second = (stack.enter_context(connected(server.port)) for _ in range(2))
        first.sendall(head().replace(b"HOST", host.encode()))
        assert first.recv(12) == b"HTTP/1.1 200"
        assert parse_responses(exchange(server.port, upgrade_request(host)))[0].status == 101
        crowd = [stack.enter_context(connected(server.port)) for _ in range(100)]
        eventually(lambda: server.resources[1] >= 64, "there are descriptors left")
        begun, before = time.monotonic(), server.cpu
        time.sleep(2)  # Time in which nothing is to happen.
        share = (server.cpu - before) / (time.monotonic() - begun)
        # Who is in is answered by what needs no descriptor, and told of what needs one.
        second.sendall(upgrade_request(host))
        second.shutdown(socket.SHUT_WR)
        assert [answer.status for answer in answers_on(second)] in ([101], [503], [])
        eventually(lambda: server.resources[1] >= 64, "nobody has taken its place")
        first.sendall(head(target="/targets.json").replace(b"HOST", host.encode()))
        first.sendall(head(target="/main.js").replace(b"HOST", host.encode()))
        first.shutdown(socket.SHUT_WR)
        answers = parse_responses(b"HTTP/1.1 200" + receive_all(first))
        # Whether there is a descriptor for a file at that very moment is a matter of luck.
        assert [answer.status for answer in answers] in ([200, 200, 500], [200, 200, 200])
        for connection in crowd:
            connection.close()
        # The first of those who come then may still find that others have all descriptors.
        eventually(lambda: ask(server.port).status == 200, "it does not go on")
        server.settle(resources)
        errors = server.errors
    print(f"{share:.1%} of a core while there is no descriptor")
    assert share < 0.2  # Of all that a server could take that tries without end.
    assert not any("Traceback" in error for error in errors), "\n".join(errors)


def some_moment(connection: socket.socket, site: Site, choose: random.Random) -> None:
    """Get anywhere in what clients do."""
    kind = choose.randrange(8)
    if kind == 1:
        data = to(site, head("A: b"))
        connection.sendall(data[: choose.randrange(len(data))])
    elif kind == 2:
        connection.sendall(to(site, head(target=choose.choice(site.routes))))
    elif kind == 3:
        connection.sendall(to(site, head(target="/sources.tar")))
        for _ in range(choose.randrange(4)):
            connection.recv(choose.choice((1, 1000, 100_000)))
    elif kind == 4:
        connection.sendall(upgrade_request(site.host, "Sec-WebSocket-Protocol: fuzzserver"))
        for _ in range(choose.randrange(3)):
            connection.recv(choose.choice((1, 1000)))
    elif kind == 5:
        connection.sendall(to(site, post("Content-Length: 60000", body=bytes(choose.randrange(60_000)))))
    elif kind == 6:
        connection.sendall(to(site, head() * choose.randrange(1, 20)))
        if choose.randrange(2):
            connection.recv(choose.choice((1, 100_000)))
    elif kind == 7:
        connection.sendall(choose.choice((b"\0", b"GET /\r\n", b"\x16\3\1", to(site, head("Expect: x")))))


def anybody_is_served() -> bool:
    """By whichever server of this process: another one may still be busy with those who have left."""
    return any(thread.name.startswith(("http-", "ws-")) for thread in threading.enumerate())


def test_resets(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    rounds: Callable[[int, int], int],
) -> None:
    """Many connections that are reset in the middle of anything: not a word in the log, nothing left."""
    unhandled = []
    count = rounds(5000, 1200)
    monkeypatch.setattr(threading, "excepthook", unhandled.append)
    caplog.set_level(logging.DEBUG)
    # Who is told to come again has nothing more to read, and would wait for it.
    with running(tmp_path, replace(PATIENT, archives=1000)) as site:
        assert ask(site.port, "/sources.tar").status == 200  # From now on, it is kept in a file.
        eventually(lambda: not anybody_is_served(), "connections are left")
        threads, descriptors = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
        caplog.clear()

        def break_off(numbers: range) -> None:
            for number in numbers:
                connection = socket.create_connection(("127.0.0.1", site.port), timeout=WAIT)
                with contextlib.suppress(ConnectionError):
                    some_moment(connection, site, random.Random(number))
                reset(connection)

        clients = [threading.Thread(target=break_off, args=(range(first, count, 4),)) for first in range(4)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        eventually(lambda: not serving_threads(site.server), "connections are left")
        eventually(lambda: set(threading.enumerate()) <= threads, "threads are left")
        eventually(lambda: len(os.listdir("/proc/self/fd")) <= descriptors, "descriptors are left")
        assert ask(site.port).status == 200
        assert unhandled == []
        records = [record for record in caplog.records if record.name.startswith("fuzzserver.web")]
    assert [record.getMessage() for record in records if record.levelno > logging.DEBUG] == []
    assert all(record.exc_info is None for record in records)
