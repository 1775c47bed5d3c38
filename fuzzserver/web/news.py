"""What one client has not been told yet, as JSON texts.

*Runs on* the client's connection thread. *Takes* bulletins: what goes on, made once for all clients.
*Gives* the fields that have changed; a client keeps the last value of each, but for the log, to which it
appends.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.logbook import LogBook
from fuzzserver.wire.abi import coverage_file_name

__all__ = ["Bulletin", "News", "make_bulletin"]


@dataclass(frozen=True, slots=True)
class Bulletin:
    """What goes on, for those who are shown the same map."""

    status: dict[str, Any]
    """Counts of runs, and all that is told along with them: it changes all the time."""
    status_text: str
    """The same as JSON."""
    fields: dict[str, Any]
    """What changes seldom. Some of it is long."""


def make_bulletin(
    status: dict[str, Any], details: dict[str, Any], coverage_map: CoverageMap | None
) -> Bulletin:
    """What is told to those who are shown this map.

    Args:
    status: ``state``, ``text``, ``targets`` and ``findings``.
    details: further fields for this map.
    """
    fields = {"findings": status["findings"]} | details
    status = {name: value for name, value in status.items() if name != "findings"} | {
        "start_n_runs": None if coverage_map is None else coverage_map.start_n_runs,
        "target": None if coverage_map is None else coverage_file_name(coverage_map.coverage_id),
    }
    return Bulletin(status, json.dumps(status), fields)


class News:
    """Remembers what a client was told. Used by one thread."""

    def __init__(self, bulletin: Callable[[CoverageMap | None], Bulletin], log_book: LogBook) -> None:
        """Args:
        bulletin: gives the latest bulletin.
        log_book: what was said. Who reads slowly is told what is still kept.
        """
        self._bulletin = bulletin
        self._log_book = log_book
        self._told_status: dict[str, Any] = {}
        self._told: dict[str, Any] = {}
        self._log_seq = 0
        self._log_begun = False

    def texts(self, coverage_map: CoverageMap | None) -> Iterator[str]:
        """The texts to send now, none if nothing has changed."""
        bulletin = self._bulletin(coverage_map)
        if bulletin.status != self._told_status:
            self._told_status = bulletin.status
            yield bulletin.status_text
        changed = {name: value for name, value in bulletin.fields.items() if self._is_new(name, value)}
        self._told |= changed
        changed |= self._log()
        if changed:
            yield json.dumps(changed)

    def _is_new(self, name: str, value: object) -> bool:
        return name not in self._told or self._told[name] != value

    def _log(self) -> dict[str, Any]:
        """The field ``log``, if there is something to tell: at first in any case."""
        self._log_seq, whole, entries = self._log_book.since(self._log_seq)
        if self._log_begun and not entries:
            return {}
        self._log_begun = True
        return {"log": {"whole": whole, "entries": [entry.to_json() for entry in entries]}}
