"""Whole fuzzing sessions, with the real compiler and real fuzzers."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzserver.corpus import Corpus
from fuzzserver.coverage.queue import CoverageMsg, EntryPointMsg, Msg
from fuzzserver.errors import CompileErrors, FuzzServerError, InputError, Stopped, TestRunnerError
from fuzzserver.findings import FindingStore
from fuzzserver.fuzz import analysis, backoff, watch, worker
from fuzzserver.fuzz.budget import Ending
from fuzzserver.fuzz.driver import FuzzDriver
from fuzzserver.fuzz.options import FuzzOptions
from fuzzserver.fuzz.target import FuzzTarget, NoFuzzTests
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.status import Progress, TargetStatus, TestStatus
from fuzzserver.step import FuzzRunStep
from fuzzserver.wire.abi import coverage_file_name
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.process import ChildGroup
from tests.support_fuzzing import LIVELY_TESTS, PATIENCE, PATIENT, Told, lively_command
from tests.support_time import WAIT, eventually
from tests.support_zig_children import processes_naming
from tests.support_zig_fake import compile_calls, fake_zig
from tests.support_zig_sources import BROKEN, NO_FUZZ, write

pytestmark = pytest.mark.usefixtures("nothing_left")

STD = 'const std = @import("std");\n'
OTHER = (
    PATIENT.replace("fuzzPatient", "fuzzOther")
    .replace("fuzz patient", "fuzz other")
    .replace("else =>", "'A'...'Z' => count += 100,\n        else =>")
)
"""Another test. It has a branch more, for builds with the same branches have the same coverage id."""


class Server:
    """What a driver tells its server, in order; tests wait for it."""

    def __init__(self) -> None:
        self.told = Told()
        self.add_step = self.post = self.add_corpus = self.told
        self.set_target = self.set_findings = self.told
        self.notified = threading.Event()
        self.progress: list[Progress | None] = []
        self.log: list[tuple[str, str, str]] = []
        """Source, text and level."""

    def set_status(self, state: str, text: str) -> None:
        """Note it as a tuple."""
        self.told((state, text))

    def set_progress(self, progress: Progress | None) -> None:
        """Note it."""
        self.progress.append(progress)

    def add_log(self, source: str, text: str, level: str = "info") -> None:
        """Note it."""
        self.log.append((source, text, level))

    def notify(self) -> None:
        """Note that the findings have changed."""
        self.notified.set()

    def statuses(self) -> list[tuple[str, str]]:
        """What the session did."""
        return self.told.of(tuple)

    def target(self, name: str = "") -> TargetStatus:
        """A target as it was told last: the only one, or the one with this name."""
        targets = {target.key: target for target in self.told.of(TargetStatus)}
        (found,) = [target for target in targets.values() if name in ("", target.name)]
        return found

    def test(self, name: str, target: str = "") -> TestStatus:
        """A test as it was told last."""
        (found,) = [test for test in self.target(target).tests if test.name.endswith(name)]
        return found

    def wait_for(self, condition: Callable[[], object], what: str = "it is not told") -> None:
        """Until ``condition`` holds. What a driver tells twice a second is looked at each time."""
        self.told.wait_for(condition, what)


Make = Callable[..., FuzzDriver]


@pytest.fixture
def server() -> Server:
    """An audience."""
    return Server()


@pytest.fixture
def make(client: ZigCompileClient, server: Server) -> Iterator[Make]:
    """Makes drivers that tell ``server``, each with a compile client of its own, for it will stop it."""
    drivers: list[FuzzDriver] = []

    def make(*commands: TestCommand, zig: Zig = client.zig, **options: object) -> FuzzDriver:
        own = ZigCompileClient(zig, client.global_cache_dir)
        fuzz = FuzzOptions(**{"jobs": 2, "fresh": True, **options})  # type: ignore[arg-type]
        drivers.append(FuzzDriver(own, lambda _: list(commands), commands[0].cache_root, fuzz, server))
        return drivers[-1]

    yield make
    for driver in drivers:
        driver.stop()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says where it is, or just ends, may be slow."""
    monkeypatch.setattr(worker, "STACK_WAIT", PATIENCE)
    monkeypatch.setattr(worker, "CLOSE_WAIT", PATIENCE)
    monkeypatch.setattr(analysis, "LONGEST_HANG", PATIENCE)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, between workers and between looks at the sources, and a test is given up sooner."""
    monkeypatch.setattr(backoff, "MAX_DEATHS", 2)
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.005)
    monkeypatch.setattr(backoff, "LONGEST_DELAY", 0.01)
    monkeypatch.setattr(watch, "INTERVAL", 0.1)


def workers_of(command: TestCommand) -> list[int]:
    """Fuzzers that run."""
    return processes_naming(f"--cache-dir={command.cache_root}/fuzzserver/")


def test_whole_session(make: Make, server: Server, work: Path) -> None:
    """Statuses, step, corpora, and the messages of each worker; a stop leaves nothing."""
    command = lively_command(work)
    driver = make(command, tests=("fuzz many", "fuzz patient"))
    builds = driver.build()
    ((build, tests),) = builds.items()
    assert [test.name for test in tests] == ["lively.test.fuzz many", "lively.test.fuzz patient"]
    assert server.statuses() == [
        ("building", "Finding out how the tests are compiled ..."),
        ("building", "Compiling the tests of lively.zig ..."),
        ("building", "Running the tests of lively.zig once, to find the fuzz tests ..."),
        ("building", "Compiling the tests of lively.zig in fuzz mode ..."),
    ]
    assert server.progress == [
        Progress("Finding out how the tests are compiled ..."),
        *(Progress(text, 0, 1) for _, text in server.statuses()[1:]),
        Progress("Compiling the tests of lively.zig in fuzz mode ...", 1, 1),
        None,
    ]
    assert server.told.of(FuzzRunStep) == []
    driver.start(builds)
    server.wait_for(lambda: len(server.told.of(EntryPointMsg)) == 2)
    assert server.statuses()[4:] == [("fuzzing", "Fuzzing 2 tests.")]
    assert server.told.of(FuzzRunStep) == [build.step]
    assert (build.step.name, build.step.key) == ("lively.zig", command.key)
    assert server.told.of(FindingStore) == [driver.findings]
    assert [corpus.test for corpus in server.told.of(Corpus)] == [test.name for test in tests]
    check_messages(server, build.step)
    server.wait_for(lambda: all(test.n_runs > 100 for test in server.target().tests), "no runs are told")
    assert len(workers_of(command)) == 2
    assert not driver.wait(0.0)
    driver.stop()
    assert workers_of(command) == []
    assert processes_naming(str(command.project)) == []
    assert [test.state for test in server.target().tests] == ["stopped", "stopped"]
    assert (driver.found, driver.build_failed) == ([], False)
    count = len(server.told.all)
    driver.stop()
    assert len(server.told.all) == count
    assert driver.wait(WAIT) is None


def check_messages(server: Server, step: FuzzRunStep) -> None:
    """Both workers have the same coverage id, a cache folder each, and an entry point each."""
    first, second = server.told.of(CoverageMsg)
    assert first.cache_root != second.cache_root
    assert first == CoverageMsg(first.coverage_id, step, first.cache_root)
    assert second == CoverageMsg(first.coverage_id, step, second.cache_root)
    for msg in (first, second):
        assert step.coverage_file_path(first.coverage_id, msg.cache_root).is_file()
    points: list[Msg] = server.told.of(EntryPointMsg)
    assert points[0] != points[1]
    assert server.target().id == coverage_file_name(first.coverage_id)
    assert server.target().earlier == ()


def test_finding(make: Make, server: Server, work: Path) -> None:
    """A crash becomes a finding that reproduces; the test is fuzzed again, others go on meanwhile."""
    driver = make(lively_command(work), tests=("fuzz later", "fuzz patient"))
    driver.start(driver.build())
    server.wait_for(lambda: server.target().tests and server.test("fuzz later").findings == 1)
    server.wait_for(lambda: server.test("fuzz later").restarts >= 2, "fuzzing does not go on")
    patient = server.test("fuzz patient")
    assert (patient.state, patient.restarts, patient.findings) == ("fuzzing", 0, 0)
    assert server.target().state == "fuzzing"
    driver.finish(PATIENCE)
    (finding_id,) = driver.found
    (finding,) = driver.findings.all()
    assert (finding.id, finding.kind, finding.message) == (finding_id, "panic", "there is a b")
    assert (finding.target, finding.test) == ("lively.zig", "lively.test.fuzz later")
    path, line, _column = finding.place.rsplit(":", 2)
    source = lively_command(work).project / "lively.zig"
    assert Path(path) == source
    assert "there is a b" in source.read_text().splitlines()[int(line) - 1]
    said = [(text, level) for name, text, level in server.log if name == finding.test]
    assert ("Worker was ended by signal SIGABRT: there is a b", "error") in said
    assert "panic: there is a b" in "\n".join(text for text, level in said if level == "info")
    assert finding.count >= 2 and finding.n_runs > 0
    assert "fuzzLater" in finding.stack and "panic: there is a b" in finding.stderr
    assert (finding.reproduces, finding.exact) == (True, True)
    assert driver.findings.input(finding_id).endswith(b"b")
    assert TestCommand.from_json(finding.build) == lively_command(work)
    assert server.notified.is_set()
    assert workers_of(lively_command(work)) == []
    # What is known is known in the next session, too.
    again = make(lively_command(work), tests=("fuzz later",), fresh=False)
    assert again.findings.all() == [finding]
    assert again.found == []


def test_last_words(make: Make, server: Server, work: Path) -> None:
    """A session whose time is over while a worker says how it fails has the finding."""
    driver = make(lively_command(work), tests=("fuzz later",))
    driver.start(driver.build())
    server.wait_for(lambda: any("panic" in text for _, text, _ in server.log), "nothing is said")
    driver.finish(PATIENCE)
    assert [each.kind for each in driver.failing] == ["panic"]


@pytest.mark.usefixtures("impatient")
def test_given_up(make: Make, server: Server, work: Path, caplog) -> None:
    """A test that fails at once each time is given up while others go on; without others, that is the end."""
    driver = make(lively_command(work), tests=("fuzz at once", "fuzz patient"))
    driver.start(driver.build())
    server.wait_for(lambda: server.test("fuzz at once").state == "failed", "it is not given up")
    runs = server.test("fuzz patient").n_runs
    server.wait_for(lambda: server.test("fuzz patient").n_runs > runs, "the other does not go on")
    assert server.target().state == "fuzzing"
    assert not driver.wait(0.0)
    assert "no worker is left" not in caplog.messages
    driver.stop()

    alone = make(lively_command(work), tests=("fuzz at once",))
    alone.start(alone.build())
    assert alone.wait(PATIENCE) == Ending("All fuzz workers have ended.", met=True)
    # It has made no run, but what it broke is what there is to say of it.
    assert alone.failing and alone.not_fuzzed == []
    server.wait_for(lambda: server.statuses()[-1] == ("stopped", "All fuzz workers have ended."))
    assert server.target().state == "failed"
    assert "no worker is left" in caplog.messages


ONE = STD + PATIENT
TWO = STD + OTHER + PATIENT
"""Another build of the same test, and one test more."""


def watched(work: Path, text: str) -> Path:
    """A source file that all tests write, so that what one has compiled is compiled for the others."""
    return write(work / "driver-watch", watched=text)


def two_commands(work: Path) -> tuple[TestCommand, TestCommand]:
    """A project of two test executables, the second of which cannot be compiled."""
    good = TestCommand.of_root(watched(work, ONE))
    bad = TestCommand.of_root(write(work / "driver-watch", bad=BROKEN + "test { main(); }"))
    return good, bad


def test_one_of_two_cannot_be_built(make: Make, server: Server, work: Path) -> None:
    """What cannot be compiled costs the other nothing, and is told."""
    driver = make(*two_commands(work))
    driver.start(driver.build())
    server.wait_for(lambda: server.target("watched.zig").state == "fuzzing")
    failed = server.target("bad.zig")
    assert failed.state == "failed"
    assert "bad.zig:4:5: error: use of undeclared" in failed.text
    assert driver.build_failed
    # What cannot be built is done, too.
    *_, last, over = server.progress
    assert last is not None and (last.done, last.total, over) == (2, 2, None)
    driver.stop()


def test_none_can_be_built(make: Make, server: Server, work: Path) -> None:
    """When nothing could be compiled, the compiler's words are the error."""
    _, bad = two_commands(work)
    with pytest.raises(CompileErrors, match=r"bad\.zig:4:5: error: use of undeclared"):
        make(bad).build()
    assert server.target().state == "failed"


