"""The program as users start it: a process whose stderr is read while it runs."""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from fuzzserver.wire.abi import ToClientTag
from tests.support_time import WAIT
from tests.support_web import request
from tests.support_zig_children import is_alive

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD_WAIT = 200.0
"""Seconds for a first build on a busy machine. Nothing takes this long unless something is broken."""

MARKER = "FUZZSERVER_TEST"
"""Environment variable by which the processes of one run of the program are known."""

LISTENING = re.compile(r"info: web interface listening at http://127\.0\.0\.1:(\d+)/")


def environment(folder: Path) -> dict[str, str]:
    """Finds the package in this checkout, and keeps what it caches below ``folder``."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "XDG_CACHE_HOME": str(folder / "xdg-cache")}


def command(*args: object) -> list[str]:
    """The command line of ``fuzzserver args``."""
    return [sys.executable, "-m", "fuzzserver", *map(str, args)]


def run_cli(folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """Run the program to its end, in ``folder``."""
    return subprocess.run(
        command(*args),
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=BUILD_WAIT,
        check=False,
    )


def family(token: str) -> list[int]:
    """Processes that run and have this as the value of MARKER in their environment."""
    marker = f"{MARKER}={token}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                environ = Path("/proc", entry, "environ").read_bytes()
            except OSError:
                continue  # It is gone.
            if marker in environ and is_alive(int(entry)):
                found.append(int(entry))
    return found


class Cli:
    """The program while it runs."""

    def __init__(self, folder: Path, *args: object) -> None:
        self.lines: list[str] = []
        """What it has written on stderr so far."""
        # Guards ``lines`` and ``_ended``; notified when either changes.
        self._condition = threading.Condition()
        self._ended = False
        self._token = secrets.token_hex(16)
        self._process = subprocess.Popen(
            command(*args),
            cwd=folder,
            env=environment(folder) | {MARKER: self._token},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, name="stderr")
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._condition:
                self.lines.append(line.rstrip("\n"))
                self._condition.notify_all()
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def wait_for_line(self, pattern: str) -> re.Match[str]:
        """The first line of stderr in which ``pattern`` is found."""

        def find() -> re.Match[str] | None:
            return next((found for line in self.lines if (found := re.search(pattern, line))), None)

        with self._condition:
            assert self._condition.wait_for(lambda: find() or self._ended, BUILD_WAIT), self.text()
            found = find()
            assert found, self.text()
            return found

    def port(self) -> int:
        """The port that it listens on, as it says itself."""
        return int(self.wait_for_line(LISTENING.pattern)[1])

    def get(self, path: str) -> Any:
        """The JSON that it serves at ``path``."""
        try:
            answer = request(self.port(), path)
        except OSError as error:
            raise AssertionError(f"{path}: {error}\n{self.text()}") from error
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def wait_for(self, path: str, condition: Callable[[Any], object]) -> Any:
        """Ask for ``path`` until ``condition`` holds for the JSON in it, which is returned."""
        deadline = time.monotonic() + BUILD_WAIT
        while not condition(found := self.get(path)):
            assert time.monotonic() < deadline, f"{path} is {found}\n{self.text()}"
            time.sleep(0.05)
        return found

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def descendants(self) -> list[int]:
        """Processes that it has started, and those that they have started, and that run."""
        return [pid for pid in family(self._token) if pid != self.pid]

    def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal and wait for the exit code."""
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the exit code."""
        status = self._process.wait(WAIT)
        self._reader.join(WAIT)
        return status

    def text(self) -> str:
        """All of stderr."""
        return "\n".join(self.lines)

    def close(self) -> None:
        """End it, whatever happened."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(WAIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()


@contextmanager
def running(folder: Path, *args: object) -> Iterator[Cli]:
    """The program, ended at the end of the block."""
    cli = Cli(folder, *args)
    try:
        yield cli
    finally:
        cli.close()


def errors(stderr: str) -> list[str]:
    """The lines that say what is wrong, without faults that Zig's fuzzers themselves have now and then."""
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    return [line for line in lines if "Zig's fuzzer itself failed" not in line]


def forget_sessions(project: Path) -> None:
    """Let a project be one that was never fuzzed: without findings, and without inputs."""
    shutil.rmtree(project / ".zig-cache" / "fuzzserver", ignore_errors=True)


def messages_until(
    port: int, tag: ToClientTag, condition: Callable[[bytes], object] = bytes.__len__, path: str = "/"
) -> bytes:
    """The first message with ``tag`` for which ``condition`` holds that a page is sent."""
    with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None, open_timeout=WAIT) as web_socket:
        while True:
            message = web_socket.recv(timeout=BUILD_WAIT)
            if message[0] == tag and condition(message):
                return message
