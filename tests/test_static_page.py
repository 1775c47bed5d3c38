"""The page as one file with its data inside: opened from disk, without a server and without a network."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from fuzzserver import WebServer
from fuzzserver.coverage.coverage_map import prepare_tables
from fuzzserver.errors import FuzzServerError
from fuzzserver.observer import Observer
from fuzzserver.status import Progress, TestStatus
from fuzzserver.web import static_page as module
from fuzzserver.webserver import static_page
from fuzzserver.zig.compile_client import ZigCompileClient
from tests.projects import FuzzedPair
from tests.support_browser import Page
from tests.support_puppet import Point, Puppet, corpus_of, finding, findings_of
from tests.test_page_hostile import ALL, PAYLOADS

Keep = Callable[[Observer], Path]

NUMBERS = (
    "#statCoverage",
    "#statPoints",
    "#statOwn",
    "#statTotalRuns",
    "#statUniqueRuns",
    "#statLines",
    "#statFunctions",
    "#statFiles",
    "#statFindings",
    "#viewsFindings",
    "#targetName",
)
OTHER = {"src/other.zig": "fn other() void {\n    §a();\n    §b();\n}\n"}

INKED = (
    "const canvas = document.querySelector('#chart canvas');"
    "if (canvas === null || canvas.width === 0) return 0;"
    "const { width, height } = canvas;"
    "const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });"
    "copy.drawImage(canvas, 0, 0);"
    "const { data } = copy.getImageData(0, 0, width, height);"
    "return data.filter((value, i) => i % 4 === 3 && value > 0).length"
)


@pytest.fixture
def observer() -> Iterator[Observer]:
    """One that no thread and no server belongs to."""
    observer = Observer()
    yield observer
    observer.stop()


@pytest.fixture
def keep(client: ZigCompileClient, tmp_path: Path) -> Keep:
    """Writes the page of an observer to disk."""

    def write(observer: Observer) -> Path:
        path = tmp_path / "report of <this>.html"
        path.write_bytes(static_page(observer, client))
        return path

    return write


@pytest.fixture
def page(page: Page) -> Iterator[Page]:
    """A tab without any network."""
    page.expect("asked file://")
    offline = {"offline": True, "latency": 0, "uploadThroughput": -1, "downloadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    yield page
    # All files are of one origin: what was chosen would be so in the next test.
    page.script("localStorage.clear()")


@contextmanager
def time_is(moment: float, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is written meanwhile is a report of then."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "time", SimpleNamespace(time=lambda: moment))
        yield


def numbers_of(page: Page) -> dict[str, str]:
    """What the page says, when all of it is there."""
    page.until(lambda: re.search(r"\d / \d+$", page.text("#statLines")))
    page.until(lambda: re.search(r"\d / \d+$", page.text("#statFunctions")))
    return {selector: page.text(selector) for selector in NUMBERS}


def test_numbers_are_those_of_the_server(page: Page, web_server: WebServer, tmp_path: Path) -> None:
    """Of which nothing but the file is left when it is opened."""
    puppet = Puppet(tmp_path).show(web_server, 0)
    puppet.cover(0, 1, 3, 7, runs=123_456)
    web_server.set_target(puppet.target())
    findings_of(web_server, tmp_path).add(finding(), b"x")
    page.driver.execute_cdp_cmd("Network.disable", {})
    page.visit(web_server.url)
    page.until_text("#statPoints", "4 / 19")
    expected = numbers_of(page)
    data = web_server.static_page()
    web_server.stop()
    page.expect_lost_server()
    path = tmp_path / "report.html"
    path.write_bytes(data)
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.visit(path.as_uri())
    page.until_text("#statPoints", "4 / 19")
    assert numbers_of(page) == expected
    assert page.text("#connection").startswith("report of 20")
    assert not page.is_shown("#notice, #noticeLines, #pause")


def test_source_findings_corpus_and_log(
    page: Page, observer: Observer, keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each view has what the server's page has."""
    puppet = Puppet(tmp_path).show(observer, 0)
    puppet.cover(*puppet.find("src/parser.zig")[:4])
    observer.set_target(puppet.target())
    place = f"{puppet.path('src/parser.zig')}:8:5"
    stack = f"{place}: 0x1057a31 in sum (test)\n    return total;\n    ^\n"
    findings_of(observer, tmp_path).add(finding(stack=stack, place=place), b"in\0put")
    corpus_of(observer, tmp_path, "main.test.fuzz sum", [b"one", b"two2"])
    observer.add_log("zig", f"{place}: error: broken", "error")
    monkeypatch.setattr(module, "MAX_INPUTS", 4 + module.ENTRY)
    page.visit(keep(observer).as_uri())
    page.click_text("#fileScroll a", "parser.zig")
    page.until(lambda: len(page.texts("#sourceScroll .mark")) == 10)
    assert len(page.texts("#sourceScroll .mark.covered")) == 4
    page.until_text("#sourceScroll", "total +%= digit(byte) orelse continue;")

    page.go("#findings")
    page.click("#findingRows a")
    page.until_text("#findingDetail .frame.here", "sum", "return total;")
    page.until_text("#findingInput-bytes", "69 6e 00 70 75 74", "in.put")
    page.script(
        "URL.createObjectURL = (blob) => { blob.text().then((text) => window.saved = text); return '#x'; };"
        "HTMLAnchorElement.prototype.click = function () { window.savedAs = this.download; }"
    )
    page.click("#findingInput-bytes, #viewFindings .bytesHead a.button")
    assert page.until(lambda: page.script("return window.saved")) == "in\0put"
    assert page.script("return window.savedAs") == f"{1:016x}.input"
    page.click("#findingDetail .frame.here a")
    page.until(lambda: page.hash.endswith(":8"))
    page.until_text("#sourceScroll", "return total;")

    page.go("#corpus")
    page.until_text("#corpusRows", "main.test.fuzz sum", "2 inputs", "7 B", "4 B")
    assert not page.is_shown("#viewCorpus .entriesTitle button, #corpusRows .groupTools a")
    page.go("#corpus/0/1")
    page.until_text("#corpusInput-bytes", "74 77 6f 32", "two2")
    page.go("#corpus/0/0")
    page.until_text("#corpusDetail", "3 bytes", "it is not in this report")
    page.go("#log")
    page.until_text("#logLines", "zig", "error: broken")


