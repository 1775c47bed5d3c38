"""Zig's own server and ours, side by side, on the same executable and coverage file."""

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzzserver import paths
from fuzzserver.coverage.queue import CoverageMsg, EntryPointMsg
from fuzzserver.coverage.seen_pcs import SeenPcs
from fuzzserver.webserver import WebServer
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.wasm import build_wasm_binary
from tests.projects import FuzzedPair, write_project, zig_viewer, zig_web_server
from tests.support_browser import PATIENCE, Page
from tests.support_web import Seen, request, viewer, watch
from tests.support_zig_server import end_fuzzers, find_pair

pytestmark = pytest.mark.timeout(900)

ROUTES = (
    "/",
    "/debug",
    "/debug/",
    "/main.js",
    "/debug/main.js",
    "/main.wasm",
    "/debug/main.wasm",
    "/sources.tar",
    "/debug/sources.tar",
    "/nothing",
    "/main.js?x=1",
    "/index.html",
    "/debug/nothing",
)


class BothServers:
    """Zig's server with its fuzzers ended, and ours on what they left; both serve our page."""

    def __init__(self, lib_dir: Path, zig_port: int, ours: WebServer, zig_seen: Seen) -> None:
        self.lib_dir = lib_dir
        self.zig_port = zig_port
        self.ours = ours
        self.zig_seen = zig_seen


@pytest.fixture(scope="module")
def lib_dir(zig: Zig, work: Path, debug_pair: FuzzedPair) -> Path:
    """Zig's own lib folder, but for the page, which is ours.

    After ``debug_pair``: what Zig compiles once for all, its runtime, must have come from its own folder. Of
    files elsewhere, other tests would say that they are the user's.
    """
    lib_dir = work / "lib-with-our-page"
    shutil.rmtree(lib_dir, ignore_errors=True)
    (lib_dir / "fuzzer").mkdir(parents=True)
    for entry in zig.lib_dir.iterdir():
        if entry.name != "fuzzer":
            (lib_dir / entry.name).symlink_to(entry)
    shutil.copytree(paths.lib_dir() / "fuzzer" / "web", lib_dir / "fuzzer" / "web")
    return lib_dir


@pytest.fixture(scope="module", params=["Debug", pytest.param("ReleaseSafe", marks=pytest.mark.slow)])
def both(request, zig: Zig, zig_cache: Path, lib_dir: Path, work: Path) -> Iterator[BothServers]:
    """Both servers, in each optimize mode."""
    project = work / f"parity-{request.param}"
    write_project(project)
    flag = f"-Doptimize={request.param}"
    with zig_web_server(zig.path, project, zig_cache, flag, lib_dir=lib_dir) as (port, pid):
        with zig_viewer(port) as connection:
            seen = watch(connection)  # Only if a fuzzer has covered something.
            while len(seen.entry_points) < 4 + 2 * 4:
                seen.entry_points = watch(connection, "entry_points").entry_points
            indexes = struct.unpack("<2I", seen.entry_points[4:])
        end_fuzzers(pid)
        with zig_viewer(port) as connection:
            zig_seen = watch(connection)
        step, coverage_id = find_pair(project)
        seen_pcs = SeenPcs(step.coverage_file_path(coverage_id))
        with WebServer(fuzz_run_steps=(step,), zig=zig, lib_dir=lib_dir, cache_dir=zig_cache) as ours:
            ours.post(CoverageMsg(coverage_id, step))
            for index in indexes:
                ours.post(EntryPointMsg(coverage_id, seen_pcs.pc_addrs()[index]))
            yield BothServers(lib_dir, port, ours, zig_seen)
        seen_pcs.close()


def test_all_messages_are_equal_byte_for_byte(both: BothServers) -> None:
    """Tables, bits and entry points are those of Zig's server, and come in the same order."""
    with viewer(both.ours.port) as connection:
        ours = watch(connection)
        while len(ours.entry_points) < len(both.zig_seen.entry_points):
            ours.entry_points = watch(connection, "entry_points").entry_points
    assert len(ours.tables) > 50_000
    assert ours.tables == both.zig_seen.tables
    assert ours.coverage_update == both.zig_seen.coverage_update
    assert ours.entry_points == both.zig_seen.entry_points
    assert len(ours.current_time) == len(both.zig_seen.current_time)
    assert list(dict.fromkeys(ours.order)) == list(dict.fromkeys(both.zig_seen.order))


@pytest.mark.parametrize("path", ROUTES)
def test_routes_are_equal(both: BothServers, path: str) -> None:
    """Status, content type, cache control and the body are those of Zig's server.

    But for the tar, and for the page's wasm, which we have made small.
    """
    zig, ours = request(both.zig_port, path), request(both.ours.port, path)
    assert ours.status == zig.status
    for name in ("content-type", "cache-control", "transfer-encoding"):
        assert ours.headers.get(name) == zig.headers.get(name), name
    if not path.endswith(".tar") and path != "/main.wasm":
        assert ours.body == zig.body


def test_wasm_is_built_alike(both: BothServers, client: ZigCompileClient) -> None:
    """But for the optimize mode: in that of Zig's server, the page's wasm is that of Zig's server."""
    path = build_wasm_binary(client, both.lib_dir, "ReleaseFast")
    wasm = path.read_bytes()
    assert wasm == request(both.zig_port, "/main.wasm").body
    assert len(request(both.ours.port, "/main.wasm").body) < len(wasm) / 5


def test_placeholders_are_there_in_release_builds(both: BothServers) -> None:
    """The executables of this test have what makes release builds special, or do not."""
    step = both.ours._fuzz_run_steps[0]
    _, coverage_id = find_pair(step.cache_root.parent)
    seen_pcs = SeenPcs(step.coverage_file_path(coverage_id))
    placeholders = seen_pcs.pc_addrs().count(1)
    seen_pcs.close()
    assert (placeholders > 0) == ("ReleaseSafe" in str(step.cache_root))


def test_our_page_works_on_zigs_server(page: Page, both: BothServers) -> None:
    """Our page can't tell Zig's server from ours, except that it is told less."""
    # No module and no sheet of the page is among the routes of that server, and it refuses our subprotocol.
    page.expect("404", "WebSocket connection", "MIME type")
    page.visit(f"http://127.0.0.1:{both.zig_port}/")
    page.until(lambda: page.is_shown("#fileFilter"), PATIENCE)
    # Of the many files, only those in sight are in the document.
    page.fill("#fileFilter", "src/parser")
    page.until_text("#fileScroll", "parser.zig", timeout=PATIENCE)
    page.until_text("#connection", "connected")
    page.click("#entryPointsList a")
    page.until(lambda: page.texts("#sourceScroll .mark.covered"), PATIENCE)
    page.until(lambda: page.text("#statTotalRuns")[:1].isdigit())
    # It looks as it should, although that server has no style sheet.
    assert page.script("return document.querySelector('.mark').getBoundingClientRect().width") > 3
    assert page.script("return getComputedStyle(document.querySelector('.sourceRow')).position") == "absolute"
    assert not page.is_shown("#views")
    page.click("#tabFunctions")
    page.until_text("#panelFunctions", "does not tell")
    page.until_text("#chart", "keeps no history")
