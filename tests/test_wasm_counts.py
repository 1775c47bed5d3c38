"""What the page's wasm counts, lists and remembers, against plain models of it."""

import math
import random
import struct

import pytest

from tests import support_wasm
from tests.support_wasm import (
    COVERAGE,
    NONE,
    POINTS,
    Map,
    Page,
    PageBinary,
    Sample,
    answers,
    delta_message,
    grouped,
    history_message,
    random_map,
    small_map,
    update_message,
)

binary, page = support_wasm.binary, support_wasm.page

SEEDS = range(8)


# -------------------------------------------------------------------- counts


class Model:
    """The counts of a map, worked out anew from sets each time."""

    def __init__(self, tables: Map) -> None:
        """Begin with nothing covered."""
        self.tables = tables
        self.covered: set[int] = set()
        self.times: dict[int, float] = {}
        count, n_files = len(tables.locations), len(tables.files)
        self.files = grouped(count, lambda i: min(tables.locations[i][0], n_files))
        self.lines = grouped(count, self._line)
        self.functions = grouped(count, lambda i: tables.function_of[i])
        for k in set(self.functions) - set(range(len(tables.functions))):
            del self.functions[k]

    def _line(self, point: int) -> tuple[int, int] | None:
        file, line, _ = self.tables.locations[point]
        return (file, line) if file != NONE and line != 0 else None

    def set(self, covered: set[int], time: float) -> set[int]:
        """Cover these and no others; what is new."""
        new = covered - self.covered
        self.times = {i: self.times.get(i, time) for i in covered}
        self.covered = set(covered)
        return new

    def check(self, page: Page) -> None:
        """Compare all counts."""
        n_files, n_functions = len(self.tables.files), len(self.tables.functions)
        for f in range(n_files + 1):
            points = self.files.get(f, set())
            assert page.number("fileTotal", f) == len(points)
            assert page.number("fileCovered", f) == len(points & self.covered)
        for k in range(n_functions):
            points = self.functions.get(k, set())
            assert page.number("functionTotal", k) == len(points)
            assert page.number("functionCovered", k) == len(points & self.covered)
        real = {f: points for f, points in self.files.items() if f != n_files}
        assert page.number("coveredCount") == len(self.covered)
        assert page.number("filesTotal") == len(real)
        assert page.number("linesTotal") == len(self.lines)
        for name, groups in ("files", real), ("lines", self.lines), ("functions", self.functions):
            reached = sum(not points.isdisjoint(self.covered) for points in groups.values())
            assert page.number(f"{name}Covered") == reached
        for i in range(len(self.tables.locations)):
            assert page.call("pointTime", i) == self.times.get(i, 0)
            assert page.call("locationCovered", i) == (i in self.covered)
        known = [i for i in self.covered if self.times[i] > 1]
        newest = sorted(known, key=lambda i: (-self.times[i], i))
        assert page.indexes("newest", 1000) == newest[:500]
        assert page.indexes("newest", 3) == newest[:3]


