"""One compile through the compiler's server protocol (Zig: ``buildWasmBinary``, ``evalZigProcess``).

The compiler is started with ``--listen=-``, told ``update`` and ``exit``, and read to the end: its
version, the files that it read, where the result is, and the errors.
"""

import logging
import os
import shlex
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fuzzserver.errors import (
    CompileErrors,
    MessageError,
    Stopped,
    ZigError,
    ZigNotFound,
    ZigProcessFailed,
    ZigProtocolVersionMismatch,
    ZigTimeout,
)
from fuzzserver.freshness import Stamps
from fuzzserver.step import SourcePath
from fuzzserver.wire.error_bundle import ErrorBundle
from fuzzserver.wire.messages import (
    ClientTag,
    EmitDigest,
    FileSystemInput,
    PathPrefix,
    ServerTag,
    client_message,
    parse_emit_bin_path,
    parse_file_system_inputs,
)
from fuzzserver.wire.release import ServerMessage, ServerReader, ZigRelease
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.leftovers import Leftovers
from fuzzserver.zig.process import COMPILER_LIMITS, ChildGroup, ChildTimeout, PipedChild, describe_exit

__all__ = ["CompileResult", "ZigCompileClient"]

MAX_STDERR = 256 * 1024
"""How much of a compiler's stderr is passed on, in bytes: its end."""

MAX_LAST_WORDS = 16 * 1024
"""Characters of it in an error."""

MAX_STDOUT = 64 * 1024 * 1024
"""Bytes of messages, which name files and quote source lines: a compile of a large program sends some MB."""

LIBRARY_INTERVAL = 1.0
"""Seconds in which the standard library is looked at once: most inputs are in there, some nine hundred, and
they change with the compiler."""
LIBRARY = ("std/", "compiler_rt")
"""How the names of its files begin, below the compiler's folder."""

log = logging.getLogger(__name__)
compiler_log = logging.getLogger("fuzzserver.compiler")
"""What compilers write on stderr, as it is."""


@dataclass(frozen=True, slots=True)
class CompileResult:
    """What one successful compile gave."""

    output_dir: Path
    """Holds the artifact under the name that ``--name`` gave it."""
    cache_dir: Path
    cache_hit: bool
    inputs: tuple[SourcePath, ...]
    """The files that the compiler read, without whole folders."""

    def artifact(self, name: str) -> Path:
        """The path of what was made; ZigProcessFailed unless it is a regular file in the cache.

        Nobody can be sure of that who is told so by a compiler, and a fifo would be read for ever.
        """
        path = self.output_dir / name
        cache_dir = os.path.realpath(self.cache_dir)
        if os.path.commonpath((cache_dir, os.path.realpath(self.output_dir))) != cache_dir:
            raise ZigProcessFailed(
                f"the compiler says that it wrote '{path}', which is outside of its cache '{self.cache_dir}'"
            )
        try:
            is_file = stat.S_ISREG(os.lstat(path).st_mode)
        except OSError as error:
            raise ZigProcessFailed(
                f"the compiler says that it wrote '{path}', which cannot be found: {error.strerror}"
            ) from error
        if not is_file:
            raise ZigProcessFailed(f"the compiler says that it wrote '{path}', which is no regular file")
        return path


class _Known:
    """A result that may be given again, for as long as what it was made of is as it was."""

    def __init__(self, result: CompileResult, own: Stamps, library: Stamps) -> None:
        """``own``: all that is no part of the standard ``library``."""
        self.result = result
        self._own = own
        self._library = library
        self._looked = -LIBRARY_INTERVAL

    def is_current(self) -> bool:
        """Whether a compile would give the same."""
        if not self._own.are_current():
            return False
        now = time.monotonic()
        if now < self._looked + LIBRARY_INTERVAL:
            return True
        if not self._library.are_current():
            return False
        self._looked = now
        return True


