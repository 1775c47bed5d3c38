"""The command line while it fuzzes: ``run``, ``demo``, ``repro`` and ``minimize``, as people use them."""

import contextlib
import dataclasses
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fuzzserver.findings import Finding, FindingStore
from fuzzserver.wire.abi import CoverageUpdateHeader, EntryPointHeader, ToClientTag
from tests.projects import locked, write_project
from tests.support_build_zig import edit, replace, write_build_project
from tests.support_fuzzing import PATIENT
from tests.support_time import eventually
from tests.support_web import request, viewer
from tests.support_zig_children import processes_naming
from tests.support_zig_cli import (
    REPOSITORY,
    errors,
    forget_sessions,
    messages_until,
    run_cli,
    running,
)
from tests.support_zig_fake import calls, compile_calls, fake_zig
from tests.support_zig_sources import BROKEN, NO_FUZZ, write

BREAKABLE = """
    const std = @import("std");

    fn fuzzByte(_: void, input: []const u8) anyerror!void {
        for (input) |byte| if (byte == 'b') std.mem.doNotOptimizeAway(byte);
        if (std.mem.indexOfScalar(u8, input, 'b') != null) @panic("there is a b");
    }

    fn fuzzPart(_: void, input: []const u8) anyerror!void {
        try std.testing.expect(std.mem.indexOf(u8, input, "canyoufindme") == null);
    }

    fn spin() void {
        var value: u64 = 0;
        while (true) value +%= 1;
    }

    fn fuzzHang(_: void, input: []const u8) anyerror!void {
        if (std.mem.indexOfScalar(u8, input, 'h') != null) spin();
    }

    fn takeAll() !void {
        while (true) std.mem.doNotOptimizeAway(try std.testing.allocator.alloc(u8, 1 << 20));
    }

    fn fuzzMemory(_: void, input: []const u8) anyerror!void {
        if (std.mem.indexOfScalar(u8, input, 'm') != null) try takeAll();
    }

    /// Each byte makes another branch, so that the fuzzer keeps some dozen inputs.
    fn fuzzMany(_: void, input: []const u8) anyerror!void {
        inline for (0..64) |number| {
            for (input) |byte| if (byte == number * 4 + 1) std.mem.doNotOptimizeAway(byte);
        }
    }

    test "fuzz byte" {
        try std.testing.fuzz({}, fuzzByte, .{});
    }

    test "fuzz part" {
        try std.testing.fuzz({}, fuzzPart, .{});
    }

    test "fuzz hang" {
        try std.testing.fuzz({}, fuzzHang, .{});
    }

    test "fuzz memory" {
        try std.testing.fuzz({}, fuzzMemory, .{});
    }

    test "fuzz many" {
        try std.testing.fuzz({}, fuzzMany, .{});
    }
    """ + PATIENT.replace("\n", "\n    ")
"""Fuzz tests that fail, each in its own way, and one that does not."""

WATCHED = 'const std = @import("std");\n' + PATIENT
"""A fuzz test that finds nothing, as a file of its own."""

INIT = """
    const std = @import("std");

    test "fuzz example" {
        const Context = struct {
            fn testOne(context: @This(), input: []const u8) anyerror!void {
                _ = context;
                try std.testing.expect(!std.mem.eql(u8, "canyoufindme", input));
            }
        };
        try std.testing.fuzz(Context{}, Context.testOne, .{});
    }
    """
"""What ``zig init`` writes."""

NOTHING = '    _ = b.step("nothing", "runs no tests");\n'
INIT_STEP = """
    b.step("init", "run the test of zig init").dependOn(&b.addRunArtifact(b.addTest(.{
        .root_source_file = b.path("src/init.zig"),
        .target = target,
        .optimize = optimize,
    })).step);
"""
"""Another step, for a test in a file of its own."""

OPTIONS = 'const options = @import("options");\n'
NO_COMMAS = """
comptime {
    if (options.separator == ',') @compileError("words are not separated by commas");
}
"""


@pytest.fixture(scope="module")
def breakable(work: Path) -> Path:
    """A root source file with ``BREAKABLE``."""
    return write(work / "cli-breakable", breakable=BREAKABLE)


@pytest.fixture
def fresh(breakable: Path) -> Path:
    """The same, never fuzzed before."""
    forget_sessions(breakable.parent)
    return breakable


@pytest.fixture(scope="module")
def project(work: Path) -> Path:
    """A project with a build.zig, two test executables and three fuzz tests; and one more in another step."""
    folder = write_build_project(work / "cli-build")
    edit(folder / "build.zig", NOTHING, NOTHING + INIT_STEP)
    edit(folder / "src" / "words.zig", OPTIONS, OPTIONS + NO_COMMAS)
    write(folder / "src", init=INIT)
    forget_sessions(folder)
    return folder


