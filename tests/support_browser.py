"""A real browser: one for all tests of a process, with a new tab for each test.

A tab must not cause complaints: no error or warning in its console, nothing that the policies of the page
forbid, and no request to anybody but this machine. What a test brings about on purpose, it expects. They are
looked at by ``pytest_runtest_call`` of ``conftest``, while the servers of the test still run.
"""

import importlib.resources
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
    TimeoutException,
    WebDriverException,
)
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

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
PATIENCE = 240
"""Seconds for a page that may have to wait for the compiler."""
SOON = 60
"""Seconds for a page that is there, on a machine with much else to do."""

WATCHER = """
window.dialogs = [];
for (const name of ["alert", "confirm", "prompt"]) window[name] = (text) => window.dialogs.push(String(text));
addEventListener("securitypolicyviolation", (event) => {
  const where = `${event.sourceFile}:${event.lineNumber}`;
  console.error(`policy violation: ${event.effectiveDirective} ${event.blockedURI} ${where} ${event.sample}`);
});
"""
"""Runs in each document before its own scripts, to tell what a console does not tell by itself."""

OWN_SCHEMES = ("data", "blob", "about")
NOT_YET = (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
    IndexError,
)
"""What looking at a page raises while something else is there, or on its way."""
LATE = "was preloaded using link preload but not used within a few seconds"
"""Chromium's complaint if a script comes late that uses what was loaded ahead: of the machine, not of us."""
STARTS = 3
"""How often a browser is started until it runs."""


