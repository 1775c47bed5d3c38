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
from enum import IntEnum
from pathlib import Path
from typing import NoReturn

from fuzzserver import paths
from fuzzserver.coverage.coverage_map import check_inputs
from fuzzserver.coverage.queue import CoverageMsg, EntryPointMsg
from fuzzserver.coverage.seen_pcs import SeenPcs
from fuzzserver.errors import FuzzServerError, InputError, ZigError, ZigNotFound, ZigUnsupported
from fuzzserver.fuzz.build import FuzzRoot
from fuzzserver.fuzz.driver import FuzzDriver
from fuzzserver.step import FuzzRunStep, SourcePath
from fuzzserver.version import __version__
from fuzzserver.webserver import WebServer
from fuzzserver.wire.abi import coverage_file_name
from fuzzserver.wire.wyhash import wyhash
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig, find_zig

__all__ = ["ExitCode", "main"]

log = logging.getLogger("fuzzserver")


class ExitCode(IntEnum):
    """How the program ended, for scripts."""

    CLEAN = 0
    INTERNAL_ERROR = 1
    USAGE = 2
    FINDINGS = 3
    BUILD_FAILED = 4
    SIGINT = 130
    SIGTERM = 143


EPILOG = """\
examples:
  fuzzserver demo
      fuzz the example that comes with fuzzserver, and watch it
  fuzzserver run src/parser.zig --port 8000
      fuzz the tests of a Zig file that call std.testing.fuzz
  fuzzserver serve --executable .zig-cache/o/1f../test --coverage .zig-cache/v/49e67756ea1c6d82
      show what is there, without running anything

exit codes:
  0 clean   1 internal error   2 usage or bad input   3 findings   4 build failed
  130 and 143: ended by SIGINT (Ctrl-C) and SIGTERM, without findings
"""


