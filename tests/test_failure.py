"""What a worker's end means: real workers that fail in every way, and words that mislead."""

import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzserver.fuzz.failure import MAX_FRAMES, MAX_STACK, Failure, FuzzerFault, Killed, failure_of
from fuzzserver.fuzz.reproducer import Reproducer
from fuzzserver.stack import Frame
from fuzzserver.wire.messages import ClientTag, client_message
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.process import ChildGroup
from fuzzserver.zig.test_runner import test_runner_argv
from tests.support_failures import (
    TESTS,
    WELL_UNDER_WAY,
    be_patient,
    build_failing,
    build_repro,
    let_time_fly,
    test_name,
)
from tests.support_fuzzing import PATIENCE

MIB = 1 << 20
HOW = {"hang": "hang", "memory": "out of memory"}
"""Why their drivers end the tests that do not end."""

FRAME = "/p/{file}:{line}:5: 0x10123 in {function} (test)\n    some code\n    ^\n"
ZIG = "/zig/lib"


@pytest.fixture(scope="module")
def children() -> Iterator[ChildGroup]:
    """What starts processes."""
    with ChildGroup() as group:
        yield group


class Workers:
    """Workers for the failing tests, each with a cache folder of its own."""

    def __init__(self, children: ChildGroup, executable: Path, folder: Path, lib_dir: Path) -> None:
        self._children = children
        self._executable = executable
        self._folder = folder
        self._lib_dir = lib_dir
        self._ends: dict[str, Failure | FuzzerFault | Killed] = {}

    def found(self, test: str) -> Failure:
        """How the test fails on the first input that the fuzzer tries."""
        if test not in self._ends:
            self._ends[test] = self.end(test)
        end = self._ends[test]
        assert isinstance(end, Failure)
        return end

    def end(
        self, test: str, tag: ClientTag = ClientTag.START_FUZZING, sig: int = signal.SIGFPE, log: bool = True
    ) -> Failure | FuzzerFault | Killed:
        """Run one and judge its end; one that is well under way gets ``sig``."""
        cache = self._folder / test / tag.name
        shutil.rmtree(cache, ignore_errors=True)
        (cache / "tmp" if log else cache).mkdir(parents=True)
        stderr = bytearray()
        with self._children.spawn(test_runner_argv(self._executable, cache, 1)) as child:
            child.send(client_message(tag, TESTS.index(test)))
            sent = False
            for name, data in child.output():
                stderr += data if name == "stderr" else b""
                if WELL_UNDER_WAY in stderr and not sent:
                    child.kill(sig)
                    sent = True
            status = child.wait()
        why = HOW[test] if sent and sig == signal.SIGFPE else "ended"
        fuzzer_log = cache / "tmp" / "libfuzzer.log"
        return failure_of(
            why,
            status,
            stderr.decode(),
            f"detail of {why}",
            fuzzer_log=fuzzer_log.read_text() if fuzzer_log.exists() else "",
            lib_dir=self._lib_dir,
        )


@pytest.fixture(scope="module")
def workers(
    client: ZigCompileClient, zig: Zig, work: Path, children: ChildGroup, tmp_path_factory
) -> Workers:
    """The real ones."""
    executable = build_failing(client, work, "-ffuzz")
    return Workers(children, executable, tmp_path_factory.mktemp("caches"), zig.lib_dir)


def places(failure: Failure) -> list[tuple[str, str]]:
    """Function and source line of each frame."""
    return [
        (frame.function, Path(frame.path).read_text().splitlines()[frame.line - 1].strip())
        for frame in failure.frames
    ]


