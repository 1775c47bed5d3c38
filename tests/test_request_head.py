"""The head of a request, as bytes: what is taken, what is refused, and h11 as a second opinion."""

import random
import time
from http import HTTPStatus

import h11
import pytest

from fuzzserver.web.gate import Gate
from fuzzserver.web.head import MAX_HEAD, MAX_HEADERS, MAX_LINE, BadRequest, HeadBuffer, NotHttp, RequestHead
from tests.support_mutation import HEADS, mutated
from tests.support_probes import PROBES, Probe, head

HOST = "localhost:8000"
GATE = Gate(scheme="http", hosts=("localhost", "127.0.0.1", "[::1]"), port=8000)
NEXT = b"GET /next HTTP/1.1\r\nHost: localhost:8000\r\n\r\n"
GOOD = head("Accept: */*", "Cookie: a=b; c=d", "A:b", target="/debug/?target=1&x").replace(
    b"HOST", HOST.encode()
)


def outcome(buffer: HeadBuffer) -> RequestHead | HTTPStatus | str | None:
    """What becomes of what is in the buffer: a head, or why there is none."""
    try:
        return buffer.take()
    except BadRequest as error:
        assert error.reason.isascii() and len(error.reason) < 100
        return error.status
    except NotHttp:
        return "not HTTP"


def whole(data: bytes) -> tuple[RequestHead | HTTPStatus | str | None, bytes]:
    """What becomes of bytes that come at once, and what is left of them."""
    buffer = HeadBuffer()
    buffer.feed(data)
    found = outcome(buffer)
    return found, buffer.rest


def in_parts(data: bytes, *ends: int) -> tuple[RequestHead | HTTPStatus | str | None, bytes]:
    """The same of bytes that come in parts, each of which is looked at; the rest comes behind."""
    buffer = HeadBuffer()
    start = 0
    for end in (*ends, len(data)):
        buffer.feed(data[start:end])
        start = end
        found = outcome(buffer)
        if found is not None:
            return found, buffer.rest + data[end:]
    return None, buffer.rest


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_probe(probe: Probe) -> None:
    """Each odd request is taken or refused as it should be, also if it comes byte by byte."""
    data = probe.to(HOST)
    found, _ = whole(data)
    if isinstance(found, RequestHead):
        refusal = GATE.refusal(found)
        status = None if refusal is None else refusal.status
    else:
        status = found
    if probe.in_head:
        assert status == ("not HTTP" if probe.status is None else probe.status)
    else:
        assert isinstance(found, RequestHead) and status is None
    assert in_parts(data[: MAX_HEAD + 2], *range(1, min(len(data), MAX_HEAD + 2)))[0] == found


@pytest.mark.parametrize("junk", [b"", b"x", b"\r\n", b"\n", b"\0", NEXT, b"\x16\x03", bytes(70_000)])
def test_good_head_at_every_split(junk: bytes) -> None:
    """The same head comes out however it arrives, and what follows it is left alone."""
    expected = RequestHead(
        method="GET",
        target="/debug/?target=1&x",
        authority=None,
        path="/debug/",
        query="target=1&x",
        version=(1, 1),
        headers=(("host", HOST), ("accept", "*/*"), ("cookie", "a=b; c=d"), ("a", "b")),
    )
    assert whole(GOOD + junk) == (expected, junk)
    for end in range(len(GOOD)):
        assert in_parts(GOOD + junk, end) == (expected, junk), end
    assert in_parts(GOOD + junk, *range(len(GOOD) + min(len(junk), 100))) == (expected, junk)


@pytest.mark.parametrize(
    "probe", [probe for probe in PROBES if len(probe.sent) < 200], ids=lambda probe: probe.name
)
def test_every_split_of_an_odd_request(probe: Probe) -> None:
    """Where the network cuts a request makes no difference."""
    data = probe.to(HOST)
    found, rest = whole(data)
    for end in range(len(data)):
        parted, left = in_parts(data, end)
        assert parted == found, end
        assert not isinstance(found, RequestHead) or left == rest, end


