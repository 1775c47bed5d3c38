"""Somebody else's page in a real browser: it reads nothing of ours, opens no socket, and starts nothing."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from selenium import webdriver

from fuzzserver import FuzzRunStep, WebServer
from fuzzserver.status import TargetStatus
from fuzzserver.step import SourcePath
from fuzzserver.web import response
from fuzzserver.web.gate import Gate, Refusal
from fuzzserver.web.head import RequestHead
from fuzzserver.web.response import Policy
from fuzzserver.zig.installation import Zig
from tests.support_attack import ATTEMPTS, Rebound, attacker
from tests.support_browser import SOON, Page, chromium
from tests.support_firefox import firefox
from tests.support_time import eventually

ORIGINS = ("another port", "another name", "a rebound name", "a sandboxed frame")
BY_THE_BROWSER = {"worker", "shared worker", "service worker"}
"""What browsers do not even ask other origins for. No page without a certificate has a service worker."""
SILENT = BY_THE_BROWSER | {"frame of the sources", "window of the sources", "window of the compiler"}
"""What tells the page nothing, even if it is answered; the last ones save a file."""
IN_FIREFOX = (
    *(
        "script",
        "module script",
        "import()",
        "style sheet",
        "image",
        "fetch",
        "fetch without reading",
        "post",
    ),
    *("XMLHttpRequest", "WebSocket", "WebSocket with the subprotocol", "EventSource", "wasm"),
)
EMPTY_WASM = b"\0asm\1\0\0\0"


@dataclass
class Victim:
    """A server, and what became of each request to it."""

    server: WebServer
    asked: list[tuple[str, Refusal | None]] = field(default_factory=list)
    """What was asked for, and why it was refused; None if it was not."""
    built: list[str] = field(default_factory=list)
    """The runs of the compiler."""
    is_guarded: bool = True
    """Whether the gate is there."""
    changed: threading.Condition = field(default_factory=threading.Condition)
    """Guards ``asked``; notified when it grows."""

    def note(self, path: str, refusal: Refusal | None) -> None:
        """A request has come before the gate."""
        with self.changed:
            self.asked.append((path, refusal))
            self.changed.notify_all()

    def was_asked(self, before: int) -> bool:
        """Whether more than so many requests come, for some of which the page does not wait."""
        with self.changed:
            return self.changed.wait_for(lambda: len(self.asked) > before, SOON)

    def lets_through(self, paths: set[str]) -> bool:
        """Whether all of these are answered, for some of which the page does not wait."""
        with self.changed:
            return self.changed.wait_for(lambda: self.let_through() >= paths, SOON)

    def let_through(self) -> set[str]:
        """What was answered."""
        return {path for path, refusal in self.asked if refusal is None}


@pytest.fixture
def victim(zig: Zig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Victim]:
    """A server with something to steal. Its compiler only counts how often it is started."""
    wasm = tmp_path / "main.wasm"
    wasm.write_bytes(EMPTY_WASM)
    secret = tmp_path / "secret.zig"
    secret.write_text("const secret = 42;")
    with WebServer(zig=zig, cache_dir=tmp_path) as server:
        made = Victim(server)

        def build(_client: object, _lib_dir: object, mode: str, **_: object) -> Path:
            made.built.append(mode)
            return wasm

        judge = Gate.refusal

        def refusal(gate: Gate, head: RequestHead) -> Refusal | None:
            found = judge(gate, head) if made.is_guarded else None
            made.note(head.path, found)
            return found

        monkeypatch.setattr("fuzzserver.zig.page_compiler.build_wasm_binary", build)
        monkeypatch.setattr(Gate, "refusal", refusal)
        server.add_step(FuzzRunStep("secret", wasm, inputs=[SourcePath(tmp_path, "secret.zig")]))
        server.set_target(TargetStatus("secret", "secret", "fuzzing"))
        yield made


@pytest.fixture(scope="module")
def attacker_port() -> Iterator[int]:
    """Where the other page is served."""
    with attacker() as port:
        yield port


@pytest.fixture(scope="module")
def rebound() -> Iterator[Rebound]:
    """A name that leads to the attacker until his page is loaded, and then to us."""
    with Rebound().running() as running:
        yield running


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory, rebound: Rebound) -> Iterator[webdriver.Chrome]:
    """A browser that believes in names of the attacker."""
    rules = f"MAP evil.test 127.0.0.1, MAP rebound.test 127.0.0.1:{rebound.port}"
    with chromium(tmp_path_factory.mktemp("chromium"), f"--host-resolver-rules={rules}") as browser:
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "deny"})
        yield browser


@pytest.fixture
def tab(driver: webdriver.Chrome) -> Iterator[Page]:
    """A tab whose complaints do not matter: that the browser complains is what is wanted."""
    first = driver.current_window_handle
    yield Page(driver)
    # Windows that were opened hide the tab, and browsers let hidden tabs wait.
    for handle in driver.window_handles:
        if handle != first:
            driver.switch_to.window(handle)
            driver.close()
    driver.switch_to.window(first)


def open_attack(tab: Page, origin: str, victim: Victim, attacker_port: int, rebound: Rebound) -> str:
    """Show the attacker's page at one of ``ORIGINS``; returns the address by which it finds the victim."""
    host, port, file = "127.0.0.1", attacker_port, "attack.html"
    if origin == "a rebound name":
        rebound.leads_to = attacker_port
        host, port = "rebound.test", victim.server.port
    elif origin == "another name":
        host = "evil.test"
    elif origin == "a sandboxed frame":
        file = "frame.html"
    tab.open(f"http://{host}:{port}/{file}")
    if origin == "a sandboxed frame":
        tab.driver.switch_to.frame(0)
    # Pages may count as loaded while their scripts still wait.
    tab.until(lambda: tab.script("return 'attempt' in window"))
    if origin != "a rebound name":
        return victim.server.url
    rebound.leads_to = port
    return f"http://{host}:{port}/"


