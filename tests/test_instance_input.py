"""The file with the input that an instance is trying."""

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzserver.instance_input import InstanceInput, input_file, parse_instance_input, read_instance_input

REAL = bytes.fromhex("49e67756ea1c6d82 00000000 01000000 0e000000 0a000000 3769 0000000000000000")
"""As Zig 0.17 had it: a header, then a length and text, of which the fuzzer had written two bytes."""


def write(folder: Path, content: bytes, instance: int = 0) -> None:
    """The file of an instance, with room behind the input."""
    path = input_file(folder, instance)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.ljust(4096, b"\xff"))


def test_real_one(tmp_path: Path) -> None:
    """An input is as long as the header says, whatever comes after it."""
    write(tmp_path, REAL)
    found = read_instance_input(tmp_path, 0)
    assert found == InstanceInput(0x826D1CEA5677E649, 0, 1, b"\n\0\0\x007i" + bytes(8))


def test_names_are_hexadecimal(tmp_path: Path) -> None:
    """The eleventh instance has ``ina``, and does not take ``in10`` for its own."""
    write(tmp_path, REAL, 10)
    assert input_file(tmp_path, 10).name == "ina"
    assert read_instance_input(tmp_path, 10) is not None
    assert read_instance_input(tmp_path, 0x10) is None


@given(st.binary(max_size=60))
def test_any_content(content: bytes) -> None:
    """What was cut short is no input, and what was not has the length that it says."""
    found = parse_instance_input(content)
    size = struct.unpack_from("<I", content, 16)[0] if len(content) >= 20 else None
    assert (found is not None) == (size is not None and 20 + size <= len(content))
    assert found is None or len(found.data) == size


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "link"])
def test_no_file(tmp_path: Path, kind: str) -> None:
    """Where there is no file of the fuzzer's, nothing is read, and nobody waits."""
    path = input_file(tmp_path, 0)
    path.parent.mkdir()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        write(tmp_path, REAL, 1)
        path.symlink_to(input_file(tmp_path, 1))
    assert read_instance_input(tmp_path, 0) is None
