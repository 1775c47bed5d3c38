"""The options that several subcommands have, in groups."""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from fuzzserver.access import DEFAULT_LIMITS
from fuzzserver.argument_types import (
    categories,
    count,
    duration,
    large_count,
    percent,
    port,
    report_path,
    seconds,
)
from fuzzserver.exit_code import ExitCode
from fuzzserver.version import __version__

__all__ = [
    "FORMATTER",
    "Parser",
    "add_limits",
    "budget_options",
    "compiler_options",
    "fuzz_options",
    "report_options",
    "server_options",
    "verdict_options",
]

FORMATTER = argparse.RawDescriptionHelpFormatter


class Parser(argparse.ArgumentParser):
    """Says in one line what was wrong."""

    def error(self, message: str) -> NoReturn:
        """End the program."""
        print(f"error: {message}; '{self.prog} --help' explains", file=sys.stderr)
        raise SystemExit(ExitCode.USAGE)


def compiler_options() -> Parser:
    """What every subcommand takes."""
    common = Parser(add_help=False)
    group = common.add_argument_group("common options")
    group.add_argument(
        "--zig",
        metavar="PATH",
        help="Zig compiler (default: that of the ziglang package, else 'zig' on PATH)",
    )
    group.add_argument(
        "--zig-timeout",
        type=seconds,
        default=900.0,
        metavar="SECONDS",
        help="end a compiler that takes longer (default: 900; the first build of Zig 0.17 takes minutes)",
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


def server_options() -> Parser:
    """What every subcommand takes that serves the page."""
    common = Parser(add_help=False)
    group = common.add_argument_group("server options")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    group.add_argument(
        "--port", type=port, default=0, help="port to listen on; 0, the default, picks a free one"
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
        help="serve a page of Zig's: of the 'lib' of a Zig 0.14 installation, fuzzer/web instead of our own; "
        "of that of a later one, build-web at /build-web/",
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
        type=count,
        default=DEFAULT_LIMITS.connections,
        metavar="N",
        help="connections at once; those beyond are turned away (default: %(default)s)",
    )
    return common


def fuzz_options() -> Parser:
    """What every subcommand takes that fuzzes."""
    common = Parser(add_help=False)
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
        type=count,
        default=os.cpu_count() or 1,
        metavar="N",
        help="workers that run at once; those beyond take turns (default: one for each core). Until Zig "
        "0.15 each test has a worker; since 0.16 each executable has N divided by the number of executables, "
        "rounded up",
    )
    group.add_argument("--no-web", action="store_true", help="fuzz without the web server")
    add_limits(group, hang=60)
    group.add_argument(
        "--corpus",
        type=Path,
        metavar="FOLDER",
        help="start with the inputs in FOLDER, which must exist, for all tests, and FOLDER/TEST for one, and "
        "save new interesting inputs in FOLDER/TEST while fuzzing",
    )
    group.add_argument(
        "--watch",
        action="store_true",
        help="build again when a source file changes, and go on with the new build",
    )
    return common


def add_limits(options: "argparse._ActionsContainer", hang: int) -> None:
    """What a run may use."""
    options.add_argument(
        "--hang-timeout",
        type=seconds,
        default=float(hang),
        metavar="SECONDS",
        help=f"a run that takes longer is ended, and hangs (default: {hang}); a test that fails may need "
        "some seconds for its stack trace",
    )
    options.add_argument(
        "--memory-limit",
        type=count,
        default=2048,
        metavar="MIB",
        help="a run that needs more memory is ended, and is out of it (default: 2048)",
    )


def budget_options() -> Parser:
    """When a session of ours ends by itself."""
    common = Parser(add_help=False)
    group = common.add_argument_group(
        "budget options",
        "The session ends at the first of these that is reached; without any, at Ctrl-C.\n"
        "Runs and quiet are goals: where there is one, an end because of the time is too early\n"
        "(exit code 5).",
    )
    group.add_argument(
        "--time",
        type=duration,
        metavar="D",
        help="end after this time of fuzzing, without building: 90s, 5m, 1h30m",
    )
    group.add_argument(
        "--runs",
        type=large_count,
        metavar="N",
        help="end when all tests together have made so many runs: 5000, 50K, 1.5M, 2G",
    )
    group.add_argument(
        "--until-quiet",
        type=duration,
        metavar="D",
        help="end when no test has covered anything new for this time: 60s, 10m",
    )
    group.add_argument(
        "--time-per-test", type=duration, metavar="D", help="stop each test after this time of fuzzing it"
    )
    group.add_argument(
        "--runs-per-test", type=large_count, metavar="N", help="stop each test after so many runs"
    )
    group.add_argument(
        "--until-quiet-per-test",
        type=duration,
        metavar="D",
        help="stop each test when it has covered nothing new for this time",
    )
    group.add_argument(
        "--max-findings",
        type=count,
        metavar="N",
        help="end as soon as there are so many findings that count (see --fail-on)",
    )
    return common


def verdict_options(fail_on: str | None) -> Parser:
    """What makes the exit code another than 0.

    ``fail_on`` is the default of ``--fail-on``; None where there are no findings.
    """
    common = Parser(add_help=False)
    group = common.add_argument_group("verdict options")
    if fail_on is not None:
        group.add_argument(
            "--fail-on",
            type=categories,
            default=categories(fail_on),
            metavar="KINDS",
            help=f"findings that make the exit code 3: crash,hang,oom or none (default: {fail_on})",
        )
    group.add_argument(
        "--fail-under",
        type=percent,
        metavar="P%",
        help="exit with 6 if fewer percent of the points are covered; those of files that --include or "
        "--exclude leave out do not count",
    )
    group.add_argument(
        "--baseline",
        type=Path,
        metavar="FILE",
        help="JSON report of an earlier session: say what is newly covered since, and what no longer",
    )
    group.add_argument(
        "--fail-on-regression", action="store_true", help="exit with 7 if something is no longer covered"
    )
    return common


def report_options() -> Parser:
    """What is written down, and how files are called in it."""
    common = Parser(add_help=False)
    group = common.add_argument_group("report options")
    group.add_argument(
        "--report",
        type=report_path,
        action="append",
        default=[],
        metavar="FORMAT=PATH",
        help="write a report at the end: lcov, cobertura, json, junit, sarif, markdown, or html, which is "
        "the page in one file; PATH may be - for stdout; may be given several times. In GitHub Actions, the "
        "markdown form is added to the summary of the job by itself",
    )
    group.add_argument(
        "--strip-prefix",
        action="append",
        default=[],
        metavar="FOLDER",
        help="leave this out at the beginning of file names in reports; may be given several times",
    )
    group.add_argument(
        "--include",
        action="append",
        default=[],
        metavar="GLOB",
        help="report only files whose name, without the prefix, matches, such as 'src/*'; may be given "
        "several times",
    )
    group.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="GLOB",
        help="leave files whose name matches out of reports, such as '*/lib/std/*'; may be given several "
        "times",
    )
    return common
