"""``/api/1`` and ``/report``: what other programs ask for, as HTTP answers.

``ROUTES`` names all of them. In ``/api/1``, fields may be added; what goes, or means something else, makes a
version of its own. Names and values are those of the JSON report.
"""

import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple

from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.report.collect import collect_findings, collect_target
from fuzzserver.report.formats import FORMATS, HTML, report_bytes
from fuzzserver.report.json_form import finding_json
from fuzzserver.report.model import TargetReport
from fuzzserver.status import TargetStatus
from fuzzserver.version import __version__
from fuzzserver.web.answer import Answer, Heavy
from fuzzserver.web.fuzz_data import corpora_json
from fuzzserver.web.site import Site
from fuzzserver.web.target_numbers import all_targets, map_of, numbers_of, target_of
from fuzzserver.wire.abi import coverage_file_name

__all__ = ["FILE_NAMES", "ROUTES", "VERSION", "api"]

VERSION = 1

FILE_NAMES = {
    "lcov": "fuzzserver.lcov.info",
    "cobertura": "fuzzserver.cobertura.xml",
    "json": "fuzzserver.json",
    "junit": "fuzzserver.junit.xml",
    "sarif": "fuzzserver.sarif",
    "markdown": "fuzzserver.md",
    HTML: "fuzzserver.html",
}
"""What reports are called where they are saved: as those who read them look for them."""

PLACES = {"ID": "[0-9a-f]{16}", "FINDING": "[0-9a-f]{1,64}", "FORMAT": "[a-z]{1,16}"}


class _Unknown(Exception):
    """There is no such thing; the text says which."""


def api(site: Site, path: str) -> Answer | Heavy | None:
    """The answer to a request for ``path``; None if that is none of ours."""
    if path not in ("/api", "/report") and not path.startswith(("/api/", "/report/")):
        return None
    try:
        for route in ROUTES:
            match = re.fullmatch(_pattern(route.path), path)
            if match is not None:
                return route.answer(site, *match.groups())
        raise _Unknown(f"there is no such route: /api/{VERSION} lists those that there are")
    except _Unknown as error:
        return Answer("text/plain", str(error).encode(), status=HTTPStatus.NOT_FOUND)


def _pattern(path: str) -> str:
    return re.sub("[A-Z]+", lambda place: f"({PLACES[place[0]]})", path)


def _index(site: Site) -> Answer:
    routes = [{"path": route.path, "what": route.what} for route in ROUTES]
    return _json({"version": VERSION, "server": f"fuzzserver {__version__}", "routes": routes})


# ---------------------------------------------------------------------- targets


def _targets(site: Site) -> Answer:
    return _json({"targets": [_target_json(*each) for each in all_targets(site)]})


def _target(site: Site, name: str) -> Answer:
    coverage_map = _map(site, name)
    return _json(_target_json(target_of(site, coverage_map), coverage_map))


def _target_json(target: dict[str, Any], coverage_map: CoverageMap | None) -> dict[str, Any]:
    """What was said of it, then what its map tells: null for all of that if there is none."""
    tests = [
        {"runs": test["n_runs"]} | {name: value for name, value in test.items() if name != "n_runs"}
        for test in target["tests"]
    ]
    facts = None if coverage_map is None else coverage_map.facts
    numbers = None if coverage_map is None else numbers_of(coverage_map)
    return target | {
        "id": target["id"] if coverage_map is None else coverage_file_name(coverage_map.coverage_id),
        "tests": tests,
        "executable": None if facts is None else str(facts.path),
        "zig_version": None if facts is None else facts.zig_version,
        "points": None if numbers is None else numbers.points,
        "covered": None if numbers is None else numbers.covered,
        "runs": None if numbers is None else numbers.runs,
        "unique_runs": None if numbers is None else numbers.unique_runs,
        "runs_per_second": None if numbers is None else numbers.runs_per_second,
        "oddities": None if coverage_map is None else list(coverage_map.oddities),
    }


