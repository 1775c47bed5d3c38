"""Servers to try: the program as users start it, on fuzzers that really fuzz."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuzzserver import paths
from tests.soak.row import Settings
from tests.support_program import Program, own_page


@contextmanager
def fuzzing(settings: Settings, name: str, *args: object) -> Iterator[Program]:
    """The program, fuzzing a copy of the example below its folder."""
    folder = settings.folder / name
    project = folder / "project"
    project.mkdir(parents=True)
    root = Path(shutil.copy2(paths.example(), project))
    page = own_page(folder / "lib")
    program = Program(folder, "run", root, "--cache-dir", settings.zig_cache, "--lib-dir", page, *args)
    try:
        yield program
    finally:
        program.close()
