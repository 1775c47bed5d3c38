"""What belongs to one coverage map and is fetched when it is needed, as HTTP answers.

========================  ================================================================
``/points/ID``            addresses, functions and times of all points (tag 18)
``/source/ID/NUMBER``     the source file that the tables of the map have at this position
========================  ================================================================

``ID`` is the name of a coverage file. Nothing in a path is used as a file name: which file is meant, the
debug info says.
"""

import os
import re
from email.utils import formatdate
from http import HTTPStatus
from weakref import WeakKeyDictionary

from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.coverage.debug_sources import relative_files
from fuzzserver.coverage.queue import CoverageFiles
from fuzzserver.web.answer import Answer
from fuzzserver.web.source_files import SourceFolders
from fuzzserver.web.target_numbers import map_of
from fuzzserver.wire.abi import FileIndex, StringIndex

__all__ = ["MapData"]

MAX_SOURCE = 64 << 20
"""Bytes of a source file. What is longer was not written by people."""


class MapData:
    """Answers requests. May be used from any thread."""

    def __init__(self, coverage_files: CoverageFiles) -> None:
        self._coverage_files = coverage_files
        # Where files are whose names are relative, by name.
        self._relative: WeakKeyDictionary[CoverageMap, dict[str, str]] = WeakKeyDictionary()

    def answer(self, path: str) -> Answer | None:
        """The answer to a request for ``path``; None if that is none of ours."""
        match = re.fullmatch(r"/(points|source)/([0-9a-f]{16})(?:/([0-9]{1,9}))?", path)
        if match is None or (match[1] == "source") != (match[3] is not None):
            return None
        coverage_map = map_of(self._coverage_files, match[2])
        if coverage_map is None:
            return _not_found(f"there is no coverage map {match[2]}")
        if match[3] is None:
            return Answer("application/octet-stream", coverage_map.points_message())
        return self._source(coverage_map, int(match[3]))

    def _source(self, coverage_map: CoverageMap, number: int) -> Answer:
        if number >= coverage_map.coverage.files_len:
            return _not_found(f"the coverage map names {coverage_map.coverage.files_len} files")
        name = coverage_map.coverage.file_path(FileIndex(number))
        location = self._location(coverage_map, name)
        try:
            with os.fdopen(_source_folders(coverage_map, location).open(location), "rb") as file:
                status = os.fstat(file.fileno())
                content = file.read(status.st_size) if status.st_size <= MAX_SOURCE else b""
        except (FileNotFoundError, NotADirectoryError):
            return _not_found(f"no such file on this machine: {name}")
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name.
            return _not_found(f"cannot read {name}: {getattr(error, 'strerror', None) or error}")
        if status.st_size > MAX_SOURCE:
            return _not_found(f"{name} is too large to be shown: more than {MAX_SOURCE >> 20} MiB")
        headers = (("last-modified", formatdate(status.st_mtime, usegmt=True)),)
        return Answer("text/plain; charset=utf-8", content, headers)

    def _location(self, coverage_map: CoverageMap, name: str) -> str:
        """Where the file is that the tables call ``name``."""
        if os.path.isabs(name):
            return name
        if coverage_map not in self._relative:
            self._relative[coverage_map] = relative_files(coverage_map.executable)
        return self._relative[coverage_map].get(name, "")


def _source_folders(coverage_map: CoverageMap, location: str) -> SourceFolders:
    """Where a link at ``location`` may lead: to its own folder, or to where other sources of the map are."""
    tables = coverage_map.coverage
    directories = (tables.string_at(StringIndex(directory)) for directory in tables.directories)
    return SourceFolders([os.path.dirname(location), *filter(os.path.isabs, directories)])


def _not_found(why: str) -> Answer:
    return Answer("text/plain", why.encode("utf-8", "backslashreplace"), status=HTTPStatus.NOT_FOUND)
