"""Seeing failures again, and making their inputs small, with real tests that fail."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuzzserver.errors import Stopped, TestRunnerError
from fuzzserver.fuzz import reproducer as module
from fuzzserver.fuzz.failure import Failure
from fuzzserver.fuzz.reproducer import Reproducer
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.process import ChildGroup
from tests.support_failures import TESTS, be_patient, build_repro, let_time_fly, test_name
from tests.support_fuzzing import PATIENCE
from tests.support_time import WAIT, eventually
from tests.support_zig_children import processes_naming

pytestmark = pytest.mark.usefixtures("nothing_left")

MIB = 1 << 20
LEFTOVERS = bytes(range(256)) * 16
EXPECTED = Failure("error", "error.TestUnexpectedResult", "", ())
"""What ``std.testing.expect`` gives."""

Make = Callable[..., Reproducer]


@pytest.fixture(scope="module")
def executable(client: ZigCompileClient, work: Path) -> Path:
    """The failing tests, with the runner that reproduces."""
    return build_repro(client, work)


@pytest.fixture
def children() -> Iterator[ChildGroup]:
    """What starts the processes."""
    with ChildGroup() as group:
        yield group


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says where it is may be slow."""
    be_patient(monkeypatch)


@pytest.fixture
def make(executable: Path, children: ChildGroup, tmp_path: Path) -> Make:
    """Makes a reproducer for a test."""

    def make(
        test: str, executable: Path = executable, timeout: float = PATIENCE, max_memory: int = 2048 * MIB
    ) -> Reproducer:
        return Reproducer(
            children, executable, test_name(test), tmp_path, timeout=timeout, max_memory=max_memory
        )

    return make


def runner(children: ChildGroup, executable: Path, *args: object) -> tuple[int, str, str]:
    """Run the runner as people do; its exit status, stdout and stderr."""
    output = {"stdout": b"", "stderr": b""}
    with children.spawn([str(executable), *map(str, args)]) as child:
        for name, data in child.output():
            output[name] += data
        return child.wait(), output["stdout"].decode(), output["stderr"].decode()


def file_with(folder: Path, data: bytes) -> Path:
    """An input file."""
    path = folder / "input"
    path.write_bytes(data)
    return path


def script(folder: Path, code: str) -> Path:
    """An executable that misbehaves as no test does."""
    path = folder / "script"
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("test", "kind", "message"),
    [
        ("error", "error", "error.Refused"),
        ("panic", "panic", "boom at 3"),
        ("bounds", "panic", "index out of bounds: index 7, len 4"),
        ("segfault", "signal", "Segmentation fault at address 0xb"),
        ("exit", "exit", "exit code 0"),
        ("recursion", "signal", "SIGSEGV"),
        ("logs", "error logs", "[parser] (err): 3 bytes are too many"),
        ("fails before", "error", "error.NotReady"),
    ],
)
def test_failures(make: Make, test: str, kind: str, message: str) -> None:
    """A test that fails on the given bytes is a failure, by kind and message."""
    failure = make(test).run(b"abc")
    assert failure is not None
    assert (failure.kind, failure.message) == (kind, message)


def test_leak(make: Make) -> None:
    """Memory that the test does not free is a failure, with the place where it was got."""
    failure = make("leak").run(b"abc")
    assert failure is not None
    assert failure.kind == "leak"
    assert [frame.function for frame in failure.frames] == ["makeBuffer", "leaks"]


