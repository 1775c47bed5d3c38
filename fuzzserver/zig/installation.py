"""Where the Zig compiler is, and what it says of itself."""

import importlib.util
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fuzzserver.errors import ZigNotFound, ZigProcessFailed, ZigTimeout, ZigUnsupported
from fuzzserver.wire.release import NEWEST, OLDEST, ZigRelease, is_newer, number_of, release_of
from fuzzserver.zig.process import (
    COMPILER_LIMITS,
    ChildGroup,
    ChildTimeout,
    PipedChild,
    child_environment,
    describe_exit,
)

__all__ = ["Zig", "find_zig", "packaged_zig"]

log = logging.getLogger(__name__)

MAX_ANSWER = 1 << 20
"""Bytes of an answer; Zig's have some hundred."""
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
    packaged = packaged_zig()
    if packaged is not None:
        return packaged
    found = shutil.which("zig")
    if found is None:
        raise ZigNotFound(f"no Zig compiler found; {HOW_TO_GET}")
    return Path(found).absolute()


def packaged_zig() -> Path | None:
    """The compiler of the ``ziglang`` package that is installed beside us; None if there is none."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        return None
    packaged = Path(spec.origin).parent / "zig"
    return packaged if os.access(packaged, os.X_OK) else None


@dataclass(frozen=True)
class Zig:
    """One Zig compiler. What it says of itself is asked for once, when first needed.

    May be used from any thread.
    """

    path: Path
    timeout: float = 900.0
    """Seconds after which a compiler that does not end is ended."""

    @cached_property
    def version(self) -> str:
        """What ``zig version`` prints."""
        return self._ask("version").strip()

    @cached_property
    def release(self) -> ZigRelease:
        """How this version speaks and behaves; ZigUnsupported if it is too old, or no version."""
        version = self.version
        if number_of(version) is None:
            self.forget()
            raise ZigUnsupported(
                f"'{self.path} version' printed no version, but {version[:100]!r}; is it a Zig compiler?"
            )
        release = release_of(version)
        if release is None:
            self.forget()
            raise ZigUnsupported(
                f"Zig {version} at '{self.path}' is not supported: "
                f"Zig {OLDEST.name} is the oldest that fuzzserver works with; {HOW_TO_GET}"
            )
        if is_newer(version):
            log.warning(
                "Zig %s at '%s' is newer than all that fuzzserver was tried with; it is taken for Zig %s",
                version, self.path, NEWEST.name,
            )  # fmt: skip
        return release

    @cached_property
    def lib_dir(self) -> Path:
        """The folder with ``std`` and ``docs``."""
        return self._parse_lib_dir(self._ask("env"))

    def learn(self, children: ChildGroup) -> None:
        """Ask for all that is not known yet, and check it; the stop of ``children`` ends that."""
        self.check_supported(children)
        known = self.__dict__
        if "lib_dir" not in known:
            known["lib_dir"] = self._parse_lib_dir(self._ask("env", children.spawn))

    def forget(self) -> None:
        """There may be another compiler at the path now: ask again when it matters."""
        for name in ("version", "release", "lib_dir"):
            self.__dict__.pop(name, None)

    def check_supported(self, children: ChildGroup | None = None) -> None:
        """ZigUnsupported unless the version is one whose protocol we speak, or a newer one.

        If it must be asked for, the stop of ``children`` ends that.
        """
        known = self.__dict__
        if children is not None and "version" not in known:
            known["version"] = self._ask("version", children.spawn).strip()
        _ = self.release

    def _parse_lib_dir(self, text: str) -> Path:
        try:
            lib_dir = _lib_dir_in_zon(text) or json.loads(text)["lib_dir"]
            if b"\0" in os.fsencode(lib_dir):
                raise ValueError("no path has a NUL")
            # The path may be relative to where the command ran.
            return Path("/", lib_dir)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ZigProcessFailed(f"'{self.path} env' printed no lib_dir: {text[:200]!r}") from error

    def _ask(
        self, question: str, spawn: Callable[..., AbstractContextManager[PipedChild]] = PipedChild
    ) -> str:
        argv = [str(self.path), question]
        output = {"stdout": bytearray(), "stderr": bytearray()}
        try:
            with spawn(argv, Path("/"), _environment(), COMPILER_LIMITS) as child:
                deadline = time.monotonic() + self.timeout
                for name, data in child.output(deadline):
                    output[name] += data
                    if len(output[name]) > MAX_ANSWER:
                        raise ZigProcessFailed(
                            f"'{self.path} {question}' printed more than {MAX_ANSWER} bytes; "
                            "is it a Zig compiler?"
                        )
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


_LIB_DIR_IN_ZON = re.compile(r'^ *\.lib_dir = "((?:[^"\\]|\\.)*)"', re.MULTILINE)


def _lib_dir_in_zon(text: str) -> str | None:
    """What ``zig env`` prints since 0.15, with bytes other than ASCII as ``\\xNN``; None if it is JSON."""
    found = _LIB_DIR_IN_ZON.search(text)
    if found is None:
        return None
    literal = found[1].encode("utf-8").decode("unicode_escape")
    return os.fsdecode(literal.encode("latin-1"))


def _environment() -> dict[str, str]:
    # Without a home folder, "zig env" fails over the cache that it does not need.
    return {"ZIG_GLOBAL_CACHE_DIR": tempfile.gettempdir(), **child_environment()}
