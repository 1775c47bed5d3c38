"""What can be said on the command line, and with which code the program ends."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import NoReturn

from fuzzserver.access import DEFAULT_LIMITS
from fuzzserver.version import __version__

__all__ = ["ExitCode", "make_parser", "with_default_command"]


class ExitCode(IntEnum):
    """How the program ended, for scripts."""

    CLEAN = 0
    INTERNAL_ERROR = 1
    USAGE = 2
    FINDINGS = 3
    BUILD_FAILED = 4
    """Or a test could not be fuzzed."""
    SIGINT = 130
    SIGTERM = 143


EPILOG = """\
examples:
  fuzzserver demo
      fuzz the example that comes with fuzzserver, and watch it
  fuzzserver
      in a folder with a build.zig: fuzz all fuzz tests of its step "test"
  fuzzserver run src/parser.zig --port 8000
      fuzz the tests of a Zig file that call std.testing.fuzz
  fuzzserver run --build . --no-web --time 5m
      for CI: fuzz for five minutes, then report and exit with 0 or 3
  fuzzserver attach .zig-cache
      watch fuzzers that somebody else runs: "zig build test --fuzz", say
  fuzzserver repro 3f2a
      run the input of a finding again
  fuzzserver serve --executable .zig-cache/o/1f../test --coverage .zig-cache/v/49e67756ea1c6d82
      show what is there, without running anything

exit codes:
  0 clean   1 internal error   2 usage or bad input   3 findings   4 build failed, or a test was not fuzzed
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


def _duration(text: str) -> float:
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text, re.ASCII)
    hours, minutes, seconds = (
        match.groups(default="0") if match is not None and len(text) < 20 else ("0", "0", "0")
    )
    value = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no time: give seconds, or 90s, 5m, 1h30m")
    return value


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 31:
        raise argparse.ArgumentTypeError(f"'{text}' is no count: give a whole number, more than 0")
    return int(text)


def make_parser() -> argparse.ArgumentParser:
    """The parser: a subcommand, then its options."""
    compiler, server, fuzzing = _compiler_options(), _server_options(), _fuzz_options()
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
        parents=[fuzzing, server, compiler],
        help="fuzz the example that comes with fuzzserver",
        description="Fuzz the example that comes with fuzzserver, and serve the page that shows it.",
    )
    _add_run(commands, [fuzzing, server, compiler])
    _add_attach(commands, [server, compiler])
    _add_serve(commands, [server, compiler])
    _add_repro(commands, [compiler])
    return parser


def with_default_command(argv: Sequence[str]) -> list[str]:
    """``argv`` with ``run`` in front if it names no command: that is what most people want most often."""
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version")):
        return ["run", *argv]
    return list(argv)


def _compiler_options() -> _Parser:
    """What every subcommand takes."""
    common = _Parser(add_help=False)
    group = common.add_argument_group("common options")
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
        "--cache-dir",
        type=Path,
        metavar="FOLDER",
        help="where compiled files of our own are kept, and the tables of 'serve' "
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


def _server_options() -> _Parser:
    """What every subcommand takes that serves the page."""
    common = _Parser(add_help=False)
    group = common.add_argument_group("server options")
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
        "--lib-dir",
        type=Path,
        metavar="FOLDER",
        help="serve the page in FOLDER/fuzzer/web instead of our own; "
        "the 'lib' of a Zig 0.14 installation has one",
    )
    group.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME[:PORT]",
        help="another name under which browsers reach the server, through a tunnel or a proxy, say; "
        "may be given several times",
    )
    group.add_argument(
        "--token",
        action="store_true",
        help="let in only who knows the token in the address that is printed: no other users of this "
        "machine (always so when --host lets other machines connect)",
    )
    group.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with the certificate in this PEM file"
    )
    group.add_argument(
        "--tls-key", type=Path, metavar="FILE", help="its key, unless it is in the file of the certificate"
    )
    group.add_argument(
        "--max-connections",
        type=_count,
        default=DEFAULT_LIMITS.connections,
        metavar="N",
        help="connections at once; those beyond are turned away (default: %(default)s)",
    )
    return common