def test_it_shows_how_things_were_then(
    page: Page, observer: Observer, keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ages, speed and history are those of its time, whenever it is opened."""
    puppet = Puppet(tmp_path).show(observer)
    test = TestStatus("main.test.a", "fuzzing", n_runs=1)
    observer.set_target(puppet.target(tests=(test,)))
    (coverage_map,) = observer.coverage_files.newest()
    start = observer.details_json(None)["started"]
    puppet.cover(0, 1, runs=0)
    coverage_map.history.record(start + 40, coverage_map.read())
    for second in range(80, 99):
        puppet.cover(2, runs=500)
        coverage_map.history.record(start + second, coverage_map.read())
    with time_is(start + 100, monkeypatch):
        page.visit(keep(observer).as_uri())
    page.until_text("#statPoints", "3 / 19")
    page.until_text("#statSinceNew", "20 s ago")
    assert page.text("#elapsed") == "1 min 40 s"
    # From 89 s to 98 s: what was before the last ten seconds counts up to its last sample.
    assert page.text("#statRecentSpeed") == "500"
    page.until(lambda: page.script(INKED) > 1000)
    page.script("document.querySelector('.chartPlot').focus()")
    page.press("\ue012")  # Left.
    page.until_text(".chartTip", "of 19 points", "runs/s")
    page.click("#tabNew")
    page.until_text("#newList", "20 seconds ago", "1 minute ago")
    assert not page.is_shown("#follow")
    assert not page.is_shown("#nextTests")


def test_targets_and_places(page: Page, observer: Observer, keep: Keep, tmp_path: Path) -> None:
    """Each target is there, the address tells which, and back, forward and links work as with a server."""
    puppet = Puppet(tmp_path / "one").show(observer)
    other = Puppet(tmp_path / "other", OTHER, name="src/other.zig", coverage_id=2).show(observer)
    puppet.cover(0)
    other.cover(0)
    observer.set_target(puppet.target(earlier=("00000000000000aa",)))
    observer.set_target(other.target())
    path = keep(observer)
    page.visit(path.as_uri())
    page.until_text("#statPoints", "1 / 19")
    page.click("#targetButton")
    assert page.texts("#targetList .builds:not([hidden]) a") == []
    page.click_text("#targetList a.name", "src/other.zig")
    page.until_text("#statPoints", "1 / 2")
    page.until(lambda: page.driver.current_url.endswith(f".html?target={other.id}"))
    page.click_text("#fileScroll a", "other.zig")
    page.until(lambda: len(page.texts("#sourceScroll .mark.covered")) == 1)
    address = page.driver.current_url
    page.driver.back()
    page.until(lambda: page.hash == "")
    page.driver.back()
    page.until_text("#statPoints", "1 / 19")
    page.visit(address)
    page.until_text("#statPoints", "1 / 2")
    page.until(lambda: len(page.texts("#sourceScroll .mark.covered")) == 1)
    for unknown in ("00000000000000aa", "__proto__"):
        page.visit(f"{path.as_uri()}?target={unknown}")
        page.until_text("#noticeTitle", "does not know this target")
    page.click("#noticeLink")
    page.until_text("#statPoints", "1 / 19")


def test_nothing_was_fuzzed(page: Page, observer: Observer, keep: Keep) -> None:
    """A report of a build that failed says so."""
    observer.set_status("failed", "main.zig:1:1: error: no\nnote: here")
    page.visit(keep(observer).as_uri())
    page.until_text("#notice", "Something failed on the server", "error: no")


class Elements(HTMLParser):
    """Counts what a document holds."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it, and where it is from."""
        self.tags.append(tag)
        assert not dict(attrs).keys() & {"src", "onload", "onerror"}


def test_hostile_data_stays_data(page: Page, observer: Observer, keep: Keep, tmp_path: Path) -> None:
    """Whatever names, texts and sources hold, the file has the same elements, and nothing of it is run."""
    empty = Elements(keep(observer).read_text(encoding="utf-8")).tags
    points = [Point(f"src/{each.replace('/', '|')}.zig", 1, 3, each.replace("\0", "")) for each in PAYLOADS]
    sources = {"src/hostile.zig": ALL.replace("\x0b", "").replace("\x85", "") + "\n§x"}
    puppet = Puppet(tmp_path, sources, name=PAYLOADS[1], points=points, oddities=PAYLOADS).show(observer, 1)
    source = puppet.path("src/hostile.zig")
    source.write_bytes(source.read_bytes() + b"\n\xff\xfe\xc3\x28 \xed\xa0\x80")
    for number, payload in enumerate(PAYLOADS):
        more = {"id": puppet.id} if number == 0 else {"id": None}
        test = TestStatus(payload, payload, payload, 1, 1, 1)
        status = replace(puppet.target(payload), key=str(number), name=payload, text=payload, tests=(test,))
        observer.set_target(replace(status, **more))
        observer.add_log(payload, payload)
    observer.set_status("fuzzing", ALL)
    observer.set_progress(Progress(ALL, 1, 2))
    store = findings_of(observer, tmp_path)
    for number, payload in enumerate(PAYLOADS):
        texts = dict.fromkeys(("message", "target", "test", "stack", "stderr", "place"), payload)
        store.add(finding(number, **texts), payload.encode())
    corpus_of(observer, tmp_path, PAYLOADS[0], [payload.encode() for payload in PAYLOADS])
    path = keep(observer)
    html = path.read_text(encoding="utf-8")
    assert Elements(html).tags == empty
    assert "window.dialogs" not in html

    page.driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})  # Nothing may rely on the policy.
    page.visit(path.as_uri())
    page.until_text("#statPoints", f"/ {len(PAYLOADS) + 1}")
    page.go("#f0")
    page.until_text("#sourceScroll", PAYLOADS[0])
    page.go("#findings")
    page.until(lambda: len(page.texts("#findingRows li")) == len(PAYLOADS))
    page.click("#findingRows a")
    page.until_shown("#findingInput-bytes")
    page.go("#log")
    page.until_text("#logLines", PAYLOADS[1])
    page.go("#corpus")
    page.until_text("#corpusRows", PAYLOADS[0])
    assert page.script("return window.dialogs") == []
    assert page.script("return document.querySelectorAll('script, style').length") == empty.count(
        "script"
    ) + empty.count("style")


