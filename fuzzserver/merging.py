"""``merge``: several JSON reports as one."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fuzzserver.errors import InputError
from fuzzserver.report.formats import FORMATS, HTML
from fuzzserver.report.json_form import read_report
from fuzzserver.report.merge import merge
from fuzzserver.report.model import totals
from fuzzserver.report.path_rules import PathRules
from fuzzserver.report.words import count
from fuzzserver.reporting import check_report_options, conclude
from fuzzserver.verdict import Judged

__all__ = ["merge_reports"]


def merge_reports(args: argparse.Namespace) -> int:
    """Join reports, say what came of it, and write it."""
    check_report_options(args)
    if any(name == HTML for name, _ in args.report):
        _page()
    _check_given_once(args.reports)
    rules = PathRules(tuple(args.strip_prefix), tuple(args.include), tuple(args.exclude))
    # The names must be equal before files can be the same.
    whole = merge([rules.apply(read_report(path)) for path in args.reports])
    print(
        f"{count(len(args.reports), 'report')}: {count(len(whole.targets), 'target')}, "
        f"{count(totals(whole.targets).runs, 'run')}, {count(len(whole.findings), 'finding')}",
        file=sys.stderr,
    )
    failing = [each.finding for each in whole.findings if each.finding.category in args.fail_on]
    return conclude(args, Judged(whole, failing), _page)


def _page() -> bytes:
    raise InputError(
        f"merge cannot write {HTML}: the page needs the executables, which reports have not; "
        f"choose {', '.join(FORMATS)}, or report each session by itself"
    )


def _check_given_once(paths: Sequence[Path]) -> None:
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise InputError(f"report '{path}' is given twice, and its runs would count twice")
        seen.add(path.resolve())
