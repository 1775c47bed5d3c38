"""``/metrics``: numbers that Prometheus reads, whatever targets and tests are called."""

import http.client
import os
import time
from pathlib import Path

import psutil
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from fuzzserver.findings import FindingStore
from fuzzserver.status import TargetStatus, TestStatus
from fuzzserver.version import __version__
from fuzzserver.web.target_numbers import SPEED_SECONDS, numbers_of, runs_per_second
from fuzzserver.webserver import WebServer
from fuzzserver.wire.abi import HistorySample
from tests.support_puppet import Puppet, big_map, finding
from tests.support_time import eventually
from tests.support_web import request, viewer

NAMES = (
    'a "quoted" name',
    "back\\slash\\n",
    "two\nlines",
    "\r\t\x00\x1b[31m",
    "ü \u2028 𝄞",
    "byte \udcff",
    "# EOF",
    "{}=,",
)
"""Of targets and tests."""

Labels = dict[str, str]


def families(port: int, path: str = "/metrics") -> dict[str, Metric]:
    """All metrics by name, as read by the client library of Prometheus, which is strict."""
    answer = request(port, path)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    return {family.name: family for family in text_string_to_metric_families(answer.body.decode())}


def values(family: Metric, **labels: str) -> list[tuple[Labels, float]]:
    """The samples that have these labels: their other ones, and their values."""
    return [
        ({name: text for name, text in each.labels.items() if name not in labels}, each.value)
        for each in family.samples
        if labels.items() <= each.labels.items()
    ]


def value(family: Metric, **labels: str) -> float:
    """The one of them."""
    ((_, found),) = values(family, **labels)
    return found


def test_without_targets(web_server: WebServer) -> None:
    """There is the server itself, and no worker in any state."""
    found = families(web_server.port)
    assert values(found["fuzzserver_build"]) == [({"version": __version__}, 1)]
    assert value(found["fuzzserver_viewers"]) == 0
    assert value(found["fuzzserver_connections"]) == 1
    assert {number for _, number in values(found["fuzzserver_workers"])} == {0}
    assert values(found["fuzzserver_target_runs"]) == []
    process = psutil.Process(os.getpid())
    memory = found["process_resident_memory_bytes"]
    assert (memory.unit, memory.type) == ("bytes", "gauge")
    assert value(memory) == pytest.approx(process.memory_info().rss, rel=0.2)
    start = found["process_start_time_seconds"]
    assert start.unit == "seconds" and value(start) == pytest.approx(process.create_time(), abs=2)


def test_targets_and_tests(web_server: WebServer, tmp_path: Path) -> None:
    """The numbers are those of the coverage file and of the status; the runs of no test are counted twice."""
    puppet = Puppet(tmp_path).show(web_server)
    puppet.cover(0, 1, 2, runs=77)
    tests = (
        TestStatus("one", "fuzzing", n_runs=70, restarts=2),
        TestStatus("two", "crashed", n_runs=None, restarts=1),
        TestStatus("three", "odd state", n_runs=0),
    )
    web_server.set_target(puppet.target(tests=tests))
    web_server.set_target(TargetStatus("other", "b", "building"))
    found = families(web_server.port, "/debug/metrics")
    names = {"target": "src/main.zig", "key": "key-of-src/main.zig"}
    numbers = {"runs": 77, "unique_runs": 7, "points": len(puppet.points), "covered_points": 3}
    for name, number in numbers.items():
        family = found[f"fuzzserver_target_{name}"]
        assert values(family) == [(names, number)], name
        assert family.type == ("counter" if name.endswith("runs") else "gauge")
    assert values(found["fuzzserver_test_runs"], **names) == [({"test": "one"}, 70), ({"test": "three"}, 0)]
    restarts = found["fuzzserver_test_restarts"]
    assert [number for _, number in values(restarts, **names)] == [2, 1, 0]
    assert restarts.type == "counter"
    workers = found["fuzzserver_workers"]
    assert [value(workers, state=state) for state in ("fuzzing", "crashed", "failed", "odd state")] == [
        1,
        1,
        0,
        1,
    ]
    puppet.reset()
    assert value(families(web_server.port)["fuzzserver_target_runs"]) == 0


