"""Findings, corpora and the log, in a real browser."""

import os
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from urllib.request import urlopen

import pytest
from selenium.webdriver.common.keys import Keys

from fuzzserver import WebServer
from fuzzserver.findings import FindingStore
from tests import support_puppet
from tests.support_browser import Page
from tests.support_puppet import Puppet, corpus_of, finding, findings_of

puppet = support_puppet.puppet

COMPILE_ERROR = (
    "src/parser.zig:8:12: error: expected type 'u32', found 'bool'\n"
    "    return total;\n"
    "           ^~~~~\n"
    "src/gone.zig:1:2: note: here"
)
ESCAPES = "\x1b[31mred\x1b[0m \x1b]0;title\x07plain"
BYTES = b'say "x"\\\n\t\xff\x00\x1b' + "ä\u202e".encode()


@pytest.fixture
def store(web_server: WebServer, tmp_path: Path) -> FindingStore:
    """Findings that the server shows."""
    return findings_of(web_server, tmp_path)


def opened(page: Page, server: WebServer, number: int = 1) -> None:
    """Go to a finding, and wait for what the server says of it."""
    page.visit(f"{server.url}#finding/{number:016x}")
    page.until_text("#findingDetail .command", f"fuzzserver repro {number:016x}")
    page.until_shown("#findingInput-bytes")


def catch_copies(page: Page) -> None:
    """Let the test see what goes to the clipboard."""
    page.script("navigator.clipboard.writeText = async (text) => { window.copied = text; }")


def click_copy(page: Page, selector: str) -> str:
    """Click at a button, and give what it copies."""
    page.script("window.copied = null")
    page.click(selector)
    return page.until(lambda: page.script("return window.copied"))


def test_a_finding_tells_what_is_known_of_it(
    page: Page, web_server: WebServer, store: FindingStore, puppet: Puppet
) -> None:
    """The list has the outline, an opened finding the stack, the input and the command."""
    parser = puppet.path("src/parser.zig")
    place = f"{parser}:8:5"
    stack = (
        f"{place}: 0x1057a31 in sum (test)\n    return total;\n    ^\n"
        "/zig/lib/std/testing.zig:1:2: 0x1 in fuzz (test)\n"
    )
    store.add(
        finding(1, stack=stack, stderr="much more", reproduces=True, place=place, argv=("zig", "a b")), b"x"
    )
    page.visit(f"{web_server.url}#findings")
    page.until_text("#findingsTitle", "1 finding")
    page.until_text("#findingRows", "panic", "number 1", "main.test.fuzz sum", "once", "reproduces")
    page.click("#findingRows a")
    page.until_text("#findingTitle", "number 1")
    page.until_text("#findingDetail .facts", "after 51,234 runs", "Yes: the input breaks the test again")
    page.until(lambda: len(page.texts("#findingDetail .frame")) == 2)
    assert page.texts("#findingDetail .frame.here .function") == ["sum"]
    assert "return total;" in page.text("#findingDetail .frame.here .code")
    assert page.text("#findingDetail .code u") == "r"
    assert page.texts("#findingDetail .command code") == [f"fuzzserver repro {1:016x}", "zig 'a b'"]
    assert "much more" not in page.text("#findingDetail")
    page.click("#findingDetail details summary")
    page.until_text("#findingDetail details", "much more")


def test_places_in_a_stack_lead_to_the_source(
    page: Page, web_server: WebServer, store: FindingStore, puppet: Puppet
) -> None:
    """Those that the coverage knows; others are only told."""
    stack = f"{puppet.path('src/parser.zig')}:12:9: 0x1 in digit (test)\n/gone.zig:1:2: 0x2 in f (test)\n"
    store.add(finding(1, stack=stack), b"x")
    opened(page, web_server)
    page.until(lambda: page.texts(".stack a[href] .name") == ["parser.zig:12:9"])
    assert page.texts(".stack a:not([href]) .name") == ["gone.zig:1:2"]
    page.click(".stack a[href]")
    page.until_text("#sourceTitle", "parser.zig")
    page.until_text(".sourceRow.current", "if (byte")
    assert page.hash == "#f1:12"


