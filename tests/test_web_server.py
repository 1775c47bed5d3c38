"""The HTTP side of a server, and what embedding promises."""

import http.client
import logging
import os
import socket
import stat
import subprocess
import tarfile
import threading
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from fuzzserver import (
    CoverageMsg,
    EntryPointMsg,
    FuzzRunStep,
    SourcePath,
    TargetStatus,
    TestStatus,
    WebServer,
    paths,
)
from fuzzserver.coverage import queue
from fuzzserver.errors import InputError
from fuzzserver.findings import Finding, FindingStore
from fuzzserver.status import Progress
from fuzzserver.web.bundle import Bundle
from fuzzserver.wire.abi import coverage_file_name
from fuzzserver.zig.installation import Zig
from tests.projects import FuzzedPair
from tests.support_http import exchange
from tests.support_patience import PATIENT
from tests.support_time import WAIT, eventually
from tests.support_web import request, viewer, watch

CACHE_CONTROL = "max-age=0, must-revalidate"


PAGE = paths.lib_dir() / "fuzzer" / "web"


@pytest.mark.parametrize("prefix", ["", "/debug"])
def test_all_scripts_and_style_sheets_of_the_page(web_server: WebServer, prefix: str) -> None:
    """Each is served beside the routes of Zig, as what it is; its sources in Zig are not."""
    names = [path.name for path in PAGE.iterdir()]
    assert {"main.js", "style.css", "main.zig"} <= set(names)
    for name in names:
        answer = request(web_server.port, f"{prefix}/{name}")
        if name.endswith((".js", ".css")):
            content = (PAGE / name).read_bytes()
            if (prefix, name) == ("", "app.js"):
                content = Bundle(PAGE, name).content()
            assert (answer.status, answer.body) == (200, content)
            kind = "text/css" if name.endswith(".css") else "application/javascript"
            assert answer.headers["content-type"] == kind
            assert answer.headers["cache-control"] == CACHE_CONTROL
        else:
            assert (answer.status, answer.body) == (404, b"not found")


@pytest.mark.parametrize(
    "path",
    [
        "/none.js",
        "/none.css",
        "/Style.css",
        "/style.css/",
        "/style.css?x",
        "/style.cssx",
        "/../secret.js",
        "/..%2fsecret.js",
        "/a/secret.js",
        "//style.css",
        "/debugstyle.css",
        "/debug/debug/style.css",
        "/folder.js",
        "/.js",
    ],
)
def test_files_that_are_none_of_the_page(zig: Zig, tmp_path: Path, path: str) -> None:
    """What a path names is a plain file in the page's folder, or nothing."""
    page = tmp_path / "lib" / "fuzzer" / "web"
    (page / "folder.js").mkdir(parents=True)
    for folder in (tmp_path / "lib" / "fuzzer", page / "a"):
        folder.mkdir(exist_ok=True)
        (folder / "secret.js").write_text("secret")
    (page / "style.css").write_text("")
    with WebServer(zig=zig, lib_dir=tmp_path / "lib") as server:
        answer = request(server.port, path)
    assert (answer.status, answer.headers["content-type"], answer.body) == (404, "text/plain", b"not found")


def test_content_security_policy(web_server: WebServer) -> None:
    """Our page may do what it needs, and what it shows is nothing to run."""
    page, data = set(), set()
    for path in ("/", "/debug/", "/main.js", "/style.css"):
        page.add(request(web_server.port, path).headers["content-security-policy"])
    for path in ("/sources.tar", "/findings.json", "/nothing"):
        data.add(request(web_server.port, path).headers["content-security-policy"])
    data.add(request(web_server.port, "/", "POST").headers["content-security-policy"])
    assert page == {
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    }
    assert data == {"default-src 'none'; frame-ancestors 'none'; sandbox"}


def test_other_pages_may_do_more(zig: Zig, tmp_path: Path) -> None:
    """Zig's own page has a style sheet in its HTML and makes HTML of texts."""
    page = tmp_path / "fuzzer" / "web"
    page.mkdir(parents=True)
    (page / "index.html").write_text("<script>1</script>")
    for lib_dir in (tmp_path, zig.lib_dir):
        with WebServer(zig=zig, lib_dir=lib_dir) as server:
            policy = request(server.port, "/").headers["content-security-policy"]
            assert "style-src 'self' 'unsafe-inline'" in policy
            assert "script-src 'self' 'wasm-unsafe-eval';" in policy
            assert "trusted-types" not in policy


