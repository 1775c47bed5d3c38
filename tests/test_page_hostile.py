"""Whatever files, tests and inputs are called and print, the page shows it as text and runs none of it."""

from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from selenium.webdriver.common.keys import Keys

from fuzzserver import WebServer
from fuzzserver.status import Progress, TestStatus
from tests.support_browser import Page
from tests.support_puppet import Point, Puppet, corpus_of, finding, findings_of

RUN = "window.dialogs.push(1)"

PAYLOADS = (
    f"<script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"<img src=x onerror={RUN}>",
    f"<img src=x onerror='{RUN}'//",
    f'"><img src=x onerror={RUN}>',
    f"'><img src=x onerror={RUN}>",
    f"<svg onload={RUN}>",
    f"<svg><script>{RUN}</script></svg>",
    f"<svg><animate onbegin={RUN} attributeName=x dur=1s>",
    f"<math><mtext><img src=x onerror={RUN}></mtext></math>",
    f"<body onload={RUN}>",
    f"<iframe src=javascript:{RUN}>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'>",
    f"<object data=javascript:{RUN}>",
    f"<embed src=javascript:{RUN}>",
    f"<a href=javascript:{RUN}>x</a>",
    f"javascript:{RUN}",
    f"javascript:{RUN}:1:1: error: x",
    f"JaVaScRiPt:{RUN}//",
    f"data:text/html,<script>{RUN}</script>",
    f"<details open ontoggle={RUN}>",
    f"<input autofocus onfocus={RUN}>",
    f"<select onfocus={RUN} autofocus>",
    f"<video><source onerror={RUN}></video>",
    f"<audio src=x onerror={RUN}>",
    f"<marquee onstart={RUN}>",
    f"<style>@import 'x';*{{background:url(javascript:{RUN})}}</style>",
    f"<link rel=stylesheet href=javascript:{RUN}>",
    f"<meta http-equiv=refresh content='0;url=javascript:{RUN}'>",
    f"<base href=javascript:{RUN}//>",
    f"<form action=javascript:{RUN}><button autofocus>x",
    f"<template><script>{RUN}</script></template>",
    f"<noscript><p title='</noscript><img src=x onerror={RUN}>'>",
    f"<!--><img src=x onerror={RUN}>-->",
    f"<![CDATA[<img src=x onerror={RUN}>]]>",
    f"&lt;img src=x onerror={RUN}&gt;",
    f"&#60;script&#62;{RUN}&#60;/script&#62;",
    f"\\u003cscript\\u003e{RUN}\\u003c/script\\u003e",
    f"\\x3cscript\\x3e{RUN}",
    f"\uff1cscript\uff1e{RUN}\uff1c/script\uff1e",
    f"${{{RUN}}}",
    f"{{{{constructor.constructor('{RUN}')()}}}}",
    f"`${{{RUN}}}`",
    f"');{RUN};//",
    f'");{RUN};//',
    f"</title><script>{RUN}</script>",
    f"</textarea><img src=x onerror={RUN}>",
    f"__proto__ constructor {RUN}",
    f"\u202e<img src=x onerror={RUN}>\u2066\u200f",
    f"x\u2028\u2029\ufeff<script>{RUN}</script>\ud83d\ude00".encode("utf-16", "surrogatepass").decode(
        "utf-16"
    ),
    f"\x01\x02\x07\x08\x0b\x1b[31m\x7f\x85<img src=x onerror={RUN}>",
    f"\x1b]8;;javascript:{RUN}\x07link\x1b]8;;\x07",
)
ALL = "\n".join(PAYLOADS)
FOREIGN = (
    "img, svg, iframe, object, embed, video, audio, marquee, math, base, style, template, "
    "form:not([method=dialog])"
)


@pytest.fixture(params=["with policy", "without policy"])
def page(request: pytest.FixtureRequest, page: Page) -> Page:
    """A tab; and one that heeds no policy of any page, since nothing may rely on one."""
    if request.param == "without policy":
        page.driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    return page


