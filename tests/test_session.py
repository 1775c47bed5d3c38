"""WebSocket clients: good ones, slow ones, dead ones."""

import contextlib
import json
import os
import shutil
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedOK, InvalidStatus, NegotiationError
from websockets.sync.client import ClientConnection
from wsproto import ConnectionType, WSConnection
from wsproto.events import BytesMessage, Message, Ping, Pong, Request, TextMessage

from fuzzserver import CoverageMsg, EntryPointMsg, FuzzRunStep, WebServer
from fuzzserver.findings import Finding, FindingStore
from fuzzserver.logbook import MAX_ENTRIES
from fuzzserver.status import Progress, TargetStatus, TestStatus
from fuzzserver.web import server, session, web_socket
from fuzzserver.web.web_socket import PING_INTERVAL, WebSocket
from fuzzserver.wire.abi import (
    CoverageDeltaHeader,
    HistoryHeader,
    HistorySample,
    OwnTag,
    SeenPcsHeader,
    SourceIndexHeader,
    coverage_file_name,
)
from tests.projects import FuzzedPair
from tests.support_http import exchange, receive_all
from tests.support_time import WAIT, eventually
from tests.support_web import viewer, watch

LARGE = b"\2" + bytes(16 << 20)
"""A message that no buffers hold if its reader does not read."""


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end, clients get the time that they need on a busy machine."""
    monkeypatch.setattr(server, "STOP_SECONDS", 5.0)


class Clock:
    """In place of the module ``time``: it stands still, except when a test moves it."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        """What time it is."""
        return self.now

    def move(self, seconds: float, web_socket: WebSocket) -> None:
        """So much later, have a WebSocket look what is due."""
        self.now += seconds
        web_socket._wake_up()


@pytest.fixture
def clock(web_server: WebServer) -> Iterator[Clock]:
    """The clock of all WebSockets, until the server ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web_socket, "time", clock := Clock())
        yield clock


def sessions(web_server: WebServer) -> list[WebSocket]:
    """The server's WebSockets."""
    assert web_server._http_server is not None
    return list(web_server._http_server._sessions)


def only_session(web_server: WebServer) -> WebSocket:
    """The one that there is, once it is there."""
    eventually(lambda: sessions(web_server), "there is no session")
    (found,) = sessions(web_server)
    return found


@pytest.fixture
def copied(debug_pair: FuzzedPair, tmp_path: Path) -> FuzzRunStep:
    """A step whose coverage file is a copy that the test may change."""
    path = tmp_path / "coverage"
    path.write_bytes(debug_pair.coverage_file.read_bytes())
    return FuzzRunStep("copied", debug_pair.executable, coverage_file=path)


def set_header(step: FuzzRunStep, **changes: int) -> None:
    """Change counters in the coverage file, as a fuzzer would."""
    assert step.coverage_file is not None
    with step.coverage_file.open("r+b") as file:
        header = SeenPcsHeader.parse(file.read(SeenPcsHeader.LAYOUT.size))
        fields = {name: getattr(header, name) for name in ("n_runs", "unique_runs", "pcs_len")}
        file.seek(0)
        file.write(SeenPcsHeader(**{**fields, **changes}).serialize())


@pytest.mark.parametrize("path", ["/", "/debug/", "/any/other?thing=1"])
def test_upgrade_works_at_any_path(web_server: WebServer, path: str) -> None:
    """The page connects to its own path, wherever that is."""
    with viewer(web_server.port, path) as connection:
        assert len(connection.recv(30)) == 9


def test_index_comes_even_if_nothing_was_run(web_server: WebServer, copied: FuzzRunStep) -> None:
    """A map exists as soon as it is built; no run has to have happened."""
    set_header(copied, n_runs=0, unique_runs=0)
    with viewer(web_server.port) as connection:
        assert watch(connection, "current_time").order == ["current_time"]
        web_server.post(CoverageMsg(1, copied))
        seen = watch(connection, "source_index", "coverage_update")
    assert seen.order == ["source_index", "coverage_update"]
    assert (seen.update.n_runs, seen.update.unique_runs) == (0, 0)


def test_update_comes_when_only_runs_have_changed(web_server: WebServer, copied: FuzzRunStep) -> None:
    """Speed and total go on while nothing new is found."""
    web_server.post(CoverageMsg(1, copied))
    with viewer(web_server.port) as connection:
        before = watch(connection, "coverage_update").update
        set_header(copied, n_runs=before.n_runs + 5)
        after = watch(connection, "coverage_update").update
    assert (after.n_runs, after.unique_runs) == (before.n_runs + 5, before.unique_runs)