class TestProject:
    """Whole projects, by their build.zig."""

    def test_all_tests_take_turns(self, project: Path, zig_cache: Path) -> None:
        """Alone in its folder, the program fuzzes all tests, with one job in turns, and shows all maps."""
        with running(project, "--jobs", 1, "--cache-dir", zig_cache) as cli:
            targets = cli.wait_for(
                "/targets.json",
                lambda answer: (
                    len(tests := [test for each in answer["targets"] for test in each["tests"]]) == 3
                    and all(test["n_runs"] > 0 for test in tests)
                ),
            )["targets"]
            assert {target["name"] for target in targets} == {"src/main.zig", "src/tool.zig"}
            cli.wait_for(
                "/targets.json",
                lambda answer: (
                    sorted(test["state"] for each in answer["targets"] for test in each["tests"])
                    == ["fuzzing", "waiting", "waiting"]
                ),
            )
            assert len({target["id"] for target in targets}) == 2
            for target in targets:
                path = f"/?target={target['id']}"
                index = messages_until(cli.port(), ToClientTag.SOURCE_INDEX, path=path)
                assert Path(target["name"]).name.encode() in index
                messages_until(cli.port(), ToClientTag.COVERAGE_UPDATE, path=path)
                message = messages_until(
                    cli.port(),
                    ToClientTag.ENTRY_POINTS,
                    lambda data: EntryPointHeader.parse(data).locs_len == len(target["tests"]),  # noqa: B023
                    path,
                )
                assert EntryPointHeader.parse(message).locs_len == len(target["tests"])
            # A file that build.zig has written is a source as well.
            assert b"separator: u8 = 32;" in request(cli.port(), "/sources.tar").body
            # Two of the three are stopped now, by SIGSTOP.
            assert cli.end(signal.SIGTERM) == 143
            assert cli.descendants() == []
            assert errors(cli.text()) == []
        assert re.search(r"^0 findings in .* of 3 fuzz tests in 2 executables$", cli.text(), re.M)

    def test_selected_test_without_web(self, project: Path, zig_cache: Path) -> None:
        """Of three tests one is fuzzed, for some seconds, without any socket; 0: nothing was found."""
        args = ("--test", "fuzz sc*", "--no-web", "--time", 5, "--cache-dir", zig_cache)
        with running(project, *args) as cli:
            cli.wait_for_line("^info: fuzzing 'tool.test.fuzz scan'$")
            assert [link for link in open_files(cli.pid) if link.startswith("socket:")] == []
            assert cli.wait() == 0
            assert "listening" not in cli.text()
            assert cli.descendants() == []
        assert re.search(r"^0 findings in \d+ s; [\d,]+ runs of 1 fuzz test in 2 exec", cli.text(), re.M)

    def test_no_test_selected(self, project: Path, zig_cache: Path) -> None:
        """A pattern that matches nothing is an error that names the tests that there are."""
        done = run_cli(project, "--test", "scan", "--no-web", "--cache-dir", zig_cache)
        assert done.returncode == 2
        assert errors(done.stderr) == [
            "error: no fuzz test matches --test scan; there are 'main.test.fuzz count', "
            "'main.test.fuzz longest', 'tool.test.fuzz scan'"
        ]

    def test_unknown_step(self, project: Path, zig_cache: Path) -> None:
        """A step that does not exist is an error that names those that do."""
        done = run_cli(project, "run", "--step", "tset", "--no-web", "--cache-dir", zig_cache)
        assert done.returncode == 2
        (error,) = errors(done.stderr)
        assert f"there is no step 'tset' in '{project}'; its steps are: " in error
        assert "test" in error.rpartition(":")[2]

    def test_options_for_the_build(self, project: Path, zig_cache: Path, tmp_path) -> None:
        """-D reaches build.zig, from another folder as well, and what that makes of it, the compiler."""
        args = ("--build", project, "-Dseparator=44", "--no-web")
        done = run_cli(tmp_path, "run", *args, "--cache-dir", zig_cache)
        assert done.returncode == 4, done.stderr
        assert "src/words.zig:4:35: error: words are not separated by commas\n" in done.stderr

    def test_one_of_two_does_not_compile(self, project: Path, zig_cache: Path) -> None:
        """An executable that does not compile costs the other nothing, but the program tells at the end."""
        path = project / "src" / "tool.zig"
        text = path.read_text()
        edit(path, "words.count(input) +%", "words.missing(input) +%")
        try:
            done = run_cli(project, "--no-web", "--time", "0.2", "--cache-dir", zig_cache)
        finally:
            path.write_text(text)
        assert done.returncode == 4, done.stderr
        assert "src/tool.zig:7:36: error: " in done.stderr
        assert "info: fuzzing 'main.test.fuzz count', 'main.test.fuzz longest'" in done.stderr
        assert "\n  src/tool.zig failed: " in done.stderr

    @pytest.mark.parametrize(
        ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
    )
    def test_signal_while_zig_build_runs(self, tmp_path, number: int, code: int) -> None:
        """A build.zig that takes for ever is ended by each of the signals, without a word of errors."""
        zig = fake_zig(tmp_path / "bin", compile="hang")
        (tmp_path / "build.zig").write_text("// Its compiler hangs.")
        with running(tmp_path, "--zig", zig.path) as cli:
            eventually(lambda: compile_calls(zig), "the compiler does not start")
            assert cli.end(number) == code
            assert errors(cli.text()) == []
            assert cli.descendants() == []


