"""Real programs in a real browser: our page and Zig's, on our server."""

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzzserver import FuzzRunStep, WebServer, paths
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.wasm import build_wasm_binary
from tests.projects import FuzzedPair, locked
from tests.support_browser import PATIENCE, Page
from tests.support_maps import show_pair, write_seen
from tests.support_time import WAIT


@pytest.fixture
def copied(debug_pair: FuzzedPair, tmp_path: Path) -> FuzzRunStep:
    """A step whose coverage file is a copy that the test may change."""
    path = tmp_path / "coverage"
    path.write_bytes(debug_pair.coverage_file.read_bytes())
    return FuzzRunStep("copied", debug_pair.executable, inputs=debug_pair.step.inputs, coverage_file=path)


def test_page_shows_what_a_real_fuzzer_has_covered(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair, copied: FuzzRunStep
) -> None:
    """All that a first look needs, counters that move, and a source whose marks follow."""
    write_seen(copied, 1_234, b"\0")
    show_pair(web_server, copied, debug_pair)
    page.visit(web_server.url)
    page.until_text("#statTotalRuns", "1,234")
    page.until_text("#statCoverage", "0.0 %")
    page.until(lambda: len(page.texts("#entryPointsList a")) == 2)
    assert all("main.zig:" in text for text in page.texts("#entryPointsList a"))
    page.until_text("#fileScroll", "parser.zig")
    page.until(lambda: "main.fuzzSum" in page.texts("#entryPointsList p") or page.texts("#entryPointsList p"))
    page.fill("#fileFilter", "src/parser")
    page.until(lambda: page.texts("#fileScroll a") == ["parser.zig"])
    page.click("#fileScroll a")
    page.until(lambda: len(page.texts("#sourceScroll .mark")) > 5)
    assert "pub fn depth" in page.text("#sourceScroll")
    assert page.texts("#sourceScroll .mark.covered") == []
    write_seen(copied, 5_678, b"\xff")
    page.until_text("#statTotalRuns", "5,678")
    page.until_text("#statCoverage", "100.0 %")
    page.until(lambda: page.texts("#sourceScroll .mark.missed") == [])
    assert len(page.texts("#sourceScroll .mark.covered")) > 5
    assert "fuzzserver" in page.driver.title


def test_functions_of_a_real_executable_are_named(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair
) -> None:
    """As the compiler names them, with what is covered of them."""
    show_pair(web_server, debug_pair.step, debug_pair)
    page.visit(web_server.url)
    page.click("#tabFunctions")
    page.fill("#functionFilter", "parser.")
    page.until(lambda: sorted(page.texts("#functionScroll .listName")) == ["parser.depth", "parser.sum"])
    page.click("#functionScroll a")
    page.until_text("#sourceTitle", "parser.zig")
    page.until_shown("#sourceScroll .mark.current")


def test_debug_page_works(page: Page, web_server: WebServer, debug_pair: FuzzedPair) -> None:
    """The page below /debug/ has its own wasm and its own WebSocket path, and the same files."""
    show_pair(web_server, debug_pair.step, debug_pair)
    page.visit(f"{web_server.url}debug/")
    page.until_text("#fileScroll", "parser.zig")
    page.click("#entryPointsList a")
    page.until_shown("#sourceScroll .mark.current")
    page.click("#tabFunctions")
    page.until_text("#functionScroll", "parser.sum")


