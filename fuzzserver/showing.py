"""``serve`` and ``attach``: showing what is there, and what others fuzz."""

import argparse
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from fuzzserver.coverage.coverage_map import check_inputs
from fuzzserver.coverage.queue import CoverageMsg, EntryPointMsg
from fuzzserver.environment import cache_dir_of, coverage_id_of_file, serving, zig_of
from fuzzserver.errors import InputError
from fuzzserver.exit_code import ExitCode
from fuzzserver.signals import Signalled, pause, wait_for_signal
from fuzzserver.step import FuzzRunStep, SourcePath

__all__ = ["attach", "serve"]


def serve(args: argparse.Namespace) -> NoReturn:
    """Show an executable and its coverage file until a signal comes."""
    sources = tuple(path for source in args.source for path in _source_paths(source)) if args.source else None
    step = FuzzRunStep(
        args.executable.name,
        args.executable.absolute(),
        inputs=sources,
        coverage_file=args.coverage.absolute(),
        tables_dir=cache_dir_of(args) / "tables",
    )
    coverage_id = coverage_id_of_file(args.coverage)
    check_inputs(step, coverage_id)
    with serving(args, zig_of(args), step) as web_server:
        web_server.set_status("serving", f"Showing {args.executable} with {args.coverage}.")
        web_server.post(CoverageMsg(coverage_id, step))
        for addr in args.entry_point:
            web_server.post(EntryPointMsg(coverage_id, addr))
        wait_for_signal()


def _source_paths(source: Path) -> Iterator[SourcePath]:
    """A file, or all files of a folder except those that are hidden, or in hidden folders."""
    source = source.absolute()
    if source.is_file():
        yield SourcePath(str(source.parent), source.name)
    elif source.is_dir():
        for folder, folders, names in os.walk(source):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if name.startswith("."):
                    continue  # Those are never handed out.
                yield SourcePath(str(source), os.path.relpath(os.path.join(folder, name), source))
    else:
        raise InputError(f"source '{source}' does not exist")


def attach(args: argparse.Namespace) -> int:
    """Show what others fuzz until the time is over or a signal comes."""
    # Of no use to ``serve``, which is to be quick.
    from fuzzserver.coverage.zig_cache import find_cache
    from fuzzserver.fuzz.attach import Attacher
    from fuzzserver.reporting import check_report_options, conclude, settled_report, wants_report
    from fuzzserver.verdict import Judged

    check_report_options(args)
    for path in args.cache_dirs:
        find_cache(path)
    with serving(args, zig_of(args)) as web_server:
        attacher = Attacher(
            args.cache_dirs,
            add_step=web_server.add_step,
            post=web_server.post,
            set_status=web_server.set_status,
            set_target=web_server.set_target,
        )
        stop = threading.Event()
        thread = threading.Thread(target=attacher.run, args=(stop,), name="attach", daemon=True)
        thread.start()
        signalled: Signalled | None = None
        try:
            pause(math.inf if args.time is None else args.time)
        except Signalled as error:
            signalled = error
        finally:
            stop.set()
            thread.join()
        if wants_report(args):
            stopped = None if signalled is None else signalled.exit_code
            report = settled_report(args, web_server)
            return conclude(args, Judged(report, stopped=stopped), web_server.static_page)
        if signalled is not None:
            raise signalled
        return ExitCode.CLEAN