class Page:
    """A browser tab."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self._expected: list[str] = []

    # ------------------------------------------------------------------ going somewhere

    def open(self, url: str) -> None:
        """Go to a page."""
        self.driver.get("about:blank")  # Else only the part behind the # might change.
        self.driver.get(url)

    def visit(self, url: str) -> None:
        """Go to our page, and wait until it shows what the server says: then nothing moves any more."""
        self.open(url)
        self.until(lambda: not self.text("#status").startswith(("Loading", "Connecting")), PATIENCE)
        self.until_shown("#notice, #overview")

    @property
    def hash(self) -> str:
        """What stands behind the # of the address."""
        return str(self.script("return location.hash"))

    def go(self, hash: str) -> None:
        """Follow a link within the page."""
        self.script("location.hash = arguments[0]", hash)

    # ------------------------------------------------------------------ looking

    def find(self, selector: str) -> WebElement:
        """The first element that can be seen, once there is one."""
        return self.until(lambda: next((e for e in self.all(selector) if e.is_displayed()), None))

    def all(self, selector: str) -> list[WebElement]:
        """All elements that match."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """What all of them say, in one look, so that none can go away meanwhile."""
        return self.script(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
        )

    def text(self, selector: str) -> str:
        """What the first one says."""
        return self.texts(selector)[0]

    def attribute(self, selector: str, name: str) -> str | None:
        """An attribute of the first one."""
        return self.script(
            "return document.querySelector(arguments[0])?.getAttribute(arguments[1])", selector, name
        )

    def is_shown(self, selector: str) -> bool:
        """Whether an element that matches can be seen."""
        return bool(
            self.script(
                "return [...document.querySelectorAll(arguments[0])].some("
                "e => e.checkVisibility({checkVisibilityCSS: true}) && e.getClientRects().length > 0)",
                selector,
            )
        )

    def until(self, condition: Callable[[], Any], timeout: float = SOON) -> Any:
        """Wait until the condition gives something, and give it."""
        wait = WebDriverWait(self.driver, timeout, 0.03, NOT_YET)
        try:
            return wait.until(lambda _: condition())
        except TimeoutException:
            said = self.script("return document.body.innerText")
            raise AssertionError(f"{self.driver.current_url} says: {said}") from None

    def until_text(self, selector: str, *parts: str, timeout: float = SOON) -> None:
        """Wait until the elements say all of ``parts``."""
        self.until(lambda: all(part in " ".join(self.texts(selector)) for part in parts), timeout)

    def until_shown(self, selector: str) -> None:
        """Wait until such an element can be seen."""
        self.until(lambda: self.is_shown(selector))

    def until_hidden(self, selector: str) -> None:
        """Wait until no such element can be seen."""
        self.until(lambda: not self.is_shown(selector))

    def stays(self, condition: Callable[[], object], frames: int = 20) -> None:
        """The condition holds in each of so many frames that the browser draws."""
        for _ in range(frames):
            assert condition()
            self.frame()

    def frame(self) -> None:
        """Wait until the browser has drawn what has changed."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )

    def script(self, code: str, *arguments: object) -> Any:
        """Run JavaScript."""
        return self.driver.execute_script(code, *arguments)

    # ------------------------------------------------------------------ doing

    def click(self, selector: str) -> None:
        """Click at the first element that can be seen, also if it is made anew or moves just then."""

        def clicked() -> bool:
            self.find(selector).click()
            return True

        self.until(clicked)

    def click_text(self, selector: str, text: str) -> None:
        """Click at the one of these elements whose text begins so, also where it is scrolled out of sight."""
        self.until(
            lambda: self.script(
                "const dom = [...document.querySelectorAll(arguments[0])]"
                ".find((dom) => dom.textContent.startsWith(arguments[1]));"
                "dom?.click(); return dom !== undefined",
                selector,
                text,
            )
        )

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def point_at(self, selector: str) -> None:
        """Move the pointer onto an element, also if it is made anew just then."""

        def pointed() -> bool:
            ActionChains(self.driver).move_to_element(self.find(selector)).perform()
            return True

        self.until(pointed)

    def point_away(self) -> None:
        """Move the pointer to where nothing is."""
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 1, "y": 1})

    def fill(self, selector: str, text: str) -> None:
        """Type a text into a field in place of what is there."""
        field = self.find(selector)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text or Keys.DELETE)

    # ------------------------------------------------------------------ surroundings

    def size(self, width: int, height: int, scale: float = 1) -> None:
        """Another size of the window, in CSS pixels; ``scale`` is that of the screen."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, *, theme: str = "light", reduced_motion: bool = False) -> None:
        """What the system tells of its user: ``light`` or ``dark``, and whether things may move."""
        features = [
            {"name": "prefers-color-scheme", "value": theme},
            {"name": "prefers-reduced-motion", "value": "reduce" if reduced_motion else "no-preference"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    @contextmanager
    def offline(self) -> Iterator[None]:
        """No connection to anybody can be made."""
        self.expect("ERR_INTERNET_DISCONNECTED", "WebSocket connection")
        network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**network, "offline": True})
        yield
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**network, "offline": False})

    @contextmanager
    def throttled(self, bytes_per_second: int) -> Iterator[None]:
        """A slow connection."""
        speed = {"offline": False, "latency": 0, "uploadThroughput": -1}
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd(
            "Network.emulateNetworkConditions", {**speed, "downloadThroughput": bytes_per_second}
        )
        yield
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**speed, "downloadThroughput": -1})

    # ------------------------------------------------------------------ judging

    def axe(self, *left_out: str) -> list[str]:
        """What axe-core finds that keeps people from using the page; ``left_out`` are rules."""
        source = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js")
        if not self.script("return 'axe' in window"):
            self.script(source.read_text(encoding="utf-8"))
        options = {
            "resultTypes": ["violations"],
            "rules": {rule: {"enabled": False} for rule in left_out},
        }
        found = self.driver.execute_async_script(
            "const done = arguments[1];"
            "axe.run(document, arguments[0])"
            ".then((result) => done(result.violations), (error) => done(String(error)))",
            options,
        )
        assert isinstance(found, list), found
        return [
            f"{each['impact']}: {each['id']}: {node['target']}: {node['failureSummary']}"
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]

    def is_wider_than_window(self) -> bool:
        """Whether the page as a whole must be scrolled sideways."""
        return bool(
            self.script("const root = document.documentElement; return root.scrollWidth > root.clientWidth")
        )

    def expect(self, *parts: str) -> None:
        """Complaints that hold one of these are what the test wants."""
        self._expected += parts

    def expect_lost_server(self) -> None:
        """The test stops a server that the page talks to."""
        self.expect(
            "WebSocket connection", "ERR_CONNECTION_", "ERR_EMPTY_RESPONSE", "ERR_SOCKET_NOT_CONNECTED"
        )
        self.expect("could not be loaded")  # What was on its way just then.

    def complaints(self) -> list[str]:
        """What the browser complained of since the last call, without what is expected."""
        found = [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")
        ]
        found += [f"asked {url}" for url in self._requests() if not _is_own(url)]
        return [each for each in found if not any(part in each for part in (LATE, *self._expected))]

    def _requests(self) -> list[str]:
        """Addresses that were asked for since the last call."""
        urls = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                urls.append(message["params"]["request"]["url"])
            elif message["method"] == "Network.webSocketCreated":
                urls.append(message["params"]["url"])
        return urls


def _is_own(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in OWN_SCHEMES or parts.hostname == "127.0.0.1"


@contextmanager
def chromium(profile: Path, *flags: str) -> Iterator[webdriver.Chrome]:
    """A browser for as long as the block runs. ``profile`` is an empty folder."""
    for number in range(1, STARTS + 1):
        try:
            browser = _start(profile / str(number), *flags)
            break
        except WebDriverException:
            # The driver's port may have gone to somebody else, or the browser has not come up in time.
            if number == STARTS:
                raise
    browser.set_script_timeout(PATIENCE)
    try:
        yield browser
    finally:
        browser.quit()


def _start(profile: Path, *flags: str) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in (*FLAGS, *flags, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.add_experimental_option("perfLoggingPrefs", {"enableNetwork": True, "enablePage": False})
    service = webdriver.ChromeService(shutil.which("chromedriver") or "chromedriver")
    return webdriver.Chrome(options, service)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One browser for all tests of this process."""
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def page(driver: webdriver.Chrome) -> Iterator[Page]:
    """A new tab, which must not cause complaints."""
    old = driver.current_window_handle
    driver.switch_to.new_window("tab")
    new = driver.current_window_handle
    driver.switch_to.window(old)
    driver.close()
    driver.switch_to.window(new)
    # A port comes round again, and pages keep choices and cookies by their ports.
    driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": "*", "storageTypes": "local_storage"})
    driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
    tab = Page(driver)
    tab.prefer()
    # Else nothing in it has the focus before somebody clicks at it.
    driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCHER})
    tab.complaints()
    yield tab
    tab.open("about:blank")
