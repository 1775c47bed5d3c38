"""The command line. It uses the package as any build driver would."""

import argparse
import contextlib
import ctypes
import logging
import resource
import sys
from collections.abc import Callable, Sequence

from fuzzserver.arguments import make_parser, with_default_command
from fuzzserver.console import set_up_logging
from fuzzserver.errors import (
    CompileErrors,
    FuzzServerError,
    InputError,
    TestRunnerError,
    ZigError,
    ZigNotFound,
    ZigUnsupported,
)
from fuzzserver.exit_code import ExitCode
from fuzzserver.signals import Signalled, handle_signals

__all__ = ["main"]

log = logging.getLogger("fuzzserver")

M_ARENA_MAX = -8
HEAPS = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = make_parser().parse_args(with_default_command(sys.argv[1:] if argv is None else argv))
    set_up_logging(log, args.log_level)
    handle_signals()
    _allow_many_files()
    _share_heaps()
    try:
        return _command(args.command)(args)
    except FuzzServerError as error:
        if not isinstance(error, CompileErrors):  # Those are in the log already.
            log.error("%s", error)
        return _error_code(error)
    except Exception as error:
        log.error("internal error: %r", error, exc_info=log.isEnabledFor(logging.DEBUG))
        return ExitCode.INTERNAL_ERROR
    except Signalled as signalled:
        return signalled.exit_code


def _allow_many_files() -> None:
    """Each worker and each browser takes some file descriptors; the usual limit is for smaller programs."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _share_heaps() -> None:
    """Have all threads use the same few heaps: each viewer's would get one, and hardly give anything back."""
    # glibc alone has this (mallopt(3)); where it is missing, nothing is lost but memory.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, HEAPS)


def _error_code(error: BaseException) -> ExitCode:
    if isinstance(error, (InputError, ZigNotFound, ZigUnsupported)):
        return ExitCode.USAGE
    if isinstance(error, (ZigError, TestRunnerError)):
        return ExitCode.BUILD_FAILED
    return ExitCode.INTERNAL_ERROR


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    """What a subcommand does. Who looks at coverage need not wait for what fuzzing takes to import."""
    if name in ("attach", "serve"):
        from fuzzserver import showing

        return showing.attach if name == "attach" else showing.serve
    if name == "report":
        from fuzzserver import reporting

        return reporting.report
    if name == "merge":
        from fuzzserver import merging

        return merging.merge_reports
    if name == "smoke":
        from fuzzserver import smoking

        return smoking.smoke
    if name in ("minimize", "repro"):
        from fuzzserver import reproducing

        return reproducing.minimize if name == "minimize" else reproducing.repro
    from fuzzserver import fuzzing

    return fuzzing.fuzz