def test_the_policy_forbids_all_that_is_not_needed(page: Page, observer: Observer, keep: Keep) -> None:
    """No request to anybody, no script or style but those that are in it, no HTML of texts."""
    page.visit(keep(observer).as_uri())
    page.expect("policy violation", "Content Security Policy", "violates", "Trusted")
    page.script(
        "window.forbidden = [];"
        "addEventListener('securitypolicyviolation', (event) => forbidden.push(event.effectiveDirective));"
        "const add = (tag, more) => document.body.append(Object.assign(document.createElement(tag), more));"
        "fetch('http://127.0.0.1:9/').catch(() => {});"
        "add('img', { src: 'http://127.0.0.1:9/' });"
        "add('link', { rel: 'stylesheet', href: 'http://127.0.0.1:9/' });"
        "add('style', { textContent: 'body { opacity: 0.5 }' });"
        "add('iframe', { src: 'http://127.0.0.1:9/' });"
        "try { document.body.innerHTML = 'x' } catch {}"
        "try { add('script', { src: 'data:text/javascript,forbidden.push(1)' }) } catch {}"
    )
    expected = ["connect-src", "frame-src", "img-src", "require-trusted-types-for"]
    expected += ["require-trusted-types-for", "style-src-elem", "style-src-elem"]
    page.until(lambda: sorted(page.script("return forbidden")) == expected)


