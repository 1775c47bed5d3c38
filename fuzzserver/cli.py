"""The command line. It uses the package as any build driver would."""

import argparse
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from fuzzserver import paths
from fuzzserver.arguments import ExitCode, make_parser
from fuzzserver.coverage.coverage_map import check_inputs
from fuzzserver.coverage.queue import CoverageMsg, EntryPointMsg
from fuzzserver.coverage.seen_pcs import SeenPcs
from fuzzserver.errors import (
    CompileErrors,
    FuzzServerError,
    InputError,
    TestRunnerError,
    ZigError,
    ZigNotFound,
    ZigUnsupported,
)
from fuzzserver.fuzz.build import FuzzRoot
from fuzzserver.fuzz.driver import FuzzDriver
from fuzzserver.step import FuzzRunStep, SourcePath
from fuzzserver.webserver import WebServer
from fuzzserver.wire.abi import coverage_file_name
from fuzzserver.wire.wyhash import wyhash
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig, find_zig

__all__ = ["main"]

log = logging.getLogger("fuzzserver")


class _Formatter(logging.Formatter):
    """``level: message``, except for what other programs wrote, which is passed on as it is."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.name in ("fuzzserver.compiler", "fuzzserver.worker"):
            return text
        return f"{record.levelname.lower()}: {text}"


def _set_up_logging(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(level.upper())


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends the program. The workers do not belong to the terminal, so its end must reach us."""


class _Signalled(BaseException):
    """One of ``SIGNALS`` has come. As KeyboardInterrupt, it passes everything that handles errors."""

    def __init__(self, number: int) -> None:
        self.exit_code = ExitCode.SIGINT if number == signal.SIGINT else ExitCode.SIGTERM


def _on_signal(number: int, _frame: object) -> NoReturn:
    """End what the main thread does, in good order; another signal ends the process at once."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    raise _Signalled(number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = make_parser().parse_args(argv)
    _set_up_logging(args.log_level)
    for number in SIGNALS:
        # nohup has SIGHUP ignored and means it; shells do so with SIGINT and mean something else.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _on_signal)
    try:
        return _serve(args) if args.command == "serve" else _fuzz(args)
    except FuzzServerError as error:
        if not isinstance(error, CompileErrors):  # Those are in the log already.
            log.error("%s", error)
        return _error_code(error)
    except Exception as error:
        log.error("internal error: %r", error, exc_info=log.isEnabledFor(logging.DEBUG))
        return ExitCode.INTERNAL_ERROR
    except _Signalled as signalled:
        return signalled.exit_code


def _error_code(error: BaseException) -> ExitCode:
    if isinstance(error, (InputError, ZigNotFound, ZigUnsupported)):
        return ExitCode.USAGE
    if isinstance(error, (ZigError, TestRunnerError)):
        return ExitCode.BUILD_FAILED
    return ExitCode.INTERNAL_ERROR


def _zig(args: argparse.Namespace) -> Zig:
    """The compiler, known to work and to be one that we speak with."""
    zig = Zig(find_zig(args.zig), args.zig_timeout)
    try:
        zig.check_supported()
    except ZigError as error:
        raise InputError(str(error)) from error
    return zig


def _cache_dir(args: argparse.Namespace) -> Path:
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


@contextmanager
def _web_server(args: argparse.Namespace, zig: Zig, *steps: FuzzRunStep) -> Iterator[WebServer]:
    """A started server that has said where it is."""
    if args.lib_dir is not None and not (args.lib_dir / "fuzzer" / "web" / "index.html").is_file():
        raise InputError(
            f"'{args.lib_dir}' has no fuzzer/web/index.html; --lib-dir takes the folder above 'fuzzer'"
        )
    web_server = WebServer(
        fuzz_run_steps=steps,
        listen_address=(args.host, args.port),
        zig=zig,
        lib_dir=args.lib_dir,
        cache_dir=_cache_dir(args),
    )
    with web_server:
        log.info("web interface listening at %s", web_server.url)
        if args.port == 0:
            log.info("hint: pass --port %d to use this same port next time", web_server.port)
        if args.port_file is not None:
            _write_port_file(args.port_file, web_server.port)
        yield web_server


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
        except OSError:
            os.unlink(file.name)
            raise
    except OSError as error:
        raise InputError(f"cannot write port file '{path}': {error.strerror}") from error


def _serve(args: argparse.Namespace) -> NoReturn:
    """Show an executable and its coverage file until a signal comes."""
    sources = tuple(path for source in args.source for path in _source_paths(source)) if args.source else None
    step = FuzzRunStep(
        args.executable.name,
        args.executable.absolute(),
        inputs=sources,
        coverage_file=args.coverage.absolute(),
    )
    coverage_id = _coverage_id(args.coverage)
    check_inputs(step, coverage_id)
    with _web_server(args, _zig(args), step) as web_server:
        web_server.set_status("serving", f"Showing {args.executable} with {args.coverage}.")
        web_server.post(CoverageMsg(coverage_id, step))
        for addr in args.entry_point:
            web_server.post(EntryPointMsg(coverage_id, addr))
        while True:
            signal.pause()


def _coverage_id(path: Path) -> int:
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


def _source_paths(source: Path) -> Iterator[SourcePath]:
    """A file, or all files of a folder except those in hidden folders."""
    source = source.absolute()
    if source.is_file():
        yield SourcePath(str(source.parent), source.name)
    elif source.is_dir():
        for folder, folders, names in os.walk(source):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                yield SourcePath(str(source), os.path.relpath(os.path.join(folder, name), source))
    else:
        raise InputError(f"source '{source}' does not exist")


def _fuzz(args: argparse.Namespace) -> int:
    """Build, fuzz and show until a signal comes, or the build fails."""
    zig = _zig(args)
    root = FuzzRoot.find(_demo_root(args) if args.command == "demo" else args.root)
    with _web_server(args, zig) as web_server:
        driver = FuzzDriver(
            ZigCompileClient(zig, _cache_dir(args)),
            root,
            add_step=web_server.add_step,
            post=web_server.post,
            set_status=web_server.set_status,
        )
        failed: Future[Exception] = Future()
        thread = threading.Thread(
            target=_drive, args=(driver, web_server, failed), name="fuzz-driver", daemon=True
        )
        thread.start()
        try:
            error = failed.result()
        except _Signalled:
            if driver.crashes:
                return ExitCode.FINDINGS
            raise
        finally:
            driver.stop()
            thread.join()
    raise error


def _drive(driver: FuzzDriver, web_server: WebServer, failed: "Future[Exception]") -> None:
    """Build and start the workers; a failure ends the program."""
    try:
        driver.start_workers(driver.build())
    except Exception as error:
        if not driver.stopped:
            web_server.set_status("failed", str(error))
            failed.set_result(error)


def _demo_root(args: argparse.Namespace) -> Path:
    """A copy of the example: the package may lie where nobody may write.

    What earlier demos found is forgotten, so that there is something to see.
    """
    folder = _cache_dir(args) / "demo"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for findings in ("f", "v"):
            shutil.rmtree(folder / ".zig-cache" / findings, ignore_errors=True)
        return Path(shutil.copy(paths.example(), folder))
    except OSError as error:
        raise InputError(
            f"cannot copy the example to '{folder}': {error.strerror}; --cache-dir names another"
        ) from error