class Found(NamedTuple):
    """A project that was fuzzed until something was found."""

    folder: Path
    finding: str
    """Its id."""
    details: dict
    """As ``/findings/ID.json`` has them."""
    stderr: str
    code: int
    cache: list[object]
    """Arguments of commands on this project."""

    @property
    def input_path(self) -> Path:
        """Where the input is."""
        return self.folder / ".zig-cache" / "fuzzserver" / "findings" / f"{self.finding}.input"


@pytest.fixture(scope="module")
def found(project: Path, zig_cache: Path) -> Found:
    """The program, in the folder, until it has found the input and knows how long it is."""
    forget_sessions(project)
    cache = ["--cache-dir", zig_cache]
    with running(project, "run", "--step", "init", *cache) as cli:
        (finding,) = cli.wait_for(
            "/findings.json", lambda answer: any(each["reproduces"] for each in answer["findings"])
        )["findings"]
        details = cli.get(f"/findings/{finding['id']}.json")
        code = cli.end()
        assert cli.descendants() == []
    return Found(project, finding["id"], details, cli.text(), code, cache)


class TestFinding:
    """A finding, from the fuzzer to the end of its days, in the test of ``zig init``."""

    def test_details(self, found: Found) -> None:
        """The page gets the input without what the fuzzer's file held behind it, and the stack."""
        assert found.details["input_literal"] == '"canyoufindme"'
        assert found.details["input_note"] == ""
        assert (found.details["kind"], found.details["target"]) == ("error", "src/init.zig")
        assert found.details["message"] == "error.TestUnexpectedResult"
        assert found.details["test"] == "init.test.fuzz example"
        assert "init.zig:7:" in found.details["stack"]
        assert found.input_path.read_bytes() == b"canyoufindme"

    def test_verdict(self, found: Found) -> None:
        """At Ctrl-C there are 3 as exit code, a block with all that is needed, then the summary line."""
        assert found.code == 3
        verdict = found.stderr[found.stderr.index(f"\nfinding {found.finding}: ") + 1 :].splitlines()
        assert verdict[0] == f"finding {found.finding}: error: error.TestUnexpectedResult"
        assert verdict[1] == "  test      init.test.fuzz example (src/init.zig)"
        assert re.fullmatch(r"  found     [\d,]+ times?, first after [\d,]+ runs", verdict[2])
        assert verdict[3] == '  input     12 bytes: "canyoufindme"'
        assert verdict[4] == f"  reproduce fuzzserver repro {found.finding}"
        assert any("init.zig:7:" in line for line in verdict[5:])
        assert re.fullmatch(
            r"1 finding in \d[\d: s]*; [\d,]+ runs of 1 fuzz test in 1 executable", verdict[-1]
        )

    def test_repro(self, found: Found) -> None:
        """The beginning of the id is enough, and the program says what it sees, with its stack."""
        done = run_cli(found.folder, "repro", found.finding[:6], *found.cache)
        assert done.returncode == 3
        assert "init.zig:7:" in done.stderr
        assert done.stderr.endswith(
            f"\nfinding {found.finding} reproduces: error: error.TestUnexpectedResult\n"
        )

    def test_repro_from_below(self, found: Found) -> None:
        """In a folder of the project's, its findings are found as well."""
        done = run_cli(found.folder / "src", "repro", found.finding, *found.cache)
        assert done.returncode == 3

    def test_minimize(self, found: Found) -> None:
        """What is as short as can be stays so, and the original is kept once."""
        done = run_cli(found.folder, "minimize", found.finding, *found.cache)
        assert done.returncode == 0
        said = 'the input could not be made shorter than 12 bytes: "canyoufindme"'
        assert done.stderr.endswith(f"finding {found.finding}: {said}\n")
        assert found.input_path.read_bytes() == b"canyoufindme"
        assert found.input_path.with_suffix(".original").read_bytes() == b"canyoufindme"

    def test_input_that_is_another(self, found: Found) -> None:
        """An input that does not fail does not reproduce, and there is nothing to minimize."""
        found.input_path.write_bytes(b"canyoufindm3")
        try:
            done = run_cli(found.folder, "repro", found.finding, *found.cache)
            assert done.returncode == 0
            assert done.stderr.endswith(f"\nfinding {found.finding} does not reproduce: the test passes\n")
            done = run_cli(found.folder, "minimize", found.finding, *found.cache)
            assert done.returncode == 2
            (error,) = errors(done.stderr)
            assert f"finding {found.finding} does not reproduce, so its input cannot be minimized" in error
            assert found.input_path.read_bytes() == b"canyoufindm3"
        finally:
            found.input_path.write_bytes(b"canyoufindme")

    def test_input_that_vanished(self, found: Found) -> None:
        """Without its input, nothing can be said of a finding but where the input should be."""
        found.input_path.unlink()
        try:
            done = run_cli(found.folder, "repro", found.finding, *found.cache)
        finally:
            found.input_path.write_bytes(b"canyoufindme")
        assert done.returncode == 2
        assert errors(done.stderr) == [
            f"error: cannot read input '{found.input_path}': No such file or directory"
        ]

    def test_mended(self, found: Found) -> None:
        """After the source was mended, the finding does not reproduce."""
        write(found.folder / "src", init=INIT.replace("canyoufindme", "canyoufindyou"))
        try:
            done = run_cli(found.folder, "repro", found.finding, *found.cache)
        finally:
            write(found.folder / "src", init=INIT)
        assert done.returncode == 0, done.stderr
        assert done.stderr.endswith(f"\nfinding {found.finding} does not reproduce: the test passes\n")

    def test_source_that_does_not_compile(self, found: Found) -> None:
        """It is a failed build, with the compiler's words."""
        write(found.folder / "src", init=INIT.replace("_ = context;", "_ = contest;"))
        try:
            done = run_cli(found.folder, "repro", found.finding, *found.cache)
        finally:
            write(found.folder / "src", init=INIT)
        assert done.returncode == 4
        assert "error: use of undeclared identifier 'contest'" in done.stderr

    def test_test_that_is_gone(self, found: Found) -> None:
        """A test that has another name now cannot be run: one line, that names the test."""
        write(found.folder / "src", init=INIT.replace("fuzz example", "fuzz other"))
        try:
            done = run_cli(found.folder, "repro", found.finding, *found.cache)
        finally:
            write(found.folder / "src", init=INIT)
        assert done.returncode == 4, done.stderr
        (error,) = errors(done.stderr)
        assert "there is no test 'init.test.fuzz example' in this executable" in error


