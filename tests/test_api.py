"""``/api/1`` and ``/report``: what other programs are told, and how many may have it made at once."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from fuzzserver.access import Limits
from fuzzserver.corpus import Corpus
from fuzzserver.errors import InputError
from fuzzserver.findings import FindingStore
from fuzzserver.report import formats
from fuzzserver.report.formats import FORMATS, HTML, Format
from fuzzserver.report.json_form import report_from_json
from fuzzserver.report.model import Report
from fuzzserver.status import TargetStatus, TestStatus
from fuzzserver.version import __version__
from fuzzserver.web import server as http_server
from fuzzserver.web.api import FILE_NAMES, ROUTES
from fuzzserver.webserver import WebServer
from fuzzserver.zig.installation import Zig
from tests.support_puppet import Puppet, finding
from tests.support_time import WAIT, eventually
from tests.support_web import Answer, request

INPUT = b"<script>\0\xff"


@pytest.fixture
def shown(web_server: WebServer, tmp_path: Path) -> Puppet:
    """A target of which three points are covered, with two tests, a finding and a corpus."""
    puppet = Puppet(tmp_path).show(web_server)
    puppet.cover(*puppet.find("src/parser.zig", function="sum")[:3], runs=77)
    tests = (
        TestStatus("a", "fuzzing", n_runs=70, restarts=2, findings=1),
        TestStatus("b", "waiting", n_runs=None),
    )
    web_server.set_target(puppet.target(tests=tests, earlier=("00000000000000aa",)))
    web_server.set_target(TargetStatus("other", "src/other.zig", "failed", "no such file"))
    store = FindingStore(tmp_path / "findings")
    store.add(finding(1, stack="a stack"), INPUT)
    web_server.set_findings(store)
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "3").write_bytes(b"input")
    web_server.add_corpus(Corpus(tmp_path / "inputs", "src/main.zig", "a"))
    return puppet


def get(server: WebServer, path: str, status: int = 200) -> Any:
    """What a route says, which is the same below ``/debug``, and of which HEAD gives the head."""
    answer = request(server.port, path)
    assert answer.status == status, answer.body
    head = request(server.port, path, "HEAD")
    assert (head.status, head.body) == (status, b"")
    assert head.headers.keys() == answer.headers.keys()
    assert head.headers["content-type"] == answer.headers["content-type"]
    assert request(server.port, f"/debug{path}").status == status
    if status != 200:
        assert answer.headers["content-type"] == "text/plain"
        return answer.body.decode()
    assert answer.headers["content-type"] == "application/json"
    return json.loads(answer.body)


def test_index(web_server: WebServer) -> None:
    """It names the version, and all routes."""
    index = get(web_server, "/api/1")
    assert (index["version"], index["server"]) == (1, f"fuzzserver {__version__}")
    assert [route["path"] for route in index["routes"]] == [route.path for route in ROUTES]
    assert all(route["what"] for route in index["routes"])


def test_nothing_yet(web_server: WebServer) -> None:
    """Lists are empty before anything is fuzzed; a report can be had."""
    assert get(web_server, "/api/1/targets") == {"targets": []}
    assert get(web_server, "/api/1/findings") == {"findings": []}
    assert get(web_server, "/api/1/corpus") == {"corpora": []}
    assert get(web_server, "/api/1/report")["targets"] == []


def test_targets(web_server: WebServer, shown: Puppet) -> None:
    """Numbers are those of the map; where there is none, nothing is made up."""
    first, second = get(web_server, "/api/1/targets")["targets"]
    assert 0 <= first.pop("runs_per_second")
    assert first == {
        "key": "key-of-src/main.zig",
        "name": "src/main.zig",
        "state": "fuzzing",
        "text": "",
        "id": shown.id,
        "earlier": ["00000000000000aa"],
        "tests": [
            {"name": "a", "state": "fuzzing", "text": "", "runs": 70, "restarts": 2, "findings": 1},
            {"name": "b", "state": "waiting", "text": "", "runs": None, "restarts": 0, "findings": 0},
        ],
        "executable": str(shown.executable),
        "zig_version": "0.14.1",
        "points": len(shown.points),
        "covered": 3,
        "runs": 77,
        "unique_runs": 7,
        "oddities": [],
    }
    assert second["text"] == "no such file" and second["tests"] == []
    assert {second[name] for name in ("id", "executable", "points", "runs", "runs_per_second")} == {None}
    one = get(web_server, f"/api/1/targets/{shown.id}")
    assert {name: value for name, value in one.items() if name != "runs_per_second"} == first


def test_maps_of_earlier_builds(web_server: WebServer, shown: Puppet, tmp_path: Path) -> None:
    """They belong to their target, and have numbers of their own."""
    newer = Puppet(tmp_path, coverage_id=2).show(web_server)
    web_server.set_target(newer.target(earlier=(shown.id,)))
    (first, _) = get(web_server, "/api/1/targets")["targets"]
    assert (first["id"], first["runs"]) == (newer.id, 0)
    earlier = get(web_server, f"/api/1/targets/{shown.id}")
    assert (earlier["id"], earlier["runs"], earlier["earlier"]) == (shown.id, 77, [shown.id])


def test_files_functions_and_history(web_server: WebServer, shown: Puppet) -> None:
    """All three are those of the report."""
    (target, _) = get(web_server, "/api/1/report")["targets"]
    files = get(web_server, f"/api/1/files/{shown.id}")
    assert files == {
        "id": shown.id,
        "files": [
            {
                "name": each["name"],
                "points": each["points"],
                "covered": each["covered"],
                "lines": len(each["lines"]),
                "lines_covered": each["lines_covered"],
            }
            for each in target["files"]
        ],
    }
    assert sum(each["covered"] for each in files["files"]) == 3
    functions = get(web_server, f"/api/1/functions/{shown.id}")
    assert functions == {"id": shown.id, "functions": target["functions"]}
    assert "parser.sum" in [each["name"] for each in functions["functions"]]
    eventually(
        lambda: get(web_server, f"/api/1/history/{shown.id}")["history"][-1][1:] == [77, 7, 3],
        "the history does not go on",
    )
    history = get(web_server, f"/api/1/history/{shown.id}")
    assert history["id"] == shown.id and "start" in [mark["kind"] for mark in history["marks"]]
    assert history["history"] == get(web_server, "/api/1/report")["targets"][0]["history"]


def test_findings_and_corpus(web_server: WebServer, shown: Puppet) -> None:
    """A finding has its input, and all that the report has of it."""
    (listed,) = get(web_server, "/api/1/findings")["findings"]
    one = get(web_server, f"/api/1/findings/{listed['id']}")
    assert one.items() >= listed.items()
    assert base64.b64decode(one["input"]) == INPUT and one["stack"] == "a stack"
    assert get(web_server, "/api/1/report")["findings"] == [one]
    (corpus,) = get(web_server, "/api/1/corpus")["corpora"]
    assert (corpus["test"], corpus["count"]) == ("a", 1)


def test_the_report_is_one(web_server: WebServer, shown: Puppet) -> None:
    """What reads reports reads it."""
    report = report_from_json(get(web_server, "/api/1/report"))
    assert [target.runs for target in report.targets] == [77, 0]
    assert report.findings[0].input == INPUT and report.generator == f"fuzzserver {__version__}"


UNKNOWN = {
    "/api": "there is no such route: /api/1 lists those that there are",
    "/api/": "there is no such route: /api/1 lists those that there are",
    "/api/1/": "there is no such route: /api/1 lists those that there are",
    "/api/2/targets": "there is no such route: /api/1 lists those that there are",
    "/api/1/targets/..": "there is no such route: /api/1 lists those that there are",
    "/report": "there is no such route: /api/1 lists those that there are",
    "/report/LCOV": "there is no such route: /api/1 lists those that there are",
    "/api/1/targets/0123456789abcdef": "there is no coverage map 0123456789abcdef",
    "/api/1/files/0123456789abcdef": "there is no coverage map 0123456789abcdef",
    "/api/1/functions/0123456789abcdef": "there is no coverage map 0123456789abcdef",
    "/api/1/history/0123456789abcdef": "there is no coverage map 0123456789abcdef",
    "/api/1/findings/c0ffee": "there is no finding c0ffee",
    "/report/pdf": "there is no such format: lcov, cobertura, json, junit, sarif, markdown, html",
    "/api/1/targets?target=x": "not found",
    "/apis": "not found",
    "/reports/lcov": "not found",
}


@pytest.mark.parametrize("path", UNKNOWN)
def test_what_is_not_there(web_server: WebServer, path: str) -> None:
    """Each 404 says in a sentence what is missing."""
    assert get(web_server, path, 404) == UNKNOWN[path]


def download(server: WebServer, name: str) -> Answer:
    """A report as a file."""
    answer = request(server.port, f"/report/{name}")
    assert answer.status == 200, answer.body
    assert answer.headers["content-disposition"] == f'attachment; filename="{FILE_NAMES[name]}"'
    assert answer.headers["content-security-policy"].endswith("sandbox")
    return answer


def test_each_format_has_a_name() -> None:
    """And none that is not there has one."""
    assert list(FILE_NAMES) == [*FORMATS, HTML]


@pytest.mark.parametrize("name", FORMATS)
def test_formats(web_server: WebServer, shown: Puppet, name: str) -> None:
    """Each is what its module writes, of what is so now."""
    answer = download(web_server, name)
    assert answer.headers["content-type"] == FORMATS[name].content_type
    text = answer.body.decode()
    if name in ("junit", "markdown"):
        assert "src/main.zig" in text
    elif name != "sarif":
        assert "parser.zig" in text
    assert ("number 1" in text) == (name not in ("lcov", "cobertura"))
    assert request(web_server.port, f"/report/{name}", "HEAD").status == 200


def test_static_page(web_server: WebServer, shown: Puppet) -> None:
    """The page as a file, which no browser runs as one of ours."""
    answer = download(web_server, HTML)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.body.lower().startswith(b"<!doctype html>")


# ------------------------------------------------------------------ how many at once


@contextmanager
def made_slowly(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, list[int]]]:
    """Reports wait for the event; the list says how many were being made as each one began."""
    let_go = threading.Event()
    busy: list[None] = []
    begun: list[int] = []

    def text(_: Report) -> str:
        busy.append(None)
        begun.append(len(busy))
        assert let_go.wait(WAIT)
        busy.pop()
        return "made"

    slow = Format(text, "text/plain", "slow")
    monkeypatch.setattr(formats, "FORMATS", {**FORMATS, "lcov": slow})
    try:
        yield let_go, begun
    finally:
        let_go.set()


def test_so_many_reports_at_once(zig: Zig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is made at a time, some wait for it, and others are told to come back; all else goes on."""
    with (
        WebServer(zig=zig, cache_dir=tmp_path, limits=Limits(reports=3)) as server,
        made_slowly(monkeypatch) as (let_go, begun),
    ):
        statuses: list[int] = []

        def ask() -> None:
            statuses.append(request(server.port, "/report/lcov").status)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        eventually(
            lambda: (
                request(server.port, "/api/1/report", "OPTIONS").status == 204
                and server._http_server is not None
                and server._http_server.reports.taken == 3
            ),
            "three do not wait",
        )
        busy = request(server.port, "/api/1/report")
        assert (busy.status, busy.headers["retry-after"]) == (503, "1")
        assert request(server.port, "/report/lcov", "HEAD").status == 503
        assert request(server.port, "/targets.json").status == 200
        assert request(server.port, "/sources.tar", "HEAD").status == 200
        let_go.set()
        for thread in threads:
            thread.join(WAIT)
        assert statuses == [200] * 3 and begun == [1, 1, 1]
        assert request(server.port, "/report/lcov").body == b"made"