def test_nothing_is_sent_while_nothing_changes(web_server: WebServer, copied: FuzzRunStep) -> None:
    """A file at rest costs no messages."""
    web_server.post(CoverageMsg(1, copied))
    with viewer(web_server.port) as connection:
        watch(connection, "coverage_update")
        with pytest.raises(TimeoutError):
            connection.recv(1.5)


def test_new_entry_point_is_sent_at_once(web_server: WebServer, debug_pair: FuzzedPair) -> None:
    """Entry points come one by one, each message with all of them."""
    web_server.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
    with viewer(web_server.port) as connection:
        watch(connection, "coverage_update")
        for count, addr in enumerate(debug_pair.entry_points, 1):
            web_server.post(EntryPointMsg(debug_pair.coverage_id, addr))
            message = watch(connection, "entry_points").entry_points
            assert struct.unpack_from("<I", message)[0] == 3 | count << 8
            assert len(message) == 4 + 4 * count


def test_start_timestamp_lies_before_current_time(web_server: WebServer, copied: FuzzRunStep) -> None:
    """Both are nanoseconds on the same clock, so that the page can tell the elapsed time."""
    before = web_server.now()
    web_server.post(CoverageMsg(1, copied))
    with viewer(web_server.port) as connection:
        seen = watch(connection, "current_time", "source_index")
    start = SourceIndexHeader.parse(seen.source_index).start_timestamp
    assert before <= start <= web_server.now()


def test_client_without_subprotocol_gets_binary_messages_only(
    web_server: WebServer, copied: FuzzRunStep
) -> None:
    """Zig's page knows the tags 0 to 3 and nothing else."""
    web_server.set_status("building", "Compiling ...")
    web_server.post(CoverageMsg(1, copied))
    with viewer(web_server.port) as connection:
        messages = [connection.recv(30) for _ in range(3)]
    assert [message[0] for message in messages] == [0, 1, 2]


def test_client_with_our_subprotocol_gets_the_status(web_server: WebServer, copied: FuzzRunStep) -> None:
    """Each change of the status is one JSON text."""
    with viewer(web_server.port, subprotocols=["other", "fuzzserver"]) as connection:
        assert connection.subprotocol == "fuzzserver"
        texts = statuses(connection)
        assert next(texts)["state"] == "waiting"
        web_server.set_status("building", "Compiling ...")
        nothing = {"start_n_runs": None, "target": None, "targets": []}
        assert next(texts) == {"state": "building", "text": "Compiling ..."} | nothing
        set_header(copied, n_runs=123)
        web_server.post(CoverageMsg(1, copied))
        status = next(texts)
        assert status["start_n_runs"] == 123
        assert status["target"] == "0100000000000000"


def texts_of(connection: ClientConnection) -> Iterator[dict]:
    """The JSON texts as they come."""
    return (json.loads(message) for message in connection if isinstance(message, str))


def statuses(connection: ClientConnection) -> Iterator[dict]:
    """Those texts that say what the server does."""
    return (text for text in texts_of(connection) if "state" in text)


def news(connection: ClientConnection) -> Iterator[dict]:
    """The other ones."""
    return (text for text in texts_of(connection) if "state" not in text)


def test_unknown_subprotocol_is_not_accepted(web_server: WebServer) -> None:
    """The handshake works, without a subprotocol; some clients then give up by themselves."""
    try:
        with viewer(web_server.port, subprotocols=["other"]) as connection:
            assert connection.subprotocol is None
    except NegotiationError:
        pass


def test_client_that_closes_is_forgotten(web_server: WebServer) -> None:
    """Its thread ends."""
    with viewer(web_server.port) as connection:
        connection.recv(30)
        assert session_threads()
    eventually(lambda: not session_threads(), "a session lives on")


def test_dead_client_is_noticed(web_server: WebServer, clock: Clock) -> None:
    """A client that answers no ping is dropped, and its thread ends."""
    connection, _ = handshake(web_server.port)
    session = only_session(web_server)
    clock.move(PING_INTERVAL, session)
    eventually(lambda: session._pinged_at is not None and not session._ping_waits, "there is no ping")
    assert session_threads()
    clock.move(PING_INTERVAL, session)
    assert receive_all(connection) == b"\x89\x00"
    eventually(lambda: not session_threads(), "a session lives on")
    connection.close()