@pytest.mark.parametrize(
    ("test", "kind", "message", "frames"),
    [
        (
            "error",
            "error",
            "error.Refused",
            [
                ("check", "if (size < 10_000) return error.Refused;"),
                ("refuse", "return check(input.len);"),
                ("returnsError", "try deep.refuse(input);"),
            ],
        ),
        (
            "panic",
            "panic",
            "boom at 64",
            [("panic", 'std.debug.panic("boom at {d}", .{input.len});'), ("panics", "deep.panic(input);")],
        ),
        (
            "bounds",
            "panic",
            "index out of bounds: index 68, len 4",
            [("outOfBounds", "std.mem.doNotOptimizeAway(table[4 + input.len]);")],
        ),
        (
            "segfault",
            "signal",
            "Segmentation fault at address 0x48",
            [("badPointer", "pointer.* = 1;")],
        ),
        ("hang", "hang", "detail of hang", [("spin", None), ("neverEnds", "deep.spin();")]),
        (
            "memory",
            "out of memory",
            "detail of out of memory",
            [("take", None), ("takesAllMemory", "while (true) try deep.take();")],
        ),
        ("exit", "exit", "exit code 0", []),
        ("recursion", "signal", "SIGSEGV", []),
        (
            "leak",
            "leak",
            None,
            [
                ("makeBuffer", "return std.testing.allocator.alloc(u8, 10);"),
                ("leaks", "_ = try deep.makeBuffer();"),
            ],
        ),
        ("logs", "error logs", "[parser] (err): 64 bytes are too many", []),
        (
            "double free",
            "signal",
            None,
            [("freesTwice", "std.testing.allocator.free(buffer);")],
        ),
        (
            "unwrap",
            "panic",
            "two\nlines: error.Refused",
            [
                ("check", "if (size < 10_000) return error.Refused;"),
                ("refuse", "return check(input.len);"),
                ("unwrapsError", "deep.refuse(input) catch |err| std.debug.panic"),
            ],
        ),
        (
            "fails before",
            "error",
            "error.NotReady",
            [("test.fails before", "if (true) return error.NotReady;")],
        ),
    ],
)
def test_real_workers(workers: Workers, test: str, kind: str, message: str | None, frames: list) -> None:
    """A worker that fails is known by kind, message and the user's frames, from the place that failed on."""
    failure = workers.found(test)
    assert failure.kind == kind
    assert message is None or failure.message == message
    found = places(failure)
    assert [function for function, _ in found] == [function for function, _ in frames]
    for (_, line), (_, expected) in zip(found, frames, strict=True):
        assert expected is None or expected in line
    assert bool(failure.stack) == bool(frames)


@pytest.mark.parametrize(
    "test",
    [
        "error",
        "panic",
        "bounds",
        "segfault",
        "hang",
        "memory",
        "exit",
        "recursion",
        "leak",
        "logs",
        "double free",
    ],
)
def test_seen_again(
    client: ZigCompileClient,
    work: Path,
    workers: Workers,
    children: ChildGroup,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    test: str,
) -> None:
    """In the build without instrumentation, with another input, the same failure has the same fingerprint."""
    found = workers.found(test)
    executable = build_repro(client, work)
    be_patient(monkeypatch)
    if test == "hang":
        let_time_fly(monkeypatch)
    reproducer = Reproducer(
        children, executable, test_name(test), tmp_path, timeout=PATIENCE, max_memory=200 * MIB
    )
    again = reproducer.run(b"another")
    assert again is not None
    assert found.same_as(again) and again.same_as(found)
    if test != "memory":  # It may be interrupted in either of two functions.
        assert again.fingerprint == found.fingerprint


def test_fault_of_the_fuzzer(workers: Workers) -> None:
    """Zig's fuzzer crashes over a test that has no branches; that is no failure of the test."""
    end = workers.end("skip")
    assert isinstance(end, FuzzerFault)
    assert end.message.startswith("Segmentation fault at address 0x0, in start (")
    assert "/fuzzer.zig:" in end.message


def test_fuzzer_that_gives_up(workers: Workers) -> None:
    """What the fuzzer cannot go on without is in its log, and only there."""
    end = workers.end("error", ClientTag.RUN_TEST)
    assert end == FuzzerFault("error: test runner never set unit test name")


def test_fuzzer_that_cannot_even_log(workers: Workers) -> None:
    """A panic of the fuzzer's is none of the test's."""
    end = workers.end("error", ClientTag.RUN_TEST, log=False)
    assert isinstance(end, FuzzerFault)
    assert end.message.startswith("failed to open fuzzer log file, in ")


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
def test_killed_from_outside(workers: Workers, sig: signal.Signals) -> None:
    """A worker that somebody ended has found nothing."""
    assert workers.end("hang", sig=sig) == Killed(sig.name)


def frame(function: str, file: str = "f.zig", line: int = 3) -> str:
    """A frame of a trace, with its source line and its caret."""
    return FRAME.format(function=function, file=file, line=line)


