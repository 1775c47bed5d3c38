"""The executable as an ELF file: is it one that we can read, and is a coverage file its own?"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from array import array
from bisect import bisect_left
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from fuzzserver.errors import CoverageFileError, ExecutableError
from fuzzserver.files import open_regular

__all__ = ["Executable", "check_match"]

PCS_SECTION = "__sancov_pcs1"
"""Where Zig's ``-ffuzz`` puts the addresses of the instrumented points: u64 each, unsorted."""

COUNTERS_SECTION = "__sancov_cntrs"
"""One byte for each instrumented point, C code included."""

PLACEHOLDER_PC = 1
"""What release builds hold for a block that was optimised away."""

PF_X = 1
MAX_STRAYS = 16
"""So many PCs outside the code may be an oddity; more, among few others, are another executable's."""

_EHDR_SIZE = 64


class Executable:
    """An open ELF file. ``close`` it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open and check ``path``; ExecutableError says what is wrong with it."""
        self.path = path
        try:
            self._file = os.fdopen(open_regular(path), "rb")
        except OSError as error:
            raise ExecutableError(f"cannot open executable '{path}': {error.strerror}") from error
        try:
            self._check_header()
            self._elf = ELFFile(self._file)
            self._sections = {section.name: section for section in self._elf.iter_sections()}
        except (ELFError, ValueError, AssertionError, UnicodeDecodeError, OSError) as error:
            self._file.close()
            raise ExecutableError(f"executable '{path}' is damaged: {error}") from error
        except ExecutableError:
            self._file.close()
            raise

    def _check_header(self) -> None:
        """Refuse what cannot work, in words; the parser's own words are about its structures."""
        head = self._file.read(_EHDR_SIZE)
        self._size = size = self._file.seek(0, 2)
        if size == 0:
            raise ExecutableError(f"executable '{self.path}' is empty")
        if head[:4] != b"\x7fELF":
            raise ExecutableError(f"'{self.path}' is not an ELF executable")
        if head[4:5] != b"\x02":
            raise ExecutableError(f"executable '{self.path}' is not 64-bit; 32-bit targets are not supported")
        if head[5:6] != b"\x01":
            raise ExecutableError(f"executable '{self.path}' is big-endian; only little-endian is supported")
        if len(head) < _EHDR_SIZE:
            raise ExecutableError(
                f"executable '{self.path}' is truncated: {size} bytes, the ELF header alone has {_EHDR_SIZE}"
            )
        (section_headers,) = struct.unpack_from("<Q", head, 40)
        entry_size, entries = struct.unpack_from("<HH", head, 58)
        end = section_headers + entry_size * entries
        if end > size:
            raise ExecutableError(
                f"executable '{self.path}' is truncated: its section headers end at byte {end}, "
                f"the file at {size}"
            )

    @property
    def is_pie(self) -> bool:
        """Whether it is position-independent, so that its PCs differ from run to run."""
        return bool(self._elf["e_type"] == "ET_DYN")

    def has_section(self, name: str) -> bool:
        """Whether there is a section of that name with content in the file."""
        section = self._sections.get(name)
        return section is not None and section["sh_type"] != "SHT_NOBITS"

    def section_size(self, name: str) -> int:
        """Size in bytes; 0 if there is no such section."""
        section = self._sections.get(name)
        return 0 if section is None else int(section["sh_size"])

    def section_data(self, name: str) -> bytes:
        """Content, decompressed if needed; ExecutableError if the file does not hold all of it."""
        section = self._sections[name]
        size = int(section["sh_size"])
        held = min(size, max(0, self._size - int(section["sh_offset"])))
        if held != size:
            raise ExecutableError(
                f"executable '{self.path}' is truncated: section {name} has {size} bytes, "
                f"the file holds {held} of them"
            )
        try:
            return bytes(section.data())
        except (ELFError, OSError, ValueError, AssertionError) as error:
            raise ExecutableError(f"section {name} of '{self.path}' cannot be read: {error}") from error
        # A compressed section may be damaged, or claim any size.
        except (zlib.error, OverflowError, MemoryError) as error:
            raise ExecutableError(f"section {name} of '{self.path}' cannot be read: {error}") from error

    def pc_addrs(self) -> array[int] | None:
        """The instrumented points in the order of the coverage file; None without the section."""
        if not self.has_section(PCS_SECTION):
            return None
        data = self.section_data(PCS_SECTION)
        addrs = array("Q", data[: len(data) // 8 * 8])
        if sys.byteorder == "big":
            addrs.byteswap()
        return addrs

    def outside_code(self, pcs: array[int]) -> list[int]:
        """Those of ``pcs`` that are in no segment with code, each once, ascending."""
        ordered = sorted(set(pcs) - {PLACEHOLDER_PC})
        outside = []
        position = 0
        for start, end in sorted(self._code_ranges()):
            first = bisect_left(ordered, start, position)
            outside += ordered[position:first]
            position = bisect_left(ordered, end, first)
        return outside + ordered[position:]

    def _code_ranges(self) -> list[tuple[int, int]]:
        """Addresses of the segments that are executed. Unlike sections, no file goes without."""
        try:
            return [
                (int(segment["p_vaddr"]), int(segment["p_vaddr"] + segment["p_memsz"]))
                for segment in self._elf.iter_segments("PT_LOAD")
                if segment["p_flags"] & PF_X
            ]
        except (ELFError, ValueError, AssertionError, OSError) as error:
            raise ExecutableError(f"segments of '{self.path}' cannot be read: {error}") from error

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._file.close()

    def __enter__(self) -> Executable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_match(executable: Executable, pcs: array[int], coverage_file: Path) -> list[str]:
    """Is ``coverage_file``, which lists ``pcs``, the one of ``executable``?

    Raises CoverageFileError if it belongs to another one. Returns sentences about what is odd but
    can be served. An empty table fits every executable: it is what an executable without
    instrumentation writes.
    """
    own = executable.pc_addrs()
    if len(pcs) == 0:
        return [
            f"coverage file '{coverage_file}' lists no PCs: the executable was built without "
            "instrumentation (build it in fuzz mode with the LLVM backend: -ffuzz -fllvm)"
        ]
    if own is None:
        outside = executable.outside_code(pcs)
        if len(outside) > MAX_STRAYS and 16 * len(outside) > len(pcs):
            raise CoverageFileError(
                f"coverage file '{coverage_file}' belongs to another executable than "
                f"'{executable.path}': {len(outside)} of its {len(pcs)} PCs are outside the code, "
                f"0x{outside[0]:x} for one"
            )
        return [
            f"executable '{executable.path}' has no section {PCS_SECTION}, so nothing proves that "
            f"coverage file '{coverage_file}' is its own"
        ]
    if executable.is_pie:
        raise CoverageFileError(
            f"executable '{executable.path}' is position-independent, so the addresses in "
            f"'{coverage_file}' hold for one run only; build it without -fPIE"
        )
    different = _first_difference(own, pcs)
    if different is not None:
        raise CoverageFileError(
            f"coverage file '{coverage_file}' belongs to another executable than "
            f"'{executable.path}': {different}"
        )
    counters = executable.section_size(COUNTERS_SECTION)
    if counters > len(own):
        return [
            f"executable '{executable.path}' has {counters} counters for {len(own)} PCs (C code is "
            "counted but not listed), so the fuzzer may mark points that were not reached"
        ]
    return []


def _first_difference(own: array[int], pcs: array[int]) -> str | None:
    if own == pcs:
        return None
    if len(own) != len(pcs):
        return f"it lists {len(pcs)} PCs, the executable has {len(own)}"
    for index, (mine, theirs) in enumerate(zip(own, pcs, strict=True)):
        if mine != theirs and theirs != PLACEHOLDER_PC:
            return f"PC {index} is 0x{theirs:x} there and 0x{mine:x} here"
    return None