class _Parser(argparse.ArgumentParser):
    """Says in one line what was wrong."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; '{self.prog} --help' explains", file=sys.stderr)
        raise SystemExit(ExitCode.USAGE)


def _address(text: str) -> int:
    try:
        value = int(text, 16) if text.lower().startswith("0x") else int(text, 10)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no address: give a decimal or a 0x hexadecimal number"
        ) from None
    if not 0 <= value < 1 << 64:
        raise argparse.ArgumentTypeError(f"address '{text}' does not fit into 64 bits")
    return value


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is no port: give a number from 0 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"'{text}' is no time: give seconds, more than 0")
    return value


def _make_parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    common = _Parser(add_help=False)
    group = common.add_argument_group("common options")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    group.add_argument(
        "--port", type=_port, default=0, help="port to listen on; 0, the default, picks a free one"
    )
    group.add_argument(
        "--port-file",
        type=Path,
        metavar="PATH",
        help="write the port to this file once connections are accepted",
    )
    group.add_argument(
        "--zig",
        metavar="PATH",
        help="Zig compiler (default: that of the ziglang package, else 'zig' on PATH)",
    )
    group.add_argument(
        "--zig-timeout",
        type=_seconds,
        default=300.0,
        metavar="SECONDS",
        help="end a compiler that takes longer than this (default: 300)",
    )
    group.add_argument(
        "--lib-dir",
        type=Path,
        metavar="FOLDER",
        help="serve the page in FOLDER/fuzzer/web instead of our own; "
        "the 'lib' of a Zig 0.14 installation has one",
    )
    group.add_argument(
        "--cache-dir",
        type=Path,
        metavar="FOLDER",
        help="where compiled files of our own are kept "
        "(default: $XDG_CACHE_HOME/fuzzserver, else ~/.cache/fuzzserver)",
    )
    group.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="how much is written to stderr (default: %(default)s)",
    )
    group.add_argument("--version", action="version", version=f"fuzzserver {__version__}")

    parser = _Parser(
        prog="fuzzserver",
        description="Watch a fuzzer reach your code, live, in a browser.",
        epilog=EPILOG,
        formatter_class=formatter,
    )
    parser.add_argument("--version", action="version", version=f"fuzzserver {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    commands.add_parser(
        "demo",
        parents=[common],
        help="fuzz the example that comes with fuzzserver",
        description="Fuzz the example that comes with fuzzserver, and serve the page that shows it.",
    )
    run = commands.add_parser(
        "run",
        parents=[common],
        help="fuzz the tests of a Zig source file",
        description="Build the tests of ROOT.zig in fuzz mode, run a worker for each test that calls\n"
        "std.testing.fuzz, and serve the page that shows their coverage.\n\n"
        "Fuzzing data is kept in the .zig-cache of the project: the nearest folder above\n"
        "ROOT.zig with a build.zig, else its own folder.",
        epilog="example:\n  fuzzserver run src/parser.zig --port 8000",
        formatter_class=formatter,
    )
    run.add_argument("root", type=Path, metavar="ROOT.zig", help="source file with fuzz tests")
    serve = commands.add_parser(
        "serve",
        parents=[common],
        help="show an executable and its coverage file",
        description="Show the coverage of an executable that was built in fuzz mode. A fuzzer may\n"
        "be running on the coverage file; the page follows it.",
        epilog="example:\n  fuzzserver serve --executable .zig-cache/o/1f../test \\\n"
        "      --coverage .zig-cache/v/49e67756ea1c6d82 --entry-point 0x1132940",
        formatter_class=formatter,
    )
    serve.add_argument("--executable", type=Path, required=True, metavar="EXE", help="built with -ffuzz")
    serve.add_argument(
        "--coverage", type=Path, required=True, metavar="FILE", help="coverage file, from .zig-cache/v/"
    )
    serve.add_argument(
        "--entry-point",
        type=_address,
        action="append",
        default=[],
        metavar="ADDR",
        help="address of a fuzz test, decimal or 0x hexadecimal; may be given several times",
    )
    serve.add_argument(
        "--source",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER_OR_FILE",
        help="source to show; may be given several times (default: the files that the debug info names)",
    )
    return parser


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


class _Signalled(BaseException):
    """SIGINT or SIGTERM has come. As KeyboardInterrupt, it passes everything that handles errors."""

    def __init__(self, number: int) -> None:
        self.exit_code = ExitCode.SIGINT if number == signal.SIGINT else ExitCode.SIGTERM


def _on_signal(number: int, _frame: object) -> NoReturn:
    """End what the main thread does, in good order; another signal ends the process at once."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    raise _Signalled(number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _make_parser().parse_args(argv)
    _set_up_logging(args.log_level)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _on_signal)
    try:
        return _serve(args) if args.command == "serve" else _fuzz(args)
    except FuzzServerError as error:
        log.error("%s", error)
        return _error_code(error)
    except _Signalled as signalled:
        return signalled.exit_code


def _error_code(error: BaseException) -> ExitCode:
    if isinstance(error, (InputError, ZigNotFound, ZigUnsupported)):
        return ExitCode.USAGE
    if isinstance(error, ZigError):
        return ExitCode.BUILD_FAILED
    return ExitCode.INTERNAL_ERROR


def _zig(args: argparse.Namespace) -> Zig:
    """The compiler, known to work and to be one that we speak with."""
    zig = Zig(find_zig(args.zig), args.zig_timeout)
    zig.check_supported()
    return zig


def _cache_dir(args: argparse.Namespace) -> Path:
    cache_dir: Path = args.cache_dir or paths.default_cache_dir()
    return cache_dir.absolute()


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
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
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
        thread = threading.Thread(target=_drive, args=(driver, failed), name="fuzz-driver", daemon=True)
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
    if isinstance(error, FuzzServerError):
        raise error
    log.error("internal error", exc_info=error)
    return ExitCode.INTERNAL_ERROR


def _drive(driver: FuzzDriver, failed: "Future[Exception]") -> None:
    """Build and start the workers; a failure ends the program."""
    try:
        driver.start_workers(driver.build())
    except Exception as error:
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
