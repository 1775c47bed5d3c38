"""Everything that can happen to the folder of the histories: they go on in memory until they can be kept."""

import errno
import logging
import os
import resource
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuzzserver.coverage.history import History
from fuzzserver.coverage.history_file import MAGIC
from fuzzserver.coverage.seen_pcs import SeenPcsSnapshot
from tests import support_coverage
from tests.support_coverage import good_bytes, plain_map, plain_user

public = support_coverage.public

FEW = range(0x1000, 0x1000 + 8 * 70, 8)
NAME = "00112233445566ff"


def snapshot(n_runs: int) -> SeenPcsSnapshot:
    """One of 70 points, the first of which is covered."""
    return SeenPcsSnapshot(n_runs, 0, b"\1" + bytes(15))


@pytest.fixture
def folder(public: Path) -> Path:
    """Where histories are kept, by anybody."""
    folder = public / "history"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def in_the_way(folder: Path) -> Iterator[None]:
    """A file has the folder's name."""
    shutil.rmtree(folder)
    folder.write_text("in the way")
    yield
    folder.unlink()


def read_only(folder: Path) -> Iterator[None]:
    """Nothing may be written there."""
    folder.chmod(0o555)
    with plain_user():
        yield
    folder.chmod(0o777)


def forbidden(folder: Path) -> Iterator[None]:
    """Nobody may even look."""
    folder.chmod(0)
    with plain_user():
        yield
    folder.chmod(0o777)


def disk_full(folder: Path) -> Iterator[None]:
    """Each file ends after some bytes, as it does on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(MAGIC) + 5, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def never_on_disk(folder: Path) -> Iterator[None]:
    """The disk is found to be full only when all is to be written for sure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: _raise(OSError(errno.ENOSPC, "No space left on device")))
        yield


def a_folder(folder: Path) -> Iterator[None]:
    """The file's own name is taken."""
    (folder / NAME).unlink()
    (folder / NAME).mkdir()
    yield
    (folder / NAME).rmdir()


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    "cause", [in_the_way, read_only, forbidden, disk_full, never_on_disk, a_folder], ids=lambda f: f.__name__
)
def test_a_history_that_cannot_be_written(
    folder: Path, caplog: pytest.LogCaptureFixture, cause: Callable[[Path], Iterator[None]]
) -> None:
    """It goes on in memory, which is said once; when the cause is gone it is written, and nothing is left."""
    caplog.set_level(logging.INFO)
    history = History(70, folder / NAME)
    history.begin(1000.0, "start", "x")
    history.record(1001.0, snapshot(1))
    history.save()
    assert (folder / NAME).is_file()
    for _ in cause(folder):
        for second in range(3):
            history.record(1002.0 + second, snapshot(2 + second))
            history.save()
    lost = [message for message in caplog.messages if "is lost when the server stops" in message]
    assert len(lost) == 1
    assert str(folder / NAME) in lost[0]
    assert len(history.samples) == 4
    history.save()
    assert caplog.messages[-1] == f"history '{folder / NAME}' is saved again"
    assert [each.name for each in folder.iterdir()] == [NAME]
    again = History(70, folder / NAME)
    again.begin(1010.0, "start", "x")
    assert again.samples == history.samples


def test_a_history_whose_folder_vanishes(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is made again."""
    history = History(70, folder / NAME)
    history.begin(1000.0, "start", "x")
    for second in range(3):
        shutil.rmtree(folder)
        history.record(1001.0 + second, snapshot(second))
        history.save()
        assert (folder / NAME).is_file()
    assert caplog.messages == []


def test_a_map_is_closed_though_its_history_cannot_be_written(folder: Path, public: Path) -> None:
    """The server stops all the same."""
    path = public / "coverage"
    path.write_bytes(good_bytes(0, FEW))
    coverage_map = plain_map(path, FEW, folder / NAME)
    for _ in forbidden(folder):
        coverage_map.begin_history("start", "x")
        coverage_map.close()
    assert list(folder.iterdir()) == []


def hostile_marks() -> bytes:
    """Marks whose time is a number that no float holds."""
    marks = f'[[{10**400}, "start", "x"]]'.encode()
    return MAGIC + zlib.compress(struct.pack("<III", 0, 70, len(marks)) + bytes(4 * 70) + marks)


@pytest.mark.parametrize("content", ["holes", "marks", "folder", "pipe", "forbidden"])
def test_a_history_that_cannot_be_read(folder: Path, caplog: pytest.LogCaptureFixture, content: str) -> None:
    """It begins anew, without waiting, and without reading what is far too long."""
    path = folder / NAME
    if content == "holes":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif content == "marks":
        path.write_bytes(hostile_marks())
    elif content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b"x")
        path.chmod(0)
    history = History(70, path)
    with plain_user():
        history.begin(1000.0, "start", "x")
    assert len(caplog.messages) == 1
    assert "it begins anew" in caplog.messages[0]
    history.record(1001.0, snapshot(1))
    assert len(history.samples) == 1


def test_a_clock_that_jumps(folder: Path) -> None:
    """Forward and back again: times ascend, none is in the future, and points move along with the samples."""
    history = History(70, folder / NAME)
    history.begin(1000.0, "start", "x")
    history.record(1001.0, snapshot(1))
    history.record(1002.0, SeenPcsSnapshot(2, 0, b"\3" + bytes(15)))
    history.record(90_000.0, SeenPcsSnapshot(3, 0, b"\7" + bytes(15)))
    assert history.first_covered[:4].tolist() == [1, 1002, 90_000, 0]
    history.record(1004.0, SeenPcsSnapshot(4, 0, b"\x0f" + bytes(15)))
    history.record(1005.0, SeenPcsSnapshot(5, 0, b"\x0f" + bytes(15)))
    times = [sample.time for sample in history.samples]
    assert times == sorted(times)
    assert times[-1] == 1005.0
    assert history.first_covered[:5].tolist() == [1, 1, 1004, 1004, 0]
    history.save()
    again = History(70, folder / NAME)
    again.begin(500.0, "start", "the clock is an hour slow")
    again.record(500.0, SeenPcsSnapshot(5, 0, b"\x0f" + bytes(15)))
    assert max(sample.time for sample in again.samples) == 500.0
    assert max(again.first_covered) <= 500
