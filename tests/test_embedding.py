"""What docs/embedding.md promises: its blocks, its examples, its names, and any number of threads."""

import inspect
import os
import re
import shutil
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

import fuzzserver
from fuzzserver import (
    Access,
    Budget,
    CoverageMsg,
    EntryPointMsg,
    FuzzOptions,
    FuzzProject,
    FuzzSession,
    InputError,
    Limits,
    Observer,
    StatusEvent,
    TargetStatus,
    WebServer,
    Zig,
    events,
)
from fuzzserver.report.formats import FORMATS
from tests.projects import FuzzedPair
from tests.support_time import WAIT, eventually

DOCS = Path(__file__).resolve().parent.parent / "docs"
TEXT = (DOCS / "embedding.md").read_text()
FOUND = r"found: integer overflow in {test} at \S*text\.zig:26:\d+"
"""What a subscriber of the tutorial and of the build script prints."""
SECTIONS = {section.partition("\n")[0]: section for section in TEXT.split("\n## ")}


def blocks(section: str, language: str = "python") -> list[str]:
    """The code blocks of a section."""
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end, subscribers get all the time that they need on a busy machine."""
    monkeypatch.setattr(events, "STOP_SECONDS", WAIT)


@pytest.fixture(scope="module")
def examples(work: Path, zig_cache: Path) -> Path:
    """A copy of the examples that is kept, with what is built in it; the compiler's cache is the tests'."""
    folder = work / "examples"
    for made in ("out", "doit"):
        shutil.rmtree(folder / made, ignore_errors=True)
    shutil.copytree(DOCS / "examples", folder, dirs_exist_ok=True)
    cache = work / "user-cache"
    cache.mkdir(exist_ok=True)
    if not (cache / "fuzzserver").is_symlink():
        (cache / "fuzzserver").symlink_to(zig_cache)
    return folder


def run(examples: Path, *args: object, folder: str = ".") -> subprocess.CompletedProcess[str]:
    """Run Python as a user would, but with our cache."""
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=examples / folder,
        env={
            **os.environ,
            "XDG_CACHE_HOME": str(examples.parent / "user-cache"),
            "PYTHONPATH": str(DOCS.parent),
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_tutorial(
    examples: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    nothing_left: None,
) -> None:
    """Step by step, the bug is found, told, judged, and in the reports."""
    (source,) = blocks("Fuzz a file", "zig")
    assert source == (examples / "src" / "text.zig").read_text()
    monkeypatch.chdir(examples / "src")
    monkeypatch.setenv("XDG_CACHE_HOME", str(examples.parent / "user-cache"))
    names: dict[str, object] = {}
    for block in blocks("Fuzz a file"):
        # It ends with the first finding, however late that comes on a busy machine.
        exec(compile(block.replace("time=20", "time=200"), "embedding.md", "exec"), names)
    address, *lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"watch it at http://127\.0\.0\.1:\d+/", address)
    assert "1 finding." in lines
    assert any(re.fullmatch(FOUND.format(test=r"text\.test\.fuzz checksum"), line) for line in lines), lines
    assert "findings: (\"panic in 'text.test.fuzz checksum': integer overflow\",)" in lines
    assert "SF:" in Path("coverage.info").read_text()
    assert len(ElementTree.parse("fuzz.xml").findall(".//failure")) == 1


@pytest.mark.parametrize("section", ["Workers of your own", "Events"])
def test_other_blocks(section: str, capsys: pytest.CaptureFixture[str], nothing_left: None) -> None:
    """Each can be copied as it is."""
    (block,) = blocks(section)
    exec(compile(block, "embedding.md", "exec"), {})
    expected = {
        "Workers of your own": "'.zig-cache/o/1f0c/test'",
        "Events": "StatusEvent(status=Status(state='building', text='Compiling the parser.'))\n",
    }
    assert expected[section] in capsys.readouterr().out


def test_every_name_is_told() -> None:
    """All that can be imported, and every public method of what builds and serves, is in the tables."""
    quoted = " ".join(re.findall(r"`([^`]+)`", SECTIONS["All names"]))
    told = set(re.findall(r"\w+", quoted))
    assert set(fuzzserver.__all__) <= told
    for each in (Observer, WebServer, FuzzSession):
        assert {name for name in dir(each) if not name.startswith("_")} <= told, each
    assert {name for name in vars(Observer()) if not name.startswith("_")} <= told
    assert set(FORMATS) <= told
    parameters = {*inspect.signature(WebServer).parameters, *inspect.signature(FuzzSession).parameters}
    assert parameters <= told


def test_plain_build_script(examples: Path) -> None:
    """It builds; it fuzzes and exits with 0 where nothing is wrong, with 3 where something is."""
    done = run(examples, "build.py", "build")
    assert done.returncode == 0, done.stderr
    program = subprocess.run([examples / "out" / "depth", "((()))"], capture_output=True, check=True)
    assert program.stderr == b"3\n"
    clean = run(examples, "build.py", "fuzz", "--seconds", 5, "--test", "*depth")
    assert clean.returncode == 0, clean.stdout + clean.stderr
    lines = clean.stdout.splitlines()
    assert re.fullmatch(r"watch it at http://127\.0\.0\.1:\d+/", lines[0])
    ending = re.fullmatch(r"clean after (\d+) s; reports are in (.*)", lines[-1])
    assert ending is not None and int(ending[1]) >= 5 and ending[2] == str(examples / "out")
    coverage = (examples / "out" / "coverage.info").read_text()
    assert f"SF:{examples / 'src' / 'text.zig'}\n" in coverage
    assert ElementTree.parse(examples / "out" / "fuzz.xml").findall(".//failure") == []
    broken = run(examples, "build.py", "fuzz", "--seconds", 60, "--test", "*checksum")
    assert broken.returncode == 3, broken.stdout + broken.stderr
    found = [line for line in broken.stdout.splitlines() if line.startswith("found: ")]
    (line,) = found
    assert re.fullmatch(
        r"found: integer overflow in 'text\.test\.fuzz checksum' at \S*text\.zig:26:\d+", line
    )
    (failure,) = ElementTree.parse(examples / "out" / "fuzz.xml").findall(".//failure")
    assert "integer overflow" in str(failure.get("message"))


def test_build_script_tells_errors(examples: Path, tmp_path: Path) -> None:
    """What the compiler says is an error of the build, in some lines and without a traceback."""
    shutil.copy(examples / "build.py", tmp_path)
    (tmp_path / "src").mkdir()
    shutil.copy(examples / "src" / "text.zig", tmp_path / "src")
    (tmp_path / "src" / "text.zig").write_text("this is no Zig\n")
    os.symlink(examples.parent / "user-cache", tmp_path.parent / "user-cache")
    done = run(tmp_path, "build.py", "fuzz", "--seconds", 1)
    assert (done.returncode, "Traceback" in done.stderr) == (4, False), done.stderr
    assert "error: " in done.stderr and "expected" in done.stderr


def test_doit_build(examples: Path) -> None:
    """A task without findings is done until a source changes; one with findings fails, with its reports."""
    folder = examples / "doit"
    done = run(examples, "-m", "doit", "fuzz:depth", folder="doit")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"depth.info", "depth.xml", "depth.json"} <= set(os.listdir(folder))
    again = run(examples, "-m", "doit", "fuzz:depth", folder="doit")
    assert (again.returncode, again.stdout) == (0, "-- fuzz:depth\n")
    broken = run(examples, "-m", "doit", "fuzz:checksum", folder="doit")
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "panic in 'text.test.fuzz checksum': integer overflow" in broken.stdout
    assert len(ElementTree.parse(folder / "checksum.xml").findall(".//failure")) == 1


# ------------------------------------------------------------------------ sessions


@pytest.fixture
def no_tests(tmp_path: Path) -> Callable[[threading.Event], FuzzProject]:
    """A project whose build fails when it is told to."""

    def make(may_end: threading.Event) -> FuzzProject:
        def find(*_: object) -> list[object]:
            assert may_end.wait(WAIT)
            raise InputError("the project has no tests")

        return FuzzProject(tmp_path, find)  # type: ignore[arg-type]

    return make


def test_sessions_of_one_project(
    no_tests: Callable[[threading.Event], FuzzProject], zig: Zig, zig_cache: Path, nothing_left: None
) -> None:
    """One after the other; the second at once is refused. What fails is raised to who waits, and told."""
    may_end = threading.Event()
    options = FuzzOptions(jobs=1, budget=Budget(time=1))
    statuses = []
    project = no_tests(may_end)
    for _ in range(2):
        may_end.clear()
        with (
            Observer() as observer,
            FuzzSession(project, options, observer, zig=zig, cache_dir=zig_cache) as session,
        ):
            observer.subscribe(
                lambda event: statuses.append(event.status) if isinstance(event, StatusEvent) else None
            )
            with pytest.raises(InputError, match="fuzzes this project already"):
                FuzzSession(project, options, observer, zig=zig, cache_dir=zig_cache)
            may_end.set()
            with pytest.raises(InputError, match="the project has no tests"):
                session.ended.result(WAIT)
            outcome = session.finish()
            assert (outcome.started, outcome.findings, outcome.ending) == (False, (), None)
        assert (statuses[-1].state, statuses[-1].text) == ("failed", "the project has no tests")


def test_session_that_is_stopped(
    no_tests: Callable[[threading.Event], FuzzProject], zig: Zig, zig_cache: Path, nothing_left: None
) -> None:
    """Whoever waits for the end is told of it, from whatever thread it comes."""
    may_end = threading.Event()
    options = FuzzOptions(jobs=1)
    with Observer() as observer:
        session = FuzzSession(no_tests(may_end), options, observer, zig=zig, cache_dir=zig_cache)
        session.start()
        thread = threading.Thread(target=session.stop)
        thread.start()
        eventually(lambda: session._driver.stopped, "it is not stopped")
        may_end.set()
        with pytest.raises(InputError):
            session.ended.result(WAIT)
        session.stop()
        thread.join(WAIT)
        assert observer.status.state == "building"  # Nothing has failed.


# ------------------------------------------------------------------------- threads

THREADS = 8


def in_threads(work: Callable[[int], None]) -> None:
    """Do this on eight threads at once; what one of them raises is raised."""
    errors: list[BaseException] = []
    ready = threading.Barrier(THREADS)

    def each(number: int) -> None:
        try:
            ready.wait(WAIT)
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=each, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert errors == []
    assert not any(thread.is_alive() for thread in threads)


def test_posting_from_many_threads(
    debug_pair: FuzzedPair, safe_pair: FuzzedPair, zig: Zig, zig_cache: Path, nothing_left: None
) -> None:
    """Steps, coverage and entry points in any order; each instance knows what it was told and no more."""
    first, second, both = Observer(), Observer(), WebServer(zig=zig, cache_dir=zig_cache)
    told = {first: [debug_pair], second: [safe_pair], both: [debug_pair, safe_pair]}

    def post(number: int) -> None:
        for observer, pairs in told.items():
            for pair in pairs:
                for turn in range(len(pair.entry_points)):
                    # Each thread begins with another one.
                    addr = pair.entry_points[(number + turn) % len(pair.entry_points)]
                    observer.post(EntryPointMsg(pair.coverage_id, addr))
                observer.add_step(pair.step)
                observer.post(CoverageMsg(pair.coverage_id, pair.step))
                observer.set_target(TargetStatus(f"{pair.coverage_id}", f"target {number}", "fuzzing"))
            observer.add_log("parser", f"line {number}")
            observer.set_status("fuzzing", f"thread {number}")

    with first, second, both:
        in_threads(post)
        for observer, pairs in told.items():
            assert observer.settle(WAIT)
            assert observer.problems == []
            maps = observer.coverage_files.newest()
            assert {each.coverage_id for each in maps} == {pair.coverage_id for pair in pairs}
            for pair in pairs:
                coverage_map = observer.coverage_files.get(pair.coverage_id)
                assert coverage_map is not None
                assert len(coverage_map.entry_points) == len(set(pair.entry_points))
            assert len(observer.status_json()["targets"]) == len(pairs)
            assert len(observer.log_book.since(0)[2]) == THREADS
            assert observer.report().targets


def test_stopping_while_others_post(
    debug_pair: FuzzedPair, zig: Zig, zig_cache: Path, nothing_left: None
) -> None:
    """Eight threads post, subscribe and ask, and one of them stops: nobody fails, nobody hangs."""
    for observer in (Observer(), WebServer(zig=zig, cache_dir=zig_cache)):
        late = threading.Event()
        told_late: list[object] = []
        observer.start()

        def hear(event: object, late: threading.Event = late, told: list[object] = told_late) -> None:
            if late.is_set():
                told.append(event)

        def work(
            number: int,
            observer: Observer = observer,
            late: threading.Event = late,
            hear: Callable[[object], None] = hear,
        ) -> None:
            for turn in range(40):
                observer.post(CoverageMsg(debug_pair.coverage_id, debug_pair.step))
                observer.post(EntryPointMsg(debug_pair.coverage_id, debug_pair.entry_points[0]))
                unsubscribe = observer.subscribe(hear)
                observer.set_status("fuzzing", f"{number} {turn}")
                observer.status_json()
                unsubscribe()
                if number == 0 and turn == 20:
                    observer.stop()
                    late.set()
            observer.report()

        in_threads(work)
        observer.stop()
        assert told_late == []


def test_several_servers_have_nothing_in_common(zig: Zig, zig_cache: Path, nothing_left: None) -> None:
    """Each has its own port, token, limits, state and subscribers."""
    heard: dict[str, list[str]] = {"one": [], "two": []}
    with (
        WebServer(zig=zig, cache_dir=zig_cache) as one,
        WebServer(zig=zig, cache_dir=zig_cache, access=Access(token=True), limits=Limits(viewers=1)) as two,
    ):
        assert one.port != two.port
        assert (one.token, two.token is None) == (None, False)
        for name, server in (("one", one), ("two", two)):
            server.subscribe(
                lambda event, name=name: (
                    heard[name].append(event.status.text) if isinstance(event, StatusEvent) else None
                )
            )
            server.set_status("fuzzing", f"fuzzing {name}")
        one.stop()
        two.set_status("fuzzing", "alone")
        assert one.status.text == "fuzzing one"
    assert heard["one"][-1] == "fuzzing one"
    assert heard["two"][-1] == "alone"
    assert not {"fuzzing two", "alone"} & set(heard["one"])
