"""The interesting inputs of one fuzz test: what the fuzzer keeps in a folder in ``f/`` of its cache folder.

Until 0.15, Zig maps a whole page for each input and does not store how long the input in it is, so its
files are zero-padded to 4096 bytes or more; read again at the next start, the padding is taken for input,
and the fuzzer gets some 20 times slower. So files are cut after their last byte that is not zero before a
worker starts, and copies are cut as well. (Zig: ``initNextInput`` of ``lib/fuzzer.zig``.)

Since 0.16, files are as long as their inputs, and what is tried lies elsewhere: in ``instance_input``.
(Zig: ``ensureCorpusLoaded`` and ``removeInput`` there.)
"""

import contextlib
import hashlib
import logging
import os
import re
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fuzzserver.errors import InputError
from fuzzserver.files import open_regular, read_regular
from fuzzserver.findings import InputForm, write_whole
from fuzzserver.wire.release import ZigRelease
from fuzzserver.wire.wyhash import wyhash

__all__ = ["Corpus", "CorpusInput", "ExactCorpus", "SharedCorpus", "corpus_of", "form_of"]

log = logging.getLogger(__name__)

MAX_INPUT = 1 << 20
"""Bytes of an input that is taken in. The fuzzer changes one byte at a time: longer ones are of no use."""

MAX_FILE = 64 << 20
"""Bytes of a file in the fuzzer's folder. A longer one is none of its inputs."""

MAX_STIR = 200
"""Bytes of a random input at most: as of the one with which Zig's fuzzer begins."""

PAGE = 4096
"""Sizes of files that the fuzzer has mapped are multiples of it: ``page_size_max`` of ``std/heap.zig``."""

_HEX_NAME = re.compile(r"0|[1-9a-f][0-9a-f]{0,7}")

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
    """The folder of one test. While a worker runs on it, it is only read.

    Files have the numbers of inputs for names, and are padded.
    """

    def __init__(self, folder: Path, target: str, test: str, form: InputForm = "bytes") -> None:
        self.folder = folder
        self.target = target
        self.test = test
        self.form = form
        self._first_number: int | None = None
        self._stirred: bytes | None = None
        self._forgotten: set[bytes] = set()

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
                names = [entry.name for entry in entries if _is_small_file(entry)]
        except OSError:
            return []
        found = [(number, name) for name in names if (number := self._number(name)) is not None]
        return [self.folder / name for _, name in sorted(found)]

    def _number(self, name: str) -> int | None:
        """The number of the input in a file of this name; None if it is none of an input."""
        return int(name) if name.isascii() and name.isdigit() else None

    def _path(self, number: int) -> Path:
        return self.folder / str(number)

    def trimmed(self, content: bytes) -> bytes:
        """The input in what a file holds."""
        return content.rstrip(b"\0")

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
        inputs = dict.fromkeys(self.trimmed(_read(path)) for path in self._kept_paths())
        for data in (b"", self._stirred or b"", *self._forgotten):
            inputs.pop(data, None)
        kept = {self._path(number): data for number, data in enumerate(inputs, first)}
        for path, data in kept.items():
            there = _read(path)
            if there == data:
                continue
            if there.startswith(data):  # The usual case, which needs no room on a full disk.
                os.truncate(path, len(data))
            else:
                _write(path, data)
        for path in self._paths():
            if path not in kept:
                path.unlink(missing_ok=True)

    def forget(self, data: bytes) -> None:
        """Leave an input out from the next ``tidy`` on: one that breaks each worker that begins with it."""
        self._forgotten.add(data)

    def stir(self) -> None:
        """Add a random input until the next ``tidy``. Only while no worker runs.

        The fuzzer always begins with the same random numbers: on the same inputs, it would do what
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
            self._first_number = self._number(paths[0].name)
        return self._first_number

    def add(self, inputs: list[bytes], first_number: int) -> int:
        """Add inputs that are not there yet; returns how many. Only while no worker runs."""
        self.folder.mkdir(parents=True, exist_ok=True)  # Somebody may have removed it.
        paths = self._paths()
        have = {b"", *map(_read, paths)}
        last = self._number(paths[-1].name) if paths else None
        new = [data for data in dict.fromkeys(inputs) if data not in have]
        for number, data in enumerate(new, first_number if last is None else last + 1):
            _write(self._path(number), data)
        return len(new)

    def inputs(self) -> list[CorpusInput]:
        """All inputs but the one that is being tried."""
        found = []
        for path in self._kept_paths():
            number = self._number(path.name)
            assert number is not None, "paths are those of numbers"
            with contextlib.suppress(OSError):  # It was tidied away just now.
                found.append(CorpusInput(number, len(self.trimmed(_read(path))), path.stat().st_mtime))
        return found

    def input(self, number: int) -> bytes:
        """One input; InputError if there is none of that number."""
        try:
            return self.trimmed(_read_file(self._path(number)))
        except OSError as error:
            raise InputError(
                f"the corpus of '{self.test}' has no input {number}: {error.strerror}"
            ) from error


class ExactCorpus(Corpus):
    """The folder of one test where each file is as long as its input. Names are hexadecimal numbers.

    The fuzzer reads from 0 to the first number that is missing, and panics if the file of its next input
    is there: ``tidy`` closes gaps. Each worker has another seed, so that nothing needs to be stirred. It
    may remove inputs while it runs, and give their numbers to others.
    """

    problem = None

    def _number(self, name: str) -> int | None:
        return int(name, 16) if _HEX_NAME.fullmatch(name) else None

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:x}"

    def trimmed(self, content: bytes) -> bytes:
        """All of it."""
        return content

    def _current(self, paths: list[Path]) -> Path | None:
        return None

    first_number = 0

    def stir(self) -> None:
        """Nothing."""


def form_of(release: ZigRelease) -> InputForm:
    """What tests of this release make of their inputs."""
    return "smith" if release.reads_smith else "bytes"


def corpus_of(release: ZigRelease, cache_root: Path, target: str, test: str) -> Corpus:
    """The corpus of a test, where the fuzzer of this release keeps it."""
    if not release.stores_lengths:
        return Corpus(cache_root / "f" / test, target, test, form_of(release))
    name = wyhash(0, os.fsencode(test)).to_bytes(8, "little").hex()
    return ExactCorpus(cache_root / "f" / name, target, test, form_of(release))


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
        self._names.update(_content_name(corpus.trimmed(data)) for data in inputs)
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
            try:
                data = corpus.input(each.number)
            except InputError:
                continue  # It was tidied away just now.
            name = _content_name(data)
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


def _is_small_file(entry: os.DirEntry[str]) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE


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