class ZigCompileClient:
    """Runs compiles, from any number of threads. ``stop`` ends those that run."""

    def __init__(self, zig: Zig, global_cache_dir: Path) -> None:
        """``global_cache_dir`` is where what projects share lies, unless a compile names another."""
        self.zig = zig
        self.global_cache_dir = global_cache_dir
        self._children = ChildGroup()
        # Guards all below.
        self._lock = threading.Lock()
        self._running: dict[PipedChild, Leftovers] = {}
        self._nice = 0
        # By the arguments that led to them.
        self._results: dict[tuple[str, ...], _Known] = {}

    def set_nice(self, nice: int) -> None:
        """How much compilers give way to other programs: those that run, and later ones."""
        with self._lock:
            if nice != self._nice:
                self._nice = nice
                for child in self._running:
                    child.set_nice(nice)

    def check(self) -> None:
        """Find out about the compiler, unless that was done. Raises a ZigError, or Stopped."""
        try:
            self.zig.learn(self._children)
        except ZigError as error:
            if self._children.stopped:
                raise Stopped(f"Zig compiler '{self.zig.path}' was stopped") from error
            raise

    def compile(
        self,
        args: Sequence[str],
        cache_dir: Path,
        cwd: Path | None = None,
        *,
        global_cache_dir: Path | None = None,
        logs_errors: bool = True,
    ) -> CompileResult:
        """Run ``zig *args --listen=-`` in ``cwd``.

        ``args`` begin with the subcommand; ``cache_dir`` is what they name as
        ``--cache-dir``, and ``global_cache_dir`` as ``--global-cache-dir`` if that is not ours.
        Raises a ZigError; CompileErrors if the source is at fault, which is then
        logged already, unless ``logs_errors`` is False; Stopped after ``stop``.
        """
        cwd = cwd or _working_folder()
        argv = [str(self.zig.path), *args, "--listen=-"]
        command = shlex.join(argv)
        self.check()
        session = _Session(self.zig.version, self.zig.release, cache_dir, cwd)
        leftovers = Leftovers((cache_dir, global_cache_dir or self.global_cache_dir))
        try:
            with (
                self._children.spawn(argv, cwd, limits=COMPILER_LIMITS) as child,
                self._noted(child, leftovers),
            ):
                status = self._run(child, session, command)
        except OSError as error:
            if self._children.stopped:
                raise Stopped(f"the following command was stopped:\n{command}") from error
            raise ZigNotFound(f"cannot start Zig compiler '{self.zig.path}': {error}") from error
        except ZigProtocolVersionMismatch:
            self.zig.forget()  # It was replaced while we run: the next compile is to see for itself.
            raise
        finally:
            leftovers.remove()
        if self._children.stopped:
            raise Stopped(f"the following command was stopped:\n{command}")
        if status != 0:
            how = (
                f"exited with error code {status}"
                if status > 0
                else f"terminated unexpectedly ({describe_exit(status)})"
            )
            raise ZigProcessFailed(f"{session.last_words()}the following command {how}:\n{command}")
        if text := session.stderr_text():
            compiler_log.warning("%s", text)
        if session.error_bundle.messages:
            text = session.error_bundle.render()
            if logs_errors:
                compiler_log.error("%s", text.rstrip("\n"))
                log.error(
                    "the following command failed with %d compilation errors:\n%s",
                    len(session.error_bundle.messages),
                    command,
                )
            raise CompileErrors(text)
        if session.output_dir is None:
            raise ZigProcessFailed(f"child process failed to report result\n{command}")
        inputs = self._source_paths(session, args, cwd, cache_dir, global_cache_dir or self.global_cache_dir)
        return CompileResult(session.output_dir, cache_dir, session.cache_hit, inputs)

    def compile_if_changed(
        self, args: Sequence[str], cache_dir: Path, artifact: str, *, logs_errors: bool = True
    ) -> CompileResult:
        """As ``compile``, for what is asked for again and again; ``artifact`` is the name of the file made.

        If neither that nor any file that it was made of has changed, no compiler is started.
        """
        with self._lock:
            known = self._results.get(tuple(args))
        if known is not None and known.is_current():
            return replace(known.result, cache_hit=True)
        started = time.time_ns()
        result = self.compile(args, cache_dir, logs_errors=logs_errors)
        now_known = self._known(result, artifact, started)
        with self._lock:
            self._results.pop(tuple(args), None)
            if now_known is not None:
                self._results[tuple(args)] = now_known
        return result

    def _known(self, result: CompileResult, artifact: str, started: int) -> _Known | None:
        """What may be given again; None if nobody can tell for how long."""
        inputs = {path.location for path in result.inputs}
        beginnings = tuple(f"{self.zig.lib_dir}/{each}" for each in LIBRARY)
        library = {path for path in inputs if path.startswith(beginnings)}
        made_of = Stamps.of([str(self.zig.path), *(inputs - library)], before=started) if inputs else None
        made_of_library = Stamps.of(library, before=started)
        made = Stamps.of([str(result.output_dir / artifact)])
        if made_of is None or made_of_library is None or made is None:
            return None
        return _Known(result, Stamps(made_of.stamps + made.stamps), made_of_library)

    @contextmanager
    def _noted(self, child: PipedChild, leftovers: Leftovers) -> Iterator[None]:
        """Know of a compiler while it runs: how nice it is, and what it leaves behind if it is ended.

        That is by an error of ours, or by ``stop``.
        """
        with self._lock:
            self._running[child] = leftovers
            if self._nice:
                child.set_nice(self._nice)
        try:
            yield
        except BaseException:
            leftovers.note(child)
            raise
        finally:
            with self._lock:
                del self._running[child]

    def _run(self, child: PipedChild, session: "_Session", command: str) -> int:
        deadline = time.monotonic() + self.zig.timeout
        reader = ServerReader(self.zig.release)
        left = MAX_STDOUT
        child.send(client_message(ClientTag.UPDATE) + client_message(ClientTag.EXIT))
        try:
            for name, data in child.output(deadline):
                if name == "stderr":
                    session.stderr += data
                    del session.stderr[:-MAX_STDERR]
                    continue
                left -= len(data)
                if left < 0:
                    raise MessageError(f"its messages have more than {MAX_STDOUT} bytes")
                for message in reader.feed(data):
                    session.handle(message)
            status = child.wait(max(0.1, deadline - time.monotonic()))
            if status == 0:  # Else it is no wonder that the last message is not whole.
                reader.finish()
            return status
        except ChildTimeout:
            raise ZigTimeout(
                f"{session.last_words()}the following command did not end in {self.zig.timeout:g} s "
                f"and was ended (--zig-timeout sets the limit):\n{command}"
            ) from None
        except MessageError as error:
            if self._children.stopped:
                raise Stopped(f"the following command was stopped:\n{command}") from error
            raise ZigProcessFailed(
                f"{session.last_words()}the following command broke its protocol ({error}):\n{command}"
            ) from error

    def _source_paths(
        self, session: "_Session", args: Sequence[str], cwd: Path, cache_dir: Path, global_cache_dir: Path
    ) -> tuple[SourcePath, ...]:
        roots = {
            PathPrefix.CWD: str(cwd),
            PathPrefix.BUILD_ROOT: str(cwd / _build_root(args)),
            PathPrefix.ZIG_LIB: str(self.zig.lib_dir),
            PathPrefix.LOCAL_CACHE: str(cache_dir),
            PathPrefix.GLOBAL_CACHE: str(global_cache_dir),
        }
        return tuple(_source_path(roots[item.prefix], item.sub_path) for item in session.inputs)

    def stop(self) -> None:
        """End all compiles; those who wait for them get Stopped."""
        with self._lock:
            for child, leftovers in self._running.items():
                leftovers.note(child)
        self._children.stop()


