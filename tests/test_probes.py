"""HTTP on a raw socket: odd requests, and what every client may rely on."""

import asyncio
import http.client
import os
import select
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import h11
import pytest

from fuzzserver import FuzzRunStep, SourcePath
from fuzzserver.web import connection as connection_module
from tests.support_facts import held
from tests.support_http import (
    Response,
    ask,
    connected,
    exchange,
    parse_responses,
    receive_all,
    upgrade_request,
)
from tests.support_patience import PATIENT
from tests.support_probes import MAX_BODY, PROBES, SMUGGLED, TLS_HELLO, Probe, head, post
from tests.support_site import CANARY, NOTHING, PAGE, Site, furnished
from tests.support_time import WAIT, eventually


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that waits for long."""
    with furnished(tmp_path_factory.mktemp("site"), limits=PATIENT) as site:
        yield site


def first_method(data: bytes) -> str:
    """The method of the first request."""
    return "HEAD" if data.startswith(b"HEAD ") else "GET"


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_probe(site: Site, probe: Probe) -> None:
    """One answer with the right status; what lies in the body is none of the requests that are answered."""
    data = probe.to(site.host)
    following = head(target="/following").replace(b"HOST", site.host.encode())
    if probe.closes:
        answers = parse_responses(exchange(site.port, data + following, hang_up=False), first_method(data))
        if probe.status is None:
            assert answers == []
            return
        assert len(answers) == 1 and answers[0].closes
    else:
        answers = parse_responses(exchange(site.port, data + following + following), first_method(data))
        assert [answer.status for answer in answers[1:]] == [404, 404]
        assert not any(answer.closes for answer in answers)
    assert answers[0].status == probe.status
    check_words(answers[0])


def check_words(answer: Response) -> None:
    """What each refusal is: a plain sentence. Those of methods say which there are."""
    if answer.status >= 400:
        assert answer.value("content-type") == "text/plain"
        assert 5 < len(answer.body) < 200 and answer.body.isascii()
        assert not set(answer.body) & set(b"<>&\r\n")
    if answer.status in (204, 405):
        assert answer.value("allow") == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    "probe",
    [probe for probe in PROBES if len(probe.sent) < 2000 and probe.status is not None],
    ids=lambda probe: probe.name,
)
def test_probe_byte_by_byte(site: Site, probe: Probe) -> None:
    """The same, however slowly it comes; whoever goes on after a refusal may see the connection reset."""
    data = probe.to(site.host)
    with connected(site.port) as connection:
        try:
            for position in range(len(data)):
                connection.send(data[position : position + 1])
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            assert probe.closes
        answers = parse_responses(receive_all(connection), first_method(data))
    assert [answer.status for answer in answers] == [probe.status]


def test_refusals_come_without_waiting_for_more(site: Site) -> None:
    """Of each beginning that can become no request, the client is told so at once."""
    for data, status in (
        (b"GET /\r\n", 400),
        (b"GET / HTTP/2.0\r\n", 505),
        (b"GET / HTTP/1.1\n", 400),
        (b"\0", 400),
        (b"GET /\0", 400),
        (b"A" * 9000, 414),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 9000, 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 3000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"A: " + b"b" * 8000 + b"\r\n") * 3, 431),
    ):
        answers = parse_responses(exchange(site.port, data, hang_up=False))
        assert [answer.status for answer in answers] == [status], data[:40]


def test_clients_that_leave_in_the_middle_get_nothing(site: Site) -> None:
    """Half a head is no request, and half a body is no whole one."""
    good = head("A: b").replace(b"HOST", site.host.encode())
    for end in range(len(good)):
        assert exchange(site.port, good[:end]) == b"", end
    for size in (0, 1, 99):
        data = post("Content-Length: 100", body=b"x" * size).replace(b"HOST", site.host.encode())
        assert exchange(site.port, data) == b""


def test_tls_client_is_hung_up_on(site: Site) -> None:
    """A client of HTTPS fails at once. To be told in plain text would not help it."""
    context = ssl.create_default_context()
    with connected(site.port) as connection:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            context.wrap_socket(connection, server_hostname="localhost")
    for size in (2, 3, len(TLS_HELLO)):
        assert exchange(site.port, TLS_HELLO[:size], hang_up=False) == b""


def test_answer_to_a_bad_request_after_head_is_whole(site: Site) -> None:
    """That the last request was a HEAD has nothing to do with the next one."""
    for last, status in ((b"nonsense\r\n\r\n", 400), (b"GET / HTTP/1.1\r\n\r\n", 400), (b"A" * 9000, 414)):
        data = head(method="HEAD").replace(b"HOST", site.host.encode()) + last
        answers = parse_responses(exchange(site.port, data), "HEAD GET")
        assert [answer.status for answer in answers] == [200, status]
        check_words(answers[1])


def test_last_answer_arrives_whatever_the_client_still_sends(site: Site) -> None:
    """Who is still busy with a long body when it is refused can read why."""
    body = post(f"Content-Length: {MAX_BODY * 8}", body=bytes(MAX_BODY * 8)).replace(
        b"HOST", site.host.encode()
    )
    for _ in range(20):
        answers = parse_responses(exchange(site.port, body, hang_up=False))
        assert [answer.status for answer in answers] == [413]


def test_refused_clients_are_heard_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket stays open until the client has read why: closed at once, it would take the answer back."""
    monkeypatch.setattr(connection_module, "LINGER", WAIT)
    for data in (b"nonsense\r\n\r\n", head("Connection: close"), post("Content-Length: 9999999")):
        with connected(site.port) as connection:
            connection.sendall(data.replace(b"HOST", site.host.encode()))
            assert len(parse_responses(receive_all(connection))) == 1
            poll = select.poll()
            poll.register(connection, select.POLLERR | select.POLLHUP)
            connection.sendall(b"more")
            assert poll.poll(100) == []


