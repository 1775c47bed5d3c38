"""From a root source file to its test executable (Zig: ``rebuildInFuzzMode``)."""

import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from fuzzserver.errors import InputError
from fuzzserver.step import SourcePath
from fuzzserver.zig.compile_client import ZigCompileClient

__all__ = ["FuzzRoot", "TestExecutable", "build_tests"]

log = logging.getLogger(__name__)

TEST_BIN_NAME = "test"
HEARTBEAT = 10.0
"""Seconds between two lines that say that a compile goes on."""


@dataclass(frozen=True, slots=True)
class FuzzRoot:
    """A source file with tests, and the project that it belongs to."""

    path: Path
    project: Path
    """Where compiler and tests run, and whose ``.zig-cache`` they use."""

    @classmethod
    def find(cls, path: Path) -> "FuzzRoot":
        """The project is the nearest folder above with a ``build.zig``, else the file's own folder.

        InputError if there is no such file.
        """
        if not path.is_file():
            raise InputError(
                f"root source file '{path}' {'is no file' if path.exists() else 'does not exist'}"
            )
        # Not ``absolute``, which keeps ".." and with it folders that are not above the file.
        path = Path(os.path.abspath(path))
        above = (folder for folder in path.parents if (folder / "build.zig").is_file())
        return cls(path, next(above, path.parent))

    @property
    def cache_root(self) -> Path:
        """The project's ``.zig-cache``."""
        return self.project / ".zig-cache"


@dataclass(frozen=True, slots=True)
class TestExecutable:
    """A built test executable and the files that it was compiled from."""

    path: Path
    inputs: tuple[SourcePath, ...]


def build_tests(client: ZigCompileClient, root: FuzzRoot, *, fuzz: bool) -> TestExecutable:
    """Compile the tests of ``root``, instrumented if ``fuzz``. Raises a ZigError."""
    what = f"the tests of {root.path.name}{' in fuzz mode' if fuzz else ''}"
    log.info("compiling %s", what)
    started = time.monotonic()
    with _Heartbeat(what):
        result = client.compile(
            [
                "test",
                *(["-ffuzz"] if fuzz else []),
                f"-Mroot={root.path}",
                *("--cache-dir", str(root.cache_root)),
                *("--global-cache-dir", str(client.global_cache_dir)),
                *("--name", TEST_BIN_NAME),
            ],
            root.cache_root,
            root.project,
        )
    log.info("compiled %s in %.1f s", what, time.monotonic() - started)
    return TestExecutable(result.output_dir / TEST_BIN_NAME, result.inputs)


class _Heartbeat:
    """Says every few seconds that the work goes on: the first compile may take a minute."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def _run(self) -> None:
        started = time.monotonic()
        while not self._done.wait(HEARTBEAT):
            log.info("still compiling %s after %.0f s", self._what, time.monotonic() - started)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
