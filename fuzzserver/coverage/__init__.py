"""From files to tables: coverage file and executable in, source locations and entry points out.

* ``seen_pcs`` -- the coverage file: checked once, then read anew for each update
* ``executable`` -- the ELF file: what can be used, and whose coverage file it is
* ``line_program`` -- the sweep through a DWARF line program
* ``info`` -- the units of an executable and the addresses that they resolve
* ``tables`` -- the tables that the page receives
* ``functions`` -- the functions of an executable that have points
* ``history`` -- how the coverage grew, and ``history_file`` -- where that is kept
* ``coverage_map`` -- all of it for one executable, with its entry points
* ``queue`` -- messages of the fuzz workers, and the thread that works through them
"""

__all__: list[str] = []
