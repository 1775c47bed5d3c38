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

A build driver needs ``WebServer``, and for each executable a ``FuzzRunStep``; it posts a
``CoverageMsg`` and an ``EntryPointMsg`` for each worker.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fuzzserver.version import __version__

if TYPE_CHECKING:
    from fuzzserver.access import Access, Limits
    from fuzzserver.coverage.queue import CoverageMsg, EntryPointMsg
    from fuzzserver.errors import FuzzServerError
    from fuzzserver.status import TargetStatus, TestStatus
    from fuzzserver.step import FuzzRunStep, SourcePath
    from fuzzserver.webserver import WebServer
    from fuzzserver.zig.installation import Zig, find_zig

__all__ = [
    "Access",
    "CoverageMsg",
    "EntryPointMsg",
    "FuzzRunStep",
    "FuzzServerError",
    "Limits",
    "SourcePath",
    "TargetStatus",
    "TestStatus",
    "WebServer",
    "Zig",
    "__version__",
    "find_zig",
]

_MODULES = {
    "Access": "access",
    "CoverageMsg": "coverage.queue",
    "EntryPointMsg": "coverage.queue",
    "FuzzRunStep": "step",
    "FuzzServerError": "errors",
    "Limits": "access",
    "SourcePath": "step",
    "TargetStatus": "status",
    "TestStatus": "status",
    "WebServer": "webserver",
    "Zig": "zig.installation",
    "find_zig": "zig.installation",
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
