"""The page's wasm: built for real, and the command that builds it."""

import logging
from pathlib import Path

import pytest

from fuzzserver import paths
from fuzzserver.errors import CompileErrors
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.wasm import build_wasm_binary
from tests.support_zig_fake import compile_calls, fake_zig

MAGIC = b"\0asm\1\0\0\0"


@pytest.mark.parametrize("whose", ["zig", "ours"])
def test_build(client: ZigCompileClient, whose: str) -> None:
    """Zig's own page and ours compile to a wasm file."""
    lib_dir = client.zig.lib_dir if whose == "zig" else paths.lib_dir()
    path = build_wasm_binary(client, lib_dir, "Debug")
    content = path.read_bytes()
    assert path.name == "fuzzer.wasm"
    assert content.startswith(MAGIC)
    assert b"totalRuns" in content


def test_second_build_is_a_cache_hit(client: ZigCompileClient, caplog) -> None:
    """Nothing is rebuilt without a change."""
    first = build_wasm_binary(client, client.zig.lib_dir, "Debug")
    changed = first.stat().st_mtime_ns
    caplog.clear()
    with caplog.at_level(logging.INFO, "fuzzserver"):
        assert build_wasm_binary(client, client.zig.lib_dir, "Debug") == first
    assert first.stat().st_mtime_ns == changed
    assert "rebuilt wasm component" not in caplog.text


def test_lib_dir_without_a_page(client: ZigCompileClient, tmp_path) -> None:
    """A folder without main.zig is an error of the compiler, with the path."""
    with pytest.raises(CompileErrors, match=r"main\.zig"):
        build_wasm_binary(client, tmp_path, "Debug")


@pytest.mark.parametrize("optimize_mode", ["ReleaseFast", "Debug"])
def test_command(tmp_path, caplog, optimize_mode) -> None:
    """The command line is the one of ``buildWasmBinary`` in Zig 0.14, word for word."""
    zig = fake_zig(tmp_path / "bin")
    client = ZigCompileClient(zig, tmp_path / "cache")
    with caplog.at_level(logging.INFO, "fuzzserver"):
        path = build_wasm_binary(client, Path("/lib"), optimize_mode)
    docs = tmp_path / "bin" / "lib" / "docs" / "wasm"
    (call,) = compile_calls(zig)
    assert call["argv"] == [
        "build-exe",
        "-fno-entry",
        "-O",
        optimize_mode,
        "-target",
        "wasm32-freestanding",
        "-mcpu",
        "baseline+atomics+bulk_memory+multivalue+mutable_globals+nontrapping_fptoint+reference_types+sign_ext",
        "--cache-dir",
        str(tmp_path / "cache"),
        "--global-cache-dir",
        str(tmp_path / "cache"),
        "--name",
        "fuzzer",
        "-rdynamic",
        "-fsingle-threaded",
        "--dep",
        "Walk",
        "--dep",
        "html_render",
        "-Mroot=/lib/fuzzer/web/main.zig",
        f"-MWalk={docs}/Walk.zig",
        "--dep",
        "Walk",
        f"-Mhtml_render={docs}/html_render.zig",
        "--listen=-",
    ]
    assert path.read_bytes() == MAGIC
    assert "source changes detected; rebuilt wasm component" in caplog.text
