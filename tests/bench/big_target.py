"""Executables of any size, as a fuzzer would have them, and their coverage files.

C is compiled by Zig's own compiler with a counter for each edge, in units of some thousand functions. The
section with the addresses, which Zig adds for its fuzzer, is then written from that of the C compiler. Zig
itself makes one unit of a whole program; that of a million points would need 10 GB to compile, so the
units are joined afterwards.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fuzzserver.coverage.executable import PCS_SECTION, Executable
from fuzzserver.wire.abi import coverage_file_name
from fuzzserver.wire.wyhash import wyhash
from fuzzserver.zig.installation import Zig
from tests.support_native import coverage_bytes

VERSION = 1
"""Of the targets: what was made by another is made again. To be counted up when this file makes others."""

FUNCTIONS = 2000
"""Of a unit."""
BRANCHES = 6
"""Of a function."""
POINTS = 1 + 2 * BRANCHES
"""Of a function: where it begins, where each branch begins and ends."""
FUNCTIONS_IN_FILE = 10
LINES_IN_FILE = 400
"""So many lines of a file are those of one unit: all units have the same files, as if they were generic."""

C_PCS_SECTION = "__sancov_pcs"
"""Where the C compiler puts each address, and with it a word of flags."""

START = """\
void __sanitizer_cov_8bit_counters_init(char *start, char *stop) { (void)start; (void)stop; }
void __sanitizer_cov_pcs_init(const void *start, const void *stop) { (void)start; (void)stop; }
void _start(void) { for (;;) {} }
"""
COMPILE = ("-g", "-O0", "-fno-sanitize=all", "-fsanitize-coverage=inline-8bit-counters,pc-table", "-c")
LINK = ("-static", "-znow", "-z", "stack-size=16777216", "--image-base=16777216", "--eh-frame-hdr")
"""As ``zig cc`` links, which would first compile a runtime of which nothing is needed here."""


@dataclass(frozen=True)
class Target:
    """An executable and its coverage file."""

    executable: Path
    coverage_file: Path

    @property
    def pcs(self) -> array[int]:
        """The addresses, in the order of the coverage file."""
        with Executable(self.executable) as executable:
            found = executable.pc_addrs()
        assert found is not None
        return found

    @property
    def cache_root(self) -> Path:
        """The folder of Zig's cache that the coverage file is in."""
        return self.coverage_file.parent.parent

    def copied(self, folder: Path) -> Target:
        """The same with a coverage file of its own, in a new cache folder that holds nothing else."""
        cache_root = Path(tempfile.mkdtemp(prefix="cache-", dir=folder))
        (cache_root / "v").mkdir()
        return Target(self.executable, Path(shutil.copy(self.coverage_file, cache_root / "v")))


