"""Files that somebody else made."""

import os
from pathlib import Path

import pytest

from fuzzserver.files import read_end


def test_end_of_a_file(tmp_path: Path) -> None:
    """However long it is, no more than its end is read; what is no file is refused, and not waited for."""
    path = tmp_path / "long"
    path.write_bytes(b"the end")
    assert [read_end(path, size) for size in (0, 3, 7, 100)] == [b"", b"end", b"the end", b"the end"]
    os.truncate(path, 1 << 40)
    assert read_end(path, 3) == bytes(3)
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing", "."):
        with pytest.raises(OSError):
            read_end(tmp_path / name, 3)