def test_an_input_is_shown_as_hex_as_text_and_as_zig(
    page: Page, web_server: WebServer, store: FindingStore
) -> None:
    """All bytes, also those that cannot be seen; and each form can be copied."""
    store.add(finding(1), BYTES)
    opened(page, web_server)
    catch_copies(page)
    dump = page.text("#findingInput-bytes")
    assert dump.startswith("0000  73 61 79 20 22 78 22 5c  0a 09 ff 00 1b c3 a4 e2")
    assert 'say "x"\\......' in dump
    copied = click_copy(page, ".byteView .tools button")
    assert bytes.fromhex("".join(line[10:58] for line in copied.split("\n"))) == BYTES
    page.click("#findingInput-text")
    page.until_text("#findingInput-bytes", 'say "x"\\', "LF", "HT", "NUL", "ESC", "ä", "U+202E")
    assert "\u202e" not in page.text("#findingInput-bytes")
    page.press(Keys.ARROW_RIGHT)
    literal = '"say \\"x\\"\\\\\\n\\t\\xff\\x00\\x1b\\xc3\\xa4\\xe2\\x80\\xae"'
    page.until(lambda: page.text("#findingInput-bytes") == literal)
    assert click_copy(page, ".byteView .tools button") == literal
    assert page.attribute("#findingInput-zig", "aria-selected") == "true"


def test_an_input_can_be_downloaded(page: Page, web_server: WebServer, store: FindingStore) -> None:
    """As it is."""
    store.add(finding(1), BYTES)
    opened(page, web_server)
    link = page.find("#findingDetail a[download]").get_attribute("href")
    assert link == f"{web_server.url}findings/{1:016x}.input"
    with urlopen(link) as answer:
        assert answer.read() == BYTES
        assert "attachment" in answer.headers["content-disposition"]


def test_long_and_empty_inputs(page: Page, web_server: WebServer, store: FindingStore) -> None:
    """A long one is shown in parts, with what is nothing but zeros in one line; an empty one says so."""
    store.add(finding(1), b"begin" + bytes(8000) + b"end")
    store.add(finding(2), b"")
    opened(page, web_server)
    page.until_text("#findingInput-bytes", "zeros")
    page.until_text(".bytesFoot", "The first 4 KiB of 8,008 bytes")
    assert len(page.texts("#findingInput-bytes div")) < 10
    page.click(".bytesFoot button")
    page.until_text("#findingInput-bytes", "end")
    page.until_hidden(".bytesFoot")
    page.go(f"#finding/{2:016x}")
    page.until_text("#findingDetail", "the input is empty")


def test_command_and_stack_can_be_copied(page: Page, web_server: WebServer, store: FindingStore) -> None:
    """To the clipboard; where a browser gives none, in the old way."""
    store.add(finding(1, stack="/a.zig:1:2: 0x1 in f (test)\n", argv=("zig", "test")), b"x")
    opened(page, web_server)
    catch_copies(page)
    assert click_copy(page, "#findingDetail .command button") == f"fuzzserver repro {1:016x}"
    assert "/a.zig:1:2: 0x1 in f" in click_copy(page, "#findingDetail .partHead button")
    page.script(
        "navigator.clipboard.writeText = () => Promise.reject(new Error('no clipboard'));"
        "document.execCommand = (what) => {"
        " window.copied = what + ' ' + document.activeElement.value; return true; }"
    )
    page.script(
        "window.labels = []; const button = document.querySelector('#findingDetail .command button');"
        "new MutationObserver(() => labels.push(button.textContent)).observe(button, { childList: true })"
    )
    assert click_copy(page, "#findingDetail .command button") == f"copy fuzzserver repro {1:016x}"
    page.until(lambda: page.script("return labels.slice(-2)") == ["Copied", "Copy"])


def test_times_are_local_and_tell_how_long_ago_they_were(
    page: Page, web_server: WebServer, store: FindingStore
) -> None:
    """The clock of the reader, and the age where the pointer is."""
    store.add(finding(1), b"")
    store.add(finding(1, last_time=time.time() - 7_300), b"")
    page.visit(f"{web_server.url}#finding/{1:016x}")
    page.until_text("#findingRows", "2 times")
    local = datetime.fromtimestamp(finding(1).first_time)
    page.until(lambda: page.text("#findingDetail time").endswith(f"{local:%H:%M:%S}"))
    page.point_at("#findingRows time")
    page.until(lambda: page.attribute("#findingRows time", "title") == "2 hours ago")