def test_what_goes_wrong_is_said(web_server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while a report is made is an answer, and the next one can be made."""

    def fail(_: Report) -> str:
        raise InputError("it cannot be made")

    with monkeypatch.context() as patch:
        patch.setattr(formats, "FORMATS", {**FORMATS, "lcov": replace(FORMATS["lcov"], text=fail)})
        answer = request(web_server.port, "/report/lcov")
        assert (answer.status, answer.body) == (500, b"it cannot be made")
    assert request(web_server.port, "/report/lcov").status == 200


def test_others_go_on_while_a_report_is_made(web_server: WebServer, tmp_path: Path) -> None:
    """To be measured with a million points; here, that no request waits for the lock of reports."""
    server = web_server._http_server
    assert server is not None
    with server.routes._condition:
        waiting = threading.Thread(target=request, args=(web_server.port, "/api/1/report"))
        waiting.start()
        eventually(lambda: server.reports.taken == 1, "nobody waits")
        begun = time.monotonic()
        for path in ("/targets.json", "/metrics", "/api/1/targets", "/"):
            assert request(web_server.port, path).status == 200
        assert time.monotonic() - begun < WAIT
        assert waiting.is_alive()
    waiting.join(WAIT)
    assert not waiting.is_alive()


def test_no_report_is_begun_after_the_stop(
    zig: Zig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_left: None
) -> None:
    """The one that is being made is made to its end, and nobody stays to wait for his."""
    monkeypatch.setattr(http_server, "STOP_SECONDS", 0.1)

    def serving() -> int:
        return sum(thread.name.startswith("http-") for thread in threading.enumerate())

    def ask() -> None:
        with suppress(OSError, HTTPException):
            request(server.port, "/report/lcov")

    with (
        WebServer(zig=zig, cache_dir=tmp_path) as server,
        made_slowly(monkeypatch) as (let_go, begun),
    ):
        http = server._http_server
        assert http is not None
        for _ in range(3):
            threading.Thread(target=ask).start()
        eventually(lambda: http.reports.taken == 3 and begun, "three do not wait")
        server.stop()
        eventually(lambda: serving() <= 1, "some wait for a report that nobody will make")
        assert serving() == 1
        let_go.set()
        eventually(lambda: serving() == 0, "the report is not made to its end")
        assert begun == [1]