def runner_frames(file: str = "test_runner.zig") -> str:
    """What is below the fuzzed function in a worker's trace."""
    return (
        frame("fuzzer_one", file)
        + f"{ZIG}/fuzzer.zig:341:19: 0x119e50f in runOne (fuzzer)\n"
        + f"{ZIG}/fuzzer.zig:460:17: 0x119ef2f in fuzzer_start (fuzzer)\n"
        + frame("test.x", "main.zig")
        + "???:?:?: 0x0 in ??? (???)\n"
    )


def panic(message: str, *frames: str) -> Failure:
    """The failure of a panic with these frames on top."""
    end = failure_of("ended", -6, f"thread 1 panic: {message}\n{''.join(frames)}{runner_frames()}")
    assert isinstance(end, Failure)
    return end


def test_stack_is_as_printed() -> None:
    """The trace is kept whole, with source lines, and the frames end where the test runner begins."""
    failure = panic("boom", frame("sum"), frame("fuzzSum", "g.zig", 9))
    assert failure.stack == (frame("sum") + frame("fuzzSum", "g.zig", 9) + runner_frames()).rstrip()
    assert failure.frames == (Frame("/p/f.zig", 3, 5, "sum"), Frame("/p/g.zig", 9, 5, "fuzzSum"))


@pytest.mark.parametrize(
    ("message", "other"),
    [
        ("index out of bounds: index 4, len 4", "index out of bounds: index 17, len 5"),
        ("incorrect alignment 0x7fab10", "incorrect alignment 0x3"),
        ("unexpected token 'foo'", "unexpected token 'a longer one'"),
        ('cannot parse "x"', 'cannot parse ""'),
    ],
)
def test_input_in_the_message(message: str, other: str) -> None:
    """Numbers, addresses and quoted text depend on the input, and do not make another finding."""
    one, two = panic(message, frame("sum")), panic(other, frame("sum"))
    assert one.same_as(two)
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize(
    "other",
    [
        panic("boom", frame("sum", line=4), frame("fuzzSum")),
        panic("boom", frame("sum", "g.zig"), frame("fuzzSum")),
        panic("boom", frame("fuzzSum")),
        replace(panic("boom", frame("sum"), frame("fuzzSum")), kind="signal"),
    ],
)
def test_other_findings(other: Failure) -> None:
    """Another kind, function, file or line is another finding."""
    assert other.fingerprint != panic("boom", frame("sum"), frame("fuzzSum")).fingerprint


def test_texts_matter_where_there_are_no_frames() -> None:
    """A message may repeat the input; it tells findings apart only where nothing else does."""
    frames = (frame("sum"), frame("fuzzSum"))
    assert panic("bad: qwertz", *frames).fingerprint == panic("bad: asdf", *frames).fingerprint
    assert panic("bad: qwertz", *frames).same_as(panic("bad: asdf", *frames))
    assert panic("bad: qwertz").fingerprint != panic("bad: asdf").fingerprint
    assert not panic("bad: qwertz").same_as(panic("bad: asdf"))


def test_what_does_not_matter_to_a_fingerprint() -> None:
    """Columns, folders, std's frames, callers far away and the numbers of generic functions."""
    frames = [frame("parse__anon_12"), frame("b"), frame("c")]
    one = panic("boom", *frames, frame("d"))
    moved = [
        text.replace("/p/", "/elsewhere/").replace(":5:", ":7:").replace("_12", "_345") for text in frames
    ]
    std_frame = f"{ZIG}/std/mem.zig:1:2: 0x1 in copy (test)\n"
    two = panic("boom", std_frame, *moved, frame("e"))
    assert one.fingerprint == two.fingerprint
    assert len(one.fingerprint) == 12
    assert int(one.fingerprint, 16) >= 0


def test_fingerprints_stay() -> None:
    """Fingerprints are stored: those of earlier versions of this package must be found again."""
    assert panic("boom at 7", frame("sum"), frame("fuzzSum")).fingerprint == "cf5aa68beb27"


def test_where_it_was_interrupted() -> None:
    """Hangs in one function are one finding, at whatever line and of whatever length."""

    def hang(*frames: str, detail: str = "60 s") -> Failure:
        stderr = f"Arithmetic exception at address 0x16d5\n{''.join(frames)}{runner_frames()}"
        end = failure_of("hang", None, stderr, detail)
        assert isinstance(end, Failure)
        return end

    one = hang(frame("loop", line=3), frame("fuzzSum"))
    assert one.message == "60 s"
    assert one.fingerprint == hang(frame("loop", line=4), frame("b"), detail="10 s").fingerprint
    other = hang(frame("loop2"), frame("fuzzSum"))
    assert one.fingerprint != other.fingerprint
    assert one.same_as(other)
    silent = failure_of("out of memory", -9, "", "2 GiB")
    assert isinstance(silent, Failure)
    assert (silent.message, silent.stack, silent.frames) == ("2 GiB", "", ())
    assert not one.same_as(silent)