def test_pipelined_heads() -> None:
    """One after the other; an empty line is forgiven in front of each."""
    buffer = HeadBuffer()
    buffer.feed(GOOD + b"\r\n" + NEXT + NEXT + b"GET /ha")
    paths = []
    while isinstance(found := outcome(buffer), RequestHead):
        paths.append(found.path)
    assert (paths, found, buffer.rest) == (["/debug/", "/next", "/next"], None, b"GET /ha")


def test_nothing_comes_of_a_beginning() -> None:
    """No part of a head is one, and each may become one."""
    for end in range(len(GOOD)):
        assert whole(GOOD[:end])[0] is None


@pytest.mark.parametrize(
    ("lines", "taken"),
    [
        ([f"A{number}: b" for number in range(MAX_HEADERS - 1)], True),
        ([f"A{number}: b" for number in range(MAX_HEADERS)], False),
        (["A: ".ljust(MAX_LINE, "b")], True),
        (["A: ".ljust(MAX_LINE + 1, "b")], False),
    ],
)
def test_limits_of_headers(lines: list[str], taken: bool) -> None:
    """Up to the limit is taken, one more is not."""
    found, _ = whole(head(*lines))
    assert isinstance(found, RequestHead) if taken else found == 431


@pytest.mark.parametrize(("size", "taken"), [(MAX_HEAD, True), (MAX_HEAD + 1, False)])
def test_limit_of_the_whole_head(size: int, taken: bool) -> None:
    """The head with the empty line behind it, whatever follows."""
    data = head("A: ".ljust(8000, "b"), "B: ".ljust(8000, "b"), "C: ")
    data = data[:-4] + b"b" * (size - len(data)) + b"\r\n\r\n"
    assert len(data) == size
    for junk in (b"", NEXT, bytes(70_000)):
        found, rest = whole(data + junk)
        assert (isinstance(found, RequestHead) and rest == junk) if taken else found == 431


