"""How one test executable is compiled: from a root source file, from a project, or from storage."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fuzzserver.errors import InputError

__all__ = ["TestCommand"]

MAX_SLUG = 60
"""Characters of a name that its key repeats: the end of a path says most."""


@dataclass(frozen=True, slots=True)
class TestCommand:
    """What ``zig test`` is told, where, and with which caches."""

    __test__: ClassVar[bool] = False  # The name begins with "Test", but it is no test class for pytest.

    name: str
    """For people: the root source file, relative to the project. Unique among the commands of a project."""

    args: tuple[str, ...]
    """What follows ``zig test``, without the caches, the name of the executable, the test runner and what
    makes it a fuzzing build: those are added when it is built."""

    project: Path
    """Where compiler and tests run: the folder of ``build.zig``. Absolute."""

    cache_root: Path
    """The project's ``.zig-cache``. Absolute."""

    global_cache_dir: Path | None = None
    """What projects share, packages among it. None: the one of our own compiles."""

    @classmethod
    def of_root(cls, path: Path) -> "TestCommand":
        """The tests of one source file that needs no modules but ``std``.

        The project is the nearest folder above with a ``build.zig``, else the file's own folder.
        InputError if there is no such file.
        """
        if not path.is_file():
            raise InputError(
                f"root source file '{path}' {'is no file' if path.exists() else 'does not exist'}"
            )
        # Not ``absolute``, which keeps ".." and with it folders that are not above the file.
        path = Path(os.path.abspath(path))
        above = (folder for folder in path.parents if (folder / "build.zig").is_file())
        project = next(above, path.parent)
        return cls(str(path.relative_to(project)), (f"-Mroot={path}",), project, project / ".zig-cache")

    @property
    def key(self) -> str:
        """A folder name that stands for ``name``: readable, and no two names have the same."""
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", self.name)[-MAX_SLUG:].strip("-.")
        digest = hashlib.sha256(os.fsencode(self.name)).hexdigest()[:8]
        return f"{slug}-{digest}" if slug else digest

    @property
    def roots(self) -> list[Path]:
        """The root source files of its modules."""
        return [
            self.project / arg.partition("=")[2] for arg in self.args if arg.startswith("-M") and "=" in arg
        ]

    def to_json(self) -> dict[str, object]:
        """A form that ``json`` can write, for ``from_json``."""
        return {
            "name": self.name,
            "args": list(self.args),
            "project": str(self.project),
            "cache_root": str(self.cache_root),
            "global_cache_dir": None if self.global_cache_dir is None else str(self.global_cache_dir),
        }

    @classmethod
    def from_json(cls, data: object) -> "TestCommand":
        """What ``to_json`` gave. InputError if it is not that."""
        match data:
            case {
                "name": str(name),
                "args": list(args),
                "project": str(project),
                "cache_root": str(cache_root),
                "global_cache_dir": (str() | None) as global_cache_dir,
            } if all(isinstance(arg, str) for arg in args) and all(
                os.path.isabs(path) for path in (project, cache_root, global_cache_dir or "/")
            ):
                return cls(
                    name,
                    tuple(args),
                    Path(project),
                    Path(cache_root),
                    None if global_cache_dir is None else Path(global_cache_dir),
                )
        raise InputError(f"this is no stored test command: {str(data)[:200]}")
