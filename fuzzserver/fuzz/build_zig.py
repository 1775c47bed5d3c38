"""Which test executables a project has: asked of ``zig build``.

*Runs on* the caller's thread. *Takes* the folder of a ``build.zig`` and the name of a step. *Gives* a
``TestCommand`` for each executable of that step, with the modules, options, C sources and flags that
``build.zig`` gave it.

``zig build --verbose`` prints the command of each compile, cached or not. It is asked rather than
``build.zig`` read, since only running it tells what it does.
"""

import contextlib
import logging
import os
import re
import shlex
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fuzzserver.errors import BuildFailed, InputError, Stopped, ZigNotFound
from fuzzserver.fuzz.build_output import shorten, strip_colors
from fuzzserver.fuzz.heartbeat import heartbeat
from fuzzserver.fuzz.printed_command import is_test_command, parse_test_command
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.process import ChildGroup, ChildTimeout, describe_exit

__all__ = ["test_commands"]

log = logging.getLogger(__name__)

MAX_LINE = 256 * 1024
"""Bytes of one line: Zig writes arguments of more than 30 KiB to a file; quoting makes them up to 4 times as
long."""

MAX_OUTPUT = 256 * 1024
"""How much of what a build says is kept, in bytes: its end, where the errors are."""

LIST_STEPS_TIMEOUT = 60.0


def test_commands(
    zig: Zig, project: Path, step: str, options: Sequence[str], children: ChildGroup
) -> list[TestCommand]:
    """The test executables of ``zig build <step> <options>`` in the folder ``project``, by name.

    The step is run, and with it its tests; that some of them fail is only logged. InputError if there is
    no such project, step or option, or if the step compiles no tests; a ZigError if ``zig build`` fails
    before it comes to them; Stopped after a stop of ``children``.
    """
    project = _build_root(project)
    zig.check_supported()
    what = shlex.join(["zig", "build", step, *options])
    argv = [str(zig.path), "build", step, "--verbose", *options]
    stderr = _Stderr()
    log.info("running '%s' in '%s'", what, project)
    started = time.monotonic()
    with heartbeat(f"running {what}"):
        try:
            status = _run(argv, project, children, {"stderr": stderr.feed}, zig.timeout)
            how = describe_exit(status)
        except ChildTimeout:  # A test may hang: how it is compiled is known by then.
            status, how = 1, f"did not end in {zig.timeout:g} s and was ended (--zig-timeout sets the limit)"
            log.warning("'%s' %s", what, how)
    stderr.feed(b"\n")
    found = [parse_test_command(line, project) for line in stderr.commands]
    commands = _with_unique_names({_test_command(args, project) for args in found if args is not None})
    told = shorten(stderr.text(), zig.lib_dir)
    if not commands:
        raise _why_none(zig, project, step, options, children, status, how, told)
    log.info("ran '%s' in %.1f s: %d test executables", what, time.monotonic() - started, len(commands))
    if status != 0:
        log.warning("'%s' %s; going on with what it compiles:\n%s", what, how, told)
    return commands


test_commands.__test__ = False  # type: ignore[attr-defined]  # For pytest: no test.


def _build_root(project: Path) -> Path:
    # With symbolic links resolved, as Zig does: names of source files are relative to it.
    folder = project.resolve()
    if not folder.is_dir():
        reason = "is no folder" if folder.exists() else "does not exist"
        raise InputError(f"project folder '{project}' {reason}")
    # Else Zig would take one from a folder above.
    if not (folder / "build.zig").is_file():
        raise InputError(
            f"project folder '{project}' has no build.zig; name one that has, or a root source file"
        )
    return folder


def _run(
    argv: Sequence[str],
    cwd: Path,
    children: ChildGroup,
    take: Mapping[str, Callable[[bytes], None]],
    timeout: float | None = None,
) -> int:
    """Run a command to its end and return its status. ``take`` has what wants its output."""
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        with children.spawn(argv, cwd, _environment(cwd)) as child:
            # A step that reads its stdin shall find the end of it, and not wait for ever.
            with contextlib.suppress(ChildTimeout):
                child.wait(0)
            for name, data in child.output(deadline):
                if name in take:
                    take[name](data)
            status = child.wait(None if deadline is None else max(0.1, deadline - time.monotonic()))
    except OSError as error:
        if children.stopped:
            raise Stopped(f"'{shlex.join(argv)}' was stopped") from error
        raise ZigNotFound(f"cannot start Zig compiler '{argv[0]}': {error}") from error
    if children.stopped:
        raise Stopped(f"'{shlex.join(argv)}' was stopped")
    return status


def _environment(project: Path) -> dict[str, str] | None:
    """The user's own, so that the packages that it fetched are found. None if it can be left as it is."""
    if any(os.environ.get(name) for name in ("ZIG_GLOBAL_CACHE_DIR", "XDG_CACHE_HOME", "HOME")):
        return None
    # Zig refuses to start if it does not know where to put what projects share.
    return {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(project / ".zig-cache" / "global")}


