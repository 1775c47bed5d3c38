"""Coverage that the test itself moves: a real server, real maps and files, and no fuzzer.

A ``Puppet`` takes the place of one fuzzed executable. Its sources are written to disk; where one of them
says ``§`` there is a point, and the sign is left out of the file.
"""

from __future__ import annotations

import os
import re
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pytest

from fuzzserver import FuzzRunStep, WebServer, paths
from fuzzserver.corpus import Corpus
from fuzzserver.coverage.coverage_map import CoverageMap, ExecutableFacts
from fuzzserver.coverage.executable import FileState
from fuzzserver.coverage.functions import NO_FUNCTION, Functions
from fuzzserver.coverage.history import History
from fuzzserver.coverage.history_file import Mark, StoredHistory, save_history
from fuzzserver.coverage.seen_pcs import SeenPcs
from fuzzserver.coverage.tables import Coverage
from fuzzserver.findings import Finding, FindingStore, InputForm
from fuzzserver.status import TargetStatus
from fuzzserver.wire.abi import HistorySample, SeenPcsHeader, SourceLocation, coverage_file_name

POINT = "§"
FIRST_ADDRESS = 0x101_0000
ADDRESS_STEP = 0x10

MAIN = """\
const std = @import("std");
const parser = @import("parser.zig");

fn fuzzSum(_: void, input: []const u8) anyerror!void {
    §std.mem.doNotOptimizeAway(parser.sum(input));
}

test "fuzz sum" {
    §try std.testing.fuzz({}, fuzzSum, .{});
}
"""

PARSER = """\
//! Adds up digits.

pub fn sum(input: []const u8) u32 {
    var total: u32 = §0;
    for (§input) |byte| §{
        total +%= §digit(byte) orelse §continue;
    }
    return §total;
}

fn digit(byte: u8) ?u32 {
    if (§byte >= '0' and §byte <= '9') return §byte - '0';
    return §null;
}

const name = "text";
"""

UTIL_C = """\
#include <stddef.h>

/* Counts. */
size_t count_c(const char *text) {
    size_t n = §0;
    while (§text[n] != '\\0') §n++;
    return §n;
}
"""

MEM = """\
pub fn eql(a: []const u8, b: []const u8) bool {
    if (§a.len != b.len) return §false;
    return §true;
}
"""

EXAMPLE = {
    "src/main.zig": MAIN,
    "src/parser.zig": PARSER,
    "src/deep/inner/util.c": UTIL_C,
    "zig/lib/std/mem.zig": MEM,
    "zig/lib/std/std.zig": 'pub const mem = @import("mem.zig");\n',
}
"""Sources as in a small project: its own, some C, and a part of Zig's library."""


@dataclass(frozen=True)
class Point:
    """A place in the source. Line and column count from 1, columns in bytes."""

    path: str
    line: int
    column: int
    function: str = ""


def find_points(path: str, marked: str) -> tuple[str, list[Point]]:
    """The text without its signs, and what the signs stand for."""
    points = []
    lines = []
    function = ""
    stem = Path(path).stem
    for number, line in enumerate(marked.split("\n"), 1):
        if found := re.search(r'\bfn (\w+)|^test "([^"]+)"|^\w[\w ]* \**(\w+)\(', line):
            name = found[1] or found[3]
            function = f"{stem}.{name}" if name else f"{stem}.test.{found[2]}"
        parts = line.split(POINT)
        column = 1
        for part in parts[:-1]:
            column += len(part.encode())
            points.append(Point(path, number, column, function))
        lines.append("".join(parts))
    return "\n".join(lines), points