def big_target(zig: Zig, work: Path, points: int, *, one_unit: bool = False) -> Target:
    """A target of about so many points; what ``work`` has of an earlier run is taken from there."""
    functions = -(-points // POINTS)
    if one_unit:
        many = big_target(zig, work, points)
        return _kept(zig, work, f"{points}-one", lambda builder: builder.join(many))
    return _kept(zig, work, f"{points}-many", lambda builder: builder.build(functions))


def _kept(zig: Zig, work: Path, name: str, make: Callable[[_Builder], None]) -> Target:
    folder = work / "big-targets" / f"{name}-{VERSION}"
    if not folder.is_dir():
        for old in folder.parent.glob(f"{name}-*"):
            shutil.rmtree(old)
        print(f"making a target of {name.replace('-', ' points, units: ')} ...", file=sys.stderr, flush=True)
        making = folder.with_name(f".{folder.name}-{os.getpid()}")
        making.mkdir(parents=True)
        try:
            make(_Builder(zig, work / "zig-cache", making))
            making.rename(folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    (coverage_file,) = (folder / "v").iterdir()
    return Target(folder / "test", coverage_file)


class _Builder:
    """Makes the executable ``test`` and its coverage file, below ``v``, in a folder of its own."""

    def __init__(self, zig: Zig, zig_cache: Path, folder: Path) -> None:
        self._zig = zig
        self._folder = folder
        self._scratch = folder / "scratch"
        self._scratch.mkdir()
        (folder / "v").mkdir()
        # What is compiled here is needed once; what Zig links to it, always.
        caches = {"ZIG_GLOBAL_CACHE_DIR": str(zig_cache), "ZIG_LOCAL_CACHE_DIR": str(self._scratch / "cache")}
        self._environment = {**os.environ, **caches}

    def build(self, functions: int) -> None:
        """One of so many functions."""
        objects = [self._compile("start", START, "-g0", "-O0", "-fno-sanitize=all", "-c")]
        with ThreadPoolExecutor(os.cpu_count()) as compilers:
            objects += compilers.map(self._compile_unit, _units(functions))
        self._run(str(self._zig.path), "ld.lld", *LINK, *objects, "-o", "linked")
        with Executable(self._scratch / "linked") as executable:
            pcs = _unsorted(array("Q", executable.section_data(C_PCS_SECTION))[::2])
        (self._scratch / PCS_SECTION).write_bytes(pcs.tobytes())
        own = f"{PCS_SECTION}={PCS_SECTION}"
        self._run("objcopy", "--remove-section", C_PCS_SECTION, "--add-section", own, "linked", "../test")
        name = coverage_file_name(wyhash(0, pcs.tobytes()))
        (self._folder / "v" / name).write_bytes(coverage_bytes(pcs, range(0, len(pcs), 3)))
        shutil.rmtree(self._scratch)

    def join(self, many: Target) -> None:
        """Another one, as if it were compiled in one unit."""
        updates = []
        with Executable(many.executable) as executable:
            for name, data in _joined_units(executable).items():
                (self._scratch / name).write_bytes(data)
                updates += ["--update-section", f"{name}={name}"]
        self._run("objcopy", *updates, str(many.executable), "../test")
        shutil.copy(many.coverage_file, self._folder / "v")
        shutil.rmtree(self._scratch)

    def _compile_unit(self, functions: range) -> str:
        return self._compile(f"unit{functions.start}", "\n".join(_unit(functions)), *COMPILE)

    def _compile(self, name: str, text: str, *flags: str) -> str:
        (self._scratch / f"{name}.c").write_text(text)
        self._run(str(self._zig.path), "cc", *flags, f"{name}.c", "-o", f"{name}.o")
        return f"{name}.o"

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, cwd=self._scratch, env=self._environment, stderr=subprocess.PIPE, text=True
        )
        assert done.returncode == 0, f"{' '.join(command)[:200]}: {done.stderr[-2000:]}"


def _units(functions: int) -> Iterator[range]:
    for first in range(0, functions, FUNCTIONS):
        yield range(first, min(first + FUNCTIONS, functions))


def _unit(functions: range) -> Iterator[str]:
    """Lines of C."""
    line = 1 + functions.start // FUNCTIONS * LINES_IN_FILE
    for number, function in enumerate(functions):
        if number % FUNCTIONS_IN_FILE == 0:
            part = number // FUNCTIONS_IN_FILE
            yield f'#line {line} "source{part % 10}/part{part}.c"'
        yield f"unsigned function{function}(unsigned a, unsigned b) {{"
        yield f"    unsigned t = a * {function % 1000 + 3} + b;"
        for branch in range(BRANCHES):
            yield f"    if ((t ^ {7 * branch + function}) & {1 << branch % 5}) {{"
            yield f"        unsigned s{branch} = t >> {branch};"
            yield f"        t += a * {branch + 1} - s{branch};"
            yield f"        b ^= s{branch} + t;"
            yield "    }"
        yield "    return t;"
        yield "}"


def _unsorted(pcs: array[int]) -> array[int]:
    """As LLVM hands them to Zig, where one of thirteen is less than the one before it."""
    for index in range(POINTS, len(pcs), POINTS):
        pcs[index - 1], pcs[index] = pcs[index], pcs[index - 1]
    return pcs


def _joined_units(executable: Executable) -> dict[str, bytes]:
    """The sections of debug info as they were if all units were one: the first, with what the others have.

    All have the same files in the same order, so their line programs can follow each other as they are. What
    names and types the others declare is lost; neither side asks for them.
    """
    lines = executable.section_data(".debug_line")
    programs = list(_parts(lines))
    first = programs[0]
    (header_length,) = struct.unpack_from("<I", lines, first.start + 6)
    head = first.start + 10, first.start + 10 + header_length
    body = lines[slice(*head)] + b"".join(
        lines[program.start + 10 + struct.unpack_from("<I", lines, program.start + 6)[0] : program.stop]
        for program in programs
    )
    joined = struct.pack("<IHI", 6 + len(body), 4, header_length) + body
    ranges = executable.section_data(".debug_ranges")
    pairs = (ranges[start : start + 16] for start in range(0, len(ranges), 16))
    end = bytes(16)
    info = executable.section_data(".debug_info")
    return {
        ".debug_line": joined,
        ".debug_ranges": b"".join(pair for pair in pairs if pair != end) + end,
        ".debug_info": info[slice(*next((part.start, part.stop) for part in _parts(info)))],
    }


def _parts(section: bytes) -> Iterator[range]:
    """Where each unit of a section is, by the length that it begins with."""
    start = 0
    while start < len(section):
        (length,) = struct.unpack_from("<I", section, start)
        yield range(start, start + 4 + length)
        start += 4 + length
