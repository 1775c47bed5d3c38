"""``run`` and ``demo``: a fuzzing session from build to verdict."""

import argparse
import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path

from fuzzserver import paths
from fuzzserver.arguments import ExitCode
from fuzzserver.console import StatusLine, printable
from fuzzserver.corpus import SharedCorpus
from fuzzserver.environment import cache_dir_of, serving, zig_of
from fuzzserver.errors import InputError
from fuzzserver.fuzz.build_zig import test_commands
from fuzzserver.fuzz.driver import FuzzDriver
from fuzzserver.fuzz.options import Audience, FuzzOptions
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.fuzz.worker import MIB, Limits
from fuzzserver.signals import Signalled, wait_for
from fuzzserver.verdict import duration, finding_text, summary_text
from fuzzserver.webserver import WebServer
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.process import ChildGroup

__all__ = ["fuzz"]

log = logging.getLogger("fuzzserver")

LAST_LOOK = 60.0
"""Seconds that findings get to be reproduced, at the end of a session that ends by itself."""

LAST_LOOK_AT_SIGNAL = 0.5
"""The same for one that a signal ends, all in all within three seconds."""


class _Nobody:
    """The audience of a session without a server."""

    def _ignore(self, *_: object) -> None:
        pass

    add_step = post = set_status = set_progress = set_target = _ignore
    set_findings = add_corpus = add_log = notify = _ignore


def fuzz(args: argparse.Namespace) -> int:
    """Build, fuzz and show until a signal comes, the time is over, or the build fails."""
    zig = zig_of(args)
    options = FuzzOptions(
        jobs=args.jobs,
        tests=tuple(args.test),
        limits=Limits(args.hang_timeout, args.memory_limit * MIB),
        corpus=args.corpus,
        watch=args.watch,
        time=args.time,
        fresh=args.command == "demo",  # So that there is something to see.
    )
    if args.corpus is not None:
        SharedCorpus(args.corpus, "")  # To refuse it now, and not when all is built.
    if args.command == "demo":
        project = _Project.of_root(_demo_root(args))
    elif args.root is None:
        project = _Project.of_build(zig, args)
    elif args.build is not None:
        raise InputError("give ROOT.zig or --build FOLDER, not both")
    else:
        project = _Project.of_root(args.root)
    with nullcontext(_Nobody()) if args.no_web else serving(args, zig) as audience:
        return _session(args, zig, project, options, audience)


class _Project:
    """What is to be fuzzed: how to find out about its tests, and where its cache is."""

    def __init__(self, cache_root: Path, find_commands: Callable[[ChildGroup], list[TestCommand]]) -> None:
        self.cache_root = cache_root
        self.find_commands = find_commands

    @classmethod
    def of_root(cls, root: Path) -> "_Project":
        command = TestCommand.of_root(root)
        return cls(command.cache_root, lambda _: [command])

    @classmethod
    def of_build(cls, zig: Zig, args: argparse.Namespace) -> "_Project":
        folder: Path = (args.build or Path()).absolute()
        if not (folder / "build.zig").is_file():  # Before a cache is made in some other folder.
            raise InputError(
                f"there is no build.zig in '{folder}': give ROOT.zig or --build FOLDER; "
                "'fuzzserver --help' explains"
            )
        options = [f"-D{option}" for option in args.options]
        return cls(
            folder / ".zig-cache", lambda children: test_commands(zig, folder, args.step, options, children)
        )


def _session(
    args: argparse.Namespace, zig: Zig, project: _Project, options: FuzzOptions, audience: Audience
) -> int:
    """Fuzz, and say at the end what was found."""
    driver = FuzzDriver(
        ZigCompileClient(zig, cache_dir_of(args)),
        project.find_commands,
        project.cache_root,
        options,
        audience,
    )
    ended: Future[None] = Future()
    thread = threading.Thread(
        target=_drive, args=(args, driver, audience, ended), name="fuzz-driver", daemon=True
    )
    signalled: Signalled | None = None
    try:
        thread.start()
        with StatusLine(log, lambda: _status_text(driver, audience)):
            wait_for(ended)
    except Signalled as error:
        signalled = error
    finally:
        try:
            driver.finish(LAST_LOOK_AT_SIGNAL if signalled is not None else LAST_LOOK)
        except Signalled as error:  # The findings must be told all the same.
            signalled = error
            driver.stop()
        if thread.ident is not None:  # Else the signal came before its start.
            thread.join()
    if driver.started is not None:
        _give_verdict(driver)
    if driver.found:
        return ExitCode.FINDINGS
    if signalled is not None:
        raise signalled
    return ExitCode.BUILD_FAILED if driver.build_failed or driver.not_fuzzed else ExitCode.CLEAN


def _drive(args: argparse.Namespace, driver: FuzzDriver, audience: Audience, ended: "Future[None]") -> None:
    """Build and fuzz. What fails, and the end of the time, end the program."""
    try:
        driver.start(driver.build())
        over = driver.wait(args.time)
        if not over or args.no_web or args.time is not None:
            ended.set_result(None)
    except Exception as error:
        if not driver.stopped:
            audience.set_status("failed", str(error))
            ended.set_exception(error)


def _status_text(driver: FuzzDriver, audience: Audience) -> str:
    """What goes on, in a line."""
    loading = audience.loading if isinstance(audience, WebServer) else None
    if driver.started is None:
        building = [target.text for target in driver.targets if target.state == "building" and target.text]
        return "; ".join(building) or "building ..."
    tests = [test for target in driver.targets for test in target.tests]
    seconds = time.monotonic() - driver.started
    states = [test.state for test in tests]
    parts = [f"fuzzing {states.count('fuzzing')} of {len(tests)} tests for {duration(seconds)}"]
    parts.append(f"{sum(test.n_runs or 0 for test in tests):,} runs")
    parts.append(f"{len(driver.found)} finding{'' if len(driver.found) == 1 else 's'}")
    if loading is not None:
        parts.append(f"reading the debug info of {loading}")
    return ", ".join(parts)


def _give_verdict(driver: FuzzDriver) -> None:
    """Findings and a summary, on stderr."""
    assert driver.started is not None
    for finding_id in driver.found:
        finding = driver.findings.get(finding_id)
        if finding is None:
            continue
        try:
            data = driver.findings.input(finding_id)
        except InputError as error:  # The disk is full, say: what was found counts all the same.
            log.error("%s", error)
            data = b""
        print(printable(finding_text(finding, data)), file=sys.stderr)
    seconds = driver.ended - driver.started
    summary = summary_text(driver.targets, len(driver.found), seconds, driver.not_fuzzed)
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
