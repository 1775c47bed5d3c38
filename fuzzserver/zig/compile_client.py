"""One compile through the compiler's server protocol (Zig: ``buildWasmBinary``, ``evalZigProcess``).

The compiler is started with ``--listen=-``, told ``update`` and ``exit``, and read to the end: its
version, the files that it read, where the result is, and the errors.
"""

import logging
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzzserver.errors import (
    CompileErrors,
    MessageError,
    Stopped,
    ZigNotFound,
    ZigProcessFailed,
    ZigProtocolVersionMismatch,
    ZigTimeout,
)
from fuzzserver.step import SourcePath
from fuzzserver.wire.error_bundle import ErrorBundle
from fuzzserver.wire.messages import (
    ClientTag,
    EmitDigest,
    FileSystemInput,
    Message,
    MessageReader,
    PathPrefix,
    ServerTag,
    client_message,
    parse_emit_bin_path,
    parse_file_system_inputs,
)
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.process import ChildGroup, ChildTimeout, PipedChild, describe_exit

__all__ = ["CompileResult", "ZigCompileClient"]

MAX_STDERR = 256 * 1024
"""How much of a compiler's stderr is passed on, in bytes: its end."""

log = logging.getLogger(__name__)
compiler_log = logging.getLogger("fuzzserver.compiler")
"""What compilers write on stderr, as it is."""


@dataclass(frozen=True, slots=True)
class CompileResult:
    """What one successful compile gave."""

    output_dir: Path
    """Holds the artifact under the name that ``--name`` gave it."""
    cache_hit: bool
    inputs: tuple[SourcePath, ...]
    """The files that the compiler read, without whole folders."""


class ZigCompileClient:
    """Runs compiles, from any number of threads. ``stop`` ends those that run."""

    def __init__(self, zig: Zig, global_cache_dir: Path) -> None:
        """``global_cache_dir`` is where what projects share lies, unless a compile names another."""
        self.zig = zig
        self.global_cache_dir = global_cache_dir
        self._children = ChildGroup()

    def compile(
        self,
        args: Sequence[str],
        cache_dir: Path,
        cwd: Path | None = None,
        *,
        global_cache_dir: Path | None = None,
    ) -> CompileResult:
        """Run ``zig *args --listen=-`` in ``cwd``.

        ``args`` begin with the subcommand; ``cache_dir`` is what they name as
        ``--cache-dir``, and ``global_cache_dir`` as ``--global-cache-dir`` if that is not ours.
        Raises a ZigError; CompileErrors if the source is at fault, which is then
        logged already; Stopped after ``stop``.
        """
        cwd = cwd or Path.cwd()
        argv = [str(self.zig.path), *args, "--listen=-"]
        command = shlex.join(argv)
        self.zig.check_supported()
        session = _Session(self.zig.version, cache_dir, cwd)
        try:
            with self._children.spawn(argv, cwd) as child:
                status = self._run(child, session, command)
        except OSError as error:
            if self._children.stopped:
                raise Stopped(f"the following command was stopped:\n{command}") from error
            raise ZigNotFound(f"cannot start Zig compiler '{self.zig.path}': {error}") from error
        if self._children.stopped:
            raise Stopped(f"the following command was stopped:\n{command}")
        if status != 0:
            how = (
                f"exited with error code {status}"
                if status > 0
                else f"terminated unexpectedly ({describe_exit(status)})"
            )
            raise ZigProcessFailed(f"{session.stderr_text()}the following command {how}:\n{command}")
        if text := session.stderr_text():
            compiler_log.warning("%s", text.rstrip("\n"))
        if session.error_bundle.messages:
            text = session.error_bundle.render()
            compiler_log.error("%s", text.rstrip("\n"))
            log.error(
                "the following command failed with %d compilation errors:\n%s",
                len(session.error_bundle.messages),
                command,
            )
            raise CompileErrors(text)
        if session.output_dir is None:
            raise ZigProcessFailed(f"child process failed to report result\n{command}")
        inputs = self._source_paths(session, cwd, cache_dir, global_cache_dir or self.global_cache_dir)
        return CompileResult(session.output_dir, session.cache_hit, inputs)

    def _run(self, child: PipedChild, session: "_Session", command: str) -> int:
        deadline = time.monotonic() + self.zig.timeout
        reader = MessageReader()
        child.send(client_message(ClientTag.UPDATE) + client_message(ClientTag.EXIT))
        try:
            for name, data in child.output(deadline):
                if name == "stderr":
                    session.stderr += data
                    del session.stderr[:-MAX_STDERR]
                    continue
                for message in reader.feed(data):
                    session.handle(message)
            status = child.wait(max(0.1, deadline - time.monotonic()))
            if status == 0:  # Else it is no wonder that the last message is not whole.
                reader.finish()
            return status
        except ChildTimeout:
            raise ZigTimeout(
                f"{session.stderr_text()}the following command did not end in {self.zig.timeout:g} s "
                f"and was ended (--zig-timeout sets the limit):\n{command}"
            ) from None
        except MessageError as error:
            if self._children.stopped:
                raise Stopped(f"the following command was stopped:\n{command}") from error
            raise ZigProcessFailed(
                f"{session.stderr_text()}the following command broke its protocol ({error}):\n{command}"
            ) from error

    def _source_paths(
        self, session: "_Session", cwd: Path, cache_dir: Path, global_cache_dir: Path
    ) -> tuple[SourcePath, ...]:
        roots = {
            PathPrefix.CWD: str(cwd),
            PathPrefix.ZIG_LIB: str(self.zig.lib_dir),
            PathPrefix.LOCAL_CACHE: str(cache_dir),
            PathPrefix.GLOBAL_CACHE: str(global_cache_dir),
        }
        return tuple(_source_path(roots[item.prefix], item.sub_path) for item in session.inputs)

    def stop(self) -> None:
        """End all compiles; those who wait for them get Stopped."""
        self._children.stop()


