"""The page's wasm without a browser, and what goes into it: coverage maps made up by the tests."""

import functools
import random
import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import wasmtime

from fuzzserver import paths
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.wasm import OptimizeMode, build_wasm_binary

NONE = 0xFFFFFFFF
"""What the page answers where there is no such index."""

MALFORMED, UNKNOWN, TIME, SAME_INDEX, NEW_INDEX, COVERAGE, ENTRY_POINTS, HISTORY, POINTS = range(9)
"""What ``receive`` answers."""

Location = tuple[int, int, int]
"""File, line and column."""


class PageBinary:
    """A compiled main.wasm, of which each test starts a page of its own."""

    def __init__(self, path: Path) -> None:
        """Compile the file."""
        self._engine = wasmtime.Engine()
        self._module = wasmtime.Module.from_file(self._engine, str(path))

    def start(self) -> "Page":
        """Begin with nothing received."""
        return Page(self._engine, self._module)


def built(client: ZigCompileClient, mode: OptimizeMode) -> PageBinary:
    """Our page's wasm as it is now."""
    return _compiled(build_wasm_binary(client, paths.lib_dir(), mode))


_compiled = functools.cache(PageBinary)


@pytest.fixture(scope="module")
def binary(client: ZigCompileClient) -> PageBinary:
    """Built in Debug mode, where each overflow and each index out of bounds is a trap."""
    return built(client, "Debug")


@pytest.fixture
def page(binary: PageBinary) -> "Page":
    """A page that has received nothing."""
    return binary.start()


class Page:
    """One running main.wasm; a trap in it is an exception here."""

    def __init__(self, engine: wasmtime.Engine, module: wasmtime.Module) -> None:
        """Give it what it imports from JavaScript."""
        self._store = wasmtime.Store(engine)
        self.milliseconds = 0.0
        """What its clock says."""
        self.said: list[str] = []
        i32, f64 = wasmtime.ValType.i32(), wasmtime.ValType.f64()
        linker = wasmtime.Linker(engine)
        clock = wasmtime.Func(self._store, wasmtime.FuncType([], [f64]), lambda: float(self.milliseconds))
        log = wasmtime.Func(self._store, wasmtime.FuncType([i32, i32], []), self._log)
        linker.define(self._store, "js", "clock", clock)
        linker.define(self._store, "js", "log", log)
        exports = linker.instantiate(self._store, module).exports(self._store)
        self._memory = exports["memory"]
        functions = {name: exports[name] for name in exports if not name.startswith("__")}
        del functions["memory"]
        self._functions = functions
        self.parameters = {
            name: [int if kind == i32 else float for kind in function.type(self._store).params]
            for name, function in functions.items()
        }
        """What each export takes."""

    def _log(self, start: int, length: int) -> None:
        self.said.append(self.read(start, length).decode())

    def call(self, name: str, *arguments: float) -> float:
        """What an export answers, as wasm has it: integers are signed, and slices are integers."""
        kinds = self.parameters[name]
        return self._functions[name](
            self._store, *(kind(each) for kind, each in zip(kinds, arguments, strict=True))
        )

    def number(self, name: str, *arguments: float) -> int:
        """An answer that is an unsigned index or count of 32 bits."""
        return int(self.call(name, *arguments)) & NONE

    def count64(self, name: str, *arguments: float) -> int:
        """The same with 64 bits."""
        return int(self.call(name, *arguments)) & (1 << 64) - 1

    def items(self, kind: str, name: str, *arguments: float) -> array:
        """The slice that an export answers; ``kind`` is a type code of ``array``."""
        whole = self.count64(name, *arguments)
        items = array(kind)
        items.frombytes(self.read(whole & NONE, (whole >> 32) * items.itemsize))
        return items

    def indexes(self, name: str, *arguments: float) -> list[int]:
        """A slice of u32."""
        return list(self.items("I", name, *arguments))

    def text(self, name: str, *arguments: float) -> str:
        """A slice of bytes as text."""
        return self.items("B", name, *arguments).tobytes().decode()

    def runs(self, line: int) -> list[tuple[bytes, int, int]]:
        """The runs of a line: text, class and point."""
        numbers = self.run_numbers(line)
        return [
            (self.read(start, length), kind, point)
            for start, length, kind, point in zip(*(numbers[i::4] for i in range(4)), strict=True)
        ]

    def run_numbers(self, line: int) -> array:
        """The same as they are in memory: address, length, class and point, one run after the other."""
        whole = self.count64("lineRuns", line)
        numbers = array("I")
        numbers.frombytes(self.read(whole & NONE, (whole >> 32) * 16))
        return numbers

    def read(self, start: int, length: int) -> bytes:
        """Bytes of its memory."""
        if length == 0:
            return b""
        return bytes(self._memory.read(self._store, start & NONE, (start & NONE) + length))

    def memory_size(self) -> int:
        """How many bytes of memory it has asked for."""
        return self._memory.data_len(self._store)

    def put(self, data: bytes) -> None:
        """Fill its inbox."""
        start = self.number("inbox", len(data))
        self._memory.write(self._store, data, start)

    def send(self, data: bytes) -> int:
        """Give it a message."""
        self.put(data)
        return self.number("receive")

    def open(self, file: int, source: bytes) -> int:
        """Open a source; how many lines it has."""
        self.put(source)
        return self.number("openSource", file)

    def listed(self, name: str, key: int, descending: bool, flags: int, filter_text: str = "") -> list[int]:
        """Ask for a list."""
        self.put(filter_text.encode())
        return self.indexes(name, key, descending, flags)


