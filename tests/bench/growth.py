"""Part ``growth``: whether cost grows faster than the work."""

from collections.abc import Iterator

from tests.bench.big_target import big_target
from tests.bench.row import Row, Settings
from tests.bench.tables import MILLION, prepare
from tests.bench.viewers import COUNTS, called, crowd

SIZES = (1_000, 10_000, 100_000, MILLION)
MOST = 1.3
"""Times as much, for each point or viewer of the most that there are, as for each where there is a tenth."""


def growth(settings: Settings) -> Iterator[Row]:
    """The same at each size, each compared with the one before."""
    each: float | None = None
    for size in SIZES[:2] if settings.quick else SIZES:
        target = big_target(settings.zig, settings.work, size, one_unit=True)
        rounds = settings.rounds if size > 100_000 else settings.many_rounds
        seconds = min(prepare(target.copied(settings.folder)).seconds for _ in range(rounds))
        fewer, each = each, seconds / len(target.pcs) * 1e6
        limit = MOST if size == SIZES[-1] else None
        yield Row(f"{size:,} PCs: tables, cold, for each", each, "us", "a tenth of them", fewer, limit)
    each = None
    for count in (1, 10) if settings.quick else COUNTS:
        fewer, each = each, crowd(settings, count).cpu / count * 10
        limit = MOST if count == COUNTS[-1] else None
        what = f"{called(count)}: processor time for each"
        yield Row(what, each, "ms a second", "a tenth of them", fewer, limit)
