"""What is learnt of findings after they were noted."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzserver.findings import FindingStore
from fuzzserver.fuzz import analysis as module
from fuzzserver.fuzz.analysis import MAX_TRIES, Analysis
from fuzzserver.fuzz.failure import Failure
from fuzzserver.fuzz.reproducer import Reproducer
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.zig.compile_client import ZigCompileClient
from tests.support_failures import DEEP, FAILING, be_patient, let_time_fly
from tests.support_fuzzing import PATIENCE
from tests.support_time import WAIT, eventually
from tests.support_zig_children import processes_naming
from tests.support_zig_sources import BROKEN, write
from tests.test_findings import FINDING

pytestmark = pytest.mark.usefixtures("nothing_left")

MIB = 1 << 20
LEFTOVERS = bytes(range(256)) * 16
"""What follows an input in the fuzzer's file."""

UNEXPECTED = Failure("error", "error.TestUnexpectedResult", "", ())
"""What ``std.testing.expect`` gives."""


@pytest.fixture
def store(tmp_path: Path) -> FindingStore:
    """Where findings are kept."""
    return FindingStore(tmp_path / "findings")


@pytest.fixture(autouse=True)
def nothing_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is."""
    monkeypatch.setattr(module, "LONGEST_HANG", WAIT)


@pytest.fixture
def analysis(client: ZigCompileClient, store: FindingStore) -> Iterator[Analysis]:
    """An analysis that runs."""
    analysis = Analysis(client, store, hang=WAIT, memory=500 * MIB)
    analysis.start()
    yield analysis
    analysis.stop()


@pytest.fixture
def command(work: Path) -> TestCommand:
    """The failing tests."""
    return TestCommand.of_root(write(work / "failing", failing=FAILING, deep=DEEP))


@pytest.fixture
def note(store: FindingStore, analysis: Analysis, command: TestCommand) -> Callable[..., None]:
    """Notes a finding and hands it on."""

    def note(
        test: str,
        data: bytes,
        failure: Failure = UNEXPECTED,
        *,
        id: str = FINDING.id,
        command: TestCommand = command,
        analysis: Analysis = analysis,
    ) -> None:
        name = f"failing.test.{test}"
        finding = replace(FINDING, id=id, kind=failure.kind, message=failure.message, test=name)
        analysis.add(command, store.add(finding, data), failure, data)

    return note


def test_shortest_prefix(store: FindingStore, analysis: Analysis, note, caplog) -> None:
    """A finding that reproduces gets its input without what follows it, and the command that shows it."""
    caplog.set_level(logging.INFO)
    note("contains", b"well, canyoufindme" + LEFTOVERS)
    assert analysis.drain(PATIENCE)
    (finding,) = store.all()
    assert (finding.reproduces, finding.exact) == (True, True)
    assert store.input(finding.id) == b"well, canyoufindme"
    assert finding.argv[1:] == ("failing.test.contains", str(store.input_path(finding.id)))
    assert Path(finding.argv[0]).name == "repro"
    assert f"finding {finding.id} reproduces with 18 bytes (" in caplog.text
    assert f"fuzzserver repro {finding.id}" in caplog.text


def test_stack_that_was_missing(
    client: ZigCompileClient, store: FindingStore, command: TestCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the worker could not say where it hung, the reproduction does."""
    be_patient(monkeypatch)
    let_time_fly(monkeypatch)
    analysis = Analysis(client, store, hang=WAIT, memory=500 * MIB)
    analysis.start()
    hang = Failure("hang", "made no new run for 5 s", "", ())
    finding = replace(FINDING, kind="hang", message=hang.message, test="failing.test.hang", stack="")
    analysis.add(command, store.add(finding, b"abc"), hang, b"abc")
    assert analysis.drain(PATIENCE)
    analysis.stop()
    (finding,) = store.all()
    assert finding.reproduces is True
    assert "in spin (" in finding.stack
    path, line, _column = finding.place.rsplit(":", 2)
    assert Path(path) == command.project / "deep.zig"
    assert f"{finding.place}: " in finding.stack and int(line) > 1


def test_what_does_not_reproduce(store: FindingStore, analysis: Analysis, note, caplog) -> None:
    """A finding that cannot be seen again keeps its input, and it is said."""
    note("passes", b"abc" + LEFTOVERS)
    assert analysis.drain(PATIENCE)
    (finding,) = store.all()
    assert (finding.reproduces, finding.exact) == (False, False)
    assert store.input(finding.id) == b"abc" + LEFTOVERS
    assert caplog.messages == [f"finding {finding.id} does not reproduce in a process of its own"]