@dataclass
class Map:
    """A coverage map as the server would send it."""

    files: list[str]
    locations: list[Location]
    functions: list[str] = field(default_factory=list)
    function_of: list[int] = field(default_factory=list)
    addresses: list[int] = field(default_factory=list)

    def index(self, start_timestamp: int = 0) -> bytes:
        """Tag 1. Each file has a directory of its own."""
        strings = Strings()
        split = [path.rpartition("/") for path in self.files]
        directories = [strings.add(directory) for directory, _, _ in split]
        files = [(i, strings.add(name)) for i, (_, _, name) in enumerate(split)]
        return index_message(directories, files, self.locations, strings.data, start_timestamp)

    def points(self, first_covered: Sequence[int]) -> bytes:
        """Tag 18."""
        strings = Strings()
        names = [strings.add(name) for name in self.functions]
        head = struct.pack("<B3xIII", 18, len(self.locations), len(names), len(strings.data))
        parts = array("Q", self.addresses), array("I", first_covered), array("I", self.function_of)
        return b"".join(
            [head, *(part.tobytes() for part in parts), array("I", names).tobytes(), strings.data]
        )


def small_map() -> Map:
    """Two files, three points, two functions."""
    return Map(
        ["/project/a.zig", "/project/b.zig"],
        [(0, 1, 1), (0, 2, 5), (1, 7, 3)],
        ["a.one", "b.two"],
        [0, 0, 1],
        [64, 80, 96],
    )


def answers(page: Page) -> dict[str, object]:
    """All that the page says of its counts."""
    names = ["totalRuns", "coveredCount", "locationCount", "fileCount", "functionCount", "historyLen"]
    points = [(page.call("locationCovered", i), page.call("pointTime", i)) for i in range(4)]
    lists = [page.indexes(name, *rest) for name, *rest in (["entryPoints"], ["newest", 9])]
    return {"points": points, "lists": lists} | {name: page.call(name) for name in names}


class Strings:
    """A table of NUL-terminated strings."""

    def __init__(self) -> None:
        """Begin with none."""
        self.data = b""

    def add(self, text: str) -> int:
        """Append one; where it begins."""
        self.data += text.encode() + b"\0"
        return len(self.data) - len(text.encode()) - 1


def index_message(
    directories: Sequence[int],
    files: Sequence[tuple[int, int]],
    locations: Iterable[Location],
    strings: bytes,
    start_timestamp: int = 0,
) -> bytes:
    """Tag 1 of any numbers, right or wrong."""
    places = array("I", [number for location in locations for number in location])
    head = struct.pack(
        "<B3xIIIIq", 1, len(directories), len(files), len(places) // 3, len(strings), start_timestamp
    )
    tables = array("I", directories), array("I", [number for file in files for number in file]), places
    return b"".join([head, *(table.tobytes() for table in tables), strings])


def update_message(covered: Iterable[int], length: int, n_runs: int = 1, unique_runs: int = 1) -> bytes:
    """Tag 2: the bits of all points."""
    words = array("Q", bytes(8 * ((length + 63) // 64)))
    for point in covered:
        words[point // 64] |= 1 << point % 64
    return struct.pack("<B7xQQ", 2, n_runs, unique_runs) + words.tobytes()


def delta_message(new: Sequence[int], time: float, n_runs: int = 1, unique_runs: int = 1) -> bytes:
    """Tag 16: what is newly covered."""
    head = struct.pack("<B3xIQQd", 16, len(new), n_runs, unique_runs, time)
    return head + array("I", new).tobytes()


Sample = tuple[float, int, int, int, int]
"""Time, runs, unique runs, covered points and flags."""


def history_message(samples: Sequence[Sample], whole: bool = True) -> bytes:
    """Tag 17."""
    items = [struct.pack("<dQQII", *sample) for sample in samples]
    return struct.pack("<BB2xI", 17, whole, len(items)) + b"".join(items)


def entry_points_message(points: Sequence[int]) -> bytes:
    """Tag 3."""
    return struct.pack("<I", 3 | len(points) << 8) + array("I", points).tobytes()


def random_map(rng: random.Random, n_points: int, n_files: int, n_functions: int = 0) -> Map:
    """Points all over the place: several on a line, some without a line, a file or a function."""
    folders = ["/project/src", "/project/src/deep", "/usr/lib/zig/lib/std", "/usr/lib/zig/lib/compiler"]
    files = [f"{rng.choice(folders)}/{rng.choice('aAbBcC')}{i}.zig" for i in range(n_files)]
    locations = [
        (rng.choice([*range(n_files), NONE]), rng.randrange(40), rng.choice([1, 2, 9, 5000, NONE]))
        for _ in range(n_points)
    ]
    functions = [f"{rng.choice('xyZ')}.function{rng.randrange(n_functions)}" for _ in range(n_functions)]
    function_of = [rng.choice([*range(n_functions), NONE, n_functions]) for _ in range(n_points)]
    addresses = [rng.choice([0, rng.randrange(1 << 40)]) for _ in range(n_points)]
    return Map(files, locations, functions, function_of, addresses)


def grouped(count: int, group_of: Callable[[int], object]) -> dict[object, set[int]]:
    """The points below ``count`` by their group; those whose group is None are in none."""
    groups: dict[object, set[int]] = {}
    for point in range(count):
        if (group := group_of(point)) is not None:
            groups.setdefault(group, set()).add(point)
    return groups
