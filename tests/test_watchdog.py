"""Nothing outlives a process that is killed."""

import itertools
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fuzzserver.zig import watchdog
from fuzzserver.zig.process import ChildGroup
from fuzzserver.zig.watchdog import TOKEN_VARIABLE, Watchdog, end_carriers
from tests.support_time import WAIT, eventually
from tests.support_zig_children import is_alive, processes_naming, python, wait_until_gone

pytestmark = pytest.mark.usefixtures("nothing_left")

REPOSITORY = Path(__file__).resolve().parent.parent

FAMILY_NAME = "WATCHDOG_TEST"
"""An environment variable that tells whose descendant a process is."""

FAMILY = """
import os, signal, sys, time

# A grandchild in a session of its own, a child of it, and one that is paused; all ignore what they can.
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    os.fork()
    print(os.getpid(), flush=True)
    time.sleep(1000)
if os.fork() == 0:
    print(os.getpid(), flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
print(os.getpid(), flush=True)
time.sleep(1000)
"""

PARENT = """
import sys
from fuzzserver.zig.process import ChildGroup
with ChildGroup().spawn([sys.executable, "-I", "-S", "-c", sys.argv[1], sys.argv[2]]) as child:
    for _, data in child.output():
        print(data.decode(), end="", flush=True)
"""

BUSY_PARENT = """
import sys, threading
from fuzzserver.zig.process import ChildGroup
group = ChildGroup()
def work():
    while True:
        with group.spawn(["sh", "-c", "setsid sleep 1000 & sleep 0.01; exit", sys.argv[1]]) as child:
            child.wait()
# What leaves its session outlives a child that ends by itself, and a watchdog that is told that all is well.
with group.watched():
    for _ in range(3):
        threading.Thread(target=work).start()
    print("ready", flush=True)
    threading.Event().wait()
"""


def start(code: str, *args: str) -> subprocess.Popen[str]:
    """A process of this package's that starts children; the last argument is known to all of them."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, FAMILY_NAME: args[-1]},
    )


def kill(process: subprocess.Popen[str]) -> None:
    """End it in a way that it cannot see."""
    process.send_signal(signal.SIGKILL)
    process.wait(WAIT)
    assert process.stdout is not None
    process.stdout.close()


def family(name: str) -> set[int]:
    """A process that ``start`` has started, and what that has started in turn, if it runs."""
    carried, found = f"{FAMILY_NAME}={name}\0".encode(), set()
    for entry in os.listdir("/proc"):
        try:
            environment = Path("/proc", entry, "environ").read_bytes()
        except OSError:
            continue
        if carried in environment and is_alive(int(entry)):
            found.add(int(entry))
    return found


def watchdogs() -> set[int]:
    """The watching programs that this process has started."""
    return {pid for pid in processes_naming(watchdog.__file__) if fields(pid)[1:2] == [str(os.getpid())]}


def fields(pid: int) -> list[str]:
    """State, id of the parent, and more, as in proc(5); nothing of a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def test_kill(tmp_path: Path) -> None:
    """Children, grandchildren in other sessions and paused ones end with a killed process."""
    with start(PARENT, FAMILY, str(tmp_path)) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in range(4)]
        eventually(lambda: ["T"] in [fields(pid)[:1] for pid in pids], "none is paused")
        assert set(pids) == family(str(tmp_path)) - {parent.pid}
        kill(parent)
    eventually(lambda: not any(map(is_alive, pids)), "children outlive their parent")
    assert family(str(tmp_path)) == set()


def test_kill_while_children_are_started(tmp_path: Path) -> None:
    """It does not matter when a process is killed: in the middle of a start as well."""
    generator = random.Random(1)
    for number in range(20):
        name = str(tmp_path / str(number))
        with start(BUSY_PARENT, name) as parent:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "ready\n"
            time.sleep(generator.uniform(0.0, 0.05))  # What is tested is that any moment will do.
            kill(parent)
        eventually(lambda name=name: not family(name), f"children outlive their parent, kill {number}")


def test_watchdog_ends_with_the_last_child() -> None:
    """There is one watchdog as long as there are children, not one for each, and none after them."""
    before = watchdogs()
    sleep = python("import time; time.sleep(1000)")
    group = ChildGroup()
    with group.spawn(sleep):
        (only,) = watchdogs() - before
        with group.spawn(sleep):
            assert watchdogs() - before == {only}
        assert watchdogs() - before == {only}
    assert not is_alive(only)
    with group.spawn(sleep):
        (other,) = watchdogs() - before
        assert other != only
    assert watchdogs() <= before


def test_children_that_cannot_start_leave_no_watchdog(tmp_path: Path) -> None:
    """A failed start costs nothing that stays."""
    before = watchdogs()
    with pytest.raises(FileNotFoundError), ChildGroup().spawn([str(tmp_path / "none")]):
        pass
    assert watchdogs() <= before


def test_what_is_left_at_the_end_is_ended() -> None:
    """A watchdog that is closed ends what has left the group of the child that started it."""
    dog = Watchdog()
    with subprocess.Popen(
        python("print('ready', flush=True); input()"),
        env={TOKEN_VARIABLE: dog.token},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        dog.close()
        assert process.wait(WAIT) == -signal.SIGKILL


def test_only_its_own_are_ended() -> None:
    """A watchdog whose pipe ends, ends who carries its token, and no others."""
    dog, other = Watchdog(), Watchdog()
    sleep = python("import time; time.sleep(1000)")
    with (
        subprocess.Popen(sleep, env={TOKEN_VARIABLE: dog.token}) as carrier,
        subprocess.Popen(sleep, env={TOKEN_VARIABLE: other.token}) as stranger,
    ):
        assert dog._process.stdin is not None
        dog._process.stdin.close()  # As when the watched process is gone.
        assert carrier.wait(WAIT) == -signal.SIGKILL
        assert dog._process.wait(WAIT) == 0
        assert stranger.poll() is None
        stranger.kill()
    other.close()


def test_who_has_no_time_looks_once() -> None:
    """What is there is ended, though the time for it is over before the first look."""
    token = secrets.token_hex(16)
    with subprocess.Popen(python("input()"), env={TOKEN_VARIABLE: token}, stdin=subprocess.PIPE) as process:
        end_carriers(token, longest=0.0)
        assert process.wait(WAIT) == -signal.SIGKILL


def test_looks_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is over after so many looks that found nobody, however much time passes between them."""
    found: list[list[int]] = [[], [], [os.getpid()], [], [], [], []]
    clock, ended = itertools.count(0.0, 10.0), []
    monkeypatch.setattr(watchdog, "_carriers", lambda _: found.pop(0))
    monkeypatch.setattr(watchdog, "os", SimpleNamespace(kill=lambda *_: ended.append(len(found))))
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=clock.__next__, sleep=lambda _: None))
    end_carriers("token", longest=1000.0, quiet=3)
    assert (ended, found) == ([4], [[]])


def test_nobody_to_end() -> None:
    """A watchdog that finds nobody ends by itself."""
    dog = Watchdog()
    assert dog._process.stdin is not None
    dog._process.stdin.close()
    wait_until_gone(dog._process.pid)
    assert dog._process.wait(WAIT) == 0
