"""Child processes: pipes drained at once, deadlines kept, nothing left behind."""

import itertools
import os
import signal
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest

from fuzzserver.zig import process
from fuzzserver.zig.process import ChildGroup, ChildTimeout, PipedChild, describe_exit
from tests.support_time import WAIT
from tests.support_zig_children import is_alive, python, wait_until_gone

pytestmark = pytest.mark.usefixtures("nothing_left")

SLEEP = "import time; print('ready', flush=True); time.sleep(1000)"
IGNORE_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEP
FORK = """
import os, sys, time
pid = os.fork()
if pid == 0:
    time.sleep(1000)
print(pid, flush=True)
"""
"""Ends at once and leaves a child that holds both pipes; tells its process id."""


def soon() -> float:
    """A deadline that a working child never sees."""
    return time.monotonic() + WAIT


def read(child: PipedChild, name: str = "stdout") -> bytes:
    """All that the child writes to one pipe."""
    return b"".join(data for pipe, data in child.output(soon()) if pipe == name)


def wait_for_ready(child: PipedChild) -> None:
    """Wait for the child's first word."""
    next(child.output(soon()))


def test_both_pipes_are_drained_at_once() -> None:
    """A child that fills one pipe and then the other, far beyond their size, does not block."""
    code = """
import os
def write(fd, data):
    while data:
        data = data[os.write(fd, data):]
for _ in range(3):
    write(1, b"o" * 300_000)
    write(2, b"e" * 400_000)
"""
    sizes: Counter[str] = Counter()
    with PipedChild(python(code)) as child:
        for name, data in child.output(soon()):
            assert set(data) == {ord("o" if name == "stdout" else "e")}
            sizes[name] += len(data)
        assert child.wait(WAIT) == 0
    assert sizes == {"stdout": 900_000, "stderr": 1_200_000}


def test_output_comes_while_the_child_runs() -> None:
    """What a child writes is seen before it ends, and answers can be sent."""
    code = "print('question', flush=True); print(input().upper(), flush=True)"
    with PipedChild(python(code)) as child:
        output = child.output(soon())
        assert next(output) == ("stdout", b"question\n")
        assert child.send(b"answer\n")
        assert next(output) == ("stdout", b"ANSWER\n")
        assert list(output) == []


def test_deadline_of_a_silent_child() -> None:
    """A child that writes nothing is given up at the deadline."""
    with PipedChild(python("import time; time.sleep(1000)")) as child:
        started = time.monotonic()
        with pytest.raises(ChildTimeout):
            list(child.output(started + 0.2))
        assert 0.2 <= time.monotonic() - started < 30


def test_deadline_of_a_chatty_child() -> None:
    """A child that writes for ever is given up at the deadline as well."""
    code = "while True: print('x' * 1000, flush=True)"
    with PipedChild(python(code)) as child, pytest.raises(ChildTimeout):
        for _ in child.output(time.monotonic() + 0.2):
            pass


def test_deadline_of_each_answer() -> None:
    """A deadline given as a function is asked for again while waiting."""
    seen: list[tuple[str, bytes]] = []
    asked: list[int] = []

    def deadline() -> float:
        asked.append(len(seen))
        return 0.0 if asked.count(1) == 2 else soon()

    with PipedChild(python(SLEEP)) as child, pytest.raises(ChildTimeout):
        for item in child.output(deadline):
            seen.append(item)
    assert seen == [("stdout", b"ready\n")]
    assert asked.count(1) == 2


def test_wait_has_a_timeout() -> None:
    """Waiting for a child that does not end is given up."""
    with PipedChild(python(SLEEP)) as child, pytest.raises(ChildTimeout):
        child.wait(0.1)


def test_wait_closes_stdin() -> None:
    """A child that reads to the end of its input ends when it is waited for."""
    with PipedChild(["cat"]) as child:
        assert child.send(b"some text")
        assert child.wait(WAIT) == 0
        assert read(child) == b"some text"


