"""A server that has something of everything, each with a text that nobody may read who is turned away."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzzserver import FuzzRunStep, SourcePath, TargetStatus, WebServer
from fuzzserver.corpus import Corpus
from fuzzserver.findings import Finding, FindingStore
from fuzzserver.web.api import FILE_NAMES
from fuzzserver.wire.abi import coverage_file_name
from tests.support_maps import number_of, show_map
from tests.support_native import code_addresses, hand_made_step
from tests.support_time import eventually
from tests.support_zig_fake import fake_zig

CANARY = b"canary-7d1f"
"""In each source, input, finding and name of a target."""

PAGE = ("/", "/debug", "/debug/", "/main.js", "/debug/main.js", "/app.js", "/style.css", "/debug/style.css")
DATA = ("/targets.json", "/findings.json", "/findings/c0ffee.json", "/findings/c0ffee.input", "/corpus.json")
MORE = (
    "/corpus/0.tar",
    "/corpus/0/1",
    "/main.wasm",
    "/debug/main.wasm",
    "/sources.tar",
    "/debug/sources.tar",
)
API = (
    "/api/1",
    "/api/1/targets",
    "/api/1/targets/ID",
    "/api/1/history/ID",
    "/api/1/findings",
    "/api/1/findings/c0ffee",
    "/api/1/corpus",
)
"""With ``ID`` for the name of the map."""
LIVE = (
    "/metrics",
    "/api/1/files/ID",
    "/api/1/functions/ID",
    "/api/1/report",
    *(f"/report/{name}" for name in FILE_NAMES),
)
"""Made for each request anew, one at a time: not the same twice."""
NOTHING = "/nothing"


@dataclass(frozen=True)
class Site:
    """The running server, and what can be asked for."""

    server: WebServer
    steady: tuple[str, ...]
    """Paths that are answered with 200, and always with the same."""
    live: tuple[str, ...]
    """Those that are answered with something else each time."""

    @property
    def routes(self) -> tuple[str, ...]:
        """All paths that are answered with 200."""
        return self.live + self.steady

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.port

    @property
    def host(self) -> str:
        """What clients call it."""
        return f"localhost:{self.port}"


def is_building_ahead(server: WebServer) -> bool:
    """Whether the page's wasm is yet to be made for which nobody has asked."""
    return any(thread.name == "wasm" and thread.is_alive() for thread in server._threads)


@contextmanager
def furnished(folder: Path, **options: Any) -> Iterator[Site]:
    """A server with a page, sources, a map, a target, a finding and a corpus; ``options`` go to WebServer.

    Its compiler makes nothing and takes no time.
    """
    source = folder / "canary.c"
    source.write_text(f"/* {CANARY.decode()} */\nint main(void)\n{{\n    return 0;\n}}\n")
    executable = folder / "canary"
    subprocess.run(["gcc", "-g", "-no-pie", "-o", executable, source], check=True)
    map_step = hand_made_step(folder, executable, code_addresses(executable))
    inputs = folder / "inputs"
    inputs.mkdir()
    (inputs / "1").write_bytes(CANARY)
    findings = FindingStore(folder / "findings")
    findings.add(Finding("c0ffee", "panic", CANARY.decode(), CANARY.decode(), "t", 1.0, 1.0), CANARY)
    with WebServer(zig=fake_zig(folder / "zig"), cache_dir=folder / "cache", **options) as server:
        server.add_step(FuzzRunStep("x", executable, inputs=(SourcePath(str(folder), source.name),)))
        server.set_target(TargetStatus(CANARY.decode(), CANARY.decode(), "fuzzing"))
        server.set_findings(findings)
        server.add_corpus(Corpus(inputs, CANARY.decode(), "t"))
        coverage_map = show_map(server, map_step, 7)
        coverage_map.record()  # The history begins, and nothing happens after that.
        name = coverage_file_name(7)
        number = number_of(coverage_map, "/canary.c")
        eventually(lambda: not is_building_ahead(server), "the page's wasm is not built")
        steady = (*PAGE, *DATA, *MORE, *API, f"/points/{name}", f"/source/{name}/{number}")
        yield Site(server, *(tuple(path.replace("ID", name) for path in paths) for paths in (steady, LIVE)))
