"""The HTTP side of a server, and what embedding promises."""

import http.client
import logging
import os
import socket
import stat
import subprocess
import tarfile
import threading
from io import BytesIO
from pathlib import Path

import pytest

from fuzzserver import CoverageMsg, EntryPointMsg, FuzzRunStep, SourcePath, WebServer
from fuzzserver.errors import InputError
from fuzzserver.zig.installation import Zig
from tests.projects import FuzzedPair
from tests.support_web import raw, request, viewer, watch

CACHE_CONTROL = "max-age=0, must-revalidate"


@pytest.mark.parametrize("path", ["/style.css", "/debug/style.css"])
def test_style_sheet_is_served_beside_the_routes_of_zig(web_server: WebServer, path: str) -> None:
    """The one route that is ours."""
    answer = request(web_server.port, path)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/css")
    assert answer.headers["cache-control"] == CACHE_CONTROL


@pytest.mark.parametrize("path", ["/", "/main.js", "/sources.tar", "/nothing"])
def test_head_gives_the_head_of_get(web_server: WebServer, path: str) -> None:
    """HEAD has the status and headers of GET, and no body."""
    get, head = request(web_server.port, path), request(web_server.port, path, "HEAD")
    assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
def test_other_methods_are_refused(web_server: WebServer, method: str) -> None:
    """405 says which methods there are."""
    answer = request(web_server.port, "/", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
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
    """A body that looks like a request is not answered."""
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
    answer = raw(web_server.port, head + smuggled)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer


def test_nonsense_gets_a_plain_answer(web_server: WebServer) -> None:
    """What is no HTTP gets 400 and no page of the standard library."""
    answer = raw(web_server.port, b"GET / HTTP/banana\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"<" not in answer


def test_http_1_0_client_gets_the_tar_until_the_connection_closes(
    web_server: WebServer, tmp_path: Path
) -> None:
    """An old client knows no chunks."""
    (tmp_path / "a.zig").write_text("// a\n")
    web_server.add_step(FuzzRunStep("x", tmp_path, inputs=(SourcePath(str(tmp_path), "a.zig"),)))
    answer = raw(web_server.port, b"GET /sources.tar HTTP/1.0\r\n\r\n")
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
    thread.join(30)
    assert b"// a\n" in answers[0].body


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
        answer = request(server.port, "/")
        assert (answer.status, answer.headers["content-type"]) == (500, "text/plain")
        assert str(page).encode() in answer.body


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


def test_simultaneous_requests_share_one_compile(
    zig: Zig, zig_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten browsers that open the page at once start the compiler once."""
    started, go_on = threading.Semaphore(0), threading.Event()
    builds = []

    def build(_client: object, lib_dir: Path, _mode: str) -> Path:
        builds.append(lib_dir)
        started.release()
        go_on.wait(30)
        return lib_dir / "fuzzer" / "web" / "main.js"

    monkeypatch.setattr("fuzzserver.webserver.build_wasm_binary", build)
    with WebServer(zig=zig, cache_dir=zig_cache) as server:
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(request(server.port, "/main.wasm")))
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        assert started.acquire(timeout=30)
        while sum(name.name.startswith("http-") for name in threading.enumerate()) < 10:
            pass
        go_on.set()
        for thread in threads:
            thread.join(30)
        # A request that came after the first run had ended starts another one.
        assert len(answers) == 10
        assert len(builds) < 3
        assert {answer.headers["content-type"] for answer in answers} == {"application/wasm"}


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


def test_fifty_starts_and_stops_leave_nothing(zig: Zig, debug_pair: FuzzedPair, nothing_left: None) -> None:
    """No thread, file descriptor or child remains, whatever the clients are doing."""
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
    assert Path(f"/proc/self/task/{os.getpid()}/children").read_text() == ""


def test_stop_ends_a_compile_that_a_request_waits_for(zig: Zig, tmp_path: Path) -> None:
    """The server does not wait for the compiler."""
    fake = tmp_path / "zig"
    fake.write_text(f'#!/bin/sh\n[ "$1" = build-exe ] && exec sleep 600\nexec "{zig.path}" "$@"\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    server = WebServer(zig=Zig(fake), cache_dir=tmp_path)
    server.start()
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(raw(server.port, b"GET /main.wasm HTTP/1.0\r\n\r\n"))
    )
    thread.start()
    while not server._compile_client._children._children:
        pass
    server.stop()
    thread.join(10)
    assert answers[0] == b"" or b" 500 " in answers[0]


def test_stop_is_no_error_of_a_compile(zig: Zig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Ctrl-C while the page is compiled for the first time is not worth a line."""
    with WebServer(zig=zig, cache_dir=tmp_path) as server:
        ask = threading.Thread(target=lambda: raw(server.port, b"GET /main.wasm HTTP/1.0\r\n\r\n"))
        ask.start()
        while not server._compile_client._children._children:
            pass
    ask.join(10)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_two_slashes_are_another_path_than_one(web_server: WebServer) -> None:
    """The whole target counts, as in Zig's server."""
    assert raw(web_server.port, b"GET // HTTP/1.0\r\n\r\n").split()[1] == b"404"


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
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_status_of_a_driver_that_says_nothing(web_server: WebServer, debug_pair: FuzzedPair) -> None:
    """Once there is coverage, the server does not claim to wait for it."""
    assert web_server._status_json()["state"] == "waiting"
    web_server.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
    with viewer(web_server.port) as connection:
        watch(connection, "source_index")
    assert web_server._status_json() == {"state": "serving", "text": "", "targets": [], "findings": []}


def test_problems_are_shown_once_and_not_for_ever(web_server: WebServer) -> None:
    """A status of any length would be sent to every client again and again."""
    for number in range(100):
        web_server._report(f"problem {number % 50}")
        web_server._report("the same")
    web_server.set_status("fuzzing", "Fuzzing.")
    lines = web_server._status_json()["text"].splitlines()
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
        while "cannot open coverage file" not in str(connection.recv(30)):
            pass
