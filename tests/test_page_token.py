"""The user's own browser: with the token, under each of the server's names, and by HTTPS."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuzzserver import WebServer
from fuzzserver.access import Access
from fuzzserver.zig.installation import Zig
from tests.support_browser import Page, chromium
from tests.support_ports import quiet_port
from tests.support_puppet import Puppet
from tests.support_tls import make_certificate

WITH_TOKEN = Access(token=True)


@pytest.fixture
def serve(zig: Zig, zig_cache: Path) -> Iterator[Callable[..., WebServer]]:
    """Starts servers."""
    servers: list[WebServer] = []

    def start(port: int | None = None, access: Access = WITH_TOKEN) -> WebServer:
        port = port or quiet_port()
        server = WebServer(zig=zig, cache_dir=zig_cache, listen_address=("127.0.0.1", port), access=access)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


@contextmanager
def second_tab(page: Page) -> Iterator[None]:
    """Another tab of the same browser, for as long as the block runs."""
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    try:
        yield
    finally:
        page.driver.close()
        page.driver.switch_to.window(first)


def plain(server: WebServer) -> str:
    """The address without the token."""
    return server.url.partition("?")[0]


def until_alive(page: Page, puppet: Puppet, runs: int) -> None:
    """The page is told what the fuzzer does."""
    page.until_text("#connection", "connected")
    puppet.run(runs)
    page.until_text("#statTotalRuns", f"{puppet.n_runs:,}")


def test_the_printed_address_lets_the_browser_in(
    page: Page, serve: Callable[..., WebServer], tmp_path: Path
) -> None:
    """It works as a whole, and nobody who looks at the browser finds the token."""
    server = serve()
    puppet = Puppet(tmp_path).show(server)
    address = f"{plain(server)}?target={puppet.id}"
    page.visit(f"{server.url}&target={puppet.id}#f1")
    assert page.driver.current_url == f"{address}#f1"
    page.until(lambda: len(page.texts("#sourceScroll .mark")) == 10)
    until_alive(page, puppet, 5)
    # Fetches of all kinds, and of wasm.
    page.click("#tabFunctions")
    page.until_text("#functionScroll", "parser.digit")
    assert page.script("return document.cookie") == ""
    cookie = page.driver.get_cookie(f"fuzzserver-{server.port}")
    assert cookie is not None
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Lax", "/")
    assert cookie["value"] == server.token
    known = page.script(
        "return JSON.stringify([performance.getEntriesByType('resource').map(each => each.name),"
        "document.documentElement.outerHTML, history.state, {...localStorage}, {...sessionStorage}])"
    )
    assert server.token is not None
    assert server.token not in known
    page.driver.refresh()
    page.until_text("#sourceTitle", "parser.zig")
    until_alive(page, puppet, 5)
    with second_tab(page):
        page.open(plain(server))
        until_alive(page, puppet, 5)


def test_a_browser_without_the_token_is_told_what_to_do(
    page: Page, serve: Callable[..., WebServer], tmp_path: Path
) -> None:
    """And sees nothing else. The name ``localhost`` shares no cookies with the address."""
    page.expect("401", "//localhost:")
    server = serve()
    puppet = Puppet(tmp_path).show(server)
    for address in (plain(server), f"{plain(server)}?token=wrong", f"{plain(server)}targets.json"):
        page.open(address)
        page.until_text("body", "This server wants its token", "printed")
    assert page.driver.get_cookie(f"fuzzserver-{server.port}") is None
    page.visit(server.url)
    until_alive(page, puppet, 5)
    by_name = plain(server).replace("127.0.0.1", "localhost")
    page.open(by_name)
    page.until_text("body", "This server wants its token")
    page.visit(server.url.replace("127.0.0.1", "localhost"))
    assert page.driver.current_url == by_name
    until_alive(page, puppet, 5)


def test_a_server_with_another_token_is_told_from_one_that_is_gone(
    page: Page, serve: Callable[..., WebServer], tmp_path: Path
) -> None:
    """All stays; and as soon as the new address was opened in any tab, the page goes on."""
    page.expect_lost_server()
    page.expect("401")
    server = serve()
    puppet = Puppet(tmp_path)
    puppet.cover(0, runs=42)
    puppet.show(server)
    page.visit(server.url)
    page.until_text("#statTotalRuns", "42")
    server.stop()
    page.until_text("#connection", "reconnecting")
    server = serve(server.port)
    puppet.show(server)
    page.until_text("#connection", "token needed")
    page.until_text("#noticeLines", "The server wants its token", "Open the address that it printed")
    page.until_text("#status", "wants its token")
    assert page.text("#statTotalRuns") == "42"
    with second_tab(page):
        page.open(server.url)
        until_alive(page, puppet, 5)
    until_alive(page, puppet, 5)
    page.until_hidden("#noticeLines")


def test_two_servers_do_not_disturb_each_other(
    page: Page, serve: Callable[..., WebServer], tmp_path: Path
) -> None:
    """Browsers send the cookies of all ports to each."""
    servers = [serve(), serve()]
    puppets = [Puppet(tmp_path / str(number)).show(server) for number, server in enumerate(servers)]
    for server in servers:
        page.visit(server.url)
    for server, puppet in zip(servers, puppets, strict=True):
        page.visit(plain(server))
        until_alive(page, puppet, 5)


def test_the_page_works_under_each_name(page: Page, web_server: WebServer, tmp_path: Path) -> None:
    """Both names of this machine lead to all that there is."""
    page.expect("//localhost:")
    puppet = Puppet(tmp_path).show(web_server)
    for host in ("127.0.0.1", "localhost"):
        page.visit(f"http://{host}:{web_server.port}/#f1")
        page.until(lambda: len(page.texts("#sourceScroll .mark")) == 10)
        until_alive(page, puppet, 5)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Access:
    """A certificate that nobody has signed, with its key."""
    cert, key = make_certificate(tmp_path_factory.mktemp("certificate"))
    return Access(token=True, tls_cert=cert, tls_key=key)


def test_https(serve: Callable[..., WebServer], certificate: Access, tmp_path: Path) -> None:
    """The page, its socket, and the cookie, which then goes by no other way."""
    server = serve(access=certificate)
    puppet = Puppet(tmp_path).show(server)
    assert server.url.startswith(f"https://127.0.0.1:{server.port}/?token=")
    with chromium(tmp_path / "chromium", "--ignore-certificate-errors") as driver:
        page = Page(driver)
        page.open("about:blank")
        page.complaints()  # Those of the browser's own first page.
        page.visit(f"{server.url}#f1")
        assert driver.current_url == f"{plain(server)}#f1"
        page.until(lambda: len(page.texts("#sourceScroll .mark")) == 10)
        until_alive(page, puppet, 5)
        cookie = driver.get_cookie(f"fuzzserver-{server.port}")
        assert cookie is not None
        assert cookie["secure"]
        driver.refresh()
        until_alive(page, puppet, 5)
        assert page.complaints() == []
