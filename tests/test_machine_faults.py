"""A machine that misbehaves: full disks, folders that vanish, clocks that jump, odd surroundings."""

import ast
import errno
import glob
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzserver import FuzzRunStep, WebServer, paths
from fuzzserver.corpus import Corpus
from fuzzserver.errors import InputError, ZigTimeout
from fuzzserver.findings import FindingStore
from fuzzserver.fuzz.lock import ProjectLock
from fuzzserver.fuzz.turns import Turn, Turns
from fuzzserver.fuzz.worker import FuzzTest, FuzzWorker, WorkerEnd, WorkerLimits
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.process import ChildGroup
from fuzzserver.zig.wasm import build_wasm_binary
from tests.projects import FuzzedPair
from tests.support_fuzzing import lively_command
from tests.support_puppet import finding
from tests.support_time import WAIT, eventually
from tests.support_web import request
from tests.support_zig_cli import BUILD_WAIT, Cli, command, environment, errors, forget_sessions, running
from tests.support_zig_fake import fake_zig
from tests.support_zig_runner import runner

MAGIC = b"\0asm"


@pytest.fixture
def no_trace(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails the test if a traceback is logged."""
    yield
    assert "Traceback" not in caplog.text


def run_in(
    folder: Path, preparation: str, *args: object, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The program after some shell commands, in namespaces of its own in which we may mount and unplug."""
    script = f'set -e; {preparation}\nexec "$@"'
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "--net", "sh", "-c", script, "sh", *command(*args)],
        cwd=folder,
        env=environment(folder) | variables,
        capture_output=True,
        text=True,
        timeout=BUILD_WAIT,
        check=False,
    )


def serve_args(pair: FuzzedPair, *more: object) -> list[object]:
    """The arguments that show ``pair``."""
    return ["serve", "--executable", pair.executable, "--coverage", pair.coverage_file, *more]


def the_error(done: subprocess.CompletedProcess[str]) -> str:
    """The only error of a program, which has ended for what its user has given it."""
    assert "Traceback" not in done.stderr
    assert done.returncode == 2, done.stderr
    (error,) = errors(done.stderr)
    return error


# ----------------------------------------------------------------------------------------- disk and home


def test_home_that_cannot_be_written(tmp_path: Path, debug_pair: FuzzedPair) -> None:
    """A home folder that is read-only is told, with what to do."""
    (tmp_path / "home").mkdir()
    mount = f"mount -t tmpfs -o ro none '{tmp_path}/home'"
    home = {"HOME": f"{tmp_path}/home", "XDG_CACHE_HOME": ""}
    error = the_error(run_in(tmp_path, mount, *serve_args(debug_pair), **home))
    assert error == (
        f"error: cannot write to cache folder '{tmp_path}/home/.cache/fuzzserver': Read-only file system; "
        "--cache-dir names another"
    )


def test_project_that_cannot_be_written(tmp_path: Path, zig_cache: Path) -> None:
    """A project on a read-only file system is told, too."""
    (tmp_path / "project").mkdir()
    root = lively_command(tmp_path / "source").roots[0]
    mount = f"mount -t tmpfs none '{tmp_path}/project'; cp '{root}' project"
    done = run_in(
        tmp_path,
        f"{mount}/main.zig; mount -o remount,ro '{tmp_path}/project'",
        *("run", tmp_path / "project" / "main.zig", "--no-web", "--cache-dir", zig_cache),
    )
    folder = tmp_path / "project" / ".zig-cache" / "fuzzserver"
    assert the_error(done) == f"error: cannot keep fuzzing data in '{folder}': Read-only file system"


def test_disk_that_is_full(tmp_path: Path) -> None:
    """Nothing can be compiled on a full disk: that is the compiler's error, and the exit code says so."""
    (tmp_path / "cache").mkdir()
    mount = f"mount -t tmpfs -o size=256k none '{tmp_path}/cache'"
    root = lively_command(tmp_path / "source").roots[0]
    done = run_in(tmp_path, mount, "run", root, "--no-web", "--cache-dir", tmp_path / "cache")
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    assert "NoSpaceLeft" in done.stderr or "No space left" in done.stderr


