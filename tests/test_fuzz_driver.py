"""The fuzz driver as a whole, and its workers one by one."""

import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzzserver.coverage.queue import CoverageMsg, EntryPointMsg, Msg
from fuzzserver.errors import CompileErrors, Stopped, TestRunnerError
from fuzzserver.fuzz.build import FuzzRoot
from fuzzserver.fuzz.driver import FuzzDriver, NoFuzzTests
from fuzzserver.fuzz.worker import MAX_STDERR, FuzzTest, WorkerEnd, fuzz_worker_run
from fuzzserver.step import FuzzRunStep
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.process import ChildGroup
from tests.projects import n_runs, write_project
from tests.support_zig_children import WAIT, eventually, processes_naming
from tests.support_zig_fake import compile_calls, fake_zig
from tests.support_zig_runner import runner
from tests.support_zig_sources import BROKEN, CRASHING_FUZZ, NO_FUZZ, forget_corpus, write

pytestmark = pytest.mark.usefixtures("nothing_left")

CRASHES_AND_GOES_ON = (
    CRASHING_FUZZ
    + """
// A test without branches would in time make Zig's fuzzer itself panic.
fn fuzzCount(_: void, input: []const u8) anyerror!void {
    var count: u32 = 0;
    for (input) |byte| switch (byte) {
        'a'...'z' => count += 1,
        '0'...'9' => count += 10,
        else => {},
    };
    std.mem.doNotOptimizeAway(count);
}

test "fuzz patient" {
    try std.testing.fuzz({}, fuzzCount, .{});
}
"""
)


class Server:
    """What a driver tells its server, in order; tests wait for it."""

    def __init__(self) -> None:
        self.told: list[FuzzRunStep | Msg | tuple[str, str]] = []
        self._condition = threading.Condition()

    def tell(self, what: FuzzRunStep | Msg | tuple[str, str]) -> None:
        """Note one thing."""
        with self._condition:
            self.told.append(what)
            self._condition.notify_all()

    def of(self, kind: type) -> list:
        """All that is of one kind; a status is a tuple."""
        return [what for what in self.told if isinstance(what, kind)]

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Until ``condition`` holds."""
        with self._condition:
            assert self._condition.wait_for(condition, WAIT), "the driver does not tell what is awaited"


def make_driver(client: ZigCompileClient, root: Path, server: Server) -> FuzzDriver:
    """A driver that tells ``server``. It gets a client of its own, for it will stop it."""
    fuzz_root = FuzzRoot.find(root)
    forget_corpus(fuzz_root.project)
    return FuzzDriver(
        ZigCompileClient(client.zig, client.global_cache_dir),
        fuzz_root,
        add_step=server.tell,
        post=server.tell,
        set_status=lambda state, text: server.tell((state, text)),
    )


def test_whole_session(client: ZigCompileClient, work: Path) -> None:
    """Statuses, the step, and the messages of both workers come in order; a stop leaves nothing."""
    server = Server()
    driver = make_driver(client, write_project(work / "driver-project"), server)
    tests = driver.build()
    (step,) = server.of(FuzzRunStep)
    assert [test.name for test in tests] == ["main.test.fuzz sum", "main.test.fuzz depth"]
    assert {test.step for test in tests} == {step}
    assert step.name == "main.zig"
    assert step.cache_root == work / "driver-project" / ".zig-cache"
    assert server.of(tuple) == [
        ("building", "Compiling the tests of main.zig ..."),
        ("building", "Running the tests of main.zig once, to find the fuzz tests ..."),
        ("building", "Compiling the tests of main.zig in fuzz mode ..."),
    ]
    driver.start_workers(tests)
    try:
        server.wait_for(lambda: len(server.of(EntryPointMsg)) == 2)
        assert server.of(tuple)[3:] == [("fuzzing", "Fuzzing 2 tests of main.zig.")]
        check_messages(server, step)
        assert len(processes_naming(str(step.rebuilt_executable))) == 2
    finally:
        driver.stop()
    assert processes_naming(str(step.rebuilt_executable)) == []
    assert driver.crashes == []
    driver.stop()
    assert len(server.of(tuple)) == 4


def check_messages(server: Server, step: FuzzRunStep) -> None:
    """Both workers name the same coverage file, which grows, and an entry point each."""
    first, second = server.of(CoverageMsg)
    assert first == second == CoverageMsg(first.coverage_id, step)
    points = server.of(EntryPointMsg)
    assert {point.coverage_id for point in points} == {first.coverage_id}
    assert len({point.addr for point in points}) == 2
    assert server.told.index(first) < server.told.index(points[0])
    coverage_file = step.coverage_file_path(first.coverage_id)
    runs = n_runs(coverage_file)
    eventually(lambda: n_runs(coverage_file) > runs, "the fuzzers do not run")


def test_crash(client: ZigCompileClient, work: Path, caplog) -> None:
    """A crash is recorded with its last words; when the last worker is gone, that is said."""
    server = Server()
    root = write(work / "crashing", crashing=CRASHES_AND_GOES_ON)
    driver = make_driver(client, root, server)
    crashing, _patient = driver.build()
    driver.start_workers([crashing])
    try:
        server.wait_for(lambda: server.of(tuple)[-1][0] == "stopped")
    finally:
        driver.stop()
    (end,) = driver.crashes
    assert end.test == crashing
    assert end.how == "was ended by signal SIGABRT"
    assert "panic: the input is too long" in end.stderr
    assert "crashing.zig:4:" in end.stderr
    status = server.of(tuple)[-1][1]
    assert status.startswith("All fuzz workers have ended.\n'crashing.test.fuzz long' was ended by signal")
    assert "panic: the input is too long" in status
    assert "fuzz worker for 'crashing.test.fuzz long' was ended by signal SIGABRT" in caplog.messages
    assert "all fuzz workers crashed" in caplog.messages
    assert ("fuzzserver.worker", logging.ERROR, end.stderr.rstrip("\n")) in caplog.record_tuples


@pytest.mark.parametrize("_round", range(5))
def test_workers_do_not_create_the_coverage_file_at_once(
    client: ZigCompileClient, work: Path, _round: int
) -> None:
    """Without a coverage file from an earlier run, both fuzzers come to life, every time."""
    server = Server()
    driver = make_driver(client, write_project(work / "driver-project"), server)
    tests = driver.build()
    shutil.rmtree(work / "driver-project" / ".zig-cache" / "v", ignore_errors=True)
    driver.start_workers(tests)
    try:
        server.wait_for(lambda: len(server.of(EntryPointMsg)) == 2)
    finally:
        driver.stop()
    assert driver.crashes == []


def test_second_worker_waits_for_the_first(
    client: ZigCompileClient, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the first one has told its coverage id, or has ended, no other is started."""
    started: list[FuzzTest] = []
    started_meanwhile: list[FuzzTest] = []
    go_on = threading.Event()

    def worker(_children, test, _cache_root, _cwd, _seed, post) -> WorkerEnd:
        started.append(test)
        if len(started) == 1:
            go_on.wait(WAIT)
            started_meanwhile.extend(started[1:])
            post(CoverageMsg(1, test.step))
        return WorkerEnd(test, "was ended by this test", "")

    monkeypatch.setattr("fuzzserver.fuzz.driver.fuzz_worker_run", worker)
    driver = make_driver(client, write_project(work / "driver-project"), Server())
    tests = driver.build()
    threading.Timer(0.3, go_on.set).start()
    driver.start_workers(tests)
    driver.stop()
    assert started == tests
    assert started_meanwhile == []


