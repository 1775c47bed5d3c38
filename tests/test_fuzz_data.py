"""What the fuzzer has given, over HTTP: targets, findings, corpora."""

import http.client
import io
import json
import tarfile
from pathlib import Path

import pytest

from fuzzserver.corpus import Corpus
from fuzzserver.findings import Finding, FindingStore
from fuzzserver.status import TargetStatus, TestStatus
from fuzzserver.webserver import WebServer
from tests.support_web import Answer, request

PAGE = b"<!doctype html><script>alert(document.cookie)</script>"
"""An input that a browser would run, if it took it for one of our pages."""

FINDING = Finding(
    id="3f2a00c0ffee",
    kind="panic",
    message="boom",
    target="src/main.zig",
    test="main.test.fuzz",
    first_time=1000.5,
    last_time=1001.5,
    count=2,
    n_runs=77,
    stack="src/main.zig:3:5: 0x10123 in fuzz (test)",
    stderr="thread 1 panic: boom",
    reproduces=True,
    exact=True,
    argv=("repro", "main.test.fuzz"),
    place="src/main.zig:3:5",
)
INPUTS = {0: b"zero", 1: PAGE, 3: b"trailing zeros\0\0", 10: b"ten"}
"""Of one corpus, by number. None but the last has a size that only a mapped file has."""

BOTH = pytest.mark.parametrize("prefix", ["", "/debug"])
"""Each page asks for what lies beside it."""


@pytest.fixture
def findings(web_server: WebServer, tmp_path: Path) -> FindingStore:
    """A store with one finding, whose input is a page."""
    store = FindingStore(tmp_path / "findings", web_server.notify)
    store.add(FINDING, PAGE)
    web_server.set_findings(store)
    return store


@pytest.fixture
def corpus(web_server: WebServer, tmp_path: Path) -> Corpus:
    """The corpus of one test; the input that is being tried is in it, in whole pages."""
    folder = tmp_path / "f" / "main.test.fuzz"
    folder.mkdir(parents=True)
    for number, data in INPUTS.items():
        (folder / str(number)).write_bytes(data)
    (folder / "11").write_bytes(b"being tried".ljust(4096, b"\0"))
    (folder / "notes").write_bytes(b"no input")
    found = Corpus(folder, "src/main.zig", "main.test.fuzz")
    web_server.add_corpus(found)
    return found


def get_json(port: int, path: str) -> dict:
    """An answer that must be JSON."""
    answer = request(port, path)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json"), answer
    return json.loads(answer.body)


def assert_is_download(answer: Answer, name: str, content: bytes) -> None:
    """It is these bytes, which no browser shows or runs, whatever they look like."""
    assert (answer.status, answer.body) == (200, content)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["x-content-type-options"] == "nosniff"


@BOTH
def test_nothing_yet(web_server: WebServer, prefix: str) -> None:
    """Before anything is built there are empty lists, and no error."""
    for name in ("targets", "findings"):
        assert get_json(web_server.port, f"{prefix}/{name}.json") == {name: []}
    assert get_json(web_server.port, f"{prefix}/corpus.json") == {"corpora": []}
    for path in (
        "/findings/3f2a00c0ffee.json",
        "/findings/3f2a00c0ffee.input",
        "/corpus/0.tar",
        "/corpus/0/0",
    ):
        assert request(web_server.port, prefix + path).status == 404


@BOTH
def test_targets(web_server: WebServer, prefix: str) -> None:
    """Targets come in the order in which they were told, each as it was told last."""
    first = TargetStatus("a", "src/main.zig", "building")
    second = TargetStatus("b", "src/tool.zig", "failed", "src/tool.zig:1:1: error: no")
    later = TargetStatus(
        "a",
        "src/main.zig",
        "fuzzing",
        id="49e67756ea1c6d82",
        earlier=("59e4bde28e630904",),
        tests=(TestStatus("main.test.fuzz", "crashed", "exited with code 1", 77, 2, 1),),
    )
    for target in (first, second, later):
        web_server.set_target(target)
    (shown, failed) = get_json(web_server.port, f"{prefix}/targets.json")["targets"]
    (test,) = shown.pop("tests")
    assert shown == {
        "key": "a",
        "name": "src/main.zig",
        "state": "fuzzing",
        "text": "",
        "id": "49e67756ea1c6d82",
        "earlier": ["59e4bde28e630904"],
    }
    assert test == {
        "name": "main.test.fuzz",
        "state": "crashed",
        "text": "exited with code 1",
        "n_runs": 77,
        "restarts": 2,
        "findings": 1,
    }
    assert (failed["key"], failed["text"], failed["id"]) == ("b", "src/tool.zig:1:1: error: no", None)


