"""The points of one executable for reports: where each is, whose, and whether it was covered.

Columns of numbers, one item for each point, since there may be a million of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

__all__ = ["NOWHERE", "FileCoverage", "FunctionCoverage", "LineCoverage", "Points"]

NOWHERE = 0xFFFFFFFF
"""Instead of a file or a function, where nobody knows it. (As in Zig's ``SourceLocation.invalid``.)"""


@dataclass(frozen=True, slots=True)
class LineCoverage:
    """One line of a source file that has points."""

    line: int
    """From 1."""
    points: int
    covered: int


@dataclass(frozen=True, slots=True)
class FunctionCoverage:
    """One function that has points. An instance of a generic function is one of its own."""

    name: str
    """As in the symbol table: Zig puts the namespace before it."""
    file: str | None
    """The file of its first point."""
    line: int | None
    """The lowest line of its points in that file."""
    points: int
    covered: int


@dataclass(frozen=True, slots=True)
class FileCoverage:
    """One source file that has points."""

    name: str
    indexes: array[int]
    """Of its points, in the columns, ascending."""
    points: int
    covered: int
    lines: tuple[LineCoverage, ...]
    """Ascending."""

    @property
    def lines_covered(self) -> int:
        """Lines of which at least one point was covered."""
        return sum(1 for line in self.lines if line.covered)


@dataclass(frozen=True)
class Points:
    """All points of one executable, or those that a filter has left."""

    numbers: array[int]
    """Position of each point in the coverage file, ascending."""
    addresses: array[int]
    files: array[int]
    """Index into ``file_names``, or ``NOWHERE``."""
    lines: array[int]
    """From 1; 0 for points without a file."""
    columns: array[int]
    functions: array[int]
    """Index into ``function_names``, or ``NOWHERE``."""
    covered: bytes
    """1 or 0 for each point."""
    file_names: tuple[str, ...]
    function_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def covered_len(self) -> int:
        """How many points were covered."""
        return self.covered.count(1)

    @cached_property
    def by_file(self) -> tuple[FileCoverage, ...]:
        """The files that have points, by name. Two of one name, as other names may make of them, are one."""
        indexes: dict[str, array[int]] = {}
        for index, file in enumerate(self.files):
            if file != NOWHERE:
                indexes.setdefault(self.file_names[file], array("I")).append(index)
        return tuple(self._file(name, indexes[name]) for name in sorted(indexes))

    def _file(self, name: str, indexes: array[int]) -> FileCoverage:
        totals: dict[int, int] = {}
        covered: dict[int, int] = {}
        for index in indexes:
            line = self.lines[index]
            totals[line] = totals.get(line, 0) + 1
            covered[line] = covered.get(line, 0) + self.covered[index]
        lines = tuple(LineCoverage(line, totals[line], covered[line]) for line in sorted(totals))
        return FileCoverage(name, indexes, len(indexes), sum(covered.values()), lines)

    @property
    def used_functions(self) -> list[int]:
        """Those of ``function_names`` that have points, ascending: one for each of ``by_function``."""
        return sorted({*self.functions} - {NOWHERE})

    @cached_property
    def by_function(self) -> tuple[FunctionCoverage, ...]:
        """The functions that have points, in the order of ``function_names``."""
        indexes: dict[int, list[int]] = {}
        for index, function in enumerate(self.functions):
            indexes.setdefault(function, []).append(index)
        return tuple(self._function(function, indexes[function]) for function in self.used_functions)

    def _function(self, function: int, indexes: list[int]) -> FunctionCoverage:
        first = min(indexes, key=self.addresses.__getitem__)
        file = self._file_name(first)
        in_file = [self.lines[index] for index in indexes if self._file_name(index) == file]
        return FunctionCoverage(
            self.function_names[function],
            file,
            None if file is None else min(in_file),
            len(indexes),
            sum(self.covered[index] for index in indexes),
        )

    def _file_name(self, index: int) -> str | None:
        file = self.files[index]
        return None if file == NOWHERE else self.file_names[file]

    def chosen(self, indexes: Iterable[int], file_names: tuple[str, ...]) -> Points:
        """Only the points at these positions of the columns, with other names for all files."""
        chosen = array("I", indexes)

        def column(values: array[int]) -> array[int]:
            return array(values.typecode, map(values.__getitem__, chosen))

        return Points(
            column(self.numbers),
            column(self.addresses),
            column(self.files),
            column(self.lines),
            column(self.columns),
            column(self.functions),
            bytes(map(self.covered.__getitem__, chosen)),
            file_names,
            self.function_names,
        )