def test_interrupted_in_a_callback() -> None:
    """Instrumented code tells the fuzzer of each comparison: to be interrupted there is no fault of it."""
    callback = (
        f"{ZIG}/std/hash_map.zig:9:9: 0x1 in put (fuzzer)\n"
        f"{ZIG}/fuzzer.zig:70:5: 0x2 in __sanitizer_cov_trace_cmp8 (fuzzer)\n"
    )
    text = f"Arithmetic exception at address 0x1\n{callback}{frame('loop')}"
    for rest in (runner_frames(), ""):  # A thread of the test's has no runner below.
        end = failure_of("hang", None, text + rest, "60 s")
        assert isinstance(end, Failure)
        assert [each.function for each in end.frames] == ["loop"]


def test_hang_of_the_fuzzer() -> None:
    """A fuzzer that does not come to run the test is at fault itself."""
    at_work = runner_frames().partition("^\n")[2]  # Without the frame of what calls the test.
    text = f"Arithmetic exception at address 0x1\n{at_work}{frame('mainServer', 'test_runner.zig')}"
    end = failure_of("hang", None, text, "no run for 60 s")
    assert end == FuzzerFault(f"no run for 60 s, in runOne ({ZIG}/fuzzer.zig:341)")


def test_source_lines_are_no_panics() -> None:
    """The words of a panic in a source line of the trace, or in what was written before, do not count."""
    trace = frame("sum").replace("some code", 'std.debug.panic("thread 9 panic: {d}", .{7});')
    text = f"thread 3 panic: is what I print\nthread 1 panic: boom\n{trace}{runner_frames()}"
    end = failure_of("ended", -6, text)
    assert isinstance(end, Failure)
    assert (end.message, len(end.frames)) == ("boom", 1)


def test_colors() -> None:
    """Zig colours its traces if the environment asks for it."""
    colored = (
        "\x1b[1m/p/f.zig:3:5\x1b[0m: \x1b[2m0x10123 in sum (test)\x1b[0m\n    code\n    \x1b[32m^\x1b[0m\n"
    )
    end = failure_of("ended", 1, f"{colored}failed with error.Found\n")
    assert end == Failure(
        "error",
        "error.Found",
        "/p/f.zig:3:5: 0x10123 in sum (test)\n    code\n    ^",
        (Frame("/p/f.zig", 3, 5, "sum"),),
    )


@pytest.mark.parametrize(
    ("status", "stderr", "expected"),
    [
        (1, "failed with error.Utf8", Failure("error", "error.Utf8", "", ())),
        (1, "(unfinished line)failed with error.A\n", Failure("error", "error.A", "", ())),
        (1, "failed with error.A\nbut went on", Failure("exit", "exit code 1", "", ())),
        (1, "", Failure("exit", "exit code 1", "", ())),
        (2, "failed with error.A\n", Failure("exit", "exit code 2", "", ())),
        (1, "error logs detected\n", Failure("error logs", "error logs detected", "", ())),
        (-6, "", Failure("signal", "SIGABRT", "", ())),
        (-6, "panic: single-threaded\n", Failure("panic", "single-threaded", "", ())),
        (
            -4,
            "Illegal instruction at address 0x10\n",
            Failure("signal", "Illegal instruction at address 0x10", "", ()),
        ),
        (
            -6,
            "General protection exception (no address available)\n",
            Failure("signal", "General protection exception (no address available)", "", ()),
        ),
        (-63, "", Failure("signal", "signal 63", "", ())),
    ],
)
def test_words_without_a_trace(status: int, stderr: str, expected: Failure) -> None:
    """Release builds print no traces; other programs end with the same codes."""
    assert failure_of("ended", status, stderr) == expected


def test_exit_codes_differ() -> None:
    """Another exit code, or another error's number, is another finding."""
    for one, two in (
        (("ended", 3, ""), ("ended", 4, "")),
        (("ended", 1, "failed with error.E1"), ("ended", 1, "failed with error.E2")),
    ):
        first, second = failure_of(*one), failure_of(*two)
        assert isinstance(first, Failure) and isinstance(second, Failure)
        assert not first.same_as(second)
        assert first.fingerprint != second.fingerprint


