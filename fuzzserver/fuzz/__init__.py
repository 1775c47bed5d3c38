"""The fuzz driver: builds tests in fuzz mode, fuzzes them, and keeps what they break.

In the order in which data flows:

* ``build_zig``, ``printed_command``, ``build_output`` -- how the tests of a project are compiled
* ``test_command``, ``build``, ``heartbeat`` -- from there to an executable
* ``target`` -- a test executable over all its builds
* ``turns``, ``said``, ``worker`` -- one process
* ``fuzzed_test``, ``backoff`` -- one test, and how long it rests after a failure
* ``test_run`` -- the life of a test over many workers, until Zig 0.15
* ``mailbox``, ``instance``, ``shared_test``, ``long_inputs``, ``instances`` -- that of all tests in many
  instances, since 0.16
* ``target_runs`` -- which of the two
* ``failure``, ``endless_trace`` -- what the end of a worker means
* ``recorder``, ``analysis``, ``reproducer`` -- findings; seeing a failure again, on a shorter input
* ``watch`` -- when to build again
* ``driver``, ``options``, ``lock`` -- all of it in order
* ``attach`` -- the same for fuzzers that somebody else runs
"""

__all__: list[str] = []