@BOTH
def test_findings(web_server: WebServer, findings: FindingStore, prefix: str) -> None:
    """The list has what a list needs, the oldest first."""
    findings.add(Finding("00", "hang", "no end", "src/main.zig", "main.test.fuzz", 2000.0, 2000.0), b"x")
    (first, second) = get_json(web_server.port, f"{prefix}/findings.json")["findings"]
    assert first == {
        "id": "3f2a00c0ffee",
        "kind": "panic",
        "message": "boom",
        "target": "src/main.zig",
        "test": "main.test.fuzz",
        "count": 2,
        "first_time": 1000.5,
        "last_time": 1001.5,
        "n_runs": 77,
        "reproduces": True,
        "place": "src/main.zig:3:5",
        "form": "bytes",
    }
    assert (second["id"], second["reproduces"], second["place"]) == ("00", None, "")


@BOTH
def test_finding(web_server: WebServer, findings: FindingStore, prefix: str) -> None:
    """One finding has all that is known, and its input as Zig source."""
    shown = get_json(web_server.port, f"{prefix}/findings/3f2a00c0ffee.json")
    assert shown["stack"] == FINDING.stack
    assert shown["stderr"] == FINDING.stderr
    assert shown["place"] == FINDING.place
    assert shown["input_literal"] == f'"{PAGE.decode()}"'
    assert (shown["input_size"], shown["input_note"], shown["exact"]) == (len(PAGE), "", True)
    assert shown["command"] == "fuzzserver repro 3f2a00c0ffee"
    assert shown["argv"] == ["repro", "main.test.fuzz"]
    assert shown["minimized_size"] is None


@BOTH
def test_finding_input(web_server: WebServer, findings: FindingStore, prefix: str) -> None:
    """The input itself is a download, even if it is a page with a script."""
    answer = request(web_server.port, f"{prefix}/findings/3f2a00c0ffee.input")
    assert_is_download(answer, "3f2a00c0ffee.input", PAGE)


def test_input_that_vanished(web_server: WebServer, findings: FindingStore) -> None:
    """Somebody deletes the file: the finding is still shown, and the download says what is missing."""
    path = findings.input_path("3f2a00c0ffee")
    path.unlink()
    shown = get_json(web_server.port, "/findings/3f2a00c0ffee.json")
    assert (shown["message"], shown["input_size"]) == ("boom", 0)
    answer = request(web_server.port, "/findings/3f2a00c0ffee.input")
    assert (answer.status, answer.headers["content-type"]) == (500, "text/plain")
    assert answer.body.decode() == f"cannot read input '{path}': No such file or directory"
    assert request(web_server.port, "/findings.json").status == 200


@BOTH
def test_corpora(web_server: WebServer, corpus: Corpus, prefix: str) -> None:
    """Inputs are counted without padding; the one that is being tried, and other files, are no part."""
    (shown,) = get_json(web_server.port, f"{prefix}/corpus.json")["corpora"]
    inputs = shown.pop("inputs")
    sizes = {0: 4, 1: len(PAGE), 3: 14, 10: 3}
    assert shown == {
        "index": 0,
        "target": "src/main.zig",
        "test": "main.test.fuzz",
        "form": "bytes",
        "count": 4,
        "size": sum(sizes.values()),
    }
    assert {each["number"]: each["size"] for each in inputs} == sizes
    assert [each["number"] for each in inputs] == [0, 1, 3, 10]
    modified = (corpus.folder / "3").stat().st_mtime
    assert [each["time"] for each in inputs if each["number"] == 3] == [modified]


@BOTH
def test_corpus_input(web_server: WebServer, corpus: Corpus, prefix: str) -> None:
    """One input, without padding, as a download."""
    assert_is_download(request(web_server.port, f"{prefix}/corpus/0/1"), "0-1.input", PAGE)
    assert_is_download(request(web_server.port, f"{prefix}/corpus/0/3"), "0-3.input", b"trailing zeros")


