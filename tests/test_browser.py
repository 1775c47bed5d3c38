"""Pages in a real browser: ours and Zig's, on our server and on Zig's."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from fuzzserver import CoverageMsg, EntryPointMsg, FuzzRunStep, WebServer, paths
from fuzzserver.wire.abi import SeenPcsHeader
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.wasm import build_wasm_binary
from tests.projects import FuzzedPair, write_project, zig_web_server

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
)
PATIENCE = 120
"""Seconds for a page that may have to wait for the compiler."""


class Page:
    """A browser tab."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Go to a page."""
        self.driver.get("about:blank")  # Else only the part behind the # might change.
        self.driver.get(url)

    def find(self, selector: str) -> WebElement:
        """The element, once it is there and can be seen."""
        return self.until(lambda: next((e for e in self.all(selector) if e.is_displayed()), None))

    def all(self, selector: str) -> list[WebElement]:
        """All elements that match."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """What all of them say, in one look, so that none can go away meanwhile."""
        return self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
        )

    def text(self, selector: str) -> str:
        """What the first one says."""
        return self.texts(selector)[0]

    def until(self, condition: Callable[[], object], timeout: float = PATIENCE):
        """Wait until the condition gives something, and give it."""
        try:
            return WebDriverWait(self.driver, timeout, poll_frequency=0.1).until(lambda _: condition())
        except TimeoutException:
            raise AssertionError(f"the page says: {self.script('return document.body.innerText')}") from None

    def until_text(self, selector: str, *parts: str) -> None:
        """Wait until the element says all of ``parts``."""
        self.until(lambda: all(part in " ".join(self.texts(selector)) for part in parts))

    def script(self, code: str) -> object:
        """Run JavaScript."""
        return self.driver.execute_script(code)

    def errors(self) -> list[str]:
        """What the browser complained of since the last call."""
        entries = self.driver.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One browser for all tests of this file."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver") or "chromedriver")
    browser = webdriver.Chrome(options, service)
    yield browser
    browser.quit()


@pytest.fixture
def page(driver: webdriver.Chrome) -> Iterator[Page]:
    """The browser, whose last page must not have caused errors."""
    tab = Page(driver)
    tab.errors()
    yield tab
    complaints = [message for message in tab.errors() if "WebSocket connection" not in message]
    tab.open("about:blank")
    assert complaints == []


@pytest.fixture
def copied(debug_pair: FuzzedPair, tmp_path: Path) -> FuzzRunStep:
    """A step whose coverage file is a copy that the test may change."""
    path = tmp_path / "coverage"
    path.write_bytes(debug_pair.coverage_file.read_bytes())
    return FuzzRunStep("copied", debug_pair.executable, inputs=debug_pair.step.inputs, coverage_file=path)


def show(server: WebServer, step: FuzzRunStep, pair: FuzzedPair) -> None:
    """Make a server show an executable."""
    server.add_step(step)
    server.post(CoverageMsg(pair.coverage_id, step))
    for addr in pair.entry_points:
        server.post(EntryPointMsg(pair.coverage_id, addr))
    server.set_status("serving", "")


def write_seen(step: FuzzRunStep, n_runs: int, seen: bytes) -> None:
    """Change the coverage file: the counter, and all bits to the byte ``seen``."""
    assert step.coverage_file is not None
    with step.coverage_file.open("r+b") as file:
        header = SeenPcsHeader.parse(file.read(SeenPcsHeader.LAYOUT.size))
        file.seek(0)
        file.write(SeenPcsHeader(n_runs, header.unique_runs, header.pcs_len).serialize())
        file.write(seen * header.seen_bits_size)


def test_page_shows_counters_entry_points_and_files(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair, copied: FuzzRunStep
) -> None:
    """All that a first look needs, and counters that move."""
    write_seen(copied, 1_234, b"\0")
    show(web_server, copied, debug_pair)
    page.open(web_server.url)
    page.until_text("#statTotalRuns", "1,234")
    page.until_text("#statCoverage", "0 /", "(0.0")
    page.until(lambda: len(page.texts("#entryPointsList li")) == 2)
    assert all("main.zig:" in text for text in page.texts("#entryPointsList li"))
    page.until_text("#fileRows", "parser.zig")
    write_seen(copied, 5_678, b"\xff")
    page.until_text("#statTotalRuns", "5,678")
    page.until_text("#statCoverage", "(100")
    assert "fuzzserver" in page.driver.title


def test_marks_in_the_source_change_live(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair, copied: FuzzRunStep
) -> None:
    """Every point of the open file has a mark, and it follows the coverage file."""
    write_seen(copied, 1, b"\0")
    show(web_server, copied, debug_pair)
    page.open(web_server.url)
    page.find("#fileFilter").send_keys("src/parser")
    page.until(lambda: len(page.texts("#fileRows a")) == 1)
    page.find("#fileRows a").click()
    page.until(lambda: len(page.texts("#sourceText .mark")) > 5)
    assert "pub fn depth" in page.text("#sourceText")
    assert page.texts("#sourceText .mark.covered") == []
    write_seen(copied, 2, b"\xff")
    page.until(lambda: len(page.texts("#sourceText .mark.covered")) > 5)
    assert len(page.texts("#sourceText .mark.covered")) == len(page.texts("#sourceText .mark"))


def test_links_to_points_work_with_back_and_forward(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair
) -> None:
    """An entry point opens its file at its mark; the history remembers."""
    show(web_server, debug_pair.step, debug_pair)
    page.open(web_server.url)
    page.find("#entryPointsList a").click()
    page.find("#sourceText .mark.current")
    first = page.script("return location.hash")
    page.all("#entryPointsList a")[1].click()
    page.until(lambda: page.script("return location.hash") != first)
    second = page.script("return location.hash")
    page.driver.back()
    page.until(lambda: page.script("return location.hash") == first)
    page.until(lambda: page.all(f"#sourceText {first}.current"))
    page.driver.forward()
    page.until(lambda: page.all(f"#sourceText {second}.current"))
    page.open(f"{web_server.url}{first}")
    page.until(lambda: page.all(f"#sourceText {first}.current"))


def test_debug_page_works(page: Page, web_server: WebServer, debug_pair: FuzzedPair) -> None:
    """The page below /debug/ has its own wasm and its own WebSocket path."""
    show(web_server, debug_pair.step, debug_pair)
    page.open(f"{web_server.url}debug/")
    page.until_text("#fileRows", "parser.zig")


def test_page_says_why_there_is_no_coverage(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair
) -> None:
    """While the server builds, and when the build has failed, the page says so; then it goes on."""
    web_server.set_status("building", "Compiling the tests of x.zig ...")
    page.open(web_server.url)
    page.until_text("main", "Compiling the tests of x.zig")
    web_server.set_status("failed", "x.zig:1:1: error: no\n  here\n  ^")
    page.until_text("main", "x.zig:1:1: error: no\n  here\n  ^")
    show(web_server, debug_pair.step, debug_pair)
    page.until_text("#fileRows", "parser.zig")


def test_page_does_not_deny_coverage_while_it_loads(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its wasm is compiled the page can't read the tables, but it knows that they are there."""
    go_on = threading.Event()

    def build_late(*args) -> Path:
        go_on.wait(PATIENCE)
        return build_wasm_binary(*args)

    monkeypatch.setattr("fuzzserver.webserver.build_wasm_binary", build_late)
    show(web_server, debug_pair.step, debug_pair)
    try:
        page.open(web_server.url)
        page.until_text("#serverState", "serving")
        page.until(lambda: not page.all("#sectNotice")[0].is_displayed(), timeout=20)
        assert "Loading WebAssembly" in page.text("#status")
    finally:
        go_on.set()
    page.until_text("#fileRows", "parser.zig")


