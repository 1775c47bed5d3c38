"""What the end of a fuzz worker means, by its exit status and by what it wrote on stderr.

Zig's test runner and its panic handler have no code for each case, only words. Those of a worker and
those of ``repro_runner.zig`` are the same, so that a failure is recognised when it is seen again.
"""

import hashlib
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fuzzserver.stack import Frame, frame_of

__all__ = ["Failure", "FuzzerFault", "Killed", "Kind", "failure_of"]

Kind = Literal["error", "panic", "signal", "leak", "error logs", "exit", "hang", "out of memory"]

MAX_MESSAGE = 1000
MAX_STACK = 16 * 1024
"""How much of a trace is kept, in characters: its beginning. An endless recursion has megabytes."""
MAX_FRAMES = 64
FINGERPRINT_FRAMES = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """What a fuzzer looks for: an input on which the test fails."""

    kind: Kind
    message: str
    """``error.Found``, a panic's text, ``Segmentation fault at address 0x8``, ``exit code 0``, say."""
    stack: str
    """The trace as Zig printed it, with its source lines; empty if there was none."""
    frames: tuple[Frame, ...]
    """The user's part of the trace: from where it failed to the function that is fuzzed, without std."""

    @property
    def place(self) -> str:
        """``path:line:column`` where the user's code was; empty if there was no trace of it."""
        return "".join(f"{frame.path}:{frame.line}:{frame.column}" for frame in self.frames[:1])

    @property
    def fingerprint(self) -> str:
        """An id for this finding: 12 hex digits, equal for equal places in equal sources.

        Of what was interrupted, only the innermost function counts: the line is a matter of chance.
        """
        if self.kind in ("hang", "out of memory"):
            parts = [self.kind, *(_plain_function(frame) for frame in self.frames[:1])]
        else:
            # A message may hold any part of the input; where the place is known, it says more.
            is_name = self.kind in ("error", "exit") or not self.frames
            parts = [self.kind, self._plain_message() if is_name else ""]
            for frame in self.frames[:FINGERPRINT_FRAMES]:
                parts += [_plain_function(frame), os.path.basename(frame.path), str(frame.line)]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:12]

    def same_as(self, other: "Failure") -> bool:
        """Whether this is the same finding, seen in another build of the same source.

        Traces need not be equal, for another build may inline other functions.
        """
        if self.kind != other.kind:
            return False
        if self.kind in ("hang", "out of memory") or self._plain_message() == other._plain_message():
            return True
        return bool(self.frames) and self.fingerprint == other.fingerprint

    def _plain_message(self) -> str:
        """The message without what depends on the input: numbers, addresses, quoted text."""
        # In names of errors and in exit codes, numbers do matter.
        return self.message if self.kind in ("error", "exit") else _VARIABLE.sub("#", self.message)


@dataclass(frozen=True, slots=True)
class FuzzerFault:
    """Zig's fuzzer itself failed: nothing is wrong with the test, and there is no input to look at."""

    message: str


@dataclass(frozen=True, slots=True)
class Killed:
    """Somebody ended the worker; that says nothing of the test."""

    signal_name: str


_VARIABLE = re.compile(r"""0x[0-9a-fA-F]+|\d+|'[^'\n]*'|"[^"\n]*\"""")
_GENERIC = re.compile(r"__anon_\d+")
"""The number differs in each build."""
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_UNKNOWN_FRAME = re.compile(r"\?\?\?:\?:\?: 0x[0-9a-f]+ in .*")
_CARET = re.compile(r" *\^?")
_PANIC = re.compile(r"(?:thread \d+ )?panic: (?P<message>.*)")
_SIGNAL = re.compile(
    r"(?P<message>(?:Segmentation fault|Illegal instruction|Bus error|Arithmetic exception)"
    r" at address 0x[0-9a-f]+|General protection exception \(.*\))"
)
_FAILED = re.compile(r"failed with (?P<message>error\..*)")
_LEAKED = re.compile(r"\(err\): (?P<message>memory address 0x[0-9a-f]+ leaked)")
_LOGGED = re.compile(r"\[[^\]]*\] \(err\): .*")
_LOGS_DETECTED = "error logs detected"
_LIBRARY = re.compile(r"/lib/(zig/)?((std|compiler_rt)(/|\.zig$)|fuzzer\.zig$)")
"""Files of Zig's own, if nobody says where its folder is; some systems have it in ``/usr/lib/zig``."""
_RUNNERS = ("test_runner.zig", "repro_runner.zig")
_BORDER = "fuzzer_one"
"""The function of test runners that calls the function that is fuzzed."""
_ENTRANCE = "fuzzer_"
"""Functions of the fuzzer that test runners call; none of them is ever inlined."""


