"""Zig caches: what is found in real ones, and what a look survives."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from fuzzserver.coverage.executable import Executable
from fuzzserver.coverage.zig_cache import ZigCache, _root_source, find_cache
from fuzzserver.errors import InputError
from fuzzserver.wire.wyhash import wyhash
from tests.projects import FuzzedPair
from tests.support_native import coverage_bytes, write_files
from tests.support_zig_cache import (
    LONG_AGO,
    add_corpus,
    add_coverage_file,
    add_executable,
    add_pair,
    fuzzed_pie,
    set_time,
)

pytestmark = pytest.mark.usefixtures("nothing_left")

NO_PCS = "59e4bde28e630904"
"""The name of every coverage file without PCs."""


@pytest.fixture
def cache(tmp_path) -> Path:
    """An empty cache of a project."""
    folder = tmp_path / "project" / ".zig-cache"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def pie_pair(client, all_work) -> FuzzedPair:
    """A position-independent executable and a coverage file of one run of it."""
    return fuzzed_pie(client, all_work)


@pytest.fixture(scope="module")
def without_llvm(client, project_root) -> Path:
    """An executable built in fuzz mode by Zig's own backend, which does not instrument."""
    cache = client.global_cache_dir
    args = ["test", "-ffuzz", "-fno-llvm", "-fno-lld", f"-Mroot={project_root}", "--name", "test"]
    result = client.compile([*args, "--cache-dir", str(cache), "--global-cache-dir", str(cache)], cache)
    return result.output_dir / "test"


@contextmanager
def opened_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the files that are opened."""
    opened = []
    really_open = os.open

    def watched(path, *args, **kwargs):
        opened.append(str(path))
        return really_open(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", watched)
        yield opened


@pytest.fixture
def frozen_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look takes place when the files of the cache were written, however long this process is paused."""
    monkeypatch.setattr("fuzzserver.coverage.zig_cache.time", SimpleNamespace(time_ns=lambda: LONG_AGO * 1e9))


def problems(zig_cache: ZigCache) -> list[str]:
    """What a second look has to say: the first waits for files to be filled."""
    assert zig_cache.look().problems == ()
    return [problem.text for problem in zig_cache.look().problems]


def test_the_cache_of_a_real_project_has_its_pair(debug_pair, project_root):
    """Where the compiler and the fuzzer wrote to, both are found, with name, version and fuzz tests."""
    project = project_root.parent.parent
    pairs = ZigCache(find_cache(project)).look().pairs
    (pair,) = [pair for pair in pairs if pair.executable.path == debug_pair.executable]
    assert pair.coverage_file.coverage_id == debug_pair.coverage_id
    assert pair.name == "src/main.zig"
    assert pair.zig_version == "0.14.1"
    with Executable(debug_pair.executable) as executable:
        assert pair.executable.pcs_len == pair.coverage_file.pcs_len == len(executable.pc_addrs())


def test_each_coverage_file_gets_its_executable(cache, debug_pair, safe_pair):
    """Two builds are told apart; the coverage file that was written last comes first."""
    debug, _ = add_pair(cache, debug_pair, "d" * 32, after=10)
    safe, safe_file = add_pair(cache, safe_pair, "5" * 32, after=20)
    zig_cache = ZigCache(cache)
    assert [pair.executable.path for pair in zig_cache.look().pairs] == [safe, debug]
    set_time(safe_file, 5)
    look = zig_cache.look()
    assert [pair.executable.path for pair in look.pairs] == [debug, safe]
    assert [pair.coverage_file.coverage_id for pair in look.pairs] == [
        debug_pair.coverage_id,
        safe_pair.coverage_id,
    ]
    assert look.problems == ()


def test_of_copies_the_newest_is_taken(cache, debug_pair):
    """Builds that differ in comments have the same PCs; the last one has the right lines."""
    add_pair(cache, debug_pair, "1" * 32, after=10)
    newest = add_executable(cache, debug_pair.executable, "2" * 32, after=20)
    add_executable(cache, debug_pair.executable, "3" * 32, after=15)
    zig_cache = ZigCache(cache)
    (pair,) = zig_cache.look().pairs
    assert pair.executable.path == newest
    again = add_executable(cache, debug_pair.executable, "0" * 32, after=30)
    (pair,) = zig_cache.look().pairs
    assert pair.executable.path == again