def test_hang(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that does not end in time is interrupted where it is."""
    let_time_fly(monkeypatch)
    failure = make("hang", timeout=1000.0).run(b"")
    assert failure is not None
    assert (failure.kind, failure.message) == ("hang", "did not end within 1000 s")
    assert [frame.function for frame in failure.frames] == ["spin", "neverEnds"]
    assert "deep.zig" in failure.stack and "Arithmetic" not in failure.stack


def test_memory(make: Make) -> None:
    """A test that takes too much memory is interrupted where it is, long before the time is over."""
    failure = make("memory", max_memory=100 * MIB).run(b"")
    assert failure is not None
    assert (failure.kind, failure.message) == ("out of memory", "used more than 100 MiB")
    assert failure.frames[-1].function == "takesAllMemory"


@pytest.mark.parametrize("test", ["passes", "skip", "equals", "stdout", "remembers"])
def test_passes(make: Make, test: str) -> None:
    """A test that passes, skips, or writes what looks like an answer is none."""
    assert make(test).run(b"abc") is None


def test_reading_past_the_end(make: Make) -> None:
    """One byte past the input is a crash, where a fuzzer with its padded inputs sees nothing."""
    for size in (0, 1, 2, 4, 4096, 65536):
        assert make("past the end").run(bytes(size)) is None
    failure = make("past the end").run(b"abc")
    assert failure is not None
    assert failure.kind == "signal"
    assert failure.frames[0].function == "readsPastTheEnd"


def test_command(make: Make, children: ChildGroup, executable: Path, tmp_path: Path) -> None:
    """The command that people can run shows what the fuzzer showed, and exits as the test did."""
    path = file_with(tmp_path, b"canyoufindme")
    argv = make("equals").argv(path)
    assert argv == [str(executable), test_name("equals"), str(path)]
    status, stdout, stderr = runner(children, *argv)
    assert (status, stdout) == (1, "")
    assert "expect(" in stderr
    assert stderr.endswith("failed with error.TestUnexpectedResult\n")
    path.write_bytes(b"cannot")
    assert runner(children, *argv) == (0, "passed\n", "")


def test_true_input_of_a_padded_file(make: Make) -> None:
    """The true input is found in a fuzzer's file, where bytes of earlier inputs follow it."""
    reproducer = make("equals")
    data = b"canyoufindme" + LEFTOVERS[12:]
    assert len(data) == 4096
    assert reproducer.run(data) is None
    assert reproducer.shortest_prefix(data, EXPECTED) == b"canyoufindme"


@pytest.mark.parametrize("data", [b"", b"canyoufindm", LEFTOVERS])
def test_no_prefix(make: Make, data: bytes) -> None:
    """Without a prefix on which the test fails, there is none."""
    assert make("equals").shortest_prefix(data, EXPECTED) is None


@pytest.mark.parametrize("data", [b"", b"x", LEFTOVERS])
def test_empty_prefix(make: Make, data: bytes) -> None:
    """A test that fails on anything fails on nothing."""
    assert make("error").shortest_prefix(data, Failure("error", "error.Refused", "", ())) == b""


def test_prefixes_that_fail_otherwise(make: Make) -> None:
    """Shorter inputs that fail in another way are passed over."""
    reproducer = make("two failures")
    assert reproducer.shortest_prefix(LEFTOVERS, Failure("panic", "five", "", ())) == LEFTOVERS[:5]
    assert reproducer.shortest_prefix(LEFTOVERS, Failure("error", "error.Other", "", ())) == LEFTOVERS[:2]
    assert reproducer.shortest_prefix(LEFTOVERS, Failure("error", "error.None", "", ())) is None
    assert reproducer.shortest_prefix(LEFTOVERS[:5], Failure("error", "error.None", "", ())) is None


def test_prefix_that_needs_the_runs_before(make: Make, monkeypatch) -> None:
    """What fails only in a process that has run other inputs before does not reproduce."""
    monkeypatch.setattr(module, "MAX_OTHER_FAILURES", 4)
    failure = Failure("error", "error.Remembered", "", ())
    assert make("remembers").shortest_prefix(LEFTOVERS, failure) is None


def test_search_among_other_failures_ends(make: Make, monkeypatch) -> None:
    """A test that fails otherwise on each shorter input is given up."""
    monkeypatch.setattr(module, "MAX_OTHER_FAILURES", 3)
    runs = []
    reproducer = make("exit")
    execute = reproducer._execute
    monkeypatch.setattr(reproducer, "_execute", lambda argv: runs.append(argv[-1]) or execute(argv))
    assert reproducer.shortest_prefix(LEFTOVERS, EXPECTED) is None
    assert runs == ["0", "1", "2"]


def test_test_that_fails_before_it_gets_an_input(make: Make) -> None:
    """A test that fails by itself fails with the empty input."""
    assert make("fails before").shortest_prefix(b"abc", Failure("error", "error.NotReady", "", ())) == b""


def test_prefix_that_hangs(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit is that of one prefix, and the shortest that exceeds it is found."""
    let_time_fly(monkeypatch)
    hang = Failure("hang", "", "", ())
    assert make("hangs on x", timeout=1000.0).shortest_prefix(b"xxxxxx", hang) == b"xxx"


def test_many_prefixes_are_quick(make: Make, monkeypatch) -> None:
    """All prefixes of a fuzzer's file are tried in one process."""
    reproducer = make("passes")
    runs = []
    execute = reproducer._execute
    monkeypatch.setattr(reproducer, "_execute", lambda argv: runs.append(execute(argv)) or runs[-1])
    assert reproducer.shortest_prefix(LEFTOVERS, EXPECTED) is None
    ((failure, told),) = runs
    assert failure is None
    assert told[-2:] == ["4096", "passed"]


def test_minimize(make: Make) -> None:
    """What the failure does not need is left out; the bytes that it needs are kept."""
    calls: list[tuple[int, int]] = []
    data = b"xx" + b"canyoufindme" + b"\xff" * 40
    smallest = make("contains").minimize(data, EXPECTED, lambda runs, size: calls.append((runs, size)))
    assert smallest == b"canyoufindme"
    assert [runs for runs, _ in calls] == list(range(1, len(calls) + 1))
    assert calls[-1][1] == 12
    sizes = [size for _, size in calls]
    assert sizes == sorted(sizes, reverse=True)


def test_minimize_simplifies_bytes(make: Make) -> None:
    """Where only the length matters, bytes become simple ones; the failure stays that of the first run."""
    panic = Failure("panic", "five", "", ())
    assert make("two failures").minimize(b"\xf0\x9f\x98\x80!", panic) == b"00000"


def test_minimize_keeps_to_the_place(make: Make) -> None:
    """A smaller input that fails in the same words elsewhere is another finding."""
    same_words = Failure("error", "error.Twice", "", ())
    assert make("two places").minimize(b"bz", same_words) == b"b"
    assert make("two places").minimize(b"az", same_words) == b"a"


@pytest.mark.parametrize("data", [b"harmless", b""])
def test_minimize_without_a_failure(make: Make, data: bytes) -> None:
    """An input that does not fail so is given back as it is."""
    assert make("contains").minimize(data, EXPECTED) is data
    assert make("error").minimize(data, EXPECTED) is data


def test_unknown_test(make: Make) -> None:
    """A test that the executable does not have is no failure of the test."""
    with pytest.raises(
        TestRunnerError, match=r"cannot run the test: repro: there is no test 'failing\.test\.x"
    ):
        make("x").run(b"")


def test_test_that_does_not_fuzz(make: Make) -> None:
    """A test that does not call std.testing.fuzz cannot be run on an input."""
    with pytest.raises(TestRunnerError, match=r"did not call std\.testing\.fuzz"):
        make("plain").run(b"")


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ((), "usage: "),
        (("failing.test.passes",), "usage: "),
        (("failing.test.passes", "/dev/null", "--prefixes"), "usage: "),
        (("failing.test.passes", "/dev/null", "--prefixes", "x"), "usage: "),
        (("failing.test.passes", "/dev/null", "--prefixes", "0", "0"), "usage: "),
        (("failing.test.passes", "/dev/null", "--suffixes", "0"), "usage: "),
        (("failing.test.passes", "/nowhere"), "cannot open '/nowhere': error 2"),
        (("failing.test.passes", "x" * 70_000), "the command line is longer than"),
        (("fuzz", "/dev/null"), "there is no test 'fuzz' in this executable; '--list' names those"),
    ],
)
def test_misuse_of_the_runner(children: ChildGroup, executable: Path, args: tuple, reason: str) -> None:
    """The runner says what it was not given, and exits with code 2."""
    status, stdout, stderr = runner(children, executable, *args)
    assert (status, stdout) == (2, "")
    assert stderr.startswith(f"repro: {reason}")
    assert stderr.count("\n") == 1


