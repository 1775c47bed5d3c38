"""Compiles through the server protocol: with the real compiler, and with one that misbehaves."""

import logging
import shlex
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzzserver.errors import (
    CompileErrors,
    Stopped,
    ZigError,
    ZigNotFound,
    ZigProcessFailed,
    ZigProtocolVersionMismatch,
    ZigTimeout,
    ZigUnsupported,
)
from fuzzserver.step import SourcePath
from fuzzserver.zig.compile_client import MAX_STDERR, CompileResult, ZigCompileClient
from fuzzserver.zig.installation import Zig
from tests.fake_zig import DIGEST
from tests.support_time import WAIT, eventually
from tests.support_zig_children import processes_naming, wait_until_gone
from tests.support_zig_fake import calls, compile_calls, fake_zig, impatient, let_time_run_out
from tests.support_zig_sources import BROKEN, build_args, hello, write

pytestmark = pytest.mark.usefixtures("nothing_left")


def compile(client: ZigCompileClient, root: Path, *flags: str) -> CompileResult:
    """Compile ``root`` into a cache beside it, as a program called ``hello``."""
    cache_dir = root.parent / "cache"
    return client.compile(
        build_args(root, cache_dir, client.global_cache_dir, *flags), cache_dir, root.parent
    )


def fake_compile(zig: Zig, folder: Path) -> CompileResult:
    """Compile something with a fake compiler."""
    return compile(ZigCompileClient(zig, folder / "global"), hello(folder))


class TestRealCompiler:
    """What a Zig 0.14 does."""

    def test_success(self, client: ZigCompileClient, tmp_path) -> None:
        """The result lies in the output folder and works; the inputs name what was read."""
        root = hello(tmp_path)
        result = compile(client, root)
        assert result.output_dir.parent == tmp_path / "cache" / "o"
        assert subprocess.run([result.output_dir / "hello"], timeout=WAIT, check=False).returncode == 0
        inputs = {str(Path(str(path)).resolve()) for path in result.inputs}
        assert {str(root), str(tmp_path / "other.zig")} <= inputs
        assert str((client.zig.lib_dir / "std" / "std.zig").resolve()) in inputs
        assert all(map(Path.exists, map(Path, inputs)))

    def test_cache_hit(self, client: ZigCompileClient, tmp_path) -> None:
        """The same compile again finds its result in the cache, and names the same inputs."""
        first = compile(client, hello(tmp_path))
        second = compile(client, hello(tmp_path))
        assert (first.cache_hit, second.cache_hit) == (False, True)
        assert first.output_dir == second.output_dir
        assert set(first.inputs) == set(second.inputs)

    def test_relative_root(self, client: ZigCompileClient, tmp_path) -> None:
        """Paths on the command line are relative to the working folder, and inputs name it."""
        hello(tmp_path)
        args = build_args(Path("main.zig"), tmp_path / "cache", client.global_cache_dir)
        result = client.compile(args, tmp_path / "cache", tmp_path)
        assert SourcePath(str(tmp_path), "main.zig") in result.inputs

    def test_compile_errors(self, client: ZigCompileClient, tmp_path, caplog) -> None:
        """Errors are told in the compiler's own words: the text that it prints without our protocol."""
        root = write(tmp_path, main=BROKEN)
        with pytest.raises(CompileErrors) as caught:
            compile(client, root)
        args = build_args(root, tmp_path / "cache", client.global_cache_dir)
        printed = subprocess.run(
            [client.zig.path, *args],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            timeout=WAIT,
            check=False,
        ).stderr
        assert str(caught.value) == printed
        assert f"{root.name}:4:5: error: use of undeclared identifier 'undeclared'" in str(caught.value)
        assert "    undeclared();\n    ^~~~~~~~~~\n" in str(caught.value)
        assert "the following command failed with 1 compilation errors:\n" in caplog.text

    def test_missing_root(self, client: ZigCompileClient, tmp_path) -> None:
        """A root file that is not there is an error of the compiler, with the path."""
        with pytest.raises(ZigError, match=r"missing\.zig"):
            compile(client, tmp_path / "missing.zig")

    def test_bad_flag(self, client: ZigCompileClient, tmp_path) -> None:
        """A flag that the compiler does not know: exit code, its words, and the whole command."""
        root = hello(tmp_path)
        with pytest.raises(ZigProcessFailed) as caught:
            compile(client, root, "-fno-such-flag")
        args = build_args(root, tmp_path / "cache", client.global_cache_dir, "-fno-such-flag")
        command = shlex.join([str(client.zig.path), *args, "--listen=-"])
        text = str(caught.value)
        assert text.startswith("error: unrecognized parameter: '-fno-such-flag'\n")
        assert text.endswith(f"the following command exited with error code 1:\n{command}")

    def test_source_that_is_no_text(self, client: ZigCompileClient, tmp_path) -> None:
        """Bytes that are no source are compile errors like any other."""
        root = tmp_path / "main.zig"
        root.write_bytes(bytes(range(256)))
        with pytest.raises(CompileErrors, match=r"main\.zig:1:1: error: "):
            compile(client, root)

    def test_path_with_spaces_and_umlauts(self, client: ZigCompileClient, tmp_path) -> None:
        """Names are passed on as they are."""
        root = hello(tmp_path / "a b" / "zwölf ☃")
        inputs = {str(path) for path in compile(client, root).inputs}
        assert str(root) in inputs

    def test_several_threads(self, client: ZigCompileClient, tmp_path) -> None:
        """Compiles of several threads run side by side, each with its own result."""
        results: dict[int, CompileResult] = {}

        def run(number: int) -> None:
            root = write(tmp_path / str(number), main=f"pub fn main() u8 {{ return {number}; }}")
            results[number] = compile(client, root)

        run_threads(run, 4)
        for number, result in results.items():
            program = result.output_dir / "hello"
            assert subprocess.run([program], timeout=WAIT, check=False).returncode == number
        assert len(results) == 4

    def test_stop(self, zig: Zig, zig_cache: Path, tmp_path) -> None:
        """A stop from another thread ends the compiler, and the one who waits gets an error."""
        client = ZigCompileClient(zig, zig_cache)
        root = write(tmp_path, main=ENDLESS)
        errors = run_in_background(lambda: compile(client, root))
        eventually(lambda: processes_naming(str(root)), "the compiler does not start")
        (pid,) = processes_naming(str(root))
        client.stop()
        (error,) = errors()
        assert isinstance(error, Stopped)
        wait_until_gone(pid)
        with pytest.raises(Stopped, match="stopped"):
            compile(client, root)
        client.stop()

    def test_timeout(self, zig: Zig, zig_cache: Path, tmp_path) -> None:
        """A compile that never ends is ended after the timeout, and the error says how to change it."""
        client = ZigCompileClient(impatient(zig, 1.0), zig_cache)
        root = write(tmp_path, main=ENDLESS)
        with pytest.raises(ZigTimeout, match=r"did not end in 1 s .*--zig-timeout") as caught:
            compile(client, root)
        assert str(root) in str(caught.value)
        assert processes_naming(str(root)) == []