@pytest.mark.parametrize("seed", SEEDS)
def test_counts(page: Page, seed: int) -> None:
    """Counts of files, functions and lines stay right through updates of both kinds."""
    rng = random.Random(seed)
    tables = random_map(rng, rng.choice([1, 63, 64, 65, 300, 900]), 6, 9)
    model, every = Model(tables), range(len(tables.locations))
    page.send(tables.index())
    before = rng.sample(every, len(every) // 4)
    model.set(set(before), 1)
    assert page.send(update_message(before, len(every))) == COVERAGE
    assert page.indexes("newlyCovered") == []
    assert page.send(tables.points([int(i in model.covered) for i in every])) == POINTS
    assert page.number("linesTotal") == 0
    page.call("prepareLines")
    model.check(page)
    for time in range(100, 112):
        more = set(rng.sample(every, rng.choice([0, 1, len(every) // 9])))
        if rng.random() < 0.5:
            page.call("setClock", time)
            lost = set(rng.sample(sorted(model.covered), len(model.covered) // 5))
            new = model.set(model.covered - lost | more, time)
            assert page.send(update_message(model.covered, len(every))) == COVERAGE
        else:
            new = model.set(model.covered | more, time)
            assert page.send(delta_message(sorted(more), time)) == COVERAGE
        assert page.indexes("newlyCovered") == sorted(new)
        model.check(page)


@pytest.mark.parametrize("seed", SEEDS)
def test_delta_is_an_update(binary: PageBinary, seed: int) -> None:
    """Both kinds of messages lead to the same."""
    rng = random.Random(seed)
    tables = random_map(rng, 500, 5, 5)
    by_update, by_delta = binary.start(), binary.start()
    covered = set(rng.sample(range(500), 50))
    for page in by_update, by_delta:
        page.send(tables.index())
        page.send(update_message(covered, 500))
        page.call("prepareLines")
    for time in 10, 20, 30:
        new = set(rng.sample(range(500), 40)) - covered
        covered |= new
        by_update.call("setClock", time)
        assert by_update.send(update_message(covered, 500, time, 3)) == COVERAGE
        assert by_delta.send(delta_message(sorted(new), time, time, 3)) == COVERAGE
        assert answers(by_update) == answers(by_delta)
        for name in ("linesCovered", "filesCovered", "uniqueRuns"):
            assert by_update.call(name) == by_delta.call(name)
        assert by_update.indexes("newlyCovered") == by_delta.indexes("newlyCovered") == sorted(new)


def test_what_a_worker_brings_along_is_no_news(page: Page) -> None:
    """Runs of nobody knows when are no speed, and points no news."""
    page.send(small_map().index())
    page.send(update_message([0], 3, 100))
    assert page.send(delta_message([1], 1, 1_000_000)) == COVERAGE
    assert (page.indexes("newlyCovered"), page.indexes("newest", 10)) == ([], [])
    assert (page.number("coveredCount"), page.call("pointTime", 1)) == (2, 1)
    assert math.isnan(page.call("recentSpeed"))


def test_bits_to_spare(page: Page) -> None:
    """Bits behind the last point are none."""
    page.send(small_map().index())
    page.send(update_message([0, 5, 63], 64))
    assert page.number("coveredCount") == 1


def test_times_of_points(page: Page) -> None:
    """The server knows when the points were covered that were so before anybody looked."""
    page.send(small_map().index())
    page.send(update_message([0, 1], 3))
    assert page.indexes("newest", 9) == []
    page.send(delta_message([2], 50.75))
    page.send(small_map().points([40, 1, 50]))
    assert [page.call("pointTime", i) for i in range(3)] == [40, 1, 50.75]
    assert page.indexes("newest", 9) == [2, 0]
    # The same where the points come first.
    page.send(Map(["/x.zig"], [(0, 1, 1)]).index())
    page.send(small_map().index())
    page.send(small_map().points([40, 0, 30]))
    page.send(update_message([0, 1], 3))
    assert [page.call("pointTime", i) for i in range(3)] == [40, 1, 0]
    assert page.indexes("newest", 9) == [0]


def test_clock(page: Page) -> None:
    """Updates without a time are stamped with ours, which goes on by itself."""
    page.send(small_map().index())
    page.send(update_message([], 3))
    page.send(update_message([0], 3))
    page.milliseconds = 1000
    page.call("setClock", 500.0)
    page.milliseconds = 3500
    page.send(update_message([0, 1], 3))
    assert [page.call("pointTime", i) for i in range(3)] == [1, 502.5, 0]


@pytest.mark.parametrize("seed", SEEDS)
def test_points(page: Page, seed: int) -> None:
    """Addresses, functions, and the place of each function."""
    tables = random_map(random.Random(seed), 200, 5, 12)
    page.send(tables.index())
    assert (page.number("functionCount"), page.number("pointFunction", 0)) == (0, 0)
    page.send(tables.points([0] * 200))
    assert page.number("functionCount") == 12
    assert [page.count64("pointAddress", i) for i in range(201)] == [*tables.addresses, 0]
    assert [page.number("pointFunction", i) for i in range(201)] == [
        min(k, 12) for k in [*tables.function_of, NONE]
    ]
    assert [page.text("functionName", k) for k in range(13)] == [*tables.functions, ""]
    for k, points in Model(tables).functions.items():
        entry = min(points, key=lambda i: ((tables.addresses[i] or 1 << 64), i))
        file = tables.locations[entry][0]
        inside = [i for i in points if tables.locations[i][0] == file]
        assert page.number("functionFile", k) == min(file, len(tables.files))
        assert page.number("functionPoint", k) == min(inside, key=lambda i: (tables.locations[i], i))


# --------------------------------------------------------------------- lists


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("what", ["Files", "Functions"])
def test_lists(page: Page, what: str, seed: int) -> None:
    """Order, filter and flags of both lists."""
    rng = random.Random(seed)
    tables = random_map(rng, 150, 30, 30)
    model = Model(tables)
    model.set(set(rng.sample(range(150), 100)), 1)
    page.send(tables.index())
    page.send(update_message(model.covered, 150))
    page.send(tables.points([1] * 150))
    names = tables.files if what == "Files" else tables.functions
    groups = model.files if what == "Files" else model.functions

    def is_std(row: int) -> bool:
        file = row if what == "Files" else page.number("functionFile", row)
        return file < len(tables.files) and tables.files[file].startswith("/usr/lib/zig/")

    def value(key: int, row: int) -> float:
        total, covered = len(groups[row]), len(groups[row] & model.covered)
        return [0, total - covered, total, covered / total, covered][key]

    for key in range(5):
        for descending in False, True:
            flags, text = rng.randrange(4), rng.choice(["", "", "A", "b1", "/SRC/", "zz"])
            want = [
                row
                for row in range(len(names))
                if row in groups
                and text.lower() in names[row].lower()
                and not (flags & 1 and is_std(row))
                and not (flags & 2 and groups[row] <= model.covered)
            ]
            want.sort(key=lambda row: (names[row], row), reverse=descending and key == 0)
            want.sort(key=lambda row: value(key, row), reverse=descending)
            assert page.listed(f"list{what}", key, descending, flags, text) == want


@pytest.mark.parametrize(
    ("files", "std"),
    [
        (
            ["/opt/zig/lib/std/mem.zig", "/opt/zig/lib/compiler/test_runner.zig", "/home/lib/compiler/x.zig"],
            [0, 1],
        ),
        (
            ["/usr/lib/zig/0.14.1//std/std.zig", "/usr/lib/zig/0.14.1/compiler_rt.zig", "/usr/lib/z.zig"],
            [0, 1],
        ),
        (["/usr/lib/zig/0.14.1/std/mem.zig", "/usr/lib/zig/0.14.1/fuzzer.zig"], [0, 1]),
        (["/a/zig/std/std.zig", "/a/zig/fuzzer.zig", "/a/main.zig"], [0, 1]),
        (["/a/lib/compiler/test_runner.zig", "/a/main.zig"], [0]),
        (["/home/project/src/std/std.txt", "std/std.zig", "/home/library/std/x.zig"], []),
    ],
)
def test_std(page: Page, files: list[str], std: list[int]) -> None:
    """Zig's lib folder is found wherever it is."""
    page.send(Map(files, []).index())
    assert [i for i in range(len(files) + 1) if page.call("fileIsStd", i)] == std


# ------------------------------------------------------------------- history


def column(samples: list[Sample], start: float, end: float, what: int) -> float:
    """What a column of the chart shows."""
    until = [i for i, sample in enumerate(samples) if sample[0] < end]
    if not until:
        return math.nan
    last = until[-1]
    after = samples[last + 1] if last + 1 < len(samples) else None
    if samples[last][0] < start and after and after[4] & 1:
        return math.nan
    if what != 2:
        return float(samples[last][{0: 3, 1: 1, 3: 2}[what]])
    first = max((i for i in range(last + 1) if samples[i][4] & 1), default=0)
    a = max((i for i in range(first, last + 1) if samples[i][0] < start), default=first)
    b = last if after is None or after[4] & 1 else last + 1
    seconds, runs = samples[b][0] - samples[a][0], samples[b][1] - samples[a][1]
    return runs / seconds if seconds > 0 and runs >= 0 else math.nan


@pytest.mark.parametrize("seed", SEEDS)
def test_history(page: Page, seed: int) -> None:
    """Columns of all kinds, with gaps, and with samples that come bit by bit."""
    rng = random.Random(seed)
    samples: list[Sample] = []
    for _ in range(60):
        time = (samples[-1][0] if samples else 1000) + rng.choice([0, 0.5, 1, 1, 20])
        runs = (samples[-1][1] if samples else 0) + rng.randrange(100)
        samples.append((time, runs, runs // 2, runs // 3, int(rng.random() < 0.1)))
    assert math.isnan(page.call("historyFirst")) and math.isnan(page.call("historyLast"))
    page.send(history_message([(1, 1, 1, 1, 0)]))
    page.send(history_message(samples[:20]))
    page.send(history_message(samples[20:], whole=False))
    ends = samples[0][0], samples[-1][0]
    assert (page.call("historyFirst"), page.call("historyLast"), page.number("historyLen")) == (*ends, 60)
    for t0, t1 in ends, (ends[0] - 30, ends[1] + 30), (ends[0] + 7, ends[0] + 9):
        n = rng.choice([1, 7, 50, 400])
        width = (t1 - t0) / n
        for what in range(4):
            want = [column(samples, t0 + width * i, t0 + width * (i + 1), what) for i in range(n)]
            assert list(page.items("f", "historyColumns", t0, t1, n, what)) == pytest.approx(
                want, nan_ok=True
            )


def test_history_is_bounded(page: Page) -> None:
    """A long history loses every second of its older samples, and no gap."""
    n = 70_000
    page.send(history_message([(i, i, i, i, int(i == 1001)) for i in range(n)]))
    assert n // 2 < page.number("historyLen") <= 1 << 16
    assert (page.call("historyFirst"), page.call("historyLast")) == (0, n - 1)
    columns = page.items("f", "historyColumns", 1000.75, 1001, 2, 0)
    assert all(map(math.isnan, columns))
    for _ in range(40):
        page.send(history_message([(n, n, n, n, 0)] * 5000, whole=False))
    assert page.number("historyLen") <= 1 << 16


def test_history_of_a_clock_that_was_set_back(page: Page) -> None:
    """Time does not go backwards in the chart."""
    page.send(history_message([(100, 1, 1, 1, 0), (50, 2, 2, 2, 0)]))
    assert (page.call("historyFirst"), page.call("historyLast")) == (100, 100)


def test_speed(page: Page) -> None:
    """The last ten seconds, and the whole time."""
    page.send(small_map().index())
    page.send(struct.pack("<Bq", 0, 0))
    assert math.isnan(page.call("recentSpeed")) and math.isnan(page.call("averageSpeed", 0))
    for second in range(31):
        for step in range(20):
            page.milliseconds = second * 1000 + step
            page.send(update_message([], 3, second**2 * 10, 1))
    assert page.call("recentSpeed") == pytest.approx((30**2 - 20**2), rel=0.1)
    assert page.call("averageSpeed", 3000) == pytest.approx(6000 / 30, rel=0.01)
    page.milliseconds += 10_001
    assert math.isnan(page.call("recentSpeed"))
    page.send(update_message([], 3, 1, 1))
    page.milliseconds += 2000
    page.send(update_message([], 3, 101, 1))
    assert page.call("recentSpeed") == 50