class Puppet:
    """What stands for one fuzzed executable."""

    def __init__(
        self,
        folder: Path,
        sources: Mapping[str, str] = EXAMPLE,
        *,
        name: str = "src/main.zig",
        coverage_id: int = 1,
        points: Sequence[Point] | None = None,
        oddities: tuple[str, ...] = (),
        has_debug_info: bool = True,
        zig_version: str | None = "0.14.1",
    ) -> None:
        """Write the sources below ``folder``, and a coverage file of which nothing is covered.

        ``points`` are those besides the ones that the sources mark; a path is relative to ``folder``.
        """
        self.folder = folder
        self.name = name
        self.coverage_id = coverage_id
        self.points: list[Point] = []
        for path, marked in sources.items():
            text, found = find_points(path, marked)
            self.write(path, text)
            self.points += found
        self.points += points or ()
        self.oddities = oddities
        self.has_debug_info = has_debug_info
        self.zig_version = zig_version
        self.executable = folder / "cache" / f"test-{self.id}"
        self.executable.parent.mkdir(parents=True, exist_ok=True)
        self.executable.write_bytes(b"\x7fELF")
        self.coverage_file = folder / "cache" / "v" / self.id
        self.coverage_file.parent.mkdir(exist_ok=True)
        self.n_runs = self.unique_runs = 0
        self.covered: set[int] = set()
        self._servers: list[WebServer] = []
        self._write_coverage(self._pcs())

    @property
    def id(self) -> str:
        """The name of the map, as in addresses."""
        return coverage_file_name(self.coverage_id)

    @property
    def step(self) -> FuzzRunStep:
        """What a build driver would tell the server."""
        cache = self.folder / "cache"
        return FuzzRunStep(
            self.name, self.executable, cache, coverage_file=self.coverage_file, key=f"key-of-{self.name}"
        )

    @property
    def history_file(self) -> Path:
        """Where the server keeps the history."""
        return paths.data_folder(self.folder / "cache") / "history" / self.id

    def path(self, path: str) -> Path:
        """Where a source is."""
        return self.folder / path

    def write(self, path: str, text: str) -> None:
        """Write a source, an hour before the executable was built."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        before = time.time() - 3600
        os.utime(file, (before, before))

    # ------------------------------------------------------------------ fuzzing

    def find(self, path: str, line: int = 0, function: str = "") -> list[int]:
        """The points in a file, in a line of it, or in one of its functions."""
        return [
            index
            for index, point in enumerate(self.points)
            if point.path == path
            and line in (0, point.line)
            and (not function or point.function.endswith(f".{function}"))
        ]

    def cover(self, *points: int, runs: int = 1000) -> None:
        """Find that the fuzzer has come to these points."""
        self.covered.update(points)
        self.run(runs)

    def cover_all(self, runs: int = 1000) -> None:
        """Find that it has come everywhere."""
        self.cover(*range(len(self.points)), runs=runs)

    def run(self, runs: int) -> None:
        """Count so many runs more, each tenth of which reached something that others had not."""
        self.n_runs += runs
        self.unique_runs += runs // 10
        self._write_coverage(b"")
        for server in self._servers:
            server.notify()

    def reset(self) -> None:
        """Begin anew: nothing is covered."""
        self.covered.clear()
        self.n_runs = self.unique_runs = 0
        self.run(0)

    def _write_coverage(self, pcs: bytes) -> None:
        """Header and bits in one piece, as a reader must see them."""
        header = SeenPcsHeader(self.n_runs, self.unique_runs, len(self.points))
        bits = bytearray(header.seen_bits_size)
        for point in self.covered:
            bits[point >> 3] |= 1 << (point & 7)
        descriptor = os.open(self.coverage_file, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, header.serialize() + bits + pcs, 0)
        finally:
            os.close(descriptor)

    # ------------------------------------------------------------------ showing

    def address(self, point: int) -> int:
        """Where the code of a point is."""
        return FIRST_ADDRESS + point * ADDRESS_STEP

    def _pcs(self) -> bytes:
        return array("Q", map(self.address, range(len(self.points)))).tobytes()

    def show(self, server: WebServer, *entry_points: int) -> Self:
        """Make a server show the coverage; ``entry_points`` are points that stand for tests."""
        coverage_map = self.map(server)
        coverage_map.entry_points = entry_points
        server.add_step(self.step)
        server.coverage_files.add(coverage_map, self.step)
        self._servers.append(server)
        server.notify()
        return self

    def map(self, server: WebServer) -> CoverageMap:
        """The tables that the server would make of the executable."""
        coverage = Coverage()
        locations = array("I")
        functions: dict[str, int] = {}
        of_points = array("I")
        for point in self.points:
            locations.extend(self._location(coverage, point))
            known = functions.setdefault(point.function, len(functions)) if point.function else NO_FUNCTION
            of_points.append(known)
        names, string_bytes = array("I"), bytearray()
        for name in functions:
            names.append(len(string_bytes))
            string_bytes += name.encode() + b"\0"
        return self._map(server, coverage, locations, Functions(of_points, names, bytes(string_bytes)))

    def _map(
        self, server: WebServer, coverage: Coverage, locations: array[int], functions: Functions
    ) -> CoverageMap:
        facts = ExecutableFacts(
            self.executable, FileState.of(self.executable.stat()), self.has_debug_info, self.zig_version
        )
        seen_pcs = SeenPcs(self.coverage_file)
        history = History(len(locations) // 3, self.history_file)
        return CoverageMap(
            self.coverage_id,
            facts,
            seen_pcs,
            seen_pcs.pc_addrs(),
            coverage,
            locations,
            functions,
            history,
            server.now(),
            self.oddities,
        )

    def _location(self, coverage: Coverage, point: Point) -> tuple[int, int, int]:
        if not self.has_debug_info:
            return SourceLocation.INVALID.file, 0, 0
        path = self.folder / point.path
        file = coverage.intern_file(os.fsencode(path.parent), os.fsencode(path.name))
        return file, point.line, point.column

    def target(self, state: str = "fuzzing", **more: object) -> TargetStatus:
        """The status of the target whose current build this is."""
        return replace(TargetStatus(self.step.key, self.name, state, id=self.id), **more)  # type: ignore[arg-type]

    def remember(self, samples: Sequence[HistorySample], marks: Sequence[Mark] = ()) -> None:
        """Leave a history of earlier sessions on disk, to be called before ``show``."""
        times = array(
            "I", (int(samples[0].time) if i in self.covered else 0 for i in range(len(self.points)))
        )
        save_history(self.history_file, StoredHistory(list(samples), tuple(marks), times))


class BigPuppet(Puppet):
    """A large program: its points are too many for one object each."""

    LINES = 50_000
    """Lines of the first file; the others have a tenth of it."""

    def __init__(self, folder: Path, points: int = 1_000_000, files: int = 100) -> None:
        self.points_len = points
        self.files_len = files
        super().__init__(folder, {}, name="big")
        self.write("src/file0.zig", "".join(f"    const a{i} = {i}; // line\n" for i in range(self.LINES)))

    def _write_coverage(self, pcs: bytes) -> None:
        header = SeenPcsHeader(self.n_runs, self.unique_runs, self.points_len)
        bits = bytearray(header.seen_bits_size)
        for point in self.covered:
            bits[point >> 3] |= 1 << (point & 7)
        with self.coverage_file.open("r+b" if self.coverage_file.exists() else "wb") as file:
            file.write(header.serialize() + bits + pcs)

    def _pcs(self) -> bytes:
        end = FIRST_ADDRESS + self.points_len * ADDRESS_STEP
        return array("Q", range(FIRST_ADDRESS, end, ADDRESS_STEP)).tobytes()

    def cover_share(self, nth: int, runs: int = 1_000_000) -> None:
        """Cover every ``nth`` point."""
        self.cover(*range(0, self.points_len, nth), runs=runs)

    def map(self, server: WebServer) -> CoverageMap:
        """As of the class above; points are spread evenly over files and lines."""
        coverage = Coverage()
        each = self.points_len // self.files_len
        locations = array("I", bytes(12 * self.points_len))
        for number in range(self.files_len):
            path = self.folder / "src" / f"file{number}.zig"
            file = coverage.intern_file(os.fsencode(path.parent), os.fsencode(path.name))
            start, end = (
                number * each,
                (number + 1) * each if number + 1 < self.files_len else self.points_len,
            )
            count = end - start
            lines = self.LINES if number == 0 else self.LINES // 10
            locations[3 * start : 3 * end : 3] = array("I", [file]) * count
            locations[3 * start + 1 : 3 * end : 3] = array(
                "I", (1 + i * lines // count for i in range(count))
            )
            locations[3 * start + 2 : 3 * end : 3] = array("I", [5]) * count
        names = [f"file.function{number}" for number in range(self.points_len // 100 + 1)]
        offsets, text = array("I"), bytearray()
        for name in names:
            offsets.append(len(text))
            text += name.encode() + b"\0"
        of_points = array("I", (point // 100 for point in range(self.points_len)))
        return self._map(server, coverage, locations, Functions(of_points, offsets, bytes(text)))


def big_map(folder: Path, points: int = 1_000_000, files: int = 100) -> BigPuppet:
    """A program with so many points, one of whose files has 50,000 lines."""
    return BigPuppet(folder, points, files)


@pytest.fixture
def puppet(web_server: WebServer, tmp_path: Path) -> Puppet:
    """An example whose coverage the test moves, shown by the server."""
    return Puppet(tmp_path).show(web_server)


# ---------------------------------------------------------------------- findings and corpora


def finding(number: int = 1, **more: object) -> Finding:
    """One of several findings, each a minute after the other."""
    made = Finding(
        id=f"{number:016x}",
        kind="panic",
        message=f"number {number}",
        target="src/main.zig",
        test="main.test.fuzz sum",
        first_time=1_763_720_000.5 + 60 * number,
        last_time=1_763_720_000.5 + 60 * number,
        n_runs=51_234,
    )
    return replace(made, **more)  # type: ignore[arg-type]


def findings_of(server: WebServer, folder: Path) -> FindingStore:
    """A place for findings that the server shows."""
    store = FindingStore(folder / "findings", server.notify)
    server.set_findings(store)
    return store


def corpus_of(
    server: WebServer,
    folder: Path,
    test: str,
    inputs: Sequence[bytes],
    target: str = "src/main.zig",
    form: InputForm = "bytes",
) -> Corpus:
    """A corpus with these inputs, numbered from 0, which the server shows."""
    corpus = Corpus(folder / "f" / re.sub(r"\W", "_", test)[:60], target, test, form)
    corpus.folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(inputs):
        (corpus.folder / str(number)).write_bytes(data)
    server.add_corpus(corpus)
    return corpus


def growth(
    count: int = 60, seconds: float = 600, *, until: float | None = None, most: int = 16
) -> list[HistorySample]:
    """Samples of coverage that grows evenly, up to ``most`` points; the last is of ``until``, or of now."""
    end = time.time() if until is None else until
    return [
        HistorySample(
            end - seconds * (count - 1 - i) / (count - 1),
            1000 * i,
            100 * i,
            most * i // (count - 1),
            1 if i == 0 else 0,
        )
        for i in range(count)
    ]
