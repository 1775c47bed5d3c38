"""Who may come in: the gate, asked directly, with all that a client may say."""

import hmac
import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzzserver.web.gate import PAGE_PATHS, Gate, Refusal
from fuzzserver.web.head import BadRequest, HeadBuffer, NotHttp, RequestHead
from tests.support_lookalikes import GOOD_HOSTS, GOOD_ORIGINS, HOSTS, ORIGINS

PORT = 8000
LOCAL = ("localhost", "127.0.0.1", "[::1]")
TOKEN = "Ab3-Ab3_Ab3-Ab3_Ab3-Ab"
GATE = Gate(scheme="http", hosts=LOCAL, port=PORT)
GUARDED = Gate(scheme="http", hosts=LOCAL, port=PORT, token=TOKEN)
PATHS = (*PAGE_PATHS, "/main.js", "/main.wasm", "/sources.tar", "/targets.json", "/source/00/0", "/nothing")
UPGRADE = (("upgrade", "websocket"), ("connection", "Upgrade"))


def request(
    *headers: tuple[str, str],
    method: str = "GET",
    path: str = "/",
    query: str = "",
    host: str | None = "localhost:8000",
    authority: str | None = None,
) -> RequestHead:
    """A head with these headers behind Host."""
    return RequestHead(
        method=method,
        target=path + (f"?{query}" if query else ""),
        authority=authority,
        path=path,
        query=query,
        version=(1, 1),
        headers=((("host", host),) if host is not None else ()) + headers,
    )


def status(gate: Gate, head: RequestHead) -> int | None:
    """With which status a request is turned away; None if it is not."""
    refusal = gate.refusal(head)
    if refusal is None:
        return None
    assert isinstance(refusal, Refusal)
    assert refusal.text.isascii() and "\n" not in refusal.text and len(refusal.text) < 250
    return refusal.status


def text(value: bytes) -> str:
    """A value with our port in place of ``PORT``, as a head holds it."""
    return value.replace(b"PORT", b"%d" % PORT).decode("latin-1")


def name_of(value: bytes) -> str:
    """What a test is called."""
    return repr(value[:60])


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_our_hosts(host: bytes) -> None:
    """Our names with our port, in any case."""
    assert status(GATE, request(host=text(host))) is None


@pytest.mark.parametrize("host", HOSTS, ids=name_of)
def test_other_hosts(host: bytes) -> None:
    """What only looks like one of ours is none, wherever it leads and in front of the path, too."""
    for path, more in itertools.product(PATHS, ((), UPGRADE)):
        assert status(GATE, request(*more, host=text(host), path=path)) == 421
        assert status(GUARDED, request(*more, host=text(host), path=path, query=f"token={TOKEN}")) == 421
        assert status(GATE, request(*more, authority=text(host), path=path)) == 421
        assert status(GATE, request(*more, host=text(host), authority="localhost:8000", path=path)) == 421


@pytest.mark.parametrize("origin", ORIGINS, ids=name_of)
def test_other_origins(origin: bytes) -> None:
    """What only looks like our origin is none, also beside ours."""
    ours = ("origin", "http://localhost:8000")
    theirs = ("origin", text(origin))
    origins = ((theirs,), (theirs, ours), (ours, theirs))
    for path, more, headers in itertools.product(PATHS, ((), UPGRADE), origins):
        assert status(GATE, request(*headers, *more, path=path)) == 403
        assert status(GUARDED, request(*headers, *more, path=path, query=f"token={TOKEN}")) == 403


def test_origin_is_that_of_the_host() -> None:
    """Each of our names is an origin of its own; what is said twice is said by nobody."""
    for host in GOOD_HOSTS:
        for other in GOOD_HOSTS:
            origin = ("origin", f"http://{text(other)}")
            assert status(GATE, request(origin, host=text(host))) == (None if host == other else 403)
    twice = [("origin", "http://localhost:8000")] * 2
    assert status(GATE, request(*twice)) == 403
    assert set(GOOD_ORIGINS) == {b"http://" + host for host in GOOD_HOSTS}


def test_number_of_hosts() -> None:
    """One, even if the others are ours as well."""
    assert status(GATE, request(host=None)) in (400, 421)
    assert status(GATE, request(("host", "localhost:8000"))) in (400, 421)
    assert status(GATE, request(("host", "evil.test"))) in (400, 421)