def test_page_explains_an_executable_without_debug_info(
    page: Page, web_server: WebServer, small_pair: FuzzedPair
) -> None:
    """Counters are shown, and the reason for the missing source."""
    show(web_server, small_pair.step, small_pair)
    page.open(web_server.url)
    page.until_text("#sectNotice", "no debug info")
    assert page.find("#statTotalRuns").text


def test_page_explains_an_executable_without_instrumentation(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair, tmp_path: Path
) -> None:
    """No points at all is what the self-hosted backend gives."""
    empty = tmp_path / "empty"
    empty.write_bytes(bytes(24))
    show(web_server, FuzzRunStep("empty", debug_pair.executable, coverage_file=empty), debug_pair)
    page.open(web_server.url)
    page.until_text("#sectNotice", "no instrumentation")


def test_page_shows_compile_errors_of_its_own_wasm(
    page: Page, zig: Zig, zig_cache: Path, tmp_path: Path
) -> None:
    """Whoever edits the page sees the compiler's message, and can try again after mending it."""
    lib_dir = tmp_path / "lib"
    shutil.copytree(paths.lib_dir(), lib_dir)
    source = lib_dir / "fuzzer" / "web" / "main.zig"
    good = source.read_text()
    source.write_text(f"{good}\nexport fn broken() void {{\n    return 1;\n}}\n")
    with WebServer(zig=zig, lib_dir=lib_dir, cache_dir=zig_cache) as server:
        page.open(server.url)
        page.until_text("#noticeLog", "error: expected type 'void'", "    return 1;")
        page.errors()  # The browser says that the server said 500, which is what we wanted.
        source.write_text(good)
        page.find("#noticeRetry").click()
        page.until_text("#status", "Waiting")


