"""A report as Cobertura XML, with the elements and attributes of its ``coverage-04.dtd``.

Folders are packages, files are classes, functions are methods. Nobody counts how often a point was reached,
so ``hits`` is 1 or 0. A line is covered if any of its points is; where it has several, they are its branches.
"""

import posixpath
from collections.abc import Iterator, Sequence
from itertools import groupby
from xml.sax.saxutils import quoteattr

from fuzzserver.report.by_source import SourceFile, SourceFunction, by_source
from fuzzserver.report.model import Report
from fuzzserver.report.points import LineCoverage
from fuzzserver.report.words import clean

__all__ = ["cobertura_text"]


def cobertura_text(report: Report) -> str:
    """The report as Cobertura XML, a class for each source file, whichever targets have it."""
    files = sorted(by_source(report.targets), key=lambda file: posixpath.split(file.name))
    lines, lines_covered = _line_sums(files)
    branches, branches_covered = _branch_sums(files)
    sums = (
        f'lines-valid="{lines}" lines-covered="{lines_covered}" '
        f'branches-valid="{branches}" branches-covered="{branches_covered}"'
    )
    # Names are whole paths, or relative to a folder that only the reader knows: the one that it reads in.
    # (GitLab prepends any other source to all names, and loses them.)
    return "".join(
        (
            '<?xml version="1.0" encoding="UTF-8"?>\n',
            f"<coverage {_rates(files)} {sums}",
            f' version={_quoted(report.generator)} timestamp="{int(report.time * 1000)}">\n',
            "<sources>\n<source>.</source>\n</sources>\n<packages>\n",
            *(
                _package(folder, tuple(within))
                for folder, within in groupby(files, key=lambda file: posixpath.dirname(file.name))
            ),
            "</packages>\n</coverage>\n",
        )
    )


def _package(folder: str, files: Sequence[SourceFile]) -> str:
    begin = f"<package name={_quoted(folder or '.')} {_rates(files)}>\n<classes>\n"
    return "".join((begin, *map(_class, files), "</classes>\n</package>\n"))


def _class(file: SourceFile) -> str:
    return "\n".join(_class_parts(file))


def _class_parts(file: SourceFile) -> Iterator[str]:
    name = _quoted(posixpath.basename(file.name))
    yield f"<class name={name} filename={_quoted(file.name)} {_rates([file])}>"
    yield "<methods>"
    yield from map(_method, file.functions)
    yield "</methods>"
    yield "<lines>"
    yield from map(_line, file.lines)
    yield "</lines>"
    yield "</class>\n"


def _method(function: SourceFunction) -> str:
    """Only with the line where it begins: its lines are in the class."""
    hits = int(function.covered)
    rates = f'line-rate="{hits}" branch-rate="1" complexity="0"'
    line = f'<line number="{function.line}" hits="{hits}"/>'
    return f'<method name={_quoted(function.name)} signature="" {rates}><lines>{line}</lines></method>'


def _line(line: LineCoverage) -> str:
    begin = f'<line number="{line.line}" hits="{1 if line.covered else 0}"'
    if line.points == 1:
        return f"{begin}/>"
    percent = 100 * line.covered // line.points
    return f'{begin} branch="true" condition-coverage="{percent}% ({line.covered}/{line.points})"/>'


def _line_sums(files: Sequence[SourceFile]) -> tuple[int, int]:
    return sum(len(file.lines) for file in files), sum(file.lines_covered for file in files)


def _branch_sums(files: Sequence[SourceFile]) -> tuple[int, int]:
    return sum(file.branches for file in files), sum(file.branches_covered for file in files)


def _rates(files: Sequence[SourceFile]) -> str:
    """What each element must have. Nobody knows how complex the code is."""
    lines, branches = _rate(*_line_sums(files)), _rate(*_branch_sums(files))
    return f'line-rate="{lines}" branch-rate="{branches}" complexity="0"'


def _rate(found: int, covered: int) -> str:
    return f"{covered / found:.6f}" if found else "1"


def _quoted(text: str) -> str:
    """The value of an attribute."""
    return quoteattr(clean(text))
