"""Compilers that misbehave: each is one clear error, nothing of it is left, and the next one works."""

import contextlib
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuzzserver import WebServer, paths
from fuzzserver.errors import Stopped, ZigNotFound, ZigProcessFailed, ZigProtocolVersionMismatch, ZigTimeout
from fuzzserver.fuzz.build import build_tests
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.zig import process
from fuzzserver.zig.compile_client import MAX_STDOUT, ZigCompileClient
from fuzzserver.zig.installation import Zig, find_zig
from fuzzserver.zig.process import ChildGroup
from fuzzserver.zig.shared_builds import SharedBuilds
from fuzzserver.zig.wasm import build_wasm_binary
from tests import support_zig_fake
from tests.support_facts import open_files
from tests.support_time import WAIT, eventually
from tests.support_web import PATIENT, Answer, request
from tests.support_zig_children import processes_naming, python
from tests.support_zig_cli import BUILD_WAIT
from tests.support_zig_fake import compile_calls, fake_zig, let_time_run_out

no_other_zig = support_zig_fake.no_other_zig

WASM = b"\0asm\1\0\0\0"

CROWD = 100


@pytest.fixture
def clean(tmp_path: Path) -> Iterator[None]:
    """Fails the test if a process, a thread, a descriptor or a temporary file is left."""
    threads, files = set(threading.enumerate()), open_files()
    yield
    assert processes_naming(str(tmp_path)) == []
    eventually(lambda: set(threading.enumerate()) <= threads, "a thread lives on")
    assert open_files() <= files
    assert list((tmp_path / "cache").glob("tmp/*")) == []


pytestmark = pytest.mark.usefixtures("clean")


def attempt(zig: Zig, folder: Path) -> Path:
    """Have a compiler make the page's wasm."""
    return build_wasm_binary(ZigCompileClient(zig, folder / "cache"), Path("/lib"), "Debug")


ENDLESS = ["hang", "ignore_sigterm", "family", "endless_stderr", "empty_messages", "hang_without_pipes"]
"""Compilers that do not end."""


@pytest.mark.parametrize("behaviour", ENDLESS)
def test_endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str) -> None:
    """What does not end is ended with all that it has started, when its time is over."""
    # So that it is time that ends it, and not what it writes.
    monkeypatch.setattr("fuzzserver.zig.compile_client.MAX_STDOUT", 1 << 40)
    zig = fake_zig(tmp_path / "bin", compile=behaviour)
    let_time_run_out(monkeypatch, zig)
    with pytest.raises(ZigTimeout, match=r"did not end in 60 s and was ended") as caught:
        attempt(zig, tmp_path)
    assert processes_naming(str(tmp_path)) == []
    assert len(str(caught.value)) < 20_000


BROKEN = {
    "flood_stdout": f"broke its protocol (its messages have more than {MAX_STDOUT} bytes)",
    "absurd_length": "broke its protocol (message with tag 1 claims a body of 4294967295 bytes; the limit is",
    "truncated": "broke its protocol (stream ended after 10 of the 100 bytes of a message body (tag 1))",
    "loop_of_notes": "broke its protocol (error_bundle notes form a loop)",
    "no_result": "child process failed to report result",
    "exit_3": "fake trouble",
    "abort": "terminated unexpectedly (was ended by signal SIGABRT)",
    "result_elsewhere": "bin/fuzzer.wasm', which is outside of its cache '",
    "result_above": "/cache/../bin/fuzzer.wasm', which is outside of its cache '",
    "result_folder_link": "/fuzzer.wasm', which is outside of its cache '",
    "result_link": "/fuzzer.wasm', which is no regular file",
    "result_fifo": "/fuzzer.wasm', which is no regular file",
    "result_folder": "/fuzzer.wasm', which is no regular file",
    "result_missing": "/fuzzer.wasm', which cannot be found: No such file or directory",
    "result_huge": "/fuzzer.wasm' has 1073741824 bytes; the limit is 67108864",
}
"""What compilers do, and what is said of it."""


@pytest.mark.parametrize("behaviour", BROKEN)
def test_broken(tmp_path: Path, behaviour: str) -> None:
    """What a compiler does wrong is told once, and the next one works."""
    zig = fake_zig(tmp_path / "bin", compile=behaviour)
    with pytest.raises(ZigProcessFailed, match=re.escape(BROKEN[behaviour])):
        attempt(zig, tmp_path)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    fake_zig(tmp_path / "bin")
    assert attempt(zig, tmp_path).read_bytes() == WASM