@pytest.mark.parametrize(
    "data",
    [
        head("A: a" + " " * 8000 + "b", "B: a" + " " * 8000 + "b"),
        head("A: a" + " \t" * 4000 + "b", "B: a" + "\t " * 4000 + "b"),
        head("A: " + " " * 8000 + "\0"),
        head("A" * 8000 + " ", "B" * 8000 + " "),
        head("Connection: " + "," * 8000, "Upgrade: " + ", " * 4000),
        head(target="/" + " HTTP/1." * 1000),
        head(target="http://" + "a" * 8000),
        head("A: b\r" * 3000),
        b"\r" * MAX_HEAD,
        b"\r\n" * (MAX_HEAD // 2),
        b"GET /" + b" HTTP/1.1" * 900,
    ],
    ids=range(11),
)
def test_no_head_is_dear(data: bytes) -> None:
    """While one thread reads a head no other thread runs: it must not take long, whatever is in it."""
    before = time.thread_time()
    for _ in range(5):
        whole(data)
    assert (time.thread_time() - before) / 5 < 0.2


def test_head_in_many_parts_is_not_dear() -> None:
    """Nor if it comes byte by byte, which makes a look at each: less than to read all of it each time."""
    data = head(*(f"A{number}: {'b' * 155}" for number in range(95)))
    assert 15_000 < len(data) < MAX_HEAD
    whole_seconds = []
    for _ in range(20):
        before = time.thread_time()
        whole(data)
        whole_seconds.append(time.thread_time() - before)
    before = time.thread_time()
    found, _ = in_parts(data, *range(len(data)))
    assert isinstance(found, RequestHead)
    assert time.thread_time() - before < len(data) * min(whole_seconds) / 4


def h11_outcome(data: bytes) -> h11.Request | str | None:
    """What h11 makes of the same bytes, and what it leaves of them."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        return f"refused: {error}"
    if not isinstance(event, h11.Request):
        return None
    return event


def test_h11_as_a_second_opinion() -> None:
    """Of 10,000 requests, none is taken that h11 refuses, and none is understood in another way.

    One thing is taken knowingly that h11 refuses: an empty line in front of a request, which RFC 9112
    (section 2.2) wants to be ignored. So h11 is not shown it.
    """
    taken = 0
    refused = 0
    for number in range(10_000):
        data = mutated(HEADS, random.Random(number)).replace(b"HOST", HOST.encode())
        ours, rest = whole(data)
        theirs = h11_outcome(data.removeprefix(b"\r\n"))
        if not isinstance(ours, RequestHead):
            refused += 1
            continue
        taken += 1
        assert isinstance(theirs, h11.Request), (number, data, theirs)
        assert ours.method == theirs.method.decode(), number
        assert ours.target == theirs.target.decode(), number
        assert ".".join(map(str, ours.version)) == theirs.http_version.decode(), number
        lines = [(name.decode(), value.decode("latin-1")) for name, value in theirs.headers]
        assert list(ours.headers) == lines, number
        assert data.endswith(b"\r\n\r\n" + rest), number
    # Enough of both, so that something was compared.
    assert taken > 1000 < refused, (taken, refused)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_h11_about_the_probes(probe: Probe) -> None:
    """What we take of the odd requests, h11 takes as well."""
    if not probe.in_head:
        assert isinstance(h11_outcome(probe.to(HOST).removeprefix(b"\r\n")), h11.Request)
    elif probe.status == 421:
        pass_gate = whole(probe.to(HOST))[0]
        assert isinstance(pass_gate, RequestHead) and GATE.refusal(pass_gate) is not None


def test_arbitrary_bytes_have_an_outcome() -> None:
    """A head, a refusal or a wait for more, and nothing else; the same for whole and for parts.

    Of several things that are wrong, the first one that has come is told.
    """
    for number in range(10_000):
        random_ = random.Random(-number - 1)
        if number % 2:
            data = random_.randbytes(random_.randrange(400))
        else:
            data = mutated(HEADS, random_, rounds=random_.randrange(1, 30))
        found, rest = whole(data)
        parted, left = in_parts(data, *sorted(random_.choices(range(len(data) + 1), k=3)))
        if isinstance(found, RequestHead):
            assert (parted, left) == (found, rest), (number, data)
        else:
            assert not isinstance(parted, RequestHead) and (parted is None) == (found is None), (number, data)


@pytest.mark.parametrize(
    ("version", "lines", "kept"),
    [
        ("HTTP/1.1", [], True),
        ("HTTP/1.1", ["Connection: keep-alive"], True),
        ("HTTP/1.1", ["Connection: close"], False),
        ("HTTP/1.1", ["Connection: TE", "Connection: x, \tCLOSE\t"], False),
        ("HTTP/1.1", ["Connection: closed"], True),
        ("HTTP/1.0", [], False),
        ("HTTP/1.0", ["Connection: Keep-Alive"], True),
        ("HTTP/1.0", ["Connection: keep-alive, close"], False),
    ],
)
def test_keep_alive(version: str, lines: list[str], kept: bool) -> None:
    """A list of tokens, of which ``close`` is the strongest."""
    found, _ = whole(head(*lines, version=version))
    assert isinstance(found, RequestHead) and found.keep_alive is kept


@pytest.mark.parametrize(
    ("method", "lines", "upgrades"),
    [
        ("GET", ["Upgrade: websocket"], True),
        ("GET", ["Upgrade: h2c, WebSocket"], True),
        ("GET", ["Upgrade: websockets"], False),
        ("GET", [], False),
        ("POST", ["Upgrade: websocket"], False),
    ],
)
def test_upgrades(method: str, lines: list[str], upgrades: bool) -> None:
    """Only a GET can become a WebSocket."""
    found, _ = whole(head(*lines, method=method))
    assert isinstance(found, RequestHead) and found.upgrades is upgrades


def test_values() -> None:
    """All values of a header in order, or the one; two where one is meant are an error."""
    found, _ = whole(head("A: 1", "B: 2", "a: 3", "Content-Length: 7"))
    assert isinstance(found, RequestHead)
    assert (found.values("a"), found.values("b"), found.values("c")) == (["1", "3"], ["2"], [])
    assert (found.value("b"), found.value("c"), found.content_length) == ("2", None, 7)
    with pytest.raises(BadRequest) as error:
        found.value("a")
    assert error.value.status == 400
