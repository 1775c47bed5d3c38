"""What a Zig cache folder tells of fuzzing: which coverage file is whose.

A cache holds thousands of files and is looked at each second, so a look opens only what is new: a file
is remembered by its place, inode, size and time. A coverage file and an executable are a pair if they
list the same PCs. (Zig's own server need not look: its build runner knows what it has started.)
"""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from fuzzserver import paths
from fuzzserver.coverage.executable import Executable
from fuzzserver.coverage.info import compilation_folder
from fuzzserver.coverage.seen_pcs import SeenPcs
from fuzzserver.errors import CoverageFileError, ExecutableError, InputError
from fuzzserver.wire.release import release_of
from fuzzserver.wire.wyhash import wyhash

__all__ = [
    "CacheLook",
    "CoverageFile",
    "FuzzExecutable",
    "Pair",
    "Problem",
    "Signature",
    "ZigCache",
    "find_cache",
]

log = logging.getLogger(__name__)

SETTLED = 2 * 10**9
"""Nanoseconds after which a file that is written once more has another time, on every file system."""

_COVERAGE_NAME = re.compile(r"[0-9a-f]{16}")
_ROOT_TEST = re.compile(r"([^.]+)\.(?:decl)?test[._]")
"""A test in a file beside the root source file, or in that."""

_NO_PCS = {
    "0.14": "0.14 instruments unless the build says '.use_llvm = false' or '-fno-llvm': remove that",
    "0.15": "0.15 builds Debug without LLVM, which alone instruments: set '.use_llvm = true' in addTest, "
    "or build with -Doptimize=ReleaseSafe",
    "0.16": "0.16 does not compile fuzz tests in Debug: build with -Doptimize=ReleaseSafe, or set "
    "'.use_llvm = true' in addTest and '.error_tracing = false' in its module",
    "0.17": "0.17 builds Debug without LLVM, which alone instruments: set '.use_llvm = true' in addTest, "
    "or build with -Doptimize=ReleaseSafe",
}
"""By release of Zig, why there is no instrumentation, and what to do about it."""


class Signature(NamedTuple):
    """What of a file changes with its content."""

    device: int
    inode: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class FuzzExecutable:
    """An executable built in fuzz mode."""

    path: Path
    signature: Signature
    pcs_len: int
    """0 if it is not instrumented."""
    digest: bytes
    """Of its PC table."""
    is_pie: bool


@dataclass(frozen=True, slots=True)
class CoverageFile:
    """A coverage file as it was at the last look."""

    path: Path
    coverage_id: int
    """As its name tells."""
    identity: tuple[int, int]
    """Differs from that of a file that takes its place."""
    mtime_ns: int
    pcs_len: int
    n_runs: int
    digest: bytes
    """Of its PC table."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A coverage file and the executable that writes it; the newest one, if there are copies."""

    coverage_file: CoverageFile
    executable: FuzzExecutable
    name: str
    """For people: the root source file, relative to the project if it is in it."""
    zig_version: str | None
    fuzz_tests: dict[str, int]
    """Name and address of the tests that have been fuzzed in this cache."""


class Problem(NamedTuple):
    """A coverage file that cannot be shown."""

    mtime_ns: int
    """When it was last written."""
    text: str
    """Why, and what to do about it: a sentence."""


@dataclass(frozen=True, slots=True)
class CacheLook:
    """What there is in a cache at one time."""

    pairs: tuple[Pair, ...]
    """The one whose coverage file was written last is the first."""
    problems: tuple[Problem, ...]
    """One for each coverage file that cannot be shown, and did not change since the last look."""
    crash_mtime_ns: int | None
    """When ``zig build`` last kept the input of a crash in ``f/crash``, as it does since Zig 0.16."""


@dataclass(frozen=True, slots=True)
class _Details:
    """What is read of an executable only once it has a coverage file."""

    name: str
    zig_version: str | None
    tests: dict[str, int]
    folders: dict[str, str]
    """By test, the name that Zig 0.16 and later give the folder of its corpus."""