def test_disk_that_is_full_for_a_while(tmp_path: Path, debug_pair: FuzzedPair, monkeypatch) -> None:
    """A running server whose cache has no room says so, goes on, and compiles when there is room again."""
    cache = tmp_path / "cache"
    cache.mkdir()
    fill = f'head -c 1G /dev/zero 2>/dev/null >"{cache}/ballast"'
    script = f'mount -t tmpfs -o size=256m none "{cache}"; {fill}; exec "$@"'
    prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    monkeypatch.setattr("tests.support_zig_cli.command", lambda *args: [*prefix, *command(*args)])
    with running(tmp_path, *serve_args(debug_pair, "--cache-dir", cache)) as cli:
        port = cli.port()
        answer = request(port, "/debug/main.wasm")
        assert answer.status == 500
        assert b"NoSpaceLeft" in answer.body or b"No space left" in answer.body, answer.body
        Path(f"/proc/{cli.pid}/root{cache}/ballast").unlink()
        assert request(port, "/debug/main.wasm").body[:4] == MAGIC
        assert cli.end() == 130
    assert "Traceback" not in cli.text()


def test_log_that_cannot_be_written(tmp_path: Path, debug_pair: FuzzedPair, zig_cache: Path) -> None:
    """A program whose stderr is a file on a full disk works all the same."""
    port_file = tmp_path / "port"
    args = serve_args(debug_pair, "--cache-dir", zig_cache, "--port-file", port_file)
    with open("/dev/full", "wb") as full:
        child = subprocess.Popen(command(*args), cwd=tmp_path, env=environment(tmp_path), stderr=full)
    try:
        eventually(port_file.exists, "it does not start")
        assert request(int(port_file.read_text()), "/debug/main.wasm").body[:4] == MAGIC
        child.send_signal(signal.SIGTERM)
        assert child.wait(WAIT) == 143
    finally:
        child.kill()
        child.wait()


@pytest.mark.usefixtures("no_trace")
def test_cache_that_vanishes(tmp_path: Path, zig: Zig) -> None:
    """A cache folder that is removed while we run is made anew."""
    cache = tmp_path / "cache"
    cache.mkdir()
    with WebServer(zig=zig, cache_dir=cache) as server:
        shutil.rmtree(cache)
        answer = request(server.port, "/debug/main.wasm")
    assert (answer.status, answer.body[:4]) == (200, MAGIC)


@contextmanager
def fuzzing(folder: Path, zig_cache: Path, *args: object) -> Iterator[tuple[Cli, Path]]:
    """A session on a project in ``folder``, and its cache."""
    lively = lively_command(folder)
    with running(folder, "run", lively.roots[0], "--cache-dir", zig_cache, *args) as cli:
        yield cli, lively.cache_root


def test_project_cache_that_vanishes(work: Path, zig_cache: Path) -> None:
    """With the project's cache, executables and corpus are gone: a session that watches builds them again."""
    forget_sessions(lively_command(work).project)
    with fuzzing(work, zig_cache, "--watch", "--test", "*patient") as (cli, cache):
        cli.wait_for_line("^info: fuzzing ")
        inputs = f"{cache}/fuzzserver/*/*/f/*/*"
        eventually(lambda: glob.glob(inputs), "it does not fuzz")
        # At once: if it were built again while we still remove, others would be left half of a cache.
        gone = cache.rename(Path(tempfile.mkdtemp(dir=work)) / "cache")
        shutil.rmtree(gone.parent, ignore_errors=True)
        cli.wait_for_line("info: executables are gone; building again")
        cli.wait_for("/targets.json", lambda _: glob.glob(inputs))  # It fuzzes again.
        assert cli.end() == 130
    assert "Traceback" not in cli.text()


# ------------------------------------------------------------------------------- findings and corpora


def test_findings_are_written_when_they_can_be(work: Path, zig_cache: Path) -> None:
    """What could not be written when it was found is told, shown, and written when the cause is gone."""
    forget_sessions(lively_command(work).project)
    folder = lively_command(work).cache_root / "fuzzserver"
    folder.mkdir(parents=True)
    obstacle = folder / "findings"
    obstacle.write_text("A file is in the way.")
    try:
        with fuzzing(work, zig_cache, "--test", "*later") as (cli, _):
            line = cli.wait_for_line(
                r"error: cannot write '(.*)\.input': (.*); the finding is kept in memory only"
            )
            assert line[1].startswith(f"{folder}/findings/")
            assert line[2] in ("File exists", "Not a directory")
            (found,) = cli.wait_for("/findings.json", lambda answer: answer["findings"])["findings"]
            assert b"b" in request(cli.port(), f"/findings/{found['id']}.input").body
            obstacle.unlink()
            cli.wait_for_line(f"info: finding {found['id']} is saved now, in '{folder}/findings'")
            assert cli.end() == 3
        assert FindingStore(folder / "findings").input(found["id"])
    finally:
        forget_sessions(lively_command(work).project)
    assert "could not be saved" not in cli.text()
    assert "Traceback" not in cli.text()


