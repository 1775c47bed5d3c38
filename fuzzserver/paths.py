"""Where our own files are: the page, the example, the cache."""

import os
from pathlib import Path

from fuzzserver.errors import InputError

__all__ = ["default_cache_dir", "example", "lib_dir"]

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


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/fuzzserver``, else ``~/.cache/fuzzserver``; InputError without a home folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "fuzzserver"
    try:
        return Path.home() / ".cache" / "fuzzserver"
    except RuntimeError as error:
        raise InputError("there is no home folder to keep compiled files in; name a cache folder") from error