def test_one_of_two_crashes(client: ZigCompileClient, work: Path, caplog) -> None:
    """The other worker goes on when one crashes."""
    server = Server()
    driver = make_driver(client, write(work / "crashing", crashing=CRASHES_AND_GOES_ON), server)
    tests = driver.build()
    driver.start_workers(tests)
    try:
        server.wait_for(
            lambda: server.of(tuple)[-1][1].startswith("1 worker left.\n'crashing.test.fuzz long'")
        )
        assert server.of(tuple)[-1][0] == "fuzzing"
        assert len(processes_naming(str(tests[0].step.rebuilt_executable))) == 1
    finally:
        driver.stop()
    assert len(driver.crashes) == 1
    assert "all fuzz workers crashed" not in caplog.text


def test_no_fuzz_tests(client: ZigCompileClient, work: Path) -> None:
    """A file whose tests do not fuzz is refused with their number, before the slow build."""
    server = Server()
    root = write(work / "plain", plain=NO_FUZZ)
    with pytest.raises(NoFuzzTests) as caught:
        make_driver(client, root, server).build()
    assert str(caught.value) == (
        f"no fuzz tests found in '{root}'; it has 2 tests, none of which calls std.testing.fuzz"
    )
    assert server.of(FuzzRunStep) == []
    assert len(server.of(tuple)) == 2


def test_no_tests(client: ZigCompileClient, work: Path) -> None:
    """A file without any test is refused as well."""
    root = write(work / "empty", empty="pub fn main() void {}")
    with pytest.raises(NoFuzzTests, match=r"^no fuzz tests found in '.*empty\.zig'$"):
        make_driver(client, root, Server()).build()


def test_compile_errors(client: ZigCompileClient, tmp_path) -> None:
    """Errors in the source end the build with the compiler's words."""
    server = Server()
    root = write(tmp_path, main=BROKEN + "test { main(); }")
    with pytest.raises(CompileErrors, match=r"main\.zig:4:5: error: use of undeclared"):
        make_driver(client, root, server).build()
    assert server.of(FuzzRunStep) == []