def _working_folder() -> Path:
    """Ours; if somebody has removed it, one that is always there: what it compiles has absolute paths."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/")


def _build_root(args: Sequence[str]) -> str:
    """What a compile is told that the paths of its modules are relative to."""
    return args[args.index("--build-root") + 1] if "--build-root" in args[:-1] else ""


def _source_path(root: str, sub_path: str) -> SourcePath:
    # Reached through a symbolic link, a file below the compiler's folder comes with its whole path.
    if os.path.isabs(sub_path):
        return SourcePath(*os.path.split(sub_path))
    return SourcePath(root, sub_path)


class _Session:
    """What the messages of one compile said so far."""

    def __init__(self, version: str, release: ZigRelease, cache_dir: Path, cwd: Path) -> None:
        self._version = version
        self._release = release
        self._cache_dir = cache_dir
        self._cwd = cwd
        self.error_bundle = ErrorBundle()
        self.output_dir: Path | None = None
        self.cache_hit = False
        self.inputs: list[FileSystemInput] = []
        self.stderr = bytearray()

    def handle(self, message: ServerMessage) -> None:
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
                self.inputs = parse_file_system_inputs(message.body, self._release.path_prefixes)

    def stderr_text(self) -> str:
        """The end of what the compiler wrote on stderr."""
        return self.stderr.decode("utf-8", "replace").strip()

    def last_words(self) -> str:
        """What of it belongs in an error, with a line break unless it is empty."""
        text = self.stderr_text()[-MAX_LAST_WORDS:]
        return text + "\n" if text else ""
