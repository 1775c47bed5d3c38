"""Which compiler makes the page's wasm: the user's, or one that can.

The page is written for the releases of Zig that are known. Where the user's compiler refuses it, or does not
work at all, the one that is installed beside us takes its place: the page needs some wasm, and not the
compiler of what is fuzzed.
"""

import logging
import os
from pathlib import Path

from fuzzserver.errors import Stopped, ZigError
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig, packaged_zig
from fuzzserver.zig.wasm import OptimizeMode, build_wasm_binary

__all__ = ["PageCompiler"]

log = logging.getLogger(__name__)


class PageCompiler:
    """Compiles pages. One build at a time; the rest from any thread."""

    def __init__(self, client: ZigCompileClient) -> None:
        """``client`` compiles as long as it can."""
        self._client = client
        self._other = _packaged_client(client)
        self._clients = [each for each in (client, self._other) if each is not None]

    def build(self, lib_dir: Path, optimize_mode: OptimizeMode) -> Path:
        """As ``build_wasm_binary``; if none of the compilers can, the error of the user's."""
        other = self._other
        if other is None:
            return build_wasm_binary(self._client, lib_dir, optimize_mode)
        try:
            return build_wasm_binary(self._client, lib_dir, optimize_mode, logs_errors=False)
        except Stopped:
            raise
        except ZigError as error:
            # Nobody is to wait for a compiler twice that cannot.
            path = self._build_with(other, lib_dir, optimize_mode, error)
            self._client, self._other = other, None
            return path

    def _build_with(
        self, other: ZigCompileClient, lib_dir: Path, optimize_mode: OptimizeMode, error: ZigError
    ) -> Path:
        """Compile with the other compiler after this ``error`` of the first."""
        try:
            path = build_wasm_binary(other, lib_dir, optimize_mode, logs_errors=False)
        except Stopped:
            raise
        except ZigError:
            names = "', '".join(str(client.zig.path) for client in self._clients)
            log.error("no compiler can compile the page: '%s': %s", names, str(error).rstrip("\n"))
            raise error from None
        reason = str(error).partition("\n")[0]
        log.warning(
            "'%s' cannot compile the page, which '%s' does in its place: %s",
            self._client.zig.path, other.zig.path, reason,
        )  # fmt: skip
        return path

    def set_nice(self, nice: int) -> None:
        """How much the compilers give way to other programs."""
        for client in self._clients:
            client.set_nice(nice)

    def stop(self) -> None:
        """End what runs; whoever waits for it gets Stopped."""
        for client in self._clients:
            client.stop()


def _packaged_client(client: ZigCompileClient) -> ZigCompileClient | None:
    """A client of the packaged compiler; None if there is none, or if it is that of ``client``."""
    path = packaged_zig()
    if path is None or os.path.realpath(path) == os.path.realpath(client.zig.path):
        return None
    return ZigCompileClient(Zig(path, client.zig.timeout), client.global_cache_dir)