def test_last_answers_arrive_that_were_on_their_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same if a long answer is before it: the end of the connection takes nothing back."""
    monkeypatch.setattr(connection_module, "LINGER", WAIT)
    with (tmp_path / "long.zig").open("wb") as file:
        file.truncate(1 << 20)
    with furnished(tmp_path, limits=PATIENT) as site:
        step = FuzzRunStep("long", tmp_path / "canary", inputs=(SourcePath(str(tmp_path), "long.zig"),))
        site.server.add_step(step)
        body = post(f"Content-Length: {MAX_BODY * 8}", body=bytes(MAX_BODY * 8))
        data = (head(target="/sources.tar") + body).replace(b"HOST", site.host.encode())
        # The server's system takes the last 60 KB of the answer, the client's not half of it.
        site.server._http_server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 19)
        for _ in range(2):
            with connected(site.port, receive_buffer=1 << 14) as connection:
                connection.sendall(data)
                received = b""
                while len(received) < (1 << 20) - (60 << 10):
                    received += connection.recv(1 << 10)
                eventually(lambda: not held(site.port), "the server has not sent all")
                answers = parse_responses(received + receive_all(connection))
            assert [(each.status, len(each.body) > 1 << 20) for each in answers] == [
                (200, True),
                (413, False),
            ]


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT", "HEAD"])
@pytest.mark.parametrize("size", [len(SMUGGLED), 1000, MAX_BODY])
def test_bodies_in_parts(site: Site, method: str, size: int) -> None:
    """A body that comes later, in two parts, is read to its end, and the next request is found behind it."""
    smuggled = SMUGGLED.replace(b"HOST", site.host.encode())
    body = (smuggled * (size // len(smuggled) + 1))[:size]
    following = head("Connection: close", target="/following").replace(b"HOST", site.host.encode())
    first = post(f"Content-Length: {size}", method=method).replace(b"HOST", site.host.encode())
    with connected(site.port) as connection:
        for part in (first, body[: size // 2], body[size // 2 :] + following[:5], following[5:]):
            connection.sendall(part)
        answers = parse_responses(receive_all(connection), method)
    status = {"GET": 200, "HEAD": 200, "OPTIONS": 204}.get(method, 405)
    assert [answer.status for answer in answers] == [status, 404]


@pytest.mark.parametrize(
    ("name", "data", "status"),
    [
        ("version 12", upgrade_request("HOST").replace(b"Version: 13", b"Version: 12"), 426),
        ("no version", upgrade_request("HOST").replace(b"Sec-WebSocket-Version: 13\r\n", b""), 400),
        ("two versions", upgrade_request("HOST", "Sec-WebSocket-Version: 13"), 426),
        ("no key", upgrade_request("HOST").replace(b"Sec-WebSocket-Key", b"X"), 400),
        ("short key", upgrade_request("HOST").replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhl"), 400),
        ("two keys", upgrade_request("HOST", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
        ("no Connection", upgrade_request("HOST").replace(b"Connection: Upgrade", b"Connection: close"), 400),
        ("HTTP/1.0", upgrade_request("HOST").replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
        ("POST", upgrade_request("HOST").replace(b"GET", b"POST"), 405),
        ("HEAD", upgrade_request("HOST").replace(b"GET", b"HEAD"), 200),
        ("body", upgrade_request("HOST", f"Content-Length: {len(SMUGGLED)}") + SMUGGLED, 400),
        ("bad protocol", upgrade_request("HOST", "Sec-WebSocket-Protocol: \xe4"), 400),
        ("bad extension", upgrade_request("HOST", "Sec-WebSocket-Extensions: \xe4"), 400),
        ("other upgrade", upgrade_request("HOST").replace(b"websocket", b"h2c"), 200),
        ("good", upgrade_request("HOST"), 101),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_upgrades(site: Site, name: str, data: bytes, status: int) -> None:
    """A handshake that is none is refused, and what follows it is neither frame nor request."""
    data = data.replace(b"HOST", site.host.encode())
    (answer, *more) = parse_responses(exchange(site.port, data), first_method(data))
    assert (answer.status, more) == (status, []), name
    assert answer.value("sec-websocket-version") == ("13" if status == 426 else None)
    assert answer.value("sec-websocket-extensions") is None
    if status >= 400 and status != 405:
        assert answer.closes


def test_pipelined_requests(site: Site) -> None:
    """Many at once are answered one by one, in order, chunked ones among them."""
    paths = (*site.steady, NOTHING) * 3
    data = b"".join(head(target=path).replace(b"HOST", site.host.encode()) for path in paths)
    answers = parse_responses(exchange(site.port, data))
    assert [answer.status for answer in answers] == [200 if path != NOTHING else 404 for path in paths]
    third = len(paths) // 3
    assert [answer.body for answer in answers[:third]] == [
        answer.body for answer in answers[third : 2 * third]
    ]
    bytewise = parse_responses(exchange(site.port, data[: 3 * 200], bytewise=True))
    assert [answer.status for answer in bytewise] == [200] * len(bytewise) and len(bytewise) > 5


def test_head_of_all_routes(site: Site) -> None:
    """HEAD gives the head of GET, of what there is and of what there is not."""
    for path in (*site.steady, NOTHING):
        get, only_head = ask(site.port, path), ask(site.port, path, "HEAD")
        assert (only_head.status, only_head.headers, only_head.body) == (get.status, get.headers, b""), path
        assert get.status == (404 if path == NOTHING else 200), path
        assert get.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW", "get"])
def test_other_methods_on_all_routes(site: Site, method: str) -> None:
    """405, and which methods there are; nothing is started or served."""
    for path in (*site.steady, NOTHING):
        answer = ask(site.port, path, method)
        assert (answer.status, answer.value("allow")) == (405, "GET, HEAD, OPTIONS")
        assert CANARY not in answer.body


def test_options(site: Site) -> None:
    """Which methods there are, of everything. Nothing is said to other pages."""
    for path in ("*", *site.steady, NOTHING):
        for more in (
            (),
            ("Access-Control-Request-Method: GET", "Access-Control-Request-Private-Network: true"),
        ):
            answer = ask(site.port, path, "OPTIONS", *more)
            assert (answer.status, answer.value("allow"), answer.body) == (204, "GET, HEAD, OPTIONS", b"")
            assert not [name for name, _ in answer.headers if name.startswith("access-control")]


def test_what_has_not_changed_is_not_sent_again(site: Site) -> None:
    """304 to whoever has it; all that has a length has a tag."""
    for path in site.steady:
        answer = ask(site.port, path)
        etag = answer.value("etag")
        if answer.value("transfer-encoding") is not None:
            assert etag is None and path.endswith(".tar")
            continue
        assert etag is not None, path
        for method in ("GET", "HEAD"):
            for known in (etag, f"W/{etag}", f'"x", {etag}', f'{etag},"x"', "*"):
                again = ask(site.port, path, method, f"If-None-Match: {known}")
                assert (again.status, again.body, again.value("etag")) == (304, b"", etag), (path, known)
                assert again.value("cache-control") == answer.value("cache-control")
            for known in ('"x"', etag[:-1], etag.strip('"'), f'"{etag}"', "", f"x{etag}"):
                again = ask(site.port, path, method, f"If-None-Match: {known}")
                assert (again.status, again.value("etag")) == (200, etag), (path, known)
    for path in (NOTHING, "/nothing.js"):
        assert ask(site.port, path, "GET", "If-None-Match: *").status == 404
    assert ask(site.port, "/", "POST", "If-None-Match: *").status == 405


def test_connection_is_used_again_after_304(site: Site) -> None:
    """A 304 has no body, whatever length it might have had."""
    request = head("If-None-Match: *").replace(b"HOST", site.host.encode())
    answers = parse_responses(exchange(site.port, request * 3 + request.replace(b"GET / ", b"GET /nothing ")))
    assert [answer.status for answer in answers] == [304, 304, 304, 404]


def test_absolute_form_of_all_routes(site: Site) -> None:
    """As to a proxy: the same answer as to the path alone."""
    for path in (*site.steady, NOTHING):
        answer, usual = ask(site.port, f"http://{site.host}{path}"), ask(site.port, path)
        assert (answer.status, answer.body) == (usual.status, usual.body)


def test_http_1_0_on_all_routes(site: Site) -> None:
    """Old clients get the same bodies, which end with the connection or after their length."""
    for path in site.steady:
        data = head(target=path, version="HTTP/1.0").replace(b"HOST", site.host.encode())
        (answer,) = parse_responses(exchange(site.port, data, hang_up=False))
        assert answer.closes and answer.value("transfer-encoding") is None
        assert (answer.status, answer.body) == (200, ask(site.port, path).body)
        kept = head("Connection: keep-alive", target=path, version="HTTP/1.0")
        answers = parse_responses(exchange(site.port, 2 * kept.replace(b"HOST", site.host.encode())))
        assert {(each.status, each.body) for each in answers} == {(200, answer.body)}


def bodies(site: Site) -> dict[str, bytes]:
    """What each route answers, as this file's own reader sees it."""
    return {path: ask(site.port, path).body for path in site.steady}


