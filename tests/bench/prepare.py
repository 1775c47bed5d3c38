"""``python -m tests.bench.prepare EXECUTABLE COVERAGE_ID CACHE_ROOT [TABLES]``: make the tables once.

It waits for a line on stdin, so that its memory can be looked at before, and again with the tables in its
memory, before it ends. A line on stdout says how long it took; TABLES is where to write them.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

# All that a server has in its memory before it knows of any executable.
import fuzzserver.webserver  # noqa: F401
from fuzzserver.coverage.coverage_map import prepare_tables
from fuzzserver.step import FuzzRunStep
from fuzzserver.wire.abi import SourceIndexHeader


def main() -> None:
    """Make them."""
    executable, coverage_id, cache_root, *tables = sys.argv[1:]
    step = FuzzRunStep("bench", Path(executable), Path(cache_root))
    print("ready", flush=True)
    if not sys.stdin.readline():
        return  # Who asked was interrupted.
    cpu, started = _cpu(), time.perf_counter()
    coverage_map = prepare_tables(step, int(coverage_id, 16), 0)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "cpu": _cpu() - cpu}), flush=True)
    if tables:
        Path(tables[0]).write_bytes(coverage_map.source_index[SourceIndexHeader.LAYOUT.size :])
    sys.stdin.readline()
    coverage_map.close()  # This also keeps the tables for the next time.


def _cpu() -> float:
    """Seconds of processor time so far, of children, too, that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        os._exit(1)  # Who asked was interrupted, and has said so.
