"""The interesting inputs of one fuzz test: what the fuzzer keeps in ``f/<test name>/`` of its cache folder.

Zig 0.14 maps a whole page for each input and does not store how long the input in it is, so its files are
zero-padded to 4096 bytes or more; read again at the next start, the padding is taken for input, and the
fuzzer gets some 20 times slower. So files are cut after their last byte that is not zero before a worker
starts, and copies are cut as well. (Zig: ``initNextInput`` of ``lib/fuzzer.zig``.)
"""

import hashlib
import logging
import os
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fuzzserver.errors import InputError
from fuzzserver.files import open_regular, read_regular
from fuzzserver.findings import write_whole

__all__ = ["Corpus", "CorpusInput", "SharedCorpus"]

log = logging.getLogger(__name__)

MAX_INPUT = 1 << 20
"""Bytes of an input that is taken in. The fuzzer changes one byte at a time: longer ones are of no use."""

MAX_FILE = 64 << 20
"""Bytes of a file in the fuzzer's folder. A longer one is none of its inputs."""

MAX_STIR = 200
"""Bytes of a random input at most: as of the one with which Zig's fuzzer begins."""

PAGE = 4096
"""Sizes of files that the fuzzer has mapped are multiples of it: ``page_size_max`` of ``std/heap.zig``."""

EXPORT_INTERVAL = 2.0
"""Seconds between two looks for inputs to save."""


@dataclass(frozen=True, slots=True)
class CorpusInput:
    """One input."""

    number: int
    """Its file's name."""
    size: int
    """In bytes, without padding."""
    time: float
    """When it was last written, in seconds since 1970."""


class Corpus:
    """The folder of one test. While a worker runs on it, it is only read."""

    def __init__(self, folder: Path, target: str, test: str) -> None:
        self.folder = folder
        self.target = target
        self.test = test
        self._first_number: int | None = None
        self._stirred: bytes | None = None

    @property
    def problem(self) -> str | None:
        """Why the fuzzer cannot use this folder: it takes the name of a test for a path."""
        parts = self.test.split("/")
        if ".." in parts:
            return (
                "Zig's fuzzer keeps inputs in a folder with the name of the test; '..' in it leads elsewhere."
            )
        if max(len(os.fsencode(part)) for part in parts) > 255:
            return (
                "Zig's fuzzer keeps inputs in a folder with the name of the test, which is too long for one."
            )
        return None

    def _paths(self) -> list[Path]:
        """The files in the order of their numbers. The fuzzer makes no links, and nothing but files."""
        try:
            with os.scandir(self.folder) as entries:
                names = [entry.name for entry in entries if _is_input(entry)]
        except OSError:
            return []
        return [self.folder / name for name in sorted(names, key=int)]

    def _current(self, paths: list[Path]) -> Path | None:
        """The file of the input that is being tried, if there is one: a worker may have ended before that.

        It is the last of those that the fuzzer has mapped. Files with higher numbers may be inputs that it
        has not come to, if the test itself names fewer inputs than it did before.
        """
        return next((path for path in reversed(paths) if _size(path) % PAGE == 0), None)

    def current_input(self) -> bytes:
        """What the fuzzer tried last, with what earlier inputs left behind it; empty if it tried nothing."""
        path = self._current(self._paths())
        return b"" if path is None else _read(path)

    def _kept_paths(self) -> list[Path]:
        """The files of all inputs but the one that is being tried."""
        paths = self._paths()
        current = self._current(paths)
        return [path for path in paths if path != current]

    def tidy(self) -> None:
        """Cut the padding off, and forget the input that was tried last. Only while no worker runs.

        Empty inputs go too: Zig's fuzzer panics on them. OSError if it cannot be done; no input is lost then.
        """
        first = self.first_number
        if first is None:
            return
        inputs = dict.fromkeys(_read_trimmed(path) for path in self._kept_paths())
        inputs.pop(b"", None)
        if self._stirred is not None:
            inputs.pop(self._stirred, None)
        for number, data in enumerate(inputs, first):
            path = self.folder / str(number)
            there = _read(path)
            if there == data:
                continue
            if there.startswith(data):  # The usual case, which needs no room on a full disk.
                os.truncate(path, len(data))
            else:
                _write(path, data)
        for path in self._paths():
            if int(path.name) >= first + len(inputs):
                path.unlink(missing_ok=True)

    def stir(self) -> None:
        """Add a random input until the next ``tidy``. Only while no worker runs.

        Zig 0.14's fuzzer always begins with the same random numbers: on the same inputs, it would do what
        it did before, and fail where it failed before.
        """
        if self.first_number is not None:
            self._stirred = secrets.token_bytes(1 + secrets.randbelow(MAX_STIR)).rstrip(b"\0") or b"x"
            self.add([self._stirred], self.first_number)

    def is_stirred(self, data: bytes) -> bool:
        """Whether ``data`` is the random input of ``stir``, which nobody found."""
        return data == self._stirred

    @property
    def first_number(self) -> int | None:
        """Where the fuzzer begins to count, after the inputs that the test itself names; None if unknown."""
        paths = self._paths()
        if paths:
            self._first_number = int(paths[0].name)
        return self._first_number

    def add(self, inputs: list[bytes], first_number: int) -> int:
        """Add inputs that are not there yet; returns how many. Only while no worker runs."""
        self.folder.mkdir(parents=True, exist_ok=True)  # Somebody may have removed it.
        paths = self._paths()
        have = {b"", *map(_read, paths)}
        number = int(paths[-1].name) + 1 if paths else first_number
        new = [data for data in dict.fromkeys(inputs) if data not in have]
        for position, data in enumerate(new, number):
            _write(self.folder / str(position), data)
        return len(new)

    def inputs(self) -> list[CorpusInput]:
        """All inputs but the one that is being tried."""
        found = []
        for path in self._kept_paths():
            try:
                found.append(CorpusInput(int(path.name), len(_read_trimmed(path)), path.stat().st_mtime))
            except OSError:
                pass  # It was tidied away just now.
        return found

    def input(self, number: int) -> bytes:
        """One input; InputError if there is none of that number."""
        try:
            return _read_file(self.folder / str(number)).rstrip(b"\0")
        except OSError as error:
            raise InputError(
                f"the corpus of '{self.test}' has no input {number}: {error.strerror}"
            ) from error