def test_page_keeps_its_place_when_the_server_comes_back(
    page: Page, zig: Zig, zig_cache: Path, debug_pair: FuzzedPair
) -> None:
    """The open file is still open, and updates go on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    with WebServer(zig=zig, cache_dir=zig_cache, listen_address=address) as server:
        show(server, debug_pair.step, debug_pair)
        page.open(server.url)
        page.find("#fileFilter").send_keys("src/parser")
        page.until(lambda: len(page.texts("#fileRows a")) == 1)
        page.find("#fileRows a").click()
        page.until(lambda: page.texts("#sourceText .mark"))
    page.until_text("#connection", "reconnecting")
    with WebServer(zig=zig, cache_dir=zig_cache, listen_address=address) as server:
        show(server, debug_pair.step, debug_pair)
        page.until_text("#connection", "connected")
        page.until(lambda: page.text("#connection") == "connected")
        assert "pub fn depth" in page.text("#sourceText")
        assert page.script("return document.getElementById('fileFilter').value") == "src/parser"
    page.errors()  # Refused connections while there was no server.


def test_hostile_source_is_only_text(
    page: Page, web_server: WebServer, debug_pair: FuzzedPair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Markup in a source file is shown, not run."""
    show(web_server, debug_pair.step, debug_pair)
    project = str(debug_pair.step.cache_root.parent)
    evil = tmp_path / "evil.zig"
    evil.write_text('// <img src=x onerror="document.title=1"></pre><script>document.title=2</script>\n')
    # The page knows files by the names in the debug info: give it other text under one of these.
    monkeypatch.setattr("fuzzserver.web.sources_tar.open_regular", lambda _: os.open(evil, os.O_RDONLY))
    page.open(web_server.url)
    page.find("#fileFilter").send_keys(f"{project}/src/parser")
    page.until(lambda: len(page.texts("#fileRows a")) == 1)
    page.find("#fileRows a").click()
    page.until_text("#sourceText", "<script>document.title=2</script>")
    elements = "return document.querySelectorAll('#sourceText img, #sourceText script').length"
    assert page.script(elements) == 0
    assert "fuzzserver" in page.driver.title


def test_zigs_unmodified_page_works_on_our_server(
    page: Page, zig: Zig, zig_cache: Path, debug_pair: FuzzedPair, copied: FuzzRunStep
) -> None:
    """Zig's page can't tell our server from Zig's."""
    with WebServer(zig=zig, lib_dir=zig.lib_dir, cache_dir=zig_cache) as server:
        show(server, copied, debug_pair)
        page.open(server.url)
        page.until(lambda: page.text("#statTotalRuns").isdigit())
        assert int(page.text("#statTotalRuns")) > 0
        links = page.until(lambda: page.texts("#entryPointsList a"))
        assert len(links) == 2
        page.find("#entryPointsList a").click()
        page.find("#sourceText")
        write_seen(copied, 7, b"\xaa")  # That page draws its marks when an update comes.
        page.until(lambda: page.texts("#sourceText .l"))
        page.until(lambda: page.texts("#sourceText .c"))
        assert page.text("#statTotalRuns") == "7"
        assert "fuzzSum" in page.text("#sourceText")
        page.errors()  # Chromium asks for /favicon.ico, which Zig's page does not have.


@pytest.fixture(scope="module")
def zigs_server_with_our_page(zig: Zig, zig_cache: Path, work: Path) -> Iterator[int]:
    """Zig's own server; its lib folder is Zig's but for the page, which is ours."""
    lib_dir = work / "lib-with-our-page"
    shutil.rmtree(lib_dir, ignore_errors=True)
    (lib_dir / "fuzzer").mkdir(parents=True)
    for entry in zig.lib_dir.iterdir():
        if entry.name != "fuzzer":
            (lib_dir / entry.name).symlink_to(entry)
    shutil.copytree(paths.lib_dir() / "fuzzer" / "web", lib_dir / "fuzzer" / "web")
    write_project(work / "project")
    with zig_web_server(zig.path, work / "project", zig_cache, lib_dir=lib_dir) as (port, _):
        yield port


def test_our_page_works_on_zigs_server(page: Page, zigs_server_with_our_page: int) -> None:
    """Our page can't tell Zig's server from ours, except that it is told less."""
    page.open(f"http://127.0.0.1:{zigs_server_with_our_page}/")
    page.until_text("#fileRows", "parser.zig")
    page.find("#entryPointsList a").click()
    page.until(lambda: page.texts("#sourceText .mark.covered"))
    # The marks have a shape, although that server has no style sheet.
    assert page.script("return document.querySelector('#sourceText .mark').offsetWidth") > 3
    page.errors()  # style.css is not among the routes of that server, and it refuses our subprotocol.


def test_whole_program_fuzzes_the_example(page: Page, work: Path, zig_cache: Path) -> None:
    """`fuzzserver demo`, as a newcomer starts it: the page is there during the build, and then live."""
    port_file = work / "demo-port"
    port_file.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "fuzzserver", "demo"]
    process = subprocess.Popen([*argv, "--cache-dir", str(zig_cache), "--port-file", str(port_file)])
    try:
        page.until(port_file.exists)
        page.open(f"http://127.0.0.1:{port_file.read_text().strip()}/")
        page.until_text("#fileRows", "fuzz_example.zig")
        page.until_text("#entryPointsList", "fuzz_example.zig:")
        before = page.find("#statTotalRuns").text
        page.until(lambda: page.find("#statTotalRuns").text != before)
        page.until(lambda: page.text("#statRecentSpeed")[:1].isdigit())
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