class TestRun:
    """Fuzzing one source file."""

    def test_coverage_appears(self, zig_cache: Path, work: Path, tmp_path) -> None:
        """From a root file to coverage that grows in a browser; the end leaves no process.

        A project that is reached through a symbolic link has its own sources in the page.
        """
        root = write_project(work / "cli-project")
        forget_sessions(work / "cli-project")
        (tmp_path / "link").symlink_to(work / "cli-project")
        with running(tmp_path, "run", "link/src/main.zig", "--cache-dir", zig_cache) as cli:
            port = cli.port()
            index = messages_until(port, ToClientTag.SOURCE_INDEX)
            assert b"parser.zig" in index
            folder = str(tmp_path / "link" / "src").encode()
            assert folder in index
            tar = request(port, "/sources.tar").body
            assert folder in tar and b"fn fuzzSum" in tar
            messages_until(
                port, ToClientTag.ENTRY_POINTS, lambda data: EntryPointHeader.parse(data).locs_len == 2
            )
            first = CoverageUpdateHeader.parse(messages_until(port, ToClientTag.COVERAGE_UPDATE)).n_runs
            messages_until(
                port,
                ToClientTag.COVERAGE_UPDATE,
                lambda data: CoverageUpdateHeader.parse(data).n_runs > first,
            )
            cli.wait_for_line("^info: fuzzing 'main.test.fuzz sum', 'main.test.fuzz depth'$")
            # Two sessions would spoil each other's inputs, by whatever path they are reached.
            other = run_cli(tmp_path, "run", root, "--no-web", "--cache-dir", zig_cache)
            assert other.returncode == 2
            assert f"process {cli.pid} fuzzes this project already" in errors(other.stderr)[0]
            assert cli.end() == 130
            assert cli.descendants() == []
        assert errors(cli.text()) == []

    def test_findings_of_a_session(self, fresh: Path, zig_cache: Path, tmp_path) -> None:
        """In CI: some time of fuzzing, a verdict, and 3 for what was found."""
        args = ("--test", "*byte", "--no-web", "--time", "1h", "--max-findings", 1, "--cache-dir", zig_cache)
        done = run_cli(tmp_path, "run", fresh, *args)
        assert done.returncode == 3, done.stderr
        assert re.fullmatch(
            r"error: finding [0-9a-f]{12}: panic in 'breakable.test.fuzz byte': there is a b",
            "\n".join(errors(done.stderr)),
        )
        verdict = done.stderr[done.stderr.index("\nfinding ") + 1 :].splitlines()
        assert re.fullmatch("finding [0-9a-f]{12}: panic: there is a b", verdict[0])
        assert re.match(r'  input     [\d,]+ bytes?: "', verdict[3])
        (data,) = (fresh.parent / ".zig-cache" / "fuzzserver" / "findings").glob("*.input")
        assert b"b" in data.read_bytes()
        assert re.match(r"1 finding in (\d+ s|\d+:\d\d); ", verdict[-4])
        assert " % covered: " in verdict[-3]
        assert verdict[-2:] == [
            "verdict: findings (exit code 3)",
            "  panic in 'breakable.test.fuzz byte': there is a b",
        ]

    def test_killed_right_after_a_finding(self, fresh: Path, zig_cache: Path, tmp_path) -> None:
        """A finding that was told survives SIGKILL, and no worker does; the next session has it."""
        with running(tmp_path, "run", fresh, "--test", "*byte", "--cache-dir", zig_cache) as cli:
            finding = cli.wait_for_line("^error: finding ([0-9a-f]+): ")[1]
            assert cli.end(signal.SIGKILL) == -signal.SIGKILL
            eventually(lambda: not cli.descendants(), "a child lives on")
        with running(tmp_path, "run", fresh, "--test", "*patient", "--cache-dir", zig_cache) as cli:
            (known,) = cli.wait_for("/findings.json", lambda answer: answer["findings"])["findings"]
            assert (known["id"], known["message"]) == (finding, "there is a b")
            assert known["count"] >= 1  # It may have been found again before the kill.
            assert cli.get(f"/findings/{finding}.json")["stack"]
            assert b"b" in request(cli.port(), f"/findings/{finding}.input").body
            cli.wait_for_line("^info: fuzzing ")
            # It was not found in this session.
            assert cli.end() == 130

    def test_findings_that_cannot_be_kept(self, fresh: Path, zig_cache: Path, tmp_path) -> None:
        """Where nothing can be written, findings are told, shown and counted all the same."""
        folder = fresh.parent / ".zig-cache" / "fuzzserver"
        replace(folder / "findings", "A file is in the way.")
        try:
            with running(tmp_path, "run", fresh, "--test", "*byte", "--cache-dir", zig_cache) as cli:
                (found,) = cli.wait_for("/findings.json", lambda answer: answer["findings"])["findings"]
                assert cli.get(f"/findings/{found['id']}.json")["stack"]
                assert b"b" in request(cli.port(), f"/findings/{found['id']}.input").body
                assert cli.end() == 3
        finally:
            (folder / "findings").unlink()
        assert "the finding is kept in memory only" in cli.text()
        assert f"\nfinding {found['id']}: panic: there is a b\n" in cli.text()
        assert cli.lines[-1].startswith("1 finding in ")
        assert "Traceback" not in cli.text()

    def test_time_with_a_page(self, breakable: Path, zig_cache: Path, tmp_path) -> None:
        """When the time is over, the program ends, whoever is looking at the page, who is told so."""
        args = ("--test", "*patient", "--time", 5, "--cache-dir", zig_cache)
        with running(tmp_path, "run", breakable, *args) as cli:
            assert list(statuses(cli.port()))[-1]["targets"][0]["tests"][0]["state"] == "stopped"
            assert cli.wait() == 0
            assert cli.descendants() == []

    def test_runs_without_end(self, fresh: Path, zig_cache: Path, tmp_path) -> None:
        """A run that hangs, and one that takes all memory, are findings, each with its stack."""
        args = ("--test", "*hang", "--test", "*memory", "--hang-timeout", 2, "--memory-limit", 100)
        with running(tmp_path, "run", fresh, *args, "--jobs", 2, "--cache-dir", zig_cache) as cli:
            # On a busy machine, any run may seem to hang.
            hang, memory = (
                ("hang", "breakable.test.fuzz hang"),
                ("out of memory", "breakable.test.fuzz memory"),
            )

            def ids(answer: dict) -> dict[tuple[str, str], str]:
                return {(each["kind"], each["test"]): each["id"] for each in answer["findings"]}

            found = ids(cli.wait_for("/findings.json", lambda answer: {hang, memory} <= ids(answer).keys()))
            details = cli.get(f"/findings/{found[hang]}.json")
            assert " in spin (" in details["stack"]
            assert "2 s" in details["message"]
            details = cli.get(f"/findings/{found[memory]}.json")
            assert " in takeAll (" in details["stack"]
            assert "more than the limit of 100 MiB" in details["message"]
            # While one of them hangs, or its finding is looked at.
            assert cli.end(signal.SIGTERM) == 3
            assert cli.descendants() == []

    def test_seed_with_junk_around(self, fresh: Path, zig_cache: Path, tmp_path) -> None:
        """A seed leads to the failure; ``minimize`` leaves of its input what matters.

        Zig's fuzzer changes a byte before it tries a seed: in so much junk, that misses the word.
        """
        seeds = tmp_path / "seeds"
        (seeds / "breakable.test.fuzz part").mkdir(parents=True)
        (seeds / "breakable.test.fuzz part" / "one").write_bytes(
            b"junk before " * 40 + b"canyoufindme" + b" and behind" * 10
        )
        args = ("--test", "*part", "--corpus", seeds, "--cache-dir", zig_cache)
        with running(tmp_path, "run", fresh, *args) as cli:
            (found,) = cli.wait_for(
                "/findings.json", lambda answer: any(each["reproduces"] for each in answer["findings"])
            )["findings"]
            assert cli.end() == 3
        path = fresh.parent / ".zig-cache" / "fuzzserver" / "findings" / f"{found['id']}.json"
        before = path.with_suffix(".input").read_bytes()
        assert b"canyoufindme" in before
        assert before != b"canyoufindme"
        done = run_cli(tmp_path, "minimize", path, "--cache-dir", zig_cache)
        assert done.returncode == 0, done.stderr
        assert path.with_suffix(".input").read_bytes() == b"canyoufindme"
        assert path.with_suffix(".original").read_bytes() == before
        assert json.loads(path.read_text())["minimized_size"] == 12
        done = run_cli(
            tmp_path, "repro", found["id"][:8], "--project", fresh.parent, "--cache-dir", zig_cache
        )
        assert done.returncode == 3

    def test_shared_corpus(self, fresh: Path, zig_cache: Path, tmp_path) -> None:
        """Interesting inputs appear in the user's folder, and a project that has none begins with them."""
        (tmp_path / "seeds").mkdir()
        (tmp_path / "seeds" / "mine").write_bytes(b"a9")
        own = tmp_path / "seeds" / "breakable.test.fuzz many"
        args = ("run", fresh, "--test", "*many", "--corpus", "seeds", "--cache-dir", zig_cache)
        with running(tmp_path, *args) as cli:
            # Those that it has found by then, and saved, are not new to it.
            assert cli.wait_for_line(r"(\d+) of \d+ inputs in 'seeds' are new")[1] == "1"
            eventually(lambda: own.is_dir() and len(list(own.glob("[!.]*"))) > 1, "nothing was saved")
            (corpus,) = cli.get("/corpus.json")["corpora"]
            assert corpus["test"] == "breakable.test.fuzz many"
            assert cli.end(signal.SIGTERM) == 143
        contents = {path.read_bytes() for path in own.iterdir()}
        forget_sessions(fresh.parent)
        with running(tmp_path, *args) as cli:
            new, given = cli.wait_for_line(r"(\d+) of (\d+) inputs in 'seeds' are new").groups()
            assert int(given) > len(contents)
            assert int(new) >= 1
            corpora = cli.wait_for(
                "/corpus.json", lambda answer: answer["corpora"][0]["count"] >= len(contents)
            )["corpora"]
            numbers = [each["number"] for each in corpora[0]["inputs"]]
            kept = {request(cli.port(), f"/corpus/0/{number}").body for number in numbers}
            assert contents <= kept | {b"a9"}
            assert cli.end() == 130

    def test_watch(self, work: Path, zig_cache: Path, tmp_path) -> None:
        """An edit moves the fuzzing to a new build; one that does not compile is told, and costs nothing."""
        root = write(work / "cli-watch", watched=WATCHED)
        forget_sessions(root.parent)
        changed = WATCHED.replace("else => {},", "'_' => count +%= 2,\n        else => {},")
        with running(tmp_path, "run", root, "--watch", "--cache-dir", zig_cache) as cli:
            (before,) = cli.wait_for("/targets.json", lambda answer: is_fuzzed(answer["targets"]))["targets"]
            write(root.parent, watched=changed)
            (after,) = cli.wait_for(
                "/targets.json",
                lambda answer: is_fuzzed(answer["targets"]) and answer["targets"][0]["id"] != before["id"],
            )["targets"]
            assert after["earlier"] == [before["id"]]
            assert (after["key"], len(after["tests"])) == (before["key"], 1)
            for target in (before, after):
                path = f"/?target={target['id']}"
                assert messages_until(cli.port(), ToClientTag.SOURCE_INDEX, path=path)
            write(root.parent, watched=changed.replace("count +%= 2", "cuont +%= 2"))
            status = status_with(cli.port(), "error:")
            assert status["state"] == "fuzzing"
            assert "fuzzing goes on with the old one" in status["text"]
            assert "watched.zig:9:16: error: use of undeclared identifier 'cuont'" in status["text"]
            (then,) = status["targets"]
            cli.wait_for(
                "/targets.json",
                lambda answer: answer["targets"][0]["tests"][0]["n_runs"] > then["tests"][0]["n_runs"],
            )
            # Mended, it moves on, here to the build that it began with.
            write(root.parent, watched=WATCHED)
            cli.wait_for("/targets.json", lambda answer: answer["targets"][0]["id"] == before["id"])
            assert cli.end() == 130
            assert cli.descendants() == []

    def test_closed_terminal(self, breakable: Path, zig_cache: Path, tmp_path) -> None:
        """When the terminal goes away, the workers do not stay."""
        args = ("run", breakable, "--test", "*patient", "--cache-dir", zig_cache)
        with running(tmp_path, *args) as cli:
            messages_until(cli.port(), ToClientTag.SOURCE_INDEX)
            assert cli.descendants()
            assert cli.end(signal.SIGHUP) == 143
            assert cli.descendants() == []

    def test_compile_errors(self, zig_cache: Path, tmp_path) -> None:
        """Errors in the source end the program with the compiler's words, as it prints them."""
        write(tmp_path, main=BROKEN + "test { main(); }")
        done = run_cli(tmp_path, "run", "main.zig", "--cache-dir", zig_cache)
        assert done.returncode == 4
        assert "\nmain.zig:4:5: error: use of undeclared identifier 'undeclared'\n" in done.stderr
        assert "\n    undeclared();\n    ^~~~~~~~~~\n" in done.stderr
        assert "Traceback" not in done.stderr

    def test_failed_build_reaches_the_page(self, zig_cache: Path, tmp_path) -> None:
        """Who watches the build in the page is told how it ended."""
        write(tmp_path, main=BROKEN + "test { main(); }")
        with running(tmp_path, "run", "main.zig", "--cache-dir", zig_cache) as cli:
            texts = list(statuses(cli.port()))
            assert cli.wait() == 4
        assert texts[-1]["state"] == "failed"
        assert "main.zig:4:5: error: use of undeclared identifier" in texts[-1]["text"]

    def test_no_fuzz_tests(self, zig_cache: Path, work: Path, tmp_path) -> None:
        """A file without fuzz tests ends the program with the names of its tests."""
        root = write(work / "plain", plain=NO_FUZZ)
        done = run_cli(tmp_path, "run", root, "--cache-dir", zig_cache)
        assert done.returncode == 2
        assert errors(done.stderr) == [
            "error: no fuzz tests found in 'plain.zig': none of the 2 tests calls std.testing.fuzz: "
            "'plain.test.one', 'plain.test.two'"
        ]

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_signal_while_compiling(self, tmp_path, number: int, code: int) -> None:
        """A signal ends a compile too; that the compile was ended is no error."""
        zig = fake_zig(tmp_path / "bin", compile="hang")
        root = write(tmp_path, main=NO_FUZZ)
        with running(tmp_path, "run", root, "--zig", zig.path) as cli:
            eventually(lambda: compile_calls(zig), "the compiler does not start")
            assert cli.end(number) == code
            assert errors(cli.text()) == []
        assert processes_naming(str(tmp_path / "bin")) == []

    def test_signal_during_the_first_question(self, tmp_path) -> None:
        """Ctrl-C ends the program while it still waits for the compiler's version, and the compiler too."""
        zig = fake_zig(tmp_path / "bin", version={"hang": True})
        with running(tmp_path, "run", write(tmp_path, main=NO_FUZZ), "--zig", zig.path) as cli:
            eventually(lambda: calls(zig), "the compiler does not start")
            assert cli.end() == 130
            assert errors(cli.text()) == []
        assert processes_naming(str(tmp_path / "bin")) == []

    def test_hanging_compile(self, tmp_path) -> None:
        """A compile that never ends is ended after --zig-timeout, and fails the build."""
        zig = fake_zig(tmp_path / "bin", compile="hang")
        root = write(tmp_path, main=NO_FUZZ)
        done = run_cli(tmp_path, "run", root, "--zig", zig.path, "--zig-timeout", 5)
        assert done.returncode == 4
        (error,) = errors(done.stderr)
        assert "did not end in 5 s" in error
        assert processes_naming(str(tmp_path / "bin")) == []