class _Stderr:
    """Sorts the lines of a build as they come: compile commands, and the end of all else."""

    def __init__(self) -> None:
        self.commands: dict[bytes, None] = {}
        """Lines that look like test commands, each once: a command that fails is printed again."""
        self._line = bytearray()
        self._rest: deque[bytes] = deque()
        self._size = 0

    def feed(self, data: bytes) -> None:
        """More output."""
        for part in data.splitlines(keepends=True):
            self._line += part[: max(0, MAX_LINE - len(self._line))]
            if part.endswith(b"\n"):
                self._add(strip_colors(bytes(self._line).rstrip(b"\r\n")))
                self._line.clear()

    def _add(self, line: bytes) -> None:
        if is_test_command(line):
            self.commands[line] = None
            line = b"--listen=-"  # Of the rest, it is enough to know that here was a command.
        self._rest.append(line)
        self._size += len(line) + 1
        while self._size > MAX_OUTPUT:
            self._size -= len(self._rest.popleft()) + 1

    def text(self) -> str:
        """The end of what was said."""
        return b"\n".join(self._rest).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class _Found:
    """A test command, and what the user calls the executable."""

    command: TestCommand
    bin_name: str


_REPLACED_OPTIONS = ("--cache-dir", "--global-cache-dir", "--name", "--test-runner")
"""With a value. We say where to put things and what to run tests with."""

_REPLACED_FLAGS = ("--listen=-", "-ffuzz", "-fno-emit-bin")
"""Whether to build for the fuzzer is ours to say; and a step that only checks compiles the same tests."""


def _test_command(args: Sequence[str], project: Path) -> _Found:
    kept: list[str] = []
    replaced: dict[str, str] = {}
    for_c = False
    rest = iter(args)
    for arg in rest:
        if arg in ("-cflags", "-rcflags"):
            for_c = True
        elif arg == "--":
            for_c = False
        if for_c or arg not in _REPLACED_OPTIONS + _REPLACED_FLAGS:
            kept.append(arg)
        elif arg in _REPLACED_OPTIONS:
            replaced[arg] = next(rest, "")
    name = _relative(next(arg for arg in kept if arg.startswith("-Mroot=")).removeprefix("-Mroot="), project)
    if "--test-runner" in replaced:
        log.warning("the test runner of %s is replaced by Zig's own, which can fuzz", name)
    global_cache_dir = replaced.get("--global-cache-dir")
    return _Found(
        TestCommand(
            name=name,
            args=tuple(kept),
            project=project,
            cache_root=project / replaced.get("--cache-dir", ".zig-cache"),
            global_cache_dir=None if global_cache_dir is None else project / global_cache_dir,
        ),
        replaced.get("--name", ""),
    )


def _relative(path: str, project: Path) -> str:
    """Relative to the project if it lies in it."""
    full = Path(os.path.normpath(project / path))
    return str(full.relative_to(project)) if full.is_relative_to(project) else str(full)


def _with_unique_names(found: set[_Found]) -> list[TestCommand]:
    """By name; where two roots are the same, with what else tells them apart, in the same order each time."""
    unique = {each.command: each for each in sorted(found, key=lambda each: each.bin_name)}
    roots = Counter(each.command.name for each in unique.values())
    names = Counter((each.command.name, each.bin_name) for each in unique.values())
    commands = []
    seen: Counter[str] = Counter()
    for each in sorted(
        unique.values(), key=lambda each: (each.command.name, each.bin_name, each.command.args)
    ):
        root = each.command.name
        name = root
        if names[root, each.bin_name] < roots[root]:
            name = f"{root} ({each.bin_name})"
        seen[name] += 1
        commands.append(replace(each.command, name=f"{name} #{seen[name]}" if seen[name] > 1 else name))
    return commands


_NO_STEP = re.compile(r"no step named '|no such step: ")
_NO_OPTION = re.compile(
    r"invalid option: |unrecognized argument: |error: expected -D\w+ to be ", re.IGNORECASE
)
_NO_ACCESS = re.compile(r"\b(?:NotDir|AccessDenied|PermissionDenied|ReadOnlyFileSystem|NoSpaceLeft)\b")


def _why_none(
    zig: Zig,
    project: Path,
    step: str,
    options: Sequence[str],
    children: ChildGroup,
    status: int,
    how: str,
    told: str,
) -> InputError | BuildFailed:
    """Why a build that ended so gave no test command."""
    what = f"'{shlex.join(['zig', 'build', step, *options])}' in '{project}'"
    if _NO_STEP.search(told):
        return InputError(
            f"there is no step '{step}' in '{project}'{_steps(zig, project, options, children)}"
        )
    if status == 0:
        return InputError(f"{what} compiles no tests{_steps(zig, project, options, children)}")
    if _NO_OPTION.search(told):
        return InputError(f"{what} was refused:\n{told}\n'zig build --help' there lists its options")
    hint = f"\nit must be able to write to '{project / '.zig-cache'}'" if _NO_ACCESS.search(told) else ""
    return BuildFailed(f"{what} {how}:\n{told or 'it did not say why'}{hint}")


_STEP = re.compile(rb"^  (\S.*?)(?: \(default\))?(?:  .*)?$", re.MULTILINE)


def _steps(zig: Zig, project: Path, options: Sequence[str], children: ChildGroup) -> str:
    """Which steps there are, to be put behind an error."""
    output = bytearray()
    argv = [str(zig.path), "build", "--list-steps", *options]

    def take(data: bytes) -> None:
        output.extend(data[: MAX_OUTPUT - len(output)])

    with contextlib.suppress(ChildTimeout):
        _run(argv, project, children, {"stdout": take}, LIST_STEPS_TIMEOUT)
    steps = [name.decode("utf-8", "replace") for name in _STEP.findall(output)]
    return f"; its steps are: {', '.join(steps)}" if steps else "; 'zig build --list-steps' there lists them"
