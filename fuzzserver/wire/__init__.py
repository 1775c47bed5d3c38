"""Bytes to values and back. Nothing in here opens a file, waits, or knows of threads.

* ``abi`` -- what the browser receives and what the coverage file holds
* ``messages`` -- the ``--listen`` protocol of the compiler and of test executables
* ``error_bundle`` -- compile errors, as the compiler sends and prints them
* ``wyhash`` -- the hash that names coverage files
"""

__all__: list[str] = []
