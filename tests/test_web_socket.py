"""The WebSocket layer: what viewers may send, what they may not, and what abuse costs."""

import os
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fuzzserver import WebServer
from fuzzserver.web import connection, web_socket
from fuzzserver.zig.installation import Zig
from tests.support_echo import LIMITS, make_echo
from tests.support_facts import unread
from tests.support_http import KEY, exchange, parse_responses, reset, upgrade_request
from tests.support_patience import PATIENT
from tests.support_server import ServerProcess
from tests.support_sockets import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PATIENCE,
    PING,
    PONG,
    TEXT,
    RawClient,
    close_payload,
    frame,
)
from tests.support_time import Clock, eventually

FOR_EVER = 1000.0
"""Seconds until the server asks whether a client is there, and until it hangs up on one."""

CHEAP = 1.0
"""Seconds of processor time that abuse may cost on a slow machine. Figures are printed."""

BAD_TEXTS = {
    "lone continuation": b"\x80",
    "no continuation": b"\xc3\x28",
    "overlong slash": b"\xc0\xaf",
    "overlong in three": b"\xe0\x80\x80",
    "overlong in four": b"\xf0\x80\x80\x80",
    "surrogate": b"\xed\xa0\x80",
    "beyond unicode": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "byte that never is": b"\xff",
}

TWO_TO_62 = frame(TEXT, b"", long=8)[:2] + struct.pack("!Q", 1 << 62) + b"\0\0\0\0"
"""The head of a frame that announces more than there is memory in the world."""


def deflate_bomb() -> bytes:
    """Some kilobytes that would become 64 megabytes, if compression were spoken."""
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    return frame(TEXT, bomb.compress(bytes(64 << 20)) + bomb.flush(), rsv=4)