def test_findings_come_and_change_live(page: Page, web_server: WebServer, store: FindingStore) -> None:
    """What is open stays open when another finding comes, or the same one once more."""
    store.add(finding(1), b"first")
    opened(page, web_server)
    page.until_text("#findingRows", "not tried yet")
    store.add(finding(2), b"second")
    page.until(lambda: page.texts("#findingRows .title") == ["number 2", "number 1"])
    page.until_text("#live", "New finding: panic: number 2")
    assert page.text("#findingTitle") == "number 1"
    assert page.texts("#findingRows [aria-current=true] .title") == ["number 1"]
    store.add(finding(1), b"first")
    store.update(finding(1).id, lambda old: replace(old, reproduces=False, minimized_size=3), b"1st")
    page.until_text("#findingRows li:nth-child(2)", "2 times", "does not reproduce")
    page.until_text("#findingDetail", "3 bytes, minimized")
    page.until_text("#findingInput-bytes", "1st")


def test_many_findings_can_be_filtered(page: Page, web_server: WebServer, store: FindingStore) -> None:
    """By text and by kind; few need no filter."""
    for number in range(5):
        store.add(finding(number), b"")
    page.visit(f"{web_server.url}#findings")
    page.until_text("#findingsTitle", "5 findings")
    assert not page.is_shown("#viewFindings input")
    store.add(finding(5, kind="hang", test="main.test.other"), b"")
    store.add(finding(6, kind="hang"), b"")
    page.until_shown("#viewFindings input")
    newest_first = [f"number {number}" for number in reversed(range(7))]
    page.until(lambda: page.texts("#findingRows .title") == newest_first)
    page.fill("#viewFindings input", "OTHER")
    page.until(lambda: page.texts("#findingRows .title") == ["number 5"])
    page.fill("#viewFindings input", "nothing")
    page.until_text("#viewFindings .entriesNote", "No finding matches")
    page.fill("#viewFindings input", "")
    page.click_text(".chip", "hang 2")
    page.until(lambda: page.texts("#findingRows .title") == ["number 6", "number 5"])


