"""What is done once for all viewers, and what one of them cannot do to the others."""

import json
import logging
import socket
import ssl
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection
from wsproto import ConnectionType, WSConnection

from fuzzserver import WebServer
from fuzzserver.access import DEFAULT_LIMITS, Access
from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.coverage.queue import CoverageFiles
from fuzzserver.web import hub, session
from fuzzserver.web.hub import Hub
from fuzzserver.web.limits import SparseLog
from fuzzserver.web.session import Moment, Told
from fuzzserver.web.web_socket import WebSocket
from fuzzserver.wire.abi import coverage_file_name
from fuzzserver.zig.installation import Zig
from tests.projects import FuzzedPair
from tests.support_http import upgrade_request
from tests.support_maps import show_map
from tests.support_sockets import PING, UPGRADED, frame
from tests.support_time import WAIT, eventually
from tests.support_tls import make_certificate
from tests.support_web import viewer, watch

OURS = {"subprotocols": ["fuzzserver"]}


def tags_until(connection: ClientConnection, tag: int) -> list[int]:
    """The tags of the binary messages, up to the first with this one."""
    tags: list[int] = []
    while tags[-1:] != [tag]:
        message = connection.recv(60)
        if isinstance(message, bytes):
            tags.append(message[0])
    return tags


def test_many_are_told_what_was_made_once(
    web_server: WebServer, debug_pair: FuzzedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever they came: what is new is looked up and put into frames once for all of them."""
    show_map(web_server, debug_pair.step, debug_pair.coverage_id)
    made, reads = [], []
    speak, read = Moment._speak, CoverageMap.read
    with (
        viewer(web_server.port) as first,
        viewer(web_server.port) as second,
        viewer(web_server.port) as third,
    ):
        viewers = (first, second, third)
        for each in viewers:
            watch(each, "coverage_update")
        # What a viewer has got may still seem to be on its way, and then it is told a turn later.
        known = web_server._http_server.hub._viewers
        eventually(
            lambda: len({each.told for each in known.values()}) == 1 and all(each.is_free for each in known),
            "they are not equal",
        )
        # The look after that finds nothing new, and those who have been told the same are equal.
        monkeypatch.setattr(Moment, "_speak", lambda self, told: made.append(self) or speak(self, told))
        # The history looks, too, on a thread of its own.
        monkeypatch.setattr(
            CoverageMap,
            "read",
            lambda self: reads.append(threading.current_thread().name) or read(self),
        )
        web_server.coverage_files.get(debug_pair.coverage_id).entry_points = (1, 2)
        web_server.notify()
        for each in viewers:
            assert watch(each, "entry_points").entry_points
    assert made
    assert len(made) == len(set(made))
    assert reads.count("hub") <= len(made)


def test_nobody_looks_while_nobody_watches(
    web_server: WebServer, debug_pair: FuzzedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread sleeps; it keeps nothing of what it has told."""
    monkeypatch.setattr(hub, "UPDATE_INTERVAL", 0.01)
    show_map(web_server, debug_pair.step, debug_pair.coverage_id)
    looks = []
    read = Moment.snapshot
    monkeypatch.setattr(
        Moment, "snapshot", lambda self, coverage_map: looks.append(1) or read(self, coverage_map)
    )
    with viewer(web_server.port) as connection:
        watch(connection, "coverage_update")
        eventually(lambda: len(looks) > 5, "nobody looks")
    told = web_server._http_server.hub

    def is_asleep() -> bool:
        with told._condition:
            return not told._viewers and not told._moment._speeches and bool(told._condition._waiters)

    eventually(is_asleep, "it goes on")
    before = len(looks)
    time.sleep(0.3)  # The time is what is tested: thirty looks.
    assert len(looks) == before


def test_index_that_a_page_has_is_not_sent_again(
    web_server: WebServer, debug_pair: FuzzedPair, safe_pair: FuzzedPair
) -> None:
    """A page that comes back names what it has kept, and gets the rest."""
    coverage_map = show_map(web_server, replace(debug_pair.step, key="a"), debug_pair.coverage_id)
    with viewer(web_server.port, **OURS) as connection:
        texts = [message for message in connection_until_index(connection) if isinstance(message, str)]
        told = [json.loads(text)["map"]["index"] for text in texts if "map" in json.loads(text)]
    assert told == [coverage_map.index_id]
    with viewer(web_server.port, f"/?index={told[0]}", **OURS) as connection:
        assert tags_until(connection, 17) == [0, 2, 17]
        # Another build of what it looks at is sent whole.
        show_map(web_server, replace(safe_pair.step, key="a"), safe_pair.coverage_id)
        assert set(tags_until(connection, 1)) <= {16, 17, 1}  # Before it, the old one may have had news.
        assert tags_until(connection, 17) == [2, 17]
    for other in ("0" * 16, "", "%00", "../" * 100):
        path = f"/?target={coverage_file_name(debug_pair.coverage_id)}&index={other}"
        with viewer(web_server.port, path, **OURS) as connection:
            assert tags_until(connection, 17) == [0, 1, 2, 17]
    # A map that is not the one whose index it has.
    path = f"/?target={coverage_file_name(safe_pair.coverage_id)}&index={told[0]}"
    with viewer(web_server.port, path, **OURS) as connection:
        assert tags_until(connection, 17) == [0, 1, 2, 17]


def connection_until_index(connection: ClientConnection) -> list[str | bytes]:
    """All messages up to the index."""
    messages = [connection.recv(60)]
    while messages[-1][0] != 1:
        messages.append(connection.recv(60))
    return messages


def test_fault_harms_those_who_would_be_told(
    web_server: WebServer,
    debug_pair: FuzzedPair,
    safe_pair: FuzzedPair,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Something wrong with one map ends the connections of those who look at it, with a reason."""
    debug_map = show_map(web_server, replace(debug_pair.step, key="a"), debug_pair.coverage_id)
    show_map(web_server, replace(safe_pair.step, key="b"), safe_pair.coverage_id)
    update = session.coverage_update_message
    faulty = debug_map.read().seen_bits

    def fail(snapshot):
        if snapshot.seen_bits == faulty:
            raise RuntimeError("a fault of ours")
        return update(snapshot)

    monkeypatch.setattr(session, "coverage_update_message", fail)
    path = f"/?target={coverage_file_name(safe_pair.coverage_id)}"
    with viewer(web_server.port, path) as good, viewer(web_server.port) as bad:
        watch(good, "coverage_update")
        with pytest.raises(ConnectionClosedError) as caught:
            while True:
                bad.recv(60)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1011
        assert good.ping().wait(60)
        web_server.coverage_files.get(safe_pair.coverage_id).entry_points = (1,)
        web_server.notify()
        watch(good, "entry_points")
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1


ZIGS_PAGE = Told(None, False)
"""What a viewer was told who has just come."""


@pytest.fixture
def alone() -> Hub:
    """A hub without a server, which runs in the test's own thread."""
    return Hub(SimpleNamespace(coverage_files=CoverageFiles()))


def test_what_comes_while_news_are_told_is_told_before_the_end(
    alone: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two, the last status may have been set, which says why it is over."""
    moments = []

    def tell(self: Hub, _: object) -> None:
        moments.append(self._moment)
        self.stop()

    monkeypatch.setattr(Hub, "_tell", tell)
    alone.join(object(), ZIGS_PAGE)
    alone.run()
    assert len(moments) == 2 == len(set(map(id, moments)))


def test_first_viewer_is_not_told_twice_in_a_row(alone: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long time without any, nothing has to be made up for."""
    monkeypatch.setattr(hub, "UPDATE_INTERVAL", 1000.0)
    alone.join(object(), ZIGS_PAGE)
    assert len(alone._wait()) == 1
    assert not alone._is_time_for_all()


def test_fault_of_many_is_logged_once(
    alone: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A thousand pages that come again and again do not fill the log."""

    def fail(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Moment, "speech", fail)
    monkeypatch.setattr(SparseLog, "INTERVAL", 1000.0)
    web_sockets = [Mock() for _ in range(10)]
    for web_socket in web_sockets:
        alone.join(web_socket, ZIGS_PAGE)
    for each in alone._wait():
        alone._tell(each)
    assert [web_socket.fail.call_count for web_socket in web_sockets] == [1] * 10
    (record,) = caplog.records
    assert "RuntimeError: a fault of ours" in record.getMessage()


def test_newcomers_bring_no_news_to_those_of_other_maps(
    web_server: WebServer, debug_pair: FuzzedPair, safe_pair: FuzzedPair
) -> None:
    """A map that nobody has looked at for one moment is no other one."""
    show_map(web_server, replace(debug_pair.step, key="a"), debug_pair.coverage_id)
    show_map(web_server, replace(safe_pair.step, key="b"), safe_pair.coverage_id)
    site = web_server._http_server.routes.site
    moment = Moment(site)
    told = moment.speech(Told(safe_pair.coverage_id, False)).told
    moment = Moment(site, moment)
    assert moment.speech(Told(debug_pair.coverage_id, False)).data
    assert Moment(site, moment).speech(told).data == []


def test_nothing_is_sent_when_it_is_over() -> None:
    """The socket is closed then: what is sent later might reach somebody else, or go without TLS."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        web_socket = WebSocket(
            ours, WSConnection(ConnectionType.SERVER), DEFAULT_LIMITS, lambda *_: pytest.fail("who speaks?")
        )
        theirs.shutdown(socket.SHUT_WR)
        web_socket.run(b"")
        assert not web_socket.offer([b"too late"])
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(100)


def test_tls_is_used_by_one_thread_at_a_time(
    zig: Zig, zig_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub sends while the connection's thread receives; OpenSSL allows one of them."""
    certificate, key = make_certificate(tmp_path)
    with WebServer(zig=zig, cache_dir=zig_cache, access=Access(tls_cert=certificate, tls_key=key)) as server:
        sessions = server._http_server._sessions
        calls: dict[str, list[bool]] = {"recv": [], "send": [], "pending": []}

        def watch_calls(name: str) -> None:
            call = getattr(ssl.SSLSocket, name)

            def watched(self: ssl.SSLSocket, *args: object) -> object:
                for each in [each for each in list(sessions) if each._connection is self]:
                    calls[name].append(each._lock._is_owned())
                return call(self, *args)

            monkeypatch.setattr(ssl.SSLSocket, name, watched)

        for name in calls:
            watch_calls(name)
        context = ssl.create_default_context(cafile=certificate)
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(upgrade_request(server.port))
            assert connection.recv(100).startswith(UPGRADED)
            connection.sendall(frame(PING))
            eventually(lambda: all(calls.values()), "not all of them are called")
    assert {name: set(owned) for name, owned in calls.items()} == {name: {True} for name in calls}
