"""The hash that names coverage files."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzserver.coverage.executable import PCS_SECTION, Executable
from fuzzserver.wire.wyhash import wyhash
from tests.support_native import zig_run

VECTORS = [
    (0x0409638EE2BDE459, b""),
    (0xA8412D091B5FE0A9, b"a"),
    (0x32DD92E4B2915153, b"abc"),
    (0x8619124089A3A16B, b"message digest"),
    (0x7A43AFB61D7F5F40, b"abcdefghijklmnopqrstuvwxyz"),
    (0xFF42329B90E50D58, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"),
    (0xC39CAB13B115AAD3, b"1234567890" * 8),
]
"""The seven of ``std/hash/wyhash.zig``; the seed of each is its position."""

EVERY_LENGTH = """
const std = @import("std");
pub fn main() !void {
    var data: [260]u8 = undefined;
    for (&data, 0..) |*byte, i| byte.* = @truncate(i *% 151 +% 7);
    for (0..data.len + 1) |len|
        try std.io.getStdOut().writer().print("{x}\\n", .{std.hash.Wyhash.hash(len, data[0..len])});
}
"""


@pytest.mark.parametrize(("seed", "expected", "data"), [(i, *vector) for i, vector in enumerate(VECTORS)])
def test_vectors_of_std(seed, expected, data):
    """The vectors of Zig's standard library hold."""
    assert wyhash(seed, data) == expected


def test_every_length_hashes_as_std_does(client, work):
    """Up to five blocks and a rest, each length gives what the real hash gives."""
    source = work / "every_length.zig"
    source.write_text(EVERY_LENGTH)
    data = bytes((i * 151 + 7) & 0xFF for i in range(260))
    theirs = [int(line, 16) for line in zig_run(client, source).split()]
    assert [wyhash(length, data[:length]) for length in range(261)] == theirs


@pytest.mark.parametrize("pair", ["debug_pair", "safe_pair", "small_pair"])
def test_the_hash_of_the_pc_table_is_the_coverage_id(pair, request):
    """What a real fuzzer calls its coverage file is the hash of its PC table."""
    fuzzed = request.getfixturevalue(pair)
    with Executable(fuzzed.executable) as executable:
        assert wyhash(0, executable.section_data(PCS_SECTION)) == fuzzed.coverage_id


def test_the_hash_of_no_pcs_is_what_an_uninstrumented_test_sends():
    """The id of an empty table is known: it is how one recognises missing instrumentation."""
    assert struct.pack("<Q", wyhash(0, b"")).hex() == "59e4bde28e630904"


@given(st.integers(0, 2**64 - 1), st.binary(max_size=300))
def test_hashes_have_64_bits(seed, data):
    """No seed and no data leaves the range, and the same input gives the same hash."""
    assert 0 <= wyhash(seed, data) < 2**64
    assert wyhash(seed, bytes(data)) == wyhash(seed, data)
