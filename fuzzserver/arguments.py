"""What can be said on the command line."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fuzzserver.argument_types import address, duration
from fuzzserver.option_groups import (
    FORMATTER,
    Parser,
    add_limits,
    budget_options,
    compiler_options,
    fuzz_options,
    report_options,
    server_options,
    verdict_options,
)
from fuzzserver.version import __version__

__all__ = ["make_parser", "with_default_command"]


EPILOG = """\
examples:
  fuzzserver demo
      fuzz the example that comes with fuzzserver, and watch it
  fuzzserver
      in a folder with a build.zig: fuzz all fuzz tests of its step "test"
  fuzzserver run src/parser.zig --port 8000
      fuzz the tests of a Zig file that call std.testing.fuzz
  fuzzserver run --build . --no-web --time 5m --report junit=fuzz.xml --report html=fuzz.html
      for CI: fuzz for five minutes, then write reports and exit with 0, or 3 if something was broken
  fuzzserver attach .zig-cache
      watch fuzzers that somebody else runs: "zig build test --fuzz", say
  fuzzserver repro 3f2a
      run the input of a finding again
  fuzzserver report .zig-cache --report lcov=fuzz.info
      write down what was covered; "fuzzserver merge" joins such reports
  fuzzserver serve --executable .zig-cache/o/1f../test --coverage .zig-cache/v/49e67756ea1c6d82
      show what is there, without running anything
  fuzzserver smoke
      try out in a minute whether all of it works here

