"""The page's wasm is made before somebody asks for it, by a compiler that gives way until then."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fuzzserver import FuzzRunStep, WebServer
from fuzzserver.webserver import BACKGROUND
from fuzzserver.zig.installation import Zig
from tests import support_zig_fake
from tests.support_maps import show_map
from tests.support_native import code_addresses, hand_made_step
from tests.support_site import is_building_ahead
from tests.support_time import WAIT, eventually
from tests.support_web import PATIENT, Answer, request
from tests.support_zig_children import processes_naming, wait_until_gone
from tests.support_zig_fake import compile_calls, fake_zig

no_other_zig = support_zig_fake.no_other_zig

WASM = b"\0asm\1\0\0\0"


@pytest.fixture
def step(tmp_path: Path) -> FuzzRunStep:
    """Something to show."""
    (tmp_path / "a.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-g", "-no-pie", "-o", tmp_path / "a", tmp_path / "a.c"], check=True)
    return hand_made_step(tmp_path, tmp_path / "a", code_addresses(tmp_path / "a"))


@contextmanager
def serving(zig: Zig, folder: Path) -> Iterator[WebServer]:
    """A server that compiles with ``zig``."""
    with WebServer(zig=zig, cache_dir=folder / "cache", limits=PATIENT) as server:
        yield server


def over(server: WebServer) -> None:
    """Wait until what is built ahead is built."""
    eventually(lambda: not is_building_ahead(server), "the page's wasm is not built")


def nice_of(call: dict[str, Any]) -> int:
    """How nice the process of a compile is just now."""
    return os.getpriority(os.PRIO_PROCESS, call["pid"])


def shares_of(call: dict[str, Any]) -> str:
    """How nice its session is, where the system deals by sessions."""
    try:
        return Path(f"/proc/{call['pid']}/autogroup").read_text().split()[-1]
    except OSError:
        return "none"


def may_take_back() -> bool:
    """Whether who gives way here may cease to. (Root may not, in many a container.)"""
    code = "import os; os.nice(1); os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) - 1)"
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode == 0


def in_background(server: WebServer, path: str) -> tuple[threading.Thread, list[Answer]]:
    """Ask for something that takes its time."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(request(server.port, path)))
    thread.start()
    return thread, answers


def compile_ahead(server: WebServer, zig: Zig, step: FuzzRunStep) -> dict[str, Any]:
    """Have the compiler started, and give way."""
    show_map(server, step, 7)
    eventually(lambda: compile_calls(zig), "no compiler is started")
    (call,) = compile_calls(zig)
    eventually(lambda: nice_of(call) == BACKGROUND, "it takes all that it can get")
    return call


def test_once_and_when_there_is_something_to_show(tmp_path: Path, step: FuzzRunStep) -> None:
    """The first map starts the compiler, neither the server itself nor a second map does."""
    zig = fake_zig(tmp_path / "bin")
    with serving(zig, tmp_path) as server:
        server.set_status("waiting", "")
        server.notify()
        assert compile_calls(zig) == [] and is_building_ahead(server)
        show_map(server, step, 7)
        over(server)
        show_map(server, step, 8)
        (call,) = compile_calls(zig)
    assert call["argv"][3] == "ReleaseSmall"
    assert list((tmp_path / "cache").glob("o/*/fuzzer.wasm"))


def test_a_request_joins_it_and_has_it_hurry(tmp_path: Path, step: FuzzRunStep) -> None:
    """Nobody waits for a compiler that gives way, and nobody starts another one."""
    zig = fake_zig(tmp_path / "bin", compile="wait_for_file")
    with serving(zig, tmp_path) as server:
        call = compile_ahead(server, zig, step)
        eventually(lambda: shares_of(call) in (str(BACKGROUND), "none"), "its session takes all")
        thread, answers = in_background(server, "/main.wasm")
        may = may_take_back()
        eventually(lambda: nice_of(call) == 0 or not may, "it does not hurry")
        eventually(lambda: shares_of(call) in ("0", "none"), "its session does not hurry")
        (tmp_path / "bin" / "go").touch()
        thread.join(WAIT)
        assert [answer.body for answer in answers] == [WASM]
        assert len(compile_calls(zig)) == 1