ENDLESS = """
pub fn main() void {
    comptime {
        @setEvalBranchQuota(4_000_000_000);
        var count: u64 = 0;
        while (true) count += 1;
    }
}
"""
"""Keeps the compiler busy for an hour."""


class TestMisbehavingCompiler:
    """What a Zig 0.14 does not do, or not on demand."""

    def test_ok(self, tmp_path) -> None:
        """The fake compiler passes for a real one when it behaves."""
        zig = fake_zig(tmp_path / "bin")
        result = fake_compile(zig, tmp_path)
        assert result.output_dir == tmp_path / "cache" / "o" / DIGEST.hex()
        assert not result.cache_hit
        assert result.inputs == (
            SourcePath(str(tmp_path), "main.zig"),
            SourcePath(str(tmp_path / "bin" / "lib"), "std/std.zig"),
        )
        (call,) = compile_calls(zig)
        assert call["argv"][-1] == "--listen=-"
        assert call["cwd"] == str(tmp_path)

    @pytest.mark.parametrize("behaviour", ["hang", "hang_without_pipes"])
    def test_hang(self, tmp_path, monkeypatch: pytest.MonkeyPatch, behaviour: str) -> None:
        """A compiler that does not end is ended after the timeout, with or without open pipes."""
        zig = fake_zig(tmp_path / "bin", compile=behaviour)
        let_time_run_out(monkeypatch, zig)
        with pytest.raises(ZigTimeout, match=r"did not end in 60 s"):
            fake_compile(zig, tmp_path)
        (call,) = compile_calls(zig)
        wait_until_gone(call["pid"])

    @pytest.mark.parametrize(
        ("behaviour", "reason"),
        [
            ("truncated", r"stream ended after 10 of the 100 bytes of a message body \(tag 1\)"),
            ("truncated_header", "stream ended after 3 of the 8 bytes of a message header"),
            ("absurd_length", "message with tag 1 claims a body of 4294967295 bytes; the limit is"),
            ("lying_bundle", "error_bundle with extra_len 1000 .* must have 5008 bytes, got 8"),
            ("text", "claims a body of"),
        ],
    )
    def test_broken_protocol(self, tmp_path, behaviour: str, reason: str) -> None:
        """Bytes that are no message are told with their counts, and the compiler is ended."""
        zig = fake_zig(tmp_path / "bin", compile=behaviour)
        with pytest.raises(ZigProcessFailed, match=reason) as caught:
            fake_compile(zig, tmp_path)
        assert "broke its protocol" in str(caught.value)
        assert str(zig.path) in str(caught.value)
        (call,) = compile_calls(zig)
        wait_until_gone(call["pid"])

    def test_version_mismatch(self, tmp_path) -> None:
        """A server of another version than ``zig version`` says is refused; both are named."""
        zig = fake_zig(tmp_path / "bin", server_version="0.14.9")
        with pytest.raises(ZigProtocolVersionMismatch, match=r"'0\.14\.1'.*'0\.14\.9'"):
            fake_compile(zig, tmp_path)

    def test_unsupported_version(self, tmp_path) -> None:
        """A compiler whose protocol we do not speak is not even started."""
        zig = fake_zig(tmp_path / "bin", version={"stdout": "0.13.0\n"})
        with pytest.raises(ZigUnsupported):
            fake_compile(zig, tmp_path)
        assert [call["argv"] for call in calls(zig)] == [["version"]]

    def test_emit_bin_path(self, tmp_path) -> None:
        """The older form of the result, a path, is understood."""
        zig = fake_zig(tmp_path / "bin", compile="emit_bin_path")
        result = fake_compile(zig, tmp_path)
        assert result.cache_hit
        assert result.output_dir == tmp_path / "cache" / "o" / DIGEST.hex()

    def test_unknown_messages(self, tmp_path) -> None:
        """Messages that we do not know are skipped."""
        fake_compile(fake_zig(tmp_path / "bin", compile="unknown_messages"), tmp_path)

    def test_flooded_stderr(self, tmp_path, caplog) -> None:
        """10 MB on stderr do not block the compile; their end is passed on."""
        with caplog.at_level(logging.WARNING, "fuzzserver.compiler"):
            fake_compile(fake_zig(tmp_path / "bin", compile="flood_stderr"), tmp_path)
        (record,) = [record for record in caplog.records if record.name == "fuzzserver.compiler"]
        assert len(record.getMessage()) == MAX_STDERR - 1

    def test_exit_code(self, tmp_path, caplog) -> None:
        """An exit code is an error with the code, the compiler's words, once, and the command."""
        zig = fake_zig(tmp_path / "bin", compile="exit_3")
        with pytest.raises(ZigProcessFailed, match="exited with error code 3") as caught:
            fake_compile(zig, tmp_path)
        assert "fake trouble" in str(caught.value)
        assert str(zig.path) in str(caught.value)
        assert "fake trouble" not in caplog.text

    def test_signal(self, tmp_path) -> None:
        """A compiler that dies by a signal is told with the signal's name."""
        zig = fake_zig(tmp_path / "bin", compile="abort")
        with pytest.raises(ZigProcessFailed, match=r"unexpectedly \(was ended by signal SIGABRT\)"):
            fake_compile(zig, tmp_path)

    def test_no_result(self, tmp_path) -> None:
        """A compiler that ends well without a result has failed."""
        zig = fake_zig(tmp_path / "bin", compile="no_result")
        with pytest.raises(ZigProcessFailed, match="child process failed to report result"):
            fake_compile(zig, tmp_path)

    def test_closed_stdin(self, tmp_path) -> None:
        """A compiler that does not read what it is told, but does it, is no error."""
        fake_compile(fake_zig(tmp_path / "bin", compile="deaf"), tmp_path)

    def test_process_left_behind(self, tmp_path) -> None:
        """What a compiler leaves in the background neither delays the result nor survives it."""
        fake_compile(fake_zig(tmp_path / "bin", compile="leave_a_child"), tmp_path)
        eventually(lambda: not processes_naming(str(tmp_path / "bin")), "a background process lives on")

    def test_compiler_vanishes(self, tmp_path) -> None:
        """A compiler that was removed after it was found is an error with its path."""
        zig = fake_zig(tmp_path / "bin")
        assert zig.version
        zig.path.unlink()
        with pytest.raises(ZigNotFound, match=f"cannot start Zig compiler '{zig.path}'"):
            fake_compile(zig, tmp_path)

    def test_stop_ends_all_compiles(self, tmp_path) -> None:
        """A stop ends the compiles of all threads."""
        zig = fake_zig(tmp_path / "bin", compile="hang")
        client = ZigCompileClient(zig, tmp_path / "global")
        root = hello(tmp_path)
        errors = run_in_background(*[lambda: compile(client, root)] * 3)
        eventually(lambda: len(compile_calls(zig)) == 3, "the compilers do not start")
        client.stop()
        assert [type(error) for error in errors()] == [Stopped] * 3
        for call in compile_calls(zig):
            wait_until_gone(call["pid"])

    def test_no_compile_after_stop(self, tmp_path) -> None:
        """After a stop no compiler is started, and the compiler is not said to be missing."""
        zig = fake_zig(tmp_path / "bin")
        client = ZigCompileClient(zig, tmp_path / "global")
        client.stop()
        with pytest.raises(Stopped, match="stopped"):
            compile(client, hello(tmp_path))
        assert compile_calls(zig) == []


def run_threads(run: Callable[[int], None], count: int) -> None:
    """Call ``run`` with each number below ``count``, at the same time, and wait."""
    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_in_background(*functions: Callable[[], object]) -> Callable[[], list[BaseException]]:
    """Start each function in a thread; the result waits for them and gives what they raised."""
    errors: list[BaseException] = []

    def run(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error.with_traceback(None))

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()

    def wait() -> list[BaseException]:
        for thread in threads:
            thread.join(WAIT)
            assert not thread.is_alive()
        return errors

    return wait