def test_all_that_was_not_written_is_written(tmp_path: Path) -> None:
    """Counts and what was learnt meanwhile, too; what still cannot be written is known."""
    (tmp_path / "file").write_text("")
    store = FindingStore(tmp_path / "file")
    for number in (1, 2, 1):
        with pytest.raises(InputError):
            store.add(finding(number), b"input")
    ids = [finding(1).id, finding(2).id]
    assert store.save_again() == []
    assert store.unsaved == ids
    (tmp_path / "file").unlink()
    assert store.save_again() == ids
    assert store.unsaved == []
    again = FindingStore(tmp_path / "file")
    assert [(each.id, each.count) for each in again.all()] == [(ids[0], 2), (ids[1], 1)]
    assert again.input(ids[0]) == b"input"


def test_what_was_not_written_is_newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a finding cannot be written, what is on disk is not taken for what is known of it."""
    store = FindingStore(tmp_path)
    store.add(finding(), b"input")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", no_space)
        for _ in range(2):
            with pytest.raises(InputError, match="No space left on device"):
                store.add(finding(), b"input")
    store.add(finding(), b"input")
    assert FindingStore(tmp_path).all()[0].count == 4
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def no_space(*_: object) -> None:
    """As on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_corpus_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No input is lost that cannot be written elsewhere, and cutting one needs no room."""
    folder = tmp_path / "f"
    folder.mkdir()
    for number, data in enumerate([b"a", b"", b"b", b"c", b"d"]):
        (folder / str(number)).write_bytes(data.ljust(4096, b"\0"))
    corpus = Corpus(folder, "main.zig", "test")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", no_space)
        with pytest.raises(OSError, match="No space left"):
            corpus.tidy()
    kept = {(folder / str(number)).read_bytes().rstrip(b"\0") for number in range(5)}
    assert kept >= {b"a", b"b", b"c"}
    assert (folder / "0").read_bytes() == b"a"
    corpus.tidy()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"0": b"a", "1": b"b", "2": b"c"}


def test_corpus_that_vanishes(tmp_path: Path) -> None:
    """A folder that is removed between two workers is made anew."""
    corpus = Corpus(tmp_path / "f", "main.zig", "test")
    corpus.add([b"one"], 7)
    assert corpus.first_number == 7
    shutil.rmtree(tmp_path / "f")
    corpus.tidy()
    corpus.stir()
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["7"]


def test_lock_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock holds, though nothing can be written into its file."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", no_space)
        lock = ProjectLock(tmp_path)
    with pytest.raises(InputError, match="process unknown fuzzes this project already"):
        ProjectLock(tmp_path)
    lock.release()
    ProjectLock(tmp_path).release()


def test_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_left: None
) -> None:
    """That there are no locks is an error with the path."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(InputError, match=f"^cannot lock '{tmp_path}/lock': No locks available$"):
        ProjectLock(tmp_path)


# ---------------------------------------------------------------------------------------------- clocks

WALL_CLOCKS = {
    *("coverage/coverage_map.py", "fuzz/recorder.py", "logbook.py", "web/session.py", "observer.py"),
    *("coverage/zig_cache.py", "fuzz/driver.py", "fuzz/watch.py", "web/bundle.py", "web/kept_sources.py"),
    *("web/page_files.py", "web/static_page.py", "web/target_numbers.py", "zig/compile_client.py"),
}
"""Who asks what time it is: to say when something was, or to compare it with the time of a file."""


