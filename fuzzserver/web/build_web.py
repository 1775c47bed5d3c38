"""What viewers are told who speak the protocol of Zig 0.15's and later pages (Zig: ``serveWebSocket``).

*Runs on* the thread ``hub``. *Takes* the moments that all viewers are told of. *Gives* the same news in these
words: steps instead of targets and tests, and the coverage of one map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from wsproto.events import BytesMessage, TextMessage

from fuzzserver.coverage.coverage_map import CoverageMap, coverage_update_message
from fuzzserver.coverage.seen_pcs import SeenPcsSnapshot
from fuzzserver.web.web_socket import WebSocket
from fuzzserver.wire.build_web_abi import (
    REBUILD,
    BuildStatus,
    Hello,
    StatusUpdate,
    StepStatus,
    StepUpdate,
    ToClientTag,
    fuzz_message,
    fuzz_source_index,
)

if TYPE_CHECKING:
    from fuzzserver.web.news import Bulletin
    from fuzzserver.web.session import Moment

__all__ = ["BuildWebTold", "RebuildRequests", "build_web_messages"]

_STATUS_OF_TEST = {
    "fuzzing": StepStatus.WIP,
    "restarting": StepStatus.WIP,
    "crashed": StepStatus.FAILURE,
    "failed": StepStatus.FAILURE,
    "stopped": StepStatus.SUCCESS,
}


class BuildWebTold(NamedTuple):
    """What one viewer was told. Those who were told the same are equal."""

    target: int | None
    """The coverage id of the map that it wants; None for the first target's newest one."""
    index_has_runs: bool
    """Whether its page expects in the index how many runs there were at the start."""
    names: tuple[str, ...] | None = None
    """Of the steps; None before the first message."""
    status: BuildStatus = BuildStatus.IDLE
    statuses: tuple[StepStatus, ...] = ()
    coverage_map: CoverageMap | None = None
    snapshot: SeenPcsSnapshot | None = None
    entry_points: tuple[int, ...] = ()


def build_web_messages(moment: Moment, told: BuildWebTold) -> tuple[list[bytes | str], BuildWebTold]:
    """What a viewer who was told this is to be told, in Zig's order, and what it was told then."""
    messages: list[bytes | str] = []
    coverage_map = moment.wanted_map(told.target)
    bulletin = moment.bulletin(coverage_map)
    status = _build_status(bulletin)
    steps = _steps(bulletin.status["targets"])
    names, statuses = tuple(name for name, _ in steps), tuple(status for _, status in steps)
    if names != told.names:
        messages.append(Hello(status, moment.now, names, statuses).serialize())
        # Along with the steps it had, the page forgets the coverage.
        told = BuildWebTold(told.target, told.index_has_runs, names, status, statuses)
    if coverage_map is not None:
        told = _add_coverage(moment, told, coverage_map, messages)
    if status != told.status:
        messages.append(StatusUpdate(status).serialize())
    for index, (before, now) in enumerate(zip(told.statuses, statuses, strict=True)):
        if now != before:
            messages.append(StepUpdate(index, now).serialize())
    return messages, told._replace(status=status, statuses=statuses)


def _add_coverage(
    moment: Moment, told: BuildWebTold, coverage_map: CoverageMap, messages: list[bytes | str]
) -> BuildWebTold:
    if coverage_map is not told.coverage_map:
        runs = coverage_map.start_n_runs if told.index_has_runs else None
        messages.append(fuzz_source_index(coverage_map.source_index, runs))
        told = told._replace(coverage_map=coverage_map, snapshot=None, entry_points=())
    snapshot = moment.snapshot(coverage_map)
    if snapshot != told.snapshot:
        update = coverage_update_message(snapshot)
        messages.append(fuzz_message(ToClientTag.FUZZ_COVERAGE_UPDATE, update))
    entry_points = coverage_map.entry_points
    if entry_points != told.entry_points:
        points = coverage_map.entry_points_message()
        messages.append(fuzz_message(ToClientTag.FUZZ_ENTRY_POINTS, points))
    return told._replace(snapshot=snapshot, entry_points=entry_points)


def _build_status(bulletin: Bulletin) -> BuildStatus:
    """Zig's server calls it idle, too, when the build is over and fuzzing goes on."""
    if bulletin.status["state"] == "building" or bulletin.fields["progress"] is not None:
        return BuildStatus.RUNNING
    return BuildStatus.FUZZ_INIT if bulletin.status["state"] == "waiting" else BuildStatus.IDLE


def _steps(targets: list[dict[str, Any]]) -> list[tuple[str, StepStatus]]:
    """Name and status of each step: to compile each target, and to fuzz each of its tests."""
    steps = []
    for target in targets:
        steps.append((f"compile {target['name']}", _status_of_compile(target)))
        steps += [(f"fuzz {test['name']}", _status_of_test(test)) for test in target["tests"]]
    return steps


def _status_of_compile(target: dict[str, Any]) -> StepStatus:
    if target["state"] == "building":
        return StepStatus.WIP
    # With tests, the state is what has become of those.
    failed = target["state"] == "failed" and not target["tests"]
    return StepStatus.FAILURE if failed else StepStatus.SUCCESS


def _status_of_test(test: dict[str, Any]) -> StepStatus:
    return StepStatus.FAILURE if test["findings"] else _STATUS_OF_TEST.get(test["state"], StepStatus.PENDING)


class RebuildRequests:
    """Listens to one viewer. All that it can say is that somebody wants a rebuild."""

    def __init__(self, rebuild: Callable[[], object]) -> None:
        """``rebuild`` is called on the connection's thread, for each request."""
        self._rebuild = rebuild
        self._is_beginning = True

    def hear(self, web_socket: WebSocket, message: TextMessage | BytesMessage) -> None:
        """Take a part of a message. What means nothing is dropped."""
        is_beginning, self._is_beginning = self._is_beginning, message.message_finished
        if is_beginning and isinstance(message, BytesMessage) and message.data[:1] == bytes((REBUILD,)):
            self._rebuild()
