"""WebSocket clients: good ones, slow ones, dead ones."""

import json
import os
import socket
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedOK, InvalidStatus, NegotiationError
from wsproto import ConnectionType, WSConnection
from wsproto.events import BytesMessage, Message, Ping, Pong, Request, TextMessage

from fuzzserver import CoverageMsg, EntryPointMsg, FuzzRunStep, WebServer
from fuzzserver.status import TargetStatus
from fuzzserver.web import session
from fuzzserver.wire.abi import SeenPcsHeader, SourceIndexHeader, coverage_file_name
from tests.projects import FuzzedPair
from tests.support_web import raw, viewer, watch


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
        texts = (json.loads(message) for message in connection if isinstance(message, str))
        assert next(texts)["state"] == "waiting"
        web_server.set_status("building", "Compiling ...")
        nothing = {"start_n_runs": None, "target": None, "targets": []}
        assert next(texts) == {"state": "building", "text": "Compiling ..."} | nothing
        set_header(copied, n_runs=123)
        web_server.post(CoverageMsg(1, copied))
        status = next(texts)
        assert status["start_n_runs"] == 123
        assert status["target"] == "0100000000000000"


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
    wait_until(lambda: not session_threads())


def test_dead_client_is_noticed(web_server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that answers no ping is dropped, and its thread ends."""
    monkeypatch.setattr(session, "PING_INTERVAL", 0.2)
    connection, _ = handshake(web_server.port)
    wait_until(lambda: not session_threads())
    connection.close()


def test_living_client_stays(web_server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that answers pings is kept."""
    monkeypatch.setattr(session, "PING_INTERVAL", 0.2)
    with viewer(web_server.port, ping_interval=None) as connection:
        time.sleep(1.5)
        connection.ping().wait(30)
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
        connection.send(bytes(100_000))
        assert connection.ping().wait(30)


def test_protocol_violation_ends_the_session(web_server: WebServer) -> None:
    """An unmasked frame is no WebSocket; nobody else notices."""
    connection, _ = handshake(web_server.port)
    connection.sendall(b"\x81\x05hello")
    wait_until(lambda: not session_threads())
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
    head = f"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{headers}\r\n"
    assert raw(web_server.port, head.encode("latin-1")).split()[1] == status


def test_stalled_client_costs_the_others_nothing(web_server: WebServer, debug_pair: FuzzedPair) -> None:
    """Clients that never read do not delay a client that does."""
    web_server.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
    with viewer(web_server.port) as connection:
        watch(connection, "coverage_update")
    stalled = [handshake(web_server.port, receive=False)[0] for _ in range(5)]
    with viewer(web_server.port) as connection:
        assert watch(connection, "source_index", timeout=5).tables
    for each in stalled:
        each.close()


def test_stalled_client_costs_no_time(
    web_server: WebServer, debug_pair: FuzzedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that never reads is waited for, not asked again and again, until it is dropped."""
    monkeypatch.setattr(session, "PING_INTERVAL", 1.0)
    # More than the buffers of two sockets hold.
    monkeypatch.setattr(session, "coverage_update_message", lambda _: b"\2" + bytes(16 << 20))
    connection, _ = handshake(web_server.port)
    (thread,) = session_threads()
    web_server.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
    wait_until(lambda: web_server.coverage_files.first())
    rounds = []
    timeout = session.Session._timeout
    monkeypatch.setattr(session.Session, "_timeout", lambda self: rounds.append(1) or timeout(self))
    thread.join(20)
    assert not thread.is_alive()
    # Two looks a second for two seconds, and a few for each end; a loop that spins makes thousands.
    assert len(rounds) < 50
    connection.close()


def test_client_that_pings_and_does_not_read_costs_no_memory(
    web_server: WebServer, debug_pair: FuzzedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many pings, the last one is answered when there is room."""
    monkeypatch.setattr(session, "coverage_update_message", lambda _: b"\2" + bytes(16 << 20))
    web_server.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
    wait_until(lambda: web_server.coverage_files.first())
    connection, _ = handshake(web_server.port)
    (sending,) = web_server._http_server._sessions
    ping = b"\x89\xfd" + bytes(4) + bytes(125)
    for _ in range(100):
        connection.sendall(ping * 100)
    wait_until(lambda: sending._pong is not None)
    assert len(sending._out) < 17 << 20
    connection.close()


def test_last_status_comes_before_the_good_bye(web_server: WebServer) -> None:
    """Who watched the build learns why it is over."""
    with viewer(web_server.port, subprotocols=["fuzzserver"]) as connection:
        connection.recv(30)
        web_server.set_status("failed", "x.zig:1:1: error: no")
        web_server.stop()
        texts = [json.loads(message) for message in connection if isinstance(message, str)]
    assert texts[-1]["state"] == "failed"


def test_stopping_server_says_good_bye(web_server: WebServer) -> None:
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


def wait_until(condition) -> None:
    """Wait for what has no event of its own."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def handshake(port: int, *early: Ping, receive: bool = True) -> tuple[socket.socket, list[object]]:
    """A client that does nothing by itself; returns the events until the first message."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    ws = WSConnection(ConnectionType.CLIENT)
    opening = ws.send(Request(host="127.0.0.1", target="/"))
    frames = b"".join(b"\x89" + bytes([0x80 | len(ping.payload)]) + bytes(4) + ping.payload for ping in early)
    connection.sendall(opening + frames)
    events: list[object] = []
    wanted = (Pong,) if early else (BytesMessage, TextMessage, Message)
    while receive and not any(isinstance(event, wanted) for event in events):
        ws.receive_data(connection.recv(65536))
        events += ws.events()
    return connection, events


def test_plain_request_without_upgrade_header_is_no_web_socket(web_server: WebServer) -> None:
    """A page that is opened in a browser is answered with the page."""
    with pytest.raises(InvalidStatus), viewer(web_server.port, additional_headers={"Upgrade": "h2c"}):
        pass


def two_targets(web_server: WebServer, debug: FuzzedPair, safe: FuzzedPair) -> None:
    """Post the Debug build as a target that came first, and the ReleaseSafe build as another."""
    web_server.post(CoverageMsg(debug.coverage_id, replace(debug.step, key="first")))
    web_server.post(CoverageMsg(safe.coverage_id, replace(safe.step, key="second")))
    wait_until(lambda: web_server.coverage_files.get(safe.coverage_id))


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
    wait_until(lambda: web_server.coverage_files.first())
    name = coverage_file_name(safe_pair.coverage_id)
    with viewer(web_server.port, f"/?target={name}", subprotocols=["fuzzserver"]) as connection:
        assert connection.recv(30)[0] == 0
        assert json.loads(connection.recv(30))["target"] is None
        web_server.set_status("fuzzing", "more")
        # Nothing binary came in between.
        assert json.loads(connection.recv(30))["text"] == "more"
        web_server.post(CoverageMsg(safe_pair.coverage_id, safe_pair.step))
        status = json.loads(connection.recv(30))
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
    wait_until(lambda: web_server.coverage_files.first())
    with viewer(web_server.port, f"/?target={target}", subprotocols=["fuzzserver"]) as connection:
        assert connection.recv(30)[0] == 0
        assert json.loads(connection.recv(30))["state"] == "serving"
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
        wait_until(lambda: web_server.coverage_files.get(small_pair.coverage_id))
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