def test_memory_and_disk(tmp_path: Path) -> None:
    """A compiler gets no more memory than it may need, and writes no file that fills the disk."""
    zig = fake_zig(tmp_path / "bin", compile="eat_memory")
    with pytest.raises(ZigProcessFailed, match=r"^took \d+ GiB\n") as caught:
        attempt(zig, tmp_path)
    taken = int(str(caught.value).split()[1])
    assert (
        taken * process.GIB
        <= process.COMPILER_LIMITS[process.resource.RLIMIT_DATA]
        < (taken + 2) * process.GIB
    )
    fake_zig(tmp_path / "bin", compile="fill_the_disk")
    with pytest.raises(ZigProcessFailed, match=r"^wrote 4 GiB\n"):
        attempt(zig, tmp_path)


def test_what_outlives_a_good_compile(tmp_path: Path) -> None:
    """Children that a compiler has left, in another session too, are ended, while others go on."""
    client = ZigCompileClient(fake_zig(tmp_path / "bin", compile="leave_a_family"), tmp_path / "cache")
    with client._children.spawn(python("import time; time.sleep(1000)", "other")) as other:
        assert build_wasm_binary(client, Path("/lib"), "Debug").read_bytes() == WASM
        eventually(lambda: not processes_naming(str(tmp_path / "bin")), "a child lives on")
        assert other.pid in processes_naming("other")


def test_temporary_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a compiler that is ended was making is removed, and nothing of others; after a stop, too."""
    zig = fake_zig(tmp_path / "bin", compile="temporary_folder")
    of_others = tmp_path / "cache" / "tmp" / "fedcba9876543210"
    of_others.mkdir(parents=True)
    with monkeypatch.context() as patch, pytest.raises(ZigTimeout):
        let_time_run_out(patch, zig)
        attempt(zig, tmp_path)
    assert list(of_others.parent.iterdir()) == [of_others]
    client = ZigCompileClient(Zig(zig.path), tmp_path / "cache")
    errors: list[BaseException] = []
    thread = threading.Thread(target=lambda: errors.append(error_of(client)))
    thread.start()
    eventually((of_others.parent / "0123456789abcdef" / "half").exists, "the compiler does not start")
    client.stop()
    thread.join(WAIT)
    assert [type(error) for error in errors] == [Stopped]
    assert list(of_others.parent.iterdir()) == [of_others]
    of_others.rmdir()


def error_of(client: ZigCompileClient) -> BaseException:
    """What a compile ends with."""
    with pytest.raises(Exception) as caught:
        build_wasm_binary(client, Path("/lib"), "Debug")
    return caught.value


@pytest.mark.parametrize("when", ["version", "env"])
def test_stop_while_a_question_is_asked(tmp_path: Path, when: str) -> None:
    """A compiler that does not even answer keeps no one from stopping."""
    zig = fake_zig(tmp_path / "bin", **{when: {"hang": True}})
    client = ZigCompileClient(zig, tmp_path / "cache")
    errors: list[BaseException] = []
    thread = threading.Thread(target=lambda: errors.append(error_of(client)))
    thread.start()
    eventually(lambda: processes_naming(str(tmp_path / "bin")), "nothing is asked")
    client.stop()
    thread.join(WAIT)
    assert [type(error) for error in errors] == [Stopped]


def no_program(zig: Zig) -> None:
    """A file that is executable by its mode only."""
    zig.path.write_bytes(b"\x7fELF but not really")


def no_permission(zig: Zig) -> None:
    """A file that nobody may execute."""
    zig.path.chmod(0o644)


def a_folder(zig: Zig) -> None:
    """A folder."""
    zig.path.unlink()
    zig.path.mkdir()


def nothing(zig: Zig) -> None:
    """Nothing at all."""
    zig.path.unlink()


@pytest.mark.parametrize(
    ("become", "reason"),
    [
        (no_program, "Exec format error"),
        (no_permission, "Permission denied"),
        (a_folder, "Permission denied"),
        (nothing, "No such file or directory"),
    ],
)
def test_replaced_while_we_run(tmp_path: Path, become: Callable[[Zig], None], reason: str) -> None:
    """A compiler that becomes something else is an error with its path, until it is one again."""
    zig = fake_zig(tmp_path / "bin")
    attempt(zig, tmp_path)
    become(zig)
    with pytest.raises(ZigNotFound, match=f"^cannot start Zig compiler '{zig.path}': .*{reason}"):
        attempt(zig, tmp_path)
    if zig.path.is_dir():
        zig.path.rmdir()
    fake_zig(tmp_path / "bin")
    assert attempt(zig, tmp_path).read_bytes() == WASM


def test_upgraded_while_we_run(tmp_path: Path) -> None:
    """A compiler of another version is noticed by the first compile, and used from the second one on."""
    zig = fake_zig(tmp_path / "bin")
    attempt(zig, tmp_path)
    fake_zig(tmp_path / "bin", version={"stdout": "0.14.9\n"}, server_version="0.14.9")
    with pytest.raises(ZigProtocolVersionMismatch, match=r"says '0\.14\.1'.* says '0\.14\.9'"):
        attempt(zig, tmp_path)
    assert attempt(zig, tmp_path).read_bytes() == WASM
    assert zig.version == "0.14.9"


def test_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that look like options, or hold blanks and line breaks, are names."""
    folder = tmp_path / "-o x\n--listen=-"
    folder.mkdir()
    monkeypatch.chdir(folder)
    made = fake_zig(folder)
    made.path.rename(folder / "-o")
    zig = Zig(find_zig("./-o"))
    assert zig.path == folder / "-o"
    Path("--watch x\n.zig").write_text("")
    command = TestCommand.of_root(Path("--watch x\n.zig"))
    client = ZigCompileClient(zig, folder / "--cache")
    built = build_tests(client, command, "normal")
    assert built.path.read_bytes() == WASM
    (call,) = compile_calls(made)
    root = folder / "--watch x\n.zig"
    assert call["argv"] == [
        *("test", f"-Mroot={root}"),
        *("--cache-dir", f"{folder}/.zig-cache", "--global-cache-dir", f"{folder}/--cache"),
        *("--name", "test", "--listen=-"),
    ]


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child is not told of descriptors that only we have, and writes no core file."""
    monkeypatch.setenv("ZIG_PROGRESS", "3")
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("FAULTS_TEST", "yes")
    code = """