def _source_path(root: str, sub_path: str) -> SourcePath:
    # Reached through a symbolic link, a file below the compiler's folder comes with its whole path.
    if os.path.isabs(sub_path):
        return SourcePath(*os.path.split(sub_path))
    return SourcePath(root, sub_path)


class _Session:
    """What the messages of one compile said so far."""

    def __init__(self, version: str, cache_dir: Path, cwd: Path) -> None:
        self._version = version
        self._cache_dir = cache_dir
        self._cwd = cwd
        self.error_bundle = ErrorBundle()
        self.output_dir: Path | None = None
        self.cache_hit = False
        self.inputs: list[FileSystemInput] = []
        self.stderr = bytearray()

    def handle(self, message: Message) -> None:
        """Take in one message; other tags than these are none of our business."""
        match message.tag:
            case ServerTag.ZIG_VERSION:
                server_version = message.body.decode("utf-8", "replace")
                if server_version != self._version:
                    raise ZigProtocolVersionMismatch(
                        f"Zig protocol version mismatch: 'zig version' says '{self._version}', "
                        f"the compiler server says '{server_version}'"
                    )
            case ServerTag.ERROR_BUNDLE:
                self.error_bundle = ErrorBundle.parse(message.body)
            case ServerTag.EMIT_DIGEST if len(message.body) == EmitDigest.SIZE:
                emit_digest = EmitDigest.parse(message.body)
                self.cache_hit = emit_digest.cache_hit
                self.output_dir = self._cache_dir / "o" / emit_digest.digest.hex()
            case ServerTag.EMIT_DIGEST:
                self.cache_hit, path = parse_emit_bin_path(message.body)
                self.output_dir = (self._cwd / path).parent
            case ServerTag.FILE_SYSTEM_INPUTS:
                self.inputs = parse_file_system_inputs(message.body)

    def stderr_text(self) -> str:
        """The end of what the compiler wrote on stderr, with a line break unless it is empty."""
        text = self.stderr.decode("utf-8", "replace").strip()
        return text + "\n" if text else ""
