"""The input that an instance of Zig's fuzzer is trying: ``f/inN`` of its cache folder, since Zig 0.16.

The file is mapped into the fuzzer's memory, and so holds the last input even after the hardest crash.
``zig build`` copies it to ``f/crash`` when an instance has crashed.
(Zig: ``MmapInputHeader`` of ``std/Build/abi.zig``, ``MemoryMappedInput`` of ``lib/fuzzer.zig``.)
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from fuzzserver.files import open_regular

__all__ = ["InstanceInput", "input_file", "parse_instance_input", "read_instance_input"]

_HEADER = struct.Struct("<QIII")

MAX_INPUT = 64 << 20
"""Bytes of an input that are read. Zig's fuzzer stops at 4 GiB; no test has use for that many."""


@dataclass(frozen=True, slots=True)
class InstanceInput:
    """One input, and what it is for."""

    pc_digest: int
    """The coverage id of the executable."""
    instance: int
    test_index: int
    """In the list of names that ``start_fuzzing`` had."""
    data: bytes


def input_file(cache_root: Path, instance: int) -> Path:
    """Where an instance has its input."""
    return cache_root / "f" / f"in{instance:x}"


def read_instance_input(cache_root: Path, instance: int) -> InstanceInput | None:
    """What an instance tried last; None if it never came to map its file.

    What the file holds is left of an earlier run until the instance is about to fuzz: remove it before
    a start. Of an instance that runs, the input may be half one and half the next.
    """
    try:
        with os.fdopen(open_regular(input_file(cache_root, instance), os.O_NOFOLLOW), "rb") as file:
            return parse_instance_input(file.read(_HEADER.size + MAX_INPUT))
    except OSError:
        return None


def parse_instance_input(content: bytes) -> InstanceInput | None:
    """What a file holds; None if it is cut short. The file has more room than the input takes."""
    if len(content) < _HEADER.size:
        return None
    pc_digest, instance, test_index, size = _HEADER.unpack_from(content)
    data = content[_HEADER.size : _HEADER.size + size]
    return InstanceInput(pc_digest, instance, test_index, data) if len(data) == size else None
