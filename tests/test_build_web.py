"""The protocol of Zig 0.15's and later pages, as viewers get it from a running server."""

import logging
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from fuzzserver import WebServer
from fuzzserver.access import Access
from fuzzserver.status import Progress, TargetStatus, TestStatus
from fuzzserver.web.build_web import BuildWebTold
from fuzzserver.web.response import Policy
from fuzzserver.web.session import Moment
from fuzzserver.wire.abi import CoverageUpdateHeader, SourceIndexHeader
from fuzzserver.wire.build_web_abi import BuildStatus, StepStatus, StepUpdate, ToClientTag
from fuzzserver.zig.installation import Zig
from tests.support_puppet import Puppet
from tests.support_time import WAIT, eventually
from tests.support_web import request, viewer, watch
from tests.support_zig_fake import compile_calls, fake_zig

PATH = "/build-web/"
HELLO = struct.Struct("<BBHqI")
FILES = {"index.html": "text/html", "main.js": "application/javascript", "time_report.css": "text/css"}


@pytest.fixture
def lib_dir(tmp_path: Path) -> Path:
    """The ``lib`` of a Zig 0.17 that can do nothing but compile its page."""
    zig = fake_zig(tmp_path / "zig", version={"stdout": "0.17.0\n"}, server_version="0.17.0")
    write_page(zig.lib_dir)
    return zig.lib_dir


def write_page(lib_dir: Path) -> None:
    """Some files, each of which holds its name."""
    page = lib_dir / "build-web"
    page.mkdir(parents=True)
    for name in FILES:
        (page / name).write_text(name)


@pytest.fixture
def server(lib_dir: Path, tmp_path: Path) -> Iterator[WebServer]:
    """A server that has such a page."""
    with WebServer(lib_dir=lib_dir, cache_dir=tmp_path / "cache") as running:
        yield running