def test_log_of_the_fuzzer_is_the_last_resort() -> None:
    """What the test runner says counts for more than what is in the log."""
    assert isinstance(failure_of("ended", 1, "failed with error.A\n", fuzzer_log="x"), Failure)
    assert failure_of("ended", 1, "some words of the test\n", fuzzer_log="x\n") == FuzzerFault("x")
    assert isinstance(failure_of("ended", 0, "", fuzzer_log="x"), Failure)


def test_endless_trace() -> None:
    """Of a trace of ten thousand frames, the beginning is kept."""
    failure = panic("too deep", *(frame(f"recurse{number}") for number in range(10_000)))
    assert len(failure.stack) == MAX_STACK
    assert [each.function for each in failure.frames] == [f"recurse{number}" for number in range(MAX_FRAMES)]


@pytest.mark.parametrize("lib", ["/opt/zig-0.14.1/lib", "/usr/lib/zig"])
def test_places_of_the_library(lib: str) -> None:
    """Zig's own files are known where releases, packages and distributions put them."""
    files = ("std/mem.zig", "std.zig", "compiler_rt/memset.zig", "fuzzer.zig")
    frames = [f"{lib}/{file}:1:1: 0x1 in copy (test)\n" for file in files]
    assert [each.function for each in panic("boom", *frames, frame("sum")).frames] == ["sum"]


def test_much_output_before_a_panic() -> None:
    """A test that is loud in each of its runs is judged in no time."""
    end = failure_of("ended", -6, "x\n" * 200_000 + "thread 1 panic: boom\n" + "x\n" * 200_000)
    assert end == Failure("panic", "boom", "", ())


def seconds(said: str, status: int) -> float:
    """How long it takes to judge that, at best."""
    times = []
    for _ in range(3):
        begin = time.thread_time()
        failure_of("ended", status, said)
        times.append(time.thread_time() - begin)
    return min(times)


@pytest.mark.parametrize(
    ("status", "part", "end"),
    [
        (1, "[", "\nerror logs detected"),
        (1, "(err): leaked [addr: 1, ", "\nx"),
        (1, "(err): memory address 0x1", "\nx"),
        (1, "failed with ", ""),
        (-6, "General protection exception (", "\nx"),
        (-6, "thread 1", "\nx"),
        (-6, "a:1: 0x1 in f (t)\nx\n", ""),
        (-6, "a:1: 0x1 in (\n", ""),
    ],
)
def test_hostile_words(status: int, part: str, end: str) -> None:
    """16 times the words of a crash that never is one take about 16 times as long, and not 256 times."""
    short = part * (50_000 // len(part))
    assert seconds(16 * short + end, status) < 80 * max(seconds(short + end, status), 0.002)


def overflow(*functions: str) -> Failure:
    """A full stack, told of to far out."""
    end = failure_of(
        "ended", -6, f"Segmentation fault at address 0x7ffe00\n{''.join(map(frame, functions * 50))}"
    )
    assert isinstance(end, Failure)
    return end


def test_where_the_stack_ran_out() -> None:
    """It may run out anywhere in the same recursion, and in what that calls: that is one finding."""
    one = overflow("parse", "parseList", "skip")
    assert one.fingerprint == overflow("skip", "parse", "parseList").fingerprint
    inner = replace(one, frames=(Frame("/p/f.zig", 9, 9, "read"), *one.frames[:-1]))
    assert one.fingerprint == inner.fingerprint
    assert one.fingerprint != overflow("parse", "parseList").fingerprint
    # Where the end of the recursion is in sight, it matters.
    short, other = (replace(one, frames=one.frames[start : start + 40]) for start in (0, 1))
    assert short.fingerprint != other.fingerprint


def test_project_in_a_folder_called_lib() -> None:
    """With the folder of Zig's sources known, a user's folder may have the name of one of Zig's."""
    text = f"thread 1 panic: boom\n{frame('copy', 'lib/std/x.zig')}{frame('sum')}{runner_frames()}"
    functions = []
    for lib_dir in (None, Path(ZIG)):
        end = failure_of("ended", -6, text, lib_dir=lib_dir)
        assert isinstance(end, Failure)
        functions.append([each.function for each in end.frames])
    assert functions == [["sum"], ["copy", "sum"]]
