"""From files to tables: coverage file and executable in, source locations and entry points out.

* ``seen_pcs`` -- the coverage file: checked once, then read anew for each update
* ``executable`` -- the ELF file: what can be used, and whose coverage file it is
* ``line_program`` -- the sweep through a DWARF line program
* ``sweeping`` -- all sweeps of an executable, the big ones in processes that run ``sweeper``
* ``info`` -- the units of an executable and the addresses that they resolve
* ``resolve`` -- source locations and functions in the order of the coverage file
* ``tables`` -- the tables that the page receives
* ``tables_file`` -- where finished tables wait for the next look at the same executable
* ``functions`` -- the functions of an executable that have points
* ``history`` -- how the coverage grew, and ``history_file`` -- where that is kept
* ``debug_sources`` -- the source files that the debug info names
* ``coverage_map`` -- all of it for one executable, with its entry points
* ``queue`` -- messages of the fuzz workers, and the thread that works through them
"""

__all__: list[str] = []
