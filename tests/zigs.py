"""A compiler of each release, for what must hold with all of them.

Run as a program, it fetches those that tests will want, so that no test waits for that:
``python -m tests.zigs``, or with ``--all-zigs`` as ``scripts/test`` takes it.
"""

import functools
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuzzserver.zig.installation import Zig, find_zig
from tests.projects import locked
from tests.support_zig_cli import BUILD_WAIT

VERSIONS = ("0.14.0", "0.14.1", "0.15.2", "0.16.0", "0.17.0")
ALWAYS = ("0.14.1", "0.17.0")
"""The pinned version, which the environment has anyway, and the newest."""

FOLDER = Path(__file__).resolve().parent.parent / ".pytest_cache" / "d"
"""Outlives the run, as what ``tests/conftest.py`` keeps there."""

every_zig = pytest.mark.parametrize(
    "version",
    [pytest.param(version, marks=() if version in ALWAYS else pytest.mark.all_zigs) for version in VERSIONS],
)
"""Calls a test with each ``version``: with those that are not in ALWAYS only with ``--all-zigs``."""


@functools.cache
def zig_of(version: str) -> Zig:
    """The compiler of that version: the one of the environment, else one that is fetched once."""
    try:
        if importlib.metadata.version("ziglang") == version:
            return Zig(find_zig())
    except importlib.metadata.PackageNotFoundError:
        pass
    folder = FOLDER / "zigs" / version
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f"{version}.lock")):
        if not folder.exists():
            _fetch(version, folder)
    return Zig(folder / "ziglang" / "zig")


def _fetch(version: str, folder: Path) -> None:
    """The wheel of that version, unpacked in ``folder``, which appears when it is whole."""
    part = folder.with_name(f"{version}.part")
    shutil.rmtree(part, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--target", str(part), f"ziglang=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"cannot fetch Zig {version}: {' '.join(command)}\n{done.stderr.strip()}")
    part.rename(folder)


@contextmanager
def zig_init_project(version: str) -> Iterator[Path]:
    """What ``zig init`` of that version makes, unchanged, and for one test at a time.

    It stays where it is, so that what one test has built is built for the next; what was changed and fuzzed
    there is forgotten before each. The compiler's global cache is that of the environment, as for all tests.
    """
    folder = FOLDER / "work" / "every-zig" / version
    # The name of the folder becomes that of the project.
    made, project = folder / "made" / "fresh", folder / "fresh"
    made.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        if not (made / "src" / "root.zig").exists():
            # Since 0.17, this compiles what "zig build" needs, too.
            argv = [zig_of(version).path, "init"]
            subprocess.run(argv, cwd=made, capture_output=True, check=True, timeout=BUILD_WAIT)
        shutil.copytree(made, project, dirs_exist_ok=True)
        for name in ("fuzzserver", "f", "v"):
            shutil.rmtree(project / ".zig-cache" / name, ignore_errors=True)
        yield project


if __name__ == "__main__":
    for wanted in VERSIONS if "--all-zigs" in sys.argv else ALWAYS:
        print(f"Zig {zig_of(wanted).version}: {os.path.relpath(zig_of(wanted).path)}", flush=True)
