"""Which compiler makes the page's wasm, when the user's cannot."""

import logging
import shlex
from pathlib import Path

import pytest

from fuzzserver import paths
from fuzzserver.errors import CompileErrors, Stopped, ZigProcessFailed
from fuzzserver.zig import page_compiler
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.page_compiler import PageCompiler
from fuzzserver.zig.wasm import build_wasm_binary
from tests import support_zig_fake
from tests.support_zig_fake import compile_calls, fake_zig

no_other_zig = support_zig_fake.no_other_zig

MAGIC = b"\0asm\1\0\0\0"


def refusing_zig(folder: Path, zig: Zig) -> Zig:
    """The real compiler, but what it is given for the page is no Zig that it knows. It notes its compiles."""
    (folder / "newer.zig").write_text("fn main() void { unheard of }\n")
    path = folder / "zig"
    path.write_text(f"""#!/bin/sh
for argument; do
    case "$argument" in
        build-exe) echo >>{shlex.quote(str(folder / "compiles"))} ;;
        -Mroot=*) argument=-Mroot={shlex.quote(str(folder / "newer.zig"))} ;;
    esac
    set -- "$@" "$argument"
    shift
done
exec {shlex.quote(str(zig.path))} "$@"
""")
    path.chmod(0o755)
    return Zig(path)


def test_compile_errors(zig: Zig, client: ZigCompileClient, tmp_path: Path, caplog) -> None:
    """The packaged compiler takes the place of one that refuses the page, for good; one line says so."""
    compiler = PageCompiler(ZigCompileClient(refusing_zig(tmp_path, zig), client.global_cache_dir))
    with caplog.at_level(logging.WARNING):
        first = compiler.build(paths.lib_dir(), "Debug")
        assert compiler.build(paths.lib_dir(), "Debug") == first
    assert first == build_wasm_binary(client, paths.lib_dir(), "Debug")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert (
        f"'{tmp_path / 'zig'}' cannot compile the page, which '{zig.path}' does in its place" in caplog.text
    )
    assert "newer.zig:1:" in caplog.text
    assert (tmp_path / "compiles").read_text() == "\n"


@pytest.mark.parametrize("kind", ["newer", "broken", "missing"])
def test_compilers_that_do_not_work(
    kind: str, client: ZigCompileClient, tmp_path: Path, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the future whose options are others, one that dies, and one that is gone."""
    version = {"stdout": "0.99.0\n"} if kind == "newer" else None
    broken = fake_zig(tmp_path / "bin", version=version, server_version="0.99.0", compile="exit_3")
    if kind == "missing":
        broken.path.unlink()
    packaged = fake_zig(tmp_path / "packaged")
    monkeypatch.setattr(page_compiler, "packaged_zig", lambda: packaged.path)
    compiler = PageCompiler(ZigCompileClient(broken, tmp_path / "cache"))
    for _ in range(2):
        assert compiler.build(tmp_path, "ReleaseSmall").read_bytes() == MAGIC
    assert caplog.text.count("cannot compile the page") == 1
    assert len(compile_calls(broken)) == (0 if kind == "missing" else 1)


def test_none_can(tmp_path: Path, zig: Zig, client: ZigCompileClient, caplog, monkeypatch) -> None:
    """The error is that of the user's compiler, and the log has it once; each request tries again."""
    packaged = fake_zig(tmp_path / "packaged", compile="exit_3")
    monkeypatch.setattr(page_compiler, "packaged_zig", lambda: packaged.path)
    compiler = PageCompiler(ZigCompileClient(refusing_zig(tmp_path, zig), client.global_cache_dir))
    for _ in range(2):
        caplog.clear()
        with pytest.raises(CompileErrors, match=r"newer\.zig:1:"):
            compiler.build(paths.lib_dir(), "Debug")
        (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
        assert f"no compiler can compile the page: '{tmp_path / 'zig'}', '{packaged.path}'" in record.message
        assert "newer.zig:1:" in record.message
    assert len(compile_calls(packaged)) == 2
    fake_zig(tmp_path / "packaged")
    assert compiler.build(tmp_path, "Debug").read_bytes() == MAGIC


@pytest.mark.usefixtures("no_other_zig")
def test_no_other(tmp_path: Path, caplog) -> None:
    """Without the package there is nothing to try."""
    compiler = PageCompiler(
        ZigCompileClient(fake_zig(tmp_path / "bin", compile="exit_3"), tmp_path / "cache")
    )
    with pytest.raises(ZigProcessFailed, match="exited with error code 3"):
        compiler.build(tmp_path, "Debug")
    assert "in its place" not in caplog.text


def test_the_packaged_compiler_has_no_other(
    zig: Zig, client: ZigCompileClient, tmp_path: Path, caplog
) -> None:
    """What it says of an error is said once, by itself; also where it is reached by a link."""
    link = tmp_path / "zig"
    link.symlink_to(zig.path)
    for path in (zig.path, link):
        caplog.clear()
        with pytest.raises(CompileErrors):
            PageCompiler(ZigCompileClient(Zig(path), client.global_cache_dir)).build(tmp_path, "Debug")
        assert caplog.text.count("compilation errors") == 1
        assert "no compiler can" not in caplog.text


def test_a_stop_is_no_reason_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stops the compiler stops all of it."""
    packaged = fake_zig(tmp_path / "packaged")
    monkeypatch.setattr(page_compiler, "packaged_zig", lambda: packaged.path)
    zig = fake_zig(tmp_path / "bin")
    compiler = PageCompiler(ZigCompileClient(zig, tmp_path / "cache"))
    compiler.stop()
    with pytest.raises(Stopped):
        compiler.build(tmp_path, "Debug")
    assert compile_calls(zig) == compile_calls(packaged) == []
