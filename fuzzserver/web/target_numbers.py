"""How far each target is, in a few numbers, which are quickly told however many points it has.

*Takes* what was said of the targets, and their coverage maps. *Gives* one set of numbers for each target.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.coverage.queue import CoverageFiles
from fuzzserver.status import TargetStatus
from fuzzserver.web.site import Site
from fuzzserver.wire.abi import HistorySample, coverage_file_name, coverage_id_of

__all__ = ["TargetNumbers", "all_targets", "map_of", "numbers_of", "runs_per_second", "target_of"]

SPEED_SECONDS = 10.0
"""How far back the speed looks."""


@dataclass(frozen=True, slots=True)
class TargetNumbers:
    """One coverage map, as it is now."""

    points: int
    covered: int
    runs: int
    unique_runs: int
    runs_per_second: float


def all_targets(site: Site) -> list[tuple[dict[str, Any], CoverageMap | None]]:
    """All that was said of each target, as in ``/targets.json``, and its newest map.

    Maps of which nothing was said come last.
    """
    found: list[tuple[dict[str, Any], CoverageMap | None]] = []
    for target in site.status()["targets"]:
        found.append((target, None if target["id"] is None else map_of(site.coverage_files, target["id"])))
    shown = [coverage_map for _, coverage_map in found]
    return found + [(_unsaid(each), each) for each in site.coverage_files.newest() if each not in shown]


def target_of(site: Site, coverage_map: CoverageMap) -> dict[str, Any]:
    """What was said of the target that a map is of, be it the map of an earlier build."""
    name = coverage_file_name(coverage_map.coverage_id)
    targets: list[dict[str, Any]] = site.status()["targets"]
    known = (target for target in targets if name in (target["id"], *target["earlier"]))
    return next(known, None) or _unsaid(coverage_map)


def _unsaid(coverage_map: CoverageMap) -> dict[str, Any]:
    name = coverage_file_name(coverage_map.coverage_id)
    return TargetStatus(
        str(coverage_map.executable), coverage_map.executable.name, "serving", id=name
    ).to_json()


def map_of(coverage_files: CoverageFiles, name: str) -> CoverageMap | None:
    """The map whose coverage file has this name."""
    coverage_id = coverage_id_of(name)
    return None if coverage_id is None else coverage_files.get(coverage_id)


def numbers_of(coverage_map: CoverageMap) -> TargetNumbers:
    """Counted in the bits that the workers have set, which takes a moment for a million points."""
    snapshot = coverage_map.read()
    points = coverage_map.source_locations_len
    bits = int.from_bytes(snapshot.seen_bits, "little") & ((1 << points) - 1)
    return TargetNumbers(
        points,
        bits.bit_count(),
        snapshot.n_runs,
        snapshot.unique_runs,
        runs_per_second(coverage_map.history.samples, time.time()),
    )


def runs_per_second(samples: Sequence[HistorySample], now: float) -> float:
    """The speed of the last seconds; 0 if nothing has happened in them."""
    if not samples or samples[-1].time < now - SPEED_SECONDS:
        return 0.0
    newest = oldest = samples[-1]
    for sample in reversed(samples):
        oldest = sample
        # Before a start, nobody looked, or the fuzzer had other runs.
        if sample.flags & HistorySample.START or sample.time <= newest.time - SPEED_SECONDS:
            break
    seconds = newest.time - oldest.time
    return max(0, newest.n_runs - oldest.n_runs) / seconds if seconds > 0 else 0.0
