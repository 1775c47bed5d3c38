"""The wiring: all stages of the server in the order in which data flows through them.

This is the one module that knows every layer, and what a build driver uses.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

from fuzzserver import paths
from fuzzserver.access import DEFAULT_ACCESS, DEFAULT_LIMITS, Access, Limits
from fuzzserver.errors import FuzzServerError, InputError, Stopped
from fuzzserver.observer import Observer
from fuzzserver.step import FuzzRunStep
from fuzzserver.web.entrance import Entrance
from fuzzserver.web.gate import BUILD_WEB_PATHS
from fuzzserver.web.routes import PAGE_WASM_MODE
from fuzzserver.web.server import HttpServer
from fuzzserver.web.site import BuildWebPage, Site
from fuzzserver.web.static_page import static_page as make_static_page
from fuzzserver.zig.build_web import BuildWeb
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig, find_zig
from fuzzserver.zig.page_compiler import PageCompiler
from fuzzserver.zig.shared_builds import SharedBuilds
from fuzzserver.zig.wasm import OptimizeMode

__all__ = ["WebServer", "static_page"]

log = logging.getLogger(__name__)

BACKGROUND = 10
"""How nice a compiler is for whose result nobody waits, as in setpriority(2)."""


class WebServer(Observer):
    """Shows the coverage of running fuzzers to browsers (Zig: ``WebServer``).

    A build driver starts it, tells it of its steps, and posts what its workers say::

        with WebServer() as web_server:
            step = FuzzRunStep("parser", rebuilt_executable, cache_root, inputs)
            web_server.add_step(step)
            web_server.post(CoverageMsg(coverage_id, step))
            web_server.post(EntryPointMsg(coverage_id, address))

    All methods may be called from any thread. Several servers may run in one process. Nothing is
    printed and no signal is handled; logging goes to the loggers below ``fuzzserver``.
    """

    def __init__(
        self,
        *,
        fuzz_run_steps: tuple[FuzzRunStep, ...] = (),
        listen_address: tuple[str, int] = ("127.0.0.1", 0),
        zig: Zig | None = None,
        lib_dir: Path | None = None,
        cache_dir: Path | None = None,
        access: Access = DEFAULT_ACCESS,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Nothing runs before ``start``.

        Args:
            fuzz_run_steps: what is fuzzed, as far as it is known; ``add_step`` adds more.
            listen_address: host and port; port 0 picks a free one.
            zig: the compiler for the page's wasm; by default the one of the environment.
            lib_dir: the folder whose ``fuzzer/web/`` is served instead of our own page; or the ``lib`` of Zig
                0.15 or later, whose ``build-web/`` is served beside it.
            cache_dir: where compiled wasm is kept; by default ``~/.cache/fuzzserver``.
            access: who may come in. Where other machines can reach the server, a token is always needed.
            limits: how many, how much and how long.

        Raises ZigNotFound if there is no compiler, and InputError if there is no home folder and no
        ``cache_dir``, or if ``access`` names no certificate, or a host that is none.
        """
        super().__init__(fuzz_run_steps=fuzz_run_steps)
        self._entrance = Entrance(listen_address, access)
        self._limits = limits
        zig = zig or Zig(find_zig())
        cache_dir = (cache_dir or paths.default_cache_dir()).absolute()
        self._build_web = None if lib_dir is None else BuildWeb.of(lib_dir.absolute(), zig, cache_dir)
        self._lib_dir = (paths.lib_dir() if lib_dir is None or self._build_web else lib_dir).absolute()
        self._page_compiler = PageCompiler(ZigCompileClient(zig, cache_dir))
        self._wasm_builds = SharedBuilds()
        # Until somebody asks for what they make, compilers give way to fuzzers.
        self._page_compiler.set_nice(BACKGROUND)
        self._has_map = threading.Event()
        self._http_server: HttpServer | None = None

    def start(self) -> None:
        """Listen, and start all threads. InputError if the address cannot be listened on."""
        host, port = self._entrance.address
        site = _site(
            self, self._lib_dir, self._build_wasm, self.static_page, self._build_web_page(), self.rebuild
        )
        try:
            self._http_server = HttpServer(self._entrance, site, self._limits)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"cannot listen on {host} port {port}: {reason}; port 0 picks a free one"
            ) from error
        self.coverage_files.watch(self._look_for_map)
        super().start()
        self._start_thread("http", self._http_server.serve_forever, 0.1)
        self._start_thread("wasm", self._build_ahead)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._http_server is not None, "the server was not started"
        return self._http_server.server_port

    @property
    def url(self) -> str:
        """Where a browser finds the page, with the token that it needs."""
        assert self._http_server is not None, "the server was not started"
        return self._entrance.url(self._http_server.bound)

    @property
    def build_web_url(self) -> str | None:
        """Where a browser finds the page of Zig 0.15 or later; None if it is not served."""
        assert self._http_server is not None, "the server was not started"
        if self._build_web is None:
            return None
        return self._entrance.url(self._http_server.bound, BUILD_WEB_PATHS[0])

    @property
    def token(self) -> str | None:
        """What a browser must know to come in; None if nothing."""
        return self._entrance.token

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return self._entrance.is_local

    def static_page(self) -> bytes:
        """The page as one file, with all that there is now inside. FuzzServerError if it cannot be made."""
        lib_dir = paths.lib_dir().absolute()
        return make_static_page(_site(self, lib_dir, lambda mode: self._run_build(lib_dir, mode)))

    def _build_wasm(self, optimize_mode: str) -> Path:
        """The page's wasm, for somebody who waits for it."""
        self._page_compiler.set_nice(0)
        return self._run_build(self._lib_dir, optimize_mode)

    def _build_web_page(self) -> BuildWebPage | None:
        build_web = self._build_web
        if build_web is None:
            return None

        def build_wasm(optimize_mode: str) -> Path:
            mode = cast(OptimizeMode, optimize_mode)
            return self._wasm_builds.run(f"{build_web.folder}:{mode}", lambda: build_web.build_wasm(mode))

        return BuildWebPage(build_web.folder, build_wasm, build_web.release.index_has_runs)

    def _build_ahead(self) -> None:
        """Have the page's wasm made as soon as there is something to show. *Runs on* the thread ``wasm``."""
        self._has_map.wait()
        try:
            self._run_build(self._lib_dir, PAGE_WASM_MODE)
        except Stopped:
            pass
        except FuzzServerError as error:  # Whoever asks for it is told, unless it can be made by then.
            log.info("the page's wasm is not there yet: %s", error)

    def _run_build(self, lib_dir: Path, optimize_mode: str) -> Path:
        mode = cast(OptimizeMode, optimize_mode)
        return self._wasm_builds.run(f"{lib_dir}:{mode}", lambda: self._page_compiler.build(lib_dir, mode))

    def _look_for_map(self) -> None:
        if self.coverage_files.first() is not None:
            self._has_map.set()
            self.coverage_files.unwatch(self._look_for_map)

    def _end(self) -> None:
        self._wasm_builds.stop()
        self._page_compiler.stop()
        if self._build_web is not None:
            self._build_web.stop()
        self._has_map.set()
        self._close()
        if self._http_server is not None:
            self._http_server.stop()
        super()._end()


