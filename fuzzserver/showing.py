"""``serve`` and ``attach``: showing what is there, and what others fuzz."""

import argparse
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from fuzzserver.coverage.coverage_map import check_inputs
from fuzzserver.coverage.queue import CoverageMsg, EntryPointMsg
from fuzzserver.coverage.seen_pcs import SeenPcs
from fuzzserver.environment import cache_dir_of, serving, zig_of
from fuzzserver.errors import InputError
from fuzzserver.signals import wait_for_signal
from fuzzserver.step import FuzzRunStep, SourcePath
from fuzzserver.wire.abi import coverage_file_name
from fuzzserver.wire.wyhash import wyhash

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
    coverage_id = _coverage_id(args.coverage)
    check_inputs(step, coverage_id)
    with serving(args, zig_of(args), step) as web_server:
        web_server.set_status("serving", f"Showing {args.executable} with {args.coverage}.")
        web_server.post(CoverageMsg(coverage_id, step))
        for addr in args.entry_point:
            web_server.post(EntryPointMsg(coverage_id, addr))
        wait_for_signal()


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


def attach(args: argparse.Namespace) -> NoReturn:
    """Show what others fuzz until a signal comes."""
    # Of no use to ``serve``, which is to be quick.
    from fuzzserver.coverage.zig_cache import find_cache
    from fuzzserver.fuzz.attach import Attacher

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
        try:
            wait_for_signal()
        finally:
            stop.set()
            thread.join()
