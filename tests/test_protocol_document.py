"""docs/protocol.md says what is so."""

import re
from pathlib import Path

import pytest

from fuzzserver.findings import Finding
from fuzzserver.logbook import MAX_ENTRIES, MAX_SIZE
from fuzzserver.status import Progress, TargetStatus, TestStatus
from fuzzserver.web import fuzz_data
from fuzzserver.observer import MAX_MARKS
from fuzzserver.wire import abi
from fuzzserver.zig.installation import Zig
from tests.projects import FuzzedPair
from tests.support_web import viewer
from tests.test_session import OURS, texts_of

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "protocol.md").read_text()
MESSAGES = {
    name: (int(tag), int(size))
    for tag, name, size in re.findall(r"^\| (\d+) \| `(\w+)` \| (\d+): tag", TEXT, re.MULTILINE)
}
"""Tag and size of the head of each binary message."""
FIELDS = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", TEXT, re.MULTILINE))
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
