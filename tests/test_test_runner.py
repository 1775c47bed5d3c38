"""Asking a test executable for its fuzz tests: real ones, troubled ones, and what is none."""

import logging
import re
import threading
from pathlib import Path

import pytest

from fuzzserver.errors import TestRunnerError
from fuzzserver.fuzz.build import build_tests
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.wire.messages import ClientTag, ServerTag, client_message
from fuzzserver.zig import test_runner
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.process import ChildGroup
from fuzzserver.zig.test_runner import FoundTests, find_fuzz_tests, test_runner_argv
from tests.projects import FuzzedPair
from tests.support_time import WAIT, eventually
from tests.support_zig_children import processes_naming
from tests.support_zig_runner import runner
from tests.support_zig_sources import write

pytestmark = pytest.mark.usefixtures("nothing_left")

TROUBLED = """
const std = @import("std");

fn nothing(_: void, _: []const u8) anyerror!void {}

test "fuzz first" { try std.testing.fuzz({}, nothing, .{}); }
test "passes" {}
test "fails" { try std.testing.expect(false); }
test "panics" { @panic("on purpose"); }
test "exits" { std.process.exit(3); }
test "leaks" { _ = try std.testing.allocator.alloc(u8, 10); }
test "skips" { return error.SkipZigTest; }
test "hangs" { while (true) std.time.sleep(std.time.ns_per_s); }
test "is loud" {
    for (0..3000) |_| std.debug.print("{s}\\n", .{"loud " ** 20});
}
test "writes to stdout" { try std.io.getStdOut().writeAll("what is this on the pipe?"); }
test "fuzz last" { try std.testing.fuzz({}, nothing, .{}); }
"""

HANGS = re.findall(r'^test "(.*?)"', TROUBLED, re.MULTILINE).index("hangs")
TIMEOUT = 1.0


@pytest.fixture(scope="module")
def troubled(client: ZigCompileClient, work: Path) -> Path:
    """An executable with a test for each way to misbehave, and a fuzz test at both ends."""
    root = TestCommand.of_root(write(work / "troubled", troubled=TROUBLED))
    return build_tests(client, root, "normal").path


def find(executable: Path, folder: Path, children: ChildGroup | None = None) -> FoundTests:
    """Ask ``executable``."""
    return find_fuzz_tests(children or ChildGroup(), test_runner_argv(executable, folder, 1), folder)


def test_command_line() -> None:
    """The options are those that Zig's build runner passes."""
    argv = test_runner_argv(Path("/x/test"), Path("/x/.zig-cache"), 255)
    assert argv == ["/x/test", "--seed=0xff", "--cache-dir=/x/.zig-cache", "--listen=-"]


def test_project(debug_pair: FuzzedPair, tmp_path) -> None:
    """The fuzz tests of a project are found among its tests."""
    found = find(debug_pair.normal_executable, tmp_path)
    assert found.names == ("main.test.fuzz sum", "main.test.fuzz depth", "main.test.plain")
    assert found.fuzz_tests == [0, 1]


def test_troubled_tests(troubled: Path, tmp_path, monkeypatch, caplog) -> None:
    """No test that fails, crashes, exits, hangs or writes what it should not hides the fuzz tests."""
    ask = test_runner._Conversation.ask

    def ask_impatiently(self: test_runner._Conversation, question: bytes, answer_tag: ServerTag) -> bytes:
        hangs = question == client_message(ClientTag.RUN_TEST, HANGS)
        with monkeypatch.context() as patch:
            patch.setattr(test_runner, "TEST_TIMEOUT", TIMEOUT if hangs else WAIT)
            return ask(self, question, answer_tag)

    monkeypatch.setattr(test_runner._Conversation, "ask", ask_impatiently)
    with caplog.at_level(logging.WARNING, "fuzzserver"):
        found = find(troubled, tmp_path)
    assert len(found.names) == 11
    assert [found.names[index] for index in found.fuzz_tests] == [
        "troubled.test.fuzz first",
        "troubled.test.fuzz last",
    ]
    warnings = iter(record.getMessage() for record in caplog.records)
    for name, words in (
        ("fails", "failed"),
        ("panics", "was ended by signal SIGABRT: "),
        ("exits", "exited with code 3; it cannot be told"),
        ("leaks", "leaked memory"),
        ("hangs", f"gave no answer in {TIMEOUT:g} s"),
        ("writes to stdout", "broke the test runner's protocol: "),
    ):
        warning = next(warnings)
        assert warning.startswith(f"test 'troubled.test.{name}' {words}")
        if name == "panics":
            assert "panic: on purpose" in warning
    assert list(warnings) == []


