"""A plugin of pytest that runs the tests of defences, each without the defence that it tests.

``pytest -p tests.switched_off --outcomes FILE NODE...`` collects as usual. Then each defence is switched off
in a process of its own, and its test is run there. The processes are forked from this one, so that nothing
has to be imported again. What came of it is written to the file.

That a defence is missed is shown if its test fails once, and says so. On a busy machine, chance may have the
test pass, or fail for another reason, by a pause that ends a connection, say. Then it is tried again, three
times in all: when all others are done, and with more patience. With all defences, each test is run once.
"""

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Generator
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

PATIENCE = (5.0, 10.0, 15.0)
"""Seconds after which such a test gives up, in place of a minute: at the first try, and at the next ones."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the outcomes go."""
    parser.addoption("--outcomes", type=Path)


def pytest_runtestloop(session: pytest.Session) -> bool:
    """Run all tests with all defences, and the test of each without it."""
    if session.testsfailed:
        raise session.Interrupted("some tests cannot be imported")
    left: list[Defence | None] = [None, *DEFENCES]
    outcomes: dict[str, str] = {}
    for patience in PATIENCE:
        outcomes |= _outcomes(session.items, left, patience)
        left = [defence for defence in DEFENCES if defence.says not in outcomes[defence.name]]
    session.config.option.outcomes.write_text(json.dumps(outcomes))
    return True


def _outcomes(items: list[pytest.Item], defences: list[Defence | None], patience: float) -> dict[str, str]:
    """What comes of each, some of them at the same time."""
    left = defences[::-1]
    running: dict[Connection, _Run] = {}
    outcomes: dict[str, str] = {}
    while left or running:
        while left and len(running) < AT_ONCE:
            run = _Run(items, left.pop(), patience)
            running[run.reader] = run
        for reader in wait(running):
            assert isinstance(reader, Connection)
            run = running.pop(reader)
            outcomes[run.name] = run.outcome()
    return outcomes


class _Run:
    """A process in which a defence, or nothing, is switched off."""

    def __init__(self, items: list[pytest.Item], defence: Defence | None, patience: float) -> None:
        self.name = NOTHING
        if defence is not None:
            self.name = defence.name
            items = [item for item in items if _is(item, defence.test)]
        # Others run the same tests now; and what is killed removes nothing.
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.reader, writer = multiprocessing.Pipe(duplex=False)
        self._process = ForkProcess(target=_run, args=(items, defence, patience, self._folder.name, writer))
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
        self._folder.cleanup()
        code = self._process.exitcode
        return f"ended with {code}" if code else said


def _is(item: pytest.Item, test: str) -> bool:
    """Whether an item is that test, or one of its cases."""
    return item.nodeid == f"tests/{test}" or item.nodeid.startswith(f"tests/{test}[")


def _run(
    items: list[pytest.Item], defence: Defence | None, patience: float, folder: str, writer: Connection
) -> None:
    os.environ["PYTEST_DEBUG_TEMPROOT"] = folder
    plugins = items[0].config.pluginmanager
    plugins.register(_FirstFailure(writer))
    if defence is not None:
        defence.switch_off(pytest.MonkeyPatch())
        if defence.in_vain:
            plugins.register(_Impatience(patience))
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
    _end(writer, "")


def _end(writer: Connection, said: str) -> None:
    writer.send(said)
    os._exit(0)  # What a test that failed has left may wait for ever.


class _FirstFailure:
    """Ends the process with what the first test says that fails."""

    def __init__(self, writer: Connection) -> None:
        self._writer = writer

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Wait for nothing that is put away after a test: without its defence, it may take long."""
        if report.failed:
            _end(self._writer, f"{report.nodeid}\n{report.longreprtext}")


class _Impatience:
    """Has a test give up soon. Its fixtures do not: what they wait for comes."""

    def __init__(self, patience: float) -> None:
        self._patience = patience

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, None, None]:
        """Change all that was imported, for the time of the test itself."""
        with pytest.MonkeyPatch.context() as patch:
            for name, module in list(sys.modules.items()):
                for constant in ("WAIT", "PATIENCE", "LATE"):
                    if name.startswith("tests.") and hasattr(module, constant):
                        patch.setattr(module, constant, self._patience)
            patch.setattr(support_http.connected.__wrapped__, "__defaults__", (self._patience,))
            yield
