"""What workers of each release said when they failed, and the same failures seen again with each release.

``said_by_zig/`` has the tests, and what real workers printed on running them: with the middle of long traces
left out, and other paths. ``-safe`` are builds with ``-OReleaseSafe``, which trace no errors.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzzserver.fuzz.endless_trace import EndlessTrace
from fuzzserver.fuzz.failure import Failure, FuzzerFault, failure_of
from fuzzserver.fuzz.reproducer import Reproducer
from fuzzserver.paths import repro_runner
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.process import ChildGroup
from tests.support_fuzzing import PATIENCE
from tests.zigs import every_zig, zig_of

pytestmark = pytest.mark.usefixtures("nothing_left")

MIB = 1 << 20
FOLDER = Path(__file__).parent / "said_by_zig"
RELEASES = sorted(path.stem for path in FOLDER.glob("*.txt"))
BEFORE_0_16 = ("0.14.1", "0.15.2")

every_release = pytest.mark.parametrize("release", RELEASES)


def ends_of(release: str) -> dict[str, tuple[int, str]]:
    """Exit status and stderr, by the name of the test."""
    parts = re.split(r"^=== (.*): (-?\d+)\n", (FOLDER / f"{release}.txt").read_text(), flags=re.MULTILINE)[1:]
    return {
        name: (int(status), said)
        for name, status, said in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


def judged(release: str, test: str) -> Failure | FuzzerFault:
    """What the end of a worker means."""
    status, said = ends_of(release)[test]
    end = failure_of("hang" if test == "hang" else "ended", status, said, "60 s", lib_dir=Path("/zig/lib"))
    assert isinstance(end, (Failure, FuzzerFault))
    assert failure_of("hang" if test == "hang" else "ended", status, said, "60 s") == end
    return end


EXPECTED = {
    "error": ("error", r"error\.Refused", ["refuse", "returnsError"]),
    "expectEqual": ("error", r"error\.TestExpectedEqual", ["expectsEqual"]),
    "panic": ("panic", "boom", ["panic", "panics"]),
    "bounds": ("panic", r"index out of bounds: index \d+, len 4", ["outOfBounds"]),
    "segfault": ("signal", "Segmentation fault at address 0x[0-9a-f]+", ["badPointer"]),
    "leak": (
        "leak",
        r"memory address 0x\w+ leaked|leaked \[addr: \w+, len: 32 .*\]",
        ["makeBuffer", "leaks"],
    ),
    "log": ("error logs", r"\[parser\] \(err\): \d+ bytes are too many", []),
    "double free": ("signal|panic", r"Segm.*|double free of \[addr: [0-9a-f]+, len: 32 .*\]", ["freesTwice"]),
    "unwrap": ("panic", "two\nlines: error.Refused", ["refuse", "unwrapsError"]),
    "write after free": ("signal|panic", r"Segm.*|write after free at \*[0-9a-f]+", ["writesAfterFree"]),
    "hang": ("hang", "60 s", ["spin", "neverEnds"]),
    "exit": ("exit", "exit code 0", []),
    "no fuzz test": ("panic", "missed call to std.testing.fuzz", []),
}
"""Kind, message and functions of each."""


@every_release
def test_what_it_means(release: str) -> None:
    """Each release's words are understood, whatever has changed in them."""
    for test in ends_of(release).keys() & EXPECTED.keys():
        end = judged(release, test)
        kind, message, functions = EXPECTED[test]
        assert isinstance(end, Failure), test
        assert re.fullmatch(kind, end.kind), test
        assert re.fullmatch(message, end.message), test
        found = [frame.function for frame in end.frames]
        if release.endswith("-safe"):
            assert found == functions or (kind in ("error", "leak") and not found) or "write after" in test
        elif "write after free at" in end.message:  # Noticed too late: it is told where the memory is from.
            assert found == ["makeBuffer", *functions]
        else:
            assert found == functions, test


