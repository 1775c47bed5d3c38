"""Which test executables a project has, by the real ``zig build``, and by one that misbehaves."""

import logging
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fuzzserver.coverage.executable import PCS_SECTION, Executable
from fuzzserver.errors import BuildFailed, CompileErrors, InputError, Stopped, ZigNotFound
from fuzzserver.fuzz import build_zig, heartbeat
from fuzzserver.fuzz.build import build_tests
from fuzzserver.fuzz.build_zig import test_commands
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.process import ChildGroup
from fuzzserver.zig.test_runner import find_fuzz_tests, test_runner_argv
from tests.support_build_zig import edit, replace, write_build_project
from tests.support_time import WAIT, eventually
from tests.support_zig_children import wait_until_gone
from tests.support_zig_fake import impatient

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture(autouse=True)
def global_cache(monkeypatch, zig_cache: Path) -> None:
    """What is built here is not built again in the next run."""
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(zig_cache))


@pytest.fixture
def children() -> Iterator[ChildGroup]:
    """Ended after the test."""
    with ChildGroup() as group:
        yield group


@pytest.fixture(scope="module")
def sample(work: Path) -> Path:
    """The project with two executables, and names with spaces, and with what looks like an option."""
    project = write_build_project(work / "build-zig" / "my -project test")
    (project / "src" / "scan.c").rename(project / "src" / "sc an.c")
    edit(project / "build.zig", "src/scan.c", "src/sc an.c")
    edit(project / "build.zig", "-DSTEP=1", "-DSTEP=1 + 0")
    return project


@pytest.fixture(scope="module")
def commands(zig: Zig, sample: Path) -> list[TestCommand]:
    """Its test executables, as they are found first."""
    with ChildGroup() as group:
        return test_commands(zig, sample, "test", [], group)


def executables(project: Path) -> set[Path]:
    """All test executables in the project's cache."""
    return set((project / ".zig-cache" / "o").glob("*/test"))


class TestSample:
    """Modules, options and C, all of which ``build.zig`` knows, and we do not."""

    def test_commands(
        self, zig: Zig, sample: Path, commands: list[TestCommand], children: ChildGroup, zig_cache: Path
    ) -> None:
        """Both executables are found, with all that is needed to compile them, and again when cached."""
        assert [command.name for command in commands] == ["src/main.zig", "src/tool.zig"]
        for command in commands:
            assert f"-Mroot={sample}/{command.name}" in command.args
            assert f"-Mwords={sample}/src/words.zig" in command.args
            assert any(re.fullmatch(r"-Moptions=.*/options\.zig", arg) for arg in command.args)
            assert (command.project, command.cache_root) == (sample, sample / ".zig-cache")
            assert command.global_cache_dir == zig_cache
            ours = ("--listen=-", "--cache-dir", "--global-cache-dir", "--name")
            assert not set(command.args) & set(ours)
        assert {"-DSTEP=1 + 0", f"{sample}/src/sc an.c"} <= set(commands[1].args)
        assert test_commands(zig, sample, "test", [], children) == commands

    def test_executables(
        self, sample: Path, commands: list[TestCommand], children: ChildGroup, client: ZigCompileClient
    ) -> None:
        """Each is compiled normally and for the fuzzer, and its fuzz tests are found."""
        found = {}
        for command in commands:
            before = executables(sample)
            normal = build_tests(client, command, "normal")
            assert executables(sample) == before, "zig build has compiled it already"
            instrumented = build_tests(client, command, "fuzz")
            with Executable(normal.path) as plain, Executable(instrumented.path) as executable:
                assert not plain.has_section(PCS_SECTION) and executable.has_section(PCS_SECTION)
            assert f"{sample}/src/words.zig" in {str(path) for path in instrumented.inputs}
            tests = find_fuzz_tests(children, test_runner_argv(normal.path, command.cache_root, 1), sample)
            found[command.name] = [tests.names[index] for index in tests.fuzz_tests]
        assert found == {
            "src/main.zig": ["main.test.fuzz count", "main.test.fuzz longest"],
            "src/tool.zig": ["tool.test.fuzz scan"],
        }

    def test_reproducer(self, commands: list[TestCommand], client: ZigCompileClient) -> None:
        """A stored command compiles with another test runner, too."""
        built = build_tests(client, TestCommand.from_json(commands[1].to_json()), "repro")
        assert built.path.name == "repro" and os.access(built.path, os.X_OK)

    def test_options(self, zig: Zig, sample: Path, children: ChildGroup, client: ZigCompileClient) -> None:
        """Options of the user reach the compiler: a mode directly, another by a generated source file."""
        options = ["-Doptimize=ReleaseSmall", "-Dseparator=44"]
        commands = test_commands(zig, sample, "test", options, children)
        assert len(commands) == 2
        for command in commands:
            assert command.args.count("-OReleaseSmall") == 2
            (source,) = [arg.partition("=")[2] for arg in command.args if arg.startswith("-Moptions=")]
            assert "separator: u8 = 44;" in Path(source).read_text()
        before = executables(sample)
        build_tests(client, commands[0], "normal")
        assert executables(sample) == before

    def test_symbolic_link(
        self, zig: Zig, sample: Path, commands: list[TestCommand], children: ChildGroup, tmp_path
    ) -> None:
        """A project that is reached through a symbolic link is the same project."""
        link = tmp_path / "link"
        link.symlink_to(sample)
        assert test_commands(zig, link, "test", [], children) == commands
        assert test_commands(zig, link / "src" / "..", "test", [], children) == commands

    def test_relative_folder(
        self, zig: Zig, sample: Path, commands: list[TestCommand], children: ChildGroup, monkeypatch
    ) -> None:
        """So is one with a relative path, when the working folder is another afterwards."""
        monkeypatch.chdir(sample / "src")
        assert test_commands(zig, Path(".."), "test", [], children) == commands


