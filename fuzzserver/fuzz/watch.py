"""Has a source file changed since it was compiled, or is gone what was made of it, or does somebody ask?

Files are looked at every half second. That is cheap (some hundred calls of stat), needs no system call
that Python lacks, and works on network file systems, too.
"""

import os
import threading
import time
from collections.abc import Iterable

from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.step import FuzzRunStep

__all__ = ["SourceWatch"]

INTERVAL = 0.5
SUFFIXES = (".zig", "build.zig.zon", ".c", ".h", ".cc", ".cpp", ".hpp", ".s", ".S")

Stamp = tuple[int, int, int]


class SourceWatch:
    """The source files of a project as they were compiled.

    That is what was compiled, and all source files in the same folders, for a file that did not exist may
    be what mends a build. Caches, and what lies outside the project, are left out.
    """

    def __init__(
        self,
        commands: Iterable[TestCommand],
        steps: Iterable[FuzzRunStep],
        built: float,
        asked: threading.Event,
        expect_executables: bool = False,
    ) -> None:
        """``steps`` are what was built; of commands that could not be, only the root source files are known.

        ``built``: when the compile began, in seconds since 1970. What changed since then is a change.
        ``asked``: set by who wants a build though nothing has changed. Without commands, nobody else does.
        ``expect_executables``: whether it is a change that an executable is gone.
        """
        commands, steps = list(commands), list(steps)
        self._files: set[str] = set()
        roots = [
            f"{os.path.realpath(project)}{os.sep}" for project in {command.project for command in commands}
        ]
        self._folders = {root.rstrip(os.sep) or os.sep for root in roots}
        sources = [str(path) for command in commands for path in command.roots]
        sources += [source.location for step in steps for source in step.inputs or ()]
        for path in map(os.path.realpath, sources):
            folder = os.path.dirname(path)
            inside = (folder + os.sep).startswith(tuple(roots))
            if inside and ".zig-cache" not in folder.split(os.sep):
                self._folders.add(folder)
                self._files.add(path)
        # A cache that is cleared takes the executables along, which only a build brings back.
        self._asked = asked
        self.why = ""
        """What ``wait`` has found."""
        self._executables = [step.rebuilt_executable for step in steps] if expect_executables else []
        now = time.time()
        self._stamps = {
            path: stamp
            for path, stamp in self._look().items()
            # Clocks of other machines may be ahead; and what tests write is no reason to build again.
            if path not in self._files or not built * 1e9 <= stamp[0] <= now * 1e9
        }

    @property
    def executables_gone(self) -> bool:
        """Whether an executable that is expected is gone."""
        return not all(path.exists() for path in self._executables)

    def wait(self, stop: threading.Event) -> bool:
        """Wait for a change, and until nothing changes any more; False if ``stop`` is set before."""
        before = self._look()
        while not stop.wait(INTERVAL):
            now = self._look()
            if self.executables_gone:
                self.why = "executables are gone"
            elif self._asked.is_set():
                self.why = "a viewer asks for it"
            # An editor or a version control system may be in the middle of writing several files.
            elif now != self._stamps and now == before:
                self.why = "sources have changed"
            if self.why:
                self._asked.clear()
                return True
            before = now
        return False

    def _look(self) -> dict[str, Stamp]:
        stamps: dict[str, Stamp] = {}
        for folder in self._folders:
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        is_source = entry.name.endswith(SUFFIXES) or entry.path in self._files
                        if is_source and entry.is_file():
                            stat = entry.stat()
                            stamps[entry.path] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            except OSError:
                pass  # A folder that vanishes is a change: its files are missing.
        return stamps