def test_fuzz_tests_are_those_with_a_corpus(cache, debug_pair):
    """Folders bear the test's name or, since Zig 0.16, a hash of it; they come when fuzzing starts."""
    add_pair(cache, debug_pair)
    zig_cache = ZigCache(cache)
    (pair,) = zig_cache.look().pairs
    assert pair.fuzz_tests == {}
    add_corpus(cache, "main.test.fuzz sum")
    add_corpus(cache, "main.test.another program's")
    (pair,) = zig_cache.look().pairs
    assert list(pair.fuzz_tests) == ["main.test.fuzz sum"]
    add_corpus(cache, wyhash(0, b"main.test.fuzz depth").to_bytes(8, "little").hex())
    (pair,) = zig_cache.look().pairs
    assert set(pair.fuzz_tests.values()) == set(debug_pair.entry_points)


@pytest.mark.parametrize("by_hash", [False, True])
def test_what_workers_have_left_is_found(cache, debug_pair, safe_pair, by_hash):
    """A worker for each test; since Zig 0.16, instances with all tests, whose corpora bear hashes."""
    add_executable(cache, debug_pair.executable, "d" * 32)
    add_executable(cache, safe_pair.executable, "5" * 32)
    names = ("main.test.fuzz sum", "main.test.fuzz depth")
    target = cache / "fuzzserver" / "main.zig"
    for number, name in enumerate(names):
        worker = target / (f"all/instance{number}" if by_hash else f"worker{number}")
        for after, pair in ((10, safe_pair), (20 + number, debug_pair)):
            add_coverage_file(worker, pair.coverage_file, after=after)
        if by_hash:
            (target / "all" / "f" / wyhash(0, name.encode()).to_bytes(8, "little").hex()).mkdir(parents=True)
            (worker / "f").symlink_to("../f")
        else:
            add_corpus(worker, name)
    (pairs,) = ZigCache(cache).session_pairs()
    assert [pair.executable.path.parent.name for pair in pairs] == ["d" * 32] * 2
    tests = {tuple(sorted(pair.fuzz_tests)) for pair in pairs}
    assert tests == ({tuple(sorted(names))} if by_hash else {(name,) for name in names})


def test_when_a_crash_was_kept_is_told(cache, debug_pair):
    """By ``zig build``, which keeps the input of the latest one."""
    add_pair(cache, debug_pair)
    zig_cache = ZigCache(cache)
    assert zig_cache.look().crash_mtime_ns is None
    zig_cache.crash_input.parent.mkdir()
    zig_cache.crash_input.write_bytes(b"input")
    set_time(zig_cache.crash_input, 3)
    assert zig_cache.look().crash_mtime_ns == int((LONG_AGO + 3) * 10**9)


def test_the_hash_is_the_one_of_zig():
    """The folder that Zig 0.17.0 made for a test of this name."""
    assert wyhash(0, b"main.test.fuzz example").to_bytes(8, "little").hex() == "9137732d01da0041"


def test_a_look_at_what_is_known_opens_no_executable(cache, debug_pair, monkeypatch):
    """Executables are read once; a coverage file is opened for its counters."""
    _, coverage_file = add_pair(cache, debug_pair)
    add_executable(cache, debug_pair.normal_executable, "b" * 32)
    zig_cache = ZigCache(cache)
    first = zig_cache.look()
    with opened_files(monkeypatch) as opened:
        assert zig_cache.look() == first
    assert opened == [str(coverage_file)]


def test_an_executable_that_is_rewritten_is_read_again(cache, debug_pair, safe_pair):
    """Even one that has the old one's time and place."""
    executable, _ = add_pair(cache, debug_pair)
    add_coverage_file(cache, safe_pair.coverage_file)
    zig_cache = ZigCache(cache)
    (pair,) = zig_cache.look().pairs
    assert pair.coverage_file.coverage_id == debug_pair.coverage_id
    shutil.copy(safe_pair.executable, executable)
    set_time(executable, 0)
    (pair,) = zig_cache.look().pairs
    assert pair.coverage_file.coverage_id == safe_pair.coverage_id


def test_what_was_written_just_now_is_not_remembered(cache, debug_pair, frozen_clock):
    """Two writes within one tick of the clock have the same time: only older files are trusted."""
    executable, _ = add_pair(cache, debug_pair)
    whole = executable.read_bytes()
    zig_cache = ZigCache(cache)
    executable.write_bytes(bytes(len(whole)))
    set_time(executable, 0)
    assert zig_cache.look().pairs == ()
    executable.write_bytes(whole)
    set_time(executable, 0)
    assert len(zig_cache.look().pairs) == 1


