"""Instances that share the tests of a target: what one finds, how one fails, and how the others go on."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzserver.corpus import SharedCorpus, corpus_of
from fuzzserver.coverage.queue import CoverageMsg, EntryPointMsg
from fuzzserver.fuzz import backoff, mailbox, worker
from fuzzserver.fuzz.backoff import MAX_DEATHS
from fuzzserver.fuzz.build import build_tests
from fuzzserver.fuzz.test_command import TestCommand
from fuzzserver.fuzz.turns import Turns
from fuzzserver.instance_input import read_instance_input
from fuzzserver.step import FuzzRunStep
from fuzzserver.wire.messages import ClientTag
from fuzzserver.wire.release import NEWEST
from fuzzserver.zig.compile_client import ZigCompileClient
from tests.support_instances import COVERAGE_ID, Group
from tests.support_time import WAIT, Clock, eventually
from tests.zigs import zig_of

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    """A place for instances, which are ended when the test is over."""
    group = Group(tmp_path)
    yield group
    group.children.stop()
    group.stop()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause worth mentioning between processes."""
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.005)
    monkeypatch.setattr(backoff, "LEAST_LONGEST_DELAY", 0.01)
    monkeypatch.setattr(backoff, "LONGEST_REST", 0.01)


def test_start(group: Group) -> None:
    """Each instance is told for ever, its number and its names; points of entry come from the first alone."""
    tests = group.start(group.script('fuzz("b")'), "a", "b")
    group.wait_for_runs(tests[1])
    eventually(lambda: len(group.notes()) == 2, "an instance was not started")
    assert {(note["instance"], note["kind"], *note["names"]) for note in group.notes()} == {
        (0, 0, "a", "b"),
        (1, 0, "a", "b"),
    }
    eventually(lambda: len(group.told.of(CoverageMsg)) == 2, "a coverage file is not told")
    folders = {msg.cache_root for msg in group.told.of(CoverageMsg) if msg.coverage_id == COVERAGE_ID}
    assert folders == {group.folder / "cache" / f"instance{number}" for number in range(2)}
    assert {msg.addr for msg in group.told.of(EntryPointMsg)} == {0x1000, 0x1001}
    assert {(folder / "f").resolve() for folder in folders} == {group.folder / "cache" / "f"}
    eventually(lambda: tests[1].status.state == "fuzzing", "it does not say so")
    assert tests[0].status.state == "waiting"
    group.stop()
    assert [test.status.state for test in tests] == ["stopped", "stopped"]
    assert group.failures == []


def test_runs_are_told_apart(group: Group) -> None:
    """Runs and points are those of the test whose turn it is, and all are counted, the first ones, too."""
    code = """
run(7, 0b1)
turn("a")
run(20, 0b110)
receive()
turn("b")
receive()
run(300, 0b1000)
receive()
"""
    one, two = group.start(group.script(code), "a", "b", count=1)
    eventually(lambda: one.session_runs == 27, "the runs of one are not counted")
    eventually(lambda: (one.status.state, two.status.state) == ("fuzzing", "waiting"), "it has no turn")
    assert two.session_runs == 0
    assert group.instances is not None
    group.instances.broadcast(1, "a", b"go on")
    eventually(lambda: (one.status.state, two.status.state) == ("waiting", "fuzzing"), "states do not follow")
    group.instances.broadcast(1, "a", b"go on")
    eventually(lambda: two.session_runs == 300, "the runs of the other are not counted")
    assert one.session_runs == one.status.n_runs == 27
    assert (one.seen[1], two.seen[1]) == (b"\7", b"\x08")


