"""Who is turned away gets a sentence and no more, wherever it is; and what each answer forbids browsers."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import pytest

from fuzzserver import WebServer, paths
from fuzzserver.access import Access, Limits
from fuzzserver.web.response import Policy, response_head
from fuzzserver.web.server import HttpServer
from fuzzserver.zig.installation import Zig
from tests.support_http import (
    UPGRADE,
    Response,
    ask,
    connected,
    exchange,
    parse_responses,
    receive_all,
    upgrade_request,
)
from tests.support_lookalikes import HOSTS, ORIGINS
from tests.support_patience import PATIENT, SHORT, nobody_let_in
from tests.support_probes import head, headers, post
from tests.support_site import CANARY, NOTHING, PAGE, Site, furnished
from tests.support_time import WAIT
from tests.support_zig_fake import fake_zig

SAFETY = {
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'{}; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
OWN_PAGE = PAGE_POLICY.format("") + "; require-trusted-types-for 'script'; trusted-types "
"""Then the names of its policies, of which there may be one."""
FOREIGN_PAGE = PAGE_POLICY.format(" 'unsafe-inline'")
DATA = "default-src 'none'; frame-ancestors 'none'; sandbox"

MARK = "r3flected"
"""In requests; never in an answer."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that anybody on this machine may use."""
    with furnished(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that wants its token."""
    with furnished(tmp_path_factory.mktemp("guarded"), access=Access(token=True)) as site:
        yield site


@pytest.fixture
def viewers(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """All WebSockets that servers have taken in since the test began."""
    found: list[object] = []
    session = HttpServer.session

    def noted(self: HttpServer, web_socket: object, *more: object):
        found.append(web_socket)
        return session(self, web_socket, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(HttpServer, "session", noted)
    return found


def lines(*all_lines: bytes, path: str) -> tuple[bytes, bytes]:
    """A plain request and an upgrade with these header lines."""
    plain = (f"GET {path} HTTP/1.1".encode(), *all_lines)
    return headers(*plain), headers(*plain, *UPGRADE)


def refusal(port: int, data: bytes, *statuses: int) -> bytes:
    """The words of the one answer, which must have one of these statuses and close the connection."""
    received = exchange(port, data)
    (answer,) = parse_responses(received)
    assert answer.status in statuses, (answer.status, data)
    assert answer.closes and answer.value("content-type") == "text/plain"
    assert CANARY not in received and b"<" not in received and b"fuzz {" not in received
    return answer.body


def test_foreign_hosts_on_all_routes(site: Site, viewers: list[object]) -> None:
    """Each look-alike on each route and each upgrade: the same sentence, and nobody becomes a viewer."""
    said = set()
    count = 0
    for host in HOSTS:
        value = host.replace(b"PORT", str(site.port).encode())
        for path in (*site.routes, NOTHING):
            for data in lines(b"Host: " + value, path=path):
                said.add(refusal(site.port, data, 421))
                count += 1
    assert count == len(HOSTS) * (len(site.routes) + 1) * 2 > 3000
    assert len(said) == 1 and len(said.pop()) < 250
    assert viewers == []


def test_foreign_origins_on_all_routes(site: Site, viewers: list[object]) -> None:
    """The same for Origin, alone and beside ours."""
    said = set()
    host = f"Host: {site.host}".encode()
    for number, origin in enumerate(ORIGINS):
        line = b"Origin: " + origin.replace(b"PORT", str(site.port).encode())
        ours = f"Origin: http://{site.host}".encode()
        origins = ((line,), (line, ours), (ours, line))[number % 3 : number % 3 + 1] if number else ((line,),)
        for path in (*site.routes, NOTHING):
            for more in origins:
                for data in lines(host, *more, path=path):
                    said.add(refusal(site.port, data, 403))
    assert len(said) == 1 and len(said.pop()) < 250
    assert viewers == []


@pytest.mark.parametrize("site_header", ["cross-site", "same-site", "none", "anything"])
def test_other_pages_on_all_routes(site: Site, viewers: list[object], site_header: str) -> None:
    """What browsers say of scripts, pictures and frames of other pages is believed."""
    for mode, dest in (
        ("no-cors", "script"),
        ("cors", "empty"),
        ("navigate", "iframe"),
        ("no-cors", "image"),
    ):
        fetch = (f"Sec-Fetch-Site: {site_header}", f"Sec-Fetch-Mode: {mode}", f"Sec-Fetch-Dest: {dest}")
        for path in (*site.routes, NOTHING):
            for data in lines(f"Host: {site.host}".encode(), *map(str.encode, fetch), path=path):
                refusal(site.port, data, 403)
    assert viewers == []


def test_hosts_and_origins_that_are_ours(site: Site, viewers: list[object]) -> None:
    """The same requests with our names do get what they ask for, so that the tests above tell something."""
    for name in ("localhost", "127.0.0.1", "[::1]"):
        host = f"{name}:{site.port}"
        for path in site.routes:
            answer = ask(
                site.port, path, "GET", f"Origin: http://{host}", "Sec-Fetch-Site: same-origin", host=host
            )
            assert answer.status == 200
        (answer,) = parse_responses(exchange(site.port, upgrade_request(host, origin=f"http://{host}")))
        assert answer.status == 101
    assert len(viewers) == 3
    assert CANARY in b"".join(ask(site.port, path).body for path in site.routes)


def no_entry(site: Site, path: str, *more: str, query: str = "") -> None:
    """Neither a request nor an upgrade with these headers comes in; both are told what is missing."""
    host = f"Host: {site.host}".encode()
    for data in lines(host, *(line.encode("latin-1") for line in more), path=path + query):
        received = exchange(site.port, data)
        (answer,) = parse_responses(received)
        assert answer.status == 401 and answer.value("www-authenticate") == "Bearer", (path, more, query)
        assert answer.closes and answer.value("set-cookie") is None
        assert CANARY not in received and str(site.server.token).encode() not in received


def test_no_token_no_entry(guarded: Site, viewers: list[object], caplog: pytest.LogCaptureFixture) -> None:
    """Without, with a wrong one, or with the right one in a wrong place: 401 on every route and upgrade."""
    caplog.set_level(logging.DEBUG)
    token, port = str(guarded.server.token), guarded.port
    assert len(token) >= 32
    wrong = [
        "",
        "x",
        token[:-1],
        token[1:],
        token + "0",
        token * 2,
        token.upper() + "X",
        token[::-1],
        "\xff" * 32,
    ]
    if token.upper() != token:
        wrong.append(token.upper())
    offers = [()]
    for value in wrong:
        offers += [
            (f"Cookie: fuzzserver-{port}={value}",),
            (f"Authorization: Bearer {value}",),
            (f"Authorization: Basic {value}", f"Cookie: a=b; fuzzserver-{port}={value}; c=d"),
        ]
    offers += [
        (f"Cookie: fuzzserver-{port + 1}={token}",),
        (f"Cookie: fuzzserver={token}",),
        (f"Cookie: {token}",),
        (f"Authorization: {token}",),
        (f"Authorization: Basic {token}",),
        (f"Authorization: Bearer{token}",),
        (f"X-Token: {token}",),
        (f"Referer: http://{guarded.host}/?token={token}",),
    ]
    for path in (*guarded.routes, NOTHING):
        for more in offers:
            no_entry(guarded, path, *more)
        for value in wrong:
            no_entry(guarded, path, query=f"?token={value}" if value.isascii() else "?token=%ff")
    host = f"Host: {guarded.host}".encode()
    for path in (*guarded.routes, NOTHING):
        if path not in ("/", "/debug", "/debug/"):
            refusal(guarded.port, lines(host, path=f"{path}?token={token}")[0], 401)
    assert viewers == []
    assert_not_logged(caplog, token)


def assert_not_logged(caplog: pytest.LogCaptureFixture, token: str) -> None:
    """No record of any logger and level holds the token, or the greater part of it."""
    assert caplog.records
    for record in caplog.records:
        whole = f"{record.getMessage()} {record.args!r} {record.exc_text}"
        assert token not in whole and token[:16] not in whole and token[16:] not in whole


def test_token_opens_everything(
    guarded: Site, viewers: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    """In a header or the cookie, and in the address of the page and of a WebSocket."""
    caplog.set_level(logging.DEBUG)
    token, port = str(guarded.server.token), guarded.port
    good = (
        f"Authorization: Bearer {token}",
        f"authorization: bEARER {token}",
        f"Cookie: fuzzserver-{port}={token}",
        f"Cookie: a=b; fuzzserver-{port}={token}",
        f"Cookie: fuzzserver-{port}=of-yesterday; fuzzserver-{port}={token}",
    )
    for line in good:
        for path in guarded.routes:
            answer = ask(port, path, "GET", line)
            assert answer.status == 200 and answer.value("set-cookie") is None
            assert token.encode() not in answer.body and token not in str(answer.headers)
        assert ask(port, NOTHING, "GET", line).status == 404
        (answer,) = parse_responses(exchange(port, upgrade_request(guarded.host, line)))
        assert answer.status == 101 and token not in str(answer.headers)
    for path in (*guarded.routes, NOTHING):
        (answer,) = parse_responses(
            exchange(port, upgrade_request(guarded.host, path=f"{path}?token={token}"))
        )
        assert answer.status == 101
    assert len(viewers) == len(good) + len(guarded.routes) + 1
    assert_not_logged(caplog, token)


def test_cookie_of_the_page(guarded: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The address that is printed gives a cookie, with which all else opens; nothing else holds the token."""
    caplog.set_level(logging.DEBUG)
    token, port = str(guarded.server.token), guarded.port
    assert guarded.server.url == f"http://127.0.0.1:{port}/?token={token}"
    for path in ("/", "/debug", "/debug/"):
        answer = ask(port, f"{path}?token={token}")
        cookie = f"fuzzserver-{port}={token}"
        assert (answer.status, answer.value("set-cookie")) == (
            200,
            f"{cookie}; Path=/; HttpOnly; SameSite=Lax",
        )
        assert token.encode() not in answer.body
        assert {name for name, value in answer.headers if token in value} == {"set-cookie"}
        assert answer.value("referrer-policy") == "no-referrer"
    for path in guarded.routes:
        assert ask(port, path, "GET", f"Cookie: {cookie}").status == 200
    assert_not_logged(caplog, token)


def test_token_of_other_requests_is_never_sent_back(guarded: Site) -> None:
    """Whatever else is wrong with a request that has the token."""
    token = str(guarded.server.token)
    good = f"Authorization: Bearer {token}"
    for more, status in (
        (("Origin: http://evil.test",), 403),
        (("Transfer-Encoding: chunked",), 501),
        (("Expect: x",), 417),
        ((f"X: {token}\0",), 400),
        (("Content-Length: 9999999",), 413),
    ):
        data = head(good, *more, target=f"/?token={token}").replace(b"HOST", guarded.host.encode())
        received = exchange(guarded.port, data)
        assert parse_responses(received)[0].status == status
        assert token.encode() not in received


def check_headers(answer: Response, received: bytes = b"", *, policy: str = "") -> None:
    """What each answer has, whatever its status, and what none has."""
    for name, value in SAFETY.items():
        assert answer.value(name) == value, (answer.status, name)
    found = answer.value("content-security-policy")
    assert found is not None and (not policy or found == policy)
    names = {name for name, _ in answer.headers}
    assert not [name for name in names if name.startswith("access-control")]
    assert not names & {"server", "x-powered-by", "via", "date-served", "location", "refresh"}
    assert MARK.encode() not in received and b"ython" not in received.partition(b"\r\n\r\n")[0]


def one_of_each(site: Site) -> dict[int, bytes]:
    """A request for each status that this server gives by itself."""
    etag = ask(site.port, "/").value("etag")
    return {
        200: head(f"X: {MARK}"),
        204: head(f"X: {MARK}", method="OPTIONS", target=f"/{MARK}"),
        304: head(f"If-None-Match: {etag}", f"X: {MARK}"),
        400: head(f"{MARK} : x", target=f"/{MARK}"),
        403: head(f"Origin: http://{MARK}", target=f"/{MARK}"),
        404: head(f"X: {MARK}", target=f"/{MARK}"),
        405: head(f"X: {MARK}", method=MARK.upper(), target=f"/{MARK}"),
        408: head(f"X: {MARK}", target=f"/{MARK}")[:-2],
        413: post(f"X: {MARK}", "Content-Length: 99999999"),
        414: head(target=f"/{MARK}" * 1000),
        417: head(f"Expect: {MARK}"),
        421: headers("GET / HTTP/1.1", f"Host: {MARK}"),
        426: upgrade_request("HOST", f"X: {MARK}").replace(b"Version: 13", b"Version: " + MARK.encode()),
        431: head(*[f"X: {MARK}"] * 120),
        501: head(f"Transfer-Encoding: {MARK}"),
        505: head(f"X: {MARK}", version="HTTP/2.0"),
    }


def answer_to_half_a_request(site: Site, data: bytes) -> bytes:
    """What is said to who does not go on: the server has all that comes before it waits for more."""
    http_server = site.server._http_server
    assert http_server is not None
    patience = http_server.limits
    http_server.limits = replace(patience, head_seconds=SHORT)
    with ExitStack() as stack:
        with nobody_let_in(site.server):
            connection = stack.enter_context(connected(site.port))
            connection.sendall(data)
        received = receive_all(connection)
    http_server.limits = patience
    return received


def test_headers_of_each_status(tmp_path: Path) -> None:
    """Errors forbid browsers as much as pages do, and say nothing of the request."""
    seen = set()
    with furnished(tmp_path) as site:
        for status, data in one_of_each(site).items():
            data = data.replace(b"HOST", site.host.encode())
            received = answer_to_half_a_request(site, data) if status == 408 else exchange(site.port, data)
            (answer,) = parse_responses(received)
            assert answer.status == status
            if status in (200, 304):
                assert str(answer.value("content-security-policy")).startswith(OWN_PAGE)
                check_headers(answer, received)
            else:
                check_headers(answer, received, policy=DATA)
            seen.add(status)
    assert seen == set(one_of_each_status())


def one_of_each_status() -> tuple[int, ...]:
    """All of them; 401, 500 and 503 have tests of their own."""
    return (200, 204, 304, 400, 403, 404, 405, 408, 413, 414, 417, 421, 426, 431, 501, 505)


def test_headers_of_401(guarded: Site) -> None:
    """Who has no token gets no other headers."""
    for data in lines(f"Host: {guarded.host}".encode(), f"X: {MARK}".encode(), path=f"/{MARK}?token={MARK}"):
        received = exchange(guarded.port, data)
        (answer,) = parse_responses(received)
        assert answer.status == 401
        check_headers(answer, received, policy=DATA)


def test_headers_of_500(tmp_path: Path) -> None:
    """A compile that fails, and a page that is not there."""
    with WebServer(zig=fake_zig(tmp_path / "zig", compile="exit_3"), lib_dir=tmp_path) as server:
        for path in ("/main.wasm", "/", "/main.js"):
            for method in ("GET", "HEAD"):
                answer = ask(server.port, path, method, f"X: {MARK}")
                assert answer.status == 500 and answer.value("content-type") == "text/plain"
                assert MARK.encode() not in answer.body
                check_headers(answer, policy=DATA)


def test_headers_of_503(tmp_path: Path) -> None:
    """One connection, one viewer, one archive or one report too many."""
    with furnished(tmp_path, limits=replace(PATIENT, viewers=0, archives=0, reports=0)) as site:
        for data in (
            upgrade_request(site.host, f"X: {MARK}"),
            head(f"X: {MARK}", target="/sources.tar"),
            head(f"X: {MARK}", target="/api/1/report"),
        ):
            received = exchange(site.port, data.replace(b"HOST", site.host.encode()))
            (answer,) = parse_responses(received)
            assert answer.status == 503
            check_headers(answer, received, policy=DATA)
    with WebServer(zig=fake_zig(tmp_path / "zig2"), limits=Limits(connections=0)) as server:
        with connected(server.port) as connection:
            received = receive_all(connection)
        (answer,) = parse_responses(received)
        assert answer.status == 503 and answer.closes
        check_headers(answer, received, policy=DATA)


def test_headers_of_all_routes(site: Site) -> None:
    """What is our page may run our scripts; what it shows is nothing to run."""
    pages = (*PAGE, "/main.wasm", "/debug/main.wasm")
    for path in (*site.routes, NOTHING):
        for method in ("GET", "HEAD"):
            answer = ask(site.port, path, method)
            policy = str(answer.value("content-security-policy"))
            check_headers(answer)
            if path in pages:
                assert policy.startswith(OWN_PAGE) and len(policy.removeprefix(OWN_PAGE).split()) == 1
            else:
                assert policy == DATA, path
            if answer.status == 200:
                assert answer.value("cache-control") == "max-age=0, must-revalidate"


def test_policy_of_other_pages(tmp_path: Path, zig: Zig) -> None:
    """Zig's own page, and a copy of ours, get what Zig's page needs; what they show is nothing to run."""
    copy = tmp_path / "lib"
    shutil.copytree(paths.lib_dir(), copy)
    for number, lib_dir in enumerate((zig.lib_dir, copy)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with furnished(folder, lib_dir=lib_dir) as site:
            for path in ("/", "/debug", "/debug/", "/main.js", "/main.wasm"):
                answer = ask(site.port, path)
                assert answer.status == 200
                check_headers(answer, policy=FOREIGN_PAGE)
            for path in ("/sources.tar", "/targets.json", "/corpus/0/1", NOTHING, site.routes[-1]):
                check_headers(ask(site.port, path), policy=DATA)
            check_headers(ask(site.port, "/", "POST"), policy=DATA)
            check_headers(ask(site.port, "/", host="evil.test"), policy=DATA)


BAD_VALUES = ("a\r\nSet-Cookie: x=1", "a\rb", "a\nb", "\n", "a\0b", "a\x7f", "\xe4", "\u2028", "a\tb", "\x85")
BAD_NAMES = ("a\r\nb", "a\n", "a:b", "a b", "", "A", "a\0", "\xe4", "a\t")


@pytest.mark.parametrize("value", BAD_VALUES, ids=repr)
def test_response_splitting(value: str) -> None:
    """No value makes two headers of one, or a body."""
    for found in ([("location", value)], [("a", "b"), ("location", value)]):
        with pytest.raises(ValueError, match="not a header"):
            response_head(HTTPStatus.OK, found, Policy.DATA)
    with pytest.raises(ValueError, match="not a header"):
        response_head(HTTPStatus.OK, [], value)


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_names_of_headers(name: str) -> None:
    """Nor does any name."""
    with pytest.raises(ValueError, match="not a header"):
        response_head(HTTPStatus.OK, [(name, "value")], Policy.DATA)


def test_response_head() -> None:
    """The status line, the headers in order, the empty line."""
    data = response_head(HTTPStatus.NOT_FOUND, [("content-length", "0"), ("a", "")], "x 'y'")
    (answer,) = parse_responses(data)
    assert data.startswith(
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\na: \r\ncontent-security-policy: x 'y'\r\n"
    )
    check_headers(answer, policy="x 'y'")


def test_refusals_take_no_time(site: Site) -> None:
    """The whole answer is there at once; the client need not hang up for it."""
    data = lines(b"Host: evil.test", path="/")[0]
    with connected(site.port, timeout=WAIT) as connection:
        connection.sendall(data)
        assert parse_responses(receive_all(connection))[0].status == 421
