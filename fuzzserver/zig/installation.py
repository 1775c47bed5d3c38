"""Where the Zig compiler is, and what it says of itself."""

import importlib.util
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fuzzserver.errors import ZigNotFound, ZigProcessFailed, ZigTimeout, ZigUnsupported
from fuzzserver.zig.process import ChildTimeout, PipedChild, describe_exit

__all__ = ["Zig", "find_zig"]

SUPPORTED = "0.14."
HOW_TO_GET = "pip install 'fuzzserver[zig]' brings one, or name one with --zig PATH"


def find_zig(path: str | None = None) -> Path:
    """The compiler at ``path``, else that of the ``ziglang`` package, else ``zig`` on PATH.

    ZigNotFound if there is none, or if it cannot be executed.
    """
    if path is not None:
        found = shutil.which(path)
        if found is None:
            reason = "is not executable" if os.path.exists(path) else "does not exist"
            raise ZigNotFound(f"Zig compiler '{path}' {reason}; {HOW_TO_GET}")
        return Path(found).absolute()
    spec = importlib.util.find_spec("ziglang")
    if spec is not None and spec.origin is not None:
        packaged = Path(spec.origin).parent / "zig"
        if os.access(packaged, os.X_OK):
            return packaged
    found = shutil.which("zig")
    if found is None:
        raise ZigNotFound(f"no Zig compiler found; {HOW_TO_GET}")
    return Path(found).absolute()


@dataclass(frozen=True)
class Zig:
    """One Zig compiler. What it says of itself is asked for once, when first needed."""

    path: Path
    timeout: float = 300.0
    """Seconds after which a compiler that does not end is ended."""

    @cached_property
    def version(self) -> str:
        """What ``zig version`` prints."""
        return self._ask("version").strip()

    @cached_property
    def lib_dir(self) -> Path:
        """The folder with ``std`` and ``docs``."""
        text = self._ask("env")
        try:
            # The path may be relative to where the command ran.
            return Path("/", json.loads(text)["lib_dir"])
        except (ValueError, KeyError, TypeError) as error:
            raise ZigProcessFailed(f"'{self.path} env' printed no lib_dir: {text[:200]!r}") from error

    def check_supported(self) -> None:
        """ZigUnsupported unless the version is one whose protocol we speak."""
        if not self.version.startswith(SUPPORTED):
            raise ZigUnsupported(
                f"Zig {self.version} at '{self.path}' is not supported: this version of fuzzserver "
                f"needs Zig {SUPPORTED}x; {HOW_TO_GET}"
            )

    def _ask(self, question: str) -> str:
        argv = [str(self.path), question]
        output = {"stdout": b"", "stderr": b""}
        try:
            with PipedChild(argv, Path("/"), _environment()) as child:
                deadline = time.monotonic() + self.timeout
                for name, data in child.output(deadline):
                    output[name] += data
                status = child.wait(max(0.1, deadline - time.monotonic()))
        except OSError as error:
            raise ZigNotFound(f"cannot start Zig compiler '{self.path}': {error}") from error
        except ChildTimeout:
            raise ZigTimeout(f"'{self.path} {question}' gave no answer in {self.timeout:g} s") from None
        words = " ".join(output["stderr"].decode("utf-8", "replace").split())
        if status != 0:
            raise ZigProcessFailed(
                f"'{self.path} {question}' {describe_exit(status)}: {words or 'no reason given'}"
            )
        text = output["stdout"].decode("utf-8", "replace")
        if not text.strip():
            raise ZigProcessFailed(f"'{self.path} {question}' printed nothing; is it a Zig compiler?")
        return text


def _environment() -> dict[str, str]:
    # Without a home folder, "zig env" fails over the cache that it does not need.
    return {"ZIG_GLOBAL_CACHE_DIR": tempfile.gettempdir(), **os.environ}
