"""The archive of sources is made once and kept, until a source changes; nobody sees another one for it."""

import contextlib
import errno
import io
import os
import socket
import ssl
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzzserver import FuzzRunStep, SourcePath, WebServer
from fuzzserver.access import Access
from fuzzserver.web import kept_sources
from fuzzserver.web.body import PIECE
from fuzzserver.web.kept_sources import KeptSources
from fuzzserver.web.source_files import SourceFolders
from tests.support_facts import open_files
from tests.support_http import ask, exchange, parse_responses
from tests.support_time import WAIT, eventually
from tests.support_tls import make_certificate
from tests.support_zig_fake import fake_zig

N_FILES = 5
LENGTH = 3 * PIECE + 7
"""Bytes of a source: some pieces, and a rest."""


class Received:
    """Takes an archive, and knows how it came."""

    def __init__(self) -> None:
        self.data = b""
        self.from_file = False

    def write(self, data: bytes) -> None:
        """Some bytes."""
        self.data += data

    def send_file(self, file: int, size: int) -> None:
        """Some bytes of a file."""
        self.from_file = True
        self.data += os.pread(file, size, 0)

    @property
    def members(self) -> dict[str, bytes]:
        """Contents by their names."""
        with tarfile.open(fileobj=io.BytesIO(self.data), mode="r:") as tar:
            return {Path(each.name).name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


class Folder:
    """Sources, what is kept of them, and how many of them have been opened so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = [f"{number}.zig" for number in range(N_FILES)]
        for name in self.names:
            (folder / name).write_bytes(name.encode() * LENGTH)
        self.kept = KeptSources(lambda: [SourcePath(str(folder), name) for name in self.names])
        self.opened = 0

    def let_time_pass(self) -> None:
        """Until what is changed has another time: the clock of file systems ticks more coarsely than ours."""
        probe = self.folder.parent / "probe"
        probe.touch()
        before = probe.stat().st_ctime_ns

        def is_later() -> bool:
            probe.touch()
            return probe.stat().st_ctime_ns > before

        eventually(is_later, "the clock of the file system stands still")

    def received(self) -> Received:
        """The archive."""
        sink = Received()
        self.kept.write_to(sink)
        return sink

    @property
    def contents(self) -> dict[str, bytes]:
        """What the archive should hold."""
        return {
            name: (self.folder / name).read_bytes() for name in self.names if (self.folder / name).exists()
        }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """Sources whose changes have always settled."""
    monkeypatch.setattr(kept_sources, "SETTLED_NS", 0)
    before = open_files()
    (tmp_path / "src").mkdir()
    folder = Folder(tmp_path / "src")
    folder.let_time_pass()
    open_one = SourceFolders.open

    def counted(self: SourceFolders, location: str) -> int:
        folder.opened += 1
        return open_one(self, location)

    monkeypatch.setattr(SourceFolders, "open", counted)
    yield folder
    folder.kept.close()
    eventually(lambda: open_files() <= before, "a descriptor is left")


def test_unchanged_sources_are_not_opened_again(folder: Folder) -> None:
    """The second archive and all after it come out of the file that the first was made into."""
    first, *more = (folder.received() for _ in range(4))
    assert first.members == folder.contents
    assert [(each.data == first.data, each.from_file) for each in more] == [(True, True)] * 3
    assert folder.opened == N_FILES


def edit(file: Path) -> None:
    """Another text of the same length, with the old time of modification."""
    status = file.stat()
    file.write_bytes(file.read_bytes().swapcase())
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(file: Path) -> None:
    """Another file in its place, as editors do it."""
    other = file.with_name("other")
    other.write_bytes(file.read_bytes().swapcase())
    other.rename(file)


def remove(file: Path) -> None:
    """Nothing is there any more."""
    file.unlink()


def lead_out(file: Path) -> None:
    """A link in its place that leads to what is no source."""
    secret = file.parents[1] / "secret"
    secret.write_text("secret")
    file.unlink()
    file.symlink_to(secret)


@pytest.mark.parametrize("change", [edit, replace, remove, lead_out])
def test_changes_are_seen_by_the_next_one(folder: Folder, change) -> None:
    """Whatever happens to a source, and when it is as it was."""
    assert folder.received().members == folder.contents
    file = folder.folder / folder.names[2]
    content = file.read_bytes()
    change(file)
    expected = {name: data for name, data in folder.contents.items() if data != b"secret"}
    assert folder.received().members == expected
    folder.let_time_pass()
    file.unlink(missing_ok=True)
    file.write_bytes(content)
    assert folder.received().members == folder.contents


def test_a_source_that_is_named_later_is_in_the_next_one(folder: Folder) -> None:
    """As when a build has found out about more files."""
    folder.received()
    (folder.folder / "new.zig").write_text("new")
    folder.names.append("new.zig")
    assert folder.received().members["new.zig"] == b"new"


def test_what_changed_just_now_may_change_again_unseen(folder: Folder, monkeypatch) -> None:
    """Its times may stay as they are then, so the archive is made anew."""
    monkeypatch.setattr(kept_sources, "SETTLED_NS", 10**18)
    assert folder.received().data == folder.received().data
    assert folder.opened == 2 * N_FILES


def test_a_large_archive_is_not_kept(folder: Folder, monkeypatch) -> None:
    """It is made while it is sent."""
    kept = folder.received()
    monkeypatch.setattr(kept_sources, "MAX_KEPT", N_FILES * LENGTH)
    sent = folder.received()
    assert (sent.from_file, sent.data) == (False, kept.data)


@pytest.mark.parametrize("when", ["made", "written", "flushed"])
def test_no_room_for_an_archive(folder: Folder, monkeypatch, when: str) -> None:
    """It is made while it is sent, until there is room."""
    make = tempfile.TemporaryFile

    class Full(io.BytesIO):
        def write(self, data) -> int:
            if when == "written":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

        def flush(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(**_: object) -> Full:
        if when == "made":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return Full()

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    sent = folder.received()
    assert (sent.from_file, sent.members) == (False, folder.contents)
    monkeypatch.setattr(tempfile, "TemporaryFile", make)
    edit(folder.folder / folder.names[0])
    sent = folder.received()
    assert (sent.from_file, sent.members) == (True, folder.contents)


def test_one_archive_for_all_who_come_at_once(folder: Folder, monkeypatch) -> None:
    """It is made by one, and the others wait for it."""
    begun, go_on = threading.Event(), threading.Event()
    make = kept_sources.write_sources_tar

    def slowly(*args) -> None:
        begun.set()
        assert go_on.wait(WAIT)
        make(*args)

    monkeypatch.setattr(kept_sources, "write_sources_tar", slowly)
    received: list[Received] = []
    threads = [threading.Thread(target=lambda: received.append(folder.received())) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert begun.wait(WAIT)
    go_on.set()
    for thread in threads:
        thread.join(WAIT)
    assert len({each.data for each in received}) == 1 and len(received) == 8
    assert folder.opened == N_FILES


def test_an_archive_that_is_sent_stays_as_it_is(folder: Folder) -> None:
    """Others may be sent the next one meanwhile."""
    old = folder.contents

    class Slow(Received):
        def send_file(self, file: int, size: int) -> None:
            edit(folder.folder / folder.names[0])
            self.other = folder.received()
            super().send_file(file, size)

    sink = Slow()
    folder.kept.write_to(sink)
    assert sink.members == old != folder.contents == sink.other.members


# ------------------------------------------------------------------------------------------ over HTTP


@contextlib.contextmanager
def serving(folder: Folder, tmp_path: Path, **options) -> Iterator[WebServer]:
    """A server of these sources."""
    sources = tuple(SourcePath(str(folder.folder), name) for name in folder.names)
    step = FuzzRunStep("x", Path("/nothing"), inputs=sources)
    zig = fake_zig(tmp_path / "zig")
    with WebServer(fuzz_run_steps=(step,), zig=zig, cache_dir=tmp_path / "cache", **options) as server:
        yield server


def test_kept_archives_over_http(folder: Folder, tmp_path: Path) -> None:
    """Chunked or until the end, once or many times on a connection, or just the head of it."""
    whole = folder.received().data
    with serving(folder, tmp_path) as server:
        request = f"GET /sources.tar HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
        answers = parse_responses(exchange(server.port, request * 3))
        assert [answer.value("transfer-encoding") for answer in answers] == ["chunked"] * 3
        assert {answer.body for answer in answers} == {whole}
        old = exchange(server.port, request.replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert old.partition(b"\r\n\r\n")[2] == whole
        assert ask(server.port, "/sources.tar", "HEAD").body == b""


def test_no_sources_over_http(folder: Folder, tmp_path: Path) -> None:
    """An archive of nothing has no bytes, and is an answer all the same."""
    folder.names.clear()
    with serving(folder, tmp_path) as server:
        request = f"GET /sources.tar HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
        answers = parse_responses(exchange(server.port, request * 2))
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"")] * 2


def test_kept_archives_over_tls(folder: Folder, tmp_path: Path) -> None:
    """The system cannot encrypt, so it is done here, with the same bytes."""
    certificate, key = make_certificate(tmp_path)
    context = ssl.create_default_context(cafile=certificate)
    whole = folder.received().data
    with serving(folder, tmp_path, access=Access(tls_cert=certificate, tls_key=key)) as server:
        request = f"GET /sources.tar HTTP/1.1\r\nHost: localhost:{server.port}\r\nConnection: close\r\n\r\n"
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(request.encode())
            received = bytearray()
            while part := connection.recv(1 << 16):
                received += part
    (answer,) = parse_responses(bytes(received))
    assert answer.body == whole


def test_a_stop_removes_what_is_kept(folder: Folder, tmp_path: Path) -> None:
    """No descriptor is left; whoever embeds a server may start and stop many."""
    before = open_files()
    with serving(folder, tmp_path) as server:
        assert ask(server.port, "/sources.tar").status == 200
        assert "(deleted)" in str(open_files() - before), "nothing is kept"
    eventually(lambda: open_files() <= before, "a descriptor is left")


def test_a_disk_that_hangs_does_not_keep_a_stop(folder: Folder, monkeypatch) -> None:
    """What is being made is left to whoever makes it."""
    begun, go_on = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        begun.set()
        go_on.wait(WAIT)

    monkeypatch.setattr(kept_sources, "write_sources_tar", hang)
    reader = threading.Thread(target=folder.received)
    reader.start()
    assert begun.wait(WAIT)
    closing = threading.Thread(target=folder.kept.close)
    closing.start()
    closing.join(WAIT / 2)
    hangs = closing.is_alive()
    go_on.set()
    reader.join()
    closing.join()
    assert not hangs