class Steps:
    """What a viewer knows of the steps, from what it was told."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.names: list[str] = []
        self.statuses: list[StepStatus] = []
        self.status = BuildStatus.IDLE
        self.tags: list[ToClientTag] = []

    def take(self) -> bytes:
        """Take in one message, and give it."""
        message = self._connection.recv(WAIT)
        assert isinstance(message, bytes)
        self.tags.append(ToClientTag(message[0]))
        match self.tags[-1]:
            case ToClientTag.HELLO:
                self._begin(message)
            case ToClientTag.STATUS_UPDATE:
                self.status = BuildStatus(message[1])
            case ToClientTag.STEP_UPDATE:
                _, index, status = StepUpdate.LAYOUT.unpack(message)
                self.statuses[index] = StepStatus(status)
        return message

    def _begin(self, message: bytes) -> None:
        _, status, _, self.time, count = HELLO.unpack_from(message)
        self.status = BuildStatus(status)
        rest = message[HELLO.size :]
        lengths, rest = struct.unpack_from(f"<{count}I", rest), rest[4 * count :]
        self.names = []
        for length in lengths:
            self.names.append(rest[:length].decode())
            rest = rest[length:]
        assert len(rest) == (count + 3) // 4
        self.statuses = [StepStatus(rest[i // 4] >> 2 * (i % 4) & 3) for i in range(count)]

    def take_until(self, *tags: ToClientTag) -> bytes:
        """Take in what comes until it is one of these."""
        while True:
            message = self.take()
            if message[0] in tags:
                return message


def target(state: str, *tests: TestStatus) -> TargetStatus:
    """The one target."""
    return TargetStatus("key", "main", state, tests=tests)


def test_steps_are_targets_and_tests(server: WebServer) -> None:
    """At first all of them, and then what becomes of each; when there are others, all again."""
    server.set_status("building", "")
    server.set_target(target("building"))
    with viewer(server.port, PATH) as connection:
        steps = Steps(connection)
        steps.take()
        assert (steps.status, steps.names, steps.statuses) == (
            BuildStatus.RUNNING,
            ["compile main"],
            [StepStatus.WIP],
        )
        assert 0 < steps.time <= server.now()
        tests = [TestStatus(name, "waiting") for name in ("a", "b", "c", "d")]
        server.set_target(target("fuzzing", *tests))
        steps.take_until(ToClientTag.HELLO)
        assert steps.names == ["compile main", "fuzz a", "fuzz b", "fuzz c", "fuzz d"]
        assert steps.statuses == [StepStatus.SUCCESS] + [StepStatus.PENDING] * 4
        server.set_status("fuzzing", "")
        steps.take_until(ToClientTag.STATUS_UPDATE)
        assert steps.status == BuildStatus.IDLE
        tests = [
            TestStatus("a", "fuzzing", n_runs=5),
            TestStatus("b", "crashed"),
            TestStatus("c", "fuzzing", findings=1),
            TestStatus("d", "stopped"),
        ]
        server.set_target(target("fuzzing", *tests))
        for _ in tests:
            steps.take_until(ToClientTag.STEP_UPDATE)
        failure = StepStatus.FAILURE
        assert steps.statuses == [StepStatus.SUCCESS, StepStatus.WIP, failure, failure, StepStatus.SUCCESS]
        server.set_progress(Progress("building again"))
        steps.take_until(ToClientTag.STATUS_UPDATE)
        assert steps.status == BuildStatus.RUNNING
    assert steps.tags.count(ToClientTag.HELLO) == 2


@pytest.mark.parametrize(
    ("state", "tests", "status"),
    [
        ("failed", (), StepStatus.FAILURE),
        ("failed", (TestStatus("a", "failed"),), StepStatus.SUCCESS),
        ("never started", (), StepStatus.SUCCESS),
    ],
)
def test_compiles(server: WebServer, state: str, tests: tuple[TestStatus, ...], status: StepStatus) -> None:
    """What was built was built, whatever its tests do."""
    server.set_target(target(state, *tests))
    with viewer(server.port, PATH) as connection:
        steps = Steps(connection)
        steps.take()
    assert steps.statuses[0] == status


def test_coverage_is_that_of_other_viewers(server: WebServer, tmp_path: Path) -> None:
    """The same bytes under other tags, and how many runs there were before."""
    puppet = Puppet(tmp_path)
    puppet.cover(1, runs=77)
    puppet.show(server, 2)
    with viewer(server.port) as old, viewer(server.port, PATH) as new:
        known = watch(old)
        steps = Steps(new)
        hello, index, update, entry_points = (steps.take() for _ in range(4))
        size = SourceIndexHeader.LAYOUT.size
        assert hello[0] == 0 and hello[1] == BuildStatus.IDLE
        assert index[0] == 3 and index[1:size] == known.source_index[1:size]
        assert index[size : size + 8] == struct.pack("<Q", 77)
        assert index[size + 8 :] == known.source_index[size:]
        assert update == b"\4" + known.coverage_update[1:]
        assert entry_points == b"\5" + known.entry_points[1:]
        puppet.cover(0, runs=3)
        assert CoverageUpdateHeader.LAYOUT.unpack_from(steps.take())[1] == 80
        server.set_target(target("fuzzing", TestStatus("a", "fuzzing")))
        steps.take_until(ToClientTag.HELLO)
        # The page has forgotten the coverage along with the steps.
        assert [steps.take()[0] for _ in range(3)] == [3, 4, 5]


def test_pages_of_zig_0_15_do_not_know_earlier_runs(tmp_path: Path) -> None:
    """Their index is that of Zig 0.14 but for the tag."""
    lib_dir = fake_zig(tmp_path / "zig", version={"stdout": "0.15.2\n"}).lib_dir
    write_page(lib_dir)
    with WebServer(lib_dir=lib_dir, cache_dir=tmp_path / "cache") as server:
        Puppet(tmp_path).show(server)
        with viewer(server.port) as old, viewer(server.port, "/debug/build-web/") as new:
            known = watch(old, "source_index").source_index
            assert Steps(new).take_until(ToClientTag.FUZZ_SOURCE_INDEX) == b"\3" + known[1:]


@pytest.mark.parametrize("path", ["/", "/build-web", "/build-web/main.js", "/other/build-web/"])
def test_other_paths_speak_as_ever(server: WebServer, path: str) -> None:
    """Zig 0.14's page gets what it knows, and so does ours wherever it is."""
    with viewer(server.port, path) as connection:
        assert len(connection.recv(WAIT)) == 9
    with viewer(server.port, PATH, subprotocols=["fuzzserver"]) as connection:
        assert len(connection.recv(WAIT)) == 9


def test_without_such_a_page_nothing_has_changed(web_server: WebServer) -> None:
    """There is nothing at its path, and viewers there are as any other."""
    for path in ("/build-web", PATH, f"{PATH}index.html", f"{PATH}main.wasm", "/debug/build-web/"):
        assert request(web_server.port, path).status == 404
    assert web_server.build_web_url is None
    with viewer(web_server.port, PATH) as connection:
        assert len(connection.recv(WAIT)) == 9


def test_many_are_told_what_was_made_once(server: WebServer, tmp_path: Path) -> None:
    """As of other viewers: the hub sends it to those who have read all that came before."""
    Puppet(tmp_path).show(server)
    assert server._http_server is not None
    moment = Moment(server._http_server.routes.site)
    first, second = (moment.speech(BuildWebTold(None, True)) for _ in range(2))
    assert first is second and first.data
    assert moment.speech(first.told).data == []


# ---------------------------------------------------------------------- rebuilding


@pytest.mark.parametrize("message", [b"\0", b"\0and more", [b"\0", b"x"]])
def test_rebuild(server: WebServer, message: bytes | list[bytes]) -> None:
    """One request, however it is sent, is one call."""
    asked = threading.Semaphore(0)
    server.set_rebuild(asked.release)
    with viewer(server.port, PATH) as connection:
        connection.send(message)
        assert asked.acquire(timeout=WAIT)
        connection.ping().wait(WAIT)
        assert not asked.acquire(blocking=False)