def test_a_finding_that_cannot_be_loaded_says_so(
    page: Page, web_server: WebServer, store: FindingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the list knows remains, and the next news of it tries again."""
    page.expect("404")
    store.add(finding(1), b"")
    with monkeypatch.context() as patch:
        patch.setattr(store, "details", lambda _: None)
        page.visit(f"{web_server.url}#finding/{1:016x}")
        page.until_text("#findingDetail", "could not be loaded: the server answered 404")
        assert page.text("#findingTitle") == "number 1"
    store.add(finding(1), b"")
    page.until_text("#findingDetail .command", f"fuzzserver repro {1:016x}")
    assert "could not be loaded" not in page.find("#findingDetail").text


@pytest.mark.parametrize("wanted", ["0000000000000009", "%3Cscript%3E", "../../etc/passwd"])
@pytest.mark.usefixtures("store")
def test_an_unknown_finding_says_so(page: Page, web_server: WebServer, wanted: str) -> None:
    """An old link, or one that was made up."""
    page.visit(f"{web_server.url}#finding/{wanted}")
    page.until_text("#findingTitle", "No such finding")


@pytest.mark.usefixtures("store")
def test_no_findings_is_said_with_what_would_be_one(page: Page, web_server: WebServer) -> None:
    """Nobody should wonder whether the page works."""
    page.visit(f"{web_server.url}#findings")
    page.until_text("#viewFindings .empty", "No findings so far", "panic")


# ---------------------------------------------------------------------- corpus


def test_a_corpus_lists_its_inputs_and_shows_their_bytes(
    page: Page, web_server: WebServer, tmp_path: Path
) -> None:
    """The newest first; each can be opened, and is a link."""
    corpus = corpus_of(web_server, tmp_path, "main.test.sum", [b"one", b"three", BYTES])
    for number in range(3):
        os.utime(corpus.folder / str(number), (1_763_720_000 + number,) * 2)
    page.visit(f"{web_server.url}#corpus")
    page.until(lambda: page.texts("#corpusRows tbody th") == ["2", "1", "0"])
    page.until_text("#corpusRows summary", "main.test.sum", "3 inputs")
    assert page.texts("#corpusRows tbody td")[2] == "5 B"
    page.click("#corpusRows tbody tr:nth-child(2) a")
    page.until(lambda: page.hash == "#corpus/0/1")
    page.until_text("#corpusDetail h2", "Input 1")
    page.until_text("#corpusInput-bytes", "74 68 72 65 65", "three")
    page.click_text("#corpusDetail a", "Older")
    page.until_text("#corpusInput-bytes", "one")
    page.driver.back()
    page.until_text("#corpusInput-bytes", "three")
    page.driver.refresh()
    page.until_text("#corpusInput-bytes", "three")
    link = page.find("#corpusRows a[download]").get_attribute("href")
    assert link == f"{web_server.url}corpus/0.tar"


def test_corpora_of_several_tests_are_grouped_and_refreshed(
    page: Page, web_server: WebServer, tmp_path: Path
) -> None:
    """Each group opens by itself; what is new comes with a click at the latest."""
    corpus_of(web_server, tmp_path, "a", [b"1"])
    other = corpus_of(web_server, tmp_path, "b", [], target="src/other.zig")
    page.visit(f"{web_server.url}#corpus")
    page.until(lambda: len(page.texts("#corpusRows .group")) == 2)
    page.until_text("#corpusRows", "src/other.zig", "0 inputs")
    (other.folder / "0").write_bytes(b"new")
    page.click_text("#viewCorpus button", "Refresh")
    page.until_text("#corpusRows .group:nth-child(2)", "1 input")
    page.click("#corpusRows .group:nth-child(2) summary")
    page.until_shown("#corpusRows .group:nth-child(2) tbody a")


def test_a_large_corpus_is_shown_in_parts(page: Page, web_server: WebServer, tmp_path: Path) -> None:
    """A thousand rows at once help nobody."""
    corpus_of(web_server, tmp_path, "a", [b"%d" % number for number in range(1200)])
    page.visit(f"{web_server.url}#corpus")
    page.until(lambda: len(page.texts("#corpusRows tbody tr")) == 500)
    page.click_text("#corpusRows button", "Show")
    page.until(lambda: len(page.texts("#corpusRows tbody tr")) == 1000)


def test_an_empty_corpus_and_an_unknown_input_say_so(
    page: Page, web_server: WebServer, tmp_path: Path
) -> None:
    """There is always a reason."""
    page.visit(f"{web_server.url}#corpus")
    page.until_text("#viewCorpus .empty", "No corpus so far")
    corpus_of(web_server, tmp_path, "a", [b"1"])
    page.visit(f"{web_server.url}#corpus/0/77")
    page.until_text("#corpusDetail", "There is no such input now")


# ------------------------------------------------------------------------- log


def test_the_log_shows_what_was_said_with_links_and_without_escapes(
    page: Page, web_server: WebServer, puppet: Puppet
) -> None:
    """A compile error has its place, its line and what the caret points at."""
    web_server.add_log("zig", COMPILE_ERROR, "error")
    web_server.add_log("main.test.sum", ESCAPES)
    page.visit(f"{web_server.url}#log")
    page.until(lambda: len(page.texts(".logEntry")) == 2)
    first = page.find(".logEntry")
    assert first.get_attribute("data-level") == "error"
    page.until_text(".logEntry", "zig", "error: expected type 'u32', found 'bool'")
    assert page.texts(".logEntry .code u") == ["total"]
    assert page.texts(".logEntry:nth-child(2) .logText") == ["red plain"]
    page.until(lambda: page.texts(".logEntry a[href]") == ["src/parser.zig:8:12"])
    page.click(".logEntry a[href]")
    page.until_text("#sourceTitle", "parser.zig")
    page.until_text(".sourceRow.current", "return total;")
    assert puppet.n_runs == 0


def test_the_log_is_filtered_by_text_and_level(page: Page, web_server: WebServer) -> None:
    """And says so where nothing is left."""
    for level in ("info", "warning", "error"):
        web_server.add_log("fuzzserver", f"this is {level}", level)
    page.visit(f"{web_server.url}#log")
    page.until(lambda: len(page.texts(".logEntry:not([hidden])")) == 3)
    page.script(
        "const level = document.querySelector('#logLevel'); level.value = 'warning';"
        "level.dispatchEvent(new Event('change'))"
    )
    page.until(lambda: len(page.texts(".logEntry:not([hidden])")) == 2)
    page.fill("#logFilter", "IS ERR")
    page.until(lambda: len(page.texts(".logEntry:not([hidden])")) == 1)
    page.fill("#logFilter", "zzz")
    page.until_text("#viewLog .empty", "Nothing matches")


def test_the_log_goes_on_and_stays_where_the_reader_is(page: Page, web_server: WebServer) -> None:
    """At its end it scrolls along; elsewhere it tells how much is new."""
    for number in range(300):
        web_server.add_log("a", f"line {number}")
    page.visit(f"{web_server.url}#log")
    at_end = (
        "const dom = document.querySelector('#logScroll');"
        "return dom.scrollHeight - dom.scrollTop - dom.clientHeight < 30"
    )
    page.until_shown("#notice")  # Which takes some of the room of the log.
    page.until(lambda: len(page.texts(".logEntry")) == 300 and page.script(at_end))
    web_server.add_log("a", "the newest")
    web_server.notify()
    page.until(lambda: page.texts(".logEntry")[-1].endswith("the newest") and page.script(at_end))
    page.script("document.querySelector('#logScroll').scrollTop = 0")
    page.until_shown("#logJump")
    web_server.add_log("a", "unread")
    web_server.notify()
    page.until_text("#logJump", "1 new line")
    assert page.script("return document.querySelector('#logScroll').scrollTop") == 0
    page.click("#logJump")
    page.until(lambda: page.script(at_end))
    page.until_hidden("#logJump")


def test_the_log_is_whole_after_a_lost_connection(page: Page, web_server: WebServer) -> None:
    """Nothing twice, and what came meanwhile is there."""
    for number in range(3):
        web_server.add_log("a", f"line {number}")
    page.visit(f"{web_server.url}#log")
    page.until(lambda: len(page.texts(".logEntry")) == 3)
    assert web_server._http_server is not None
    with page.offline():
        for session in list(web_server._http_server._sessions):
            session.stop()
        page.until_text("#connection", "reconnecting")
        web_server.add_log("a", "line 3")
    page.until(lambda: page.text("#connection") == "connected")
    page.until(lambda: len(page.texts(".logEntry")) == 4)
    assert [text[-6:] for text in page.texts(".logEntry")] == [f"line {number}" for number in range(4)]


def test_an_empty_log_says_so(page: Page, web_server: WebServer) -> None:
    """Nobody should wonder whether the page works."""
    page.visit(f"{web_server.url}#log")
    page.until_text("#viewLog .empty", "Nothing in the log so far")


def test_what_a_smith_reads_is_said_to_be_no_input(
    page: Page, web_server: WebServer, store: FindingStore, puppet: Puppet, tmp_path: Path
) -> None:
    """From Zig 0.16 on, a test is given values that are made of the bytes; these are shown as ever."""
    store.add(finding(1, form="smith", exact=True), b"\x0a\0\0\0" + b"0123456789")
    corpus_of(web_server, tmp_path, "main.test.fuzz sum", [b"\x01\0\0\0a"], form="smith")
    opened(page, web_server)
    page.until_text(
        "#findingDetail", "14 bytes of a Smith stream, known exactly", "std.testing.Smith makes of them"
    )
    page.until_text("#findingInput-bytes", "0a 00 00 00 30 31")
    page.go("#corpus/0/0")
    page.until_text("#corpusDetail", "5 bytes of a Smith stream", "Its std.testing.Smith makes numbers")
    page.until_text("#corpusInput-bytes", "01 00 00 00 61")
    corpus_of(web_server, tmp_path, "main.test.another", [b"abc"])
    page.visit(f"{web_server.url}#corpus/1/0")
    page.until_text("#corpusDetail", "3 bytes · kept")
    page.until_text("#corpusInput-bytes", "61 62 63")
    assert not page.is_shown("#corpusDetail .detailBody > p + p")