import os, resource
input()
names = ["ZIG_PROGRESS", "LISTEN_FDS", "FAULTS_TEST"]
print([os.environ.get(name) for name in names], resource.getrlimit(resource.RLIMIT_CORE))
"""
    with ChildGroup().spawn(python(code)) as child:
        assert child.send(b"\n")  # Only then it must be so: the limit is set while it starts.
        output = b"".join(data for _, data in child.output())
    assert output == b"[None, None, 'yes'] (0, 0)\n"


def test_who_does_not_listen(tmp_path: Path) -> None:
    """A child that reads nothing keeps nobody waiting who tells it something."""
    with ChildGroup().spawn(python("import time; time.sleep(1000)")) as child:
        told = [child.send(bytes(4096)) for _ in range(1000)]
        assert told[0] and not told[-1]


def test_working_folder_that_is_gone(
    tmp_path: Path, client: ZigCompileClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server whose working folder was removed compiles all the same."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert build_wasm_binary(client, paths.lib_dir(), "Debug").read_bytes()[:4] == WASM[:4]


# ------------------------------------------------------------------------------------------ one for all


@contextlib.contextmanager
def serving(zig: Zig, folder: Path) -> Iterator[WebServer]:
    """A server that compiles with ``zig``."""
    with WebServer(zig=zig, cache_dir=folder / "cache", limits=PATIENT) as server:
        yield server


def waiting(server: WebServer) -> int:
    """How many requests wait for a build that somebody else has begun."""
    return len(server._wasm_builds._condition._waiters)  # type: ignore[attr-defined]


class Crowd:
    """Many requests at once, each on a thread of its own."""

    def __init__(self, server: WebServer, *wanted: str) -> None:
        self.answers: list[Answer] = []
        self._threads = [threading.Thread(target=self._ask, args=(server.port, path)) for path in wanted]
        for thread in self._threads:
            thread.start()

    def _ask(self, port: int, path: str) -> None:
        self.answers.append(request(port, path))

    def all(self) -> list[Answer]:
        """The answers, when all are there."""
        for thread in self._threads:
            thread.join(2 * WAIT)
        return self.answers


def test_one_build_for_all(tmp_path: Path) -> None:
    """A hundred requests at once start the compiler once, and all get the same."""
    zig = fake_zig(tmp_path / "bin", compile="wait_for_file")
    with serving(zig, tmp_path) as server:
        crowd = Crowd(server, *["/main.wasm"] * CROWD)
        eventually(lambda: waiting(server) == CROWD - 1, "not all wait")
        (tmp_path / "bin" / "go").touch()
        answers = crowd.all()
        assert {(answer.status, answer.body) for answer in answers} == {(200, WASM)}
        assert len(answers) == CROWD
        assert len(compile_calls(zig)) == 1
        assert request(server.port, "/main.wasm").body == WASM
        assert len(compile_calls(zig)) == 2


def test_one_real_build_for_all(tmp_path: Path, zig: Zig, zig_cache: Path) -> None:
    """The same with a real compiler."""
    counting = tmp_path / "zig"
    counting.write_text(
        f'#!/bin/sh\n[ "$1" = build-exe ] && echo >> "{tmp_path}/starts"\nexec "{zig.path}" "$@"\n'
    )
    counting.chmod(0o755)
    time.sleep(0.1)  # Who asks late gets what is there, if the compiler was not written just before.
    with WebServer(zig=Zig(counting), cache_dir=zig_cache, limits=PATIENT) as server:
        answers = Crowd(server, *["/debug/main.wasm"] * CROWD).all()
    assert len(answers) == CROWD
    assert {answer.status for answer in answers} == {200}
    (body,) = {answer.body for answer in answers}
    assert body[:8] == WASM
    assert (tmp_path / "starts").read_text() == "\n"


def test_clients_that_go_away(tmp_path: Path) -> None:
    """That nobody waits for a build any more harms neither it nor those who ask later."""
    zig = fake_zig(tmp_path / "bin", compile="wait_for_file")
    with serving(zig, tmp_path) as server:
        host = f"127.0.0.1:{server.port}"
        gone = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        for each in gone:
            each.sendall(f"GET /main.wasm HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        eventually(lambda: waiting(server) == len(gone) - 1, "not all wait")
        for each in gone:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            each.close()
        crowd = Crowd(server, *["/main.wasm"] * 2)
        eventually(lambda: waiting(server) == len(gone) + 1, "those who ask later do not wait")
        (tmp_path / "bin" / "go").touch()
        assert [(answer.status, answer.body) for answer in crowd.all()] == [(200, WASM)] * 2
        assert len(compile_calls(zig)) == 1
        eventually(lambda: not processes_naming(str(tmp_path / "bin")), "the compiler lives on")


@pytest.mark.usefixtures("no_other_zig")
def test_one_build_at_a_time(tmp_path: Path) -> None:
    """Different builds take turns."""
    zig = fake_zig(tmp_path / "bin", compile="alone")
    with serving(zig, tmp_path) as server:
        crowd = Crowd(server, *["/main.wasm", "/debug/main.wasm"] * 3)
        eventually(lambda: waiting(server) + len(compile_calls(zig)) >= 6, "not all have asked", BUILD_WAIT)
        (tmp_path / "bin" / "go").touch()
        answers = crowd.all()
    assert [(answer.status, answer.body) for answer in answers] == [(200, WASM)] * 6
    assert {call["argv"][3] for call in compile_calls(zig)} == {"Debug", "ReleaseSmall"}


@pytest.mark.usefixtures("no_other_zig")
def test_one_error_for_all_and_recovery(tmp_path: Path, caplog) -> None:
    """Those who wait for a build that fails are told so; the next request starts a new one."""
    zig = fake_zig(tmp_path / "bin", compile="exit_3")
    with serving(zig, tmp_path) as server:
        answers = Crowd(server, *["/main.wasm"] * 10).all()
        assert {answer.status for answer in answers} == {500}
        assert all(b"exited with error code 3" in answer.body for answer in answers)
        fake_zig(tmp_path / "bin")
        assert request(server.port, "/main.wasm").body == WASM
    assert "Traceback" not in caplog.text


def test_stop_with_many_who_wait(tmp_path: Path) -> None:
    """A stop ends the compiler, and the waiting of all, also of those whose build has not begun."""
    zig = fake_zig(tmp_path / "bin", compile="ignore_sigterm")
    server = WebServer(zig=zig, cache_dir=tmp_path / "cache", limits=PATIENT)
    server.start()
    sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    try:
        for number, each in enumerate(sockets):
            path = "/debug/main.wasm" if number % 2 else "/main.wasm"
            each.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        eventually(lambda: waiting(server) == len(sockets) - 1, "not all wait")
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < WAIT
    finally:
        for each in sockets:
            each.close()
        server.stop()


def test_shared_builds_after_stop(tmp_path: Path) -> None:
    """Who waits is told Stopped though the build goes on; nothing new is begun."""
    builds = SharedBuilds()
    begun, go_on = threading.Event(), threading.Event()
    results: list[object] = []

    def build() -> Path:
        begun.set()
        go_on.wait(WAIT)
        return tmp_path

    def ask(key: str) -> None:
        try:
            results.append(builds.run(key, build))
        except Stopped as error:
            results.append(type(error))

    owner = threading.Thread(target=ask, args=("a",))
    owner.start()
    assert begun.wait(WAIT)
    others = [threading.Thread(target=ask, args=(key,)) for key in ("a", "b", "b")]
    for thread in others:
        thread.start()
    builds.stop()
    for thread in others:
        thread.join(WAIT)
    assert results == [Stopped] * 3
    ask("c")
    go_on.set()
    owner.join(WAIT)
    assert results == [Stopped] * 4 + [tmp_path]
