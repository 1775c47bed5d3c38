"""The lock of a project: one session at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzzserver.errors import InputError
from fuzzserver.fuzz.lock import ProjectLock

HOLDER = """
import sys
from pathlib import Path
from fuzzserver.fuzz.lock import ProjectLock
lock = ProjectLock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_second_session_is_refused(tmp_path: Path) -> None:
    """The error names the process that holds the lock, and the folder."""
    lock = ProjectLock(tmp_path / "a" / "b")
    with pytest.raises(InputError, match=rf"process {os.getpid()} fuzzes this project .*/a/b'"):
        ProjectLock(tmp_path / "a" / "b")
    other = ProjectLock(tmp_path / "c")
    lock.release()
    lock.release()
    ProjectLock(tmp_path / "a" / "b").release()
    other.release()


def test_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    """After a SIGKILL the next session starts."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(InputError, match=f"process {process.pid} fuzzes"):
            ProjectLock(tmp_path)
        process.kill()
    ProjectLock(tmp_path).release()


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """The error names it and says why."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot keep fuzzing data in '.*/file/x': Not a directory"):
        ProjectLock(tmp_path / "file" / "x")