def test_other_input(store: FindingStore, analysis: Analysis, note) -> None:
    """Another input of the same finding is tried if the first did not reproduce it, and then no more."""
    note("contains", b"nothing")
    assert analysis.drain(PATIENCE)
    assert store.all()[0].reproduces is False
    note("contains", b"canyoufindme, yes")
    assert analysis.drain(PATIENCE)
    assert store.all()[0].reproduces is True
    assert store.input(FINDING.id) == b"canyoufindme"
    note("contains", b"and canyoufindme again")
    assert analysis.drain(PATIENCE)
    assert (store.all()[0].count, store.input(FINDING.id)) == (3, b"canyoufindme")


def test_tries_are_bounded(store: FindingStore, analysis: Analysis, note, monkeypatch) -> None:
    """What never reproduces is not tried for ever."""
    tried: list[bytes] = []
    monkeypatch.setattr(Reproducer, "shortest_prefix", lambda self, data, failure: tried.append(data))
    for number in range(MAX_TRIES + 3):
        note("passes", bytes([number]))
        assert analysis.drain(PATIENCE)
    assert tried == [bytes([number]) for number in range(MAX_TRIES)]


def test_one_after_the_other(store: FindingStore, analysis: Analysis, note) -> None:
    """Findings that come at once are all looked at, in their order."""
    refused = Failure("error", "error.Refused", "", ())
    note("error", b"abc", refused, id="aaaa")
    note("panic", b"abc", Failure("panic", "boom at 3", "", ()), id="bbbb")
    note("two places", b"abc", Failure("error", "error.Twice", "", ()), id="cccc")
    assert analysis.drain(PATIENCE)
    found = {finding.id: (finding.reproduces, store.input(finding.id)) for finding in store.all()}
    assert found == {"aaaa": (True, b""), "bbbb": (True, b""), "cccc": (True, b"")}


def test_build_failure(store: FindingStore, analysis: Analysis, note, work: Path, caplog) -> None:
    """That the reproducer cannot be built is said, and the next finding is looked at."""
    broken = TestCommand.of_root(write(work / "broken-repro", broken=BROKEN + "test { main(); }"))
    note("contains", b"canyoufindme", id="aaaa", command=broken)
    note("contains", b"canyoufindme", id="bbbb")
    assert analysis.drain(PATIENCE)
    first, second = store.all()
    assert (first.reproduces, second.reproduces) == (None, True)
    assert "cannot reproduce finding aaaa: broken.zig:4:5: error: use of undeclared" in caplog.text


def test_store_that_cannot_be_written(client: ZigCompileClient, store: FindingStore, note, caplog) -> None:
    """That what was learnt cannot be stored is said; it is kept in memory, and the next one is looked at."""
    analysis = Analysis(client, store, hang=WAIT, memory=500 * MIB)
    for name in ("aaaa", "bbbb"):
        note("contains", b"canyoufindme", id=name, analysis=analysis)
    (store.folder / "aaaa.json").unlink()
    (store.folder / "aaaa.json").mkdir()
    analysis.start()
    assert analysis.drain(PATIENCE)
    analysis.stop()
    assert [finding.reproduces for finding in store.all()] == [True, True]
    assert "cannot reproduce finding aaaa: cannot write '" in caplog.text


def test_stop_in_the_middle(
    store: FindingStore, analysis: Analysis, note, caplog, tmp_path, monkeypatch
) -> None:
    """A stop ends a reproduction that would take long, forgets the others, and is no failure."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # Where the input is that processes name.
    note("hang", b"", Failure("hang", "", "", ()), id="aaaa")
    note("contains", b"canyoufindme", id="bbbb")
    eventually(lambda: processes_naming(str(tmp_path)), "nothing runs")
    assert not analysis.drain(0.0)
    analysis.stop()
    assert processes_naming(str(tmp_path)) == []
    assert [finding.reproduces for finding in store.all()] == [None, None]
    assert caplog.messages == []
    assert analysis.drain(PATIENCE), "nothing is left to wait for"
    analysis.stop()


def test_stop_before_start(client: ZigCompileClient, store: FindingStore) -> None:
    """What was never started can be stopped."""
    analysis = Analysis(client, store, hang=5.0, memory=500 * MIB)
    analysis.stop()
    assert analysis.drain(0.0)
