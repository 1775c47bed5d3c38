"""docs/protocol.md says what is so."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from fuzzserver.access import DEFAULT_LIMITS
from fuzzserver.findings import Finding, FindingStore
from fuzzserver.logbook import MAX_ENTRIES, MAX_SIZE
from fuzzserver.observer import MAX_MARKS
from fuzzserver.status import Progress, TargetStatus, TestStatus
from fuzzserver.web import api, fuzz_data
from fuzzserver.webserver import WebServer
from fuzzserver.wire import abi
from fuzzserver.zig.installation import Zig
from tests.projects import FuzzedPair
from tests.support_puppet import Puppet, finding
from tests.support_web import request, viewer
from tests.test_session import OURS, texts_of

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "protocol.md").read_text()
MESSAGES = {
    name: (int(tag), int(size))
    for tag, name, size in re.findall(r"^\| (\d+) \| `(\w+)` \| (\d+): tag", TEXT, re.MULTILINE)
}
"""Tag and size of the head of each binary message."""
FIELDS = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", TEXT.partition("## HTTP")[0], re.MULTILINE))
"""What is said of each field of JSON texts."""

HEADS = (
    (abi.ToClientTag.CURRENT_TIME, abi.CurrentTime),
    (abi.ToClientTag.SOURCE_INDEX, abi.SourceIndexHeader),
    (abi.ToClientTag.COVERAGE_UPDATE, abi.CoverageUpdateHeader),
    (abi.ToClientTag.ENTRY_POINTS, abi.EntryPointHeader),
    (abi.OwnTag.COVERAGE_DELTA, abi.CoverageDeltaHeader),
    (abi.OwnTag.HISTORY, abi.HistoryHeader),
    (abi.OwnTag.POINTS, abi.PointsHeader),
)


@pytest.fixture
def shown(web_server: WebServer, tmp_path: Path) -> Puppet:
    """A target with a test, a finding and coverage: something of all that there is to tell of."""
    puppet = Puppet(tmp_path).show(web_server)
    puppet.cover_all()
    web_server.set_target(puppet.target(tests=(TestStatus("t", "fuzzing", n_runs=7),)))
    store = FindingStore(tmp_path / "findings")
    store.add(finding(), b"")
    web_server.set_findings(store)
    return puppet


def test_messages() -> None:
    """Every message is there, with its tag and the size of its head."""
    assert {tag.name.lower(): (tag.value, head.LAYOUT.size) for tag, head in HEADS} == MESSAGES
    assert {tag for tag, _ in HEADS} == {*abi.ToClientTag, *abi.OwnTag}
    assert f"{abi.HistorySample.LAYOUT.size} for each sample" in TEXT


def test_fields(zig: Zig, web_server, debug_pair: FuzzedPair) -> None:
    """The fields of the texts that a client gets are those that are named, and so are theirs."""
    with viewer(web_server.port, **OURS) as connection:
        texts = texts_of(connection)
        sent = next(texts) | next(texts)
    assert sent.keys() == FIELDS.keys()
    target = TargetStatus("a", "a", "fuzzing", tests=(TestStatus("t", "fuzzing"),)).to_json()
    assert_named("targets", target | target["tests"][0])
    assert_named("findings", Finding("0", "hang", "", "a", "t", 1.0, 1.0).summary())
    assert_named("progress", Progress("").to_json())
    web_server.add_log("zig", "text")
    assert_named("log", sent["log"] | web_server.log_book.since(0)[2][0].to_json())


def assert_named(field: str, values: dict) -> None:
    """The row of a field names all keys of its value."""
    for name in values:
        assert f"`{name}`" in FIELDS[field], (field, name)


def test_numbers() -> None:
    """Bounds are those of the code."""
    assert f"The last {MAX_ENTRIES} entries are kept, up to {MAX_SIZE // 1024} KiB" in TEXT
    assert f"the last {MAX_MARKS} of the map" in FIELDS["marks"]


@pytest.mark.parametrize("pattern", [pattern for pattern, _ in fuzz_data.ROUTES])
def test_routes(pattern: str) -> None:
    """What is documented of findings and corpora is what is served, and nothing else."""
    documented = [
        path.replace("INDEX", "0").replace("NUMBER", "1").replace("ID", "a" * 12)
        for path in re.findall(r"`(/[\w./]+)`", TEXT)
    ]
    assert any(re.fullmatch(pattern, path) for path in documented)


def test_metrics(web_server: WebServer, shown: Puppet) -> None:
    """The table of metrics has each that there is, with its type and labels."""
    documented = {
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \|(.*?)\|", TEXT, re.MULTILINE)
    }
    text = request(web_server.port, "/metrics").body.decode()
    served = {
        (sample.name, family.type, tuple(sample.labels))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert served == documented


def test_api(web_server: WebServer, shown: Puppet) -> None:
    """The table of the API has each route, and each field of its answer."""
    rows = dict(re.findall(r"^\| `(/api/1[\w/]*)` \| (.*) \|$", TEXT, re.MULTILINE))
    assert [*rows, "/report/FORMAT"] == [route.path for route in api.ROUTES]
    for path in ("", "/targets", "/files/ID", "/functions/ID", "/history/ID", "/findings", "/corpus"):
        answer = json.loads(request(web_server.port, f"/api/1{path}".replace("ID", shown.id)).body)
        for name, value in answer.items():
            assert f"`{name}`" in rows[f"/api/1{path}"]
            if (
                path not in ("/findings", "/corpus")
                and isinstance(value, list)
                and isinstance(value[0], dict)
            ):
                assert_all_named(rows[f"/api/1{path}"], value[0])


def assert_all_named(row: str, value: dict) -> None:
    """The row names all keys of an object, and of those in it; of marks it says that they are as above."""
    for name, inner in value.items():
        assert f"`{name}`" in row or value.keys() == {"time", "kind", "text"}
        for each in inner if isinstance(inner, list) and inner and isinstance(inner[0], dict) else ():
            assert_all_named(row, each)


def test_reports() -> None:
    """Each format is named, and the file that it makes."""
    section = TEXT.partition("### `/report/FORMAT`")[2].partition("## ")[0]
    for name, file_name in api.FILE_NAMES.items():
        assert f"`{name}`" in section and f"`{file_name}`" in section
    assert DEFAULT_LIMITS.reports == 4 and "while four are made" in section
