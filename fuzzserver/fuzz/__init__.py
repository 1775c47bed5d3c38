"""The fuzz driver: builds tests in fuzz mode and runs a worker for each fuzz test.

* ``build`` -- from a root source file to a test executable, normal and in fuzz mode
* ``worker`` -- one process that fuzzes one test
* ``driver`` -- all of it in order, in the background of a server
"""

__all__: list[str] = []
