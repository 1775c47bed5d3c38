"""Others who find source locations in debug info: how long they take for all points of a target."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.bench.big_target import Target
from tests.bench.row import Settings
from tests.support_native import HERE, build_exe

ORACLE = HERE / "oracle.zig"


@dataclass(frozen=True)
class Timed:
    """How many seconds something took."""

    seconds: float
    """From opening the files until all points are known. A program that does not tell: as below."""
    whole: float
    """From the start of its process to the end."""


class Peer(Protocol):
    """Somebody who finds them."""

    name: str

    def time(self, target: Target) -> Timed:
        """Have it find the source locations of all points."""


class Oracle:
    """Zig's own code, in a program that does nothing else."""

    def __init__(self, settings: Settings, mode: str) -> None:
        self.name = f"Zig {mode}"
        self._executable = build_exe(settings.client, ORACLE, f"-O{mode}")

    def time(self, target: Target) -> Timed:
        """Have it make the tables of a target."""
        started = time.perf_counter()
        told = self._run(target, subprocess.DEVNULL).stderr
        return Timed(int(told) / 1e9, time.perf_counter() - started)

    def tables(self, target: Target) -> bytes:
        """What it makes of a target."""
        return self._run(target, subprocess.PIPE).stdout

    def _run(self, target: Target, stdout: int) -> subprocess.CompletedProcess[bytes]:
        command = [self._executable, target.executable, target.coverage_file]
        return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, check=True)


class Symbolizer:
    """A program that is told addresses on stdin, and tells of each."""

    def __init__(self, settings: Settings, name: str, *options: str) -> None:
        self.name = name
        self._command = (name, *options, "-e")
        self._folder = settings.folder

    def time(self, target: Target) -> Timed:
        """Tell it all points in the order of the coverage file."""
        with addresses(target, self._folder).open("rb") as stdin:
            started = time.perf_counter()
            subprocess.run(
                [*self._command, target.executable], stdin=stdin, stdout=subprocess.DEVNULL, check=True
            )
            whole = time.perf_counter() - started
        return Timed(whole, whole)


class Decoder:
    """That of pyelftools."""

    name = "pyelftools"

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.folder

    def time(self, target: Target) -> Timed:
        """Have it decode all; the start of Python does not count."""
        command = [sys.executable, "-m", "tests.bench.decoder", target.executable]
        with addresses(target, self._folder).open("rb") as stdin:
            started = time.perf_counter()
            told = subprocess.run(command, stdin=stdin, stdout=subprocess.PIPE, check=True).stdout
            return Timed(float(told), time.perf_counter() - started)


def addresses(target: Target, folder: Path) -> Path:
    """A file with the addresses of all points, a line each."""
    path = folder / f"addresses-{target.coverage_file.name}"
    if not path.exists():
        path.write_text("".join(f"{pc:#x}\n" for pc in target.pcs))
    return path
