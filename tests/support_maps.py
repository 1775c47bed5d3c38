"""Maps that a server shows, and coverage files that go on."""

from fuzzserver import CoverageMsg, EntryPointMsg, FuzzRunStep, WebServer
from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.wire.abi import FileIndex, SeenPcsHeader
from tests.projects import FuzzedPair
from tests.support_time import eventually


def show_map(web_server: WebServer, step: FuzzRunStep, coverage_id: int) -> CoverageMap:
    """Have a map shown."""
    web_server.post(CoverageMsg(coverage_id, step))
    eventually(lambda: web_server.coverage_files.get(coverage_id), "there is no map")
    found = web_server.coverage_files.get(coverage_id)
    assert found is not None
    return found


def number_of(coverage_map: CoverageMap, end: str) -> int:
    """Which file of the tables ends so."""
    count = coverage_map.coverage.files_len
    paths = [coverage_map.coverage.file_path(FileIndex(number)) for number in range(count)]
    (found,) = [number for number, path in enumerate(paths) if path.endswith(end)]
    return found


def show_pair(server: WebServer, step: FuzzRunStep, pair: FuzzedPair) -> None:
    """Make a server show an executable."""
    server.add_step(step)
    server.post(CoverageMsg(pair.coverage_id, step))
    for addr in pair.entry_points:
        server.post(EntryPointMsg(pair.coverage_id, addr))
    server.set_status("serving", "")


def write_seen(step: FuzzRunStep, n_runs: int, seen: bytes) -> None:
    """Change the coverage file: the counter, and all bits to the byte ``seen``."""
    assert step.coverage_file is not None
    with step.coverage_file.open("r+b") as file:
        header = SeenPcsHeader.parse(file.read(SeenPcsHeader.LAYOUT.size))
        file.seek(0)
        file.write(SeenPcsHeader(n_runs, header.unique_runs, header.pcs_len).serialize())
        file.write(seen * header.seen_bits_size)
