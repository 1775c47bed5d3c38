"""A server in a process of its own, whose memory, time and errors can be told from those of the test.

``python -m tests.support_server OPTIONS`` runs it: it takes commands as lines of JSON, and answers each.
"""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from fuzzserver import WebServer
from fuzzserver.web import web_socket
from tests import support_echo
from tests.support_patience import PATIENT

PATIENCE = 60.0
"""Seconds for the server to come up, and to get rid of what has ended."""

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
"""Measuring what code was run would take more time than the code does."""


class ServerProcess(AbstractContextManager["ServerProcess"]):
    """The running process, seen from the test."""

    def __init__(
        self,
        cache_dir: Path,
        *,
        echo: bool = False,
        ping_interval: float | None = None,
        files: int | None = None,
        **limits: float,
    ) -> None:
        """Args:
        echo: whether WebSockets are answered by echo instead of coverage.
        ping_interval: instead of the usual seconds.
        files: how many file descriptors the process may have.
        limits: instead of patient ones.
        """
        options = {
            "cache_dir": str(cache_dir),
            "echo": echo,
            "ping_interval": ping_interval,
            "files": files,
            "limits": limits,
        }
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.support_server", json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            cwd=Path(__file__).parents[1],
        )
        self._process = psutil.Process(self._child.pid)
        self.port: int = self._answer()

    def __exit__(self, *_: object) -> None:
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        try:
            assert self._child.wait(PATIENCE) == 0
        finally:
            self._child.kill()
            self._child.wait()
            self._child.stdout.close()

    def ask(self, *command: Any) -> Any:
        """Have the process do something, and wait until it has."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(command) + "\n")
        self._child.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert line, f"the server's process ended with {self._child.wait()}"
        return json.loads(line)

    @property
    def cpu(self) -> float:
        """Seconds of processor time so far."""
        times = self._process.cpu_times()
        return times.user + times.system

    @property
    def memory(self) -> int:
        """Bytes in memory that are its own."""
        return self._process.memory_info().rss

    @property
    def resources(self) -> tuple[int, int]:
        """Threads and file descriptors."""
        return self._process.num_threads(), self._process.num_fds()

    def settle(self, resources: tuple[int, int]) -> None:
        """Wait until there are no more threads and file descriptors than there were."""
        deadline = time.monotonic() + PATIENCE
        while any(now > then for now, then in zip(self.resources, resources, strict=True)):
            assert time.monotonic() < deadline, f"{self.resources} are left of {resources}"
            time.sleep(0.02)

    @property
    def errors(self) -> list[str]:
        """What was logged as an error, and exceptions that nobody caught."""
        errors: list[str] = self.ask("errors")
        return errors


class _Errors(logging.Handler):
    """Keeps what went wrong."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Note it with its traceback."""
        self.texts.append(self.format(record))

    def unhandled(self, arguments: threading.ExceptHookArgs) -> None:
        """Note what ended a thread."""
        self.texts.append(f"{arguments.thread}: {arguments.exc_value!r}")


class _Ticker:
    """Has news at regular times."""

    def __init__(self, server: WebServer) -> None:
        self._server = server
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._count = 0

    def start(self, interval: float, padding: int) -> None:
        """Begin. Each text is as much longer as ``padding`` says."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, args=(interval, padding))
        self._thread.start()

    def stop(self) -> int:
        """End; how many ticks there were in all."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None
        return self._count

    def _run(self, interval: float, padding: int) -> None:
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due += interval
            self._count += 1
            self._server.add_log("test", f"tick {self._count} at {time.monotonic():.6f} {'.' * padding}")
            self._server.notify()


def main() -> None:
    """Serve until standard input ends."""
    options = json.loads(sys.argv[1])
    errors = _Errors()
    logging.getLogger().addHandler(errors)
    threading.excepthook = errors.unhandled
    if options["files"] is not None:
        psutil.Process().rlimit(psutil.RLIMIT_NOFILE, (options["files"], options["files"]))
    if options["ping_interval"] is not None:
        web_socket.PING_INTERVAL = options["ping_interval"]
    limits = replace(PATIENT, **options["limits"])
    with WebServer(cache_dir=Path(options["cache_dir"]), limits=limits) as server:
        if options["echo"]:
            support_echo.make_echo(server)
        ticker = _Ticker(server)
        _say(server.port)
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            if name == "errors":
                _say(errors.texts)
            elif name == "viewers":
                assert server._http_server is not None
                _say(len(server._http_server._sessions))
            elif name == "tick":
                _say(ticker.start(*arguments))
            elif name == "stop ticking":
                _say(ticker.stop())
            else:
                raise ValueError(f"unknown command: {name}")
        ticker.stop()


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