@BOTH
def test_corpus_tar(web_server: WebServer, corpus: Corpus, prefix: str) -> None:
    """All inputs as one archive, under their numbers."""
    answer = request(web_server.port, f"{prefix}/corpus/0.tar")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-tar")
    assert answer.headers["content-disposition"] == 'attachment; filename="corpus-0.tar"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        members = tar.getmembers()
        contents = {member.name: tar.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    assert contents == {str(number): data.rstrip(b"\0") for number, data in INPUTS.items()}
    assert members[0].mtime == int((corpus.folder / "0").stat().st_mtime)


def test_corpora_keep_their_index(web_server: WebServer, corpus: Corpus, tmp_path: Path) -> None:
    """A corpus that is told again, or more of them, leave the addresses as they are; an empty one has an
    empty archive.
    """
    web_server.add_corpus(Corpus(tmp_path / "none", "src/tool.zig", "tool.test.fuzz"))
    web_server.add_corpus(Corpus(corpus.folder, corpus.target, corpus.test))
    shown = get_json(web_server.port, "/corpus.json")["corpora"]
    assert [(each["index"], each["test"], each["count"]) for each in shown] == [
        (0, "main.test.fuzz", 4),
        (1, "tool.test.fuzz", 0),
    ]
    with tarfile.open(fileobj=io.BytesIO(request(web_server.port, "/corpus/1.tar").body)) as tar:
        assert tar.getnames() == []


def test_corpus_that_is_tidied_while_it_is_packed(
    web_server: WebServer, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input that is gone between listing and reading is left out of the archive."""
    listed = corpus.inputs()
    (corpus.folder / "3").unlink()
    monkeypatch.setattr(Corpus, "inputs", lambda self: listed)
    answer = request(web_server.port, "/corpus/0.tar")
    assert answer.status == 200
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        assert tar.getnames() == ["0", "1", "10"]


@pytest.mark.parametrize(
    "path",
    [
        "/findings/.json",
        "/findings/ffffffffffff.json",
        "/findings/ffffffffffff.input",
        "/findings/3F2A00C0FFEE.json",
        "/findings/3f2a.json",
        "/findings/3f2a00c0ffee",
        "/findings/3f2a00c0ffee.original",
        "/findings/3f2a00c0ffee.json/",
        "/findings/3f2a00c0ffee.json%0a",
        "/findings/../secret.json",
        "/findings/..%2fsecret.json",
        "/findings/%2e%2e/secret.input",
        "/findings//etc/passwd.input",
        "//findings.json",
        "/findings/" + "a" * 65 + ".json",
        "/debug/debug/findings.json",
        "/targets.json/",
        "/corpus/",
        "/corpus/1.tar",
        "/corpus/-1.tar",
        "/corpus/x.tar",
        "/corpus/9999999.tar",
        "/corpus/0.tar/",
        "/corpus/0/",
        "/corpus/0/2",
        "/corpus/0/-1",
        "/corpus/0/notes",
        "/corpus/0/999999999999999999",
        "/corpus/0/9999999999999999999",
        "/corpus/1/0",
        "/corpus/0/../../../secret.json",
        "/corpus/0/%2e%2e%2fnotes",
    ],
)
def test_what_is_not_there(
    web_server: WebServer, findings: FindingStore, corpus: Corpus, tmp_path: Path, path: str
) -> None:
    """Ids and numbers of nothing, and every way out of the folders, are not found."""
    (tmp_path / "secret.json").write_text(json.dumps(FINDING.to_json()))
    (tmp_path / "secret.input").write_text("secret")
    (findings.folder / "3f2a00c0ffee.original").write_text("secret")
    answer = request(web_server.port, path)
    assert (answer.status, answer.body) == (404, b"not found")


def test_other_methods(web_server: WebServer, findings: FindingStore) -> None:
    """HEAD has the same head without the body; there is nothing that could be changed from outside."""
    head = request(web_server.port, "/findings/3f2a00c0ffee.input", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(PAGE))
    for method in ("POST", "DELETE", "PUT"):
        assert request(web_server.port, "/findings/3f2a00c0ffee.input", method).status == 405


def test_changes_show_at_once(web_server: WebServer, findings: FindingStore) -> None:
    """Nothing is cached, neither here nor in a browser: one connection, the finding before and after."""
    connection = http.client.HTTPConnection("127.0.0.1", web_server.port, timeout=30)
    try:
        counts = []
        for _ in range(2):
            connection.request("GET", "/findings.json")
            response = connection.getresponse()
            assert response.headers["cache-control"] == "max-age=0, must-revalidate"
            counts.append(json.loads(response.read())["findings"][0]["count"])
            findings.add(FINDING, b"the input of another time")
    finally:
        connection.close()
    assert counts == [2, 3]