class SharedCorpus:
    """A folder of the user's, with inputs to begin with, and for those that the fuzzer finds.

    Its files are for every test, those in its subfolder with the name of a test for that one, and what
    a test finds is kept there under names made from the content. Used by one test.
    """

    def __init__(self, folder: Path, test: str) -> None:
        """InputError if there is no such folder."""
        if not folder.is_dir():
            raise InputError(
                f"corpus folder '{folder}' {'is no folder' if folder.exists() else 'does not exist'}"
            )
        self._common = folder
        self._own = folder / quote(test, safe=" !#$&'()+,;=@[]{}^~")
        self._given = False
        self._names: set[str] = set()
        self._seen: set[CorpusInput] = set()
        self._saves = True
        """Whether the last attempt did."""
        self._next_export = 0.0

    def exchange(self, corpus: Corpus) -> bool:
        """While a worker runs: save what is new, now and then. InputError if that fails.

        True if the worker should end, so that inputs can be given to it.
        """
        if not self._given and corpus.first_number is not None:
            return True
        if time.monotonic() >= self._next_export:
            self._next_export = time.monotonic() + EXPORT_INTERVAL
            self.save(corpus)
        return False

    def give(self, corpus: Corpus) -> None:
        """While no worker runs: add the folder's inputs, once it is known how the fuzzer counts."""
        first_number = corpus.first_number
        if self._given or first_number is None:
            return
        self._given = True
        inputs = [data for folder in (self._common, self._own) for data in _files(folder)]
        self._names.update(_content_name(data.rstrip(b"\0")) for data in inputs)
        added = corpus.add(inputs, first_number)
        log.info("'%s': %d of %d inputs in '%s' are new to it", corpus.test, added, len(inputs), self._common)

    def save(self, corpus: Corpus) -> None:
        """Save what is new. InputError if that fails for the first time; the next attempt makes up for it."""
        try:
            self._save_new(corpus)
        except InputError:
            if self._saves:
                self._saves = False
                raise
            return
        if not self._saves:
            self._saves = True
            log.info("inputs of '%s' are saved again in '%s'", corpus.test, self._own)

    def _save_new(self, corpus: Corpus) -> None:
        for each in set(corpus.inputs()) - self._seen:
            data = _read_trimmed(corpus.folder / str(each.number))
            name = _content_name(data)
            # It is empty if it was tidied away just now.
            if data and name not in self._names and not corpus.is_stirred(data):
                write_whole(self._own / name, data)
                self._names.add(name)
            self._seen.add(each)


def _content_name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _files(folder: Path) -> list[bytes]:
    """What the files of a folder hold, without those in subfolders."""
    if not folder.is_dir():
        return []
    return [_read_beginning(path) for path in sorted(folder.iterdir()) if path.is_file()]


def _read_beginning(path: Path) -> bytes:
    """What is taken in of a file of the user's, whose links lead where he likes."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return file.read(MAX_INPUT)
    except OSError:
        return b""


def _is_input(entry: os.DirEntry[str]) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    is_number = entry.name.isascii() and entry.name.isdigit()
    return is_number and stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE


def _read_file(path: Path) -> bytes:
    """A file of the fuzzer's; OSError if it is none."""
    return read_regular(path, MAX_FILE, os.O_NOFOLLOW)


def _read(path: Path) -> bytes:
    try:
        return _read_file(path)
    except OSError:
        return b""


def _write(path: Path, data: bytes) -> None:
    """Replace a file at once or not at all, for there may be no other copy of what it holds.

    Not into what is there, which may be a link to something else.
    """
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    try:
        with new.open("xb") as file:
            file.write(data)
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def _size(path: Path) -> int:
    """In bytes; -1 if it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _read_trimmed(path: Path) -> bytes:
    return _read(path).rstrip(b"\0")
