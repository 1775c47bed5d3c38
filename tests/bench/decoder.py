"""``python -m tests.bench.decoder EXECUTABLE < ADDRESSES``: what pyelftools' own decoder needs for them.

It decodes all line programs and looks each address up among the rows, as its own examples do. A line on
stdout says how many seconds that took.
"""

import bisect
import sys
import time
from operator import itemgetter

from elftools.elf.elffile import ELFFile


def main() -> None:
    """Find the line of each."""
    addresses = [int(line, 16) for line in sys.stdin]
    started = time.perf_counter()
    with open(sys.argv[1], "rb") as file:
        dwarf = ELFFile(file).get_dwarf_info()
        rows = []
        for unit in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(unit)
            states = [entry.state for entry in program.get_entries()] if program else []
            rows += [(state.address, state.file, state.line, state.column) for state in states if state]
    rows.sort(key=itemgetter(0))
    found = [rows[bisect.bisect_right(rows, pc, key=itemgetter(0)) - 1] for pc in addresses]
    print(time.perf_counter() - started)
    assert len(found) == len(addresses)


if __name__ == "__main__":
    main()