def test_living_client_stays(web_server: WebServer, clock: Clock) -> None:
    """A client that answers pings is kept."""
    with viewer(web_server.port, ping_interval=None) as connection:
        session = only_session(web_server)
        for _ in range(5):
            clock.move(PING_INTERVAL, session)
            eventually(lambda: session._last_heard == clock.now, "a ping is not answered")
        assert connection.ping().wait(30)
        assert session_threads()


def test_server_answers_pings(web_server: WebServer) -> None:
    """A ping comes back as a pong with the same payload."""
    with viewer(web_server.port) as connection:
        assert connection.ping(b"hello").wait(30)


def test_frame_that_comes_with_the_handshake_is_not_lost(web_server: WebServer) -> None:
    """Handshake and first frame in one packet: the frame is answered."""
    connection, events = handshake(web_server.port, Ping(payload=b"early"))
    assert any(isinstance(event, Pong) and event.payload == b"early" for event in events)
    connection.close()


def test_client_messages_are_dropped(web_server: WebServer) -> None:
    """Clients have nothing to say, and saying it does no harm."""
    with viewer(web_server.port) as connection:
        connection.send("hello")
        connection.send(bytes(4000))
        assert connection.ping().wait(30)


def test_protocol_violation_ends_the_session(web_server: WebServer) -> None:
    """An unmasked frame is no WebSocket; nobody else notices."""
    connection, _ = handshake(web_server.port)
    connection.sendall(b"\x81\x05hello")
    eventually(lambda: not session_threads(), "a session lives on")
    connection.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", b"426"),
        ("Sec-WebSocket-Version: 13\r\n", b"400"),
        ("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
         "Sec-WebSocket-Protocol: \xe9\r\n", b"400"),
    ],
)  # fmt: skip
def test_bad_handshake_is_refused(web_server: WebServer, headers: str, status: bytes) -> None:
    """With an answer that says which kind of bad."""
    port = web_server.port
    asking = "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{asking}{headers}\r\n"
    assert exchange(port, head.encode("latin-1")).split()[1] == status