@every_release
def test_places(release: str) -> None:
    """The place is where the user's code failed, in whichever file Zig found out."""
    for test, place in {"panic": "/p/deep.zig:6:17", "double free": "/p/faults.zig:46:31"}.items():
        end = judged(release, test)
        assert isinstance(end, Failure)
        assert end.place == place


def test_releases_agree() -> None:
    """The same failure in the same source has the same id with each release."""
    for test in ("error", "panic", "bounds", "segfault", "leak", "log", "unwrap", "hang", "exit"):
        found = {judged(release, test) for release in RELEASES if not release.endswith("-safe")}
        assert len({end.fingerprint for end in found if isinstance(end, Failure)}) == 1, test


@every_release
def test_recursion(release: str) -> None:
    """A full stack is told of since 0.16, with a first frame that has no column; before, in no word."""
    if release.endswith("-safe"):
        assert "recursion" not in ends_of(release)
        return
    end = judged(release, "recursion")
    assert isinstance(end, Failure)
    assert end.kind == "signal"
    if release in BEFORE_0_16:
        assert (end.message, end.frames) == ("SIGSEGV", ())
    else:
        assert end.message.startswith("Segmentation fault at address 0x7ff")
        assert [frame.function for frame in end.frames[:3]] == ["recurse"] * 3
        assert end.place == "/p/deep.zig:8:1"


def test_fault_of_the_fuzzer() -> None:
    """Zig 0.15 crashes over a test without branches, as 0.14 does."""
    end = judged("0.15.2", "passes")
    assert end == FuzzerFault("Segmentation fault at address 0x0, in start (/zig/lib/fuzzer.zig:607)")


def test_corpus_in_use() -> None:
    """A panic of the fuzzer's before it comes to a test is its own, though it is called by the runner."""
    said = (
        "thread 7 panic: corpus of 'main.test.x' is in use by another fuzzer\n"
        "/zig/lib/std/debug.zig:9:9: 0x1 in panic__func_12 (fuzzer)\n"
        "/zig/lib/fuzzer.zig:818:44: 0x2 in init (fuzzer)\n"
        "/zig/lib/fuzzer.zig:2199:22: 0x3 in fuzzer_main (fuzzer)\n"
        "/zig/lib/compiler/test_runner.zig:244:37: 0x4 in mainServer (test)\n"
    )
    end = failure_of("ended", -6, said)
    assert end == FuzzerFault(
        "corpus of 'main.test.x' is in use by another fuzzer, in init (/zig/lib/fuzzer.zig:818)"
    )


def test_addresses_without_a_prefix() -> None:
    """Addresses that 0.17 writes as bare hexadecimal numbers do not make another finding."""
    one, two = (
        failure_of(
            "ended", 1, f"[SafeAllocator] (err): leaked [addr: {address}, len: 3 (0x3) align: 1] at:\n"
        )
        for address in ("7f0043034010", "7ffbadbad000")
    )
    assert isinstance(one, Failure) and isinstance(two, Failure)
    assert one.same_as(two)
    assert one.fingerprint == two.fingerprint


RECURSING = b"/p/deep.zig:11:19: 0x120007f in recurse (t)\n    return recurse(n + 1);\n                  ^\n"
CRASH = b"Segmentation fault at address 0x7ffe00\n"


def frames_heard(before: bytes, frame: bytes) -> int | None:
    """How many times ``frame`` is heard after ``before`` until that is enough; None if it never is."""
    trace = EndlessTrace()
    assert not trace.feed(before)
    return next((number for number in range(1, 1000) if trace.feed(frame)), None)


