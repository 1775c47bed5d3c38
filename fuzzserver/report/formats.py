"""The forms in which a report can be written."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzzserver.errors import InputError
from fuzzserver.report.cobertura import cobertura_text
from fuzzserver.report.json_form import report_json
from fuzzserver.report.junit import junit_text
from fuzzserver.report.lcov import lcov_text
from fuzzserver.report.markdown import markdown_text
from fuzzserver.report.model import Report
from fuzzserver.report.sarif import sarif_text

__all__ = ["FORMATS", "HTML", "Format", "report_bytes", "write_report"]

HTML = "html"
"""The page itself with its data inside. Who serves the page makes it; it is none of the texts below."""


@dataclass(frozen=True, slots=True)
class Format:
    """One form."""

    text: Callable[[Report], str]
    content_type: str
    what: str
    """For people, in a few words."""


PIECES = 6
"""Levels of a JSON report of which each value is written by itself."""


def json_text(report: Report) -> str:
    """As JSON, on one line."""
    return _json(report_json(report), PIECES) + "\n"


def _json(value: Any, levels: int) -> str:  # noqa: ANN401 - whatever JSON can hold
    """In pieces: one long call would hold up all other threads."""
    if levels and isinstance(value, dict):
        items = (f"{json.dumps(name)}: {_json(each, levels - 1)}" for name, each in value.items())
        return "{" + ", ".join(items) + "}"
    if levels and isinstance(value, list):
        return "[" + ", ".join(_json(each, levels - 1) for each in value) + "]"
    return json.dumps(value, allow_nan=False)


FORMATS = {
    "lcov": Format(lcov_text, "text/plain; charset=utf-8", "LCOV tracefile, for genhtml and editors"),
    "cobertura": Format(cobertura_text, "application/xml", "Cobertura XML, for GitLab and diff-cover"),
    "json": Format(json_text, "application/json", "all of it, for programs"),
    "junit": Format(junit_text, "application/xml", "JUnit XML, a case for each fuzz test"),
    "sarif": Format(sarif_text, "application/sarif+json", "SARIF, findings at their source lines"),
    "markdown": Format(markdown_text, "text/markdown; charset=utf-8", "summary for people"),
}


def write_report(path: Path, data: bytes) -> None:
    """Write a report, a file at once and whole; ``-`` is stdout. InputError if that fails."""
    try:
        if str(path) == "-":
            if sys.stdout is None:
                raise InputError("cannot write a report to stdout: it is closed")
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        elif path.exists() and not path.is_file():
            with path.open("wb") as stream:  # A pipe, or a device, which must stay what it is.
                stream.write(data)
        else:
            _replace(path.resolve(), data)
    except BrokenPipeError:
        pass  # Whoever reads it has enough.
    except OSError as error:
        raise InputError(f"cannot write report '{path}': {error.strerror}") from error


def _replace(path: Path, data: bytes) -> None:
    """Write a file under another name first, with the rights that any new file has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(data)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def report_bytes(name: str, report: Report) -> bytes:
    """The report in one of ``FORMATS``."""
    if name not in FORMATS:
        raise InputError(f"there is no format '{name}': choose {', '.join(FORMATS)} or {HTML}")
    return FORMATS[name].text(report).encode("utf-8", "backslashreplace")
