"""Where reports go."""

import os
import stat
import threading
from pathlib import Path

import pytest

from fuzzserver.errors import InputError
from fuzzserver.report.formats import FORMATS, report_bytes, write_report
from tests.support_report import sample_report


def test_file(tmp_path: Path) -> None:
    """It is replaced whole, with the rights of any new file, and nothing is left beside it."""
    before = os.umask(0o077)
    try:
        write_report(tmp_path / "folder" / "r", b"1")
        write_report(tmp_path / "folder" / "r", b"2")
    finally:
        os.umask(before)
    (path,) = (tmp_path / "folder").iterdir()
    assert (path.name, path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == ("r", b"2", 0o600)


def test_link(tmp_path: Path) -> None:
    """It stays one; what it leads to is replaced."""
    (tmp_path / "link").symlink_to("file")
    write_report(tmp_path / "link", b"1")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == b"1"


def test_pipe(tmp_path: Path) -> None:
    """It stays one, and whoever reads it gets all."""
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_report(tmp_path / "pipe", bytes(1 << 20))
    reader.join()
    assert read == [bytes(1 << 20)]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/dev/full", "No space left"),
        ("x" * 300, "File name too long"),
        ("file/r", "[Nn]ot a directory|exists"),
    ],
)
def test_path_that_cannot_be_written(path: str, why: str, tmp_path: Path) -> None:
    """The error names it."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=f"^cannot write report '.*': .*({why})"):
        write_report(tmp_path / path, b"1")


def test_formats() -> None:
    """Each is bytes; there is no other."""
    for name in FORMATS:
        assert report_bytes(name, sample_report())
    with pytest.raises(InputError, match="there is no format 'pdf': choose lcov, cobertura, json, "):
        report_bytes("pdf", sample_report())