@pytest.mark.parametrize("program", ["/bin/true", "/bin/false", "/bin/cat"])
def test_other_programs(tmp_path, program: str) -> None:
    """A program that is no test runner is an error with its path and how it ended."""
    with pytest.raises(TestRunnerError, match=f"test executable '{program}': exited with code"):
        find(Path(program), tmp_path)


def test_talkative_program(tmp_path) -> None:
    """A program that prints text is an error, and is ended though it would go on for ever."""
    endless = runner(tmp_path / "endless", "while True: os.write(1, b'Hello! ' * 100)")
    with pytest.raises(TestRunnerError, match=r"broke the test runner's protocol: .* claims a body"):
        find(endless, tmp_path)
    assert processes_naming(str(endless.parent)) == []


@pytest.mark.parametrize("content", [None, b"no program", b""])
def test_file_that_cannot_run(tmp_path, content: bytes | None) -> None:
    """What cannot even be started is an error of the executable."""
    path = tmp_path / "test"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TestRunnerError, match=f"test executable '{path}': "):
        find(path, tmp_path)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("send(3, b'xx')", "test_metadata needs 8 bytes, got 2"),
        ("send(3, struct.pack('<II', 10, 10))", "test_metadata with 10 tests and 10 string bytes must have"),
        ("send(3, struct.pack('<IIIIs', 1, 1, 9, 0, b'x'))", "string at offset 9 does not end"),
        ("metadata('a'); receive(); send(4, b'')", "test_results must have 8 bytes, got 0"),
    ],
)
def test_malformed_answer(tmp_path, answer: str, reason: str) -> None:
    """An answer without the right layout is an error with its numbers."""
    executable = runner(tmp_path, f"receive()\n{answer}\nreceive()")
    with pytest.raises(TestRunnerError, match=f"test executable '{executable}': {reason}"):
        find(executable, tmp_path)


def test_no_tests(tmp_path) -> None:
    """An executable without tests has no fuzz tests."""
    found = find(runner(tmp_path, "receive(); metadata(); receive()"), tmp_path)
    assert (found.names, found.fuzz_tests) == ((), [])


def test_crash_in_every_test(tmp_path, caplog) -> None:
    """An executable that crashes in each test is started once for each of them, and no more."""
    code = f"""
    with open({str(tmp_path / "starts")!r}, "a") as file:
        file.write("x")
    receive()
    metadata("a", "b", "c")
    receive()
    os.abort()
    """
    found = find(runner(tmp_path, code), tmp_path)
    assert found.fuzz_tests == []
    assert (tmp_path / "starts").read_text() == "xxx"
    assert [record.getMessage()[:8] for record in caplog.records] == ["test 'a'", "test 'b'", "test 'c'"]


def test_stop_while_a_test_hangs(troubled: Path, tmp_path) -> None:
    """A stop from another thread ends the search at once."""
    children = ChildGroup()
    errors: list[str] = []

    def run() -> None:
        try:
            find(troubled, tmp_path, children)
        except TestRunnerError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: processes_naming(str(troubled)), "the tests do not start")
    children.stop()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert processes_naming(str(troubled)) == []
    assert "stopped" in errors[0]
