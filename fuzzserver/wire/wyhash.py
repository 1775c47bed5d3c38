"""Wyhash as Zig has it (``std/hash/wyhash.zig``): the hash that names coverage files.

A coverage id is ``wyhash(0, bytes of the PC table)``. Plain Python does about 4 MB/s, which is
enough for the one case that needs it: a coverage file that was renamed.
"""

import struct

__all__ = ["wyhash"]

_MASK = (1 << 64) - 1
_SECRET = (0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3, 0x589965CC75374CC3)
_BLOCK = struct.Struct("<6Q")


def _mum(a: int, b: int) -> tuple[int, int]:
    """The low and the high half of the 128-bit product."""
    product = a * b
    return product & _MASK, product >> 64


def _mix(a: int, b: int) -> int:
    low, high = _mum(a, b)
    return low ^ high


def _u64(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 8], "little")


def _u32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


def wyhash(seed: int, data: bytes) -> int:
    """The 64-bit hash of ``data``."""
    size = len(data)
    state0 = seed ^ _mix(seed ^ _SECRET[0], _SECRET[1])
    if size <= 16:
        a, b = _small_tail(data)
    else:
        position = 0
        if size >= 48:
            state1 = state2 = state0
            while position + 48 < size:
                w0, w1, w2, w3, w4, w5 = _BLOCK.unpack_from(data, position)
                state0 = _mix(w0 ^ _SECRET[1], w1 ^ state0)
                state1 = _mix(w2 ^ _SECRET[2], w3 ^ state1)
                state2 = _mix(w4 ^ _SECRET[3], w5 ^ state2)
                position += 48
            state0 ^= state1 ^ state2
        while position + 16 < size:
            state0 = _mix(_u64(data, position) ^ _SECRET[1], _u64(data, position + 8) ^ state0)
            position += 16
        a, b = _u64(data, size - 16), _u64(data, size - 8)
    a, b = _mum(a ^ _SECRET[1], b ^ state0)
    return _mix(a ^ _SECRET[0] ^ size, b ^ _SECRET[1])


def _small_tail(data: bytes) -> tuple[int, int]:
    """How inputs of up to 16 bytes are spread over two words."""
    size = len(data)
    if size >= 4:
        quarter = (size >> 3) << 2
        a = _u32(data, 0) << 32 | _u32(data, quarter)
        b = _u32(data, size - 4) << 32 | _u32(data, size - 4 - quarter)
        return a, b
    if size > 0:
        return data[0] << 16 | data[size >> 1] << 8 | data[size - 1], 0
    return 0, 0