class TestFailures:
    """What goes wrong in real projects, and what people are told."""

    def test_compile_error(
        self, zig: Zig, odd: Path, children: ChildGroup, client: ZigCompileClient, caplog
    ) -> None:
        """A test that does not compile is told of, and the others are there; the compiler tells more."""
        broken, fine = test_commands(zig, odd, "broken", [], children)
        assert "going on with what it compiles:\nbroken.zig:1:17: error: " in caplog.text
        assert "--listen=-" not in caplog.text
        with pytest.raises(CompileErrors, match=r"^broken\.zig:1:17: error: use of undeclared identifier"):
            build_tests(client, broken, "normal")
        build_tests(client, fine, "normal")

    def test_failing_test(self, zig: Zig, odd: Path, children: ChildGroup, caplog) -> None:
        """A test that fails is told of and can be fuzzed."""
        (command,) = test_commands(zig, odd, "failing", [], children)
        assert command.name == "failing.zig"
        assert "'failing.test.sum' failed: expected 3, found 2" in caplog.text
        assert "testing.zig" not in caplog.text

    def test_no_such_step(self, zig: Zig, sample: Path, children: ChildGroup) -> None:
        """A step that there is not: those that there are are named."""
        with pytest.raises(InputError) as caught:
            test_commands(zig, sample, "tset", [], children)
        steps = "its steps are: install, uninstall, test, nothing"
        assert str(caught.value) == f"there is no step 'tset' in '{sample}'; {steps}"

    def test_step_without_tests(self, zig: Zig, sample: Path, children: ChildGroup) -> None:
        """A step that compiles no tests: those that may are named."""
        with pytest.raises(
            InputError, match=r"'zig build nothing' in '.*' compiles no tests; its steps are: "
        ):
            test_commands(zig, sample, "nothing", [], children)

    @pytest.mark.parametrize(
        ("option", "words"),
        [
            ("-Dno-such=1", "invalid option: -Dno-such"),
            ("--no-such", "unrecognized argument: '--no-such'"),
            ("-Doptimize=Quick", "Expected -Doptimize to be of type"),
        ],
    )
    def test_no_such_option(
        self, zig: Zig, sample: Path, children: ChildGroup, option: str, words: str
    ) -> None:
        """An option that there is not, or with no value that it has."""
        with pytest.raises(InputError, match=f"was refused:\n.*{words}") as caught:
            test_commands(zig, sample, "test", [option], children)
        assert len(str(caught.value).splitlines()) == 3

    def test_no_project(self, zig: Zig, children: ChildGroup, tmp_path) -> None:
        """Folders that are none, are no project, or are not there, though one above is a project."""
        (tmp_path / "build.zig").touch()
        (tmp_path / "src").mkdir()
        for path, words in (
            ("missing", "does not exist"),
            ("build.zig", "is no folder"),
            ("src", "has no build.zig; name"),
        ):
            with pytest.raises(InputError, match=f"project folder '{tmp_path}/{path}' {words}"):
                test_commands(zig, tmp_path / path, "test", [], children)

    def test_syntax_error(self, zig: Zig, children: ChildGroup, tmp_path) -> None:
        """A ``build.zig`` with an error is told in the compiler's words, and nothing else."""
        (tmp_path / "build.zig").write_text("pub fn build(b b: *std.Build) void {}\n")
        with pytest.raises(BuildFailed) as caught:
            test_commands(zig, tmp_path, "test", [], children)
        assert str(caught.value).splitlines() == [
            f"'zig build test' in '{tmp_path}' exited with code 2:",
            f"{tmp_path}/build.zig:1:16: error: expected ',' after parameter",
            "pub fn build(b b: *std.Build) void {}",
            "               ^",
        ]

    @pytest.mark.parametrize(
        ("fault", "words"),
        [("panic", r"thread \d+ panic: no good"), ("error", "error: NoGood")],
    )
    def test_failing_build_function(
        self, zig: Zig, odd: Path, children: ChildGroup, fault: str, words: str
    ) -> None:
        """A ``build`` that panics or returns an error: what, and where in ``build.zig``."""
        with pytest.raises(BuildFailed) as caught:
            test_commands(zig, odd, "check", [f"-Dfault={fault}"], children)
        lines = str(caught.value).splitlines()
        assert re.fullmatch(words, lines[1])
        assert lines[2].startswith(f"{odd}/build.zig:")
        assert len(lines) == 5

    def test_failing_tool(self, zig: Zig, odd: Path, children: ChildGroup) -> None:
        """A tool that fails before a test can be compiled: its command and its exit code."""
        with pytest.raises(BuildFailed) as caught:
            test_commands(zig, odd, "generated", [], children)
        assert "command exited with error code 3:\n" in str(caught.value)
        assert "sh -c exit 3" in str(caught.value)

    def test_missing_dependency(self, zig: Zig, odd: Path, children: ChildGroup) -> None:
        """A package that ``build.zig.zon`` has and the disk has not."""
        with pytest.raises(BuildFailed, match=r"unable to open '.*/gone': FileNotFound"):
            test_commands(zig, odd, "check", ["-Dfault=dependency"], children)

    def test_unreachable_dependency(self, zig: Zig, children: ChildGroup, tmp_path) -> None:
        """A package that cannot be fetched is an error with its place in ``build.zig.zon``."""
        (tmp_path / "build.zig").write_text('pub fn build(_: *@import("std").Build) void {}\n')
        url = '.url = "http://127.0.0.1:9/x.tar.gz", .hash = "gone-0.0.0-zzzzzzzz"'
        (tmp_path / "build.zig.zon").write_text(MISSING_DEPENDENCY_ZON.replace('.path = "gone"', url))
        with pytest.raises(BuildFailed, match=r"build\.zig\.zon:\d+:\d+: error: unable to connect"):
            test_commands(zig, tmp_path, "test", [], children)

    def test_unwritable_cache(self, zig: Zig, children: ChildGroup, tmp_path) -> None:
        """A cache that cannot be written to is named: the compiler's word for it is short."""
        write_build_project(tmp_path)
        (tmp_path / ".zig-cache").touch()
        with pytest.raises(BuildFailed) as caught:
            test_commands(zig, tmp_path, "test", [], children)
        assert f"NotDir\nit must be able to write to '{tmp_path}/.zig-cache'" in str(caught.value)

    def test_no_home(self, zig: Zig, sample: Path, children: ChildGroup, monkeypatch) -> None:
        """Without a home folder there is still a place for what projects share."""
        for name in ("ZIG_GLOBAL_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(InputError, match="there is no step 'tset'"):
            test_commands(zig, sample, "tset", [], children)
        assert (sample / ".zig-cache" / "global").is_dir()


MISSING_DEPENDENCY_ZON = """
.{
    .name = .dep,
    .version = "0.0.0",
    .fingerprint = 0xf8105430204792f7,
    .paths = .{""},
    .dependencies = .{ .gone = .{ .path = "gone" } },
}
"""

ODD_ZIG = """
const std = @import("std");

pub fn build(b: *std.Build) !void {
    const fault = b.option([]const u8, "fault", "what goes wrong") orelse "";
    if (std.mem.eql(u8, fault, "panic")) @panic("no good");
    if (std.mem.eql(u8, fault, "error")) return error.NoGood;
    if (std.mem.eql(u8, fault, "dependency")) _ = b.dependency("gone", .{});

    // Compiled only, not run: the compiler is told to emit nothing.
    const check = b.step("check", "compiles the same root several times");
    for ([_][]const u8{ "one", "two", "two", "many", "same" }, 0..) |name, i| {
        const module = b.createModule(.{
            .root_source_file = b.path("root.zig"),
            .target = b.graph.host,
            .single_threaded = i == 1,
            .error_tracing = if (i == 0) false else null,
        });
        if (i == 3) for (0..1000) |number|
            module.addCMacro(b.fmt("A_LONG_LIST_OF_MACROS_{d}", .{number}), "\\"a b\\" \\\\ c");
        const runner = std.Build.Step.Compile.TestRunner{ .path = b.path("runner.zig"), .mode = .simple };
        check.dependOn(&b.addTest(.{
            .name = name,
            .root_module = module,
            .test_runner = if (i == 0) runner else null,
        }).step);
    }

    const broken = b.step("broken", "one of two does not compile");
    const failing = b.step("failing", "has a test that fails");
    for ([_][]const u8{ "broken", "root", "failing" }, 0..) |name, i| {
        const step = if (i < 2) broken else failing;
        const module = b.createModule(.{
            .root_source_file = b.path(b.fmt("{s}.zig", .{name})),
            .target = b.graph.host,
        });
        step.dependOn(&b.addRunArtifact(b.addTest(.{ .root_module = module })).step);
    }

    const generate = b.addSystemCommand(&.{ "sh", "-c", "exit 3" });
    const generated = b.createModule(.{
        .root_source_file = generate.addOutputFileArg("generated.zig"),
        .target = b.graph.host,
    });
    b.step("generated", "needs a tool that fails").dependOn(&b.addTest(.{ .root_module = generated }).step);

    const reader = b.addSystemCommand(&.{ "sh", "-c", "read line; exit 4" });
    b.step("reader", "waits for its stdin").dependOn(&reader.step);
}
"""


@pytest.fixture(scope="session")
def odd(work: Path) -> Path:
    """A project that does what few do."""
    folder = work / "build-zig" / "odd"
    replace(folder / "build.zig", ODD_ZIG)
    replace(folder / "build.zig.zon", MISSING_DEPENDENCY_ZON)
    replace(folder / "root.zig", 'test "a" {}\n')
    replace(folder / "runner.zig", "pub fn main() void {}\n")
    replace(folder / "broken.zig", 'test "broken" { undeclared(); }\n')
    replace(folder / "failing.zig", 'test "sum" { try @import("std").testing.expectEqual(3, 1 + 1); }\n')
    return folder


class TestOddProject:
    """Executables that are hard to tell apart, and command lines that are too long."""

    def test_names(self, zig: Zig, odd: Path, children: ChildGroup, caplog) -> None:
        """Executables with the same root get different names, the same each time; equal ones are one."""
        commands = test_commands(zig, odd, "check", [], children)
        names = ["root.zig (many)", "root.zig (one)", "root.zig (two)", "root.zig (two) #2"]
        assert [command.name for command in commands] == names
        assert ["-fsingle-threaded" in command.args for command in commands] == [False, False, False, True]
        assert "the test runner of root.zig is replaced" in caplog.text
        assert test_commands(zig, odd, "check", [], children) == commands

    def test_only_checked(self, zig: Zig, odd: Path, children: ChildGroup, client: ZigCompileClient) -> None:
        """What the step only compiles, we link as well; and a test runner that cannot fuzz is replaced."""
        command = test_commands(zig, odd, "check", [], children)[1]
        assert not {"-fno-emit-bin", "--test-runner"} & set(command.args)
        built = build_tests(client, command, "normal")
        found = find_fuzz_tests(children, test_runner_argv(built.path, command.cache_root, 1), odd)
        assert found.names == ("root.test.a",)

    def test_response_file(self, zig: Zig, odd: Path, children: ChildGroup) -> None:
        """Arguments that Zig passes in a file are read from it."""
        command = test_commands(zig, odd, "check", [], children)[0]
        assert '-DA_LONG_LIST_OF_MACROS_999="a b" \\ c' in command.args
        assert len([arg for arg in command.args if arg.startswith("-DA_LONG")]) == 1000

    def test_stdin(self, zig: Zig, odd: Path, children: ChildGroup) -> None:
        """A step that reads its stdin does not keep us waiting."""
        with pytest.raises(BuildFailed, match="exited with error code 4"):
            test_commands(zig, odd, "reader", [], children)


def build_fake(folder: Path, code: str) -> Zig:
    """A compiler whose ``zig build`` is Python code."""
    path = folder / "zig"
    program = shlex.join([sys.executable, "-I", "-S", "-c", code])
    path.write_text(
        f'#!/bin/sh\ncase $1 in\nversion) echo 0.14.1 ;;\nenv) echo \'{{"lib_dir": "/lib"}}\' ;;\n'
        f'build) exec {program} "$0" ;;\nesac\n'
    )
    path.chmod(0o755)
    (folder / "build.zig").touch()
    (folder / "a.zig").touch()
    return Zig(path)


PRINT = """
import os, sys, time
def say(text): os.write(2, text.encode())
command = sys.argv[1] + " test -Mroot=a.zig --cache-dir c --name test --listen=- "
"""


class TestMisbehavingBuild:
    """What a Zig does not do on demand."""

    def test_pieces(self, children: ChildGroup, tmp_path) -> None:
        """Lines may come in pieces, colored, twice, and without an end."""
        code = PRINT + "for c in '\\x1b[1m' + command + '\\x1b[0m\\n' + command: say(c)"
        (command,) = test_commands(build_fake(tmp_path, code), tmp_path, "test", [], children)
        cache = tmp_path / "c"
        assert command == TestCommand("a.zig", ("-Mroot=a.zig",), tmp_path, cache)

    def test_flood(self, children: ChildGroup, tmp_path, caplog) -> None:
        """However much a build says, on both pipes: the end of it is kept."""
        code = """
            say(command + "\\n")
            for _ in range(300):
                os.write(1, b"x" * 100_000)
                say("y" * 100_000)
            say("\\n")
            for i in range(100_000): say(f"line {i}\\n")
            say("error: last\\n")
            exit(1)
        """
        zig = build_fake(tmp_path, PRINT + textwrap.dedent(code))
        (command,) = test_commands(zig, tmp_path, "test", [], children)
        assert command.name == "a.zig"
        assert "line 99999\n" not in caplog.text and "more lines)" in caplog.text
        assert len(caplog.text) < 10_000

    def test_signal(self, children: ChildGroup, tmp_path) -> None:
        """A build that dies without a word."""
        zig = build_fake(tmp_path, "import os; os.abort()")
        with pytest.raises(BuildFailed, match="was ended by signal SIGABRT:\nit did not say why"):
            test_commands(zig, tmp_path, "test", [], children)

    def test_timeout(self, children: ChildGroup, tmp_path) -> None:
        """A build that comes to no test in time is ended, and it is said that there is a limit."""
        zig = build_fake(tmp_path, "import time; time.sleep(1000)")
        with pytest.raises(BuildFailed) as caught:
            test_commands(impatient(zig, 0.5), tmp_path, "test", [], children)
        assert str(caught.value).splitlines() == [
            f"'zig build test' in '{tmp_path}' did not end in 0.5 s and was ended "
            "(--zig-timeout sets the limit):",
            "it did not say why",
        ]

    def test_no_list_of_steps(self, children: ChildGroup, tmp_path, monkeypatch) -> None:
        """Where the steps cannot be had, in time, it is said how to list them."""
        monkeypatch.setattr(build_zig, "LIST_STEPS_TIMEOUT", 0.5)
        marker = tmp_path / "ran"
        name = repr(str(marker))
        code = f"import os, time\nif os.path.exists({name}): time.sleep(1000)\nopen({name}, 'w')"
        with pytest.raises(InputError, match="compiles no tests; 'zig build --list-steps' there lists them"):
            test_commands(build_fake(tmp_path, code), tmp_path, "test", [], children)

    def test_heartbeat(self, children: ChildGroup, tmp_path, caplog, monkeypatch) -> None:
        """A build that takes long says from time to time that it goes on."""
        monkeypatch.setattr(heartbeat, "INTERVAL", 0.001)
        told = tmp_path / "told"
        monkeypatch.setattr(heartbeat.log, "filters", [lambda record: told.touch() or True])
        code = PRINT + f"while not os.path.exists({str(told)!r}): time.sleep(0.001)\nsay(command)"
        with caplog.at_level(logging.INFO, "fuzzserver"):
            test_commands(build_fake(tmp_path, code), tmp_path, "test", ["-Dx"], children)
        assert re.search(r"still running zig build test -Dx after \d+ s", caplog.text)

    def test_stop(self, children: ChildGroup, tmp_path) -> None:
        """A stop ends a build that runs, and none is started afterwards."""
        code = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(1000)"
        zig = build_fake(tmp_path, code)
        assert zig.version
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(test_commands, zig, tmp_path, "test", [], children)
            pid = tmp_path / "pid"
            eventually(lambda: pid.exists() and pid.read_text(), "the build does not start")
            children.stop()
            assert isinstance(result.exception(WAIT), Stopped)
            wait_until_gone(int(pid.read_text()))
        with pytest.raises(Stopped):
            test_commands(zig, tmp_path, "test", [], children)

    def test_compiler_vanishes(self, children: ChildGroup, tmp_path) -> None:
        """A compiler that was removed after it was found is an error with its path."""
        zig = build_fake(tmp_path, "")
        assert zig.version
        zig.path.unlink()
        with pytest.raises(ZigNotFound, match=f"cannot start Zig compiler '{zig.path}'"):
            test_commands(zig, tmp_path, "test", [], children)