def test_nobody_measures_with_a_clock_that_jumps() -> None:
    """Seconds are counted with a clock that only goes forwards."""
    package = Path(paths.__file__).parent
    users = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(value=ast.Name(id="time"), attr="time" | "time_ns"):
                    users.add(str(path.relative_to(package)))
                case (
                    ast.ImportFrom(module="datetime" | "time")
                    | ast.Import(names=[ast.alias(name="datetime")])
                ):
                    raise AssertionError(f"{path}: what is imported there is not looked at")
    assert users == WALL_CLOCKS


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps years at each look, back and forth."""
    jumps = itertools.cycle([0.0, 1e8, -1e8, -1.7e9])
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))


@pytest.mark.usefixtures("jumping", "no_trace")
def test_clock_that_jumps_while_a_compiler_hangs(tmp_path: Path) -> None:
    """It gets the time that it should."""
    zig = fake_zig(tmp_path / "bin", compile="hang")
    zig.learn(ChildGroup())
    vars(zig)["timeout"] = 1.0  # Not earlier: what it says of itself may take longer.
    started = time.monotonic()
    with pytest.raises(ZigTimeout):
        build_wasm_binary(ZigCompileClient(zig, tmp_path / "cache"), Path("/lib"), "Debug")
    assert 1.0 <= time.monotonic() - started < WAIT


@pytest.mark.usefixtures("jumping")
def test_clock_that_jumps_while_a_worker_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does a worker."""
    monkeypatch.setattr("fuzzserver.fuzz.worker.STACK_WAIT", 0.1)
    turn = Turn(Turns(1))
    assert turn.take()
    test = FuzzTest(FuzzRunStep("fake", runner(tmp_path, "time.sleep(1000)")), 0, "test.fake")
    ignore: Callable[..., None] = lambda *_: None  # noqa: E731
    worker = FuzzWorker(
        *(ChildGroup(), test, tmp_path / "cache", tmp_path, 1, WorkerLimits(hang=1.0), turn),
        *(ignore, ignore, ignore, ignore),
    )
    started = time.monotonic()
    end: WorkerEnd = worker.run()
    assert end.why == "hang"
    assert 1.0 <= time.monotonic() - started < WAIT


@pytest.mark.usefixtures("jumping", "no_trace")
def test_clock_that_jumps_while_a_server_runs(zig: Zig, zig_cache: Path) -> None:
    """What it says and logs is served, whatever time it takes it for."""
    with WebServer(zig=zig, cache_dir=zig_cache) as server:
        for number in range(10):
            server.add_log("test", f"line {number}")
            server.set_status("fuzzing", f"status {number}")
        assert request(server.port, "/").status == 200
        assert request(server.port, "/debug/main.wasm").body[:4] == MAGIC
        assert json.loads(request(server.port, "/findings.json").body)["findings"] == []


# ----------------------------------------------------------------------------------------- surroundings


def test_locale_without_letters(tmp_path: Path, debug_pair: FuzzedPair, zig_cache: Path, monkeypatch) -> None:
    """In the C locale, paths with any bytes are served, told and logged."""
    for name, value in {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / os.fsdecode("grün-日本-".encode() + b"\xff")
    folder.mkdir()
    executable = Path(shutil.copy2(debug_pair.executable, folder / "prüfling"))
    args = serve_args(replace(debug_pair, executable=executable), "--cache-dir", zig_cache)
    with running(tmp_path, *args) as cli:
        port = cli.port()
        assert request(port, "/debug/main.wasm").body[:4] == MAGIC
        assert request(port, "/").status == 200
        executable.write_bytes(b"no longer what it was")
        assert cli.end() == 130
    assert "Traceback" not in cli.text() and "Error" not in cli.text()
    done = run_in(tmp_path, "true", "run", folder / "fehlt.zig", LC_ALL="C", PYTHONUTF8="0")
    assert "does not exist" in the_error(done)


def test_port_that_is_taken(tmp_path: Path, debug_pair: FuzzedPair, zig_cache: Path, zig: Zig) -> None:
    """A second server on a port is told so; the first one goes on."""
    with WebServer(zig=zig, cache_dir=zig_cache) as server:
        args = serve_args(debug_pair, "--cache-dir", zig_cache, "--port", server.port)
        done = subprocess.run(
            command(*args),
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        assert the_error(done) == (
            f"error: cannot listen on 127.0.0.1 port {server.port}: Address already in use; "
            "port 0 picks a free one"
        )
        with pytest.raises(InputError, match="Address already in use"):
            WebServer(zig=zig, cache_dir=zig_cache, listen_address=("127.0.0.1", server.port)).start()
        assert request(server.port, "/").status == 200


def test_no_ipv6(tmp_path: Path, debug_pair: FuzzedPair, zig_cache: Path) -> None:
    """An address that the machine does not have is an error with the address."""
    args = serve_args(debug_pair, "--cache-dir", zig_cache, "--host", "::1")
    error = the_error(run_in(tmp_path, "true", *args))
    assert error.startswith("error: cannot listen on ::1 port 0: ")
    assert error.endswith("; port 0 picks a free one")
