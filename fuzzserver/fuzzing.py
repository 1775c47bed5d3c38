"""``run`` and ``demo``: a fuzzing session from build to verdict."""

import argparse
import logging
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from fuzzserver import paths
from fuzzserver.console import StatusLine, printable
from fuzzserver.corpus import SharedCorpus
from fuzzserver.environment import cache_dir_of, serving, zig_of
from fuzzserver.errors import CompileErrors, FuzzServerError, InputError, TestRunnerError, ZigError
from fuzzserver.exit_code import ExitCode
from fuzzserver.fuzz.budget import Budget
from fuzzserver.fuzz.options import FuzzOptions
from fuzzserver.fuzz.worker import MIB, WorkerLimits
from fuzzserver.fuzz_session import LAST_LOOK, FuzzProject, FuzzSession, Outcome
from fuzzserver.observer import Observer
from fuzzserver.reporting import check_report_options, conclude, settled_report, wants_report
from fuzzserver.signals import Signalled, wait_for, wait_for_signal
from fuzzserver.verdict import duration, finding_text, summary_text
from fuzzserver.webserver import WebServer, static_page
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig

__all__ = ["fuzz"]

log = logging.getLogger("fuzzserver")

LAST_LOOK_AT_SIGNAL = 0.5
"""The same for a session that a signal ends, all in all within three seconds."""


def fuzz(args: argparse.Namespace) -> int:
    """Build, fuzz and show until a budget is used up, a signal comes, or the build fails."""
    check_report_options(args)
    zig = zig_of(args)
    options = _options(args)
    if args.corpus is not None:
        SharedCorpus(args.corpus, "")  # To refuse it now, and not when all is built.
    project = _project(args)
    with Observer() if args.no_web else serving(args, zig) as observer:
        return _run(args, zig, project, options, observer)


def _options(args: argparse.Namespace) -> FuzzOptions:
    return FuzzOptions(
        jobs=args.jobs,
        tests=tuple(args.test),
        limits=WorkerLimits(args.hang_timeout, args.memory_limit * MIB),
        corpus=args.corpus,
        watch=args.watch,
        budget=Budget(args.time, args.runs, args.until_quiet),
        test_budget=Budget(args.time_per_test, args.runs_per_test, args.until_quiet_per_test),
        fail_on=args.fail_on,
        max_findings=args.max_findings,
        fresh=args.command == "demo",  # So that there is something to see.
    )


def _project(args: argparse.Namespace) -> FuzzProject:
    if args.command == "demo":
        return FuzzProject.of_root(_demo_root(args))
    if args.root is None:
        options = tuple(f"-D{option}" for option in args.options)
        return FuzzProject.of_build(args.build or Path(), args.step, options)
    if args.build is not None:
        raise InputError("give ROOT.zig or --build FOLDER, not both")
    if args.options or args.step != "test":
        unused = f"-D{args.options[0]}" if args.options else f"--step {args.step}"
        raise InputError(f"{unused} is for a build.zig; '{args.root}' is compiled alone, in Debug mode")
    return FuzzProject.of_root(args.root)


def _run(
    args: argparse.Namespace, zig: Zig, project: FuzzProject, options: FuzzOptions, observer: Observer
) -> int:
    """Fuzz, and say at the end what was found."""
    cache_dir = cache_dir_of(args)
    session = FuzzSession(project, options, observer, zig=zig, cache_dir=cache_dir)
    signalled: Signalled | None = None
    failure: FuzzServerError | None = None
    patience = LAST_LOOK
    try:
        session.start()
        with StatusLine(log, lambda: _status_text(session, observer)):
            wait_for(session.ended)
            if not (args.no_web or options.is_limited):
                wait_for_signal()  # There is still something to look at.
    except Signalled as error:
        signalled, patience = error, LAST_LOOK_AT_SIGNAL
    except (ZigError, TestRunnerError) as error:
        failure = error
        if not isinstance(error, CompileErrors):  # Those are in the log already.
            log.error("%s", error)
    finally:
        try:
            outcome = session.finish(patience)
        except Signalled as error:  # The findings must be told all the same.
            signalled = error
            session.stop()
            outcome = session.finish(0)
        if outcome.started:
            _tell(session, outcome)
    try:
        if signalled is not None and not (outcome.started and wants_report(args)):
            raise signalled  # Nobody waits for how much is covered.
        judged = outcome.judged(
            outcome.completed(settled_report(args, observer, outcome.findings, outcome.seconds))
        )
        if failure is not None:
            judged = replace(judged, build_failed=True)
        if signalled is not None:
            judged = replace(judged, stopped=signalled.exit_code)
        return conclude(args, judged, lambda: _page(observer, ZigCompileClient(zig, cache_dir)))
    except Signalled:
        if not outcome.failing:
            raise
        return ExitCode.FINDINGS


def _page(observer: Observer, client: ZigCompileClient) -> bytes:
    """The page as one file."""
    return observer.static_page() if isinstance(observer, WebServer) else static_page(observer, client)


def _status_text(session: FuzzSession, observer: Observer) -> str:
    """What goes on, in a line."""
    if session.started is None:
        building = [each.text for each in session.targets if each.state == "building" and each.text]
        return "; ".join(building) or "building ..."
    tests = [test for target in session.targets for test in target.tests]
    seconds = time.monotonic() - session.started
    states = [test.state for test in tests]
    parts = [f"fuzzing {states.count('fuzzing')} of {len(tests)} tests for {duration(seconds)}"]
    parts.append(f"{sum(test.n_runs or 0 for test in tests):,} runs")
    parts.append(f"{len(session.found)} finding{'' if len(session.found) == 1 else 's'}")
    if observer.loading is not None:
        parts.append(f"reading the debug info of {observer.loading}")
    return ", ".join(parts)


def _tell(session: FuzzSession, outcome: Outcome) -> None:
    """Findings and a summary, on stderr."""
    for finding in outcome.findings:
        try:
            data = session.findings.input(finding.id)
        except InputError as error:  # The disk is full, say: what was found counts all the same.
            log.error("%s", error)
            data = b""
        print(printable(finding_text(finding, data)), file=sys.stderr)
    runs = sum(outcome.session_runs.values())
    summary = summary_text(outcome.targets, len(outcome.findings), runs, outcome.seconds, outcome.not_fuzzed)
    print(printable(summary), file=sys.stderr)


def _demo_root(args: argparse.Namespace) -> Path:
    """A copy of the example: the package may lie where nobody may write."""
    folder = cache_dir_of(args) / "demo"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # With the time of the original: a cached executable must not look older than its source.
        return Path(shutil.copy2(paths.example(), folder))
    except OSError as error:
        raise InputError(
            f"cannot copy the example to '{folder}': {error.strerror}; --cache-dir names another"
        ) from error