def failure_of(
    why: Literal["ended", "hang", "out of memory"],
    status: int | None,
    stderr: str,
    detail: str = "",
    *,
    fuzzer_log: str = "",
    lib_dir: Path | None = None,
) -> Failure | FuzzerFault | Killed:
    """Judge the end of a worker, or of a reproduction.

    ``why``: whether it ended by itself, or was ended by its driver, which interrupts it by SIGFPE to
    see its trace; ``detail`` then is the message, and ``status`` does not matter. Otherwise ``status`` is
    as in ``subprocess``, negative for a signal. ``fuzzer_log`` is the text of ``tmp/libfuzzer.log`` in
    the cache folder, if this process wrote one: what the fuzzer cannot go on without is told only
    there. ``lib_dir`` is the folder of Zig's own sources.
    """
    lines = _COLORS.sub("", stderr).rstrip().split("\n")
    if why != "ended":
        interrupted = _crash(lines)
        return _judge(why, detail, interrupted[2] if interrupted else [], lib_dir)
    assert status is not None, "a process that ended has a status"
    if status in (-signal.SIGKILL, -signal.SIGTERM):
        return Killed(_signal_name(status))
    if status < 0:
        return _of_signal(status, lines, lib_dir)
    if status == 1 and (found := _of_checks(lines, lib_dir)) is not None:
        return found
    if status == 1 and fuzzer_log.strip():
        return FuzzerFault(fuzzer_log.strip()[-MAX_MESSAGE:])
    return Failure("exit", f"exit code {status}", "", ())


def _of_signal(status: int, lines: list[str], lib_dir: Path | None) -> Failure | FuzzerFault:
    """A panic, or a signal that Zig's handler told of; without words, a signal like a full stack's."""
    crash = _crash(lines)
    if crash is None:
        return Failure("signal", _signal_name(status), "", ())
    return _judge(*crash, lib_dir)


def _of_checks(lines: list[str], lib_dir: Path | None) -> Failure | None:
    """What the test runner checks after each run; its last line says what it found."""
    if failed := _FAILED.search(lines[-1]):
        trace = next((lines[start:end] for start, end in _traces(lines) if end == len(lines) - 1), [])
        return _failure("error", failed["message"], trace, lib_dir)
    if lines[-1].endswith(_LOGS_DETECTED):
        logged = (match[0] for line in lines if (match := _LOGGED.search(line)))
        return _failure("error logs", next(logged, _LOGS_DETECTED), [], lib_dir)
    for index, line in enumerate(lines):
        if leaked := _LEAKED.search(line):
            return _failure(
                "leak", leaked["message"], lines[index + 1 : _trace_end(lines, index + 1)], lib_dir
            )
    return None


def _crash(lines: list[str]) -> tuple[Kind, str, list[str]] | None:
    """The last panic or signal that stderr tells of: kind, message and trace."""
    # Source lines in a trace may hold the same words: "@panic("panic: ...")".
    in_trace = {index for start, end in _traces(lines) for index in range(start, end)}
    start = len(lines)  # Where the trace begins that follows.
    for index in reversed(range(len(lines))):
        if index in in_trace:
            start = index
        elif panic := _PANIC.search(lines[index]):
            trace = lines[start : _trace_end(lines, start)]
            more = lines[index + 1 : start] if trace else []
            return "panic", "\n".join([panic["message"], *more]), trace
        elif signalled := _SIGNAL.search(lines[index]):
            return "signal", signalled["message"], lines[start : _trace_end(lines, start)]
    return None


def _judge(kind: Kind, message: str, trace: list[str], lib_dir: Path | None) -> Failure | FuzzerFault:
    """A crash is a failure of the test, unless the trace shows the fuzzer at work, and no test."""
    frames = _frames(trace)
    in_fuzzer = [frame for frame in frames if _is_fuzzer(frame.path, lib_dir)]
    entered = any(frame.function.startswith(_ENTRANCE) for frame in in_fuzzer)
    if entered and not any(_is_border(frame) for frame in frames):
        place = in_fuzzer[0]
        return FuzzerFault(f"{message}, in {place.function} ({place.path}:{place.line})")
    return _failure(kind, message, trace, lib_dir)


def _failure(kind: Kind, message: str, trace: list[str], lib_dir: Path | None) -> Failure:
    frames = tuple(_user_frames(_frames(trace), lib_dir))[:MAX_FRAMES]
    return Failure(kind, message[:MAX_MESSAGE], "\n".join(trace)[:MAX_STACK], frames)


def _frames(trace: list[str]) -> list[Frame]:
    return [frame for line in trace if (frame := frame_of(line))]


def _user_frames(frames: list[Frame], lib_dir: Path | None) -> Iterator[Frame]:
    """Frames above the test runner's that are in no file of Zig's."""
    for frame in frames:
        if _is_border(frame):
            return
        if not _is_library(frame.path, lib_dir) and os.path.basename(frame.path) not in _RUNNERS:
            yield frame


def _is_border(frame: Frame) -> bool:
    return frame.function.startswith(_BORDER) and os.path.basename(frame.path) in _RUNNERS


def _is_fuzzer(path: str, lib_dir: Path | None) -> bool:
    return os.path.basename(path) == "fuzzer.zig" and _is_library(path, lib_dir)


def _is_library(path: str, lib_dir: Path | None) -> bool:
    return path.startswith(f"{lib_dir}/") if lib_dir is not None else _LIBRARY.search(path) is not None


def _traces(lines: list[str]) -> Iterator[tuple[int, int]]:
    """Where traces begin and end."""
    index = 0
    while index < len(lines):
        end = _trace_end(lines, index)
        if end > index:
            yield index, end
        index = max(end, index + 1)


def _trace_end(lines: list[str], index: int) -> int:
    """The end of the trace that begins at ``index``: each frame may be followed by source and caret."""
    while index < len(lines) and (frame_of(lines[index]) or _UNKNOWN_FRAME.fullmatch(lines[index])):
        index += 1
        if index + 1 < len(lines) and _CARET.fullmatch(lines[index + 1]):
            index += 2
    return index


def _plain_function(frame: Frame) -> str:
    return _GENERIC.sub("", frame.function)


def _signal_name(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