def test_page_does_not_deny_coverage_while_it_loads(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its wasm is compiled the page can't read the tables, and says what it waits for."""
    go_on = threading.Event()

    def build_late(*args) -> Path:
        go_on.wait(PATIENCE)
        return build_wasm_binary(*args)

    monkeypatch.setattr("fuzzserver.zig.page_compiler.build_wasm_binary", build_late)
    show_pair(web_server, debug_pair.step, debug_pair)
    try:
        page.open(web_server.url)
        page.until_text("#serverState", "serving")
        page.until_text("#noticeTitle", "Preparing the page")
        assert "Loading WebAssembly" in page.text("#status")
        assert "No coverage" not in page.find("main").text
    finally:
        go_on.set()
    page.until_text("#fileScroll", "parser.zig", timeout=PATIENCE)
    page.until_hidden("#notice")


def test_page_explains_an_executable_without_debug_info(
    page: Page, web_server: WebServer, small_pair: FuzzedPair
) -> None:
    """Counters are shown, and the reason for the missing source."""
    show_pair(web_server, small_pair.step, small_pair)
    page.visit(web_server.url)
    page.until_text("#notice", "no debug info")
    assert page.find("#statTotalRuns").text[0].isdigit()
    assert page.text("#statCoverage").endswith("%")


def test_page_explains_an_executable_without_instrumentation(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair, tmp_path: Path
) -> None:
    """No points at all is what the self-hosted backend gives."""
    empty = tmp_path / "empty"
    empty.write_bytes(bytes(24))
    show_pair(web_server, FuzzRunStep("empty", debug_pair.executable, coverage_file=empty), debug_pair)
    page.visit(web_server.url)
    page.until_text("#notice", "no instrumentation", "0.14", "-ffuzz")


def test_page_shows_compile_errors_of_its_own_wasm(
    page: Page, zig: Zig, zig_cache: Path, tmp_path: Path
) -> None:
    """Whoever edits the page sees the compiler's message, and can try again after mending it."""
    lib_dir = tmp_path / "lib"
    shutil.copytree(paths.lib_dir(), lib_dir)
    source = lib_dir / "fuzzer" / "web" / "main.zig"
    good = source.read_text()
    source.write_text(f"{good}\nexport fn broken() void {{\n    return 1;\n}}\n")
    page.expect("main.wasm - Failed to load resource: the server responded with a status of 500")
    page.expect_lost_server()
    with WebServer(zig=zig, lib_dir=lib_dir, cache_dir=zig_cache) as server:
        page.open(server.url)
        page.until_text("#noticeLog", "error: expected type 'void'", "    return 1;", timeout=PATIENCE)
        source.write_text(good)
        page.click("#noticeRetry")
        page.until_text("#status", "Waiting", timeout=PATIENCE)
        page.until_hidden("#noticeRetry")


def test_zigs_unmodified_page_works_on_our_server(
    page: Page, zig: Zig, zig_cache: Path, debug_pair: FuzzedPair, copied: FuzzRunStep
) -> None:
    """Zig's page can't tell our server from Zig's."""
    # Chromium asks for an icon, which Zig's page does not have; and that page stumbles over covered points
    # that its source view does not show.
    page.expect("favicon.ico", "reading 'classList'")
    page.expect_lost_server()
    with WebServer(zig=zig, lib_dir=zig.lib_dir, cache_dir=zig_cache) as server:
        show_pair(server, copied, debug_pair)
        page.open(server.url)
        page.until(lambda: page.text("#statTotalRuns").isdigit(), PATIENCE)
        assert int(page.text("#statTotalRuns")) > 0
        page.until(lambda: len(page.texts("#entryPointsList a")) == 2)
        page.click("#entryPointsList a")
        page.until_text("#sourceText", "fuzzSum", timeout=PATIENCE)
        write_seen(copied, 7, b"\xaa")  # That page draws its marks when an update comes.
        page.until(lambda: page.texts("#sourceText .l"))
        page.until(lambda: page.texts("#sourceText .c"))
        page.until(lambda: page.text("#statTotalRuns") == "7")


@pytest.fixture
def demo_cache(zig_cache: Path) -> Iterator[Path]:
    """The folder for caches, with the example in it that one program at a time can fuzz."""
    with locked(zig_cache / "demo.lock"):
        yield zig_cache


def test_whole_program_fuzzes_the_example(page: Page, work: Path, demo_cache: Path) -> None:
    """`fuzzserver demo`, as a newcomer starts it: the page is there during the build, and then live."""
    port_file = work / "demo-port"
    port_file.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "fuzzserver", "demo"]
    process = subprocess.Popen([*argv, "--cache-dir", str(demo_cache), "--port-file", str(port_file)])
    try:
        page.until(port_file.exists)
        page.visit(f"http://127.0.0.1:{port_file.read_text().strip()}/")
        page.until_text("#fileScroll", "fuzz_example.zig", timeout=PATIENCE)
        page.until_text("#entryPointsList", "fuzz_example.zig:")
        page.until_text("#serverState", "fuzzing")
        before = page.find("#statTotalRuns").get_attribute("title")
        page.until(lambda: page.find("#statTotalRuns").get_attribute("title") != before)
        page.until(lambda: page.text("#statRecentSpeed")[:1].isdigit())
        page.until_shown("#chart canvas")
        page.click("#targetButton")
        page.until_text("#targetList", "fuzz_example.zig", "runs")
        page.press("\ue00c")
        page.go("#corpus")
        page.until(lambda: page.texts("#corpusRows .group"))
        page.go("#log")
        page.until_shown("#viewLog")
        page.go("#coverage")
        page.click("#fileScroll a")
        page.until(lambda: page.texts("#sourceScroll .mark.covered"))
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 130
    page.expect_lost_server()
