"""Child processes: the Zig compiler, and the test executables that it makes.

* ``process`` -- a child with pipes, drained at once, ended for sure
* ``installation`` -- where Zig is and which version
* ``compile_client`` -- ``ZigCompileClient``: one compile through the compiler's server protocol
* ``wasm`` -- the commands that build the wasm of pages
* ``build_web`` -- the page of Zig 0.15 and later, and its compiler
* ``page_compiler`` -- which compiler does: the user's, or one that can
* ``mended_runner`` -- what Zig 0.16 needs for a build in fuzz mode to compile
* ``test_runner`` -- asking a test executable for its tests
"""

__all__: list[str] = []
