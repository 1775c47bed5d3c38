"""What the server must know of one test executable that is fuzzed."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from fuzzserver.wire.abi import coverage_file_name

__all__ = ["FuzzRunStep", "SourcePath"]


@dataclass(frozen=True, slots=True, order=True)
class SourcePath:
    """A source file as a root folder and the path below it.

    The split matters in ``sources.tar``, where both parts are stored apart when they are long.
    """

    root_dir: str
    sub_path: str
    base_dir: str = ""
    """The folder that a relative ``root_dir`` is relative to. The name does not tell it."""

    def __str__(self) -> str:
        """The name, by which the page finds the file."""
        return f"{self.root_dir}/{self.sub_path}"

    @property
    def location(self) -> str:
        """Where the file is."""
        return os.path.join(self.base_dir, self.root_dir, self.sub_path)


@dataclass(frozen=True, slots=True)
class FuzzRunStep:
    """A test executable built in fuzz mode (Zig: the parts of ``Step.Run`` that the server uses)."""

    name: str
    """For messages to people."""

    rebuilt_executable: Path

    cache_root: Path | None = None
    """The ``.zig-cache`` folder that the fuzzer writes to; coverage files lie in its ``v/``."""

    inputs: tuple[SourcePath, ...] | None = field(default=None, repr=False)
    """The files it was compiled from; None to take those that its debug info names."""

    coverage_file: Path | None = None
    """The coverage file, where it does not lie in ``cache_root`` under its own name."""

    tables_dir: Path | None = field(default=None, repr=False)
    """Where finished tables wait for the next look at the same executable; by default in ``cache_root``."""

    key: str = ""
    """Builds of the same target have the same key; the newest of them is what is shown.

    By default, an executable is a target of its own.
    """

    def coverage_file_path(self, coverage_id: int, cache_root: Path | None = None) -> Path:
        """Where the coverage file with this id is, for a worker that uses ``cache_root``."""
        if self.coverage_file is not None:
            return self.coverage_file
        folder = cache_root or self.cache_root
        if folder is None:
            raise ValueError(f"step '{self.name}' has neither cache_root nor coverage_file")
        return folder / "v" / coverage_file_name(coverage_id)
