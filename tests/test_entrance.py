"""Where the server is reached: the token that others need, and clients of HTTPS that say nothing."""

import socket
import time
from functools import partial
from pathlib import Path

import pytest

from fuzzserver import WebServer
from fuzzserver.access import Access, Limits
from fuzzserver.web.entrance import Entrance
from fuzzserver.web.head import HeadBuffer, RequestHead
from fuzzserver.zig.installation import Zig
from tests.support_http import ask, connected
from tests.support_patience import LATE, SHORT, seconds_until_closed
from tests.support_tls import make_certificate

RECORD = b"\x16\x03\x01\x02\x00"
"""The head of a record of TLS, which announces 512 bytes."""


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_alone(host: str) -> None:
    """Where nobody else can connect, a token is used if it is asked for."""
    assert Entrance((host, 0), Access()).is_local
    assert Entrance((host, 0), Access()).token is None
    assert Entrance((host, 0), Access()).url(("127.0.0.1", 1)) == "http://127.0.0.1:1/"
    assert Entrance((host, 0), Access(token=True)).token is not None


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "192.168.1.5", "fe80::1", "localhost.lan", "box", "127.0.0.1.evil.test"]
)
def test_other_machines(host: str) -> None:
    """Wherever others may connect, a token is needed, asked for or not. Each is another one."""
    tokens = set()
    for _ in range(10):
        entrance = Entrance((host, 0), Access())
        assert not entrance.is_local and entrance.token is not None
        assert len(bytes.fromhex(entrance.token)) == 16
        assert entrance.url(("192.168.1.5", 1)) == f"http://192.168.1.5:1/?token={entrance.token}"
        tokens.add(entrance.token)
    assert len(tokens) == 10


def test_name_that_others_may_listen_on(zig: Zig, zig_cache: Path) -> None:
    """The address that holds the token is the one that is listened on: "localhost" may be two."""
    access = Access(token=True)
    with WebServer(zig=zig, cache_dir=zig_cache, listen_address=("localhost", 0), access=access) as server:
        assert server.url == f"http://127.0.0.1:{server.port}/?token={server.token}"


@pytest.mark.parametrize(
    ("bound", "url"),
    [
        (("127.0.0.1", 80), "http://127.0.0.1:80/"),
        (("::1", 1), "http://[::1]:1/"),
        (("fd00:0:0::5", 1), "http://[fd00::5]:1/"),
        (("fe80::1%eth0", 1), "http://[fe80::1]:1/"),
        (("0.0.0.0", 1), f"http://{socket.gethostname().lower()}:1/"),
        (("::", 1), f"http://{socket.gethostname().lower()}:1/"),
    ],
)
def test_url_is_one_that_a_browser_takes(bound: tuple[str, int], url: str) -> None:
    """Addresses are written as browsers do, so that they come back as they were told."""
    entrance = Entrance(("127.0.0.1", 0), Access())
    assert entrance.url(bound) == url
    host = url.removeprefix("http://").removesuffix("/")
    assert entrance.gate(bound).refusal(parse_head(host)) is None


def parse_head(host: str) -> RequestHead:
    """A request to a host."""
    buffer = HeadBuffer()
    buffer.feed(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head = buffer.take()
    assert head is not None
    return head


def test_server_on_all_addresses(zig: Zig, zig_cache: Path) -> None:
    """It answers to nobody without its token, also on this machine."""
    with WebServer(zig=zig, cache_dir=zig_cache, listen_address=("0.0.0.0", 0)) as server:
        host = f"127.0.0.1:{server.port}"
        assert ask(server.port, "/", host=host).status == 401
        assert ask(server.port, "/", "GET", f"Authorization: Bearer {server.token}", host=host).status == 200


def test_silence_instead_of_a_handshake(zig: Zig, zig_cache: Path, tmp_path: Path) -> None:
    """Who says nothing, or begins to and sends a byte now and then, has as much time as for a head."""
    certificate, key = make_certificate(tmp_path)
    access = Access(tls_cert=certificate, tls_key=key)
    limits = Limits(head_seconds=SHORT)
    with WebServer(zig=zig, cache_dir=zig_cache, access=access, limits=limits) as server:
        for beginning, then in ((b"", b""), (RECORD, b"\0")):
            begun = time.monotonic()
            with connected(server.port) as connection:
                connection.sendall(beginning)
                seconds, _ = seconds_until_closed(connection, begun, partial(connection.sendall, then))
            assert SHORT * 0.9 < seconds < SHORT + LATE