def test_no_fuzz_tests(make: Make, server: Server, work: Path) -> None:
    """Tests that do not fuzz are named, before the slow build."""
    with pytest.raises(NoFuzzTests) as caught:
        make(TestCommand.of_root(watched(work, NO_FUZZ))).build()
    assert str(caught.value) == (
        "no fuzz tests found in 'watched.zig': none of the 2 tests calls std.testing.fuzz: "
        "'watched.test.one', 'watched.test.two'"
    )
    assert server.target().state == "never started"
    assert not [text for _, text in server.statuses() if "fuzz mode" in text]


def test_no_tests(make: Make, work: Path) -> None:
    """A file without any test is refused as well."""
    with pytest.raises(NoFuzzTests, match=r"^no fuzz tests found in 'empty\.zig': there are no tests$"):
        make(TestCommand.of_root(write(work / "empty", empty="pub fn main() void {}"))).build()


def test_end_while_it_is_built(make: Make, server: Server, work: Path) -> None:
    """A session that has ended when the build is done starts no worker any more."""
    driver = make(lively_command(work))
    builds = driver.build()
    driver.finish(0)
    with pytest.raises(Stopped):
        driver.start(builds)
    assert driver.started is None
    assert "fuzzing" not in [state for state, _ in server.statuses()]