@pytest.mark.parametrize("path", ["/", "/main.js", "/sources.tar", "/nothing"])
def test_head_gives_the_head_of_get(web_server: WebServer, path: str) -> None:
    """HEAD has the status and headers of GET, and no body."""
    get, head = request(web_server.port, path), request(web_server.port, path, "HEAD")
    assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "BREW"])
def test_other_methods_are_refused(web_server: WebServer, method: str) -> None:
    """405 says which methods there are."""
    answer = request(web_server.port, "/", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert answer.headers["content-type"] == "text/plain"


def test_keep_alive_serves_several_requests(web_server: WebServer) -> None:
    """One connection, many requests, chunked ones among them."""
    connection = http.client.HTTPConnection("127.0.0.1", web_server.port, timeout=30)
    for path in ("/", "/sources.tar", "/nothing", "/main.js", "/"):
        connection.request("GET", path)
        connection.getresponse().read()
        assert connection.sock is not None, path
    connection.close()


def test_body_of_a_request_is_never_taken_for_a_request(web_server: WebServer) -> None:
    """A body that looks like a request is not answered; what comes after it is."""
    host = b"Host: 127.0.0.1:%d\r\n" % web_server.port
    smuggled = b"GET /smuggled HTTP/1.1\r\n" + host + b"\r\n"
    head = b"GET / HTTP/1.1\r\n" + host + b"Content-Length: %d\r\n\r\n" % len(smuggled)
    answer = exchange(web_server.port, head + smuggled + b"HEAD /style.css HTTP/1.1\r\n" + host + b"\r\n")
    assert answer.count(b"HTTP/1.1 200 ") == answer.count(b"HTTP/1.1 ") == 2


def test_nonsense_gets_a_plain_answer(web_server: WebServer) -> None:
    """What is no HTTP gets 400 and no page of the standard library."""
    answer = exchange(web_server.port, b"GET / HTTP/banana\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"<" not in answer


def old_request(port: int, path: str) -> bytes:
    """A request of a client that knows HTTP/1.0 only."""
    return f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


def test_http_1_0_client_gets_the_tar_until_the_connection_closes(
    web_server: WebServer, tmp_path: Path
) -> None:
    """An old client knows no chunks."""
    (tmp_path / "a.zig").write_text("// a\n")
    web_server.add_step(FuzzRunStep("x", tmp_path, inputs=(SourcePath(str(tmp_path), "a.zig"),)))
    answer = exchange(web_server.port, old_request(web_server.port, "/sources.tar"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert tarfile.open(fileobj=BytesIO(body)).getnames() == [str(tmp_path / "a.zig")]


def test_sources_of_all_steps_are_served_once(web_server: WebServer, debug_pair: FuzzedPair) -> None:
    """Two steps with the same inputs give each file once, and GNU tar reads the archive."""
    web_server.add_step(debug_pair.step)
    web_server.add_step(debug_pair.step)
    body = request(web_server.port, "/sources.tar").body
    listing = subprocess.run(["tar", "-tf", "-"], input=body, capture_output=True, check=True)
    names = listing.stdout.decode().splitlines()
    assert len(names) == len(set(names)) > 500
    assert any(name.endswith("/src/parser.zig") for name in names)


def test_sources_default_to_those_that_the_debug_info_names(
    web_server: WebServer, debug_pair: FuzzedPair
) -> None:
    """Without inputs, the executable itself says what it was made of."""
    web_server.add_step(FuzzRunStep("x", debug_pair.executable))
    body = request(web_server.port, "/sources.tar").body
    names = tarfile.open(fileobj=BytesIO(body)).getnames()
    assert str(debug_pair.step.cache_root.parent / "src" / "parser.zig") in names


def test_sources_wait_for_a_build_that_is_under_way(web_server: WebServer, tmp_path: Path) -> None:
    """A page that is opened during the build gets the sources when they are known."""
    (tmp_path / "a.zig").write_text("// a\n")
    web_server.set_status("building", "Compiling ...")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(request(web_server.port, "/sources.tar")))
    thread.start()
    web_server.add_step(FuzzRunStep("x", tmp_path, inputs=(SourcePath(str(tmp_path), "a.zig"),)))
    assert not answers
    web_server.set_status("fuzzing", "")
    thread.join(WAIT)
    assert b"// a\n" in answers[0].body


def test_head_of_the_sources_waits_for_no_build(web_server: WebServer) -> None:
    """Nobody wants to know what is in it."""
    web_server.set_status("building", "Compiling ...")
    assert request(web_server.port, "/sources.tar", "HEAD").status == 200


def test_those_who_wait_for_sources_are_not_many(zig: Zig, zig_cache: Path, tmp_path: Path) -> None:
    """Clients that have left in the meantime would take all connections."""
    limits = replace(PATIENT, archives=2)
    with WebServer(zig=zig, cache_dir=zig_cache, limits=limits) as server:
        server.set_status("building", "Compiling ...")
        waiting = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(2)]
        for connection in waiting:
            connection.sendall(f"GET /sources.tar HTTP/1.1\r\nHost: localhost:{server.port}\r\n\r\n".encode())
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
        assert request(server.port, "/sources.tar").status == 503
        server.set_status("fuzzing", "")
        for connection in waiting:
            while b"0\r\n\r\n" not in connection.recv(65536):
                pass
            connection.close()
        eventually(lambda: request(server.port, "/sources.tar").status == 200, "the archive is not let go of")


def test_page_files_are_read_at_each_request(zig: Zig, tmp_path: Path) -> None:
    """An edit shows on reload; a page that is missing is an error that says so."""
    page = tmp_path / "fuzzer" / "web" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("one")
    with WebServer(zig=zig, lib_dir=tmp_path) as server:
        assert request(server.port, "/").body == b"one"
        page.write_text("two")
        assert request(server.port, "/").body == b"two"
        page.unlink()
        # A page without these two is none; what else it consists of is its own business.
        for path, name in (("/", "index.html"), ("/main.js", "main.js"), ("/debug/main.js", "main.js")):
            answer = request(server.port, path)
            assert (answer.status, answer.headers["content-type"]) == (500, "text/plain")
            assert str(page.with_name(name)).encode() in answer.body


def test_compile_errors_of_the_page_reach_the_browser(zig: Zig, zig_cache: Path, tmp_path: Path) -> None:
    """The body is the compiler's own message, and the server lives on."""
    source = tmp_path / "fuzzer" / "web" / "main.zig"
    source.parent.mkdir(parents=True)
    source.write_text('export fn broken() void {\n    return "no";\n}\n')
    with WebServer(zig=zig, lib_dir=tmp_path, cache_dir=zig_cache) as server:
        answer = request(server.port, "/debug/main.wasm")
        assert answer.status == 500
        assert answer.headers["content-type"] == "text/plain"
        assert b"main.zig:2:12: error: expected type 'void'" in answer.body
        assert b'    return "no";\n' in answer.body
        assert request(server.port, "/nothing").status == 404


def test_busy_port_is_an_error_that_names_it(web_server: WebServer, zig: Zig) -> None:
    """The message has host and port."""
    with pytest.raises(InputError, match=rf"127\.0\.0\.1 port {web_server.port}: Address already in use"):
        WebServer(zig=zig, listen_address=("127.0.0.1", web_server.port)).start()


def test_ipv6_address_is_written_in_brackets(zig: Zig) -> None:
    """The URL is one that a browser takes."""
    with WebServer(zig=zig, listen_address=("::1", 0)) as server:
        assert server.url == f"http://[::1]:{server.port}/"
        connection = http.client.HTTPConnection("::1", server.port, timeout=30)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()


def test_two_servers_in_one_process_do_not_know_each_other(
    zig: Zig, debug_pair: FuzzedPair, safe_pair: FuzzedPair
) -> None:
    """Each shows its own executable."""
    with WebServer(zig=zig) as one, WebServer(zig=zig) as two:
        one.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
        two.post(CoverageMsg(safe_pair.coverage_id, safe_pair.step))
        with viewer(one.port) as first, viewer(two.port) as second:
            tables = [watch(each, "source_index").tables for each in (first, second)]
    assert tables[0] != tables[1]


def children() -> set[str]:
    """The processes that this one has started and not waited for."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_fifty_starts_and_stops_leave_nothing(zig: Zig, debug_pair: FuzzedPair, nothing_left: None) -> None:
    """No thread, file descriptor or child remains, whatever the clients are doing."""
    before = children()  # A browser, say, of tests that ran in this process.
    for round_number in range(50):
        server = WebServer(zig=zig)
        server.start()
        server.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
        idle = socket.create_connection(("127.0.0.1", server.port))
        with viewer(server.port) as connection:
            if round_number % 5 == 0:
                watch(connection, "source_index")
            server.stop()
        server.stop()
        idle.close()
    assert children() <= before


def stopped_while_it_compiles(zig: Zig, folder: Path) -> bytes:
    """What a client is answered who waits for the page when a server stops: its compiler never ends."""
    fake = folder / "zig"
    fake.write_text(f'#!/bin/sh\n[ "$1" = build-exe ] && exec sleep 600\nexec "{zig.path}" "$@"\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    answers = []
    with WebServer(zig=Zig(fake), cache_dir=folder) as server:
        thread = threading.Thread(
            target=lambda: answers.append(exchange(server.port, old_request(server.port, "/main.wasm")))
        )
        thread.start()
        eventually(lambda: server._page_compiler._client._children._children, "nothing is compiled")
    thread.join(WAIT)
    return answers[0]


def test_stop_ends_a_compile_that_a_request_waits_for(zig: Zig, tmp_path: Path) -> None:
    """The server does not wait for the compiler."""
    answer = stopped_while_it_compiles(zig, tmp_path)
    assert answer == b"" or b" 500 " in answer


def test_stop_is_no_error_of_a_compile(zig: Zig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Ctrl-C while the page is compiled for the first time is not worth a line."""
    stopped_while_it_compiles(zig, tmp_path)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_two_slashes_are_another_path_than_one(web_server: WebServer) -> None:
    """The whole target counts, as in Zig's server."""
    assert exchange(web_server.port, old_request(web_server.port, "//")).split()[1] == b"404"


def test_error_about_a_path_that_is_no_text(zig: Zig, tmp_path: Path) -> None:
    """Even that is answered, in text."""
    with WebServer(zig=zig, lib_dir=tmp_path / os.fsdecode(b"\xff")) as server:
        answer = request(server.port, "/")
    assert answer.status == 500
    assert b"\\udcff" in answer.body


def test_executable_that_is_gone_gives_no_sources(web_server: WebServer, tmp_path: Path) -> None:
    """The archive is empty; the reason is in the log."""
    web_server.add_step(FuzzRunStep("x", tmp_path / "gone"))
    answer = request(web_server.port, "/sources.tar")
    assert (answer.status, answer.body) == (200, b"")


def test_client_that_resets_is_no_error(web_server: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    """Connections that end in the middle of a request are not worth a line."""
    for _ in range(20):
        connection = socket.create_connection(("127.0.0.1", web_server.port))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.sendall(b"GET / HT")
        connection.close()
    assert request(web_server.port, "/").status == 200
    assert web_server._http_server is not None
    connections = web_server._http_server._connections
    eventually(lambda: not connections, "connections are left")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_status_of_a_driver_that_says_nothing(web_server: WebServer, debug_pair: FuzzedPair) -> None:
    """Once there is coverage, the server does not claim to wait for it."""
    assert web_server.status_json()["state"] == "waiting"
    web_server.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
    with viewer(web_server.port) as connection:
        watch(connection, "source_index")
    assert web_server.status_json() == {"state": "serving", "text": "", "targets": [], "findings": []}


def test_problems_are_shown_once_and_not_for_ever(web_server: WebServer) -> None:
    """A status of any length would be sent to every client again and again."""
    for number in range(100):
        web_server._report_problem(f"problem {number % 50}")
        web_server._report_problem("the same")
    web_server.set_status("fuzzing", "Fuzzing.")
    lines = web_server.status_json()["text"].splitlines()
    assert lines[0] == "Fuzzing."
    assert len(lines) == 11
    assert lines.count("the same") <= 1


def test_errors_of_the_coverage_thread_are_shown_in_the_status(
    web_server: WebServer, debug_pair: FuzzedPair, tmp_path: Path
) -> None:
    """A coverage file that is missing is told to whoever looks at the page."""
    step = FuzzRunStep("x", debug_pair.executable, cache_root=tmp_path)
    web_server.post(CoverageMsg(1, step))
    web_server.post(EntryPointMsg(1, 0x1000))
    with viewer(web_server.port, subprotocols=["fuzzserver"]) as connection:
        while "cannot open coverage file" not in str(connection.recv(WAIT)):
            pass


def details(web_server: WebServer, pair: FuzzedPair | None = None) -> dict:
    """What a client is told that is shown the map of ``pair``."""
    coverage_map = None if pair is None else web_server.coverage_files.get(pair.coverage_id)
    assert (coverage_map is None) == (pair is None)
    return web_server.details_json(coverage_map)


def test_details_without_a_map(zig: Zig) -> None:
    """When the server was started is known from the beginning."""
    before = time.time()
    web_server = WebServer(zig=zig)
    shown = details(web_server)
    assert before <= shown.pop("started") <= time.time()
    assert shown == {"progress": None, "map": None, "marks": []}


def test_progress(web_server: WebServer, debug_pair: FuzzedPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """How far a build is, and then how far the debug info is read, of which the coverage thread tells."""
    seen, is_seen = [], threading.Event()
    prepare = queue.prepare_tables
    monkeypatch.setattr(queue, "prepare_tables", lambda *args: is_seen.wait(WAIT) and prepare(*args))
    web_server.set_progress(Progress("Compiling the tests of a ...", 1, 2))
    assert details(web_server)["progress"] == {"text": "Compiling the tests of a ...", "done": 1, "total": 2}
    web_server.set_progress(Progress("Finding out ..."))
    assert details(web_server)["progress"] == {"text": "Finding out ...", "done": None, "total": None}
    web_server.set_progress(None)
    web_server.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
    eventually(lambda: details(web_server)["progress"], "nothing is told")
    while web_server.coverage_files.first() is None:
        seen.append(details(web_server)["progress"])
        is_seen.set()
    told = [progress for progress in seen if progress is not None]
    assert {progress["text"] for progress in told} == {f"Reading the debug info of {debug_pair.step.name}"}
    eventually(lambda: details(web_server)["progress"] is None, "it is never done")


def wait_for_map(web_server: WebServer, pair: FuzzedPair, key: str = "") -> None:
    """Have a map shown, with a history that nobody keeps."""
    step = FuzzRunStep(pair.step.name, pair.executable, coverage_file=pair.coverage_file, key=key)
    web_server.post(CoverageMsg(pair.coverage_id, step))
    eventually(lambda: web_server.coverage_files.get(pair.coverage_id), "there is no map")


def test_map(web_server: WebServer, debug_pair: FuzzedPair) -> None:
    """What the map is one of, and that the executable is still the same."""
    wait_for_map(web_server, debug_pair)
    shown = details(web_server, debug_pair)["map"]
    coverage_map = web_server.coverage_files.get(debug_pair.coverage_id)
    assert coverage_map is not None
    assert shown == {
        "index": coverage_map.index_id,
        "executable": str(debug_pair.executable),
        "executable_time": pytest.approx(debug_pair.executable.stat().st_mtime),
        "replaced": False,
        "fault": None,
        "has_debug_info": True,
        "zig_version": "0.14.1",
        "oddities": [],
    }


def marks(web_server: WebServer, pair: FuzzedPair) -> list[tuple[str, str]]:
    """Kind and text of each mark of a map, in the order of their times."""
    found = details(web_server, pair)["marks"]
    assert [mark["time"] for mark in found] == sorted(mark["time"] for mark in found)
    return [(mark["kind"], mark["text"]) for mark in found if mark["kind"] not in ("start", "build")]


def told(pair: FuzzedPair, *tests: TestStatus, key: str = "a", name: str = "src/main.zig") -> TargetStatus:
    """A target of which this is the map."""
    return TargetStatus(key, name, "fuzzing", id=coverage_file_name(pair.coverage_id), tests=tests)


def test_restarts_are_marked(web_server: WebServer, debug_pair: FuzzedPair, safe_pair: FuzzedPair) -> None:
    """Each restart of a test, once, in the history of the map that it belongs to."""
    wait_for_map(web_server, debug_pair, "a")
    wait_for_map(web_server, safe_pair, "b")
    begun = time.time()
    web_server.set_target(told(debug_pair, TestStatus("t", "fuzzing"), TestStatus("u", "fuzzing")))
    crashed = TestStatus("t", "crashed", "Worker exited with code 3.\nThe next worker starts in 0.5 s.")
    web_server.set_target(told(debug_pair, crashed, TestStatus("u", "fuzzing")))
    assert marks(web_server, debug_pair) == []
    for runs in (1, 2):
        again = replace(crashed, state="restarting", restarts=1, n_runs=runs)
        web_server.set_target(told(debug_pair, again, TestStatus("u", "fuzzing")))
    assert marks(web_server, debug_pair) == [("restart", "t: Worker exited with code 3.")]
    mark = details(web_server, debug_pair)["marks"][-1]
    assert begun <= mark["time"] <= time.time()
    web_server.set_target(
        told(debug_pair, TestStatus("t", "fuzzing", restarts=1), TestStatus("u", "fuzzing", restarts=2))
    )
    assert marks(web_server, debug_pair) == [("restart", "t: Worker exited with code 3."), ("restart", "u")]
    assert marks(web_server, safe_pair) == []
    # A target without a map, or with one that is not there, has no history to mark.
    for name in (None, "0000000000000000", "nonsense"):
        for restarts in (0, 1):
            test = TestStatus("v", "restarting", restarts=restarts)
            web_server.set_target(TargetStatus("c", "c", "fuzzing", id=name, tests=(test,)))


def test_findings_are_marked(
    web_server: WebServer, debug_pair: FuzzedPair, safe_pair: FuzzedPair, tmp_path: Path
) -> None:
    """Those of the target that has the map, also if it has a newer one by now, when they came first."""
    wait_for_map(web_server, debug_pair, "a")
    wait_for_map(web_server, safe_pair, "b")
    store = FindingStore(tmp_path, web_server.notify)
    web_server.set_findings(store)
    for number, target in enumerate(("src/main.zig", "src/tool.zig", "src/main.zig")):
        moment = time.time() + 1000 + number
        store.add(Finding(f"{number}", "panic", f"boom {number}", target, "t", moment, moment), b"")
    store.add(replace(store.all()[0], last_time=time.time() + 5000), b"")
    assert marks(web_server, debug_pair) == []
    web_server.set_target(told(debug_pair))
    web_server.set_target(told(safe_pair, key="b", name="src/tool.zig"))
    assert marks(web_server, debug_pair) == [("finding", "panic: boom 0"), ("finding", "panic: boom 2")]
    assert marks(web_server, safe_pair) == [("finding", "panic: boom 1")]
    newer = replace(
        told(debug_pair), id="0000000000000000", earlier=(coverage_file_name(debug_pair.coverage_id),)
    )
    web_server.set_target(newer)
    assert len(marks(web_server, debug_pair)) == 2
    assert details(web_server, debug_pair)["marks"][-1]["time"] == store.all()[-1].first_time


def test_marks_are_bounded(web_server: WebServer, debug_pair: FuzzedPair, tmp_path: Path) -> None:
    """The last ones are sent, of whichever kind."""
    wait_for_map(web_server, debug_pair, "a")
    store = FindingStore(tmp_path)
    web_server.set_findings(store)
    store._findings = {
        str(number): Finding(
            str(number), "panic", str(number), "src/main.zig", "t", float(number), float(number)
        )
        for number in range(600)
    }
    web_server.set_target(told(debug_pair))
    found = details(web_server, debug_pair)["marks"]
    assert len(found) == 500
    assert (found[-1]["kind"], found[-2]["text"], found[0]["text"]) == ("start", "panic: 599", "panic: 101")
