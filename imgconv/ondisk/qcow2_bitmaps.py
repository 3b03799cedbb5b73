"""Dirty bitmaps kept in a QCOW2 (qemu `docs/interop/qcow2.txt`); big endian."""

import struct
from dataclasses import dataclass
from typing import ClassVar

from imgconv.ondisk.record import Record

IN_USE = 1 << 0  # flags of a bitmap
FLAGS = 3
RESERVED = 0xFF000000000001FE  # in an entry of a bitmap's table
MIN_GRANULARITY_BITS, MAX_GRANULARITY_BITS = 9, 31
MAX_BITMAPS = 65535
MAX_TABLE = 0x8000000  # entries


@dataclass(frozen=True, slots=True)
class BitmapsExtension(Record):
    """Header extension that tells where the directory of dirty bitmaps is."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">IIQQ")

    KIND: ClassVar[int] = 0x23852875

    count: int  # 0
    reserved: int  # 4
    directory_size: int  # 8, bytes
    directory_offset: int  # 16


@dataclass(frozen=True, slots=True)
class BitmapEntry(Record):
    """What an entry of the directory begins with; extra data and name follow."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">QIIBBHI")

    table_offset: int  # 0
    table_size: int  # 8, entries
    flags: int  # 12
    bitmap_type: int  # 16
    granularity_bits: int  # 17
    name_size: int  # 18
    extra_size: int  # 20, bytes