def test_forwarding(group: Group) -> None:
    """What an instance finds reaches each of the others once, whole, and never itself."""
    code = """
turn("b")
if instance == 0:
    found("b", b"one")
    found("a", bytes(300_000))
    found("b", b"three")
else:
    for _ in range(3):
        tag, body = receive()
        note(tag=tag, index=struct.unpack_from("<I", body)[0], size=len(body), text=body[4:9].decode())
while True:
    run()
    if arrived():
        note(too_many=len(receive()[1]))
    time.sleep(0.01)
"""
    (_, test) = group.start(group.script(code), "a", "b", count=3)
    eventually(lambda: len(group.notes(tag=7)) == 6, "inputs are lost")
    group.wait_for_runs(test)
    for instance in (1, 2):
        got = [(note["index"], note["size"], note["text"]) for note in group.notes(tag=7, instance=instance)]
        assert got == [(1, 7, "one"), (0, 300_004, "\0" * 5), (1, 9, "three")]
    assert not any("too_many" in note for note in group.notes())


def test_slow_instance(
    group: Group, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance that takes no inputs keeps nobody waiting; later it gets the newest ones."""
    caplog.set_level("INFO")
    monkeypatch.setattr(mailbox, "MAX_WAITING", 500_000)
    code = """
turn("a")
if instance == 0:
    for number in range(100):
        found("a", struct.pack("<I", number) + bytes(20_000))
    note(sent=100)
    while True:
        run()
        time.sleep(0.01)
while not os.path.exists("go"):
    run()
    time.sleep(0.01)
while True:
    number, = struct.unpack_from("<I", receive()[1], 4)
    note(number=number)
    run()
"""
    (test,) = group.start(group.script(code), "a")
    eventually(lambda: "instance 1 takes inputs of the others too slowly" in caplog.text, "nothing is said")
    eventually(lambda: group.notes(sent=100), "it is kept waiting")
    group.wait_for_runs(test)
    (group.folder / "go").touch()
    eventually(lambda: group.notes(number=99), "the newest is lost")
    numbers = [note["number"] for note in group.notes(instance=1) if "number" in note]
    assert numbers == sorted(numbers) and 20 < len(numbers) < 100
    assert caplog.text.count("too slowly") == 1


CRASH = """
if instance == 1 and not os.path.exists("crashed"):
    turn("a")
    run(5)
    while not os.path.exists("crash"):
        run()
        time.sleep(0.01)
    open("crashed", "w")
    send(9, struct.pack("<I", names.index("b")))
    tried("b", b"in\\0put\\0")
    os.write(2, b"thread 1 panic: it broke\\n")
    os.abort()
fuzz(names[-1])
"""


def test_crash(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is that of the test that the input is for; the other instance goes on, and it comes again."""
    monkeypatch.setattr(backoff, "FIRST_DELAY", 1000.0)
    one, two = group.start(group.script(CRASH), "a", "b")
    group.wait_for_runs(one, two)
    other = group.pid(0)
    (group.folder / "crash").touch()
    group.told.wait_for(lambda: group.failures, "it is not told")
    ((end, failure, data),) = group.failures
    assert (end.test.name, failure.kind, failure.message, data) == ("b", "panic", "it broke", b"in\0put\0")
    assert end.total_runs == two.session_runs or end.total_runs > 0
    eventually(lambda: group.last_names(1) == ["a"], "it is not restarted without the test")
    group.end_rest(1, two)
    eventually(lambda: len(group.notes(instance=1)) == 3, "it is not restarted with all tests")
    first, without, again = group.notes(instance=1)
    assert (first["names"], without["names"], again["names"]) == (["a", "b"], ["a"], ["a", "b"])
    assert len({note["seed"] for note in (first, without, again)}) == 3
    eventually(lambda: group.pids(1) == [again["pid"]], "it does not go on")
    assert group.pid(0) == other
    assert (two.status.findings, two.status.restarts, one.status.restarts) == (1, 1, 0)
    assert ("b", "error", "Worker was ended by signal SIGABRT: it broke") in group.log
    assert ("b", "info", f"Instance 1 goes on without it for {backoff.LONGEST_REST:g} s.") in group.log


def test_only_test_that_fails(group: Group) -> None:
    """Where there is no other test, the instance waits as long as it would with older Zigs."""
    code = 'turn("a")\nrun(3)\ntime.sleep(0.05)\ntried("a", b"x")\nsys.exit("failed with error.Bad")'
    (test,) = group.start(group.script(code), "a", count=1)
    eventually(lambda: test.status.restarts >= 2, "it is not started again")
    assert [text for _, level, text in group.log if level == "info" and "next" in text][:2] == [
        "The next worker starts in 0.5 s.",
        "The next worker starts in 1 s.",
    ]
    assert [(failure.message, data) for _, failure, data in group.failures][:2] == [("error.Bad", b"x")] * 2
    assert test.session_runs >= 6


@pytest.mark.usefixtures("fast")
def test_test_that_fails_before_its_first_run(group: Group) -> None:
    """It is given up after some attempts; the others fuzz on, and nobody begins with it again."""
    code = """
if "a" in names:
    turn("a")
    os.write(2, b"thread 1 panic: too early\\n")
    os.abort()
fuzz("b")
"""
    one, two = group.start(group.script(code), "a", "b")
    eventually(lambda: one.status.state == "failed", "it is not given up")
    assert one.status.text.startswith(f"Gave up after {MAX_DEATHS} workers that made no run.\nWorker was")
    group.wait_for_runs(two)
    for number in range(2):
        eventually(lambda: group.last_names(number) == ["b"], "it begins with it again")  # noqa: B023
        eventually(lambda: group.pids(number), "an instance has ended")  # noqa: B023
    eventually(lambda: two.status.state == "fuzzing", "it does not say so")


def test_test_that_fails_all_the_time(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test whose every process fails soon is left out longer and longer, and its status says so."""
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.02)
    monkeypatch.setattr(backoff, "LONGEST_REST", 2.0)
    code = """
if "a" in names:
    turn("a")
    run()
    time.sleep(0.02)
    os.write(2, b"thread 1 panic: again\\n")
    os.abort()
fuzz("b", 0.001)
"""
    one, two = group.start(group.script(code), "a", "b", count=1)
    rests: list[float] = []

    def enough() -> bool:
        rests[:] = [float(text.split()[-2]) for name, _, text in group.log if "without it for" in text]
        return len(rests) >= 4

    eventually(enough, "it does not fail")
    assert rests == sorted(rests) and rests[-1] >= 8 * 0.02
    text = "Worker was ended by signal SIGABRT: again\nInstance 0 goes on without"
    eventually(lambda: group.is_crashed(one, text), "it is not left out, or does not say so")
    eventually(lambda: two.session_runs > one.session_runs, "the other one has not more of the time")


def test_all_tests_fail(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the others rest, nobody uses the time: the last one to fail is soon begun with again."""
    monkeypatch.setattr(backoff, "FIRST_DELAY", 99.0)
    monkeypatch.setattr(backoff, "LONGEST_REST", 99.0)
    monkeypatch.setattr(backoff, "LONGEST_DELAY", 0.05)
    code = """
turn(names[0])
run()
time.sleep(0.02)
os.write(2, b"thread 1 panic: again\\n")
os.abort()
"""
    tests = group.start(group.script(code), "a", "b", count=1)
    eventually(lambda: len(group.notes()) >= 4, "it is not started again")
    texts = [text for _, level, text in group.log if level == "info" and text.endswith(" s.")]
    assert texts[:2] == ["Instance 0 goes on without it for 99 s.", "The next worker starts in 0.05 s."]
    assert [note["names"] for note in group.notes()][:3] == [["a", "b"], ["b"], ["b"]]
    assert all(test.session_runs for test in tests)


def test_hang_of_one_instance(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the instance that hangs is ended, though others make runs; the input is the one it hangs on."""
    clock = Clock()
    monkeypatch.setattr(worker, "time", clock)
    code = """
if instance == 1 and len(names) == 2:
    turn("a")
    run(5)
    tried("a", b"endless")
    while True:
        time.sleep(1000)
fuzz("b")
"""
    one, two = group.start(group.script(code), "a", "b", hang=1000.0)
    eventually(lambda: one.session_runs, "it does not run")
    group.wait_for_runs(two)
    other = group.pid(0)
    for _ in range(10):  # The other one is never far behind, however slow it is.
        clock.ahead += 200.0
        group.wait_for_runs(two)
    group.told.wait_for(lambda: group.failures, "nobody notices")
    end, failure, data = group.failures[0]
    assert (end.test.name, failure.kind, data, end.n_runs) == ("a", "hang", b"endless", 5)
    assert group.pid(0) == other
    group.wait_for_runs(two)
    assert (one.status.findings, two.status.findings) == (1, 0)


def test_stop_of_one_test(group: Group) -> None:
    """Instances go on with the others; the one that stopped stays so, and none of that is a failure."""
    one, two, three = group.start(group.script("fuzz(names[0])"), "a", "b", "c")
    group.wait_for_runs(one)
    one.stop("Enough.", hurry=False)
    group.wait_for_runs(two)
    two.stop("Enough.")
    group.wait_for_runs(three)
    eventually(lambda: three.status.state == "fuzzing", "it does not say so")
    assert [test.status.state for test in (one, two)] == ["stopped", "stopped"]
    for number in range(2):
        eventually(lambda: group.last_names(number) == ["c"], "it still has the others")  # noqa: B023
    three.stop()
    group.stop()
    assert one.status.text == "Enough."
    assert (group.failures, one.status.restarts) == ([], 0)


def test_last_words_when_it_stops(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that just fails when its tests are stopped without hurry says how."""
    monkeypatch.setattr(worker, "STACK_WAIT", WAIT)
    code = """
turn("a")
run()
tried("a", b"last")
os.write(2, b"thread 1 panic: at the last moment\\n")
while not os.path.exists("go on"): time.sleep(0.01)
os.abort()
"""
    (test,) = group.start(group.script(code), "a", count=1)
    eventually(lambda: ("a", "info", "thread 1 panic: at the last moment") in group.log, "it is not heard")
    test.stop(hurry=False)
    time.sleep(5 * worker.TICK)
    (group.folder / "go on").touch()
    group.stop()
    assert [(failure.message, data) for _, failure, data in group.failures] == [
        ("at the last moment", b"last")
    ]


def test_death_before_any_test(group: Group) -> None:
    """Where nobody can tell which test is to blame, none gets a finding, and it is tried again."""
    code = """
if not os.path.exists("good"):
    sys.exit("no space")
fuzz("a")
"""
    one, two = group.start(group.script(code), "a", "b", count=1)
    text = "Worker exited with code 1.\nno space\nThe next worker starts in"
    for test in (one, two):
        eventually(lambda: group.is_crashed(test, text), "it is not told")  # noqa: B023
    (group.folder / "good").touch()
    group.wait_for_runs(one)
    assert group.failures == []
    assert one.status.text == ""


def test_test_that_prints(group: Group, caplog: pytest.LogCaptureFixture) -> None:
    """A test that writes to stdout drowns the messages, which is said once; its runs are counted."""
    (test,) = group.start(
        group.script('turn("a")\nrun()\nos.write(1, b"hello world" * 100)\nfuzz("a")'), "a", count=1
    )
    eventually(lambda: test.session_runs > 10, "it does not run")
    assert len(group.notes()) == 1
    eventually(
        lambda: "instance 0 cannot be understood any more since 'a' had its turn (message" in caplog.text,
        "silence",
    )
    test.note_noise(1, "again")
    assert caplog.text.count("print to stderr instead") == 1


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ('turn("a")\nsend(9, struct.pack("<I", 2))', "it has a test 2, of 1"),
        ("send(9, struct.pack('<I', 0))", "fuzz_test_change came before there was a file for the input"),
        ("send(7, bytes(8))", "coverage_id must have 32 bytes, got 8"),
        ("send(10, bytes(3))", "broadcast_fuzz_input needs 4 bytes, got 3"),
    ],
)
@pytest.mark.usefixtures("fast")
def test_broken_protocol(group: Group, code: str, what: str) -> None:
    """What no instance says ends it, before it fuzzes, and after some attempts all is given up."""
    if not code.startswith("turn"):
        (test,) = group.start(group.script(f"instance or 1\n{code}\ntime.sleep(1000)"), "a", count=2)
        eventually(lambda: test.status.state == "failed", "it is not given up")
        assert f"Worker broke the protocol ({what}) and was ended." in test.status.text
    else:
        (test,) = group.start(group.script(f"{code}\nfuzz('a')"), "a", count=2)
        group.wait_for_runs(test)


def test_turns(group: Group) -> None:
    """Of two instances with one turn, each runs in its time; what comes in the meantime is not lost."""
    code = """
turn("a")
sent = 0
while True:
    run()
    if arrived():
        note(got=receive()[1][4:].decode())
    if sent < 3:
        found("a", b"from %d" % instance)
        sent += 1
    time.sleep(0.01)
"""
    (test,) = group.start(group.script(code), "a", turns=Turns(1, slice_seconds=0.1))
    for number in range(2):
        other = f"from {1 - number}"
        eventually(lambda: len(group.notes(instance=number, got=other)) == 3, "inputs are lost")  # noqa: B023
    pids = {number: group.pid(number) for number in range(2)}

    def states() -> set[str]:
        return {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids.values()}

    eventually(lambda: "T" in states() and len(states()) == 2, "both run at once")
    group.wait_for_runs(test)
    assert group.failures == []


def test_move(group: Group) -> None:
    """All instances go on with a new build, with its tests; the runs of the old one are not forgotten."""
    one, two = group.start(group.script("fuzz(names[0])"), "a", "b")
    group.wait_for_runs(one)
    step = group.script("note(new=True)\nfuzz(names[-1])", "new")
    assert group.instances is not None
    runs = one.session_runs
    two.stop()
    one.move(replace(one.test, step=step))
    three = group.test(step, "c")
    group.tests.append(three)
    group.instances.go_on([one, three])
    group.wait_for_runs(three)
    eventually(lambda: len(group.notes(new=True)) == 2, "an instance has the old build")
    assert one.session_runs >= runs
    group.stop()
    group.instances.go_on([four := group.test(step, "d")])
    group.tests.append(four)
    group.wait_for_runs(four)


def test_old_input_is_forgotten(group: Group) -> None:
    """An input of an earlier session is not taken for what a process tried that never came to fuzz."""
    folder = group.folder / "cache" / "f"
    folder.mkdir(parents=True)
    (folder / "in0").write_bytes(bytes(16) + b"\1\0\0\0x".ljust(100, b"\0"))
    (test,) = group.start(group.script("sys.exit(1)"), "a", count=1)
    eventually(lambda: test.status.state == "crashed", "it does not end")
    assert read_instance_input(group.folder / "cache", 0) is None
    assert group.failures == []


def test_folder_of_inputs(group: Group) -> None:
    """Inputs of the user's are there before the first instance starts; what it keeps is saved there."""
    folder = group.folder / "inputs"
    folder.mkdir()
    (folder / "seed").write_bytes(b"given\0")
    code = """
if instance == 0:
    corpus = next(each for each in os.listdir(folder + "/f") if not each.startswith("in"))
    path = folder + "/f/" + corpus
    inputs, first = sorted(os.listdir(path)), open(path + "/0", "rb").read().decode()
    open(path + "/1", "wb").write(b"kept")
    note(inputs=inputs, first=first)
fuzz("a")
"""
    group.shared = SharedCorpus(folder, "a")
    (test,) = group.start(group.script(code), "a")
    group.wait_for_runs(test)
    eventually(lambda: group.notes(inputs=["0"], first="given\0"), "the input was not given")
    test.stop()
    group.stop()
    assert [path.read_bytes() for path in (folder / "a").iterdir()] == [b"kept"]


def test_long_inputs(group: Group) -> None:
    """Now and then, an instance is given inputs that were found, joined to a long one."""
    code = """
turn("b")
while True:
    run(1000)
    time.sleep(0.005)
    while arrived():
        tag, body = receive()
        note(tag=tag, index=struct.unpack_from("<I", body)[0], data=body[4:].decode())
"""
    corpus_of(NEWEST, group.folder / "cache", "fake", "b").add([b"\0found\1"], 0)
    group.start(group.script(code), "a", "b", count=1)
    eventually(lambda: group.notes(tag=ClientTag.NEW_FUZZ_INPUT), "it is given nothing")
    for note in group.notes(tag=ClientTag.NEW_FUZZ_INPUT):
        assert note["index"] == 1
        assert set(note["data"].removesuffix("\1").split("\0")[1:]) == {"found"}
        assert len(note["data"]) >= 256


SOURCE = """
const std = @import("std");

fn fuzzPatient(_: void, smith: *std.testing.Smith) anyerror!void {
    var buffer: [64]u8 = undefined;
    var count: u32 = 0;
    for (buffer[0..smith.slice(&buffer)]) |byte| switch (byte) {
        'a'...'z' => count += 1,
        '0'...'9' => count += 10,
        else => std.mem.doNotOptimizeAway(byte),
    };
    std.mem.doNotOptimizeAway(count);
}

fn fuzzFails(_: void, smith: *std.testing.Smith) anyerror!void {
    const number = smith.value(u16);
    if (number & 0xff == 0x42) std.mem.doNotOptimizeAway(number);
    if (number & 0xff == 0x41) return error.Found;
}

test "fuzz patient" { try std.testing.fuzz({}, fuzzPatient, .{}); }
test "fuzz fails" { try std.testing.fuzz({}, fuzzFails, .{}); }
"""


@pytest.fixture(scope="module")
def real(work: Path, zig_cache: Path) -> FuzzRunStep:
    """Two fuzz tests, built with the newest Zig."""
    folder = work / "instances"
    folder.mkdir(exist_ok=True)
    source = folder / "pair.zig"
    if not source.exists():
        source.write_text(SOURCE)
    client = ZigCompileClient(zig_of("0.17.0"), zig_cache)
    command = TestCommand.of_root(source)
    return FuzzRunStep("pair", build_tests(client, command, "fuzz").path)


def test_real_instances(group: Group, real: FuzzRunStep) -> None:
    """Two instances of Zig 0.17 fuzz two tests; one fails, and is told with its input; the other goes on."""
    names = ("pair.test.fuzz patient", "pair.test.fuzz fails")
    patient, fails = group.start(real, *names)
    group.told.wait_for(lambda: len(group.failures) >= 2, "nothing is found")
    for end, failure, data in group.failures[:2]:
        assert (end.test.name, failure.kind, failure.message) == (names[1], "error", "error.Found")
        assert "in fuzzFails (" in end.stderr
        assert (data[0], len(data)) == (0x41, 8)
    group.wait_for_runs(patient)
    eventually(lambda: patient.corpus.inputs(), "nothing is kept")
    assert len({msg.coverage_id for msg in group.told.of(CoverageMsg)}) == 1
    assert {msg.cache_root.name for msg in group.told.of(CoverageMsg)} == {"instance0", "instance1"}
    # Those that both reach are told of one only.
    assert any(int.from_bytes(test.seen[1], "little") for test in (patient, fails))
    group.stop()
    assert {end.test.name for end, _, _ in group.failures} == {names[1]}
    assert not any("stdin" in text for _, _, text in group.log)
