"""Child processes: the Zig compiler, and the test executables that it makes.

* ``process`` -- a child with pipes, drained at once, ended for sure
* ``installation`` -- where Zig is and which version
* ``compile_client`` -- ``ZigCompileClient``: one compile through the compiler's server protocol
* ``wasm`` -- the command that builds the page's wasm
* ``test_runner`` -- asking a test executable for its tests
"""

__all__: list[str] = []
