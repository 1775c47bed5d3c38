"""``/metrics``: numbers for Prometheus and what else reads OpenMetrics text 1.0.

Quickly made however many points there are, for it is asked for every few seconds, for ever.
"""

import os
from collections import Counter
from functools import cache
from typing import NamedTuple

from fuzzserver.version import __version__
from fuzzserver.web.answer import Answer
from fuzzserver.web.limits import Load
from fuzzserver.web.site import Site
from fuzzserver.web.target_numbers import all_targets, numbers_of

__all__ = ["CONTENT_TYPE", "metrics", "metrics_text"]

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

WORKER_STATES = ("waiting", "fuzzing", "crashed", "restarting", "stopped", "failed", "never started")
"""Each is there even if it is that of no worker, so that nobody waits for a number in vain."""

Labels = tuple[tuple[str, str], ...]


class _Family(NamedTuple):
    """All numbers of one name."""

    name: str
    kind: str
    """``counter``, ``gauge`` or ``info``."""
    what: str
    """For people, one line."""
    unit: str
    """With which the name ends; empty if it has none."""
    values: dict[Labels, float]
    """One for each set of labels, of which no two are equal."""


def metrics(site: Site, load: Load) -> Answer:
    """The answer to a request."""
    return Answer(CONTENT_TYPE, metrics_text(site, load))


def metrics_text(site: Site, load: Load) -> bytes:
    """All numbers as they are now."""
    families = (*_of_targets(site), *_of_session(site), *_of_server(load))
    text = "".join(map(_text, families)) + "# EOF\n"
    return text.encode()


def _of_targets(site: Site) -> list[_Family]:
    runs = _counter("target_runs", "Runs of a target's tests, those before the server's start among them.")
    unique_runs = _counter("target_unique_runs", "Runs that reached something new.")
    points = _gauge("target_points", "Instrumented points.")
    covered = _gauge("target_covered_points", "Points that were reached.")
    speed = _gauge("target_runs_per_second", "Speed in the last ten seconds.")
    test_runs = _counter("test_runs", "Runs of one test, where they can be told from those of other tests.")
    restarts = _counter("test_restarts", "How often the worker of a test was started again.")
    for target, coverage_map in all_targets(site):
        labels = _labels(target=target["name"], key=target["key"])
        if coverage_map is not None:
            numbers = numbers_of(coverage_map)
            runs.values[labels] = numbers.runs
            unique_runs.values[labels] = numbers.unique_runs
            points.values[labels] = numbers.points
            covered.values[labels] = numbers.covered
            speed.values[labels] = numbers.runs_per_second
        for test in target["tests"]:
            of_test = labels + _labels(test=test["name"])
            if test["n_runs"] is not None:
                test_runs.values[of_test] = test["n_runs"]
            restarts.values[of_test] = test["restarts"]
    return [runs, unique_runs, points, covered, speed, test_runs, restarts]


def _of_session(site: Site) -> list[_Family]:
    status = site.status()
    states = Counter(test["state"] for target in status["targets"] for test in target["tests"])
    workers = _gauge("workers", "Workers, one for each test, by what they do.")
    for state in dict.fromkeys((*WORKER_STATES, *states)):
        workers.values[_labels(state=state)] = states[state]
    findings = _gauge("findings", "Different findings, those of earlier sessions among them.")
    for kind, count in Counter(each["kind"] for each in status["findings"]).items():
        findings.values[_labels(kind=kind)] = count
    return [workers, findings]


def _of_server(load: Load) -> list[_Family]:
    return [
        _Family("fuzzserver_build", "info", "The server's version.", "", {_labels(version=__version__): 1}),
        _gauge("connections", "Open connections, those of viewers among them.", load.connections),
        _gauge("viewers", "Open WebSockets.", load.viewers),
        _Family(
            "process_resident_memory_bytes",
            "gauge",
            "Memory of the server's process.",
            "bytes",
            {(): _memory()},
        ),
        _Family(
            "process_start_time_seconds",
            "gauge",
            "When the server's process was started, in seconds since 1970.",
            "seconds",
            {(): _process_start()},
        ),
    ]


def _counter(name: str, what: str) -> _Family:
    return _Family(f"fuzzserver_{name}", "counter", what, "", {})


def _gauge(name: str, what: str, value: float | None = None) -> _Family:
    return _Family(f"fuzzserver_{name}", "gauge", what, "", {} if value is None else {(): value})


def _labels(**labels: str) -> Labels:
    # Names of files need not be UTF-8.
    return tuple((name, value.encode("utf-8", "backslashreplace").decode()) for name, value in labels.items())


def _memory() -> int:
    """Of this process, in bytes."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@cache
def _process_start() -> float:
    """As the system says."""
    with open("/proc/self/stat", "rb") as file:
        ticks = int(file.read().rpartition(b")")[2].split()[19])  # What is before may hold anything.
    with open("/proc/stat", "rb") as file:
        boot = next(int(line.split()[1]) for line in file if line.startswith(b"btime "))
    return boot + ticks / os.sysconf("SC_CLK_TCK")


# ------------------------------------------------------------------------- text

_SUFFIXES = {"counter": "_total", "gauge": "", "info": "_info"}


def _text(family: _Family) -> str:
    lines = [f"# TYPE {family.name} {family.kind}"]
    if family.unit:
        lines.append(f"# UNIT {family.name} {family.unit}")
    lines.append(f"# HELP {family.name} {family.what}")
    name = family.name + _SUFFIXES[family.kind]
    lines += [f"{name}{_labels_text(labels)} {value}" for labels, value in family.values.items()]
    return "\n".join(lines) + "\n"


def _labels_text(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