@pytest.fixture
def hostile(web_server: WebServer, tmp_path: Path) -> Puppet:
    """Everything that has a name has each of these."""
    points = []
    for payload in PAYLOADS:
        # A name of a file holds no slash.
        points.append(Point(f"src/{payload.replace('/', '|')}.zig", 1, 3, payload.replace("\0", "")))
    made = Puppet(
        tmp_path,
        {"src/hostile.zig": ALL.replace("\x0b", "").replace("\x85", "") + "\n§x"},
        name=PAYLOADS[2],
        points=points,
        oddities=PAYLOADS,
        zig_version=PAYLOADS[0],
    ).show(web_server, *range(1, len(PAYLOADS) + 1))
    for number, payload in enumerate(PAYLOADS):
        test = TestStatus(payload, payload, payload, 1, 1, 1)
        shown = {"id": made.id} if number == 0 else {}
        more = {"key": str(number), "name": payload, "text": payload, "tests": (test,), "earlier": (made.id,)}
        web_server.set_target(replace(made.target(payload), **(more | shown)))
    web_server.set_status("fuzzing", ALL)
    web_server.set_progress(Progress(ALL, 1, 2))
    return made


def harm(page: Page) -> list[str]:
    """What should never have come about."""
    found = [f"executed: {each}" for each in page.script("return window.dialogs")]
    found += page.script(
        "return [...document.querySelectorAll(arguments[0])].map(dom => dom.outerHTML.slice(0, 200))", FOREIGN
    )
    found += page.script(
        "return [...document.querySelectorAll('*')].flatMap(dom => dom.getAttributeNames()"
        ".filter(name => name.startsWith('on')).map(name => `${dom.tagName} ${name}`))"
    )
    found += page.script(
        "return [...document.querySelectorAll('[href], [src], [action]')]"
        ".map(dom => dom.getAttribute('href') ?? dom.getAttribute('src') ?? dom.getAttribute('action'))"
        ".filter(url => /^\\s*(?:javascript|data:text|vbscript)/i.test(url))"
    )
    found += page.script(
        "return [...document.querySelectorAll('script')]"
        ".filter(dom => !dom.src.endsWith('main.js')).map(dom => dom.text)"
    )
    return found


def missing(page: Page, selector: str, wanted: tuple[str, ...] = PAYLOADS) -> list[str]:
    """Which of these texts no such element shows."""
    shown = "\n".join(page.texts(selector))
    return [each for each in wanted if each not in shown]


def test_the_policy_is_heeded_or_not(
    page: Page, web_server: WebServer, request: pytest.FixtureRequest
) -> None:
    """So that the tests below mean what they say."""
    page.expect("TrustedHTML", "trusted", "policy violation", "inline event handler")
    page.visit(web_server.url)
    policy = page.script("return fetch('').then(answer => answer.headers.get('content-security-policy'))")
    assert "script-src 'self' 'wasm-unsafe-eval';" in policy
    works = page.script(
        "const dom = document.createElement('p');"
        "try { dom.innerHTML = '<b>'; dom.setAttribute('onclick', arguments[0]); } catch {}"
        "dom.click();"
        "return [dom.innerHTML !== '', window.dialogs.length > 0]",
        RUN,
    )
    assert works == [request.node.callspec.params["page"] == "without policy"] * 2


def test_names_in_the_coverage_are_only_text(page: Page, web_server: WebServer, hostile: Puppet) -> None:
    """Files, functions, points, source lines, and what is new of them."""
    page.expect("404")  # Files with such names do not exist.
    page.size(1600, 3000)
    page.visit(web_server.url)
    page.until(lambda: len(page.texts("#fileScroll .listName")) > 50)
    page.click("#filesAsTree")
    page.until_text("#fileScroll", "hostile.zig")
    files = tuple(f"{payload.replace('/', '|')}.zig" for payload in PAYLOADS)
    page.until(lambda: missing(page, "#fileScroll .listName", files) == [])
    assert harm(page) == []
    page.click("#tabFunctions")
    page.until(lambda: missing(page, "#functionScroll .listName") == [])
    page.until(lambda: missing(page, "#entryPointsList p") == [])
    assert harm(page) == []
    hostile.cover_all()
    page.click("#tabNew")
    page.until(lambda: missing(page, "#newList .newsFunction") == [])
    for number in range(1, len(PAYLOADS) + 1, 7):
        page.go(f"#f{number}")
        page.until(lambda number=number: page.text("#sourceTitle") == files[number - 1])
        page.until_shown(".pointRow")
        assert harm(page) == []
    page.go("#f0")
    page.until_text("#sourceTitle", "hostile.zig")
    lines = [line for line in hostile.path("src/hostile.zig").read_text().split("\n") if "\r" not in line]
    page.until(lambda: missing(page, ".lineText", tuple(lines)) == [])
    page.script("document.querySelector('.mark').focus()")
    page.until_shown("#pointCard")
    assert harm(page) == []