def _files(site: Site, name: str) -> Heavy:
    coverage_map = _map(site, name)

    def make() -> Answer:
        files = [
            {
                "name": each.name,
                "points": each.points,
                "covered": each.covered,
                "lines": len(each.lines),
                "lines_covered": each.lines_covered,
            }
            for each in _target_report(coverage_map).points.by_file
        ]
        return _json({"id": name, "files": files})

    return Heavy(make)


def _functions(site: Site, name: str) -> Heavy:
    coverage_map = _map(site, name)

    def make() -> Answer:
        functions = [
            {
                "name": each.name,
                "file": each.file,
                "line": each.line,
                "points": each.points,
                "covered": each.covered,
            }
            for each in _target_report(coverage_map).points.by_function
        ]
        return _json({"id": name, "functions": functions})

    return Heavy(make)


def _history(site: Site, name: str) -> Answer:
    coverage_map = _map(site, name)
    samples = [
        [each.time, each.n_runs, each.unique_runs, each.covered] for each in coverage_map.history.samples
    ]
    return _json({"id": name, "history": samples, "marks": site.details(coverage_map)["marks"]})


def _map(site: Site, name: str) -> CoverageMap:
    coverage_map = map_of(site.coverage_files, name)
    if coverage_map is None:
        raise _Unknown(f"there is no coverage map {name}")
    return coverage_map


def _target_report(coverage_map: CoverageMap) -> TargetReport:
    return collect_target(TargetStatus("", "", ""), coverage_map)


# --------------------------------------------------------- findings and corpora


def _findings(site: Site) -> Answer:
    return _json({"findings": site.status()["findings"]})


def _finding(site: Site, finding_id: str) -> Answer:
    store = site.findings()
    finding = None if store is None else store.get(finding_id)
    if store is None or finding is None:
        raise _Unknown(f"there is no finding {finding_id}")
    (report,) = collect_findings(store, [finding])
    return _json(finding_json(report))


def _corpora(site: Site) -> Answer:
    return _json(corpora_json(site))


# ---------------------------------------------------------------------- reports


def _report(site: Site) -> Heavy:
    return Heavy(lambda: Answer("application/json", report_bytes("json", site.report())))


def _report_file(site: Site, name: str) -> Heavy:
    if name == HTML:
        return Heavy(lambda: _download(name, "text/html; charset=utf-8", site.static_page()))
    if name not in FORMATS:
        raise _Unknown(f"there is no such format: {', '.join(FILE_NAMES)}")
    content_type = FORMATS[name].content_type
    return Heavy(lambda: _download(name, content_type, report_bytes(name, site.report())))


def _download(name: str, content_type: str, content: bytes) -> Answer:
    disposition = f'attachment; filename="{FILE_NAMES[name]}"'
    return Answer(content_type, content, (("content-disposition", disposition),))


def _json(value: object) -> Answer:
    return Answer("application/json", json.dumps(value).encode())


class _Route(NamedTuple):
    path: str
    """With the names of ``PLACES`` for what may stand there."""
    answer: Callable[..., Answer | Heavy]
    what: str
    """For people."""


ROUTES = (
    _Route("/api/1", _index, "this list"),
    _Route("/api/1/targets", _targets, "all targets: states, numbers, tests"),
    _Route("/api/1/targets/ID", _target, "the target of a coverage map"),
    _Route("/api/1/files/ID", _files, "numbers of each source file"),
    _Route("/api/1/functions/ID", _functions, "numbers of each function"),
    _Route("/api/1/history/ID", _history, "how runs and coverage grew"),
    _Route("/api/1/findings", _findings, "all findings, the oldest first"),
    _Route("/api/1/findings/FINDING", _finding, "one finding with its input"),
    _Route("/api/1/corpus", _corpora, "the inputs that the fuzzer keeps"),
    _Route("/api/1/report", _report, "the whole report, as JSON"),
    _Route("/report/FORMAT", _report_file, f"a report as a file: {', '.join(FILE_NAMES)}"),
)