def static_page(observer: Observer, client: ZigCompileClient) -> bytes:
    """The page as one file, of an observer without a server. FuzzServerError if it cannot be made."""
    lib_dir = paths.lib_dir().absolute()
    compiler = PageCompiler(client)

    def build_wasm(optimize_mode: str) -> Path:
        return compiler.build(lib_dir, cast(OptimizeMode, optimize_mode))

    return make_static_page(_site(observer, lib_dir, build_wasm))


def _no_static_page() -> bytes:
    raise FuzzServerError("a static page has no static page in it")


def _no_rebuild() -> None:
    raise InputError("a static page has nothing that could be built")


def _site(
    observer: Observer,
    lib_dir: Path,
    build_wasm: Callable[[str], Path],
    static_page: Callable[[], bytes] = _no_static_page,
    build_web: BuildWebPage | None = None,
    rebuild: Callable[[], None] = _no_rebuild,
) -> Site:
    """What is served of an observer."""
    return Site(
        lib_dir=lib_dir,
        own_page=lib_dir == paths.lib_dir().absolute(),
        build_wasm=build_wasm,
        sources=observer.sources,
        coverage_files=observer.coverage_files,
        now=observer.now,
        status=observer.status_json,
        details=observer.details_json,
        log_book=observer.log_book,
        findings=lambda: observer.findings,
        corpora=lambda: observer.corpora,
        report=observer.report,
        static_page=static_page,
        build_web=build_web,
        rebuild=rebuild,
    )
