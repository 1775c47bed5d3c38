"""The program as users start it: a process whose stderr is read while it runs."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support_zig_children import WAIT

REPOSITORY = Path(__file__).resolve().parent.parent
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
        timeout=WAIT,
        check=False,
    )


class Cli:
    """The program while it runs."""

    def __init__(self, folder: Path, *args: object) -> None:
        self.lines: list[str] = []
        """What it has written on stderr so far."""
        # Guards ``lines`` and ``_ended``; notified when either changes.
        self._condition = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            command(*args), cwd=folder, env=environment(folder), stderr=subprocess.PIPE, text=True
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
            assert self._condition.wait_for(lambda: find() or self._ended, WAIT), self.text()
            found = find()
            assert found, self.text()
            return found

    def port(self) -> int:
        """The port that it listens on, as it says itself."""
        return int(self.wait_for_line(LISTENING.pattern)[1])

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
                self._process.wait(20)
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
