"""A report as an LCOV tracefile, in a form that lcov 1.16 and 2.x read without complaints.

Nobody counts how often a point was reached: where LCOV wants a number of executions, it is 1 or 0. A line
is covered if any of its points is; where it has several, each is a branch.

Zig's debug info puts some code of the standard library behind the end of its files. ``genhtml`` of 2.x stops
there unless it is told ``--ignore-errors range``, or the report is only of other files.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from fuzzserver.report.by_source import SourceFile, by_source, join_functions
from fuzzserver.report.model import Report

__all__ = ["lcov_text"]

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What might end a line for one reader or another."""


def lcov_text(report: Report) -> str:
    """A record for each source file, whichever targets have it."""
    return "".join("\n".join(_record(file)) for file in by_source(report.targets))


def _record(file: SourceFile) -> Iterator[str]:
    yield "TN:"
    yield f"SF:{_CONTROLS.sub('?', file.name)}"
    yield from _functions(file)
    for line in file.lines:
        if line.points > 1:
            # "-" says that the line was not reached at all.
            missed = "0" if line.covered else "-"
            for branch in range(line.points):
                yield f"BRDA:{line.line},0,{branch},{1 if branch < line.covered else missed}"
    yield f"BRF:{file.branches}"
    yield f"BRH:{file.branches_covered}"
    for line in file.lines:
        yield f"DA:{line.line},{1 if line.covered else 0}"
    yield f"LF:{len(file.lines)}"
    yield f"LH:{file.lines_covered}"
    yield "end_of_record\n"


def _functions(file: SourceFile) -> Iterator[str]:
    # Readers know a function by nothing but its name as it is written here.
    functions = join_functions(replace(each, name=_function_name(each.name)) for each in file.functions)
    for each in functions:
        yield f"FN:{each.line},{each.name}"
    for each in functions:
        yield f"FNDA:{1 if each.covered else 0},{each.name}"
    yield f"FNF:{len(functions)}"
    yield f"FNH:{sum(each.covered for each in functions)}"


def _function_name(name: str) -> str:
    """Without commas, at which a name would end."""
    return _CONTROLS.sub("?", name).replace(",", ";")