def find_cache(path: Path) -> Path:
    """The cache folder that ``path`` means: itself, or the ``.zig-cache`` of a project.

    InputError if there is no such folder.
    """
    if not path.is_dir():
        raise InputError(f"cache folder '{path}' {'is no folder' if path.exists() else 'does not exist'}")
    path = Path(os.path.abspath(path))
    inside = path / ".zig-cache"
    if inside.is_dir() or (path / "build.zig").is_file():
        path = inside
    if not ((path / "o").is_dir() or (path / "v").is_dir()):
        log.info("'%s' has neither 'o/' nor 'v/': nothing was built there yet", path)
    return path


class ZigCache:
    """One cache folder, and what was seen in it before."""

    def __init__(self, path: Path) -> None:
        """``path`` as ``find_cache`` gives it; it need not be there yet."""
        self.path = path
        self.crash_input = path / "f" / "crash"
        self._executables: dict[str, tuple[Signature, FuzzExecutable | None]] = {}
        self._coverage_files: dict[str, CoverageFile] = {}
        self._details: dict[FuzzExecutable, _Details] = {}
        self._unpaired: dict[str, bytes] = {}
        """Digests of the coverage files that had no executable at the last look, by name."""

    def look(self) -> CacheLook:
        """Look once more. Never raises because of what is there, or is gone meanwhile."""
        executables = self._look_for_executables()
        by_digest = {
            each.digest: each for each in sorted(executables, key=lambda each: each.signature.mtime_ns)
        }
        corpora = {entry.name for entry in _entries(self.path / "f")}
        files, problems = self._look_for_coverage_files(by_digest)
        pairs = []
        unpaired = {}
        for file in sorted(files, key=lambda file: file.mtime_ns, reverse=True):
            executable = by_digest.get(file.digest) if file.pcs_len else None
            if executable is not None:
                pairs.append(self._pair(file, executable, corpora))
                continue
            unpaired[file.path.name] = file.digest
            # A file that is just being filled has other PCs the next time.
            if self._unpaired.get(file.path.name) == file.digest:
                problems.append(Problem(file.mtime_ns, self._why_unpaired(file, executables)))
        self._unpaired = unpaired
        self._details = {key: self._details[key] for key in executables if key in self._details}
        return CacheLook(tuple(pairs), tuple(problems), self._crash_mtime_ns())

    def _crash_mtime_ns(self) -> int | None:
        try:
            return self.crash_input.stat().st_mtime_ns
        except OSError:
            return None

    def session_pairs(self) -> list[list[Pair]]:
        """What sessions of our own have left: for each target its newest build, a pair for each worker."""
        by_digest = {each.digest: each for each in self._look_for_executables()}
        found = []
        for target in _entries(paths.data_folder(self.path)):
            pairs = [
                self._pair_of_worker(file, by_digest[file.digest])
                for worker in _worker_folders(target.path)
                for file in _readable_coverage_files(worker / "v")
                if file.digest in by_digest
            ]
            if pairs:
                newest = max(pairs, key=lambda pair: pair.coverage_file.mtime_ns)
                found.append([pair for pair in pairs if pair.executable == newest.executable])
        return found

    def _pair_of_worker(self, file: CoverageFile, executable: FuzzExecutable) -> Pair:
        details = self._read_details(executable)
        corpora = file.path.parent.parent / "f"
        tests = {
            test: addr
            for test, addr in details.tests.items()
            if (corpora / test).is_dir() or (corpora / details.folders[test]).is_dir()
        }
        return Pair(file, executable, details.name, details.zig_version, tests)

    def _look_for_executables(self) -> list[FuzzExecutable]:
        """All fuzz executables at ``o/*/*``."""
        remembered = {}
        found = []
        now = time.time_ns()
        for folder in _entries(self.path / "o"):
            for entry in _entries(folder.path):
                status = _regular(entry)
                if status is None or not status.st_mode & stat.S_IXUSR:
                    continue
                signature = Signature(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
                known = self._executables.get(entry.path)
                if known is None or known[0] != signature:
                    known = signature, _read_executable(Path(entry.path), signature)
                if abs(now - signature.mtime_ns) > SETTLED:
                    remembered[entry.path] = known
                if known[1] is not None:
                    found.append(known[1])
        self._executables = remembered
        return found

    def _look_for_coverage_files(
        self, executables: dict[bytes, FuzzExecutable]
    ) -> tuple[list[CoverageFile], list[Problem]]:
        """All coverage files at ``v/*``, and what is wrong with others that look like one."""
        found = []
        problems = []
        for entry in _entries(self.path / "v"):
            status = _regular(entry)
            if status is None or _COVERAGE_NAME.fullmatch(entry.name) is None:
                continue
            if status.st_size == 0:  # A fuzzer is creating it.
                continue
            known = self._coverage_files.get(entry.name)
            # The PCs of a file that has its executable stay as they are.
            paired = known if known is not None and known.digest in executables else None
            try:
                found.append(_read_coverage_file(Path(entry.path), status.st_mtime_ns, paired))
            except CoverageFileError as error:
                if abs(time.time_ns() - status.st_mtime_ns) > SETTLED:
                    problems.append(Problem(status.st_mtime_ns, str(error)))
        self._coverage_files = {file.path.name: file for file in found}
        return found, problems

    def _pair(self, file: CoverageFile, executable: FuzzExecutable, corpora: set[str]) -> Pair:
        details = self._details.get(executable)
        if details is None:
            details = self._details[executable] = self._read_details(executable)
        fuzz_tests = {
            test: addr
            for test, addr in details.tests.items()
            if self._has_corpus(test, corpora) or details.folders[test] in corpora
        }
        return Pair(file, executable, details.name, details.zig_version, fuzz_tests)

    def _has_corpus(self, test: str, corpora: set[str]) -> bool:
        """Whether Zig 0.14 or 0.15 has fuzzed ``test``: the folder has its name, slashes and all."""
        first, slash, _ = test.partition("/")
        return first in corpora and (not slash or os.path.isdir(self.path / "f" / test))

    def _read_details(self, executable: FuzzExecutable) -> _Details:
        path = executable.path
        default = f"o/{path.parent.name[:8]}/{path.name}"
        try:
            with Executable(path) as opened:
                tests = opened.test_symbols()
                folder = compilation_folder(opened, min(tests.values())) if tests else None
                root = _root_source(folder, tests)
                return _Details(
                    default if root is None else self._in_project(root),
                    opened.zig_version(),
                    tests,
                    {test: wyhash(0, os.fsencode(test)).to_bytes(8, "little").hex() for test in tests},
                )
        except ExecutableError as error:  # It has its PC table, so little is lost.
            log.warning("%s", error)
            return _Details(default, None, {}, {})

    def _in_project(self, path: str) -> str:
        """``path`` relative to the project that the cache is of, if it is in it."""
        project = os.path.realpath(self.path.parent) + os.sep
        return os.path.realpath(path).removeprefix(project)

    def _why_unpaired(self, file: CoverageFile, executables: Iterable[FuzzExecutable]) -> str:
        """A sentence about a coverage file without executable."""
        if file.pcs_len == 0:
            return _why_no_pcs(file, executables)
        pies = [each for each in executables if each.is_pie and each.pcs_len == file.pcs_len]
        if pies:
            return (
                f"coverage file '{file.path}' has no executable: '{pies[0].path}' has as many PCs, but is "
                "position-independent, and Zig before 0.16 then writes addresses that hold for one run only; "
                "build it without -fPIE"
            )
        return (
            f"coverage file '{file.path}' has no executable: none under 'o/' has its {file.pcs_len} PCs; "
            "it was deleted, or built into another cache"
        )


def _worker_folders(target: str) -> Iterator[Path]:
    """The cache folder of each worker of a target. Since Zig 0.16, instances have theirs in a common one."""
    for worker in _entries(target):
        yield Path(worker.path)
        for entry in _entries(worker.path):
            if entry.name.startswith("instance"):
                yield Path(entry.path)


def _why_no_pcs(file: CoverageFile, executables: Iterable[FuzzExecutable]) -> str:
    """A sentence about the coverage file of executables without instrumentation."""
    bare = [each for each in executables if each.pcs_len == 0]
    if not bare:
        return f"coverage file '{file.path}' lists no PCs. Zig {'; '.join(_NO_PCS.values())}"
    newest = max(bare, key=lambda each: each.signature.mtime_ns)
    release = release_of(_zig_version(newest.path) or "")
    advice = release and _NO_PCS[release.name]
    return (
        f"coverage file '{file.path}' lists no PCs: '{newest.path}' was built in fuzz mode, but without "
        f"instrumentation. Zig {advice or '; '.join(_NO_PCS.values())}"
    )


def _zig_version(path: Path) -> str | None:
    try:
        with Executable(path) as executable:
            return executable.zig_version()
    except ExecutableError:
        return None


def _read_executable(path: Path, signature: Signature) -> FuzzExecutable | None:
    """None if it is no fuzz executable, or nothing that can be read."""
    try:
        with Executable(path) as executable:
            pcs = executable.pc_addrs()
            if pcs is None and not executable.has_fuzzer:
                return None
            pcs = pcs or array("Q")
            return FuzzExecutable(path, signature, len(pcs), _digest(pcs), executable.is_pie)
    except ExecutableError as error:
        log.debug("%s", error)
        return None


def _read_coverage_file(path: Path, mtime_ns: int, known: CoverageFile | None) -> CoverageFile:
    """CoverageFileError if it cannot be read. The PCs are not read again if it is still ``known``."""
    with closing(SeenPcs(path)) as seen_pcs:
        header = seen_pcs.header
        if known is None or (known.identity, known.pcs_len) != (seen_pcs.identity, header.pcs_len):
            digest = _digest(seen_pcs.pc_addrs())
        else:
            digest = known.digest
        coverage_id = int.from_bytes(bytes.fromhex(path.name), "little")
        return CoverageFile(
            path, coverage_id, seen_pcs.identity, mtime_ns, header.pcs_len, header.n_runs, digest
        )


def _readable_coverage_files(folder: Path) -> Iterator[CoverageFile]:
    for entry in _entries(folder):
        status = _regular(entry)
        if status is not None and status.st_size and _COVERAGE_NAME.fullmatch(entry.name) is not None:
            try:
                yield _read_coverage_file(Path(entry.path), status.st_mtime_ns, None)
            except CoverageFileError as error:
                log.warning("%s", error)


def _digest(pcs: array[int]) -> bytes:
    return blake2b(pcs).digest()


def _root_source(folder: str | None, tests: Iterable[str]) -> str | None:
    """The root source file, which debug info does not name: where it is, and whose tests there are.

    It may be one of several files in its folder. The one with a test without name is it most likely, for
    such a test is how the others' tests are found.
    """
    if folder is None:
        return None
    ranked = sorted(
        (test[match.end() - 1] != "_", match[1]) for test in tests if (match := _ROOT_TEST.match(test))
    )
    return os.path.join(folder, f"{ranked[0][1]}.zig") if ranked else None


def _entries(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    """What is in a folder; nothing, if it is none or cannot be read."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        log.debug("cannot list '%s': %s", folder, error)


def _regular(entry: os.DirEntry[str]) -> os.stat_result | None:
    """The status of a regular file, through links; None for everything else, and what is gone."""
    try:
        status = entry.stat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None
