"""``report``, and what ``--report`` writes at the end of other subcommands."""

import argparse
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fuzzserver import paths
from fuzzserver.console import printable
from fuzzserver.coverage.coverage_map import check_inputs
from fuzzserver.coverage.queue import CoverageMsg, EntryPointMsg
from fuzzserver.coverage.zig_cache import Pair
from fuzzserver.environment import cache_dir_of, coverage_id_of_file, zig_of
from fuzzserver.errors import FuzzServerError, InputError
from fuzzserver.exit_code import ExitCode
from fuzzserver.files import append_regular
from fuzzserver.findings import Finding, FindingStore
from fuzzserver.fuzz.attach import Attacher
from fuzzserver.observer import Observer
from fuzzserver.remote import RemoteServer
from fuzzserver.report.compare import Comparison, compare
from fuzzserver.report.compare_forms import comparison_lines, comparison_markdown
from fuzzserver.report.formats import HTML, report_bytes, write_report
from fuzzserver.report.json_form import parse_report, read_report
from fuzzserver.report.model import Report
from fuzzserver.report.path_rules import PathRules
from fuzzserver.signals import take_time
from fuzzserver.status import TargetStatus, TestStatus
from fuzzserver.step import FuzzRunStep
from fuzzserver.verdict import Judged, coverage_text, judge, verdict_text
from fuzzserver.webserver import static_page
from fuzzserver.wire.abi import coverage_file_name
from fuzzserver.zig.compile_client import ZigCompileClient

__all__ = ["check_report_options", "conclude", "report", "settled_report", "wants_report"]

log = logging.getLogger(__name__)

SETTLE = 300.0
"""Seconds that tables get to be made, when nothing but the report waits for them."""

LONGEST_END = 600.0
"""Seconds in which reports are written after a signal."""

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
"""Names the file that GitHub Actions shows with the job."""


def check_report_options(args: argparse.Namespace) -> None:
    """Refuse now, and not after an hour of fuzzing, what cannot be done then. InputError says what."""
    if args.fail_on_regression and args.baseline is None:
        raise InputError("--fail-on-regression needs something to compare with: --baseline FILE")
    if args.baseline is not None:
        read_report(args.baseline)
    for _, path in args.report:
        if str(path) != "-":
            _check_report_path(path)
    paths = [path if str(path) == "-" else path.resolve() for _, path in args.report]
    for path in paths:
        if paths.count(path) > 1 and (str(path) == "-" or not path.exists() or path.is_file()):
            raise InputError(f"two reports cannot be written to '{path}'")
        if args.baseline is not None and path == args.baseline.resolve():
            raise InputError(f"a report to '{path}' would replace the baseline")


def _check_report_path(path: Path) -> None:
    try:
        if path.is_dir():
            raise InputError(f"cannot write a report to '{path}', which is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise InputError(f"cannot write a report to '{path}': Permission denied")
    except OSError as error:
        raise InputError(f"cannot write a report to '{path}': {error.strerror}") from error


def settled_report(
    args: argparse.Namespace,
    observer: Observer,
    findings: Sequence[Finding] | None = None,
    seconds: float | None = None,
) -> Report:
    """The report of a session that is over, with the coverage of its last builds if anybody wants it."""
    if wants_report(args):
        take_time(LONGEST_END)
        if not observer.settle(SETTLE):
            log.warning("the debug info is not read after %g s; some coverage is not in the report", SETTLE)
    return observer.report(findings, seconds)


def conclude(args: argparse.Namespace, judged: Judged, page: Callable[[], bytes]) -> int:
    """Judge a session by its report and the options, say so, and write reports; returns the exit code.

    ``page`` gives the page in one file.
    """
    rules = PathRules(tuple(args.strip_prefix), tuple(args.include), tuple(args.exclude))
    whole = rules.apply(judged.report)
    if not any(len(target.points) for target in whole.targets):
        _warn_of_rules(judged.report)
    comparison, problems = _compared(args, rules, whole)
    verdict = judge(
        replace(
            judged,
            report=whole,
            fail_under=args.fail_under,
            comparison=comparison,
            fail_on_regression=args.fail_on_regression,
        )
    )
    whole = replace(whole, verdict=verdict)
    if any(len(target.points) for target in whole.targets):
        _say(coverage_text(whole))
    for line in () if comparison is None else comparison_lines(comparison):
        _say(line)
    problems = [*problems, *_write_reports(args, whole, comparison, page)]
    if verdict.exit_code == ExitCode.CLEAN and problems:
        for each in problems[1:]:
            log.error("%s", each)
        raise problems[0]
    for each in problems:
        log.error("%s", each)
    _say(verdict_text(verdict))
    return verdict.exit_code


def _compared(
    args: argparse.Namespace, rules: PathRules, whole: Report
) -> tuple[Comparison | None, list[FuzzServerError]]:
    """What has changed since the baseline; or why that cannot be told, which must not cost the reports."""
    if args.baseline is None:
        return None, []
    try:
        return compare(rules.apply(read_report(args.baseline)), whole), []
    except InputError as error:
        return None, [error]


def _warn_of_rules(before: Report) -> None:
    """Say so if nothing is left of all files."""
    names = [file.name for target in before.targets for file in target.points.by_file]
    if names:
        log.warning(
            "no source file is left by --include and --exclude: names are like '%s', and --strip-prefix "
            "makes them shorter",
            min(names, key=len),
        )


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr)