def test_a_coverage_file_that_is_being_created_is_waited_for(cache, debug_pair, frozen_clock):
    """Empty, then as long as it will be, then with the header, then with its PCs: never a problem."""
    add_executable(cache, debug_pair.executable)
    whole = debug_pair.coverage_file.read_bytes()
    file = cache / "v" / debug_pair.coverage_file.name
    file.parent.mkdir()
    zig_cache = ZigCache(cache)
    for content in (b"", bytes(len(whole)), whole[:24] + bytes(len(whole) - 24)):
        file.write_bytes(content)
        set_time(file, 0)
        look = zig_cache.look()
        assert (look.pairs, look.problems) == ((), ())
    file.write_bytes(whole)
    look = zig_cache.look()
    assert ([pair.coverage_file.path for pair in look.pairs], look.problems) == ([file], ())


def test_counters_are_those_of_now(cache, debug_pair):
    """A running fuzzer counts on in a file that is known already."""
    _, file = add_pair(cache, debug_pair)
    zig_cache = ZigCache(cache)
    before = zig_cache.look().pairs[0].coverage_file.n_runs
    assert before >= 100
    with file.open("r+b") as opened:
        opened.write((before + 5).to_bytes(8, "little"))
    assert zig_cache.look().pairs[0].coverage_file.n_runs == before + 5


def test_a_coverage_file_that_is_replaced_has_another_identity(cache, debug_pair):
    """By which its reader sees that it must open it again."""
    _, file = add_pair(cache, debug_pair)
    zig_cache = ZigCache(cache)
    before = zig_cache.look().pairs[0].coverage_file.identity
    other = file.with_name("new")
    shutil.copy(file, other)
    other.replace(file)
    assert zig_cache.look().pairs[0].coverage_file.identity != before


def test_a_coverage_file_without_executable_is_a_problem(cache, debug_pair, safe_pair):
    """The sentence names it and tells how many PCs there should be."""
    add_executable(cache, debug_pair.executable)
    file = add_coverage_file(cache, safe_pair.coverage_file)
    (problem,) = problems(ZigCache(cache))
    with Executable(safe_pair.executable) as executable:
        pcs_len = len(executable.pc_addrs())
    assert str(file) in problem
    assert f"none under 'o/' has its {pcs_len} PCs" in problem


def test_a_truncated_coverage_file_is_a_problem(cache, debug_pair):
    """Its size does not fit its header, and it is too old to be just in creation."""
    _, file = add_pair(cache, debug_pair)
    os.truncate(file, file.stat().st_size - 8)
    set_time(file, 0)
    (problem,) = [problem.text for problem in ZigCache(cache).look().problems]
    assert str(file) in problem and "truncated" in problem


def test_a_position_independent_executable_explains_its_coverage_files(cache, pie_pair):
    """With Zig before 0.16 no coverage file has its PCs, but as many."""
    executable, file = add_pair(cache, pie_pair)
    (problem,) = problems(ZigCache(cache))
    assert str(executable) in problem and str(file) in problem
    assert "build it without -fPIE" in problem


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (b"0.14.1", "Zig 0.14 instruments unless the build says '.use_llvm = false'"),
        (b"0.15.2", "Zig 0.15 builds Debug without LLVM, which alone instruments: set '.use_llvm = true'"),
        (b"0.16.0", "'.error_tracing = false'"),
        (b"0.17.0", "Zig 0.17 builds Debug without LLVM"),
        (b"0.99.0", "Zig 0.17 builds Debug without LLVM"),
    ],
)
def test_an_executable_without_instrumentation_is_named(cache, without_llvm, version, advice):
    """The real compiler's own backend does not instrument; what to do depends on its version."""
    executable = add_executable(cache, without_llvm)
    executable.write_bytes(executable.read_bytes().replace(b"zig 0.14.1\0", b"zig " + version + b"\0"))
    write_files(cache, {f"v/{NO_PCS}": ""})
    (cache / "v" / NO_PCS).write_bytes(coverage_bytes([]))
    (problem,) = problems(ZigCache(cache))
    assert f"'{executable}' was built in fuzz mode, but without instrumentation" in problem
    assert advice in problem
    assert problem.count("Zig 0.1") == 1


def test_no_instrumentation_without_executable_lists_all_versions(cache, debug_pair):
    """An executable of the first phase is none that a fuzzer was in, so none is named."""
    add_executable(cache, debug_pair.normal_executable)
    (cache / "v").mkdir()
    (cache / "v" / NO_PCS).write_bytes(coverage_bytes([]))
    (problem,) = problems(ZigCache(cache))
    assert "was built in fuzz mode" not in problem
    assert all(version in problem for version in ("0.14", "0.15", "0.16", "0.17"))