# Many values are made of what such values consist of, so that some are almost good.
WORDS = (
    *(
        b"localhost",
        b"127.0.0.1",
        b"[::1]",
        b"8000",
        b":",
        b":8000",
        b".",
        b"@",
        b"/",
        b"http://",
        b"https://",
    ),
    *(b"evil.test", b"\0", b" ", b"\t", b",", b"0", b"LOCALHOST", b"localhost:8000"),
)
VALUES = st.one_of(st.binary(max_size=60), st.lists(st.sampled_from(WORDS), max_size=7).map(b"".join))
SOME = settings(
    max_examples=1000, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def arbitrary_values() -> Iterator[bytes]:
    """9000 more, which take less time to make up than those of hypothesis."""
    choose = random.Random(8)
    for number in range(9000):
        if number % 3:
            yield b"".join(choose.choices(WORDS, k=choose.randrange(6)))
        else:
            yield choose.randbytes(choose.randrange(60))


def over_the_wire(*lines: bytes) -> RequestHead | None:
    """The head that comes of these lines; None if it is refused or not whole."""
    buffer = HeadBuffer()
    buffer.feed(b"\r\n".join((b"GET / HTTP/1.1", *lines, b"", b"")))
    try:
        return buffer.take()
    except (BadRequest, NotHttp):
        return None


def check_host(value: bytes) -> bool:
    """Nothing but our names passes, and nothing fails. Whether it is one of them."""
    names = {text(host).lower() for host in GOOD_HOSTS}
    good = value.decode("latin-1").lower() in names
    assert (status(GATE, request(host=value.decode("latin-1"))) is None) == good
    assert (status(GATE, request(authority=value.decode("latin-1"))) is None) == good
    head = over_the_wire(b"Host: " + value)
    if head is not None and len(head.headers) == 1:
        assert (status(GATE, head) is None) == (value.strip(b" \t").decode("latin-1").lower() in names)
    return good


def check_origin(value: bytes) -> bool:
    """Nothing but that of our host passes, and nothing fails. Whether it is that one."""
    good = value == b"http://localhost:8000"
    assert (status(GATE, request(("origin", value.decode("latin-1")))) is None) == good
    head = over_the_wire(b"Host: localhost:8000", b"Origin: " + value)
    if head is not None and len(head.headers) == 2:
        assert (status(GATE, head) is None) == (value.strip(b" \t") == b"http://localhost:8000")
    return good


@SOME
@given(VALUES)
def test_arbitrary_hosts_and_origins(value: bytes) -> None:
    """Hypothesis finds none that passes, and none that makes the gate fail."""
    check_host(value)
    check_origin(value)


def test_more_arbitrary_hosts_and_origins() -> None:
    """Nor do thousands of others, among which are some that are good."""
    assert sum(map(check_host, arbitrary_values())) > 20
    assert sum(map(check_origin, arbitrary_values())) > 2


@SOME
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                (
                    "host",
                    "origin",
                    "cookie",
                    "authorization",
                    "sec-fetch-site",
                    "sec-fetch-dest",
                    "sec-fetch-mode",
                )
            ),
            st.text(st.characters(max_codepoint=255), max_size=40),
        ),
        max_size=6,
    ),
    st.text(st.characters(max_codepoint=255), max_size=40),
    st.text(st.characters(max_codepoint=255), max_size=40),
    st.booleans(),
)
def test_arbitrary_requests(headers: list[tuple[str, str]], path: str, query: str, upgrade: bool) -> None:
    """Whatever is said by those who know neither a name nor the token, they are refused."""
    more = UPGRADE if upgrade else ()
    assert status(GUARDED, request(*headers, *more, host=None, path=path, query=query)) is not None
    assert status(GUARDED, request(*headers, *more, path="/", query="token=" + query)) is not None