def _write_reports(
    args: argparse.Namespace, whole: Report, comparison: Comparison | None, page: Callable[[], bytes]
) -> list[FuzzServerError]:
    """All that can be written is; returns why others are not."""
    errors: list[FuzzServerError] = []
    for name, path in args.report:
        try:
            data = page() if name == HTML else report_bytes(name, whole)
            if name == "markdown":
                data += _comparison_part(comparison)
            write_report(path, data)
            if str(path) != "-":
                log.info("%s report: %s", name, path)
        except FuzzServerError as error:
            errors.append(error)
    summary = os.environ.get(SUMMARY_VARIABLE)
    if summary:
        try:
            append_regular(summary, report_bytes("markdown", whole) + _comparison_part(comparison))
        except OSError as error:
            log.warning("cannot add to the summary '%s': %s", summary, error.strerror)
    return errors


def _comparison_part(comparison: Comparison | None) -> bytes:
    text = "" if comparison is None else f"\n{comparison_markdown(comparison)}"
    return text.encode("utf-8", "backslashreplace")


def wants_report(args: argparse.Namespace) -> bool:
    """Whether anything is asked for that takes a report."""
    return bool(
        args.report or args.baseline or args.fail_under is not None or os.environ.get(SUMMARY_VARIABLE)
    )


# ------------------------------------------------------------------------ report


def report(args: argparse.Namespace) -> int:
    """Write reports of what is there. Without ``--report``, say what was covered."""
    check_report_options(args)
    given = [
        args.url is not None,
        args.executable is not None or bool(args.coverage),
        args.folder is not None,
    ]
    if sum(given) > 1:
        raise InputError("give one of CACHE_DIR, --url, and --executable with --coverage")
    if args.url is not None:
        return _report_of_server(args)
    if (args.executable is None) != (not args.coverage):
        raise InputError("--executable EXE and --coverage FILE belong together: give both")
    with _followed(args) as observer:
        if not observer.settle(SETTLE):
            raise InputError(f"the debug info could not be read within {SETTLE:g} s")
        whole = replace(observer.report(), seconds=None)  # Nobody knows when it was fuzzed.
        if observer.problems and not any(len(target.points) for target in whole.targets):
            raise InputError(observer.problems[0])
        if not whole.targets and not whole.findings:
            raise InputError("there is nothing to report: no fuzzer has written a coverage file there")

        def page() -> bytes:
            return static_page(observer, ZigCompileClient(zig_of(args), cache_dir_of(args)))

        return conclude(args, _judged(args, whole), page)


def _judged(args: argparse.Namespace, whole: Report) -> Judged:
    findings = [each.finding for each in whole.findings]
    return Judged(whole, failing=[each for each in findings if each.category in args.fail_on])


@contextmanager
def _followed(args: argparse.Namespace) -> Iterator[Observer]:
    """An observer of what the arguments name."""
    with Observer() as observer:
        observer.set_status("serving", "")
        if args.executable is not None:
            _post_files(args, observer)
        else:
            _post_cache(args, observer)
        yield observer


def _post_files(args: argparse.Namespace, observer: Observer) -> None:
    ids = {coverage_id_of_file(path) for path in args.coverage}
    if len(ids) > 1:
        names = ", ".join(map(coverage_file_name, sorted(ids)))
        raise InputError(
            f"the coverage files belong to {len(ids)} executables: {names}; report each by itself"
        )
    (coverage_id,) = ids
    for path in args.coverage:
        step = FuzzRunStep(
            args.executable.name,
            args.executable.absolute(),
            coverage_file=path.absolute(),
            tables_dir=cache_dir_of(args) / "tables",
        )
        check_inputs(step, coverage_id)
        observer.add_step(step)
        observer.post(CoverageMsg(coverage_id, step))


def _post_cache(args: argparse.Namespace, observer: Observer) -> None:
    """The newest build of each target in the cache, and what was found."""
    attacher = Attacher(
        [args.folder or Path()],
        add_step=observer.add_step,
        post=observer.post,
        set_status=lambda *_: None,
        set_target=observer.set_target,
    )
    (cache,) = attacher.caches
    if not cache.path.is_dir():
        raise InputError(f"there is no '{cache.path}': nothing was built there yet")
    observer.set_findings(FindingStore(paths.findings_folder(cache.path)))
    attacher.look()
    for pairs in cache.session_pairs():
        _post_session(observer, cache.path, pairs)


def _post_session(observer: Observer, cache: Path, pairs: list[Pair]) -> None:
    """What the workers of one target have left."""
    executable, name = pairs[0].executable.path, pairs[0].name
    step = FuzzRunStep(name, executable, cache, key=f"{cache}:{name}")
    observer.add_step(step)
    n_runs: Counter[str] = Counter()
    for pair in pairs:
        file = pair.coverage_file
        observer.post(CoverageMsg(file.coverage_id, step, file.path.parent.parent))
        for test, address in pair.fuzz_tests.items():
            observer.post(EntryPointMsg(file.coverage_id, address))
            n_runs[test] += file.n_runs
    # A worker counts the runs of all its tests as one.
    are_told = all(len(pair.fuzz_tests) == 1 for pair in pairs)
    tests = tuple(TestStatus(test, "stopped", n_runs=n_runs[test] if are_told else None) for test in n_runs)
    observer.set_target(
        TargetStatus(step.key, name, "stopped", id=pairs[0].coverage_file.path.name, tests=tests)
    )


def _report_of_server(args: argparse.Namespace) -> int:
    """Fetch the report of a server, and its page."""
    server = RemoteServer(args.url)
    try:
        whole = parse_report(server.get("api/1/report"))
    except InputError as error:
        raise InputError(f"no report of '{server.address}': {error}") from error
    return conclude(args, _judged(args, whole), lambda: server.get("report/html"))
