"""Odd requests, and what a strict server does with each: what is ambiguous, it refuses.

``HOST`` in a request stands for the server's own host and port.
"""

from dataclasses import dataclass

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
"""What must never be answered, with whatever status, when it lies in a body."""

MAX_BODY = 64 * 1024
"""Bytes of a body that are read and dropped, so that the connection can go on."""


@dataclass(frozen=True)
class Probe:
    """A request of which servers have made different things."""

    name: str
    sent: bytes
    status: int | None
    """Of the answer. None: the connection is closed without a word."""
    closes: bool
    """Whether nothing is answered after it on the same connection."""
    in_head: bool
    """Whether the head alone, with the gate, is refused so."""

    def to(self, host: str) -> bytes:
        """The bytes for the server at ``host``."""
        return self.sent.replace(b"HOST", host.encode())


def refused(name: str, sent: bytes, status: int | None = 400) -> Probe:
    """One whose head is refused, which ends the connection."""
    return Probe(name, sent, status, closes=True, in_head=True)


def answered(name: str, sent: bytes, status: int = 200, *, closes: bool = False) -> Probe:
    """One whose head is good."""
    return Probe(name, sent, status, closes, in_head=False)


def head(*lines: str | bytes, target: str = "/", method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    """A request with our Host in front of other header lines."""
    return headers(f"{method} {target} {version}", "Host: HOST", *lines)


def headers(*lines: str | bytes) -> bytes:
    """Lines as they are sent, with the empty one behind them."""
    return b"".join(each + b"\r\n" for each in (*map(_encoded, lines), b""))


def _encoded(line: str | bytes) -> bytes:
    return line if isinstance(line, bytes) else line.encode("latin-1")


def post(*lines: str, body: bytes = b"", method: str = "POST") -> bytes:
    """A request with a body, of which the length stands in the lines."""
    return head(*lines, method=method) + body


TLS_HELLO = b"\x16\x03\1\2\0\1\0\1\xfc\3\3" + bytes(range(256)) * 2
"""The beginning of what a client of HTTPS says first, with its random numbers in order."""

LENGTH = f"Content-Length: {len(SMUGGLED)}"

HOSTS = (
    refused("no Host", headers("GET / HTTP/1.1")),
    refused("no Host in HTTP/1.0", headers("GET / HTTP/1.0")),
    refused("Host twice", head("Host: HOST")),
    refused("Host twice, the other one foreign", head("Host: evil.test")),
    refused("Host twice, in other case", head("hOST: evil.test")),
    refused("foreign Host", headers("GET / HTTP/1.1", "Host: evil.test"), 421),
    refused("empty Host", headers("GET / HTTP/1.1", "Host:"), 421),
)

FRAMING = (
    refused("Content-Length 4 and 0", post("Content-Length: 4", "Content-Length: 0", body=b"body")),
    refused("Content-Length 0 and a request", post("Content-Length: 0", LENGTH, body=SMUGGLED)),
    refused("Content-Length twice the same", post(LENGTH, LENGTH, body=SMUGGLED)),
    refused("Content-Length as a list", post("Content-Length: 4, 4", body=b"body")),
    refused(
        "Content-Length and Transfer-Encoding",
        post("Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
    ),
    refused(
        "Transfer-Encoding and Content-Length",
        post("Transfer-Encoding: chunked", LENGTH, body=SMUGGLED),
    ),
    refused(
        "Transfer-Encoding: identity and Content-Length",
        post("Transfer-Encoding: identity", LENGTH, body=SMUGGLED),
    ),
    refused(
        "Content-Length and Transfer-Encoding of a GET",
        head("Content-Length: 0", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    ),
    *(
        refused(f"Transfer-Encoding {value!r}", post(f"Transfer-Encoding: {value}", body=SMUGGLED), 501)
        for value in (
            "xyz",
            "chunked",
            "Chunked",
            "identity",
            "chunked, xyz",
            "xchunked",
            "gzip",
            '"chunked"',
            "",
        )
    ),
    refused(
        "Transfer-Encoding twice",
        post("Transfer-Encoding: gzip", "Transfer-Encoding: chunked", body=SMUGGLED),
        501,
    ),
    refused(
        "Transfer-Encoding in HTTP/1.0",
        head("Transfer-Encoding: chunked", version="HTTP/1.0") + SMUGGLED,
        501,
    ),
    *(
        refused(f"Content-Length {value!r}", post(f"Content-Length: {value}", body=SMUGGLED))
        for value in (
            *("+5", "-5", "5 5", "0x5", "5.0", "5e0", "five", "5;", "5_0", '"5"', "\xb2", ""),
            *("5,", ",5", "9" * 19, "1" + "0" * 400),
        )
    ),
    answered("Content-Length with zeros in front", post("Content-Length: 0004", body=b"body"), 405),
    answered("Content-Length with white space", post("Content-Length: \t 4 \t ", body=b"body"), 405),
)

BODIES = (
    answered("body of POST", post(LENGTH, body=SMUGGLED), 405),
    answered("body of GET", post(LENGTH, body=SMUGGLED, method="GET")),
    answered("body of OPTIONS", post(LENGTH, body=SMUGGLED, method="OPTIONS"), 204),
    answered("body of a method that there is not", post(LENGTH, body=SMUGGLED, method="BREW"), 405),
    answered("body of a page that there is not", head(LENGTH, target="/nothing") + SMUGGLED, 404),
    answered(
        "longest body that is read",
        post(f"Content-Length: {MAX_BODY}", body=SMUGGLED.ljust(MAX_BODY, b"x")),
        405,
    ),
    answered(
        "body that is too long",
        post(f"Content-Length: {MAX_BODY + 1}", body=SMUGGLED.ljust(MAX_BODY + 1, b"x")),
        413,
        closes=True,
    ),
    answered(
        "length of a body that never comes",
        post("Content-Length: 999999999999999999", body=SMUGGLED),
        413,
        closes=True,
    ),
)

LINE_ENDS = (
    refused("bare LF everywhere", head().replace(b"\r\n", b"\n")),
    refused("bare LF after the request line", head().replace(b"\r\n", b"\n", 1)),
    refused("bare LF after a header", headers("GET / HTTP/1.1", b"Host: HOST\nA: b")),
    refused("bare LF as the end of the head", headers("GET / HTTP/1.1", b"Host: HOST\n")),
    refused("bare LF before the request line", b"\n" + head()),
    refused("bare CR in a value", head("A: b\rOrigin: http://HOST")),
    refused("bare CR at the end of a value", head("A: b\r")),
    refused("bare CR in a name", head("A\rB: c")),
    refused("bare CR in the request line", head(target="/\rx")),
    refused("bare CR in place of an end", head("A: b", "C: d").replace(b"b\r\n", b"b\r")),
    refused("folded value", head("A: b", " c")),
    refused("folded value with a tab", head("A: b", "\tc")),
    refused("folded Host", headers("GET / HTTP/1.1", "Host:", " HOST")),
    refused("folded Content-Length", post("Content-Length:", " 4", body=b"body")),
    refused("folded into nothing", head("A: b", " ")),
)

HEADER_LINES = (
    refused("space before the colon of Content-Length", post("Content-Length : 3", body=b"abc")),
    refused("space before the colon of Host", headers("GET / HTTP/1.1", "Host : HOST")),
    refused("tab before the colon", head("Transfer-Encoding\t: chunked")),
    refused("line without a colon", head("Origin")),
    refused("line without a colon before Origin", head("nonsense", "Origin: http://evil.test")),
    refused("header without a name", head(": value")),
    refused("name with a space", head("A b: c")),
    refused("name in brackets", head("A(b): c")),
    refused("name that is no ASCII", head("\xc4: b")),
    refused("space before the first header", headers("GET / HTTP/1.1", " Host: HOST", "Host: HOST")),
    refused("tab before the first header", headers("GET / HTTP/1.1", "\tHost: HOST", "Host: HOST")),
    refused("space before the only header", headers("GET / HTTP/1.1", " Host: HOST")),
    answered("value without a space in front", headers("GET / HTTP/1.1", "Host:HOST", "A:b")),
    answered("empty value", head("A:", "B: ")),
    answered("value that is no ASCII", head("A: \xe4\xff")),
    answered("tab in a value", head("A: b\tc")),
)

CONTROLS = tuple(
    refused(f"{name} in {place}", sent)
    for name, byte in (
        ("NUL", b"\0"),
        ("SOH", b"\1"),
        ("BEL", b"\7"),
        ("BS", b"\x08"),
        ("VT", b"\x0b"),
        ("FF", b"\x0c"),
        ("ESC", b"\x1b"),
        ("FS", b"\x1c"),
        ("US", b"\x1f"),
        ("DEL", b"\x7f"),
    )
    for place, sent in (
        ("the target", headers(b"GET /a%bb HTTP/1.1" % byte, "Host: HOST")),
        ("a value", head(b"A: b%bc" % byte)),
        ("a name", head(b"A%bb: c" % byte)),
        ("the method", headers(b"G%bET / HTTP/1.1" % byte, "Host: HOST")),
    )
)

TARGETS = (
    refused("absolute, other host", head(target="http://evil.test/"), 421),
    refused(
        "absolute, other host, and its Host",
        headers("GET http://evil.test/ HTTP/1.1", "Host: evil.test"),
        421,
    ),
    refused("absolute, other port", head(target="http://localhost:1/"), 421),
    refused("absolute, user in front", head(target="http://localhost@evil.test/"), 421),
    refused("absolute, ours as user", head(target="http://HOST@evil.test/"), 421),
    refused("absolute, no host", head(target="http:///"), 421),
    refused("absolute, ours, foreign Host", headers("GET http://HOST/ HTTP/1.1", "Host: evil.test"), 421),
    refused("absolute, other scheme", head(target="ftp://HOST/")),
    refused("absolute, file", head(target="file:///etc/passwd")),
    answered("absolute, ours", head(target="http://HOST/")),
    answered("absolute, ours, in upper case", head(target="HTTP://HOST/")),
    answered("absolute, ours, without a path", head(target="http://HOST")),
    answered("absolute, ours, path that is none of ours", head(target="http://HOST/nothing"), 404),
    refused("no slash in front", head(target="index.html")),
    refused("dots in front", head(target="../../etc/passwd")),
    refused("backslash in front", head(target="\\")),
    refused("backslash in the path", head(target="/..\\..\\etc")),
    refused("query alone", head(target="?a")),
    refused("asterisk of GET", head(target="*")),
    refused("fragment", head(target="/#a")),
    refused("fragment alone", head(target="#")),
    refused("fragment after the query", head(target="/?a#b")),
    refused("target that is no ASCII", head(target="/\xe4")),
    refused("space in the target", head(target="/a b")),
    refused("no target", headers("GET HTTP/1.1", "Host: HOST")),
    refused("empty target", head(target="")),
    answered("two slashes in front", head(target="//evil.test/"), 404),
    answered("dots in the path", head(target="/../../etc/passwd"), 404),
    answered("escaped dots", head(target="/%2e%2e/%2e%2e/etc/passwd"), 404),
    answered("query that holds a host", head(target="/?http://evil.test/")),
)

METHODS = (
    answered("CONNECT", head(method="CONNECT", target="HOST"), 405),
    answered("CONNECT to another host", head(method="CONNECT", target="evil.test:443"), 405),
    answered("CONNECT with a path", head(method="CONNECT"), 405),
    answered("OPTIONS", head(method="OPTIONS"), 204),
    answered("OPTIONS *", head(method="OPTIONS", target="*"), 204),
    answered("HEAD", head(method="HEAD")),
    *(
        answered(name, head(method=name), 405)
        for name in ("PUT", "POST", "DELETE", "PATCH", "TRACE", "BREW", "get", "Get", "GETS", "__init__")
    ),
    refused("method with a bracket", head(method="GE(T")),
    refused("method that is no ASCII", head(method="G\xc4T")),
    refused("no method", headers(" / HTTP/1.1", "Host: HOST")),
    refused("colon in the method", head(method="GET:")),
)

VERSIONS = (
    *(
        refused(f"version {version!r}", head(version=version))
        for version in (
            *("HTTP/1.10", "HTTP/01.1", "HTTP/1.1x", "HTTP/1.", "HTTP/.1", "HTTP/1", "HTTP/11", "HTTP/1,1"),
            *(
                "http/1.1",
                "HTTP/ 1.1",
                "HTTP /1.1",
                "HTTP/-1.1",
                "HTTP/+1.1",
                "HTTP/0.9",
                "HTTP/1.1 ",
                "HTTP",
            ),
            *("HTTP/2", "HTTP/1.1.1", "HTTP/\xb9.1", "HTTPS/1.1", "ICY/1.1", "banana", ""),
        )
    ),
    *(
        refused(f"version {version!r}", head(version=version), 505)
        for version in ("HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/2.1", "HTTP/3.0", "HTTP/9.9")
    ),
    refused("preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    refused("tabs between the words", headers("GET\t/\tHTTP/1.1", "Host: HOST")),
    refused("tab before the version", headers("GET /\tHTTP/1.1", "Host: HOST")),
    refused("two spaces between the words", headers("GET  / HTTP/1.1", "Host: HOST")),
    refused("two spaces before the version", headers("GET /  HTTP/1.1", "Host: HOST")),
    refused("space before the method", headers(" GET / HTTP/1.1", "Host: HOST")),
    refused("tab before the method", headers("\tGET / HTTP/1.1", "Host: HOST")),
    refused("no version", headers("GET /", "Host: HOST")),
    refused("0.9, first line alone", b"GET /\r\n"),
    refused("0.9 and an empty line", b"GET /\r\n\r\n"),
    refused("0.9, bare LF", b"GET /\n"),
    refused("TLS", TLS_HELLO, None),
    answered("HTTP/1.0", head(version="HTTP/1.0"), closes=True),
    answered("empty line in front", b"\r\n" + head()),
    refused("two empty lines in front", b"\r\n\r\n" + head()),
    refused("empty lines alone", b"\r\n\r\n\r\n\r\n"),
    refused("zeros", bytes(64)),
    refused("frames of HTTP/2", b"\0\0\x12\4\0\0\0\0\0" + bytes(18)),
    refused("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n"),
)

EXPECT = (
    answered("Expect without a body", head("Expect: 100-continue")),
    answered("Expect with an empty body", post("Expect: 100-continue", "Content-Length: 0"), 405),
    answered("Expect in other case", head("expect: 100-Continue")),
    answered("Expect with a body", post("Expect: 100-continue", LENGTH, body=SMUGGLED), 405, closes=True),
    answered(
        "Expect with a body of GET",
        post("Expect: 100-continue", LENGTH, body=SMUGGLED, method="GET"),
        closes=True,
    ),
    answered(
        "Expect and a body that does not come",
        post("Expect: 100-continue", "Content-Length: 5"),
        405,
        closes=True,
    ),
    refused("Expect: foo", head("Expect: foo"), 417),
    refused("Expect: foo with a body", post("Expect: foo", LENGTH, body=SMUGGLED), 417),
    refused("Expect: 100-continue, foo", head("Expect: 100-continue, foo"), 417),
    refused("Expect: 100-continued", head("Expect: 100-continued"), 417),
)

CONNECTION = (
    *(
        answered(f"Connection: {value}", head(f"Connection: {value}"), closes=True)
        for value in ("close", "Close", "close, TE", "TE, close", "TE,close", " ,close,", "keep-alive, close")
    ),
    answered("Connection twice", head("Connection: keep-alive", "Connection: close"), closes=True),
    *(
        answered(f"Connection: {value}", head(f"Connection: {value}"))
        for value in ("keep-alive", "TE", "closed", "enclose", "close-not", "Upgrade", "")
    ),
)

SIZES = (
    answered("100 headers", head(*(f"A{number}: b" for number in range(99)))),
    refused("101 headers", head(*(f"A{number}: b" for number in range(100))), 431),
    refused("101 headers of one name", head(*["A: b"] * 100), 431),
    answered("longest header", head("A: ".ljust(8192, "b"))),
    refused("header that is too long", head("A: ".ljust(8193, "b")), 431),
    refused("header of 66 kB", head("A: " + "b" * 66_000), 431),
    refused("name of 66 kB", head("A" * 66_000 + ": b"), 431),
    refused("header without an end", head()[:-2] + b"A: " + b"b" * 66_000, 431),
    refused(
        "head that is too long in short lines",
        head(*(f"A{number}: {'b' * 300}" for number in range(80))),
        431,
    ),
    answered("longest request line", head(target="/?".ljust(8192 - len("GET  HTTP/1.1"), "a"))),
    refused("request line that is too long", head(target="/?".ljust(8193 - len("GET  HTTP/1.1"), "a")), 414),
    refused("target of 65 kB", head(target="/" + "a" * 65_000), 414),
    refused("target without an end", b"GET /" + b"a" * 65_000, 414),
    refused("method of 65 kB", head(method="A" * 65_000), 414),
    refused("version of 65 kB", head(version="HTTP/1." + "1" * 65_000), 414),
    refused("word without an end", b"A" * 65_000, 414),
)

PROBES = (
    *(*HOSTS, *FRAMING, *BODIES, *LINE_ENDS, *HEADER_LINES, *CONTROLS, *TARGETS, *METHODS, *VERSIONS),
    *(*EXPECT, *CONNECTION, *SIZES),
)