def fetched(site: str, mode: str = "", dest: str = "") -> list[tuple[str, str]]:
    """What a browser says about a request."""
    found = [("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)]
    return [(name, value) for name, value in found if value]


@pytest.mark.parametrize(
    ("headers", "paths"),
    [
        ([], PATHS),
        (fetched("same-origin"), PATHS),
        (fetched("same-origin", "cors", "empty"), PATHS),
        (fetched("same-origin", "no-cors", "script"), PATHS),
        (fetched("none", "navigate", "document"), PATHS),
        (fetched("none", "no-cors", "image"), ()),
        (fetched("none", "navigate", "iframe"), ()),
        (fetched("none"), ()),
        (fetched("cross-site", "navigate", "document"), PAGE_PATHS),
        (fetched("same-site", "navigate", "document"), PAGE_PATHS),
        (fetched("cross-site", "navigate", "iframe"), ()),
        (fetched("cross-site", "navigate", "frame"), ()),
        (fetched("cross-site", "navigate", "object"), ()),
        (fetched("cross-site", "navigate"), ()),
        (fetched("cross-site", "no-cors", "document"), ()),
        (fetched("cross-site", "no-cors", "script"), ()),
        (fetched("cross-site", "no-cors", "image"), ()),
        (fetched("cross-site", "cors", "empty"), ()),
        (fetched("cross-site", "websocket", "empty"), ()),
        (fetched("same-site", "no-cors", "script"), ()),
        (fetched("same-site", "cors", "empty"), ()),
        (fetched("same-site"), ()),
        (fetched("cross-site"), ()),
        (fetched("Same-Origin"), ()),
        (fetched("same-origin, cross-site"), ()),
        (fetched("anything"), ()),
        ([("sec-fetch-site", "")], ()),
        ([("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], ()),
        ([("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-origin")], ()),
    ],
    ids=str,
)
def test_what_browsers_say(headers: list[tuple[str, str]], paths: tuple[str, ...]) -> None:
    """Our own page may have all, the user may open all, and links lead to the page alone."""
    for path in PATHS:
        assert status(GATE, request(*headers, path=path)) == (None if path in paths else 403)


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("site", ["none", "cross-site", "same-site"])
def test_navigations_are_gets(method: str, site: str) -> None:
    """A form of another page that posts here is no link."""
    assert status(GATE, request(*fetched(site, "navigate", "document"), method=method)) == 403


def test_no_upgrade_is_a_navigation() -> None:
    """Who asks for a WebSocket follows no link."""
    for site in ("cross-site", "same-site"):
        assert status(GATE, request(*fetched(site, "navigate", "document"), *UPGRADE)) == 403


@pytest.mark.parametrize(
    "header",
    [
        ("cookie", f"fuzzserver-8000={TOKEN}"),
        ("cookie", f"a=b; fuzzserver-8000={TOKEN}; c=d"),
        ("cookie", f"fuzzserver-8000=old; fuzzserver-8000={TOKEN}"),
        ("authorization", f"Bearer {TOKEN}"),
        ("authorization", f"bearer {TOKEN}"),
        ("authorization", f"BEARER {TOKEN}"),
    ],
)
def test_token(header: tuple[str, str]) -> None:
    """In a header or a cookie it opens everything."""
    for path in PATHS:
        assert status(GUARDED, request(header, path=path)) is None
        assert status(GUARDED, request(header, *UPGRADE, path=path)) is None


WRONG_TOKENS = (
    *(
        "",
        "x",
        TOKEN[:-1],
        TOKEN[1:],
        TOKEN + "x",
        TOKEN + TOKEN,
        TOKEN.swapcase(),
        TOKEN.lower(),
        TOKEN[::-1],
    ),
    *(TOKEN[:-1] + "c", "x" + TOKEN, TOKEN + "\0", f'"{TOKEN}"', f"{TOKEN}, x", "\xff" * 22, "None", "*"),
)


@pytest.mark.parametrize("token", WRONG_TOKENS, ids=repr)
def test_wrong_tokens(token: str) -> None:
    """What is not the token, whole and in its place, opens nothing."""
    offers = [
        [("cookie", f"fuzzserver-8000={token}")],
        [("authorization", f"Bearer {token}")],
        [("cookie", f"fuzzserver-8000={token}"), ("authorization", f"Bearer {token}")],
        [],
    ]
    for path, headers, more in itertools.product(PATHS, offers, ((), UPGRADE)):
        assert status(GUARDED, request(*headers, *more, path=path)) == 401
        assert status(GUARDED, request(*headers, *more, path=path, query=f"token={token}")) == 401


@pytest.mark.parametrize(
    "header",
    [
        ("cookie", f"fuzzserver-8001={TOKEN}"),
        ("cookie", f"fuzzserver={TOKEN}"),
        ("cookie", f"Fuzzserver-8000={TOKEN}"),
        ("cookie", f"xfuzzserver-8000={TOKEN}"),
        ("cookie", f"fuzzserver-8000x={TOKEN}"),
        ("cookie", f"token={TOKEN}"),
        ("cookie", TOKEN),
        ("cookie", f"a=fuzzserver-8000={TOKEN}"),
        ("cookie", f"fuzzserver-8000={TOKEN}, a=b"),
        ("authorization", TOKEN),
        ("authorization", f"Basic {TOKEN}"),
        ("authorization", f"Bearer{TOKEN}"),
        ("authorization", f"Bearer token={TOKEN}"),
        ("authorization", f"Bearer {TOKEN} {TOKEN}"),
        ("proxy-authorization", f"Bearer {TOKEN}"),
        ("x-token", TOKEN),
        ("sec-websocket-protocol", TOKEN),
        ("referer", f"http://localhost:8000/?token={TOKEN}"),
    ],
)
def test_token_in_wrong_places(header: tuple[str, str]) -> None:
    """The right one elsewhere opens nothing, the cookie of a server on another port for instance."""
    for path in PATHS:
        assert status(GUARDED, request(header, path=path)) == 401
        assert status(GUARDED, request(header, *UPGRADE, path=path)) == 401


@pytest.mark.parametrize(
    ("query", "is_token"),
    [
        (f"token={TOKEN}", True),
        (f"target=1&token={TOKEN}", True),
        (f"token={TOKEN}&target=1", True),
        (f"Token={TOKEN}", False),
        (f"atoken={TOKEN}", False),
        (f"token={TOKEN};x", False),
        (f"{TOKEN}", False),
        (f"a=token={TOKEN}", False),
    ],
)
def test_token_in_the_address(query: str, is_token: bool) -> None:
    """That of the page may hold it, and that of a WebSocket; others, which pages might link to, may not."""
    for path in PATHS:
        opens = is_token and path in PAGE_PATHS
        assert status(GUARDED, request(path=path, query=query)) == (None if opens else 401)
        assert status(GUARDED, request(*UPGRADE, path=path, query=query)) == (None if is_token else 401)


def test_token_does_not_replace_the_rest() -> None:
    """Who has it and comes by a wrong name or from another page is turned away before it is looked at."""
    good = ("authorization", f"Bearer {TOKEN}")
    assert status(GUARDED, request(good, host="evil.test:8000")) == 421
    assert status(GUARDED, request(good, ("origin", "http://evil.test"))) == 403
    assert status(GUARDED, request(good, *fetched("cross-site", "no-cors", "script"), path="/main.js")) == 403


def test_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each comparison is made by the function that is made for it, and nothing else decides."""
    compared = []

    def compare_digest(one: bytes, two: bytes) -> bool:
        compared.append({one, two})
        return one == b"magic"

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    for wrong in ("x", "magi", "\xe4"):
        for head in (
            request(("cookie", f"fuzzserver-8000={wrong}")),
            request(("authorization", f"Bearer {wrong}")),
            request(query=f"token={wrong}"),
        ):
            compared.clear()
            assert status(GUARDED, head) == 401
            assert len(compared) == 1 and TOKEN.encode() in compared[0]
    assert status(GUARDED, request(("authorization", f"Bearer {TOKEN}"))) == 401
    assert status(GUARDED, request(("authorization", "Bearer magic"))) is None


def test_cookie() -> None:
    """It is set by the page whose address held the token, for this port alone, and no script can read it."""
    for path in PAGE_PATHS:
        cookie = GUARDED.cookie(request(path=path, query=f"token={TOKEN}"))
        assert cookie == f"fuzzserver-8000={TOKEN}; Path=/; HttpOnly; SameSite=Lax"
        assert GUARDED.cookie(request(path=path, query="token=x")) is None
        assert GUARDED.cookie(request(("cookie", f"fuzzserver-8000={TOKEN}"), path=path)) is None
    assert GUARDED.cookie(request(path="/nothing", query=f"token={TOKEN}")) is None
    assert GATE.cookie(request(query="token=None")) is None
    secure = Gate(scheme="https", hosts=LOCAL, port=PORT, token=TOKEN)
    assert str(secure.cookie(request(query=f"token={TOKEN}"))).endswith("; Secure")


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        ("127.0.0.1:8000", True),
        ("192.168.1.5:8000", True),
        ("[::1]:8000", True),
        ("[fe80::1]:8000", True),
        ("[FE80::A]:8000", True),
        ("box:8000", True),
        ("box.lan:9000", True),
        ("BOX.LAN:9000", True),
        ("box.lan:8000", False),
        ("box:9000", False),
        ("192.168.1.5:9000", False),
        ("192.168.1.5", False),
        ("0.0.0.0:8000", False),
        ("[::]:8000", False),
        ("[0:0:0:0:0:0:0:0]:8000", False),
        ("[::0.0.0.0]:8000", False),
        ("[::ffff:0.0.0.0]:8000", False),
        ("0:8000", False),
        ("0x7f.1:8000", False),
        ("2130706433:8000", False),
        ("127.1:8000", False),
        ("0177.0.0.1:8000", False),
        ("::1:8000", False),
        ("fe80::1:8000", False),
        ("[fe80::1%eth0]:8000", False),
        ("[127.0.0.1]:8000", False),
        ("[1.2.3.4]:8000", False),
        ("1.2.3.4.5:8000", False),
        ("1.2.3.4.evil.test:8000", False),
        ("evil.test:8000", False),
    ],
)
def test_any_address(host: str, passes: bool) -> None:
    """A server on all addresses has each as its name, and those that it was given, with the port of each."""
    gate = Gate(scheme="http", hosts=(*LOCAL, "box", "box.lan:9000"), port=PORT, any_address=True)
    assert status(gate, request(host=host)) == (None if passes else 421)
    assert status(gate, request(("origin", f"http://{host}"), host=host)) == (None if passes else 421)


def test_proxy_in_front() -> None:
    """A name of another machine leads here with its own port, or none, and perhaps by TLS."""
    named = Gate(scheme="http", hosts=["localhost"], allow_hosts=["fuzz.test"], port=8000)
    ported = Gate(scheme="http", hosts=["localhost"], allow_hosts=["fuzz.test:443", "box:8080"], port=8000)
    for gate, host, wanted in (
        (named, "fuzz.test", None),
        (named, "fuzz.test:8000", None),
        (named, "fuzz.test:443", 421),
        (named, "a.fuzz.test", 421),
        (ported, "fuzz.test", None),
        (ported, "fuzz.test:443", None),
        (ported, "fuzz.test:8000", 421),
        (ported, "box:8080", None),
        (ported, "box", 421),
    ):
        assert status(gate, request(host=host)) == wanted, host
        for scheme in ("http", "https"):
            assert status(gate, request(("origin", f"{scheme}://{host}"), host=host)) == wanted, host
        assert status(gate, request(("origin", "https://localhost:8000"), host=host)) == (wanted or 403)
    assert status(named, request(("origin", "https://localhost:8000"), host="localhost:8000")) == 403


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_default_ports(scheme: str, port: int) -> None:
    """Browsers leave out the port that goes without saying."""
    gate = Gate(scheme=scheme, hosts=("localhost",), port=port)
    other = Gate(scheme=scheme, hosts=("localhost",), port=PORT)
    origin = ("origin", f"{scheme}://localhost")
    assert status(gate, request(origin, host="localhost")) is None
    assert status(gate, request(host=f"localhost:{port}")) is None
    assert status(gate, request(host="localhost:8000")) == 421
    assert status(other, request(origin, host="localhost")) == 421
    wrong = "http" if scheme == "https" else "https"
    assert status(gate, request(("origin", f"{wrong}://localhost"), host="localhost")) == 403


def test_other_case_of_an_origin() -> None:
    """Browsers write both in lower case; whoever writes the host otherwise must write the origin so, too."""
    assert status(GATE, request(("origin", "http://LOCALHOST:8000"))) == 403
    assert status(GATE, request(("origin", "HTTP://localhost:8000"))) == 403
    head = request(("origin", "http://LOCALHOST:8000"), host="LOCALHOST:8000")
    assert status(GATE, head) is None
    assert status(GATE, replace(head, headers=head.headers[::-1])) is None