def test_list(children: ChildGroup, executable: Path) -> None:
    """The runner names the fuzz tests, with the size of the corpus that each brings."""
    status, stdout, _ = runner(children, executable, "--list")
    fuzz_tests = [name for name in TESTS if name not in ("plain", "fails before")]
    sizes = {"passes": 2}
    assert stdout.splitlines() == [f"{sizes.get(name, 0)}\t{test_name(name)}" for name in fuzz_tests]
    assert status == 0
    chosen = [test_name(name) for name in ("panic", "passes", "plain")]
    assert runner(children, executable, "--list", *chosen)[1] == f"0\t{chosen[0]}\n2\t{chosen[1]}\n"


def test_executable_that_cannot_be_started(make: Make, tmp_path: Path) -> None:
    """An executable that is gone is an error with its path."""
    with pytest.raises(TestRunnerError, match=f"cannot start '{tmp_path}/gone': "):
        make("error", tmp_path / "gone").run(b"")


def test_run_that_is_ended_from_outside(make: Make, tmp_path: Path) -> None:
    """A run that somebody ended has no result."""
    with pytest.raises(TestRunnerError, match=r"was ended from outside: .*SIGKILL"):
        make("error", script(tmp_path, "kill -KILL $$")).run(b"")


def test_process_that_closes_its_output(make: Make, tmp_path: Path) -> None:
    """A process that runs on without output is ended when the time is over."""
    silent = script(tmp_path, "exec sleep 1000 >&- 2>&-")
    failure = make("error", silent, timeout=0.2).run(b"")
    assert failure == Failure("hang", "did not end within 0.2 s", "", ())


