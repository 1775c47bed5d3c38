"""Zig 0.16's own test runner, mended so that it compiles for the fuzzer, and prepares what a test may use.

Where it prints the trace of an error that a fuzz test returned, it calls the function for another kind of
trace. That is compiled in fuzz mode only, and only with error tracing, as in Debug builds. And while it
fuzzes, it leaves ``std.testing.io`` and ``std.testing.environ`` undefined, so that a test crashes that uses
them. The copy that is made of it here differs in that one name, and in that it sets these two.
"""

import contextlib
import hashlib
import logging
import os
import re
import tempfile
from pathlib import Path

from fuzzserver.zig.installation import Zig

__all__ = ["fuzz_runner_args"]

log = logging.getLogger(__name__)

RUNNER = "compiler/test_runner.zig"
"""Below Zig's library. The copy has the same file name, by which frames in it are told from the user's."""

_WRONG = b"writeStackTrace"
_RIGHT = b"writeErrorReturnTrace"
_CALL = re.compile(rb"(\(@errorReturnTrace\(\)\) \|(\w+)\| \{\s+std\.debug\.)" + _WRONG + rb"(?=\(\2, )")

_OWN_IO = re.compile(
    rb"var io_instance: Io\.Threaded = (\.init\(gpa, \.\{[^{}]*\.environ = init\.environ,\s+\}\));"
)
"""What it makes for itself when it is told to fuzz: the same is made for the tests."""
_IO_OF_TESTS = rb"\g<0> testing.io_instance = \1; testing.environ = init.environ;"

NO_ERROR_TRACING = ["-fno-error-tracing"]


def fuzz_runner_args(zig: Zig, folder: Path) -> list[str]:
    """What ``zig test -ffuzz`` is to be told before its modules, for its test runner to compile.

    A mended copy is written below ``folder``. If that cannot be done, the only way is without traces of
    errors.
    """
    if not zig.release.breaks_error_tracing:
        return []
    runner = zig.lib_dir / RUNNER
    try:
        text = runner.read_bytes()
        mended, found = _CALL.subn(rb"\1" + _RIGHT, text)
        if found:
            mended = _OWN_IO.sub(_IO_OF_TESTS, mended)
            copy = folder / hashlib.sha256(mended).hexdigest()[:16] / runner.name
            _write(copy, mended)
            return ["--test-runner", str(copy)]
    except OSError as error:
        log.warning("findings will have no error traces: cannot mend Zig's '%s': %s", runner, error)
        return NO_ERROR_TRACING
    if _WRONG not in text:  # Somebody else has mended it.
        return []
    log.warning(
        "findings will have no error traces: Zig's '%s' does not compile with them, "
        "and is not as Zig %s has it, to be mended",
        runner, zig.release.name,
    )  # fmt: skip
    return NO_ERROR_TRACING


def _write(path: Path, data: bytes) -> None:
    """At once, as another compile may be reading it, and only if it is not there as it should be."""
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