def test_worker_that_comes_too_late(make: Make, work: Path) -> None:
    """Of a rebuild that is done while the session ends, no worker is started, and none is waited for."""
    driver = make(lively_command(work))
    driver._ending.set()
    driver._start_worker(FuzzTarget(lively_command(work), print), pytest.fail)
    assert driver._running == 0


def test_pattern_that_matches_nothing(make: Make, work: Path) -> None:
    """The error names the pattern and the tests that there are."""
    with pytest.raises(InputError) as caught:
        make(lively_command(work), tests=("none*", "fuzz")).build()
    names = ", ".join(f"'lively.test.{test}'" for test in LIVELY_TESTS)
    assert str(caught.value) == f"no fuzz test matches --test none* fuzz; there are {names}"


def test_patterns(make: Make, work: Path) -> None:
    """A pattern means whole names, or what follows the file in them."""
    for patterns, names in (
        (("fuzz *",), LIVELY_TESTS),
        (("fuzz [mw]*",), ("fuzz word", "fuzz many")),
        (("fuzz many", "lively.test.fuzz w?rd"), ("fuzz word", "fuzz many")),
    ):
        driver = make(lively_command(work), tests=patterns)
        (tests,) = driver.build().values()
        driver.stop()
        assert [test.name for test in tests] == [f"lively.test.{name}" for name in names]


