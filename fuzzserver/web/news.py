"""What goes on, and what of it is news, as JSON texts.

A client keeps the last value of each field. What moves all the time is told in short: see ``counts`` and
``splices`` in ``docs/protocol.md``.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.logbook import LogEntry
from fuzzserver.wire.abi import coverage_file_name

__all__ = ["Bulletin", "make_bulletin", "news_texts"]


@dataclass(frozen=True, slots=True, eq=False)
class Bulletin:
    """What goes on, for those who are shown the same map."""

    status: dict[str, Any]
    """Counts of runs, and all that is told along with them."""
    fields: dict[str, Any]
    """All else. Some of it is long."""

    def says_the_same_as(self, other: "Bulletin") -> bool:
        """Whether there is no news between the two."""
        return self.status == other.status and self.fields == other.fields

    @property
    def counts(self) -> list[list[int | None]]:
        """The runs of each test of each target."""
        return [[test["n_runs"] for test in target["tests"]] for target in self.status["targets"]]

    def status_without_counts(self) -> dict[str, Any]:
        """What is left of the status when only the runs go on."""
        targets = [
            target | {"tests": [test | {"n_runs": None} for test in target["tests"]]}
            for target in self.status["targets"]
        ]
        return self.status | {"targets": targets}


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
    return Bulletin(status, fields)


def news_texts(
    before: Bulletin | None, bulletin: Bulletin, log: tuple[bool, list[LogEntry]] | None
) -> Iterator[str]:
    """The texts for a client who was told the bulletin ``before``, None if nothing.

    ``log`` is what to append: whether it begins anew, and the entries; None if nothing was said.
    """
    if before is None:
        yield json.dumps(bulletin.status)
        changed = dict(bulletin.fields)
    else:
        changed = _changed(before.fields, bulletin.fields)
        if bulletin.status_without_counts() != before.status_without_counts():
            yield json.dumps(bulletin.status)
        elif bulletin.counts != before.counts:
            changed["counts"] = bulletin.counts
    if log is not None:
        whole, entries = log
        changed["log"] = {"whole": whole, "entries": [entry.to_json() for entry in entries]}
    if changed:
        yield json.dumps(changed)


def _changed(before: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that have changed: of a list, the stretch that has, unless nothing else is left of it."""
    changed: dict[str, Any] = {}
    splices: dict[str, Any] = {}
    for name, value in fields.items():
        known = before.get(name)
        if name in before and known == value:
            continue
        splice = _splice(known, value) if isinstance(known, list) and isinstance(value, list) else None
        if splice is None:
            changed[name] = value
        else:
            splices[name] = splice
    return changed | ({"splices": splices} if splices else {})


def _splice(before: list[Any], now: list[Any]) -> tuple[int, int, list[Any]] | None:
    """Where the two lists differ: the place, how many items go, and those that come; None if everywhere."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False)))
    rest, new_rest = before[same:], now[same:]
    pairs = zip(reversed(rest), reversed(new_rest), strict=False)
    same_end = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    if not same and not same_end:
        return None
    return same, len(rest) - same_end, new_rest[: len(new_rest) - same_end]