def test_maps_of_which_nothing_was_said(web_server: WebServer, tmp_path: Path) -> None:
    """Who posts nothing but coverage sees it all the same."""
    puppet = Puppet(tmp_path).show(web_server)
    puppet.cover_all()
    covered = families(web_server.port)["fuzzserver_target_covered_points"]
    assert values(covered) == [
        ({"target": puppet.executable.name, "key": str(puppet.executable)}, len(puppet.points))
    ]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_hostile_names(web_server: WebServer, name: str) -> None:
    """Each comes back as it was; what is no UTF-8 is written out."""
    test = TestStatus(name, "fuzzing", n_runs=5)
    web_server.set_target(TargetStatus(f"key {name}", name, "fuzzing", tests=(test,)))
    known = name.encode("utf-8", "backslashreplace").decode()
    found = families(web_server.port)["fuzzserver_test_runs"]
    assert values(found) == [({"target": known, "key": f"key {known}", "test": known}, 5)]


def test_names_that_look_alike_when_written_out(web_server: WebServer) -> None:
    """No sample is there twice, which would spoil them all."""
    tests = tuple(TestStatus(name, "fuzzing", n_runs=1) for name in ("\udcff", "\\udcff"))
    web_server.set_target(TargetStatus("a", "a", "fuzzing", tests=tests))
    assert len(values(families(web_server.port)["fuzzserver_test_runs"])) == 1


def test_findings(web_server: WebServer, tmp_path: Path) -> None:
    """By their kinds."""
    store = FindingStore(tmp_path / "findings")
    for number, kind in enumerate(("panic", "hang", "panic")):
        store.add(finding(number, kind=kind), b"")
    web_server.set_findings(store)
    found = families(web_server.port)["fuzzserver_findings"]
    assert sorted((labels["kind"], count) for labels, count in values(found)) == [("hang", 1), ("panic", 2)]


def test_viewers_and_connections(web_server: WebServer) -> None:
    """A viewer is a connection, too, until it leaves."""
    with viewer(web_server.port), viewer(web_server.port):
        found = families(web_server.port)
        assert value(found["fuzzserver_viewers"]) == 2
        assert value(found["fuzzserver_connections"]) >= 3
    eventually(
        lambda: value(families(web_server.port)["fuzzserver_viewers"]) == 0, "viewers that left are counted"
    )


def sample(when: float, n_runs: int, flags: int = 0) -> HistorySample:
    """A sample of runs alone."""
    return HistorySample(when, n_runs, 0, 0, flags)


def test_speed() -> None:
    """That of the last seconds, for which somebody looked and the fuzzer did not begin anew."""
    start = HistorySample.START
    steady = [sample(second, 100 * second) for second in range(60)]
    assert runs_per_second([], 0) == 0
    assert runs_per_second([sample(5, 1000, start)], 5) == 0
    assert runs_per_second(steady, 59.5) == 100
    assert runs_per_second(steady, 59 + SPEED_SECONDS + 1) == 0
    assert runs_per_second([*steady, sample(60, 9000, start), sample(62, 9100)], 62) == 50
    assert runs_per_second([*steady, sample(60, 10, start), sample(61, 17)], 61) == 7
    # Faster since a moment ago: half of the time that counts.
    faster = [*steady, *(sample(60 + second, 6000 + 300 * second) for second in range(6))]
    assert runs_per_second(faster, 65) == (7500 - 5500) / SPEED_SECONDS


def test_speed_of_a_map(web_server: WebServer, tmp_path: Path) -> None:
    """A fuzzer that runs has one, as soon as two samples are there."""
    puppet = Puppet(tmp_path).show(web_server)

    def is_fast() -> bool:
        puppet.run(1000)
        time.sleep(0.05)
        return value(families(web_server.port)["fuzzserver_target_runs_per_second"]) > 5

    eventually(is_fast, "nothing is told of the speed")


def test_head_and_methods(web_server: WebServer) -> None:
    """As any other route: HEAD gives the same head, and a query is for none."""
    assert request(web_server.port, "/metrics", "HEAD").status == 200
    assert request(web_server.port, "/metrics", "POST").status == 405
    assert request(web_server.port, "/metrics?name=x").status == 404
    assert request(web_server.port, "/metrics/").status == 404


def test_a_million_points_are_counted_at_once(web_server: WebServer, tmp_path: Path) -> None:
    """Each scrape takes some milliseconds, not the seconds of a report."""
    puppet = big_map(tmp_path)
    puppet.cover_share(3)
    puppet.show(web_server)
    coverage_map = web_server.coverage_files.first()
    assert coverage_map is not None and numbers_of(coverage_map).covered == 333_334
    best = min(_seconds(web_server.port) for _ in range(10))
    assert best < 1, best


def _seconds(port: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        begun = time.monotonic()
        connection.request("GET", "/metrics")
        assert b'_points{target="' in connection.getresponse().read()
        return time.monotonic() - begun
    finally:
        connection.close()
