"""The page ``build-web`` of Zig 0.15 and later, and the compiler that it belongs to."""

from pathlib import Path
from typing import Self

from fuzzserver.wire.release import ZigRelease
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.wasm import OptimizeMode, build_build_web

__all__ = ["BuildWeb"]


class BuildWeb:
    """The page of one Zig. May be used from any thread."""

    def __init__(self, lib_dir: Path, client: ZigCompileClient) -> None:
        self._lib_dir = lib_dir
        self._client = client

    @classmethod
    def of(cls, lib_dir: Path, zig: Zig, cache_dir: Path) -> Self | None:
        """The page in ``lib_dir``; None if that has no such page.

        Only the compiler of the same release can compile its wasm: the one beside ``lib_dir``, or ``zig``,
        where the two are installed in different places.
        """
        if not (lib_dir / "build-web").is_dir():
            return None
        beside = lib_dir.parent / "zig"
        return cls(lib_dir, ZigCompileClient(Zig(beside) if beside.is_file() else zig, cache_dir))

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self._lib_dir / "build-web"

    @property
    def release(self) -> ZigRelease:
        """The release that it is of. ZigError if its compiler does not work."""
        return self._client.zig.release

    def build_wasm(self, optimize_mode: OptimizeMode) -> Path:
        """Compile its wasm; the path of that."""
        return build_build_web(self._client, self._lib_dir, optimize_mode)

    def stop(self) -> None:
        """End the compiler."""
        self._client.stop()