def test_a_damaged_file_says_so(page: Page, observer: Observer, keep: Keep) -> None:
    """As one that was not written to its end."""
    path = keep(observer)
    path.write_bytes(path.read_bytes()[:-5000])
    page.visit(path.as_uri())
    page.until_text("#notice", "This report cannot be read", "damaged or cut short")


def test_a_real_one_is_small_and_the_same_each_time(
    observer: Observer, client: ZigCompileClient, debug_pair: FuzzedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the sources of all files, of std too, each once, whatever number of targets have it."""
    for coverage_id in (1, 2):
        step = replace(debug_pair.step, key=str(coverage_id), coverage_file=debug_pair.coverage_file)
        coverage_map = prepare_tables(step, debug_pair.coverage_id, 0)
        coverage_map.coverage_id = coverage_id
        observer.coverage_files.add(coverage_map, step)
    monkeypatch.setattr(observer, "now", lambda: 0)
    with time_is(1.5, monkeypatch):
        data = static_page(observer, client)
        assert static_page(observer, client) == data
    assert len(data) < 2_000_000


def test_without_a_page_there_is_none(
    observer: Observer, client: ZigCompileClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error names the file that cannot be read."""
    monkeypatch.setattr("fuzzserver.paths.lib_dir", lambda: tmp_path)
    with pytest.raises(FuzzServerError, match=r"failed to read '.*/index\.html': No such file"):
        static_page(observer, client)