def test_what_asks_for_nothing(server: WebServer) -> None:
    """Other messages, the rest of one, texts, and viewers who speak another protocol."""
    asked = threading.Semaphore(0)
    server.set_rebuild(asked.release)
    with viewer(server.port, PATH) as connection, viewer(server.port) as other:
        for message in (b"\1", b"", "\0", [b"\1", b"\0"], [b"", b"\0"]):
            connection.send(message)
        other.send(b"\0")
        for each in (connection, other):
            assert each.ping().wait(WAIT)
        assert not asked.acquire(blocking=False)
        connection.send(b"\0")
        assert asked.acquire(timeout=WAIT)


def test_rebuild_where_nobody_builds(server: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    """It is refused in the log, and the viewer goes on."""
    server.set_rebuild(lambda: pytest.fail("it is over"))
    server.set_rebuild(None)
    with caplog.at_level(logging.WARNING, "fuzzserver"), viewer(server.port, PATH) as connection:
        connection.send(b"\0")
        eventually(lambda: caplog.messages, "nothing is logged")
        assert connection.ping().wait(WAIT)
    assert caplog.messages == [
        "a viewer wants a rebuild: nobody builds here; 'fuzzserver run' does, while it fuzzes"
    ]


def test_other_pages_cannot_ask(server: WebServer) -> None:
    """They do not come in."""
    server.set_rebuild(lambda: pytest.fail("who asks?"))
    with (
        pytest.raises(InvalidStatus, match="403"),
        viewer(server.port, PATH, origin="http://localhost:1") as connection,
    ):
        connection.send(b"\0")


# ---------------------------------------------------------------------- the page


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("folder", [PATH, "/debug/build-web/"])
def test_files(server: WebServer, folder: str, name: str) -> None:
    """They are those of the ``lib``, and the page may do what it needs; ours is where it always was."""
    answer = request(server.port, folder + name.replace("index.html", ""))
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, FILES[name], name.encode())
    assert answer.headers["content-security-policy"] == Policy.BUILD_WEB_PAGE
    ours = request(server.port, "/")
    assert ours.headers["content-security-policy"].startswith(Policy.OWN_PAGE)
    assert ours.body != name.encode()


def test_policy() -> None:
    """Its links have scripts in them, and it styles in its HTML; all else is as strict as of ours."""
    directives = dict(each.strip().partition(" ")[::2] for each in Policy.BUILD_WEB_PAGE.split(";"))
    assert directives["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert directives["script-src-attr"] == "'unsafe-inline'"
    assert directives["default-src"] == "'none'"


@pytest.mark.parametrize(
    "path", ["none.js", "abi.zig", "../fuzzer", "..%2fzig", "index.html", "targets.json"]
)
def test_what_is_not_there(server: WebServer, path: str) -> None:
    """Only what the page asks for."""
    assert request(server.port, PATH + path).status == 404


def test_without_its_slash(server: WebServer) -> None:
    """What the page asks for by relative names would be ours."""
    for path in ("/build-web", "/debug/build-web"):
        answer = request(server.port, path)
        assert (answer.status, answer.headers["location"]) == (307, "build-web/")


def test_wasm_is_compiled_by_the_compiler_beside_it(server: WebServer, lib_dir: Path) -> None:
    """No other can compile it; what is compiled is the page, with the library that it belongs to."""
    answer = request(server.port, f"{PATH}main.wasm")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/wasm")
    (call,) = compile_calls(Zig(lib_dir.parent / "zig"))
    argv = call["argv"]
    assert f"-Mroot={lib_dir}/build-web/main.zig" in argv
    assert f"-MWalk={lib_dir}/docs/wasm/Walk.zig" in argv
    assert argv[argv.index("--zig-lib-dir") + 1] == str(lib_dir)
    assert argv[argv.index("--name") + 1] == "build-web"
    assert argv[argv.index("-O") + 1] == "ReleaseSmall"


def test_token(lib_dir: Path, tmp_path: Path) -> None:
    """The page knows of none: the browser has it as a cookie, from the address that was printed."""
    with WebServer(lib_dir=lib_dir, cache_dir=tmp_path / "cache", access=Access(token=True)) as server:
        assert request(server.port, PATH).status == 401
        url = server.build_web_url
        assert url == f"http://127.0.0.1:{server.port}{PATH}?token={server.token}"
        answer = request(server.port, url.partition(str(server.port))[2])
        assert answer.status == 200
        cookie = answer.headers["set-cookie"].partition(";")[0]
        assert request(server.port, f"{PATH}main.js", cookie=cookie).status == 200
        with viewer(server.port, PATH, additional_headers={"cookie": cookie}) as connection:
            assert connection.recv(WAIT)[0] == ToClientTag.HELLO
