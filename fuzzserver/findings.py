"""What the fuzzer has broken: findings, kept on disk so that nothing that was told is ever lost.

A finding is two files in ``<cache>/fuzzserver/findings/``: ``ID.json`` with what is known, and
``ID.input`` with the bytes. Each is written under another name, flushed to the disk and then renamed,
the input first; so a reader, and a next start after a power cut, finds the old one or the new one, and
no ``ID.json`` without its input.
"""

import contextlib
import json
import logging
import math
import os
import re
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from fuzzserver.errors import InputError
from fuzzserver.files import read_regular

__all__ = [
    "ALL_CATEGORIES",
    "Category",
    "Finding",
    "FindingStore",
    "InputForm",
    "find_finding",
    "write_whole",
    "zig_string_literal",
]

log = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"\.[0-9a-f]{1,64}\.(json|input|original)\.\w+")
"""Names that ``write_whole`` gives to what it has not finished."""

MAX_FILE = 64 << 20
"""Bytes of a file of ours. None that we have written comes near."""

MAX_LITERAL = 4096
"""Bytes of an input that are shown as text."""


Category = Literal["crash", "hang", "oom"]
"""What people distinguish: it took too long, it took too much, or all else."""

ALL_CATEGORIES: frozenset[Category] = frozenset(get_args(Category))

InputForm = Literal["bytes", "smith"]
"""What a test makes of an input: it is given the bytes, or a ``std.testing.Smith`` that makes numbers,
choices and strings of them, in the order in which the test asks for them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is broken, however often it was found."""

    id: str
    """From what broke and where: the same finding has the same id in each session."""
    kind: str
    """``error``, ``panic``, ``signal``, ``leak``, ``error logs``, ``exit``, ``hang`` or ``out of memory``."""
    message: str
    target: str
    """Name of the target."""
    test: str
    first_time: float
    """Seconds since 1970."""
    last_time: float
    count: int = 1
    n_runs: int = 0
    """Runs of the test when it was found for the first time."""
    stack: str = ""
    """As Zig printed it."""
    stderr: str = ""
    """The end of what the worker wrote."""
    reproduces: bool | None = None
    """None until it was tried."""
    exact: bool = False
    """Whether the input is known to its last byte, or may be followed by bytes of earlier inputs."""
    minimized_size: int | None = None
    """Bytes that are left of the input after ``minimize``."""
    argv: tuple[str, ...] = ()
    """The command that was run to reproduce it."""
    build: dict[str, Any] = field(default_factory=dict)
    """How the test is compiled, to reproduce it later."""
    place: str = ""
    """``path:line:column`` of the innermost frame of the user's code; empty if nobody knows."""
    form: InputForm = "bytes"
    """What the test makes of the input."""

    @property
    def category(self) -> Category:
        """Which of the three it is."""
        return _CATEGORIES.get(self.kind, "crash")

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)

    def summary(self) -> dict[str, Any]:
        """What a list of findings needs."""
        names = (
            "id",
            "kind",
            "message",
            "target",
            "test",
            "count",
            "first_time",
            "last_time",
            "n_runs",
            "reproduces",
            "place",
            "form",
        )
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_json(cls, values: object) -> "Finding":
        """InputError unless ``values`` is what ``to_json`` gives. Fields of later versions do no harm."""
        if not isinstance(values, dict):
            raise InputError("it is no JSON object")
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        for name, value in known.items():
            if not _FITS[cls.__dataclass_fields__[name].type](value):
                raise InputError(f"'{name}' has a value that it cannot have")
        try:
            known["argv"] = tuple(known.get("argv", ()))
            return cls(**known)
        except TypeError as error:
            raise InputError(f"something is missing: {error}") from error


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON knows integers of any length.
        return False


_CATEGORIES: dict[str, Category] = {"hang": "hang", "out of memory": "oom"}

_FITS: dict[Any, Callable[[Any], bool]] = {
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    InputForm: lambda value: value in get_args(InputForm),
    int: lambda value: type(value) is int,
    float: lambda value: type(value) in (int, float) and _is_finite(value),
    bool | None: lambda value: value is None or isinstance(value, bool),
    int | None: lambda value: value is None or type(value) is int,
    tuple[str, ...]: lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    dict[str, Any]: lambda value: isinstance(value, dict),
}
"""Whether what JSON held fits a type."""