VIOLATIONS: dict[str, tuple[int, bytes]] = {
    "message of 4097 bytes": (1009, frame(TEXT, b"x" * 4097)),
    "binary message of 4097 bytes": (1009, frame(BINARY, b"\0" * 4097)),
    "message of 4098 bytes in 2049 characters": (1009, frame(TEXT, "é".encode() * 2049)),
    "message of 4100 bytes in fragments": (
        1009,
        frame(TEXT, b"x" * 100, fin=False) + frame(CONTINUATION, b"x" * 100, fin=False) * 40,
    ),
    "2^62 bytes announced": (1009, TWO_TO_62 + b"x" * 4097),
    "2^63 bytes announced": (1002, TWO_TO_62[:2] + struct.pack("!Q", 1 << 63) + bytes(4)),
    "unmasked": (1002, frame(TEXT, b"hello", masked=False)),
    "unmasked ping": (1002, frame(PING, masked=False)),
    "RSV1": (1002, frame(TEXT, b"hello", rsv=4)),
    "RSV2": (1002, frame(TEXT, b"hello", rsv=2)),
    "RSV3": (1002, frame(PING, b"hello", rsv=1)),
    **{f"opcode {opcode}": (1002, frame(opcode, b"hello")) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "length of 5 in 2 bytes": (1002, frame(TEXT, b"hello", long=2)),
    "length of 5 in 8 bytes": (1002, frame(TEXT, b"hello", long=8)),
    "ping in fragments": (1002, frame(PING, b"hel", fin=False) + frame(CONTINUATION, b"lo")),
    "close in fragments": (1002, frame(CLOSE, close_payload(1000), fin=False)),
    "ping of 126 bytes": (1002, frame(PING, b"x" * 126)),
    "pong of 126 bytes": (1002, frame(PONG, b"x" * 126)),
    "close of 126 bytes": (1002, frame(CLOSE, close_payload(1000, b"x" * 124))),
    "continuation of nothing": (1002, frame(CONTINUATION, b"hello")),
    "message within a message": (1002, frame(TEXT, b"a", fin=False) + frame(TEXT, b"b")),
    "close with one byte": (1002, frame(CLOSE, b"\x03")),
    **{
        f"close with code {code}": (1002, frame(CLOSE, close_payload(code)))
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
    "close with bad reason": (1007, frame(CLOSE, close_payload(1000, b"bye \xff"))),
    **{f"text: {name}": (1007, frame(TEXT, b"good " + bad)) for name, bad in BAD_TEXTS.items()},
    "text cut within a character": (1007, frame(TEXT, "é".encode()[:1])),
    "bad text across fragments": (
        1007,
        frame(TEXT, b"\xe2\x82", fin=False) + frame(CONTINUATION, b"", fin=False) + frame(CONTINUATION, b"x"),
    ),
}
"""What no client may send, and the code that tells it so."""


@pytest.fixture
def echo_port(web_server: WebServer) -> int:
    """The port of a server with usual limits that says what it hears."""
    make_echo(web_server)
    return web_server.port


@pytest.fixture(autouse=True)
def no_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends, is ended at once: nobody waits for ever."""
    monkeypatch.setattr(web_socket, "PING_INTERVAL", FOR_EVER)
    monkeypatch.setattr(web_socket, "CLOSE_GRACE", FOR_EVER)


@pytest.fixture(scope="module")
def process(zig_cache: Path) -> Iterator[ServerProcess]:
    """A server of coverage whose memory and time are looked at."""
    with ServerProcess(zig_cache, ping_interval=FOR_EVER) as process:
        yield process
        assert process.errors == []


# ---------------------------------------------------------------------- by hand what Autobahn checks, too


@pytest.mark.parametrize("piece", [1 << 20, 1], ids=["whole", "bytewise"])
def test_messages_come_back(echo_port: int, piece: int) -> None:
    """In one frame, in fragments, in empty fragments, in characters cut by fragments."""
    rng = random.Random(5)
    euro = "€".encode()
    messages: list[tuple[bytes, tuple[int, bytes]]] = [
        (frame(TEXT, b"hello"), (TEXT, b"hello")),
        (frame(TEXT), (TEXT, b"")),
        (frame(BINARY), (BINARY, b"")),
        (frame(TEXT, euro[:1], fin=False) + frame(CONTINUATION, euro[1:]), (TEXT, euro)),
        (
            frame(TEXT, fin=False) + frame(CONTINUATION, euro, fin=False) + frame(CONTINUATION),
            (TEXT, euro),
        ),
    ]
    for size in (1, 125, 126, 127, 128, 255, 256, 4095, 4096):
        data = rng.randbytes(size)
        messages.append((frame(BINARY, data), (BINARY, data)))
    with RawClient(echo_port) as client:
        client.socket.settimeout(PATIENCE)
        for sent, expected in messages:
            for start in range(0, len(sent), piece):
                client.send(sent[start : start + piece])
            answer = client.next_frame()
            while answer.opcode == PING:
                answer = client.next_frame()
            assert (answer.opcode, answer.payload, answer.fin) == (*expected, True)
        assert client.answers_ping()


def test_ping_within_fragments(echo_port: int) -> None:
    """It is answered before the message is whole, with its payload. Pongs that nobody asked for are not."""
    with RawClient(echo_port) as client:
        client.send(frame(TEXT, b"hel", fin=False) + frame(PING, b"now?"))
        assert client.frame_with(PONG).payload == b"now?"
        client.send(frame(PONG, b"unasked") + frame(PING, b"x" * 125) + frame(CONTINUATION, b"lo"))
        answers = {client.next_frame().payload for _ in range(2)}
        assert answers == {b"x" * 125, b"hello"}


def test_one_bad_byte_anywhere(echo_port: int) -> None:
    """Wherever in a text it is, and however the text is cut: 1007. Without it: the text."""
    rng = random.Random(6)
    good = "aé€𐍈 κόσμε".encode()
    for position in range(len(good) + 1):
        bad = good[:position] + b"\xff" + good[position:]
        cut = rng.randrange(len(bad) + 1)
        for text in (good, bad):
            with RawClient(echo_port) as client:
                sent = frame(TEXT, text[:cut], fin=False) + frame(CONTINUATION, text[cut:])
                if text is good:
                    client.send(sent)
                    assert client.frame_with(TEXT).payload == good
                else:
                    assert client.conclude(sent).code == 1007


def test_bad_text_is_not_waited_for(echo_port: int) -> None:
    """As soon as a text cannot become one any more, it is over, though its frame is not."""
    with RawClient(echo_port) as client:
        ending = client.conclude(frame(TEXT, b"good \xff" + bytes(1000))[: 6 + 8 + 2])
    assert ending.code == 1007


@pytest.mark.parametrize("payload", [b"", *(close_payload(code) for code in (1000, 1001, 3000, 4999))])
def test_close_is_answered(echo_port: int, payload: bytes) -> None:
    """With the same code, or none; and the server closes the connection first, as servers should."""
    with RawClient(echo_port) as client:
        ending = client.conclude(frame(CLOSE, payload))
    assert [each.payload[:2] for each in ending.frames] == [payload]


def test_nothing_counts_after_a_close_frame(echo_port: int) -> None:
    """Neither messages nor garbage."""
    for rest in (frame(TEXT, b"hello"), frame(PING, b"hello"), b"\xff" * 100, bytes(1 << 20)):
        with RawClient(echo_port) as client:
            ending = client.conclude(frame(CLOSE, close_payload(1000, b"bye")) + rest)
        assert [each.opcode for each in ending.frames] == [CLOSE]
        assert ending.code == 1000


def test_frames_right_behind_the_handshake(echo_port: int) -> None:
    """Clients need not wait for the answer before they send; nor must they send a head at once."""
    with RawClient(echo_port, head=upgrade_request(echo_port) + frame(TEXT, b"hello")) as client:
        assert client.frame_with(TEXT).payload == b"hello"
    assert parse_responses(exchange(echo_port, upgrade_request(echo_port), bytewise=True))[0].status == 101


def test_frames_do_not_wait_for_each_other(echo_port: int) -> None:
    """Two answers in a row come at once: the second does not wait until the first is known to have come."""
    found = []
    with RawClient(echo_port) as client:
        for _ in range(40):  # As many as may come in a row.
            # The client's system would say at once that the first part arrived, and those after a pause.
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            begun = time.monotonic()
            client.send(frame(TEXT, b"one") + frame(TEXT, b"two"))
            assert [client.frame_with(TEXT).payload for _ in range(2)] == [b"one", b"two"]
            found.append(time.monotonic() - begun)
    print(f"p50 {sorted(found)[20] * 1000:.2f} ms")
    assert min(found) < 0.03  # The system would wait for 40 ms each time, a busy machine does not.


# ---------------------------------------------------------------------- what a viewer may not


@pytest.mark.parametrize("piece", [1 << 20, 1], ids=["whole", "bytewise"])
def test_violations(web_server: WebServer, nothing_left: None, piece: int) -> None:
    """Each ends its connection at once, with the code that says why, and harms nobody."""
    slowest = 0.0
    for name, (code, data) in VIOLATIONS.items():
        with RawClient(web_server.port, sec_websocket_protocol="fuzzserver") as client:
            ending = client.conclude(data, piece)
        assert ending.code == code, name
        slowest = max(slowest, ending.closed_after)
    print(f"{len(VIOLATIONS)} violations, each closed within {slowest * 1000:.1f} ms")
    with RawClient(web_server.port) as client:
        assert client.answers_ping()
    wait_until_gone()


@pytest.mark.parametrize("piece", [1 << 20, 1], ids=["whole", "bytewise"])
def test_what_viewers_may_send_is_dropped(web_server: WebServer, piece: int) -> None:
    """Up to the limits, nothing happens; viewers have nothing to say."""
    harmless = (
        frame(TEXT, b"x" * 4096),
        frame(BINARY, b"\xff" * 4096),
        frame(TEXT, b"x" * 4095, fin=False) + frame(CONTINUATION, b"x"),
        frame(PONG, b"unasked"),
        frame(TEXT, b"{}"),
    )
    with RawClient(web_server.port) as client:
        for data in harmless:
            for start in range(0, len(data), piece):
                client.send(data[start : start + piece])
            assert client.answers_ping()


@pytest.mark.parametrize(
    ("name", "code", "data"),
    [
        ("200,000 empty fragments", 1008, frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 199_999),
        ("10,000 pings", 1008, frame(PING, b"x" * 125) * 10_000),
        ("200,000 pongs", 1008, frame(PONG) * 200_000),
        ("100,000 messages", 1008, frame(TEXT, b"x") * 100_000),
        ("16 MiB announced and sent", 1009, frame(BINARY, bytes(16 << 20))),
        ("2^62 bytes begun", 1009, TWO_TO_62 + bytes(4 << 20)),
        ("deflate bomb", 1002, deflate_bomb()),
        ("4 MiB of garbage", 1002, random.Random(7).randbytes(4 << 20)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_floods(process: ServerProcess, name: str, code: int, data: bytes) -> None:
    """What comes in masses costs neither memory nor time."""
    with RawClient(process.port) as client:
        assert client.answers_ping()  # What is needed once, is there.
    process.settle(process.resources)
    before, memory, cpu = process.resources, process.memory, process.cpu
    with RawClient(process.port, sec_websocket_protocol="fuzzserver") as client:
        ending = client.conclude(data)
    process.settle(before)
    spent, grown = process.cpu - cpu, process.memory - memory
    print(f"{name}: {ending.closed_after * 1000:.1f} ms, {spent:.2f} s CPU, {grown / 1e6:+.1f} MB")
    assert ending.code == code
    assert spent < CHEAP
    assert grown < 5_000_000
    assert process.errors == []


def test_ping_flood_without_reading(process: ServerProcess) -> None:
    """Who sends for ever, and reads nothing, is not listened to for ever."""
    before, memory, cpu = process.resources, process.memory, process.cpu
    pings = memoryview(frame(PING, b"x" * 125) * 10_000)
    with RawClient(process.port, receive_buffer=4096) as client:
        with pytest.raises(ConnectionError):
            while True:
                client.socket.sendall(pings)
        process.settle(before)
    spent, grown = process.cpu - cpu, process.memory - memory
    print(f"{spent:.2f} s CPU, {grown / 1e6:+.1f} MB")
    assert (spent < CHEAP, grown < 5_000_000, process.errors) == (True, True, [])


def test_pongs_are_not_kept_for_who_does_not_read(zig_cache: Path) -> None:
    """Even where no rate limits them."""
    with ServerProcess(zig_cache, echo=True, messages_per_second=1_000_000_000) as process:
        with RawClient(process.port, receive_buffer=4096) as client:
            assert client.answers_ping()
            memory = process.memory
            client.send(frame(PING, b"x" * 125) * 30_000)
            eventually(lambda: not unread(process.port, client.socket), "the server does not read")
            grown = process.memory - memory
            print(f"{grown / 1e6:+.1f} MB")
            assert grown < 5_000_000
        assert process.errors == []


def test_rate_is_that_of_frames_and_not_of_packets(web_server: WebServer) -> None:
    """A message that trickles in is one message."""
    with RawClient(web_server.port) as client:
        data = frame(TEXT, b"x" * 1000)
        for start in range(len(data)):
            client.send(data[start : start + 1])
        assert client.answers_ping()


def test_allowance_comes_back(zig: Zig, zig_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst is forgiven after a while; a pace within the limit always."""
    clock = 0.0
    monkeypatch.setattr(web_socket, "time", SimpleNamespace(monotonic=lambda: clock))
    limits = replace(PATIENT, messages_per_second=1000)
    with WebServer(zig=zig, cache_dir=zig_cache, limits=limits) as server, RawClient(server.port) as client:
        for _ in range(2):
            client.send(frame(TEXT, b"x") * 1500)
            assert client.answers_ping()
            clock += 1.1
        assert client.conclude(frame(TEXT, b"x") * 10_000).code == 1008


@pytest.mark.parametrize("leave", ["close", "half", "reset"])
def test_clients_that_vanish(
    web_server: WebServer, nothing_left: None, caplog: pytest.LogCaptureFixture, leave: str
) -> None:
    """In the middle of a frame or of nothing: no thread, no file descriptor and no word is left."""
    for data in (b"", b"\x81", frame(TEXT, b"hello")[:-1], frame(TEXT, b"x", fin=False), TWO_TO_62):
        with RawClient(web_server.port, sec_websocket_protocol="fuzzserver") as client:
            client.send(data)
            if leave == "reset":
                reset(client.socket)
            elif leave == "half":
                client.socket.shutdown(socket.SHUT_WR)
                while client.socket.recv(65536):
                    pass
    wait_until_gone()
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


def wait_until_gone() -> None:
    """Wait until no connection's thread is left."""
    names = ("http-", "ws-")
    eventually(
        lambda: not any(thread.name.startswith(names) for thread in threading.enumerate()),
        "connections are left",
    )


def test_random_frames(process: ServerProcess) -> None:
    """A valid beginning, then chance: each connection ends, or goes on; nothing else happens."""
    rng = random.Random(8)
    before, codes = process.resources, set()
    for _ in range(300):
        data = bytearray(
            b"".join(
                frame(
                    rng.choice((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)),
                    rng.randbytes(rng.choice((0, 1, 2, 20, 125, 200))),
                    fin=rng.random() < 0.7,
                )
                for _ in range(rng.randrange(1, 6))
            )
        )
        for _ in range(rng.randrange(3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with RawClient(process.port) as client:
            # Whatever is under way, the rest of the longest message is too much.
            ending = client.conclude(bytes(data) + bytes(1 << 17))
            codes.add(ending.code)
    assert codes >= {1002, 1007}
    assert codes <= {1000, 1001, 1002, 1003, 1005, 1007, 1008, 1009, *range(3000, 5000)}
    process.settle(before)
    assert process.errors == []


# ---------------------------------------------------------------------- handshakes


def handshake(*lines: str, **changes: str) -> Callable[[int], bytes]:
    """One that is not as it should be."""
    return lambda port: upgrade_request(port, *lines, **changes)


REFUSED: dict[str, tuple[int, Callable[[int], bytes]]] = {
    "no key": (400, handshake(without="sec-websocket-key")),
    "empty key": (400, handshake(sec_websocket_key="")),
    "short key": (400, handshake(sec_websocket_key="c2hvcnQ=")),
    "long key": (400, handshake(sec_websocket_key="c2V2ZW50ZWVuIGJ5dGVzIQ==c2V2")),
    "key that is no base64": (400, handshake(sec_websocket_key="!" * 24)),
    "two keys": (400, handshake(f"Sec-WebSocket-Key: {KEY}")),
    "no version": (400, handshake(without="sec-websocket-version")),
    "version 8": (426, handshake(sec_websocket_version="8")),
    "version 14": (426, handshake(sec_websocket_version="14")),
    "version of words": (426, handshake(sec_websocket_version="thirteen")),
    "two versions": (426, handshake("Sec-WebSocket-Version: 8")),
    "no connection": (400, handshake(without="connection")),
    "connection without upgrade": (400, handshake(connection="keep-alive")),
    "subprotocol that is no ASCII": (400, handshake(sec_websocket_protocol="fuzzs\xebrver")),
    "extensions that are no ASCII": (400, handshake(sec_websocket_extensions="permessage-d\xebflate")),
    "body": (400, lambda port: upgrade_request(port, content_length="5") + b"hello"),
    "chunked body": (501, lambda port: upgrade_request(port, transfer_encoding="chunked") + b"0\r\n\r\n"),
    "expectation": (417, handshake(expect="a WebSocket")),
    "another origin": (403, handshake(origin="http://example.org")),
    "another host": (421, handshake(host="example.org")),
}
"""Handshakes that are none."""

ACCEPTED: dict[str, Callable[[int], bytes]] = {
    "odd deflate": handshake(sec_websocket_extensions="permessage-deflate; client_max_window_bits=abc"),
    "deflate": handshake(sec_websocket_extensions="permessage-deflate; client_max_window_bits"),
    "unknown extensions": handshake(sec_websocket_extensions='x-unheard-of; a="b", another'),
    "Connection with a list": handshake(connection="keep-alive, Upgrade"),
    "capitals": handshake(upgrade="WebSocket", connection="upgrade"),
    "unknown subprotocol": handshake(sec_websocket_protocol="chat, superchat"),
    "our origin": lambda port: upgrade_request(port, origin=f"http://127.0.0.1:{port}"),
}
"""Handshakes with things in them that are nothing to us."""


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
def test_refused_handshakes(
    web_server: WebServer, caplog: pytest.LogCaptureFixture, nothing_left: None, bytewise: bool
) -> None:
    """Each gets an answer that says why, and its connection is closed."""
    for name, (status, make) in REFUSED.items():
        answer = exchange(web_server.port, make(web_server.port), bytewise=bytewise, hang_up=False)
        (response,) = parse_responses(answer)
        assert (response.status, response.closes) == (status, True), name
        if status == 426:
            assert response.value("sec-websocket-version") == "13"
            assert response.value("upgrade") == "websocket"
    wait_until_gone()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("method", "version", "status"),
    [("POST", b"1.1", 405), ("HEAD", b"1.1", 200), ("OPTIONS", b"1.1", 204), ("GET", b"1.0", 200)],
)
def test_no_upgrade_is_possible(web_server: WebServer, method: str, version: bytes, status: int) -> None:
    """Not with another method, nor in HTTP/1.0: what is asked for besides is answered."""
    head = (
        upgrade_request(web_server.port)
        .replace(b"GET ", method.encode() + b" ")
        .replace(b"/1.1", b"/" + version)
    )
    (response,) = parse_responses(exchange(web_server.port, head), method)
    assert response.status == status


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_handshakes(web_server: WebServer, name: str) -> None:
    """What is offered need not be taken; extensions never are."""
    with RawClient(web_server.port, head=ACCEPTED[name](web_server.port)) as client:
        assert b"sec-websocket-extensions" not in client.head.lower()
        assert b"sec-websocket-protocol" not in client.head.lower()
        assert client.answers_ping()


def test_random_handshakes(web_server: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever stands in the headers: an answer that is one, and no error of ours."""
    rng = random.Random(9)
    statuses = set()
    for _ in range(300):
        head = bytearray(upgrade_request(web_server.port, sec_websocket_protocol="fuzzserver"))
        for _ in range(rng.randrange(1, 4)):
            position = rng.randrange(head.index(b"\r\n"), len(head) - 4)
            head[position] = rng.randrange(256)
        responses = parse_responses(exchange(web_server.port, bytes(head)))
        statuses |= {response.status for response in responses}
    assert statuses >= {101, 400}
    assert max(statuses) < 500
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_too_many_viewers(zig: Zig, zig_cache: Path) -> None:
    """Who is one too many is told so, and may come when somebody has left."""
    limits = replace(PATIENT, viewers=2)
    with WebServer(zig=zig, cache_dir=zig_cache, limits=limits) as server:
        with RawClient(server.port), RawClient(server.port) as second:
            (response,) = parse_responses(exchange(server.port, upgrade_request(server.port), hang_up=False))
            assert (response.status, response.closes) == (503, True)
            assert response.value("retry-after") == "1"
            second.conclude(frame(CLOSE))
            second.socket.close()
            again = upgrade_request(server.port)
            eventually(
                lambda: parse_responses(exchange(server.port, again))[0].status != 503, "there is no room"
            )


# ---------------------------------------------------------------------- silence and stopping


def test_silent_client_is_asked_and_dropped(
    web_server: WebServer, nothing_left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ping, and if nothing comes in as much time again, the end; any sign of life will do."""
    clock = Clock()
    monkeypatch.setattr(web_socket, "time", clock)
    with RawClient(web_server.port) as client:
        assert web_server._http_server is not None
        eventually(lambda: web_server._http_server._sessions, "there is no session")
        (session,) = web_server._http_server._sessions

        def wait(seconds: float) -> None:
            clock.ahead += seconds
            session._wake_up()  # Its timer does not know that it was put forward.

        for answer in (frame(PONG), frame(TEXT, b"I am here"), b"\x81"):
            wait(FOR_EVER)
            assert client.frame_with(PING).fin
            client.send(answer)
            eventually(lambda: session._pinged_at is None, "it is not heard")
        wait(FOR_EVER)
        assert client.frame_with(PING)
        eventually(lambda: not session._ping_waits, "the ping is not on its way")
        wait(0.9 * FOR_EVER)
        time.sleep(0.1)  # In which nothing is to happen.
        assert session in web_server._http_server._sessions
        wait(0.1 * FOR_EVER)
        while client.socket.recv(4096):
            pass
    wait_until_gone()


@pytest.mark.parametrize("closes", [True, False])
def test_stop_says_goodbye(zig: Zig, zig_cache: Path, nothing_left: None, closes: bool) -> None:
    """With code 1001; and it does not wait for who does not answer."""
    server = WebServer(zig=zig, cache_dir=zig_cache)
    server.start()
    with RawClient(server.port) as client:
        client.frame_with(BINARY)  # The server knows by now that it is there.
        begun = time.monotonic()
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        ending = client.conclude(b"")
        if closes:
            client.socket.close()
        stopping.join(PATIENCE)
        assert not stopping.is_alive()
        seconds = time.monotonic() - begun
    print(f"stopped in {seconds:.2f} s")
    assert ending.code == 1001


def test_close_frame_is_not_lost_to_a_client_that_goes_on(
    web_server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that is closed with input unread takes back what it has sent: so it must be read."""
    monkeypatch.setattr(connection, "LINGER", FOR_EVER)
    for _ in range(10):
        with RawClient(web_server.port) as client:
            client.send(frame(TEXT, bytes(4097)))
            for _ in range(200):
                client.send(frame(TEXT, b"x" * 1000))
            assert client.frame_with(CLOSE).payload[:2] == struct.pack("!H", 1009)


def test_echo_with_raised_limits(zig: Zig, zig_cache: Path) -> None:
    """Limits are the server's: what is too much for viewers, need not be for others."""
    data = os.urandom(1 << 20)
    with WebServer(zig=zig, cache_dir=zig_cache, limits=LIMITS) as server:
        make_echo(server)
        with RawClient(server.port) as client:
            client.send(frame(BINARY, data))
            assert client.frame_with(BINARY).payload == data
