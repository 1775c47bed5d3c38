"""fuzzserver: watch a fuzzer reach your code, live, in a browser.

How data flows, and which module has which part of it::

    zig test -ffuzz           fuzz test executable                 browser
         |  --listen protocol      |  test runner protocol           ^
         v                         v            writes               | HTTP, WebSocket
    zig.compile_client        fuzz.worker  ---> <cache>/v/<id>       |
         | executable, inputs      | coverage id, entry point |      |
         v                         v                          |      |
    fuzz.driver, test_run  coverage.queue (condition)         |      |
                                   v                          |      |
                       thread "coverage": coverage_run        |      |
                          coverage.info, line_program         v      |
                          coverage.coverage_map  <--- coverage.seen_pcs
                                   |                                 |
                                   +------> web.session, web.server -+

``webserver`` builds the server, top to bottom, and ``fuzz.driver`` what runs beside it. Each layer imports
only those before it: ``errors``, ``wire``, ``findings``, ``step``, ``corpus`` | ``zig`` and ``coverage`` |
``report`` | ``observer`` | ``fuzz`` and ``web`` | ``webserver`` | ``fuzz_session`` | ``fuzzing``,
``showing``, ``reproducing`` | ``cli``.

A build driver needs a ``WebServer``, or an ``Observer`` where nobody looks, and a ``FuzzSession``, which
builds and fuzzes. One that runs workers of its own tells a ``FuzzRunStep`` for each executable instead, and
posts a ``CoverageMsg`` and an ``EntryPointMsg`` for each worker. ``docs/embedding.md`` shows both.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fuzzserver.version import __version__

if TYPE_CHECKING:
    from fuzzserver.access import Access, Limits
    from fuzzserver.corpus import Corpus
    from fuzzserver.coverage.queue import CoverageMsg, EntryPointMsg
    from fuzzserver.errors import FuzzServerError, InputError
    from fuzzserver.events import CoverageEvent, Event, FindingEvent, ProgressEvent, StatusEvent, TargetEvent
    from fuzzserver.exit_code import ExitCode
    from fuzzserver.findings import Finding, FindingStore
    from fuzzserver.fuzz.budget import Budget, Ending
    from fuzzserver.fuzz.options import FuzzOptions
    from fuzzserver.fuzz.worker import WorkerLimits
    from fuzzserver.fuzz_session import FuzzProject, FuzzSession, Outcome
    from fuzzserver.observer import Observer
    from fuzzserver.report.formats import report_bytes, write_report
    from fuzzserver.report.model import Report, Verdict
    from fuzzserver.status import Progress, Status, TargetStatus, TestStatus
    from fuzzserver.step import FuzzRunStep, SourcePath
    from fuzzserver.verdict import Judged, judge
    from fuzzserver.webserver import WebServer
    from fuzzserver.zig.installation import Zig, find_zig

__all__ = [
    "Access",
    "Budget",
    "Corpus",
    "CoverageEvent",
    "CoverageMsg",
    "Ending",
    "EntryPointMsg",
    "Event",
    "ExitCode",
    "Finding",
    "FindingEvent",
    "FindingStore",
    "FuzzOptions",
    "FuzzProject",
    "FuzzRunStep",
    "FuzzServerError",
    "FuzzSession",
    "InputError",
    "Judged",
    "Limits",
    "Observer",
    "Outcome",
    "Progress",
    "ProgressEvent",
    "Report",
    "SourcePath",
    "Status",
    "StatusEvent",
    "TargetEvent",
    "TargetStatus",
    "TestStatus",
    "Verdict",
    "WebServer",
    "WorkerLimits",
    "Zig",
    "__version__",
    "find_zig",
    "judge",
    "report_bytes",
    "write_report",
]

_MODULES = {
    "Access": "access",
    "Budget": "fuzz.budget",
    "Corpus": "corpus",
    "CoverageEvent": "events",
    "CoverageMsg": "coverage.queue",
    "Ending": "fuzz.budget",
    "EntryPointMsg": "coverage.queue",
    "Event": "events",
    "ExitCode": "exit_code",
    "Finding": "findings",
    "FindingEvent": "events",
    "FindingStore": "findings",
    "FuzzOptions": "fuzz.options",
    "FuzzProject": "fuzz_session",
    "FuzzRunStep": "step",
    "FuzzServerError": "errors",
    "FuzzSession": "fuzz_session",
    "InputError": "errors",
    "Judged": "verdict",
    "Limits": "access",
    "Observer": "observer",
    "Outcome": "fuzz_session",
    "Progress": "status",
    "ProgressEvent": "events",
    "Report": "report.model",
    "SourcePath": "step",
    "Status": "status",
    "StatusEvent": "events",
    "TargetEvent": "events",
    "TargetStatus": "status",
    "TestStatus": "status",
    "Verdict": "report.model",
    "WebServer": "webserver",
    "WorkerLimits": "fuzz.worker",
    "Zig": "zig.installation",
    "find_zig": "zig.installation",
    "judge": "verdict",
    "report_bytes": "report.formats",
    "write_report": "report.formats",
}
"""Where the names above are. Who wants one of them need not wait for the others, of which a server takes
longest to import."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _MODULES:
        raise AttributeError(f"module 'fuzzserver' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(f"fuzzserver.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