class FindingStore:
    """The findings of one cache folder. May be used from any thread."""

    def __init__(self, folder: Path, changed: Callable[[], None] = lambda: None) -> None:
        """Read what is there. What cannot be read is reported and left alone.

        ``changed`` is called after each change, on the thread that made it.
        """
        self.folder = folder
        self._changed = changed
        # Guards all below, and the files.
        self._lock = threading.Lock()
        self._findings: dict[str, Finding] = {}
        # What could not be written: findings by id, and inputs.
        self._unsaved: set[str] = set()
        self._unsaved_inputs: dict[str, bytes] = {}
        for path in sorted(folder.glob("*.json")):
            try:
                finding = read_finding(path)
                self._findings[finding.id] = finding
            except InputError as error:
                log.warning("%s; it is not shown", error)

    def remove_unfinished(self) -> None:
        """Remove what a killed process was just writing. Only while no other process writes here."""
        for path in self.folder.glob(".*"):
            if _TEMPORARY.fullmatch(path.name):
                with contextlib.suppress(OSError):  # They take some space, and no more.
                    path.unlink()

    def add(self, finding: Finding, data: bytes) -> Finding:
        """Note a finding, new or once more; returns it as it is kept. It is on disk on return.

        InputError if it cannot be written; it is kept in memory then, and written with the next change, or by
        ``save_again``.
        """
        with self._lock:
            known = self._known(finding.id)
            if known is not None:
                finding = replace(
                    known,
                    count=known.count + 1,
                    last_time=finding.last_time,
                    place=known.place or finding.place,
                )
            there = finding.id in self._unsaved_inputs or self.input_path(finding.id).exists()
            self._write(finding, None if known is not None and there else data)
        return finding

    def update(
        self, finding_id: str, change: Callable[[Finding], Finding], data: bytes | None = None
    ) -> Finding:
        """Note what was learnt of a finding since, and a better input. InputError as for ``add``."""
        with self._lock:
            known = self._known(finding_id)
            if known is None:
                raise InputError(f"finding {finding_id} is gone from '{self.folder}'")
            finding = change(known)
            self._write(finding, data)
        return finding

    def _known(self, finding_id: str) -> Finding | None:
        """As it is on disk, where another process may have learnt more of it, else as it is in memory."""
        if finding_id in self._unsaved:
            return self._findings[finding_id]
        try:
            return read_finding(self._path(finding_id))
        except InputError:
            return self._findings.get(finding_id)

    def _write(self, finding: Finding, data: bytes | None) -> None:
        """Keep a finding, and its input if it is a new one. Called with the lock held."""
        self._findings[finding.id] = finding
        failed_before = finding.id in self._unsaved
        self._unsaved.add(finding.id)
        if data is not None:
            self._unsaved_inputs[finding.id] = data
        try:
            self._save(finding, failed_before)
        finally:
            self._changed()

    def _save(self, finding: Finding, failed_before: bool) -> None:
        """Write what of a finding is not written. Called with the lock held."""
        if finding.id in self._unsaved_inputs:
            write_whole(self.input_path(finding.id), self._unsaved_inputs[finding.id])
            del self._unsaved_inputs[finding.id]
        text = json.dumps(finding.to_json(), indent=1)
        write_whole(self._path(finding.id), text.encode("utf-8", "backslashreplace"))
        self._unsaved.discard(finding.id)
        if failed_before:
            log.info("finding %s is saved now, in '%s'", finding.id, self.folder)

    def save_again(self) -> list[str]:
        """Write what could not be written before, if it can be now; returns the ids of what was."""
        with self._lock:
            unsaved = sorted(self._unsaved)
            with contextlib.suppress(InputError):  # Of which is known since they came.
                for finding_id in unsaved:
                    self._save(self._findings[finding_id], failed_before=True)
            return [finding_id for finding_id in unsaved if finding_id not in self._unsaved]

    @property
    def unsaved(self) -> list[str]:
        """The ids of what could not be written."""
        with self._lock:
            return sorted(self._unsaved)

    def all(self) -> list[Finding]:
        """The oldest first."""
        with self._lock:
            return sorted(self._findings.values(), key=lambda finding: (finding.first_time, finding.id))

    def get(self, finding_id: str) -> Finding | None:
        """The finding with this id."""
        with self._lock:
            return self._findings.get(finding_id)

    def _path(self, finding_id: str) -> Path:
        return self.folder / f"{finding_id}.json"

    def input_path(self, finding_id: str) -> Path:
        """Where the input is."""
        return self.folder / f"{finding_id}.input"

    def input(self, finding_id: str) -> bytes:
        """The input; InputError if it cannot be read."""
        unsaved = self._unsaved_inputs.get(finding_id)
        if unsaved is not None:
            return unsaved
        path = self.input_path(finding_id)
        try:
            return _read(path)
        except OSError as error:
            raise InputError(f"cannot read input '{path}': {error.strerror}") from error

    def details(self, finding_id: str) -> dict[str, Any] | None:
        """All that people want to know of one finding, for JSON; None if there is none."""
        finding = self.get(finding_id)
        if finding is None:
            return None
        try:
            data = self.input(finding_id)
        except InputError:
            data = b""
        return {
            **finding.summary(),
            "stack": finding.stack,
            "stderr": finding.stderr,
            "input_size": len(data),
            "input_note": input_note(finding),
            "exact": finding.exact,
            "input_literal": zig_string_literal(data),
            "command": f"fuzzserver repro {finding.id}",
            "argv": list(finding.argv),
            "minimized_size": finding.minimized_size,
        }