def test_http_client(site: Site) -> None:
    """Python's own client, on one connection."""
    connection = http.client.HTTPConnection("localhost", site.port, timeout=WAIT)
    for path, body in bodies(site).items():
        connection.request("GET", path)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, body)
        connection.request("HEAD", path)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"")
    first = connection.sock
    connection.request("POST", "/", body=b"x" * 5000)
    assert connection.getresponse().read() == b"method not allowed"
    assert connection.sock is first is not None
    connection.close()


def test_curl(site: Site, tmp_path: Path) -> None:
    """curl, which complains of what is wrong; among it a body that it announces first."""
    for path, body in bodies(site).items():
        for options in ([], ["--http1.0"], ["--compressed"], ["--range", "0-3"]):
            command = ["curl", "-sS", "--fail", "--noproxy", "*", *options, f"http://{site.host}{path}"]
            assert subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=WAIT).stdout == body
    big = tmp_path / "big"
    big.write_bytes(bytes(2 << 20))
    for data, status in ((b"small", b"405"), (f"@{big}".encode(), b"413")):
        command = ["curl", "-sS", "--noproxy", "*", "-o", os.devnull, "-w", "%{http_code}", "--data-binary"]
        result = subprocess.run(
            [*command, os.fsdecode(data), f"http://{site.host}/"], stdout=subprocess.PIPE, timeout=WAIT
        )
        assert result.stdout == status


