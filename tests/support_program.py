"""The program as a process that is looked at from outside while it runs, and after it has ended."""

import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

from fuzzserver import paths
from tests.support_time import WAIT
from tests.support_zig_cli import BUILD_WAIT, MARKER, command, environment, family

POLL = 0.01
"""Seconds between two looks at what a process writes."""


class Program:
    """``fuzzserver ARGS --port 0``. What it writes, and its temporary files, are in ``folder``."""

    def __init__(self, folder: Path, *args: object) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        self._stderr = folder / "stderr"
        self._port_file = folder / "port"
        self._token = secrets.token_hex(16)
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                command(*args, "--port", 0, "--port-file", self._port_file),
                cwd=folder,
                env={**environment(folder), MARKER: self._token, "TMPDIR": str(self.temporary)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                process_group=0,  # Who tries it decides when it ends, not Ctrl-C.
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def text(self) -> str:
        """What it has written on stderr."""
        return self._stderr.read_text(errors="replace")

    @property
    def port(self) -> int | None:
        """Where it listens, if it does so yet."""
        try:
            return int(self._port_file.read_text())
        except FileNotFoundError:
            return None

    def wait_for_port(self) -> int:
        """Where it listens, once it does."""
        self.wait_for("listening at")
        deadline = time.monotonic() + BUILD_WAIT
        while (port := self.port) is None:
            assert time.monotonic() < deadline, self.text
            time.sleep(POLL)
        return port

    def wait_for(self, part: str) -> None:
        """Wait until stderr holds ``part``."""
        deadline = time.monotonic() + BUILD_WAIT
        while part not in self.text:
            assert self.process.poll() is None and time.monotonic() < deadline, self.text
            time.sleep(POLL)

    def family(self) -> list[int]:
        """Processes that run and that it, or what it has started, has started."""
        return [pid for pid in family(self._token) if pid != self.pid]

    def close(self) -> None:
        """End it, and what it left behind, whatever happened."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(WAIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in self.family():
            os.kill(pid, signal.SIGKILL)


def own_page(folder: Path) -> Path:
    """A copy of the page, as ``--lib-dir`` takes it, that no cache knows."""
    shutil.copytree(paths.lib_dir(), folder)
    touch_page(folder)
    return folder


def touch_page(lib_dir: Path) -> None:
    """Have the next request for the wasm of a copy compile it anew."""
    with (lib_dir / "fuzzer" / "web" / "main.zig").open("a") as file:
        file.write(f"// {secrets.token_hex(16)}\n")
