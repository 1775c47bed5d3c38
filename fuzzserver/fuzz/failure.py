"""What the end of a fuzz worker means, by its exit status and by what it wrote on stderr.

Zig's test runner and its panic handler have no code for each case, only words. Those of a worker and
those of ``repro_runner.zig`` are the same, so that a failure is recognised when it is seen again.
"""

import hashlib
import os
import re
import signal
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from fuzzserver.stack import Frame, frame_of

__all__ = ["Failure", "FuzzerFault", "Killed", "Kind", "failure_of", "is_frame", "without_colors"]

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

        Of what was interrupted, only the innermost function counts: the line is a matter of chance. So is
        where the stack ran out; of an endless recursion, the functions count that recur farther out.
        """
        if self.kind in ("hang", "out of memory"):
            parts = [self.kind, *(_plain_function(frame) for frame in self.frames[:1])]
        elif self.kind == "signal" and len(self.frames) == MAX_FRAMES:
            outer = self.frames[MAX_FRAMES // 2 :]
            parts = ["recursion", *sorted({_plain_function(frame) for frame in outer})]
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


_VARIABLE = re.compile(r"""0x[0-9a-fA-F]+|\b[0-9a-f]{8,}\b|\d+|'[^'\n]*'|"[^"\n]*\"""")
_GENERIC = re.compile(r"__(anon|func)_\d+")
"""The number differs in each build."""
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_UNKNOWN_FRAME = re.compile(r"\?\?\?:\?:\?: 0x[0-9a-f]+ in .*")
_EMPTY_TRACE = "(empty stack trace)"
"""What allocators say in builds that do not note who called."""
_CARET = re.compile(r" *\^?")
_PANIC = re.compile(r"(?:thread \d+ )?panic: (?P<message>.*)")
# In the brackets of the following there are none of the kind that begins them: so nothing is looked at twice,
# however many begin and do not end.
_SIGNAL = re.compile(
    r"(?P<message>(?:Segmentation fault|Illegal instruction|Bus error|Arithmetic exception)"
    r" at address 0x[0-9a-f]+|General protection exception \([^()]*\))"
)
_FAILED = re.compile(r"failed with (?P<message>error\..*)")
_LEAKED = re.compile(
    r"\(err\): (?P<message>memory address 0x[0-9a-f]+ leaked|leaked \[addr: [0-9a-f]+, [^\[\]]*\])"
)
_LOGGED = re.compile(r"\[[^\[\]]*\] \(err\): .*")
_LOGS_DETECTED = "error logs detected"
_LIBRARY = re.compile(r"/lib/(zig/)?((std|compiler_rt)(/|\.zig$)|fuzzer\.zig$)")
"""Files of Zig's own, if nobody says where its folder is; some systems have it in ``/usr/lib/zig``."""
_RUNNERS = ("test_runner.zig", "repro_runner.zig")
_BORDERS = ("fuzzer_one", "test_one")
"""The function of test runners that calls the function that is fuzzed: until Zig 0.15, and since 0.16."""
_ERROR_CONTEXT = "error return context:"
"""What Zig writes since 0.16 before the trace of an error that led to a panic, which has a trace as well."""


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
    lines = without_colors(stderr).rstrip().split("\n")
    if why != "ended":
        interrupted = _crash(lines)
        return _judge(replace(interrupted or _Crash(why, "", [], []), kind=why, message=detail), lib_dir)
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
    return _judge(crash, lib_dir)


def _of_checks(lines: list[str], lib_dir: Path | None) -> Failure | None:
    """What the test runner checks after each run; its last line says what it found."""
    if failed := _FAILED.search(lines[-1]):
        trace = next((lines[start:end] for start, end in _traces(lines) if end == len(lines) - 1), [])
        return _failure("error", failed["message"], trace, _frames(trace), lib_dir)
    if lines[-1].endswith(_LOGS_DETECTED):
        logged = (match[0] for line in lines if (match := _LOGGED.search(line)))
        return _failure("error logs", next(logged, _LOGS_DETECTED), [], [], lib_dir)
    for index, line in enumerate(lines):
        if leaked := _LEAKED.search(line):
            trace = lines[index + 1 : _trace_end(lines, index + 1)]
            trace = [] if trace == [_EMPTY_TRACE] else trace
            return _failure("leak", leaked["message"], trace, _frames(trace), lib_dir)
    return None


@dataclass(frozen=True, slots=True)
class _Crash:
    """What Zig's handlers tell of a panic or of a signal."""

    kind: Kind
    message: str
    stack: list[str]
    """The lines of all its traces, from the first to that of the crash itself."""
    frames: list[Frame]
    """Of the crash itself, after those of the error that led to it."""
    earlier: list[Frame] = field(default_factory=list)
    """Where the memory came from that turned out to be spoilt only when no code of the user's ran."""