def test_more_tests_than_jobs(make: Make, server: Server, work: Path) -> None:
    """With one job, three tests take turns: only one runs at a time, and each makes runs."""
    names = ("fuzz many", "fuzz patient", "fuzz word")
    command = lively_command(work)
    driver = make(command, jobs=1, slice_seconds=0.5, tests=names)
    driver.start(driver.build())
    server.wait_for(lambda: all(server.test(name).n_runs > 0 for name in names), "not all make runs")
    before = {name: server.test(name).n_runs for name in names}
    server.wait_for(lambda: all(server.test(name).n_runs > before[name] for name in names), "no second turn")
    for status in server.told.of(TargetStatus):
        assert [test.state for test in status.tests].count("fuzzing") <= 1
    driver.stop()
    assert [test.restarts for test in server.target().tests] == [0, 0, 0]
    assert workers_of(command) == []


@pytest.mark.timeout(900)  # Five builds.
@pytest.mark.usefixtures("impatient")
def test_watch(make: Make, server: Server, work: Path) -> None:
    """A changed source is built again: tests go on in the new build, new ones begin, old ones end."""
    command = TestCommand.of_root(watched(work, ONE))
    driver = make(command, watch=True)
    driver.start(driver.build())
    server.wait_for(lambda: server.target().tests and server.test("fuzz patient").n_runs > 0)
    old_id, old_step = server.target().id, server.told.of(FuzzRunStep)[-1]
    assert old_id is not None

    watched(work, BROKEN + "test { main(); }")
    server.wait_for(lambda: "The build failed" in server.statuses()[-1][1], "the failure is not told")
    state, text = server.statuses()[-1]
    assert state == "fuzzing" and "watched.zig:4:5: error: use of undeclared" in text
    runs = server.test("fuzz patient").n_runs
    server.wait_for(lambda: server.test("fuzz patient").n_runs > runs, "the old build does not go on")
    assert (server.target().id, server.target().earlier) == (old_id, ())

    watched(work, TWO)
    server.wait_for(lambda: server.target().earlier == (old_id,), "there is no new build")
    server.wait_for(lambda: len(server.target().tests) == 2 and server.test("fuzz other").n_runs > 0)
    assert server.statuses()[-1][1].startswith("Fuzzing the build of ")
    new_step = server.told.of(FuzzRunStep)[-1]
    assert new_step.key == old_step.key
    assert new_step.rebuilt_executable != old_step.rebuilt_executable
    old = str(old_step.rebuilt_executable)
    eventually(lambda: not processes_naming(old), "the old build goes on")
    eventually(lambda: len(workers_of(command)) == 2, "there are not two workers")
    assert server.test("fuzz patient").restarts == 0

    watched(work, STD + OTHER)
    server.wait_for(lambda: server.test("fuzz patient").state == "stopped", "what is gone goes on")
    assert server.test("fuzz patient").text == "It is not in the newest build."
    server.wait_for(lambda: len(server.target().earlier) == 2, "there is no third build")
    eventually(lambda: len(workers_of(command)) == 1, "there is not one worker")

    watched(work, TWO)
    server.wait_for(lambda: server.test("fuzz patient").state == "fuzzing", "it does not come back")
    assert len(server.target().tests) == 2
    driver.stop()
    assert workers_of(command) == []


