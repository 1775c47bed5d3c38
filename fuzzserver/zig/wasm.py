"""A page's wasm, built by one compiler (Zig: ``buildWasmBinary`` of ``WebServer.zig``)."""

import logging
from pathlib import Path
from typing import Literal

from fuzzserver.errors import ZigProcessFailed
from fuzzserver.zig.compile_client import ZigCompileClient

__all__ = ["OptimizeMode", "build_build_web", "build_wasm_binary"]

log = logging.getLogger(__name__)

OptimizeMode = Literal["Debug", "ReleaseFast", "ReleaseSmall"]

FUZZER_BIN_NAME = "fuzzer"
BUILD_WEB_BIN_NAME = "build-web"
MAX_WASM = 64 * 1024 * 1024
"""Bytes of wasm that is served: all of them are read at once. Zig's page has two million."""
FUZZER_ARCH_OS_ABI = "wasm32-freestanding"
FUZZER_CPU_FEATURES = (
    "baseline+atomics+bulk_memory+multivalue+mutable_globals+nontrapping_fptoint+reference_types+sign_ext"
)


def build_wasm_binary(
    client: ZigCompileClient, lib_dir: Path, optimize_mode: OptimizeMode, *, logs_errors: bool = True
) -> Path:
    """Compile ``<lib_dir>/fuzzer/web/main.zig`` and return the path of the wasm file.

    ``Walk`` and ``html_render``, from the compiler's own ``lib``, are for Zig's page; ours does without.
    The compiler keeps the result in its cache: without changes, it is not even started.
    """
    main = lib_dir / "fuzzer" / "web" / "main.zig"
    return _build(client, FUZZER_BIN_NAME, main, None, optimize_mode, logs_errors=logs_errors)


def build_build_web(client: ZigCompileClient, lib_dir: Path, optimize_mode: OptimizeMode) -> Path:
    """The same with ``<lib_dir>/build-web/main.zig``, the page of Zig 0.15 and later.

    It belongs to the rest of ``lib_dir``, and that to the compiler.
    """
    main = lib_dir / "build-web" / "main.zig"
    return _build(client, BUILD_WEB_BIN_NAME, main, lib_dir, optimize_mode, "--zig-lib-dir", str(lib_dir))


def _build(
    client: ZigCompileClient,
    name: str,
    main: Path,
    lib_dir: Path | None,
    optimize_mode: OptimizeMode,
    *more: str,
    logs_errors: bool = True,
) -> Path:
    """``lib_dir`` holds the modules that a page may use; by default it is the compiler's own."""
    client.check()
    cache_dir = client.global_cache_dir
    docs = (lib_dir or client.zig.lib_dir) / "docs" / "wasm"
    result = client.compile_if_changed(
        [
            "build-exe",
            "-fno-entry",
            *("-O", optimize_mode),
            *("-target", FUZZER_ARCH_OS_ABI),
            *("-mcpu", FUZZER_CPU_FEATURES),
            *("--cache-dir", str(cache_dir)),
            *("--global-cache-dir", str(cache_dir)),
            *more,
            *("--name", name),
            "-rdynamic",
            "-fsingle-threaded",
            *("--dep", "Walk", "--dep", "html_render"),
            f"-Mroot={main}",
            f"-MWalk={docs / 'Walk.zig'}",
            *("--dep", "Walk"),
            f"-Mhtml_render={docs / 'html_render.zig'}",
        ],
        cache_dir,
        f"{name}.wasm",
        logs_errors=logs_errors,
    )
    if not result.cache_hit:
        log.info("source changes detected; rebuilt wasm component")
    path = result.artifact(f"{name}.wasm")
    size = path.stat().st_size
    if size > MAX_WASM:
        raise ZigProcessFailed(f"the page's wasm '{path}' has {size} bytes; the limit is {MAX_WASM}")
    return path
