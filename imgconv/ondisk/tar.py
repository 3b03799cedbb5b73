"""tar on disk: headers of POSIX.1-1988 (ustar), pax, and old GNU, with its sparse files.

Sources: https://www.gnu.org/software/tar/manual/html_node/Standard.html and
https://www.gnu.org/software/tar/manual/html_node/Sparse-Formats.html.
"""

import struct
from dataclasses import dataclass
from typing import ClassVar

from imgconv.ondisk.record import Record

BLOCK = 512
REGULAR = b"0\x007"  # types; 7 was for contiguous files
SPARSE = b"S"
EMPTY = b"123456"  # links, devices, folders, pipes: nothing is stored
PAX, PAX_GLOBAL = b"xX", b"g"
LONG_NAME, LONG_LINK = b"L", b"K"
EXTENDED = PAX + PAX_GLOBAL + LONG_NAME + LONG_LINK
MAX_MAP = 25 << 20  # bytes of a sparse map, a million entries
_GOES_ON = 504  # in such a block, whether another one follows
FIELD = 12  # bytes of a number of a sparse map


@dataclass(frozen=True, slots=True)
class Header(Record):
    """The block before each member; numbers are text, or binary in GNU's way."""

    LAYOUT: ClassVar = struct.Struct("<100s8s8s8s12s12s8sc100s8s32s32s8s8s167s")

    name: bytes  # 0
    mode: bytes  # 100
    user: bytes  # 108
    group: bytes  # 116
    size: bytes  # 124
    modified: bytes  # 136
    checksum: bytes  # 148
    kind: bytes  # 156
    link: bytes  # 157
    magic: bytes  # 257, with the version
    user_name: bytes  # 265
    group_name: bytes  # 297
    major: bytes  # 329
    minor: bytes  # 337
    rest: bytes  # 345: a prefix of the name in ustar, GNU's own fields in old GNU


def goes_on(header: bytes) -> bool:
    """Say whether the sparse map of an old GNU header goes on in the next block."""
    return header[482] != 0


def last_extension(blocks: bytes) -> int:
    """Return which of the blocks of a sparse map is the last, -1 if all of them go on."""
    return blocks[_GOES_ON::BLOCK].find(0)


def header_map(header: bytes) -> bytes:
    """Return the four entries of a sparse map that a header has room for: two numbers each,
    an offset and a length."""
    return header[386:482]


def extension_map(blocks: bytes) -> bytes:
    """Return the 21 entries in each block that follows it."""
    return b"".join(
        blocks[at : at + _GOES_ON] for at in range(0, len(blocks) // BLOCK * BLOCK, BLOCK)
    )


def real_size(block: bytes) -> bytes:
    """Return the field of an old GNU header with the size that a sparse file has."""
    return block[483:495]


def number(field: bytes) -> int:
    """Read a number: octal text, or binary if the first bit is set; 0 if it is blank.

    ValueError when it is neither.
    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << 8 * len(field) - 1) - 1)
        if field[0] & 0x40:
            raise ValueError("a negative number")
        return value
    text = field.split(b"\0")[0].strip(b" ")
    if text.translate(None, b"01234567"):
        raise ValueError(f"no number: {field!r}")
    return int(text or b"0", 8)


def checksum(block: bytes) -> int:
    """Return what the header's checksum should be: the sum of all bytes, of which the
    checksum's own count as spaces."""
    return sum(block[:148]) + 8 * 0x20 + sum(block[156:BLOCK])


def is_header(block: bytes) -> bool:
    """Say whether a block is a header with the right checksum."""
    if len(block) < BLOCK or not any(block[:BLOCK]):
        return False
    try:
        return number(block[148:156]) == checksum(block)
    except ValueError:
        return False
