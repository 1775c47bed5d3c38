"""The fuzz driver: builds tests in fuzz mode, fuzzes them, and keeps what they break.

In the order in which data flows:

* ``build_zig``, ``printed_command``, ``build_output`` -- how the tests of a project are compiled
* ``test_command``, ``build``, ``heartbeat`` -- from there to an executable
* ``target`` -- a test executable over all its builds
* ``turns``, ``said``, ``worker``, ``test_run`` -- one process, and the life of one test over many of them
* ``failure`` -- what the end of a worker means
* ``recorder``, ``analysis``, ``reproducer`` -- findings; seeing a failure again, on a shorter input
* ``watch`` -- when to build again
* ``driver``, ``options``, ``lock`` -- all of it in order
* ``attach`` -- the same for fuzzers that somebody else runs
"""

__all__: list[str] = []
