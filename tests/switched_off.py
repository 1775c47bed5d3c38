"""A plugin of pytest that runs the tests of defences, each without the defence that it tests.

``pytest -p tests.switched_off --outcomes FILE NODE...`` collects as usual. Then each defence is switched off
in a process of its own, and its test is run there. The processes are forked from this one, so that nothing
has to be imported again. What came of it is written to the file.
"""

import json
import multiprocessing
import os
import sys
import tempfile
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest

from tests import support_http
from tests.support_defences import DEFENCES, Defence

NOTHING = "nothing"
"""What is switched off while all tests must pass."""

AT_ONCE = 4
"""Processes at the same time: without a defence, many a test waits for what never happens."""

IMPATIENCE = 5.0
"""Seconds after which a test gives that up, in place of a minute."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the outcomes go."""
    parser.addoption("--outcomes", type=Path)


def pytest_runtestloop(session: pytest.Session) -> bool:
    """Run all tests with all defences, and the test of each without it."""
    if session.testsfailed:
        raise session.Interrupted("some tests cannot be imported")
    left: list[Defence | None] = [*reversed(DEFENCES), None]
    running: dict[Connection, _Run] = {}
    outcomes: dict[str, str] = {}
    while left or running:
        while left and len(running) < AT_ONCE:
            run = _Run(session.items, left.pop())
            running[run.reader] = run
        for reader in wait(running):
            assert isinstance(reader, Connection)
            run = running.pop(reader)
            outcomes[run.name] = run.outcome()
    session.config.option.outcomes.write_text(json.dumps(outcomes))
    return True


class _Run:
    """A process in which a defence, or nothing, is switched off."""

    def __init__(self, items: list[pytest.Item], defence: Defence | None) -> None:
        self.name = NOTHING
        if defence is not None:
            self.name = defence.name
            items = [item for item in items if _is(item, defence.test)]
        self.reader, writer = multiprocessing.Pipe(duplex=False)
        self._process = ForkProcess(target=_run, args=(items, defence, writer))
        self._process.start()
        writer.close()

    def outcome(self) -> str:
        """What the first test says that fails; nothing if none does."""
        with self.reader:
            try:
                said: str = self.reader.recv()
            except EOFError:
                said = ""
        self._process.join()
        code = self._process.exitcode
        return f"ended with {code}" if code else said


def _is(item: pytest.Item, test: str) -> bool:
    """Whether an item is that test, or one of its cases."""
    return item.nodeid == f"tests/{test}" or item.nodeid.startswith(f"tests/{test}[")


def _run(items: list[pytest.Item], defence: Defence | None, writer: Connection) -> None:
    first = _FirstFailure()
    items[0].config.pluginmanager.register(first)
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
    ):
        patch.setenv("PYTEST_DEBUG_TEMPROOT", folder)  # Others run the same tests now.
        if defence is not None:
            defence.switch_off(patch)
            _be_impatient(patch)
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            if first.said:
                break
    writer.send(first.said)
    os._exit(0)  # What a test that failed has left may wait for ever.


class _FirstFailure:
    """Keeps what the first test said that failed."""

    said = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note it."""
        if report.failed and not self.said:
            self.said = f"{report.nodeid}\n{report.longreprtext}"


def _be_impatient(patch: pytest.MonkeyPatch) -> None:
    """Have all tests that were imported give up soon."""
    for name, module in list(sys.modules.items()):
        for constant in ("WAIT", "PATIENCE", "LATE"):
            if name.startswith("tests.") and hasattr(module, constant):
                patch.setattr(module, constant, IMPATIENCE)
    patch.setattr(support_http.connected.__wrapped__, "__defaults__", (IMPATIENCE,))