def attack(tab: Page, victim: Victim, address: str, never_asked: set[str]) -> dict[str, str]:
    """Try everything, one after the other; returns what the attempts have got hold of.

    Where there is a gate, each comes before it, except for those that the browser does not even make. Where
    there is none, those that would tell nothing are left out.
    """
    got = {}
    for name in ATTEMPTS:
        if not victim.is_guarded and name in SILENT:
            continue
        asked = len(victim.asked)
        got[name] = tab.driver.execute_async_script(
            "attempt(arguments[0], arguments[1]).then(arguments[2])", name, address
        )
        if victim.is_guarded and name not in never_asked:
            assert victim.was_asked(asked), f"{name} was not even tried"
    return {name: each for name, each in got.items() if each}


@pytest.fixture
def try_all(
    tab: Page, victim: Victim, attacker_port: int, rebound: Rebound
) -> Callable[[str], dict[str, str]]:
    """Tries everything from one of ``ORIGINS``."""

    def from_origin(origin: str) -> dict[str, str]:
        address = open_attack(tab, origin, victim, attacker_port, rebound)
        never = {"service worker"} if origin == "a rebound name" else BY_THE_BROWSER
        return attack(tab, victim, address, never)

    return from_origin


def test_there_are_attempts() -> None:
    """As many as the page has, of which no two are the same."""
    assert len(set(ATTEMPTS)) == len(ATTEMPTS) >= 30


# Windows that show no more than the refusal.
REFUSED = {
    "a rebound name": {"window of the compiler": "a page", "window of the sources": "a page"},
}


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_foreign_page_gets_nothing(
    victim: Victim, try_all: Callable[[str], dict[str, str]], origin: str
) -> None:
    """Not a byte, not a socket; nobody is let in, and nothing is started."""
    assert try_all(origin) == REFUSED.get(origin, {})
    assert victim.let_through() == set()
    assert victim.built == []