class TestReproducing:
    """Findings whose runs do not end, and findings that are damaged."""

    def test_signal_while_it_runs(self, breakable: Path, zig_cache: Path, tmp_path) -> None:
        """Ctrl-C ends a run that hangs, and the program."""
        store = FindingStore(tmp_path / "findings")
        build = {
            "name": breakable.name,
            "args": [f"-Mroot={breakable}"],
            "project": str(breakable.parent),
            "cache_root": str(breakable.parent / ".zig-cache"),
            "global_cache_dir": None,
        }
        finding = Finding("4a", "hang", "", breakable.name, "breakable.test.fuzz hang", 1.0, 1.0, build=build)
        store.add(dataclasses.replace(finding, exact=True), b"h")
        path = store.folder / "4a.json"
        with running(tmp_path, "repro", path, "--hang-timeout", 1000, "--cache-dir", zig_cache) as cli:
            cli.wait_for_line("running 'breakable.test.fuzz hang' with 1 bytes")
            eventually(lambda: processes_naming("breakable.test.fuzz hang"), "the test does not run")
            assert cli.end() == 130
            assert cli.descendants() == []
        done = run_cli(tmp_path, "repro", path, "--hang-timeout", 3, "--cache-dir", zig_cache)
        assert done.returncode == 3
        assert "finding 4a" in done.stderr
        assert " in spin (" in done.stderr

    def test_damaged(self, tmp_path) -> None:
        """A file that is no finding is told, and left alone."""
        path = tmp_path / "5b.json"
        path.write_text("{")
        done = run_cli(tmp_path, "repro", "5b.json")
        assert done.returncode == 2
        (error,) = errors(done.stderr)
        assert "5b.json" in error
        assert re.search(r"5b.json' is damaged", done.stderr)
        assert path.read_text() == "{"


