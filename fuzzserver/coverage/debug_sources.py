"""Which sources an executable has: as the compiler tells, and as its debug info does."""

import logging
import os
import threading
from pathlib import Path

from fuzzserver.coverage.executable import Executable
from fuzzserver.coverage.info import Info
from fuzzserver.errors import InputError
from fuzzserver.freshness import Stamp, stamp_of
from fuzzserver.step import FuzzRunStep, SourcePath

__all__ = ["DebugSources", "relative_files"]

log = logging.getLogger(__name__)


class DebugSources:
    """What was read of executables, for as long as they are as they were. May be used from any thread."""

    def __init__(self) -> None:
        # Guards ``_named``: all names in the debug info of an executable, and of which version of it.
        self._lock = threading.Lock()
        self._named: dict[Path, tuple[Stamp | None, list[SourcePath]]] = {}

    def of(self, step: FuzzRunStep) -> list[SourcePath]:
        """The step's sources: what it was compiled from, if that was told, else what its debug info names.

        In the first case, a file comes twice if the debug info, and with it the tables, name it by a way
        that is not the straight one: Zig 0.17 goes to a package outside of the project through "..".
        """
        try:
            named = self._all(step.rebuilt_executable)
        except InputError as error:
            if step.inputs is None:
                log.error("no sources: %s", error)
            named = []
        if step.inputs is None:
            return _there(named, step.rebuilt_executable)
        told = {path.location for path in step.inputs}
        straight = ((path, os.path.normpath(path.location)) for path in named)
        return [*step.inputs, *(path for path, way in straight if way != path.location and way in told)]

    def _all(self, executable: Path) -> list[SourcePath]:
        stamp = stamp_of(executable)
        with self._lock:
            known = self._named.get(executable)
        if known is None or known[0] != stamp:
            known = stamp, _named_sources(executable)
            with self._lock:
                self._named[executable] = known
        return known[1]


def _there(named: list[SourcePath], executable: Path) -> list[SourcePath]:
    there = [path for path in named if os.path.isfile(path.location)]
    if len(there) < len(named):
        log.info(
            "%d of %d source files that '%s' names are not on this machine",
            len(named) - len(there),
            len(named),
            executable,
        )
    return there


def _named_sources(path: Path) -> list[SourcePath]:
    with Executable(path) as executable:
        return Info(executable).source_paths()


def relative_files(path: Path) -> dict[str, str]:
    """Where the files are whose names are relative to the folder in which they were compiled, by name."""
    try:
        paths = _named_sources(path)
    except InputError:
        return {}  # It was readable when its map was made, and is gone since.
    found: dict[str, str] = {}
    for each in paths:
        if each.base_dir and os.path.isfile(each.location):
            found.setdefault(str(each), each.location)
    return found
