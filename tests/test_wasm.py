"""The page's wasm: built for real, and the command that builds it."""

import logging
import time
from pathlib import Path

import pytest

from fuzzserver import freshness, paths
from fuzzserver.errors import CompileErrors
from fuzzserver.freshness import Stamps, stamp_of
from fuzzserver.zig import compile_client
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig
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


def test_unchanged_sources_start_no_compiler(zig: Zig, zig_cache: Path, tmp_path: Path) -> None:
    """Not even to ask whether it has something to do; an edit starts one, and so does another compiler."""
    calls = tmp_path / "calls"
    wrapper = tmp_path / "zig"
    lib_dir = tmp_path / "lib"
    source = lib_dir / "fuzzer" / "web" / "main.zig"
    source.parent.mkdir(parents=True)
    client = ZigCompileClient(Zig(wrapper), zig_cache)

    def write(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)
        time.sleep(0.1)  # What was written just before a compile is not sure to be what was compiled.

    def compiles() -> int:
        built.append(build_wasm_binary(client, lib_dir, "Debug"))
        return calls.read_text().split().count("build-exe")

    built: list[Path] = []
    write(wrapper, f'#!/bin/sh\necho "$1" >>"{calls}"\nexec "{zig.path}" "$@"\n')
    write(source, "export fn one() u8 { return 1; }\n")
    assert [compiles(), compiles(), compiles()] == [1, 1, 1]
    write(source, "export fn two() u8 { return 2; }\n")
    assert [compiles(), compiles()] == [2, 2]
    assert b"one" in built[0].read_bytes() and b"two" in built[-1].read_bytes()
    write(wrapper, wrapper.read_text() + "\n")
    assert [compiles(), compiles()] == [3, 3]


def test_library_is_looked_at_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is our own is looked at each time; the compiler's nine hundred files once in a while."""
    own, library = tmp_path / "own", tmp_path / "library"
    looked: list[str] = []
    monkeypatch.setattr(freshness, "stamp_of", lambda path: looked.append(path) or stamp_of(path))

    def known() -> compile_client._Known:
        own.write_text("a")
        library.write_text("a")
        stamps = [Stamps.of([str(path)]) for path in (own, library)]
        assert stamps[0] is not None and stamps[1] is not None
        result = compile_client.CompileResult(tmp_path, tmp_path, False, ())
        return compile_client._Known(result, stamps[0], stamps[1])

    for interval, seen in ((1000.0, True), (0.0, False)):
        monkeypatch.setattr(compile_client, "LIBRARY_INTERVAL", interval)
        one = known()
        looked.clear()
        assert [one.is_current() for _ in range(4)] == [True] * 4
        assert looked.count(str(own)) == 4
        assert looked.count(str(library)) == (1 if seen else 4)
        library.write_text("another")
        assert one.is_current() == seen
        own.write_text("another")
        assert not one.is_current()


def test_lib_dir_without_a_page(client: ZigCompileClient, tmp_path) -> None:
    """A folder without main.zig is an error of the compiler, with the path."""
    with pytest.raises(CompileErrors, match=r"main\.zig"):
        build_wasm_binary(client, tmp_path, "Debug")


@pytest.mark.parametrize("optimize_mode", ["ReleaseFast", "ReleaseSmall", "Debug"])
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