def test_who_may_not_hurry_waits(tmp_path: Path, step: FuzzRunStep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a privileged user may take back that a process gives way. Others get the same, later."""
    set_priority = os.setpriority

    def refuse(which: int, who: int, nice: int) -> None:
        if nice < BACKGROUND:
            raise PermissionError
        set_priority(which, who, nice)

    monkeypatch.setattr(os, "setpriority", refuse)
    zig = fake_zig(tmp_path / "bin", compile="wait_for_file")
    with serving(zig, tmp_path) as server:
        compile_ahead(server, zig, step)
        thread, answers = in_background(server, "/main.wasm")
        eventually(lambda: server._page_compiler._client._nice == 0, "nobody asks")
        (tmp_path / "bin" / "go").touch()
        thread.join(WAIT)
        assert [answer.body for answer in answers] == [WASM]


def test_who_asks_first_waits_for_no_nice_compiler(tmp_path: Path) -> None:
    """Without a map, too, the page is made at once."""
    zig = fake_zig(tmp_path / "bin", compile="wait_for_file")
    with serving(zig, tmp_path) as server:
        thread, answers = in_background(server, "/debug/main.wasm")
        eventually(lambda: compile_calls(zig), "no compiler is started")
        (call,) = compile_calls(zig)
        assert nice_of(call) == os.getpriority(os.PRIO_PROCESS, 0)
        assert shares_of(call) in ("0", "none")
        (tmp_path / "bin" / "go").touch()
        thread.join(WAIT)
        assert [answer.body for answer in answers] == [WASM]


def test_a_stop_ends_it(tmp_path: Path, step: FuzzRunStep) -> None:
    """Nothing of it is left."""
    zig = fake_zig(tmp_path / "bin", compile="ignore_sigterm")
    with serving(zig, tmp_path) as server:
        show_map(server, step, 7)
        eventually(lambda: compile_calls(zig), "no compiler is started")
    (call,) = compile_calls(zig)
    wait_until_gone(call["pid"])
    assert processes_naming(str(tmp_path / "bin")) == []
    assert not any(thread.is_alive() for thread in server._threads)


def test_a_stop_before_there_is_anything_to_show(tmp_path: Path) -> None:
    """No compiler is started at the last moment."""
    zig = fake_zig(tmp_path / "bin")
    with serving(zig, tmp_path) as server:
        server.set_status("waiting", "")
    assert not is_building_ahead(server)
    assert compile_calls(zig) == []


@pytest.mark.usefixtures("no_other_zig")
def test_what_fails_is_told_to_who_asks(tmp_path: Path, step: FuzzRunStep, caplog) -> None:
    """A compiler that fails in the background ends nothing, and is tried again."""
    caplog.set_level(logging.INFO)
    zig = fake_zig(tmp_path / "bin", compile="exit_3")
    with serving(zig, tmp_path) as server:
        show_map(server, step, 7)
        over(server)
        assert "the page's wasm is not there yet" in caplog.text
        said = [each for each in caplog.records if each.name.startswith(("fuzzserver.web", "fuzzserver.zig"))]
        assert max(record.levelno for record in said) == logging.INFO
        assert b"exited with error code 3" in request(server.port, "/main.wasm").body
        fake_zig(tmp_path / "bin")
        assert request(server.port, "/main.wasm").body == WASM
    assert len(compile_calls(zig)) == 3


def test_what_is_there_is_not_compiled(tmp_path: Path, step: FuzzRunStep, zig: Zig, zig_cache: Path) -> None:
    """Who has asked before has had it made, by a real compiler; no other one is started for the map."""
    starts = tmp_path / "starts"
    counting = tmp_path / "zig"
    counting.write_text(f'#!/bin/sh\n[ "$1" = build-exe ] && echo >>"{starts}"\nexec "{zig.path}" "$@"\n')
    counting.chmod(0o755)
    time.sleep(0.1)  # What was written just before a compile is not sure to be what was compiled.
    with WebServer(zig=Zig(counting), cache_dir=zig_cache, limits=PATIENT) as server:
        answer = request(server.port, "/main.wasm")
        assert answer.body[:8] == WASM
        assert len(answer.body) < 250_000
        show_map(server, step, 7)
        over(server)
        assert request(server.port, "/main.wasm").body == answer.body
    assert starts.read_text() == "\n"
