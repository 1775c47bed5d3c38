"""Requests that are almost good, and different each time: a seeded mutator over a corpus."""

import random
import threading
from collections import Counter
from dataclasses import dataclass, field

from tests.support_http import NotHttp, exchange, parse_responses
from tests.support_probes import LENGTH, PROBES, SMUGGLED, head, headers

WEB_SOCKET = head(
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: fuzzserver",
    "Origin: http://HOST",
)

GOOD = (
    head(),
    head("Connection: close", target="/main.js"),
    head("Connection: keep-alive, TE", "TE: trailers", target="/debug/?target=0123456789abcdef"),
    head("Accept: */*", "User-Agent: x/1.0 (a; b)", "Cookie: a=b; c=d", target="/findings.json"),
    head('If-None-Match: "a", W/"b"', target="/style.css"),
    head(target="http://HOST/targets.json"),
    head(method="HEAD", target="/sources.tar"),
    head(method="OPTIONS", target="*"),
    head(version="HTTP/1.0"),
    head("Expect: 100-continue"),
    head("Content-Length: 4", method="POST") + b"body",
    head(LENGTH, method="POST") + SMUGGLED,
    head(
        "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Origin: http://HOST"
    ),
    head("A: \xe4", "B:", "C: d\te"),
    headers("GET / HTTP/1.1", "A: b", "Host:HOST"),
    WEB_SOCKET,
    b"\r\n" + head(),
    head() + head(target="/nothing"),
)
HEADS = (*GOOD * 40, *(probe.sent for probe in PROBES if len(probe.sent) < 1000))
"""Good requests more often than odd ones, so that a mutation is often the only thing that is wrong."""

_PIECES = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b": ",
        b",",
        b";",
        b"/",
        b"\\",
        b"#",
        b"?",
        b"*",
        b"%00",
    ),
    *(
        b"\r\n\r\n",
        b"\r\n ",
        b"\r\n\t",
        b"\x0b",
        b"\x0c",
        b"\x1c",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"\xc2\xa0",
        b"\x85",
    ),
    *(
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"OPTIONS ",
        b"CONNECT ",
        b"http://",
    ),
    *(b"Host: HOST\r\n", b"Host: evil.test\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n"),
    *(b"Upgrade: websocket\r\n", b"Origin: null\r\n", b"X: y\r\n", b"0\r\n\r\n", b"+", b"-", b"99999999999"),
)


def mutated(corpus: tuple[bytes, ...], choose: random.Random, rounds: int | None = None) -> bytes:
    """One of the corpus, changed in some places: one as a rule, seldom none or many."""
    data = bytearray(choose.choice(corpus))
    for _ in range(choose.choice((0, 0, 1, 1, 1, 1, 1, 2, 2, 3, 5)) if rounds is None else rounds):
        _CHANGES[choose.randrange(len(_CHANGES))](data, choose, corpus)
    return bytes(data)


def _place(data: bytearray, choose: random.Random) -> int:
    return choose.randrange(len(data) + 1)


def _insert(data: bytearray, choose: random.Random, _: tuple[bytes, ...]) -> None:
    place = _place(data, choose)
    data[place:place] = choose.choice(_PIECES)


def _replace(data: bytearray, choose: random.Random, _: tuple[bytes, ...]) -> None:
    piece, place = choose.choice(_PIECES), _place(data, choose)
    data[place : place + len(piece)] = piece


def _any_byte(data: bytearray, choose: random.Random, _: tuple[bytes, ...]) -> None:
    place = _place(data, choose)
    data[place : place + 1] = bytes((choose.randrange(256),))


def _flip(data: bytearray, choose: random.Random, _: tuple[bytes, ...]) -> None:
    if data:
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)


def _remove(data: bytearray, choose: random.Random, _: tuple[bytes, ...]) -> None:
    place = _place(data, choose)
    del data[place : place + choose.choice((1, 1, 1, 2, 8, 40))]


def _repeat(data: bytearray, choose: random.Random, _: tuple[bytes, ...]) -> None:
    place = _place(data, choose)
    data[place:place] = data[place : place + choose.choice((1, 2, 10, 60))] * choose.choice((1, 1, 2, 20))


def _move_line(data: bytearray, choose: random.Random, _: tuple[bytes, ...]) -> None:
    lines = bytes(data).split(b"\r\n")
    line = lines.pop(choose.randrange(len(lines)))
    for _copy in range(choose.choice((0, 1, 1, 2))):
        lines.insert(choose.randrange(len(lines) + 1), line)
    data[:] = b"\r\n".join(lines)


def _splice(data: bytearray, choose: random.Random, corpus: tuple[bytes, ...]) -> None:
    other = choose.choice(corpus)
    data[_place(data, choose) :] = other[choose.randrange(len(other) + 1) :]


def _other_case(data: bytearray, choose: random.Random, _: tuple[bytes, ...]) -> None:
    place = _place(data, choose)
    data[place : place + 10] = data[place : place + 10].swapcase()


_CHANGES = (
    *(_insert, _insert, _replace, _any_byte, _flip, _remove, _repeat, _move_line, _splice, _other_case),
)


WARM_UP = 2000
"""Requests after which a server has taken the memory that it works with."""
SLOW = 20
"""One in so many is sent byte by byte."""
CLIENTS = 4
MAX_GROWTH = 5 << 20


@dataclass
class Outcome:
    """What came back."""

    statuses: Counter[int] = field(default_factory=Counter)
    """How many answers of each status; 0 counts the connections without any."""
    faults: list[str] = field(default_factory=list)
    """What was no answer at all, and the number of the request with which to see it again."""


def send_mutated(port: int, numbers: range) -> Outcome:
    """Send the requests with these numbers, each on a connection of its own, by several clients at once."""
    outcome = Outcome()
    # Guards ``outcome``.
    lock = threading.Lock()

    def send(own: range) -> None:
        for number in own:
            data = mutated(HEADS, random.Random(number)).replace(b"HOST", b"localhost:%d" % port)
            fault, statuses = None, [0]
            try:
                received = exchange(port, data, bytewise=number % SLOW == 0)
                answers = parse_responses(received, maybe_head=b"HEAD" in data)
                statuses = [answer.status for answer in answers] or [0]
            except (NotHttp, OSError) as error:
                fault = f"request {number}: {error!r}"
            with lock:
                outcome.statuses.update(statuses)
                if fault is not None:
                    outcome.faults.append(fault)

    clients = [threading.Thread(target=send, args=(numbers[first::CLIENTS],)) for first in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return outcome
