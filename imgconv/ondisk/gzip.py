"""gzip on disk (RFC 1952), and what deflate (RFC 1951) needs around compressed blocks."""

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from imgconv.ondisk.record import Record
from imgconv.units import div_ceil

MAGIC = b"\x1f\x8b"
DEFLATE = 8  # the only method
HAS_CRC, HAS_EXTRA, HAS_NAME, HAS_COMMENT = 0x02, 0x04, 0x08, 0x10  # flags
RESERVED = 0xE0
MAX_STORED = (1 << 16) - 1  # bytes in one stored block
STORED_OVERHEAD = 5
LAST_BLOCK = b"\x03\x00"  # an empty one of fixed codes that ends the deflate stream


@dataclass(frozen=True, slots=True)
class Header(Record):
    """What a member begins with; no name and no time in it."""

    LAYOUT: ClassVar = struct.Struct("<2sBBIBB")

    magic: bytes = MAGIC
    method: int = DEFLATE
    flags: int = 0
    modified: int = 0
    extra_flags: int = 0
    system: int = 255


@dataclass(frozen=True, slots=True)
class Trailer(Record):
    """What a member ends with: CRC-32 and length, modulo 2^32, of its content."""

    LAYOUT: ClassVar = struct.Struct("<II")

    crc: int
    size: int


def stored_size(length: int) -> int:
    """Return how many bytes `stored` makes of `length` bytes."""
    return length + STORED_OVERHEAD * div_ceil(length, MAX_STORED)


def stored(content: bytes | memoryview) -> bytes:
    """Return content as stored deflate blocks, of which none is the last of its stream."""
    view = memoryview(content)
    pieces: list[bytes | memoryview] = []
    cuts = [*range(0, len(view), MAX_STORED), len(view)]
    for low, high in pairwise(cuts):
        pieces += [struct.pack("<BHH", 0, high - low, high - low ^ 0xFFFF), view[low:high]]
    return b"".join(pieces)
