"""The Autobahn cases: what clients may send, and how a WebSocket has to take it."""

import json
import selectors
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fuzzserver import WebServer
from fuzzserver.access import Access
from fuzzserver.zig.installation import Zig
from tests.support_echo import LIMITS, make_echo
from tests.support_tls import make_certificate

PLENTY = 240
"""Seconds for a part of the cases."""

SECTIONS = {
    "1 to 7": (246, [f"{section}.*" for section in range(1, 8)]),
    "9 and 10": (55, ["9.*", "10.*"]),
}
"""Sections 12 and 13 are about compression, which is not offered."""


FINE = {"OK", "INFORMATIONAL"}

TRIES = 3
"""How often a case may be tried: in some, the suite waits for half a second only, which is all that a busy
machine needs to be late."""


def run_cases(port: int, cases: list[str], folder: Path) -> dict[str, tuple[str, str]]:
    """Have the cases run against a server; how it behaved, and how it closed, in each."""
    results: dict[str, tuple[str, str]] = {}
    for number in range(TRIES):
        results |= _run_once(port, cases, folder / str(number))
        cases = [case for case, result in results.items() if not {*result} <= FINE]
        if not cases:
            break
    return results


def _run_once(port: int, cases: list[str], folder: Path) -> dict[str, tuple[str, str]]:
    selection = [argument for case in cases for argument in ("-i", case)]
    command = [Path(sys.executable).with_name("kosoku"), f"ws://127.0.0.1:{port}/", "-o", folder, *selection]
    done = subprocess.run([*map(str, command), "-p", "4"], capture_output=True, text=True, timeout=PLENTY)
    report = folder / "index.json"
    assert report.is_file(), done.stdout + done.stderr
    (results,) = json.loads(report.read_text()).values()
    return {case: (result["behavior"], result["behaviorClose"]) for case, result in results.items()}


def assert_passed(results: dict[str, tuple[str, str]], count: int) -> None:
    """All cases were run, and none of them found a fault."""
    failed = {case: result for case, result in results.items() if not {*result} <= FINE}
    assert not failed
    assert len(results) == count
    print(f"{count} cases:", dict(Counter(behavior for behavior, _ in results.values())))


@contextmanager
def echo_server(zig: Zig, zig_cache: Path, access: Access) -> Iterator[WebServer]:
    """A server that answers by echo."""
    with WebServer(zig=zig, cache_dir=zig_cache, access=access, limits=LIMITS) as server:
        make_echo(server)
        yield server


@pytest.mark.parametrize("sections", SECTIONS)
def test_cases(zig: Zig, zig_cache: Path, tmp_path: Path, nothing_left: None, sections: str) -> None:
    """Through the real server and the real handshake, with nothing but limits and talk exchanged."""
    count, cases = SECTIONS[sections]
    with echo_server(zig, zig_cache, Access()) as server:
        assert_passed(run_cases(server.port, cases, tmp_path), count)


def test_cases_over_tls(zig: Zig, zig_cache: Path, tmp_path: Path, nothing_left: None) -> None:
    """The suite does not speak TLS; a pump does for it."""
    certificate, key = make_certificate(tmp_path)
    count, cases = SECTIONS["1 to 7"]
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        port = listener.getsockname()[1]
        access = Access(allow_hosts=(f"127.0.0.1:{port}",), tls_cert=certificate, tls_key=key)
        with echo_server(zig, zig_cache, access) as server, pump(listener, server.port, certificate):
            assert_passed(run_cases(port, cases, tmp_path / "report"), count)


@contextmanager
def pump(listener: socket.socket, port: int, certificate: Path) -> Iterator[None]:
    """Connect each connection to the listener with one to a server that speaks TLS."""
    tls = ssl.create_default_context(cafile=certificate)
    threads: list[threading.Thread] = []

    def accept() -> None:
        with suppress(OSError):  # The listener was shut down.
            while True:
                plain, _ = listener.accept()
                encrypted = tls.wrap_socket(
                    socket.create_connection(("127.0.0.1", port)), server_hostname="localhost"
                )
                threads.append(threading.Thread(target=_pump_one, args=(plain, encrypted)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        for thread in (acceptor, *threads):
            thread.join()


def _pump_one(plain: socket.socket, encrypted: ssl.SSLSocket) -> None:
    """Pass on bytes until either side closes."""
    with plain, encrypted, selectors.DefaultSelector() as selector, suppress(OSError):
        selector.register(plain, selectors.EVENT_READ, (plain, encrypted))
        selector.register(encrypted, selectors.EVENT_READ, (encrypted, plain))
        while True:
            for key, _ in selector.select():
                source, sink = key.data
                source.setblocking(False)
                try:
                    data = source.recv(65536)
                except ssl.SSLWantReadError:  # What has come, is of TLS's own.
                    continue
                while source is encrypted and encrypted.pending():
                    data += encrypted.recv(65536)
                if not data:
                    return
                sink.settimeout(PLENTY)
                sink.sendall(data)