SOCKETS = {"WebSocket", "WebSocket with the subprotocol"}
# What would be had if one of the two walls were not there, or both. Of the page behind a rebound name only
# the gate knows that it is not ours.
WITHOUT_GATE = {"another port": SOCKETS, "another name": SOCKETS, "a sandboxed frame": SOCKETS}
REBOUND = SOCKETS | {
    *("script", "module script", "import()", "style sheet", "fetch", "fetch with credentials"),
    *("fetch without reading", "fetch of the compiler", "fetch with a header", "XMLHttpRequest", "wasm"),
}
WITHOUT_BOTH = {
    "another port": SOCKETS
    | {
        *("script", "style sheet", "prefetch", "preload", "object"),
        *("fetch without reading", "fetch of the compiler", "post"),
    },
    "a rebound name": REBOUND | {"script of data", "frame of the page", "frame of data"},
}


@pytest.mark.parametrize("origin", WITHOUT_GATE)
def test_headers_alone_leave_only_sockets(
    victim: Victim, try_all: Callable[[str], dict[str, str]], origin: str
) -> None:
    """Without the gate, what is answered still reaches no page of another origin."""
    victim.is_guarded = False
    assert set(try_all(origin)) == WITHOUT_GATE[origin]
    eventually(lambda: victim.built, "nothing was built")  # Reading is one thing, and starting another.


def test_headers_do_not_help_against_a_rebound_name(
    victim: Victim, try_all: Callable[[str], dict[str, str]]
) -> None:
    """To the browser, that page is ours."""
    victim.is_guarded = False
    assert set(try_all("a rebound name")) >= REBOUND


@pytest.mark.parametrize("origin", WITHOUT_BOTH)
def test_without_defences_the_attempts_succeed(
    victim: Victim,
    try_all: Callable[[str], dict[str, str]],
    origin: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So the tests above mean what they say."""
    victim.is_guarded = False
    monkeypatch.setattr(response, "_SAFETY", ())
    for name in ("OWN_PAGE", "FOREIGN_PAGE", "DATA"):
        monkeypatch.setattr(Policy, name, "")
    got = try_all(origin)
    assert set(got) >= WITHOUT_BOTH[origin]
    # The page came alive in its frame.
    assert victim.lets_through({"/", "/style.css", "/main.wasm", "/sources.tar", "/targets.json"})
    eventually(lambda: victim.built, "nothing was built")


def test_a_window_that_a_foreign_page_opens_is_its_own(
    tab: Page, victim: Victim, attacker_port: int, rebound: Rebound
) -> None:
    """It shows our page, as a link does, and neither of the two can reach the other."""
    address = open_attack(tab, "another port", victim, attacker_port, rebound)
    driver = tab.driver
    theirs = driver.current_window_handle
    tab.script("window.other = open(arguments[0])", address)
    tab.until(lambda: tab.script("return other.closed"))
    tab.script("other.location = 'about:blank'; other.postMessage('x', '*')")
    driver.switch_to.window(next(handle for handle in driver.window_handles if handle != theirs))
    tab.until_text("#connection", "connected")
    assert tab.script("return window.opener") is None
    assert driver.current_url == address


def test_a_link_leads_to_the_page_and_to_nothing_else(tab: Page, victim: Victim, attacker_port: int) -> None:
    """Whoever follows it is the user; a link to the sources is not answered."""
    for path, is_answered in (("#log", True), ("debug/", True), ("targets.json", False)):
        address = victim.server.url + path
        tab.open(f"http://127.0.0.1:{attacker_port}/link.html#{address}")
        tab.find("a").click()
        tab.until(lambda address=address: tab.driver.current_url == address)
        if is_answered:
            tab.until_text("#connection", "connected")
            tab.driver.refresh()
            tab.until_text("#connection", "connected")
        else:
            tab.until_text("body", "other web pages are not answered")


def test_a_foreign_page_gets_nothing_in_firefox(
    victim: Victim, attacker_port: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As in the other browser, with which this one shares nothing."""
    with firefox(tmp_path_factory.mktemp("firefox")) as fox:
        fox.open(f"http://127.0.0.1:{attacker_port}/attack.html")
        for name in IN_FIREFOX:
            asked = len(victim.asked)
            assert fox.script(f"attempt({name!r}, {victim.server.url!r})") == "", name
            assert victim.was_asked(asked), name
    assert victim.let_through() == set()
    assert victim.built == []