def test_process_that_ignores_the_interrupt(make: Make, tmp_path: Path, monkeypatch) -> None:
    """A process that prints no stack is ended all the same."""
    monkeypatch.setattr(module, "STACK_WAIT", 0.1)
    stubborn = script(tmp_path, "trap '' FPE; while true; do :; done")
    failure = make("error", stubborn, timeout=0.2).run(b"")
    assert failure == Failure("hang", "did not end within 0.2 s", "", ())


def test_talkative_process(make: Make, tmp_path: Path, monkeypatch) -> None:
    """Of megabytes on stderr, the beginning and the end are kept: a panic's words come first."""
    monkeypatch.setattr(module, "KEPT_STDERR", 1000)
    code = "echo 'thread 1 panic: boom' >&2; seq 100000 >&2; kill -ABRT $$"
    failure = make("error", script(tmp_path, code)).run(b"")
    assert failure is not None
    assert (failure.kind, failure.message) == ("panic", "boom")
    code = "seq 100000 >&2; echo 'failed with error.Late' >&2; exit 1"
    assert make("error", script(tmp_path, code)).run(b"") == Failure("error", "error.Late", "", ())


def test_stop(make: Make, executable: Path, children: ChildGroup) -> None:
    """A stop from another thread ends the run at once, and there is no other."""
    reproducer = make("hang", timeout=1000)
    errors: list[Exception] = []

    def run() -> None:
        try:
            reproducer.run(b"")
        except Stopped as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: processes_naming(str(executable)), "the test does not start")
    children.stop()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert len(errors) == 1
    with pytest.raises(Stopped):
        reproducer.run(b"")


def test_nothing_is_left_on_disk(make: Make, tmp_path: Path, monkeypatch) -> None:
    """Input files are gone afterwards, and nobody else could read them."""
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    code = 'ls -ld "$(dirname "$2")" | cut -c1-10 >> "$(dirname "$0")/modes"; echo passed'
    reproducer = make("error", script(tmp_path, code))
    assert reproducer.run(b"") is None
    assert reproducer.shortest_prefix(b"abc", EXPECTED) is None
    assert (tmp_path / "modes").read_text() == "drwx------\n" * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["modes", "script"]