def _crash(lines: list[str]) -> _Crash | None:
    """The last panic or signal that stderr tells of."""
    traces = list(_traces(lines))
    # Source lines in a trace may hold the same words: "@panic("panic: ...")".
    in_trace = {index for start, end in traces for index in range(start, end)}
    for index in reversed(range(len(lines))):
        if index in in_trace:
            continue
        if panic := _PANIC.search(lines[index]):
            return _panic(panic["message"], index + 1, _after(index, traces), lines)
        if signalled := _SIGNAL.search(lines[index]):
            following = _after(index, traces)
            trace = lines[slice(*following[0])] if following else []
            return _Crash("signal", signalled["message"], trace, _frames(trace))
    return None


def _after(index: int, traces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return traces[bisect(traces, (index, index)) :]


def _panic(message: str, index: int, traces: list[tuple[int, int]], lines: list[str]) -> _Crash:
    """A panic whose message may go on at ``index``, followed by ``traces``.

    Before that of the panic, there may be others since Zig 0.16: of an error, of an allocation, of how it
    was freed. Each has a title then.
    """
    if not traces:
        return _Crash("panic", message, [], [])
    first = own = traces[0]
    for start, end in traces[1:]:
        if lines[start - 1].rstrip().endswith(":"):
            own = start, end
    # Not the title of the first.
    words = lines[index : first[0] - (own != first)]
    stack = lines[index + len(words) : own[1]]
    frames = _frames(lines[slice(*own)])
    earlier = _frames(lines[slice(*first)]) if own != first else []
    if earlier and lines[first[0] - 1] == _ERROR_CONTEXT:
        frames = earlier + frames
    return _Crash("panic", "\n".join([message, *words]), stack, frames, earlier)


def _judge(crash: _Crash, lib_dir: Path | None) -> Failure | FuzzerFault:
    """A crash is a failure of the test, unless the trace shows the fuzzer at work, and no test.

    A test may call the fuzzer as well, which tells of its comparisons and asks it for values; and a trace
    of a thread of its own, or one that is cut, does not come to the test runner.
    """
    frames = [frame for frame in crash.frames if frame.unit != "compiler_rt"]
    is_whole = any(os.path.basename(frame.path) in _RUNNERS for frame in frames)
    if is_whole and _is_fuzzer(frames[0]) and not any(_is_border(frame) for frame in frames):
        # What it calls of std says less.
        place = next((frame for frame in frames if frame.path.endswith("/fuzzer.zig")), frames[0])
        return FuzzerFault(f"{crash.message}, in {place.function} ({place.path}:{place.line})")
    failure = _failure(crash.kind, crash.message, crash.stack, crash.frames, lib_dir)
    earlier = _user_frames(crash.earlier, lib_dir)
    return failure if failure.frames else replace(failure, frames=earlier)


def _failure(
    kind: Kind, message: str, stack: list[str], frames: list[Frame], lib_dir: Path | None
) -> Failure:
    user_frames = _user_frames(frames, lib_dir)
    return Failure(kind, message[:MAX_MESSAGE], "\n".join(stack)[:MAX_STACK], user_frames)


def _frames(trace: list[str]) -> list[Frame]:
    return [frame for line in trace if (frame := frame_of(line))]


def _user_frames(frames: list[Frame], lib_dir: Path | None) -> tuple[Frame, ...]:
    """Frames above the test runner's that are in no file of Zig's."""
    found: list[Frame] = []
    for frame in frames:
        # In an optimized build, the runner's may be left out.
        if _is_border(frame) or (found and _is_fuzzer(frame)):
            break
        if not _is_library(frame.path, lib_dir) and os.path.basename(frame.path) not in _RUNNERS:
            found.append(frame)
    return tuple(found[:MAX_FRAMES])


def _is_border(frame: Frame) -> bool:
    return frame.function.startswith(_BORDERS) and os.path.basename(frame.path) in _RUNNERS


def _is_fuzzer(frame: Frame) -> bool:
    return frame.unit == "fuzzer"


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
    if index < len(lines) and lines[index] == _EMPTY_TRACE:
        return index + 1
    while index < len(lines) and is_frame(lines[index]):
        index += 1
        if index + 1 < len(lines) and _CARET.fullmatch(lines[index + 1]):
            index += 2
    return index


def is_frame(line: str) -> bool:
    """Whether it tells of a frame, be it one that Zig knows nothing of."""
    return frame_of(line) is not None or _UNKNOWN_FRAME.fullmatch(line) is not None


def without_colors(text: str) -> str:
    """As Zig prints it to a file."""
    return _COLORS.sub("", text)


def _plain_function(frame: Frame) -> str:
    return _GENERIC.sub("", frame.function)


def _signal_name(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