@pytest.mark.parametrize(
    ("code", "status"), [("raise SystemExit(7)", 7), ("import os; os.abort()", -signal.SIGABRT)]
)
def test_exit_status(code: str, status: int) -> None:
    """The status is the exit code, or the negative signal."""
    with PipedChild(python(code)) as child:
        assert read(child) == b""
        assert child.wait(WAIT) == status


def test_working_folder(tmp_path) -> None:
    """The child starts in the folder that it is given."""
    with PipedChild(["pwd"], tmp_path) as child:
        assert read(child).decode().strip() == str(tmp_path)


def test_grandchild_that_holds_the_pipes() -> None:
    """The output ends soon after the child, though a child of its own keeps the pipes open."""
    with PipedChild(python(FORK)) as child:
        grandchild = int(read(child))
        assert child.wait(WAIT) == 0
        assert is_alive(grandchild)
    wait_until_gone(grandchild)


def test_words_that_are_read_late(monkeypatch) -> None:
    """What a child wrote before its end is read, however long that was ago."""
    clock = itertools.count(time.monotonic(), 10.0)
    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with PipedChild(python("print('words')")) as child:
        assert child.wait(WAIT) == 0
        assert b"".join(data for _, data in child.output()) == b"words\n"


def test_last_words_of_a_grandchild(monkeypatch) -> None:
    """What a grandchild still writes when its parent is gone is not lost."""
    monkeypatch.setattr(process, "_LINGER", WAIT)
    code = """
import os, time
parent = os.getpid()
if os.fork() == 0:
    while os.getppid() == parent:
        time.sleep(0.001)
    print("last words", flush=True)
"""
    with PipedChild(python(code)) as child:
        assert read(child) == b"last words\n"


def test_kill_reaches_the_whole_group() -> None:
    """A signal goes to the child and all that it started."""
    with PipedChild(python(FORK + "time.sleep(1000)")) as child:
        output = child.output(soon())
        grandchild = int(next(output)[1])
        child.kill()
        assert list(output) == []
        assert child.wait(WAIT) == -signal.SIGKILL
        wait_until_gone(grandchild)


def test_child_has_a_session_of_its_own() -> None:
    """A Ctrl-C in the terminal reaches us and not the child, which we end in our own time."""
    with PipedChild(python("import os; print(os.getpid(), os.getpgid(0), os.getsid(0))")) as child:
        assert set(map(int, read(child).split())) == {child.pid}


def test_close_ends_a_running_child() -> None:
    """A child is not left running when its owner is done, and leaves no zombie."""
    with PipedChild(python(SLEEP)) as child:
        wait_for_ready(child)
    assert not os.path.exists(f"/proc/{child.pid}")
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)


def test_close_twice(monkeypatch) -> None:
    """The second close does nothing, and what comes after it does no harm."""
    monkeypatch.setattr(process, "GRACE", WAIT)
    child = PipedChild(python(SLEEP))
    child.close()
    status = child.wait()
    child.close()
    child.kill()
    assert status == child.wait() == -signal.SIGTERM
    assert not child.send(b"anybody there?")


def test_close_is_polite_first(monkeypatch) -> None:
    """A child that handles SIGTERM gets to end by itself."""
    monkeypatch.setattr(process, "GRACE", WAIT)
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5));" + SLEEP
    with PipedChild(python(code)) as child:
        wait_for_ready(child)
    assert child.wait() == 5


def test_close_of_a_child_that_ignores_sigterm(monkeypatch) -> None:
    """A child that does not listen to SIGTERM is killed after a grace."""
    monkeypatch.setattr(process, "GRACE", 0.2)
    with PipedChild(python(IGNORE_SIGTERM)) as child:
        wait_for_ready(child)
        started = time.monotonic()
    assert time.monotonic() - started >= 0.2
    assert child.wait() == -signal.SIGKILL


