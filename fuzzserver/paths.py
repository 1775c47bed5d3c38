"""Where our own files are: the page, the example, the test runner, the cache."""

import os
from pathlib import Path

from fuzzserver.errors import InputError

__all__ = ["data_folder", "default_cache_dir", "example", "findings_folder", "lib_dir", "repro_runner"]

_PACKAGE = Path(__file__).resolve().parent


def lib_dir() -> Path:
    """The folder whose ``fuzzer/web/`` holds the page.

    An installed package has it inside; in a checkout it lies beside the package.
    """
    installed = _PACKAGE / "lib"
    return installed if installed.is_dir() else _PACKAGE.parent / "lib"


def example() -> Path:
    """The fuzz tests that ship with the package."""
    return _PACKAGE / "example" / "fuzz_example.zig"


def repro_runner() -> Path:
    """The test runner, in Zig, that runs one fuzz test on one input."""
    return _PACKAGE / "zig" / "repro_runner.zig"


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/fuzzserver``, else ``~/.cache/fuzzserver``; InputError without a home folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "fuzzserver"
    try:
        return Path.home() / ".cache" / "fuzzserver"
    except RuntimeError as error:
        raise InputError("there is no home folder to keep compiled files in; name a cache folder") from error


def data_folder(project_cache: Path) -> Path:
    """What we keep of a project, in its ``.zig-cache``."""
    return project_cache / "fuzzserver"


def findings_folder(project_cache: Path) -> Path:
    """Where the findings of a project are kept."""
    return data_folder(project_cache) / "findings"
