"""What can be said on the command line, and with which code the program ends."""

import argparse
import sys
from enum import IntEnum
from pathlib import Path
from typing import NoReturn

from fuzzserver.version import __version__

__all__ = ["ExitCode", "make_parser"]


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
  130 and 143: ended by SIGINT (Ctrl-C), and by SIGTERM or SIGHUP, without findings
"""


_FORMATTER = argparse.RawDescriptionHelpFormatter


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


def make_parser() -> argparse.ArgumentParser:
    """The parser: a subcommand, then its options."""
    common = _common_options()
    parser = _Parser(
        prog="fuzzserver",
        description="Watch a fuzzer reach your code, live, in a browser.",
        epilog=EPILOG,
        formatter_class=_FORMATTER,
    )
    parser.add_argument("--version", action="version", version=f"fuzzserver {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    commands.add_parser(
        "demo",
        parents=[common],
        help="fuzz the example that comes with fuzzserver",
        description="Fuzz the example that comes with fuzzserver, and serve the page that shows it.",
    )
    _add_run(commands, common)
    _add_serve(commands, common)
    return parser


def _common_options() -> _Parser:
    """What every subcommand takes."""
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
    return common


def _add_run(commands: "argparse._SubParsersAction[_Parser]", common: _Parser) -> None:
    run = commands.add_parser(
        "run",
        parents=[common],
        help="fuzz the tests of a Zig source file",
        description="Build the tests of ROOT.zig in fuzz mode, run a worker for each test that calls\n"
        "std.testing.fuzz, and serve the page that shows their coverage.\n\n"
        "Fuzzing data is kept in the .zig-cache of the project: the nearest folder above\n"
        "ROOT.zig with a build.zig, else its own folder.",
        epilog="example:\n  fuzzserver run src/parser.zig --port 8000",
        formatter_class=_FORMATTER,
    )
    run.add_argument("root", type=Path, metavar="ROOT.zig", help="source file with fuzz tests")


def _add_serve(commands: "argparse._SubParsersAction[_Parser]", common: _Parser) -> None:
    serve = commands.add_parser(
        "serve",
        parents=[common],
        help="show an executable and its coverage file",
        description="Show the coverage of an executable that was built in fuzz mode. A fuzzer may\n"
        "be running on the coverage file; the page follows it.",
        epilog="example:\n  fuzzserver serve --executable .zig-cache/o/1f../test \\\n"
        "      --coverage .zig-cache/v/49e67756ea1c6d82 --entry-point 0x1132940",
        formatter_class=_FORMATTER,
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