def input_note(finding: Finding) -> str:
    """What one has to know of the input, in a sentence; empty if it is what the test is given."""
    if finding.form == "smith":
        return "The test is not given these bytes, but values that std.testing.Smith makes of them."
    if finding.exact:
        return ""
    return (
        "Until 0.15, Zig does not store how long an input is: this is all that the fuzzer's file held, and "
        "bytes of earlier inputs may follow the input."
    )


def read_finding(path: Path) -> Finding:
    """Read one ``ID.json``; InputError says what is wrong with it."""
    try:
        finding = Finding.from_json(json.loads(_read(path)))
        if finding.id != path.stem or not re.fullmatch("[0-9a-f]{1,64}", finding.id):
            raise InputError(f"its id is '{finding.id}'")
        return finding
    except OSError as error:
        raise InputError(f"cannot read finding '{path}': {error.strerror}") from error
    except (ValueError, RecursionError, InputError) as error:
        raise InputError(f"finding '{path}' is damaged: {error}") from error


def _read(path: Path) -> bytes:
    """A file of a store. We make no links: where one leads is none of ours."""
    return read_regular(path, MAX_FILE, os.O_NOFOLLOW)


def find_finding(name: str, folders: list[Path]) -> tuple[FindingStore, Finding]:
    """The finding that ``name`` means: a path of one of its files, or an id or its beginning.

    ``folders`` are where ids are looked for. InputError if there is none, or several.
    """
    path = Path(name)
    if path.suffix in (".json", ".input") and path.exists():
        path = path.resolve()  # This link is the user's own.
        finding = read_finding(path.with_suffix(".json"))
        return FindingStore(path.parent), finding
    matches = []
    for folder in folders:
        store = FindingStore(folder)
        matches += [(store, each) for each in store.all() if name and each.id.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(finding.id for _, finding in matches)
        raise InputError(f"'{name}' stands for {len(matches)} findings: {names}")
    where = ", ".join(f"'{folder}'" for folder in folders)
    raise InputError(f"no finding '{name}' in {where}; give an id, or the path of its .json file")


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file at once and for sure; InputError if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror}") from error


def zig_string_literal(data: bytes) -> str:
    """``data`` as Zig source, quotes included. What is longer than 4096 bytes is cut, and said to be."""
    parts = []
    for byte in data[:MAX_LITERAL]:
        char = chr(byte)
        if char in '"\\':
            parts.append("\\" + char)
        elif char in "\n\r\t":
            parts.append({"\n": "\\n", "\r": "\\r", "\t": "\\t"}[char])
        elif 0x20 <= byte < 0x7F:
            parts.append(char)
        else:
            parts.append(f"\\x{byte:02x}")
    left = len(data) - MAX_LITERAL
    return f'"{"".join(parts)}"' + (f" // and {left} bytes more" if left > 0 else "")