@pytest.mark.timeout(900)  # Three builds.
@pytest.mark.usefixtures("impatient")
def test_watch_mends_what_was_given_up(make: Make, server: Server, work: Path) -> None:
    """A test that was given up, or that was built to nothing, is taken up again when it is mended."""
    broken = STD + PATIENT.replace("var count", "if (true) return error.No;\n    var count", 1)
    command = TestCommand.of_root(watched(work, broken))
    driver = make(command, watch=True)
    driver.start(driver.build())
    server.wait_for(lambda: server.target().tests and server.test("fuzz patient").state == "failed")
    watched(work, NO_FUZZ)
    server.wait_for(lambda: "none of the 2 tests calls" in server.statuses()[-1][1], "it is not told")
    watched(work, ONE)
    server.wait_for(lambda: server.test("fuzz patient").n_runs > 0, "it is not taken up again")
    driver.stop()


@pytest.mark.usefixtures("impatient")
def test_watch_mends_what_could_not_be_built(make: Make, server: Server, work: Path) -> None:
    """A target that could not be compiled at first is fuzzed once it can be."""
    good, bad = two_commands(work)
    driver = make(good, bad, watch=True)
    driver.start(driver.build())
    assert driver.build_failed
    write(work / "driver-watch", bad=ONE)
    server.wait_for(lambda: server.target("bad.zig").state == "fuzzing", "it is not fuzzed")
    assert not driver.build_failed
    server.wait_for(lambda: server.test("fuzz patient", "watched.zig").n_runs > 0)
    driver.stop()


