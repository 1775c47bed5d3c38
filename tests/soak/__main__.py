"""``python -m tests.soak [PART...] [--minutes N] [--quick]``: do it, and tell in a table what came of it."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.soak.long import soak
from tests.soak.others import clients, files, requests, stops, tree
from tests.soak.row import Row, Settings
from tests.soak.slow import slow
from tests.soak.viewers import viewers
from tests.support_viewers import allow_many_files

PARTS: dict[str, Callable[[Settings], Iterator[Row]]] = {
    "clients": clients,
    "files": files,
    "requests": requests,
    "slow": slow,
    "stops": stops,
    "tree": tree,
    "viewers": viewers,
    "soak": soak,
}


def main() -> int:
    """Run the parts; returns 0 if all is as wanted."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description="Try hard what takes long.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--minutes", type=float, default=30.0, help="of the part 'soak' (default: 30)")
    parser.add_argument("--quick", action="store_true", help="only a twentieth, to try the parts themselves")
    args = parser.parse_args()
    if unknown := set(args.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    allow_many_files()
    rows: list[tuple[str, Row]] = []
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="fuzzserver-soak-") as folder:
        settings = Settings(Path(folder), Path(folder, "zig-cache"), args.minutes, args.quick)
        for part in args.parts or PARTS:
            try:
                for row in run(part, settings):
                    rows.append((part, row))
            except KeyboardInterrupt:
                interrupted = True
                break
    print_table(rows)
    if interrupted:
        print("interrupted: what is missing was not tried")
    return 0 if not interrupted and rows and all(row.met for _, row in rows) else 1


def run(part: str, settings: Settings) -> Iterator[Row]:
    """Run a part, and tell of each figure as it comes. What fails is a figure, too."""
    started = time.monotonic()
    try:
        for row in PARTS[part](settings):
            print(f"{part}: {row.what}: {row.measured}", file=sys.stderr, flush=True)
            yield row
    except Exception as error:
        yield Row("runs to its end", "yes", f"{type(error).__name__}: {str(error)[-500:]}", False)
    print(f"{part}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def print_table(rows: list[tuple[str, Row]]) -> None:
    """A line for each figure, as Markdown."""
    table = [("part", "what", "wanted", "measured", "verdict")]
    table += [
        (part, row.what, row.wanted, row.measured.replace("\n", " "), "met" if row.met else "NOT MET")
        for part, row in rows
    ]
    widths = [max(len(line[column]) for line in table) for column in range(5)]
    table.insert(1, tuple("-" * width for width in widths))  # type: ignore[arg-type]
    for line in table:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


if __name__ == "__main__":
    sys.exit(main())
