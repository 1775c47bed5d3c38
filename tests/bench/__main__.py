"""``python -m tests.bench [PART...]``: measure, beside others who do the same, and tell in a table."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fuzzserver.zig.installation import Zig, find_zig
from tests.bench.eye import eye
from tests.bench.growth import growth
from tests.bench.row import Row, Settings, missed, table
from tests.bench.tables import tables
from tests.bench.viewers import viewers
from tests.support_viewers import allow_many_files
from tests.support_zig_cli import REPOSITORY

PARTS: dict[str, Callable[[Settings], Iterator[Row]]] = {
    "tables": tables,
    "viewers": viewers,
    "eye": eye,
    "growth": growth,
}
WORK = REPOSITORY / ".pytest_cache" / "d" / "work"
"""Where the tests keep what they have built."""

HELP = """\
Each figure is measured beside a peer's, which does the same in the same run. The parts:
  tables   from debug info to tables: Zig's own code, addr2line, llvm-symbolizer, pyelftools
  viewers  updates to up to a thousand viewers, and those that never read: Zig's own server
  eye      the page, its wasm and its sources, start-up, static requests: Zig's own server
  growth   the same work at 1,000 to 1,000,000 points, and for 1 to 1,000 viewers: ourselves
The first run builds programs of up to a million points, which takes minutes; later ones find them in
.pytest_cache. Measure on a machine that has nothing else to do; a busy one still gives fair ratios of times.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts; returns 0 if they ran to their end and, if that was asked, all targets hold."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure how fast it is.", epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed, say which")
    parser.add_argument("--quick", action="store_true", help="only what takes seconds, once")
    parser.add_argument("--slow", action="store_true", help="also peers that take minutes or gigabytes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE, too")
    args = parser.parse_args(argv)
    if unknown := [part for part in args.parts if part not in PARTS]:
        parser.exit(2, f"error: there is no part '{unknown[0]}'; there are {', '.join(PARTS)}\n")
    allow_many_files()
    rows: dict[str, list[Row]] = {}
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="fuzzserver-bench-") as folder:
        WORK.mkdir(parents=True, exist_ok=True)
        settings = Settings(Zig(find_zig()), WORK, Path(folder), args.quick, args.slow)
        try:
            for part in args.parts or PARTS:
                rows[part] = []
                failures += run(part, settings, rows[part])
        except KeyboardInterrupt:
            failures.append("interrupted: what is missing was not measured")
    return conclude(rows, failures, check=args.check, json_file=args.json)


def run(part: str, settings: Settings, rows: list[Row]) -> list[str]:
    """Run a part, and tell of each figure as it comes. Returns what kept it from going on."""
    print(f"{part}: load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", file=sys.stderr, flush=True)
    started = time.monotonic()
    try:
        for row in PARTS[part](settings):
            rows.append(row)
            print(f"{part}: {' | '.join(filter(None, row.cells))}", file=sys.stderr, flush=True)
    except Exception as error:
        return [f"part '{part}' failed: {type(error).__name__}: {str(error)[-1000:]}"]
    finally:
        print(f"{part}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return []


def conclude(
    rows: dict[str, list[Row]], failures: Sequence[str], *, check: bool, json_file: Path | None = None
) -> int:
    """Print the table, and what is wrong; the exit code."""
    every = [row for part in rows.values() for row in part]
    print("\n".join(table(every)))
    if json_file is not None:
        told = {
            "rows": [{"part": name, **row.describe_json()} for name, part in rows.items() for row in part],
            "failures": list(failures),
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
        }
        json_file.write_text(json.dumps(told, indent=1) + "\n")
    problems = list(failures)
    if check:
        problems += [f"missed: {' | '.join(filter(None, row.cells[:-1]))}" for row in missed(every)]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