def test_aiohttp(site: Site) -> None:
    """aiohttp, several requests at once."""

    async def fetch(session: aiohttp.ClientSession, path: str) -> tuple[str, bytes]:
        async with session.get(f"http://{site.host}{path}") as response:
            return path, await response.read()

    async def fetch_all() -> list[tuple[str, bytes]]:
        connector = aiohttp.TCPConnector(limit=5)
        async with aiohttp.ClientSession(connector=connector, raise_for_status=True) as session:
            return await asyncio.gather(*(fetch(session, path) for path in site.steady * 3))

    assert sorted(asyncio.run(fetch_all())) == sorted([*bodies(site).items()] * 3)


def test_h11_as_client(site: Site) -> None:
    """h11, which knows the rules for both sides, through all routes and methods on one connection."""
    expected = bodies(site)
    ours = h11.Connection(h11.CLIENT)
    with connected(site.port) as connection:
        for path in (*site.steady, NOTHING):
            for method in ("GET", "HEAD", "OPTIONS", "POST"):
                request = h11.Request(method=method, target=path, headers=[("Host", site.host)])
                connection.sendall(ours.send(request) + ours.send(h11.EndOfMessage()))  # type: ignore[operator]
                body = b""
                while not isinstance(event := ours.next_event(), h11.EndOfMessage):
                    if event is h11.NEED_DATA:
                        ours.receive_data(connection.recv(65536))
                    elif isinstance(event, h11.Data):
                        body += event.data
                    else:
                        assert isinstance(event, h11.Response)
                if method == "GET" and path != NOTHING:
                    assert body == expected[path]
                assert method in ("GET", "POST") or body == b""
                ours.start_next_cycle()


def test_page_is_the_same_by_all_names(site: Site) -> None:
    """Each of our names leads to it."""
    for path in PAGE:
        answers = [
            ask(site.port, path, host=f"{name}:{site.port}") for name in ("localhost", "127.0.0.1", "[::1]")
        ]
        assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
