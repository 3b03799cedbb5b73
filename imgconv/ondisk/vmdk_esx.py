"""Records of VMDK extents that only ESX makes; little endian."""

import struct
from dataclasses import dataclass
from typing import ClassVar

from imgconv.ondisk.record import Record

COWD_MAGIC = b"COWD"
COWD_TABLE_ENTRIES = 4096

SESPARSE_MAGIC = 0xCAFEBABE
SESPARSE_FRONT = SESPARSE_MAGIC.to_bytes(8, "little")
SESPARSE_VERSION = 0x200000001
SESPARSE_GRAIN, SESPARSE_TABLE = 8, 64  # sectors
SESPARSE_TABLE_ENTRIES = 4096
SESPARSE_USED_TABLE = 0x10000000  # the upper half of an entry in the directory


@dataclass(frozen=True, slots=True)
class CowdHeader(Record):
    """The front of a COWD extent, of ESX's old sparse disks; all in sectors but counts."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<4s7I")

    magic: bytes  # 0
    version: int  # 4
    flags: int  # 8
    capacity: int  # 12
    grain_size: int  # 16
    directory_offset: int  # 20
    directory_entries: int  # 24
    free_sector: int  # 28


@dataclass(frozen=True, slots=True)
class SeSparseHeader(Record):
    """The front of a space-efficient extent (qemu `block/vmdk.c`); all in sectors."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<26Q")

    magic: int  # 0
    version: int  # 8
    capacity: int  # 16
    grain_size: int  # 24
    table_size: int  # 32
    flags: int  # 40
    reserved_1: int  # 48
    reserved_2: int  # 56
    reserved_3: int  # 64
    reserved_4: int  # 72
    volatile_header_offset: int  # 80
    volatile_header_size: int  # 88
    journal_header_offset: int  # 96
    journal_header_size: int  # 104
    journal_offset: int  # 112
    journal_size: int  # 120
    directory_offset: int  # 128
    directory_size: int  # 136
    tables_offset: int  # 144
    tables_size: int  # 152
    free_bitmap_offset: int  # 160
    free_bitmap_size: int  # 168
    backmap_offset: int  # 176
    backmap_size: int  # 184
    grains_offset: int  # 192
    grains_size: int  # 200


@dataclass(frozen=True, slots=True)
class SeSparseVolatileHeader(Record):
    """What changes while a space-efficient extent is in use."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<4Q")

    MAGIC: ClassVar[int] = 0xCAFECAFE

    magic: int  # 0
    free_table: int  # 8
    next_sequence: int  # 16
    replay_journal: int  # 24
