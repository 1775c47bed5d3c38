"""Asking a server that may be anybody."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fuzzserver import remote
from fuzzserver.errors import InputError
from fuzzserver.remote import RemoteServer

Answers = Callable[[bytes], RemoteServer]


@pytest.fixture
def asked() -> list[bytes]:
    """The requests that came."""
    return []


@pytest.fixture
def answers(asked: list[bytes]) -> Iterator[Answers]:
    """Makes a server that gives this answer to everybody, and closes the connection."""
    listeners: list[socket.socket] = []

    def serve(listener: socket.socket, answer: bytes) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(1 << 16))
                connection.sendall(answer)

    def start(answer: bytes) -> RemoteServer:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=serve, args=(listener, answer), daemon=True).start()
        return RemoteServer(f"http://user:password@127.0.0.1:{listener.getsockname()[1]}/?token=secret")

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_answer(answers: Answers, asked: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The token goes along in a header, past any proxy; nothing secret is in the address that is shown."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    server = answers(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    assert server.get("api/1/report") == b"ok"
    assert asked[0].startswith(b"GET /api/1/report HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer secret\r\n" in asked[0]
    assert "secret" not in server.address and "password" not in server.address


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 401 No\r\n\r\nthis server wants its token", "answers 401: this server wants its token"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf", "the answer was cut: 996 bytes are missing"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "cannot get "),
        (b"nonsense\r\n\r\n", "cannot get "),
        (b"", "cannot get "),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", "cannot get "),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(3 << 20), "the answer has more than 2 MiB"),
    ],
)
def test_bad_answers(answers: Answers, monkeypatch: pytest.MonkeyPatch, answer: bytes, said: str) -> None:
    """Each is one clear sentence, in which nothing is secret."""
    monkeypatch.setattr(remote, "MAX_ANSWER", 2 << 20)
    with pytest.raises(InputError) as caught:
        answers(answer).get("x")
    assert said in str(caught.value)
    assert "secret" not in str(caught.value) and "password" not in str(caught.value)


def test_other_servers_do_not_get_the_token(answers: Answers, asked: list[bytes]) -> None:
    """A redirect is an error."""
    other = answers(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    redirect = f"HTTP/1.1 302 Found\r\nlocation: {other.address}/\r\ncontent-length: 0\r\n\r\n"
    with pytest.raises(InputError, match="answers 302"):
        answers(redirect.encode()).get("x")
    assert len(asked) == 1


def test_an_answer_that_comes_too_slowly(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up, though there is always a little more."""
    clock = iter(range(0, 10_000, 200))
    monkeypatch.setattr(remote, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    monkeypatch.setattr(remote, "PIECE", 1)
    with pytest.raises(InputError, match="the answer is not there after 300 s"):
        answers(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1000)).get("x")


@pytest.mark.parametrize("url", ["ftp://x/", "x", "http://", "http://[::1", "http://a b/", "http://x:port/"])
def test_no_address(url: str, tmp_path: Path) -> None:
    """What is none is refused at once."""
    with pytest.raises(InputError, match="--url takes the address of a server"):
        RemoteServer(url)