exit codes:
  0 clean   1 internal error   2 usage or bad input   3 findings   4 build failed, or a test was not fuzzed
  5 budget not met   6 below --fail-under   7 regression (--fail-on-regression)
  130 and 143: ended by SIGINT (Ctrl-C), and by SIGTERM or SIGHUP
  Of several codes from 3 on, the lowest counts.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser: a subcommand, then its options."""
    compiler, server, reports = compiler_options(), server_options(), report_options()
    fuzzing = [fuzz_options(), budget_options(), verdict_options("crash,hang,oom"), reports, server, compiler]
    judging = [verdict_options("none"), reports]
    parser = Parser(
        prog="fuzzserver",
        description="Watch a fuzzer reach your code, live, in a browser. Without COMMAND, 'run' is meant.",
        epilog=EPILOG,
        formatter_class=FORMATTER,
    )
    parser.add_argument("--version", action="version", version=f"fuzzserver {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    commands.add_parser(
        "demo",
        parents=fuzzing,
        help="fuzz the example that comes with fuzzserver",
        description="Fuzz the example that comes with fuzzserver, and serve the page that shows it.",
    )
    _add_run(commands, fuzzing)
    _add_attach(commands, [verdict_options(None), reports, server, compiler])
    _add_serve(commands, [server, compiler])
    _add_report(commands, [*judging, compiler])
    _add_merge(commands, judging)
    _add_repro(commands, [compiler])
    _add_smoke(commands, [compiler])
    return parser


def with_default_command(argv: Sequence[str]) -> list[str]:
    """``argv`` with ``run`` in front if it names no command: that is what most people want most often."""
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version")):
        return ["run", *argv]
    return list(argv)


def _add_run(commands: "argparse._SubParsersAction[Parser]", parents: list[Parser]) -> None:
    run = commands.add_parser(
        "run",
        parents=parents,
        help="fuzz the tests of a project or of a Zig source file",
        description="Build tests in fuzz mode, fuzz those that call std.testing.fuzz, keep what breaks, and\n"
        "serve the page that shows it all. Until Zig 0.15, each fuzz test has a worker; since 0.16,\n"
        "each executable has workers that fuzz all of its tests in turn.\n\n"
        "Without ROOT.zig, all test executables of a step of build.zig are built. Fuzzing data is\n"
        "kept in the .zig-cache of the project: the nearest folder above ROOT.zig with a\n"
        "build.zig, else its own folder.",
        epilog="examples:\n  fuzzserver run src/parser.zig --port 8000\n"
        "  fuzzserver run --build . --step test -Doptimize=ReleaseSafe --jobs 4",
        formatter_class=FORMATTER,
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


def _add_attach(commands: "argparse._SubParsersAction[Parser]", parents: list[Parser]) -> None:
    attach = commands.add_parser(
        "attach",
        parents=parents,
        help="watch fuzzers that somebody else runs",
        description="Show what fuzzers write into Zig caches: each coverage file is paired with its\n"
        "executable by content. New files, restarts and rebuilds are noticed. Works with the\n"
        "fuzzers of Zig 0.14 to 0.17.",
        epilog="example:\n  zig build test --fuzz &\n  fuzzserver attach .zig-cache",
        formatter_class=FORMATTER,
    )
    attach.add_argument(
        "cache_dirs",
        type=Path,
        nargs="+",
        metavar="CACHE_DIR",
        help="a .zig-cache folder, or a project folder that has one",
    )
    attach.add_argument(
        "--time",
        type=duration,
        metavar="D",
        help="end after this time: 90s, 5m, 1h30m (default: watch until Ctrl-C)",
    )


def _add_report(commands: "argparse._SubParsersAction[Parser]", parents: list[Parser]) -> None:
    report = commands.add_parser(
        "report",
        parents=parents,
        help="write down what was covered and found",
        description="Write reports of what is there: of a server that runs, of a Zig cache with what was\n"
        "found there, or of one executable and its coverage files. Nothing is run.",
        epilog="examples:\n  fuzzserver report --url http://127.0.0.1:8000/ --report html=fuzz.html\n"
        "  fuzzserver report .zig-cache --include 'src/*' --strip-prefix $PWD --report lcov=fuzz.info\n"
        "  fuzzserver report --executable .zig-cache/o/1f../test --coverage .zig-cache/v/49e6.. \\\n"
        "      --report json=-",
        formatter_class=FORMATTER,
    )
    report.add_argument(
        "folder",
        type=Path,
        nargs="?",
        metavar="CACHE_DIR",
        help="a .zig-cache folder, or a project folder that has one (default: the current folder)",
    )
    report.add_argument(
        "--url", metavar="URL", help="address of a server, as it printed it, with its token if it has one"
    )
    report.add_argument("--executable", type=Path, metavar="EXE", help="built with -ffuzz")
    report.add_argument(
        "--coverage",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a coverage file of the executable; may be given several times",
    )


def _add_merge(commands: "argparse._SubParsersAction[Parser]", parents: list[Parser]) -> None:
    merge = commands.add_parser(
        "merge",
        parents=parents,
        help="join JSON reports of several sessions",
        description="Join reports that --report json=FILE has written. Of the same executable, points are\n"
        "covered that any session has covered, and runs are added; of different ones, coverage is\n"
        "joined by source line.",
        epilog="example:\n  fuzzserver merge mon.json tue.json --report json=week.json --report lcov=-",
        formatter_class=FORMATTER,
    )
    merge.add_argument("reports", type=Path, nargs="+", metavar="REPORT.json", help="JSON reports")
    merge.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="how much is written to stderr (default: %(default)s)",
    )


def _add_smoke(commands: "argparse._SubParsersAction[Parser]", parents: list[Parser]) -> None:
    smoke = commands.add_parser(
        "smoke",
        parents=parents,
        help="try out in a minute whether all of it works here",
        description="Build and fuzz a small example, or your tests, for a moment, and ask the server for\n"
        "all that it has: a line for each check, and a verdict. Takes less than a minute.\n\n"
        "Exits with 0 if all is well, with 3 if a check fails, and with 4 if the tests do not compile\n"
        "or are not built in time. Each smoke builds anew, unless --cache-dir names a folder.",
        epilog="example:\n  fuzzserver smoke --build .",
        formatter_class=FORMATTER,
    )
    smoke.add_argument("root", type=Path, nargs="?", metavar="ROOT.zig", help="source file with fuzz tests")
    smoke.add_argument("--build", type=Path, metavar="FOLDER", help="project folder with a build.zig")
    smoke.add_argument(
        "--step", default="test", metavar="NAME", help="step that runs the tests (default: test)"
    )


def _add_repro(commands: "argparse._SubParsersAction[Parser]", parents: list[Parser]) -> None:
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
            name, parents=parents, help=what, description=description, formatter_class=FORMATTER
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
        add_limits(repro, hang=10)


def _add_serve(commands: "argparse._SubParsersAction[Parser]", parents: list[Parser]) -> None:
    serve = commands.add_parser(
        "serve",
        parents=parents,
        help="show an executable and its coverage file",
        description="Show the coverage of an executable that was built in fuzz mode. A fuzzer may\n"
        "be running on the coverage file; the page follows it.",
        epilog="example:\n  fuzzserver serve --executable .zig-cache/o/1f../test \\\n"
        "      --coverage .zig-cache/v/49e67756ea1c6d82 --entry-point 0x1132940",
        formatter_class=FORMATTER,
    )
    serve.add_argument("--executable", type=Path, required=True, metavar="EXE", help="built with -ffuzz")
    serve.add_argument(
        "--coverage",
        type=Path,
        required=True,
        metavar="FILE",
        help="its coverage file: in .zig-cache/v/ after Zig's own fuzzing; after 'fuzzserver run' in "
        ".zig-cache/fuzzserver/TARGET/TEST/v/, or since Zig 0.16 in TARGET/all_tests-HASH/instanceN/v/, one "
        "for each instance ('fuzzserver report' joins them)",
    )
    serve.add_argument(
        "--entry-point",
        type=address,
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
