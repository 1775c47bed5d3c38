"""The tables of one coverage map: directories, files and their strings (Zig: ``std/debug/Coverage.zig``)."""

from __future__ import annotations

import sys
from array import array

from fuzzserver.wire.abi import FileIndex, SourceIndexHeader, StringIndex

__all__ = ["Coverage", "little_endian_bytes"]


def little_endian_bytes(values: array[int]) -> bytes:
    """The array's bytes as they go over the wire."""
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


class Coverage:
    """Directories and files, each interned at first sight; their strings follow one another.

    The order of everything is the order of first sight, because the bytes must be those of Zig.
    """

    def __init__(self) -> None:
        self.directories: array[int] = array("I")
        """``StringIndex`` of each directory."""
        self.files: array[int] = array("I")
        """Two items for each file: directory index, ``StringIndex`` of the base name."""
        self.string_bytes = bytearray()
        self._directory_indexes: dict[bytes, int] = {}
        self._file_indexes: dict[tuple[int, bytes], FileIndex] = {}

    @property
    def files_len(self) -> int:
        """How many files there are."""
        return len(self.files) // 2

    def intern_file(self, directory: bytes, basename: bytes) -> FileIndex:
        """The index of ``directory/basename``, which is added if it is new."""
        directory_index = self._directory_indexes.get(directory)
        if directory_index is None:
            directory_index = len(self.directories)
            self._directory_indexes[directory] = directory_index
            self.directories.append(self._add_string(directory))
        file_index = self._file_indexes.get((directory_index, basename))
        if file_index is None:
            file_index = FileIndex(self.files_len)
            self._file_indexes[directory_index, basename] = file_index
            self.files.extend((directory_index, self._add_string(basename)))
        return file_index

    def _add_string(self, text: bytes) -> StringIndex:
        index = StringIndex(len(self.string_bytes))
        self.string_bytes += text + b"\0"
        return index

    def string_at(self, index: StringIndex) -> str:
        """The string that begins at ``index``."""
        end = self.string_bytes.index(b"\0", index)
        return self.string_bytes[index:end].decode("utf-8", "surrogateescape")

    def file_path(self, index: FileIndex) -> str:
        """``directory/basename`` of a file."""
        directory_index, basename = self.files[2 * index], StringIndex(self.files[2 * index + 1])
        directory = StringIndex(self.directories[directory_index])
        return f"{self.string_at(directory)}/{self.string_at(basename)}"

    def source_index_message(self, source_locations: array[int], start_timestamp: int) -> bytes:
        """The ``source_index`` message; ``source_locations`` holds three items for each location."""
        header = SourceIndexHeader(
            directories_len=len(self.directories),
            files_len=self.files_len,
            source_locations_len=len(source_locations) // 3,
            string_bytes_len=len(self.string_bytes),
            start_timestamp=start_timestamp,
        )
        return b"".join(
            (
                header.serialize(),
                little_endian_bytes(self.directories),
                little_endian_bytes(self.files),
                little_endian_bytes(source_locations),
                self.string_bytes,
            )
        )
