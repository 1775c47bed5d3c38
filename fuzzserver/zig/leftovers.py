"""What a compiler that is ended leaves behind: folders in its caches' ``tmp``, one for each thing it makes.

A compiler that ends by itself has moved them to where they belong. Nobody else would ever remove them, and
other compilers may use the same cache, so only those are removed that the ended one had open.
"""

import os
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path

from fuzzserver.zig.process import PipedChild

__all__ = ["Leftovers"]


class Leftovers:
    """Those of one compiler. ``note`` may be called from any thread."""

    def __init__(self, cache_dirs: Iterable[Path]) -> None:
        self._folders = {os.path.join(os.path.realpath(cache_dir), "tmp") for cache_dir in cache_dirs}
        self._found: set[str] = set()

    def note(self, child: PipedChild) -> None:
        """See what it has open, just before it is ended: it is paused, to make no more."""
        child.kill(signal.SIGSTOP)
        handles = f"/proc/{child.pid}/fd"
        try:
            names = os.listdir(handles)
        except OSError:
            return  # It is gone.
        for name in names:
            try:
                path = os.readlink(os.path.join(handles, name))
            except OSError:
                continue  # It was closed just now.
            for folder in self._folders:
                if path.startswith(folder + os.sep):
                    self._found.add(os.path.join(folder, path[len(folder) + 1 :].partition(os.sep)[0]))

    def remove(self) -> None:
        """Remove what was noted, once the compiler is gone."""
        for path in self._found:
            shutil.rmtree(path, ignore_errors=True)