def test_names_of_targets_and_tests_are_only_text(page: Page, web_server: WebServer, hostile: Puppet) -> None:
    """The list, notices, progress, oddities, and what gets nowhere."""
    page.size(1600, 3000)
    page.visit(web_server.url)
    page.until_text("#targetName", PAYLOADS[0])
    page.click("#targetButton")
    page.until(lambda: missing(page, "#targetList .targetHead .name") == [])
    page.until(lambda: missing(page, "#targetList tr .name") == [])
    assert harm(page) == []
    page.press(Keys.ESCAPE)
    page.until(lambda: missing(page, "#noticeOddities li") == [])
    page.until(lambda: missing(page, "#noticeLines") == [])
    web_server.set_status("failed", ALL)
    page.until(lambda: missing(page, "#noticeLog") == [])
    hostile.executable.write_bytes(b"another")
    web_server.notify()
    page.until_text("#noticeLines", "newer than what is shown")
    assert harm(page) == []
    wanted = quote(PAYLOADS[2], safe="")
    page.visit(f"{web_server.url}?target={wanted}#{wanted}")
    page.until_text("#noticeText, #noticeLog", PAYLOADS[2])
    assert harm(page) == []


def test_findings_are_only_text(page: Page, web_server: WebServer, tmp_path: Path) -> None:
    """Message, kind, test, stack, output, command and input."""
    store = findings_of(web_server, tmp_path)
    for number, payload in enumerate(PAYLOADS):
        store.add(
            finding(number, kind=payload, message=payload, test=payload, place=payload), payload.encode()
        )
    stack = "".join(f"{payload}:1:1: 0x1 in {payload} (test)\n{payload}\n^\n" for payload in PAYLOADS)
    more = {"kind": ALL, "message": ALL, "test": ALL, "target": ALL, "place": f"{ALL}:1:1", "argv": PAYLOADS}
    store.add(finding(99, stack=stack, stderr=ALL + stack, **more), ALL.encode())
    page.size(1600, 3000)
    page.visit(f"{web_server.url}#findings")
    page.until(lambda: len(page.texts("#findingRows li")) == len(PAYLOADS) + 1)
    without_escapes = tuple(payload for payload in PAYLOADS if "\x1b" not in payload)
    page.until(lambda: missing(page, "#findingRows .title", without_escapes) == [])
    page.until(lambda: missing(page, ".chip") == [])
    assert harm(page) == []
    page.go(f"#finding/{99:016x}")
    page.until_shown("#findingInput-bytes")
    page.click("#findingDetail details summary")
    page.until(lambda: missing(page, "#findingDetail .stack", without_escapes) == [])
    page.until(lambda: missing(page, "#findingDetail .paper", without_escapes) == [])
    page.click("#findingInput-text")
    plain = tuple(payload for payload in PAYLOADS if payload.isprintable())
    page.until(lambda: missing(page, "#findingInput-bytes", plain) == [])
    page.click("#findingInput-zig")
    assert harm(page) == []
    # Characters that turn the text around, or hide, are named instead of used where bytes are shown.
    assert "\u202e" not in page.text("#findingInput-bytes")
    page.go("#finding/" + quote(PAYLOADS[2], safe=""))
    page.until_text("#findingDetail", PAYLOADS[2])
    page.go("#coverage")
    page.until_text("#status", "Waiting")
    assert harm(page) == []


def test_corpora_and_the_log_are_only_text(page: Page, web_server: WebServer, tmp_path: Path) -> None:
    """Names, inputs and lines."""
    for number, payload in enumerate(PAYLOADS):
        corpus_of(web_server, tmp_path / str(number), payload, [payload.encode()], target=payload)
        web_server.add_log(payload, payload, "error")
    page.size(1600, 3000)
    page.visit(f"{web_server.url}#corpus/2/0")
    page.until_text("#corpusDetail", PAYLOADS[2])
    page.until(lambda: missing(page, "#corpusRows .title") == [])
    page.click("#corpusInput-text")
    page.until_text("#corpusInput-bytes", PAYLOADS[2])
    assert harm(page) == []
    page.go("#log")
    without_escapes = tuple(payload for payload in PAYLOADS if "\x1b" not in payload)
    page.until(lambda: missing(page, ".logEntry .logText", without_escapes) == [])
    page.until(lambda: missing(page, ".logEntry .source") == [])
    assert harm(page) == []
