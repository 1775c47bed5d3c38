"""The executable as an ELF file: is it one that we can read, and is a coverage file its own?"""

from __future__ import annotations

import os
import re
import struct
import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from fuzzserver.errors import CoverageFileError, ExecutableError
from fuzzserver.files import open_regular

__all__ = ["Executable", "FileState", "check_match"]

PCS_SECTION = "__sancov_pcs1"
"""Where Zig's ``-ffuzz`` puts the addresses of the instrumented points: u64 each, unsorted."""

COUNTERS_SECTION = "__sancov_cntrs"
"""One byte for each instrumented point, C code included."""

UNREAD_SECTIONS = frozenset(
    f".debug_{name}" for name in ("aranges", "frame", "loc", "loclists", "pubnames", "pubtypes")
)
"""Debug info that nothing of ours is made of."""

PLACEHOLDER_PC = 1
"""What release builds hold for a block that was optimised away."""

RELATIVE_RELOCATION = {"EM_X86_64": 8, "EM_AARCH64": 1027}
"""By processor, the relocation that says: the load address plus this addend belongs here."""

PF_X = 1
STT_FUNC = 2
SHN_UNDEF = 0
MAX_STRAYS = 16
"""So many PCs outside the code may be an oddity; more, among few others, are another executable's."""

_EHDR_SIZE = 64
_SYMBOL = struct.Struct("<IBBHQQ")
"""Name, type and binding, visibility, section, value, size."""

_TEST_NAME = re.compile(rb"\.(?:decl)?test(?:\.|_\d+\Z)", re.DOTALL)
"""Within ``main.test.fuzz sum``, ``main.decltest.parse``, ``main.S.test_0``."""

_PRODUCER = re.compile(rb"zig (?<=\bzig )(\d+\.\d+\.\d+[^\0]*)\0")
"""It begins with plain characters, for which ``re`` looks much faster."""


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells a file from another that takes its place, or from itself after a change."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> FileState:
        """The state that ``os.stat`` has found."""
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


class Executable:
    """An open ELF file. ``close`` it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open and check ``path``; ExecutableError says what is wrong with it."""
        self.path = path
        try:
            self._file = os.fdopen(open_regular(path), "rb")
        except OSError as error:
            raise ExecutableError(f"cannot open executable '{path}': {error.strerror}") from error
        self.state = FileState.of(os.fstat(self._file.fileno()))
        """The file as it was when it was opened."""
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

    def digest_debug_info(self, update: Callable[[bytes | memoryview], None]) -> None:
        """Give ``update`` all that source locations and functions are made of, a piece at a time."""
        update(repr(self.code_ranges()).encode())
        piece = memoryview(bytearray(1 << 20))
        for name, section in sorted(self._sections.items()):
            if not name.startswith((".debug_", ".symtab", ".strtab")) or name in UNREAD_SECTIONS:
                continue
            start, size = int(section["sh_offset"]), int(section["sh_size"])
            update(f"{name} {section['sh_type']} {section['sh_flags']} {size}\n".encode())
            end = min(start + size, self._size) if self.has_section(name) else start
            while start < end:
                try:
                    read = os.preadv(self._file.fileno(), [piece[: end - start]], start)
                except OSError as error:
                    raise ExecutableError(
                        f"cannot read executable '{self.path}': {error.strerror}"
                    ) from error
                update(piece[:read])
                start += read or end  # It may shrink meanwhile.

    def pc_addrs(self) -> array[int] | None:
        """The instrumented points in the order of the coverage file; None without the section.

        Those of a position-independent executable are as if it were loaded at address 0.
        """
        if not self.has_section(PCS_SECTION):
            return None
        addrs = _words(self.section_data(PCS_SECTION))
        if self.is_pie:
            self._relocate(addrs)
        return addrs

    def _relocate(self, addrs: array[int]) -> None:
        """Fill in what the loader would; in the file, the items that it relocates are 0."""
        kind = RELATIVE_RELOCATION.get(self._elf["e_machine"])
        if kind is None or not self.has_section(".rela.dyn"):
            return
        start = int(self._sections[PCS_SECTION]["sh_addr"])
        end = start + 8 * len(addrs)
        relocations = _words(self.section_data(".rela.dyn"))
        places, kinds, addends = relocations[0::3], relocations[1::3], relocations[2::3]
        # The last one is incomplete if the section is damaged.
        for place, each, addend in zip(places, kinds, addends, strict=False):
            if start <= place < end and each == kind:
                addrs[(place - start) // 8] = addend

    def function_symbols(self) -> Iterator[tuple[int, int, bytes]]:
        """Address, size (0 if nobody told) and name of each function, unordered; none if it is stripped."""
        if not (self.has_section(".symtab") and self.has_section(".strtab")):
            return
        table, names = self.section_data(".symtab"), self.section_data(".strtab")
        for name, info, _, section, value, size in _SYMBOL.iter_unpack(table[: len(table) // 24 * 24]):
            if info & 0xF == STT_FUNC and section != SHN_UNDEF:
                yield value, size, names[name : names.find(b"\0", name)]

    def test_symbols(self) -> dict[str, int]:
        """Name and address of each test function; empty if the executable is stripped.

        The symbol of a test is its name as the test runner tells it, in all of Zig 0.14 to 0.17. What
        is declared inside a test is among them (``main.test.fuzz sum.Context.testOne``).
        """
        symbols = self.function_symbols()
        return {os.fsdecode(name): value for value, _, name in symbols if _TEST_NAME.search(name)}

    @property
    def has_fuzzer(self) -> bool:
        """Whether Zig's fuzzer is in it: it was built in fuzz mode, be it instrumented or not."""
        return self.has_section(".strtab") and b"\0fuzzer_init\0" in self.section_data(".strtab")

    def zig_version(self) -> str | None:
        """The compiler's version, as its debug info tells; None if that is not there."""
        if not self.has_section(".debug_str"):
            return None
        found = _PRODUCER.search(self.section_data(".debug_str"))
        return found and found[1].decode("ascii", "replace")

    def outside_code(self, pcs: array[int]) -> list[int]:
        """Those of ``pcs`` that are in no segment with code, each once, ascending."""
        ordered = sorted(set(pcs) - {PLACEHOLDER_PC})
        outside = []
        position = 0
        for start, end in sorted(self.code_ranges()):
            first = bisect_left(ordered, start, position)
            outside += ordered[position:first]
            position = bisect_left(ordered, end, first)
        return outside + ordered[position:]

    def code_ranges(self) -> list[tuple[int, int]]:
        """Start and end of each segment that is executed. Unlike sections, no file goes without."""
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
    different = _first_difference(own, pcs)
    if different is not None and executable.is_pie and _is_slid(own, pcs):
        raise CoverageFileError(
            f"executable '{executable.path}' is position-independent, and the addresses in "
            f"'{coverage_file}' hold for one run only, as Zig before 0.16 writes them; "
            "build it without -fPIE"
        )
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


def _is_slid(own: array[int], pcs: array[int]) -> bool:
    """Whether ``pcs`` are ``own`` as they were for one load address."""
    if len(own) != len(pcs):
        return False
    distances = {
        theirs - mine for mine, theirs in zip(own, pcs, strict=True) if mine not in (theirs, PLACEHOLDER_PC)
    }
    return len(distances) == 1


def _words(data: bytes) -> array[int]:
    """The 64-bit words of a section, without what is left over at its end."""
    words = array("Q", data[: len(data) // 8 * 8])
    if sys.byteorder == "big":
        words.byteswap()
    return words