@pytest.fixture
def large(web_server: WebServer, debug_pair: FuzzedPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map whose update is large."""
    monkeypatch.setattr(session, "coverage_update_message", lambda _: LARGE)
    web_server.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
    eventually(lambda: web_server.coverage_files.first(), "there is no map")


def test_stalled_client_costs_the_others_nothing(web_server: WebServer, clock: Clock, large: None) -> None:
    """Clients that never read do not delay a client that does."""
    stalled = [handshake(web_server.port, receive=False)[0] for _ in range(5)]
    eventually(lambda: [bool(each._out) for each in sessions(web_server)] == [True] * 5, "nothing waits")
    with viewer(web_server.port) as connection:
        assert watch(connection, "source_index").tables
    for each in stalled:
        each.close()


def test_stalled_client_costs_no_time(
    web_server: WebServer, clock: Clock, large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that never reads is waited for, not asked again and again, until it is dropped."""
    connection, _ = handshake(web_server.port)
    (thread,) = session_threads()
    sending = only_session(web_server)
    assert sending._out
    rounds = []
    timeout = WebSocket._timeout
    monkeypatch.setattr(WebSocket, "_timeout", lambda self: rounds.append(1) or timeout(self))
    time.sleep(0.5)  # In which a loop that spins makes thousands of rounds.
    for _ in range(3):
        clock.move(PING_INTERVAL, sending)
    thread.join(WAIT)
    assert not thread.is_alive()
    assert len(rounds) < 50
    connection.close()


def test_client_that_pings_and_does_not_read_costs_no_memory(
    web_server: WebServer, clock: Clock, large: None
) -> None:
    """Of many pings, some are answered when there is room; then it is shown the door."""
    connection, _ = handshake(web_server.port)
    sending = only_session(web_server)
    ping = b"\x89\xfd" + bytes(4) + bytes(125)
    connection.sendall(ping * 90)
    eventually(lambda: len(sending._out) == web_socket.MAX_WAITING, "nothing waits")
    assert sum(map(len, sending._out)) < 17 << 20
    connection.sendall(ping * 1000)
    eventually(lambda: sending._closing_at is not None, "it may go on")
    clock.move(web_socket.CLOSE_GRACE, sending)
    eventually(lambda: not session_threads(), "a session lives on")
    connection.close()


def test_client_that_reads_slowly_is_kept(web_server: WebServer, clock: Clock, large: None) -> None:
    """It gets a large message whole, however long that takes: the ping behind it is not counted before."""
    connection, _ = handshake(web_server.port, receive=False)
    sending = only_session(web_server)
    sending._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
    size, begun = 0, clock.now
    while size < len(LARGE):
        clock.move(0.9 * PING_INTERVAL, sending)
        while size < len(LARGE) and sending._last_read < clock.now:
            data = connection.recv(64 * 1024)
            assert data, f"dropped after {size} bytes and {clock.now - begun:.0f} s"
            size += len(data)
    assert clock.now - begun > 10 * PING_INTERVAL
    assert session_threads()
    connection.close()


def test_client_that_only_talks_is_dropped(web_server: WebServer, clock: Clock, large: None) -> None:
    """A sign of life now and then is not enough, if it does not read what it is sent."""
    connection, _ = handshake(web_server.port)
    sending = only_session(web_server)
    (thread,) = session_threads()
    times = 0
    with contextlib.suppress(ConnectionError):
        while thread.is_alive() and times < 20:
            times += 1
            clock.now += 0.6 * PING_INTERVAL
            connection.sendall(b"\x8a\x80" + bytes(4))
            eventually(lambda: sending._last_heard == clock.now or not thread.is_alive(), "it is not heard")
    thread.join(WAIT)
    assert not thread.is_alive()
    assert times > 2
    connection.close()


def test_last_status_comes_before_the_good_bye(web_server: WebServer, patience: None) -> None:
    """Who watched the build learns why it is over."""
    with viewer(web_server.port, subprotocols=["fuzzserver"]) as connection:
        connection.recv(30)
        web_server.add_log("zig", "x.zig:1:1: error: no", "error")
        web_server.set_status("failed", "x.zig:1:1: error: no")
        web_server.stop()
        texts = list(texts_of(connection))
    assert [text["state"] for text in texts if "state" in text][-1] == "failed"
    assert [each["text"] for text in texts if "log" in text for each in text["log"]["entries"]] == [
        "x.zig:1:1: error: no"
    ]


def test_stopping_server_says_good_bye(web_server: WebServer, patience: None) -> None:
    """Clients learn that the server went away, by close code 1001."""
    with viewer(web_server.port) as connection:
        connection.recv(30)
        threading.Thread(target=web_server.stop).start()
        with pytest.raises(ConnectionClosedOK) as caught:
            connection.recv(30)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1001


def test_truncated_coverage_file_keeps_the_last_values(web_server: WebServer, copied: FuzzRunStep) -> None:
    """The process lives on, and new viewers see what was known."""
    web_server.post(CoverageMsg(1, copied))
    with viewer(web_server.port) as connection:
        before = watch(connection, "coverage_update").coverage_update
    assert copied.coverage_file is not None
    os.truncate(copied.coverage_file, 10)
    with viewer(web_server.port) as connection:
        assert watch(connection, "coverage_update").coverage_update == before


def session_threads() -> list[threading.Thread]:
    """Threads that serve a WebSocket."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("ws-")]


def handshake(port: int, *early: Ping, receive: bool = True) -> tuple[socket.socket, list[object]]:
    """A client that does nothing by itself; returns the events until the first message."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    connection.settimeout(WAIT)
    connection.connect(("127.0.0.1", port))
    ws = WSConnection(ConnectionType.CLIENT)
    opening = ws.send(Request(host=f"127.0.0.1:{port}", target="/"))
    frames = b"".join(b"\x89" + bytes([0x80 | len(ping.payload)]) + bytes(4) + ping.payload for ping in early)
    connection.sendall(opening + frames)
    events: list[object] = []
    wanted = (Pong,) if early else (BytesMessage, TextMessage, Message)
    while receive and not any(isinstance(event, wanted) for event in events):
        data = connection.recv(65536)
        assert data, "the server has hung up"
        ws.receive_data(data)
        events += ws.events()
    return connection, events


def test_plain_request_without_upgrade_header_is_no_web_socket(web_server: WebServer) -> None:
    """A page that is opened in a browser is answered with the page."""
    with pytest.raises(InvalidStatus), viewer(web_server.port, additional_headers={"Upgrade": "h2c"}):
        pass


def two_targets(web_server: WebServer, debug: FuzzedPair, safe: FuzzedPair) -> None:
    """Post the Debug build as a target that came first, and the ReleaseSafe build as another, both without
    the histories that earlier tests have left.
    """
    for pair, key in ((debug, "first"), (safe, "second")):
        step = replace(pair.step, key=key, cache_root=None, coverage_file=pair.coverage_file)
        web_server.post(CoverageMsg(pair.coverage_id, step))
    eventually(lambda: web_server.coverage_files.get(safe.coverage_id), "there is no map")


def tables_of(web_server: WebServer, pair: FuzzedPair) -> bytes:
    """What the map of ``pair`` sends, without the header."""
    coverage_map = web_server.coverage_files.get(pair.coverage_id)
    assert coverage_map is not None
    return coverage_map.source_index[SourceIndexHeader.LAYOUT.size :]


def test_target_names_any_map(web_server: WebServer, debug_pair: FuzzedPair, safe_pair: FuzzedPair) -> None:
    """A client that names a map gets that one and its entry points, in small or capital letters."""
    two_targets(web_server, debug_pair, safe_pair)
    for pair in (debug_pair, safe_pair):
        web_server.post(EntryPointMsg(pair.coverage_id, pair.entry_points[0]))
    for pair in (debug_pair, safe_pair):
        name = coverage_file_name(pair.coverage_id)
        for query in (f"target={name}", f"target=0&x=1&target={name.upper()}"):
            with viewer(web_server.port, f"/debug/?{query}") as connection:
                seen = watch(connection)
            assert seen.tables == tables_of(web_server, pair)
            assert struct.unpack_from("<I", seen.entry_points)[0] == 3 | 1 << 8
    assert tables_of(web_server, debug_pair) != tables_of(web_server, safe_pair)


def test_target_that_is_not_there_yet(
    web_server: WebServer, debug_pair: FuzzedPair, safe_pair: FuzzedPair
) -> None:
    """Who waits for a map is told the status, gets nothing of other maps, and the map when it comes."""
    web_server.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
    eventually(lambda: web_server.coverage_files.first(), "there is no map")
    name = coverage_file_name(safe_pair.coverage_id)
    with viewer(web_server.port, f"/?target={name}", subprotocols=["fuzzserver"]) as connection:
        assert connection.recv(30)[0] == 0
        assert json.loads(connection.recv(30))["target"] is None
        assert json.loads(connection.recv(30))["map"] is None
        web_server.set_status("fuzzing", "more")
        # Nothing binary came in between.
        assert json.loads(connection.recv(30))["text"] == "more"
        web_server.post(CoverageMsg(safe_pair.coverage_id, safe_pair.step))
        status = next(statuses(connection))
        assert (status["target"], status["start_n_runs"]) == (
            name,
            web_server.coverage_files.get(safe_pair.coverage_id).start_n_runs,
        )
        assert watch(connection, "source_index").tables == tables_of(web_server, safe_pair)


@pytest.mark.parametrize(
    "target", ["", "0", "nonsense", "49e67756ea1c6d82ff", "%2e%2e%2fv", "ffffffffffffffff"]
)
def test_target_that_is_none(web_server: WebServer, debug_pair: FuzzedPair, target: str) -> None:
    """What names no map gets no coverage: rather nothing than something else than was asked for."""
    web_server.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
    eventually(lambda: web_server.coverage_files.first(), "there is no map")
    with viewer(web_server.port, f"/?target={target}", subprotocols=["fuzzserver"]) as connection:
        assert connection.recv(30)[0] == 0
        assert json.loads(connection.recv(30))["state"] == "serving"
        assert json.loads(connection.recv(30))["map"] is None
        web_server.set_status("stopped", "over")
        assert json.loads(connection.recv(30))["text"] == "over"


@pytest.mark.parametrize("path", ["/", "/debug/?other=1"])
def test_page_without_target_follows_the_first(
    web_server: WebServer, debug_pair: FuzzedPair, safe_pair: FuzzedPair, small_pair: FuzzedPair, path: str
) -> None:
    """It shows the newest build of the target that came first, and moves when there is a newer one."""
    two_targets(web_server, debug_pair, safe_pair)
    with viewer(web_server.port, path) as connection:
        assert watch(connection, "source_index").tables == tables_of(web_server, debug_pair)
        # A newer build of another target changes nothing here; one of the first does.
        web_server.post(CoverageMsg(small_pair.coverage_id, replace(small_pair.step, key="second")))
        eventually(lambda: web_server.coverage_files.get(small_pair.coverage_id), "there is no map")
        web_server.post(CoverageMsg(safe_pair.coverage_id, replace(safe_pair.step, key="first")))
        seen = watch(connection, "source_index")
        assert seen.tables == tables_of(web_server, safe_pair)
        assert seen.order.count("source_index") == 1
        assert set(watch(connection, "coverage_update").order) == {"coverage_update"}


def test_client_that_is_like_zigs_page_gets_four_kinds_of_messages(
    web_server: WebServer, debug_pair: FuzzedPair, safe_pair: FuzzedPair
) -> None:
    """Targets, findings and a rebuild go by; all that it is sent are the tags 0 to 3."""
    with viewer(web_server.port) as connection:
        two_targets(web_server, debug_pair, safe_pair)
        web_server.set_target(TargetStatus("first", "src/main.zig", "fuzzing"))
        web_server.set_status("fuzzing", "Sources have changed.")
        messages = []
        web_server.post(EntryPointMsg(debug_pair.coverage_id, debug_pair.entry_points[0]))
        while not messages or messages[-1][0] != 3:
            messages.append(connection.recv(30))
        web_server.post(CoverageMsg(safe_pair.coverage_id, replace(safe_pair.step, key="first")))
        web_server.post(EntryPointMsg(safe_pair.coverage_id, safe_pair.entry_points[0]))
        messages.append(connection.recv(30))
        while messages[-1][0] != 3:
            messages.append(connection.recv(30))
    assert all(isinstance(message, bytes) for message in messages)
    assert {message[0] for message in messages} == {0, 1, 2, 3}
    # The page knows which table to look up only if each index comes before what refers to it.
    assert [message[0] for message in messages if message[0] != 2] == [0, 1, 3, 1, 3]


OURS = {"subprotocols": ["fuzzserver"]}
"""Options of a client that speaks our subprotocol."""


def test_all_fields_come_at_once_and_then_what_has_changed(web_server: WebServer, tmp_path: Path) -> None:
    """A client knows everything after the first two texts, and is told nothing twice."""
    store = FindingStore(tmp_path, web_server.notify)
    web_server.set_findings(store)
    web_server.add_log("zig", "first words")
    with viewer(web_server.port, **OURS) as connection:
        texts = texts_of(connection)
        assert set(next(texts)) == {"state", "text", "start_n_runs", "target", "targets"}
        first = next(texts)
        started, log = first.pop("started"), first.pop("log")
        assert time.time() - 60 < started <= time.time()
        assert first == {"findings": [], "progress": None, "map": None, "marks": []}
        assert log["whole"] is True
        assert [(each["source"], each["level"], each["text"]) for each in log["entries"]] == [
            ("zig", "info", "first words")
        ]
        web_server.set_progress(Progress("Compiling ...", 1, 3))
        assert next(texts) == {"progress": {"text": "Compiling ...", "done": 1, "total": 3}}
        web_server.set_status("fuzzing", "now")
        assert next(texts)["state"] == "fuzzing"
        store.add(Finding("00", "hang", "no end", "a", "b", 1.0, 1.0, place="a.zig:1:2"), b"x")
        told = next(texts)
        assert set(told) == {"findings"}
        assert [(each["id"], each["place"]) for each in told["findings"]] == [("00", "a.zig:1:2")]
        web_server.set_progress(None)
        assert next(texts) == {"progress": None}
        web_server.set_target(TargetStatus("a", "a", "fuzzing", tests=(TestStatus("b", "fuzzing"),)))
        assert [each["name"] for each in next(texts)["targets"]] == ["a"]


def test_log_goes_on(web_server: WebServer) -> None:
    """What is said later is appended, within half a second and without a notice of its own."""
    web_server.add_log("a", "one")
    with viewer(web_server.port, **OURS) as connection:
        texts = news(connection)
        assert [each["text"] for each in next(texts)["log"]["entries"]] == ["one"]
        web_server.add_log("a", "two")
        web_server.add_log("a", "three", "warning")
        told = next(texts)
        assert set(told) == {"log"}
        while len(told["log"]["entries"]) < 2:  # The look may have been between the two.
            told["log"]["entries"] += next(texts)["log"]["entries"]
        assert told["log"]["whole"] is False
        assert [(each["text"], each["level"]) for each in told["log"]["entries"]] == [
            ("two", "info"),
            ("three", "warning"),
        ]
    with viewer(web_server.port, **OURS) as connection:
        log = next(news(connection))["log"]
    assert (log["whole"], [each["text"] for each in log["entries"]]) == (True, ["one", "two", "three"])


def test_slow_client_skips_what_is_gone(
    web_server: WebServer, debug_pair: FuzzedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it does not read, nothing is kept for it; then it gets what is still there, and is told so."""
    monkeypatch.setattr(session, "coverage_update_message", lambda _: LARGE)
    with viewer(web_server.port, **OURS, max_queue=1) as connection:
        assert json.loads([connection.recv(30) for _ in range(3)][2])["log"]["whole"] is True
        sending = only_session(web_server)
        web_server.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
        eventually(lambda: sum(map(len, sending._out)) > 1 << 20, "nothing waits")
        for number in range(3 * MAX_ENTRIES):
            web_server.add_log("a", f"line {number}")
        assert sum(map(len, sending._out)) < 20 << 20
        logs = [text["log"] for text in iter_until(news(connection), lambda text: "log" in text)]
    (log,) = logs
    assert log["whole"] is True
    assert [each["text"] for each in log["entries"]] == [
        f"line {number}" for number in range(2 * MAX_ENTRIES, 3 * MAX_ENTRIES)
    ]


def iter_until(texts: Iterator[dict], wanted) -> Iterator[dict]:
    """The first of the texts that is wanted."""
    for text in texts:
        if wanted(text):
            yield text
            return


def binary(connection: ClientConnection, tag: int) -> bytes:
    """The next message with this tag."""
    while True:
        message = connection.recv(30)
        if isinstance(message, bytes) and message[0] == tag:
            return message


def set_bits(step: FuzzRunStep, bits: bytes) -> None:
    """Replace the beginning of the bits in the coverage file, as a fuzzer would."""
    assert step.coverage_file is not None
    with step.coverage_file.open("r+b") as file:
        file.seek(SeenPcsHeader.LAYOUT.size)
        file.write(bits)


def bits_of(step: FuzzRunStep, size: int) -> bytes:
    """The beginning of the bits in the coverage file."""
    assert step.coverage_file is not None
    return step.coverage_file.read_bytes()[SeenPcsHeader.LAYOUT.size :][:size]


def test_only_what_is_new_is_sent(web_server: WebServer, copied: FuzzRunStep) -> None:
    """After the first update, a client of ours gets the numbers and the newly covered points."""
    before = bits_of(copied, 8)
    missing = [index for index in range(64) if not before[index // 8] >> index % 8 & 1][:2]
    assert len(missing) == 2
    web_server.post(CoverageMsg(1, copied))
    with viewer(web_server.port, **OURS) as connection:
        binary(connection, 2)
        set_header(copied, n_runs=1000, unique_runs=10)
        delta = binary(connection, OwnTag.COVERAGE_DELTA)
        head = CoverageDeltaHeader.parse(delta)
        assert (head.n_runs, head.unique_runs, head.new_len) == (1000, 10, 0)
        assert len(delta) == CoverageDeltaHeader.LAYOUT.size
        assert time.time() - 30 < head.time <= time.time()
        now = bytearray(before)
        for index in missing:
            now[index // 8] |= 1 << index % 8
        set_bits(copied, now)
        delta = binary(connection, OwnTag.COVERAGE_DELTA)
        assert CoverageDeltaHeader.parse(delta).new_len == 2
        assert list(struct.unpack_from("<2I", delta, CoverageDeltaHeader.LAYOUT.size)) == missing
        # A bit that vanishes cannot be told so.
        set_bits(copied, before)
        update = binary(connection, 2)
        assert update[24:32] == before
    with viewer(web_server.port) as connection:
        watch(connection, "coverage_update")
        set_header(copied, n_runs=1001)
        assert set(watch(connection, "coverage_update").order) == {"coverage_update"}


def test_runs_of_a_worker_that_joins_are_not_of_now(
    web_server: WebServer, copied: FuzzRunStep, tmp_path: Path
) -> None:
    """What it has made before is counted, and said to be of nobody knows when."""
    web_server.post(CoverageMsg(1, copied))
    with viewer(web_server.port, **OURS) as connection:
        binary(connection, 2)
        joined = tmp_path / "joined"
        shutil.copy(copied.coverage_file, joined)
        web_server.coverage_files.get(1).add_coverage_file(joined)
        head = CoverageDeltaHeader.parse(binary(connection, OwnTag.COVERAGE_DELTA))
        assert (head.time, head.new_len) == (CoverageDeltaHeader.UNKNOWN_TIME, 0)
        set_header(copied, n_runs=head.n_runs + 1)
        head = CoverageDeltaHeader.parse(binary(connection, OwnTag.COVERAGE_DELTA))
        assert head.time > CoverageDeltaHeader.UNKNOWN_TIME


def test_long_news_are_sent_as_a_whole(web_server: WebServer, copied: FuzzRunStep) -> None:
    """Where indexes would take more room than all bits, those are sent."""
    header = SeenPcsHeader.parse(copied.coverage_file.read_bytes())
    everything = ((1 << header.pcs_len) - 1).to_bytes(header.seen_bits_size, "little")
    web_server.post(CoverageMsg(1, copied))
    with viewer(web_server.port, **OURS) as connection:
        binary(connection, 2)
        set_bits(copied, everything)
        message = connection.recv(30)
        while isinstance(message, str) or message[0] not in (2, OwnTag.COVERAGE_DELTA):
            message = connection.recv(30)
        assert (message[0], message[24:]) == (2, everything)


def test_another_map_begins_with_an_update(
    web_server: WebServer, debug_pair: FuzzedPair, safe_pair: FuzzedPair
) -> None:
    """What is new is told only of a map of which the client has all."""
    web_server.post(CoverageMsg(debug_pair.coverage_id, replace(debug_pair.step, key="a")))
    with viewer(web_server.port, **OURS) as connection:
        binary(connection, OwnTag.HISTORY)
        web_server.post(CoverageMsg(safe_pair.coverage_id, replace(safe_pair.step, key="a")))
        order = []
        while order[-1:] != [OwnTag.HISTORY]:
            message = connection.recv(30)
            if isinstance(message, bytes) and (order or message[0] == 1):
                order.append(message[0])
        assert order == [1, 2, OwnTag.HISTORY]
        assert HistoryHeader.parse(message).whole


def samples_of(message: bytes) -> list[HistorySample]:
    """The samples in a history message."""
    size = HistorySample.LAYOUT.size
    samples = [
        HistorySample.parse(message[start : start + size])
        for start in range(HistoryHeader.LAYOUT.size, len(message), size)
    ]
    assert len(samples) == HistoryHeader.parse(message).samples_len
    return samples


def test_history(web_server: WebServer, copied: FuzzRunStep) -> None:
    """It comes whole, after index and update; then what is added. The next client gets all of it."""
    set_header(copied, n_runs=10, unique_runs=1)
    web_server.post(CoverageMsg(1, copied))
    with viewer(web_server.port, **OURS) as connection:
        order = []
        while order[-1:] != [OwnTag.HISTORY]:
            message = connection.recv(30)
            if isinstance(message, bytes):
                order.append(message[0])
        assert order == [0, 1, 2, OwnTag.HISTORY]
        assert HistoryHeader.parse(message).whole
        first = samples_of(message)
        assert (first[-1].n_runs, first[-1].flags) == (10, HistorySample.START)
        time.sleep(1.0)  # There is about one sample a second.
        set_header(copied, n_runs=20, unique_runs=2)
        message = binary(connection, OwnTag.HISTORY)
        assert not HistoryHeader.parse(message).whole
        later = samples_of(message)
        assert (later[-1].n_runs, later[-1].unique_runs, later[-1].flags) == (20, 2, 0)
        assert later[-1].time > first[-1].time
    with viewer(web_server.port, **OURS) as connection:
        message = binary(connection, OwnTag.HISTORY)
    assert HistoryHeader.parse(message).whole
    assert samples_of(message) == first + later


def test_map_and_marks_belong_to_what_is_shown(
    web_server: WebServer, debug_pair: FuzzedPair, safe_pair: FuzzedPair
) -> None:
    """Two clients that are shown different maps are told of different executables."""
    two_targets(web_server, debug_pair, safe_pair)
    for pair in (debug_pair, safe_pair):
        path = f"/?target={coverage_file_name(pair.coverage_id)}"
        with viewer(web_server.port, path, **OURS) as connection:
            told = next(news(connection))
            assert told["map"]["executable"] == str(pair.executable)
            assert told["map"]["has_debug_info"] is True
            web_server.coverage_files.get(pair.coverage_id).history.mark(time.time(), "restart", "again")
            _, gone, (mark,) = next(news(connection))["splices"]["marks"]
            assert (gone, mark["kind"], mark["text"]) == (0, "restart", "again")


def test_executable_that_is_replaced(web_server: WebServer, debug_pair: FuzzedPair, tmp_path: Path) -> None:
    """Who looks at a map learns that its executable is no longer what it was."""
    executable = tmp_path / "test"
    executable.write_bytes(debug_pair.executable.read_bytes())
    step = FuzzRunStep("copied", executable, coverage_file=debug_pair.coverage_file)
    web_server.post(CoverageMsg(debug_pair.coverage_id, step))
    eventually(lambda: web_server.coverage_files.first(), "there is no map")
    with viewer(web_server.port, **OURS) as connection:
        texts = news(connection)
        assert next(texts)["map"]["replaced"] is False
        executable.unlink()
        assert next(iter_until(texts, lambda text: "map" in text))["map"]["replaced"] is True