def test_odd_things_in_a_cache_are_passed_over(cache, debug_pair):
    """Pipes, links in circles, folders, scripts and names that are no ids do not hide the pair."""
    executable, file = add_pair(cache, debug_pair)
    odd = cache / "o" / ("b" * 32)
    odd.mkdir()
    os.mkfifo(odd / "pipe", 0o755)
    (odd / "loop").symlink_to("loop")
    (odd / "up").symlink_to("..")
    (odd / "gone").symlink_to("nowhere")
    (odd / "script").write_text("#!/bin/sh\n")
    (odd / "script").chmod(0o755)
    (odd / "damaged").write_bytes(executable.read_bytes()[:5000])
    (odd / "damaged").chmod(0o755)
    (cache / "o" / "circle").symlink_to("circle")
    (cache / "o" / "file").write_bytes(b"")
    os.mkfifo(cache / "v" / "0123456789abcdef")
    (cache / "v" / "0000000000000000").symlink_to("0000000000000000")
    (cache / "v" / "1111111111111111").mkdir()
    (cache / "v" / "README").write_text("no id")
    zig_cache = ZigCache(cache)
    for _ in range(2):
        look = zig_cache.look()
        assert [pair.coverage_file.path for pair in look.pairs] == [file]
        assert look.problems == ()


def test_files_that_vanish_during_a_look_are_passed_over(cache, debug_pair, safe_pair, monkeypatch):
    """Between listing and opening, the compiler or a person may delete what is there."""
    add_pair(cache, debug_pair, "d" * 32)
    add_pair(cache, safe_pair, "5" * 32)
    gone = []
    really_open = os.open

    def vanishing(path, *args, **kwargs):
        if not gone and str(path).startswith(str(cache)):
            gone.append(path)
            os.unlink(path)
        return really_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", vanishing)
    assert len(ZigCache(cache).look().pairs) == 1
    assert gone


@pytest.mark.parametrize("name", ["o", "v", "f"])
def test_folders_that_cannot_be_listed_are_empty(cache, debug_pair, name):
    """So is a file in the place of a folder."""
    add_pair(cache, debug_pair)
    shutil.rmtree(cache / name, ignore_errors=True)
    (cache / name).write_text("no folder")
    zig_cache = ZigCache(cache)
    assert len(zig_cache.look().pairs) == (name == "f")
    shutil.rmtree(cache)
    assert zig_cache.look().pairs == ()


def test_an_executable_that_loses_its_symbols_keeps_its_coverage(cache, small_pair):
    """Without debug info there is no name but that of its place."""
    add_pair(cache, small_pair)
    (pair,) = ZigCache(cache).look().pairs
    assert pair.name == f"o/aaaaaaaa/{small_pair.executable.name}"
    assert pair.zig_version is None


def test_a_project_stands_for_its_cache(tmp_path, cache, caplog):
    """A folder with ``.zig-cache`` or ``build.zig`` in it; that nothing was built there is said."""
    caplog.set_level(logging.INFO)
    assert find_cache(cache.parent) == find_cache(cache) == cache
    (tmp_path / "new").mkdir()
    assert find_cache(tmp_path / "new") == tmp_path / "new"
    (tmp_path / "new" / "build.zig").write_text("")
    assert find_cache(tmp_path / "new") == tmp_path / "new" / ".zig-cache"
    assert caplog.text.count("has neither 'o/' nor 'v/'") == 4
    caplog.clear()
    (cache / "v").mkdir()
    assert find_cache(cache) == cache
    assert caplog.text == ""


def test_a_cache_that_is_not_there_is_refused(tmp_path):
    """So is a file."""
    with pytest.raises(InputError, match="does not exist"):
        find_cache(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is no folder"):
        find_cache(tmp_path / "file")


@pytest.mark.parametrize(
    ("tests", "root"),
    [
        (["lib.test.a", "main.test_0", "zebra.test.b"], "main.zig"),
        (["sub.other.test.deep", "root.decltest.parse"], "root.zig"),
        (["b.test.x", "a.test.y", "main.S.test.z"], "a.zig"),
        (["sub.other.test.deep"], None),
        ([], None),
    ],
)
def test_the_root_source_file_is_guessed_from_the_tests(tests, root):
    """The file with a test without name, else any in the root's folder."""
    assert _root_source("/src", tests) == (root and f"/src/{root}")
    assert _root_source(None, tests) is None


def test_damaged_debug_info_costs_the_name_only(cache, debug_pair):
    """The pair is known by its PCs, which are no debug info."""
    executable, _ = add_pair(cache, debug_pair)
    with Executable(executable) as opened:
        section = opened._sections[".debug_abbrev"]
        start, size = section["sh_offset"], section["sh_size"]
    with executable.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * size)
    (pair,) = ZigCache(cache).look().pairs
    assert pair.name == f"o/aaaaaaaa/{executable.name}"
    assert pair.zig_version == "0.14.1"