def test_close_with_a_grandchild_that_ignores_sigterm() -> None:
    """What a polite child leaves behind does not survive it."""
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + FORK
    code += "signal.signal(signal.SIGTERM, signal.SIG_DFL); time.sleep(1000)"
    with PipedChild(python(code)) as child:
        grandchild = int(next(child.output(soon()))[1])
    wait_until_gone(grandchild)


def test_send_to_a_dead_child() -> None:
    """Writing to a child that is gone is no error: its output tells why it is gone."""
    with PipedChild(python("print('bye')")) as child:
        assert read(child) == b"bye\n"
        assert child.wait(WAIT) == 0
        assert not child.send(b"x" * 1_000_000)


def test_send_to_a_child_that_closed_its_input() -> None:
    """A child that does not listen but lives is told apart from one that listens."""
    with PipedChild(python("import os; os.close(0);" + SLEEP)) as child:
        wait_for_ready(child)
        assert not child.send(b"x")


def test_program_that_is_not_there() -> None:
    """A program that cannot be started is an OSError, and leaves nothing open."""
    with pytest.raises(FileNotFoundError):
        PipedChild(["/no/such/program"])


def test_stop_ends_the_children_of_other_threads() -> None:
    """Threads that wait for children see them end when another one stops the group."""
    group = ChildGroup()
    ready = threading.Barrier(4)
    statuses: list[int] = []

    def own_a_child() -> None:
        with group.spawn(python(IGNORE_SIGTERM)) as child:
            output = child.output()
            next(output)
            ready.wait(WAIT)
            assert list(output) == []
            statuses.append(child.wait(WAIT))

    threads = [threading.Thread(target=own_a_child) for _ in range(3)]
    for thread in threads:
        thread.start()
    ready.wait(WAIT)
    assert not group.stopped
    group.stop()
    for thread in threads:
        thread.join(WAIT)
    assert statuses == [-signal.SIGKILL] * 3
    assert group.stopped


def test_nothing_starts_after_stop(tmp_path) -> None:
    """A stopped group starts no more children; stopping it again is allowed."""
    group = ChildGroup()
    group.stop()
    group.stop()
    with pytest.raises(OSError, match="stopped"), group.spawn(["touch", str(tmp_path / "file")]):
        pass
    assert list(tmp_path.iterdir()) == []


def test_group_forgets_ended_children() -> None:
    """Stopping a group does not signal process ids that were free for others since."""
    group = ChildGroup()
    with group.spawn(["true"]) as child:
        assert read(child) == b""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PipedChild, "kill", lambda *_: pytest.fail("a child that had ended was signalled"))
        group.stop()


def test_group_closes_the_child_of_a_failing_owner() -> None:
    """An error of the owner ends its child."""
    group = ChildGroup()
    with pytest.raises(ZeroDivisionError), group.spawn(python(SLEEP)) as child:
        raise ZeroDivisionError
    assert not os.path.exists(f"/proc/{child.pid}")


def test_start_and_stop_race() -> None:
    """However a start and a stop fall together, no child survives."""
    for _ in range(20):
        group = ChildGroup()
        pids: list[int] = []

        def own_a_child(group: ChildGroup = group, pids: list[int] = pids) -> None:
            try:
                with group.spawn(["sleep", "1000"]) as child:
                    pids.append(child.pid)
                    child.wait(WAIT)
            except OSError:
                pass  # The stop came first.

        thread = threading.Thread(target=own_a_child)
        thread.start()
        group.stop()
        thread.join(WAIT)
        assert not thread.is_alive()
        assert not any(map(is_alive, pids))


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exited with code 0"),
        (1, "exited with code 1"),
        (-6, "was ended by signal SIGABRT"),
        (-9, "was ended by signal SIGKILL"),
        (-11, "was ended by signal SIGSEGV"),
        (-63, "was ended by signal 63"),
    ],
)
def test_describe_exit(status: int, text: str) -> None:
    """An exit status is told in words."""
    assert describe_exit(status) == text
