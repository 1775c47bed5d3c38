"""``repro`` and ``minimize``: the input of a finding, once more and smaller."""

import argparse
import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

from fuzzserver import paths
from fuzzserver.console import StatusLine, printable
from fuzzserver.environment import cache_dir_of, zig_of
from fuzzserver.errors import InputError
from fuzzserver.exit_code import ExitCode
from fuzzserver.findings import (
    Finding,
    FindingStore,
    find_finding,
    input_note,
    write_whole,
    zig_string_literal,
)
from fuzzserver.fuzz.analysis import make_reproducer
from fuzzserver.fuzz.failure import Failure, Kind
from fuzzserver.fuzz.reproducer import Reproducer
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.fuzz.worker import MIB
from fuzzserver.report.words import count
from fuzzserver.signals import wait_for
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.process import ChildGroup

__all__ = ["minimize", "repro"]

log = logging.getLogger("fuzzserver")

Result = TypeVar("Result")


def repro(args: argparse.Namespace) -> int:
    """Run the input of a finding again."""
    store, finding = _find(args)

    def run(reproducer: Reproducer) -> Failure | None:
        data = _exact_input(store, finding, reproducer)
        log.info("running '%s' with %d bytes: %s", finding.test, len(data), zig_string_literal(data))
        if note := input_note(store.get(finding.id) or finding):
            log.info("%s", note)
        return reproducer.run(data)

    failure = _with_reproducer(args, finding, run)
    if failure is None:
        _print(f"finding {finding.id} does not reproduce: the test passes")
        return ExitCode.CLEAN
    if failure.stack:
        _print(failure.stack)
    how = "reproduces" if failure.same_as(_failure(finding)) else "fails otherwise"
    _print(f"finding {finding.id} {how}: {failure.kind}: {failure.message}")
    return ExitCode.FINDINGS


def _exact_input(store: FindingStore, finding: Finding, reproducer: Reproducer) -> bytes:
    """The input of a finding; if its length is not known yet, the shortest that reproduces it."""
    data = store.input(finding.id)
    if finding.exact:
        return data
    shortest = reproducer.shortest_prefix(data, _failure(finding))
    if shortest is None:
        return data
    store.update(finding.id, lambda each: replace(each, reproduces=True, exact=True), shortest)
    return shortest


def _failure(finding: Finding) -> Failure:
    """What was found, to compare with."""
    return Failure(cast(Kind, finding.kind), finding.message, "", ())


def _print(text: str) -> None:
    print(printable(text), file=sys.stderr)


def minimize(args: argparse.Namespace) -> int:
    """Shrink the input of a finding."""
    store, finding = _find(args)
    data = b""
    tried = best = 0

    def progress(tries: int, size: int) -> None:
        nonlocal tried, best
        tried, best = tries, size

    def shrink(reproducer: Reproducer) -> tuple[bytes, list[str]]:
        nonlocal data
        data = _exact_input(store, finding, reproducer)
        failure = reproducer.run(data)
        if failure is None or not failure.same_as(_failure(finding)):
            raise InputError(
                f"finding {finding.id} does not reproduce, so its input cannot be minimized: "
                f"the test {'passes' if failure is None else f'fails with {failure.kind}: {failure.message}'}"
            )
        with StatusLine(log, lambda: f"minimizing {len(data)} bytes: {best} left after {tried} runs"):
            smallest = reproducer.minimize(data, failure, progress)
        return smallest, reproducer.argv(store.input_path(finding.id))

    smallest, argv = _with_reproducer(args, finding, shrink)
    original = store.folder / f"{finding.id}.original"
    if not original.exists():
        write_whole(original, data)
    store.update(
        finding.id,
        lambda each: replace(
            each, minimized_size=len(smallest), reproduces=True, exact=True, argv=tuple(argv)
        ),
        smallest,
    )
    sizes = f"{len(data)} bytes are now {len(smallest)}"
    if len(smallest) == len(data):
        simpler = "" if smallest == data else ", but simpler"
        sizes = f"the input could not be made shorter than {count(len(data), 'byte')}{simpler}"
    _print(f"finding {finding.id}: {sizes}: {zig_string_literal(smallest)}")
    return ExitCode.CLEAN


def _with_reproducer(
    args: argparse.Namespace, finding: Finding, work: Callable[[Reproducer], Result]
) -> Result:
    """Build what runs the test of a finding, from the sources as they are now, and ``work`` with it.

    That is done on a thread of its own. A signal is an exception in the main thread: if it came between
    the start of a child and the note of it, nobody would end that child.
    """
    try:
        command = TestCommand.from_json(finding.build)
    except InputError as error:
        raise InputError(f"finding {finding.id} cannot be run: {error}") from error
    if not command.project.is_dir():
        raise InputError(
            f"finding {finding.id} cannot be run: its project '{command.project}' is not on this machine"
        )
    client = ZigCompileClient(zig_of(args), cache_dir_of(args))
    children = ChildGroup()
    result: Future[Result] = Future()

    def run() -> None:
        try:
            memory = args.memory_limit * MIB
            reproducer = make_reproducer(client, children, command, finding.test, args.hang_timeout, memory)
            result.set_result(work(reproducer))
        except Exception as error:
            result.set_exception(error)

    thread = threading.Thread(target=run, name="reproduce", daemon=True)
    thread.start()
    try:
        return wait_for(result)
    finally:
        client.stop()
        children.stop()
        thread.join()


def _find(args: argparse.Namespace) -> tuple[FindingStore, Finding]:
    """The finding that is meant, whose input can be read."""
    store, finding = find_finding(args.finding, _findings_folders(args.project))
    store.input(finding.id)
    return store, finding


def _findings_folders(project: Path) -> list[Path]:
    """Where findings may be: in the project's folder, or in one above it."""
    project = project.absolute()
    folders = [paths.findings_folder(folder / ".zig-cache") for folder in (project, *project.parents)]
    found = [folder for folder in folders if folder.is_dir()]
    return found or folders[:1]
