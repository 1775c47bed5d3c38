"""The errors of fuzzserver: one base class, then one class for each party that can be at fault.

An error is raised with the path and the numbers that explain it, chained with ``from``, and
reported once: at the top of a thread, of a request, or of the command line.
"""

__all__ = [
    "BuildFailed",
    "CompileErrors",
    "CoverageFileError",
    "DebugInfoError",
    "ExecutableError",
    "FuzzServerError",
    "InputError",
    "MessageError",
    "Stopped",
    "TestRunnerError",
    "ZigError",
    "ZigNotFound",
    "ZigProcessFailed",
    "ZigProtocolVersionMismatch",
    "ZigTimeout",
    "ZigUnsupported",
]


class FuzzServerError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(FuzzServerError):
    """What the user handed over cannot be used: a file, an option, an address."""


class ExecutableError(InputError):
    """The executable cannot be read as a little-endian 64-bit ELF file."""


class CoverageFileError(InputError):
    """The coverage file is missing, malformed, or belongs to another executable."""


class DebugInfoError(InputError):
    """The executable's DWARF contradicts itself."""


class MessageError(FuzzServerError):
    """Bytes that came from another process do not have the layout that they must have."""


class TestRunnerError(FuzzServerError):
    """A test executable did not answer as the test runner of Zig does."""

    __test__ = False  # The name begins with "Test", but it is no test class for pytest.


class Stopped(FuzzServerError):
    """Not done, because everything is being stopped. Nobody needs to be told."""


class ZigError(FuzzServerError):
    """The Zig compiler could not do what it was asked for."""


class ZigNotFound(ZigError):
    """There is no Zig compiler at the path that was given, or none at all."""


class ZigUnsupported(ZigError):
    """The compiler works, but its version is none that this package speaks with."""


class ZigProtocolVersionMismatch(ZigError):
    """``zig version`` and the compiler server name different versions."""


class ZigTimeout(ZigError):
    """The compiler did not end in time; it was ended."""


class ZigProcessFailed(ZigError):
    """The compiler exited with an error code, died by a signal, or gave no result."""


class CompileErrors(ZigError):
    """The compiler found errors in the source; the text is the compiler's own."""


class BuildFailed(ZigError):
    """``zig build`` failed before it came to a test; the text is what it said."""