@pytest.mark.parametrize(
    ("before", "frame"),
    [
        (CRASH, RECURSING),
        (b"thread 7 panic: two\nlines\n", RECURSING),
        (b"panic: single-threaded\n" + 20 * RECURSING + b"\nstack trace:\n", RECURSING),
        (b"General protection exception (no address available)\n", RECURSING),
        (b"thread 1 panic: printed\n" + 50 * b"words\n" + CRASH, RECURSING),
        (CRASH, b"\x1b[1m/p/deep.zig:11:19\x1b[0m: \x1b[2m0x12 in recurse (t)\x1b[0m\n"),
        (CRASH, b"???:?:?: 0x12 in ??? (???)\n"),
        (CRASH, b"/" + 4000 * b"p" + b".zig:1: 0x12 in f (t)\n" + 9000 * b"x" + b"\n^\n"),
    ],
)
def test_endless_trace(before: bytes, frame: bytes) -> None:
    """A crash whose trace goes on and on need not be heard to its end, whatever its frames are like."""
    assert frames_heard(before, frame) == 201


@pytest.mark.parametrize(
    ("before", "frame"),
    [
        (b"0x1: 0x2: 0x3\n" * 1000, RECURSING),
        (b"[parser] (warn): recovered from panic: bad token\n", RECURSING),
        (b"thread 1 panic: printed\n" + 50 * b"words\n", RECURSING),
        (CRASH, 100 * RECURSING + b"trace:\n"),
        (CRASH, b"panic: again\n" + RECURSING),
        (CRASH, b"words: 0x1\n"),
    ],
)
def test_loud_test_is_no_endless_trace(before: bytes, frame: bytes) -> None:
    """What prints traces of its own, or words like those of a crash, goes on."""
    assert frames_heard(before, frame) is None


def test_endless_trace_in_pieces() -> None:
    """However it is cut."""
    trace = EndlessTrace()
    said = CRASH + 200 * RECURSING + RECURSING.partition(b"\n")[0]
    assert not any(trace.feed(bytes([byte])) for byte in said)
    assert trace.feed(b"\n")


def test_short_trace_is_heard_to_its_end() -> None:
    """Of the traces of all other failures, the end matters: it tells whose fault it is."""
    for release in RELEASES:
        assert not any(EndlessTrace().feed(said.encode()) for _, said in ends_of(release).values())


@pytest.fixture(scope="module")
def children() -> Iterator[ChildGroup]:
    """What starts processes."""
    with ChildGroup() as group:
        yield group


@every_zig
def test_seen_again(version: str, zig_cache: Path, work: Path, children: ChildGroup, tmp_path: Path) -> None:
    """One runner reproduces with each release what the workers of all of them found."""
    client = ZigCompileClient(zig_of(version), zig_cache)
    cache = work / "said_by_zig"
    result = client.compile(
        [
            *("test", "--test-runner", str(repro_runner()), f"-Mroot={FOLDER / 'faults.zig'}"),
            *("--cache-dir", str(cache), "--global-cache-dir", str(zig_cache), "--name", "faults"),
        ],
        cache,
        FOLDER,
    )
    executable = result.output_dir / "faults"
    smith = client.zig.release.reads_smith

    def run(test: str, data: bytes) -> Failure | None:
        name = f"faults.test.{test}"
        return Reproducer(children, executable, name, tmp_path, timeout=PATIENCE).run(data)

    recorded = version if version in RELEASES else "0.14.1"
    for test in ("error", "panic", "segfault", "leak", "log", "double free", "recursion", "exit"):
        found, again = judged(recorded, test), run(test, b"12345678")
        assert isinstance(found, Failure) and again is not None
        assert found.same_as(again) and again.same_as(found), test
        assert found.fingerprint == again.fingerprint or test == "recursion", test
    assert run("passes", b"1") is None
    assert run("skips", b"1") is None
    assert run("io", b"1") is None
    # What the fuzzer of 0.16 and later writes for "false", and for a text of three bytes.
    values = bytes(8) + b"\3\0\0\0bug" if smith else b"bug"
    again = run("values", values)
    assert again is not None and again.message == "error.Found"
    assert run("values", values[:-1] + b"G") is None
    with children.spawn([str(executable), "--list", "faults.test.two", "faults.test.no fuzz test"]) as child:
        listed = b"".join(data for name, data in child.output() if name == "stdout")
        assert child.wait() == 0
    assert listed == b"2\tfaults.test.two\n"