def test_demo(zig_cache: Path, tmp_path) -> None:
    """The demo shows the example, with a copy of it below the cache folder."""
    with (
        locked(zig_cache / "demo.lock"),  # Another test shows it, too.
        running(tmp_path, "demo", "--cache-dir", zig_cache) as cli,
    ):
        assert b"fuzz_example.zig" in messages_until(cli.port(), ToClientTag.SOURCE_INDEX)
        copy = zig_cache / "demo" / "fuzz_example.zig"
        assert copy.read_bytes() == (REPOSITORY / "fuzzserver" / "example" / "fuzz_example.zig").read_bytes()
        assert b"const Calculator" in request(cli.port(), "/sources.tar").body
        assert cli.end() == 130


def open_files(pid: int) -> list[str]:
    """What the descriptors of a process stand for."""
    found = []
    with contextlib.suppress(PermissionError):  # It has ended.
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # It was closed just now.
                found.append(os.readlink(descriptor))
    return found


def is_fuzzed(targets: list[dict]) -> bool:
    """Whether there is one target, and it has coverage and has made runs."""
    return (
        len(targets) == 1
        and targets[0]["id"] is not None
        and [test["state"] for test in targets[0]["tests"]] == ["fuzzing"]
        and targets[0]["tests"][0]["n_runs"] > 0
    )


def statuses(port: int) -> Iterator[dict]:
    """What a page is told, until the server says good-bye."""
    with viewer(port, subprotocols=["fuzzserver"]) as web_socket:
        for message in web_socket:
            if isinstance(message, str) and "state" in (text := json.loads(message)):
                yield text


def status_with(port: int, text: str) -> dict:
    """The first status in whose text is ``text``."""
    return next(status for status in statuses(port) if text in status["text"])
