"""The page's wasm, built by the user's own compiler (Zig: ``buildWasmBinary`` of ``WebServer.zig``)."""

import logging
from pathlib import Path
from typing import Literal

from fuzzserver.errors import ZigProcessFailed
from fuzzserver.zig.compile_client import ZigCompileClient

__all__ = ["OptimizeMode", "build_wasm_binary"]

log = logging.getLogger(__name__)

OptimizeMode = Literal["Debug", "ReleaseFast", "ReleaseSmall"]

FUZZER_BIN_NAME = "fuzzer"
MAX_WASM = 64 * 1024 * 1024
"""Bytes of wasm that is served: all of them are read at once. Zig's page has two million."""
FUZZER_ARCH_OS_ABI = "wasm32-freestanding"
FUZZER_CPU_FEATURES = (
    "baseline+atomics+bulk_memory+multivalue+mutable_globals+nontrapping_fptoint+reference_types+sign_ext"
)


def build_wasm_binary(client: ZigCompileClient, lib_dir: Path, optimize_mode: OptimizeMode) -> Path:
    """Compile ``<lib_dir>/fuzzer/web/main.zig`` and return the path of the wasm file.

    ``Walk`` and ``html_render``, from the compiler's own ``lib``, are for Zig's page; ours does without.
    The compiler keeps the result in its cache: without changes, it is not even started.
    """
    client.check()
    cache_dir = client.global_cache_dir
    docs = client.zig.lib_dir / "docs" / "wasm"
    result = client.compile_if_changed(
        [
            "build-exe",
            "-fno-entry",
            *("-O", optimize_mode),
            *("-target", FUZZER_ARCH_OS_ABI),
            *("-mcpu", FUZZER_CPU_FEATURES),
            *("--cache-dir", str(cache_dir)),
            *("--global-cache-dir", str(cache_dir)),
            *("--name", FUZZER_BIN_NAME),
            "-rdynamic",
            "-fsingle-threaded",
            *("--dep", "Walk", "--dep", "html_render"),
            f"-Mroot={lib_dir / 'fuzzer' / 'web' / 'main.zig'}",
            f"-MWalk={docs / 'Walk.zig'}",
            *("--dep", "Walk"),
            f"-Mhtml_render={docs / 'html_render.zig'}",
        ],
        cache_dir,
        f"{FUZZER_BIN_NAME}.wasm",
    )
    if not result.cache_hit:
        log.info("source changes detected; rebuilt wasm component")
    path = result.artifact(f"{FUZZER_BIN_NAME}.wasm")
    size = path.stat().st_size
    if size > MAX_WASM:
        raise ZigProcessFailed(f"the page's wasm '{path}' has {size} bytes; the limit is {MAX_WASM}")
    return path