def _fuzz_options() -> _Parser:
    """What every subcommand takes that fuzzes."""
    common = _Parser(add_help=False)
    group = common.add_argument_group("fuzzing options")
    group.add_argument(
        "--test",
        action="append",
        default=[],
        metavar="GLOB",
        help="fuzz the tests whose name matches, such as 'fuzz*' or 'main.test.fuzz sum'; may be given "
        "several times (default: all)",
    )
    group.add_argument(
        "--jobs",
        type=_count,
        default=os.cpu_count() or 1,
        metavar="N",
        help="workers that run at once; tests beyond that take turns (default: one for each core)",
    )
    group.add_argument(
        "--time",
        type=_duration,
        metavar="D",
        help="end after this time of fuzzing: 90s, 5m, 1h30m (default: fuzz until Ctrl-C)",
    )
    group.add_argument("--no-web", action="store_true", help="fuzz without the web server")
    _add_limits(group, hang=60)
    group.add_argument(
        "--corpus",
        type=Path,
        metavar="FOLDER",
        help="start with the inputs in FOLDER (for all tests) and FOLDER/TEST (for one), and save new "
        "interesting inputs in FOLDER/TEST while fuzzing",
    )
    group.add_argument(
        "--watch",
        action="store_true",
        help="build again when a source file changes, and go on with the new build",
    )
    return common


def _add_run(commands: "argparse._SubParsersAction[_Parser]", parents: list[_Parser]) -> None:
    run = commands.add_parser(
        "run",
        parents=parents,
        help="fuzz the tests of a project or of a Zig source file",
        description="Build tests in fuzz mode, run a worker for each test that calls std.testing.fuzz, keep\n"
        "what it breaks, and serve the page that shows it all.\n\n"
        "Without ROOT.zig, all test executables of a step of build.zig are built. Fuzzing data is\n"
        "kept in the .zig-cache of the project: the nearest folder above ROOT.zig with a\n"
        "build.zig, else its own folder.",
        epilog="examples:\n  fuzzserver run src/parser.zig --port 8000\n"
        "  fuzzserver run --build . --step test -Doptimize=ReleaseSafe --jobs 4",
        formatter_class=_FORMATTER,
    )
    run.add_argument("root", type=Path, nargs="?", metavar="ROOT.zig", help="source file with fuzz tests")
    run.add_argument(
        "--build",
        type=Path,
        metavar="FOLDER",
        help="project folder with a build.zig (default without ROOT.zig: the current folder)",
    )
    run.add_argument(
        "--step", default="test", metavar="NAME", help="step that runs the tests (default: test)"
    )
    run.add_argument(
        "-D",
        dest="options",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option for build.zig, such as -Doptimize=ReleaseSafe; may be given several times",
    )


def _add_attach(commands: "argparse._SubParsersAction[_Parser]", parents: list[_Parser]) -> None:
    attach = commands.add_parser(
        "attach",
        parents=parents,
        help="watch fuzzers that somebody else runs",
        description="Show what fuzzers write into Zig caches: each coverage file is paired with its\n"
        "executable by content. New files, restarts and rebuilds are noticed. Works with the\n"
        "fuzzers of Zig 0.14 to 0.17.",
        epilog="example:\n  zig build test --fuzz &\n  fuzzserver attach .zig-cache",
        formatter_class=_FORMATTER,
    )
    attach.add_argument(
        "cache_dirs",
        type=Path,
        nargs="+",
        metavar="CACHE_DIR",
        help="a .zig-cache folder, or a project folder that has one",
    )


def _add_repro(commands: "argparse._SubParsersAction[_Parser]", parents: list[_Parser]) -> None:
    for name, what, description in (
        (
            "repro",
            "run the input of a finding again",
            "Build the test of a finding as a plain program and run it with the input that was found.\n"
            "Exits with 3 if it fails, and with 0 if it does not.",
        ),
        (
            "minimize",
            "shrink the input of a finding",
            "Make the input of a finding as short and simple as it can be while the finding stays the\n"
            "same. The input as it was found is kept beside it, as ID.original.",
        ),
    ):
        repro = commands.add_parser(
            name, parents=parents, help=what, description=description, formatter_class=_FORMATTER
        )
        repro.add_argument(
            "finding",
            metavar="FINDING",
            help="the finding's id or its beginning, or the path of its .json file",
        )
        repro.add_argument(
            "--project",
            type=Path,
            default=Path(),
            metavar="FOLDER",
            help="project whose findings are meant (default: the current folder, or one above it)",
        )
        _add_limits(repro, hang=10)


def _add_limits(options: "argparse._ActionsContainer", hang: int) -> None:
    """What a run may use."""
    options.add_argument(
        "--hang-timeout",
        type=_seconds,
        default=float(hang),
        metavar="SECONDS",
        help=f"a run that takes longer hangs (default: {hang})",
    )
    options.add_argument(
        "--memory-limit",
        type=_count,
        default=2048,
        metavar="MIB",
        help="a run that needs more memory is out of it (default: 2048)",
    )


def _add_serve(commands: "argparse._SubParsersAction[_Parser]", parents: list[_Parser]) -> None:
    serve = commands.add_parser(
        "serve",
        parents=parents,
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
