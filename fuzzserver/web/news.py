"""What one client has not been told yet, as JSON texts.

*Runs on* the client's connection thread. *Takes* what goes on. *Gives* the fields that have changed; a
client keeps the last value of each, but for the log, to which it appends.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.logbook import LogBook
from fuzzserver.wire.abi import coverage_file_name

__all__ = ["News"]


class News:
    """Remembers what a client was told. Used by one thread."""

    def __init__(
        self,
        status: Callable[[], dict[str, Any]],
        details: Callable[[CoverageMap | None], dict[str, Any]],
        log_book: LogBook,
    ) -> None:
        """Args:
        status: gives ``state``, ``text``, ``targets`` and ``findings``.
        details: gives further fields for the map that the client is shown.
        log_book: what was said. Who reads slowly is told what is still kept.
        """
        self._status = status
        self._details = details
        self._log_book = log_book
        self._told_status: dict[str, Any] = {}
        self._told: dict[str, Any] = {}
        self._log_seq = 0
        self._log_begun = False

    def texts(self, coverage_map: CoverageMap | None) -> Iterator[str]:
        """The texts to send now, none if nothing has changed."""
        status = self._status() | {
            "start_n_runs": None if coverage_map is None else coverage_map.start_n_runs,
            "target": None if coverage_map is None else coverage_file_name(coverage_map.coverage_id),
        }
        # These change seldom, and some are long; counts of runs change all the time.
        fields = {"findings": status.pop("findings")} | self._details(coverage_map)
        if status != self._told_status:
            self._told_status = status
            yield json.dumps(status)
        changed = {name: value for name, value in fields.items() if self._is_new(name, value)}
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