def build_and_stop(driver: FuzzDriver, started: Callable[[], object]) -> BaseException:
    """Stop the driver while it builds, as soon as ``started``; returns what the build raised."""
    errors: list[BaseException] = []

    def build() -> None:
        try:
            driver.build()
        except Exception as error:
            errors.append(error.with_traceback(None))

    thread = threading.Thread(target=build)
    thread.start()
    eventually(started, "the build does not start")
    driver.stop()
    thread.join(WAIT)
    assert not thread.is_alive()
    (error,) = errors
    return error


def test_stop_while_compiling(tmp_path) -> None:
    """A stop ends a compile that would take for ever."""
    zig = fake_zig(tmp_path / "bin", compile="hang")
    client = ZigCompileClient(zig, tmp_path / "global")
    driver = make_driver(client, write(tmp_path, main=NO_FUZZ), Server())
    error = build_and_stop(driver, lambda: compile_calls(zig))
    assert isinstance(error, Stopped)
    assert processes_naming(str(tmp_path / "bin")) == []


def test_stop_while_compiling_for_real(zig: Zig, zig_cache: Path, tmp_path) -> None:
    """A stop ends the real compiler as well."""
    root = write(tmp_path, main=CRASHING_FUZZ)
    driver = make_driver(ZigCompileClient(zig, zig_cache), root, Server())
    error = build_and_stop(driver, lambda: processes_naming(str(root)))
    assert isinstance(error, Stopped)
    assert processes_naming(str(root)) == []


def test_stop_while_tests_run(client: ZigCompileClient, work: Path, caplog) -> None:
    """A stop ends a test that hangs."""
    sleeper = 'test "hangs" { while (true) @import("std").time.sleep(1_000_000_000); }'
    root = write(work / "hanging", hanging=sleeper)
    driver = make_driver(client, root, Server())
    executables = str(root.parent / ".zig-cache" / "o")
    error = build_and_stop(driver, lambda: find_runner(executables))
    assert isinstance(error, TestRunnerError)
    assert caplog.messages == []
    assert find_runner(executables) == []


def find_runner(folder: str) -> list[int]:
    """Test executables below ``folder`` that run."""
    return [
        pid
        for pid in processes_naming(folder)
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(folder.encode())
    ]


def test_worker_that_cannot_start(client: ZigCompileClient, work: Path, tmp_path) -> None:
    """A worker whose executable is gone counts as ended, and the others go on."""
    server = Server()
    driver = make_driver(client, write(work / "plain", plain=NO_FUZZ), server)
    step = FuzzRunStep("gone", tmp_path / "gone", tmp_path)
    driver.start_workers([FuzzTest(step, 0, "test.gone")])
    server.wait_for(lambda: server.of(tuple)[-1][0] == "stopped")
    driver.stop()
    assert driver.crashes[0].how.startswith("could not be run: ")
    assert "No such file" in server.of(tuple)[-1][1]


def run_worker(tmp_path: Path, code: str) -> tuple[WorkerEnd, list[Msg]]:
    """Run a worker that does ``code``; how it ended, and what it posted."""
    test = FuzzTest(FuzzRunStep("fake", runner(tmp_path, code), tmp_path), 7, "test.fake")
    posted: list[Msg] = []
    return fuzz_worker_run(ChildGroup(), test, tmp_path, tmp_path, 1, posted.append), posted


def test_worker_messages(tmp_path) -> None:
    """A worker is told which test to fuzz; what it says becomes messages."""
    code = """
    tag, body = receive()
    send(6, struct.pack("<Q", 0x1234))
    send(7, struct.pack("<Q", tag))
    send(99, b"what is this?")
    send(7, struct.pack("<Q", *struct.unpack("<I", body)))
    """
    end, posted = run_worker(tmp_path, code)
    assert posted == [CoverageMsg(0x1234, end.test.step), EntryPointMsg(0x1234, 6), EntryPointMsg(0x1234, 7)]
    assert (end.how, end.stderr) == ("exited with code 0", "")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("send(7, bytes(8))", "fuzz_start_addr came before coverage_id"),
        ("send(6, bytes(32))", "coverage_id must have 8 bytes, got 32"),
        ("os.write(1, b'x' * 100)", "claims a body of"),
    ],
)
def test_worker_that_breaks_the_protocol(tmp_path, code: str, reason: str) -> None:
    """A worker that says what it must not is ended, and the reason kept."""
    end, posted = run_worker(tmp_path, f"{code}\ntime.sleep(1000)")
    assert end.how.startswith("broke the protocol (")
    assert reason in end.how
    assert posted == []
    assert processes_naming(str(tmp_path / "runner.py")) == []


def test_worker_that_writes_too_much(tmp_path) -> None:
    """The end of what a worker writes on stderr is kept, not all of it."""
    code = "for i in range(40_000): os.write(2, b'%049d\\n' % i)\nsys.exit(1)"
    end, _ = run_worker(tmp_path, code)
    assert end.how == "exited with code 1"
    assert len(end.stderr) == MAX_STDERR < 40_000 * 50
    assert end.stderr.endswith("39999\n")
