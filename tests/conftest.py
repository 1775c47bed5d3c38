"""Fixtures: the compiler, projects built with it, and running servers."""

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fuzzserver.coverage import coverage_map
from fuzzserver.webserver import WebServer
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig, find_zig
from tests import support_browser
from tests.projects import FuzzedPair, fuzz_for_a_moment, locked, made_once, write_project
from tests.support_facts import open_files
from tests.support_patience import PATIENT
from tests.support_time import WAIT

for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    # Who is started in the background ignores them, and so would the programs that are tested.
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)

driver, page = support_browser.driver, support_browser.page


LONG = (
    "test_cli_fuzzing",
    "test_fuzz_driver",
    "test_parity",
    "test_test_run",
    "test_browser",
    "test_machine_faults",
    "test_defences",
    "test_cli",
    "test_worker",
    "test_analysis",
    "test_coverage_faults",
    "test_page_access",
    "test_page_source",
    "test_page_states",
    "test_page_layout",
    "test_shutdown",
    "test_session",
)
"""Files that take long, the longest first: one that is begun last would keep only one processor busy."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options for what takes too long for every change."""
    parser.addoption("--slow", action="store_true", help="also the tests that take long, and all rounds")
    parser.addoption("--all-zigs", action="store_true", help="also the tests with each release of Zig")


def pytest_configure(config: pytest.Config) -> None:
    """The same examples in each run, unless it is a slow one; none is wrong because the machine is busy."""
    settings.register_profile(
        "any machine",
        deadline=None,
        derandomize=not config.getoption("--slow"),
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("any machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long files first; tests that have the mark of an option only if they are wanted."""
    for mark, option in (("slow", "--slow"), ("all_zigs", "--all-zigs")):
        if not config.getoption(option):
            unwanted = [item for item in items if item.get_closest_marker(mark)]
            config.hook.pytest_deselected(items=unwanted)
            items[:] = [item for item in items if item not in unwanted]
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session")
def rounds(pytestconfig: pytest.Config) -> Callable[[int, int], int]:
    """How often to try something that is random: the first number with ``--slow``, else the second."""
    return lambda slow, quick: slow if pytestconfig.getoption("--slow") else quick


@pytest.fixture(scope="session")
def zig() -> Zig:
    """The compiler of the environment."""
    return Zig(find_zig())


@pytest.fixture(scope="session")
def all_work(pytestconfig: pytest.Config) -> Path:
    """A folder that outlives the run, so that what is built need not be built again."""
    return Path(pytestconfig.cache.mkdir("work")).resolve()


@pytest.fixture(scope="session")
def work(all_work: Path) -> Path:
    """The part of that folder that is this process's alone: tests run in several."""
    work = all_work / os.environ.get("PYTEST_XDIST_WORKER", "main")
    work.mkdir(exist_ok=True)
    return work


@pytest.fixture(scope="session")
def zig_cache(all_work: Path) -> Path:
    """The compiler's global cache, which locks what it writes."""
    return all_work / "zig-cache"


@pytest.fixture(scope="session", autouse=True)
def shared_zig_cache(zig_cache: Path) -> Iterator[None]:
    """What a Zig that a test starts compiles for all projects, it compiles once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZIG_GLOBAL_CACHE_DIR", str(zig_cache))
        # Since 0.17, Zig compiles its "zig build" first: optimized, which takes minutes, if not for this.
        patch.setenv("ZIG_DEBUG_CMD", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def patient_servers() -> Iterator[None]:
    """Servers bear with clients that a busy machine holds up, where a test does not say how long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WebServer.__init__.__kwdefaults__, "limits", PATIENT)
        yield


@pytest.fixture(scope="session")
def client(zig: Zig, zig_cache: Path) -> ZigCompileClient:
    """Compiles into the shared cache."""
    return ZigCompileClient(zig, zig_cache)


@pytest.fixture(scope="session")
def project_root(all_work: Path) -> Path:
    """The root source file of a project with two fuzz tests. All processes share it, and only read it."""
    with locked(all_work / "project.lock"):
        return write_project(all_work / "project")


MakePair = Callable[..., FuzzedPair]


@pytest.fixture(scope="session")
def make_pair(client: ZigCompileClient, project_root: Path, all_work: Path) -> MakePair:
    """Builds the project with extra flags and fuzzes it for a moment: in one process, for all of them.

    An optimized build takes half a minute.
    """

    def make(name: str, *flags: str) -> FuzzedPair:
        path = all_work / f"{name}.pickle"
        return made_once(path, lambda: fuzz_for_a_moment(client, project_root, *flags))

    return make


@pytest.fixture(scope="session")
def debug_pair(make_pair: MakePair) -> FuzzedPair:
    """A Debug build and its coverage file."""
    return make_pair("debug")


@pytest.fixture(scope="session")
def safe_pair(make_pair: MakePair) -> FuzzedPair:
    """A ReleaseSafe build, which has placeholder PCs, and its coverage file."""
    return make_pair("safe", "-OReleaseSafe")


@pytest.fixture(scope="session")
def small_pair(make_pair: MakePair) -> FuzzedPair:
    """A ReleaseSmall build, which has no debug info, and its coverage file."""
    return make_pair("small", "-OReleaseSmall")


@pytest.fixture(autouse=True)
def tables_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested is how tables are made, not what an earlier run has kept of them."""
    monkeypatch.setattr(coverage_map, "load_tables", lambda *_: None)


@pytest.fixture
def web_server(zig: Zig, zig_cache: Path) -> Iterator[WebServer]:
    """A started server without any step."""
    with WebServer(zig=zig, cache_dir=zig_cache) as server:
        yield server


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fails the test if it leaves a thread or a file descriptor behind."""
    threads, files = set(threading.enumerate()), open_files()
    yield
    # What only the garbage collector would close is left behind, too.
    gc.disable()
    try:
        # Clients have threads, too, which may take a moment to see that it is over.
        deadline = time.monotonic() + WAIT
        while (left := (set(threading.enumerate()) - threads, open_files() - files)) != (set(), set()):
            assert time.monotonic() < deadline, left
            time.sleep(0.01)
    finally:
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """A test in a browser that has passed fails if the browser complains."""
    yield
    page = getattr(item, "funcargs", {}).get("page")
    if isinstance(page, support_browser.Page):
        complaints = page.complaints()
        assert not complaints, "\n".join(complaints)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Reports travel between processes as UTF-8, and what tests log about odd paths is not always text."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report
