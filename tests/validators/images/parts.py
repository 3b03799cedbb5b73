"""What images made by hand are put together from."""

from __future__ import annotations

import random
import struct

SECTOR = 512
KIB = 1 << 10
MIB = 1 << 20
NONE32 = b"\xff" * 4


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    """Return the data with other bytes at an offset; negative counts from the end."""
    start = offset if offset >= 0 else len(data) + offset
    assert data[start : start + len(new)] != new, "the patch changes nothing"
    return data[:start] + new + data[start + len(new) :]


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def scattered(size: int, unit: int = 64 * KIB) -> bytes:
    """Data in some units of a disk, also at its end, zeros in the others."""
    chooser = random.Random(size)
    data = bytearray(size)
    for start in range(0, size, unit):
        if chooser.random() < 0.4 or start + unit >= size:
            end = min(start + unit, size)
            data[start:end] = noise(start, end - start)
    return bytes(data)


def word(value: int) -> bytes:
    return struct.pack(">Q", value)


def prose(seed: int, size: int) -> bytes:
    """Bytes that compress to between a half and a third."""
    return bytes(byte & 15 | 64 for byte in noise(seed, size))


def padded(raw: bytes, size: int) -> bytes:
    assert len(raw) <= size
    return raw.ljust(size, b"\0")


def words(values: list[int], size: int) -> bytes:
    return padded(struct.pack(f"<{len(values)}I", *values), size)