def build_and_stop(driver: FuzzDriver, started: Callable[[], object]) -> BaseException:
    """Stop the driver while it builds, as soon as ``started``; returns what the build raised."""
    errors: list[BaseException] = []

    def build() -> None:
        try:
            driver.build()
        except FuzzServerError as error:
            errors.append(error.with_traceback(None))

    thread = threading.Thread(target=build)
    thread.start()
    eventually(started, "the build does not start")
    driver.stop()
    thread.join(WAIT)
    assert not thread.is_alive()
    (error,) = errors
    return error


def test_stop_while_compiling(make: Make, tmp_path: Path) -> None:
    """A stop ends a compile that would take for ever."""
    zig = fake_zig(tmp_path / "bin", compile="hang")
    driver = make(TestCommand.of_root(write(tmp_path, main=NO_FUZZ)), zig=zig)
    error = build_and_stop(driver, lambda: compile_calls(zig))
    assert isinstance(error, Stopped)
    assert processes_naming(str(tmp_path / "bin")) == []


ENDLESS = """
comptime {
    @setEvalBranchQuota(4_000_000_000);
    var on = false;
    while (true) on = !on;
}
"""
"""What compiles for hours."""


def test_stop_while_compiling_for_real(make: Make, tmp_path: Path) -> None:
    """A stop ends the real compiler as well."""
    root = write(tmp_path, main=ENDLESS)
    error = build_and_stop(make(TestCommand.of_root(root)), lambda: processes_naming(str(root)))
    assert isinstance(error, Stopped)
    assert processes_naming(str(root)) == []


def test_stop_while_tests_run(make: Make, work: Path, caplog) -> None:
    """A stop ends a test that hangs."""
    sleeper = 'test "hangs" { while (true) @import("std").time.sleep(1_000_000_000); }'
    root = write(work / "hanging", hanging=sleeper)
    executables = str(root.parent / ".zig-cache" / "o")
    error = build_and_stop(make(TestCommand.of_root(root)), lambda: find_runner(executables))
    assert isinstance(error, TestRunnerError)
    assert caplog.messages == []
    assert find_runner(executables) == []


def find_runner(folder: str) -> list[int]:
    """Test executables below ``folder`` that run."""
    found = []
    for pid in processes_naming(folder):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue  # It is gone: a part of the compiler.
        if command.startswith(folder.encode()):
            found.append(pid)
    return found


def test_commands_that_cannot_be_found(client: ZigCompileClient, server: Server, tmp_path: Path) -> None:
    """What fails before there is any command is the error, and nothing is left to stop."""

    def fail(_: ChildGroup) -> list[TestCommand]:
        raise InputError("no such step")

    driver = FuzzDriver(client, fail, tmp_path, FuzzOptions(jobs=1), server)
    try:
        with pytest.raises(InputError, match="no such step"):
            driver.build()
    finally:
        driver._analysis.stop()
        driver._lock.release()
    assert driver.targets == []


def test_names_do_not_collide(make: Make, server: Server, work: Path) -> None:
    """Two targets of the same sources have keys, cache folders and statuses of their own."""
    command = lively_command(work)
    other = replace(command, name="lively.zig (again)")
    driver = make(command, other, tests=("fuzz patient",))
    driver.start(driver.build())
    server.wait_for(lambda: len(server.told.of(EntryPointMsg)) == 2)
    assert len({msg.cache_root for msg in server.told.of(CoverageMsg)}) == 2
    assert len({target.key for target in driver.targets}) == 2
    driver.stop()
