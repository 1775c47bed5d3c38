"""What all subcommands begin with: a compiler, a cache folder, a server."""

import argparse
import contextlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from fuzzserver import paths
from fuzzserver.access import Access, Limits
from fuzzserver.coverage.seen_pcs import SeenPcs
from fuzzserver.errors import InputError, ZigError
from fuzzserver.logbook import Level
from fuzzserver.signals import wait_for
from fuzzserver.step import FuzzRunStep
from fuzzserver.webserver import WebServer
from fuzzserver.wire.abi import coverage_file_name
from fuzzserver.wire.wyhash import wyhash
from fuzzserver.zig.installation import Zig, find_zig
from fuzzserver.zig.process import ChildGroup

__all__ = ["cache_dir_of", "coverage_id_of_file", "serving", "zig_of"]

log = logging.getLogger(__name__)

PAGES = ("fuzzer/web/index.html", "build-web/index.html")
"""What a folder for ``--lib-dir`` has: the page of Zig 0.14, or that of later ones."""


def zig_of(args: argparse.Namespace) -> Zig:
    """The compiler, known to work and to be one that we speak with.

    It is asked on a thread of its own. A signal is an exception in the main thread: if it came between the
    start of the compiler and the note of it, nobody would end that.
    """
    zig = Zig(find_zig(args.zig), args.zig_timeout)
    children = ChildGroup()
    result: Future[None] = Future()

    def run() -> None:
        try:
            zig.check_supported(children)
            result.set_result(None)
        except Exception as error:
            result.set_exception(error)

    thread = threading.Thread(target=run, name="zig", daemon=True)
    thread.start()
    try:
        wait_for(result)
    except ZigError as error:
        raise InputError(str(error)) from error
    finally:
        children.stop()
        thread.join()
    return zig


def cache_dir_of(args: argparse.Namespace) -> Path:
    """A folder that can be written to: Zig itself does not notice if it cannot."""
    cache_dir: Path = (args.cache_dir or paths.default_cache_dir()).absolute()
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache_dir):
            return cache_dir
    except OSError as error:
        raise InputError(
            f"cannot write to cache folder '{cache_dir}': {error.strerror}; --cache-dir names another"
        ) from error


def coverage_id_of_file(path: Path) -> int:
    """The id that the fuzzer gave the file as its name; from the content if it was renamed."""
    try:
        coverage_id = int.from_bytes(bytes.fromhex(path.name), "little")
        if path.name == coverage_file_name(coverage_id):
            return coverage_id
    except (ValueError, OverflowError):
        pass
    seen_pcs = SeenPcs(path)
    try:
        return wyhash(0, seen_pcs.pc_addrs().tobytes())
    finally:
        seen_pcs.close()


@contextmanager
def serving(args: argparse.Namespace, zig: Zig, *steps: FuzzRunStep) -> Iterator[WebServer]:
    """A started server that has said where it is."""
    if args.lib_dir is not None and not any((args.lib_dir / page).is_file() for page in PAGES):
        pages = " or ".join(PAGES)
        raise InputError(f"'{args.lib_dir}' has no {pages}; --lib-dir takes the folder above that")
    web_server = WebServer(
        fuzz_run_steps=steps,
        listen_address=(args.host, args.port),
        zig=zig,
        lib_dir=args.lib_dir,
        cache_dir=cache_dir_of(args),
        access=Access(args.token, tuple(args.allow_host), args.tls_cert, args.tls_key),
        limits=_limits(args.max_connections),
    )
    with web_server, contextlib.ExitStack() as stack:
        # The address may hold the token, which is not for the page's log.
        if web_server.token is not None and not log.isEnabledFor(logging.INFO):
            # However quiet it is to be: without the token, nobody could come in.
            print(f"web interface listening at {web_server.url}", file=sys.stderr)
        log.info("web interface listening at %s", web_server.url)
        if web_server.build_web_url is not None:
            log.info("the page of '%s' is at %s", args.lib_dir, web_server.build_web_url)
        stack.enter_context(_log_shown(web_server.add_log))
        if not web_server.is_local and args.tls_cert is None:
            log.warning(
                "other machines can connect to %s, and what they are sent is not encrypted: whoever sees the "
                "token on its way can come in; --tls-cert serves HTTPS",
                args.host,
            )
        if args.port == 0:
            log.info("hint: pass --port %d to use this same port next time", web_server.port)
        if args.port_file is not None:
            _write_port_file(args.port_file, web_server.port)
        yield web_server


def _limits(connections: int) -> Limits:
    """Some of the connections are kept for requests, however many viewers there are."""
    return Limits(connections=connections, viewers=max(1, connections * 10 // 11))


@contextmanager
def _log_shown(add_log: Callable[[str, str, Level], None]) -> Iterator[None]:
    """Show our own log on the page, too, as far as it is logged at all."""
    logger = logging.getLogger("fuzzserver")
    handler = _PageHandler(add_log)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _PageHandler(logging.Handler):
    """Hands log lines on, except for what workers wrote: the page was told that as it came."""

    def __init__(self, add_log: Callable[[str, str, Level], None]) -> None:
        super().__init__(logging.INFO)
        self._add_log = add_log

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "fuzzserver.worker":
            return
        source = "zig" if record.name == "fuzzserver.compiler" else "fuzzserver"
        level: Level = "info"
        if record.levelno >= logging.WARNING:
            level = "error" if record.levelno >= logging.ERROR else "warning"
        self._add_log(source, self.format(record), level)


def _write_port_file(path: Path, port: int) -> None:
    """Write and rename, so that nobody reads half a number."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.absolute().parent, prefix=path.name, delete=False
        ) as file:
            file.write(f"{port}\n")
        try:
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
    except OSError as error:
        raise InputError(f"cannot write port file '{path}': {error.strerror}") from error
