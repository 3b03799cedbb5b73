"""VDI records, version 1.1 (VirtualBox `include/VBox/vd.h`, `VDICore.h`); little endian."""

import struct
from dataclasses import dataclass
from typing import ClassVar

from imgconv.ondisk.record import Record

SIGNATURE = 0xBEDA107F
VERSION = 0x00010001
HEADER_SIZE = 400  # of VirtualBox 1.1 and later, counted from the size field itself
TEXT = b"<<< Oracle VirtualBox Disk Image >>>\n".ljust(64, b"\0")
DYNAMIC, FIXED = 1, 2
FREE = 0xFFFFFFFF
BLOCK_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Header(Record):
    """Preheader and header, the first 472 bytes of the file."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<64sIIIII256sIIIIIIIQIIII16s16s16s16sIIII")

    text: bytes  # 0x000
    signature: int  # 0x040
    version: int  # 0x044
    header_size: int  # 0x048, from here on
    image_type: int  # 0x04c
    flags: int  # 0x050
    comment: bytes  # 0x054
    map_offset: int  # 0x154, bytes
    data_offset: int  # 0x158, bytes
    legacy_cylinders: int  # 0x15c
    legacy_heads: int  # 0x160
    legacy_sectors: int  # 0x164
    sector_size: int  # 0x168, bytes
    unused: int  # 0x16c
    disk_size: int  # 0x170, bytes
    block_size: int  # 0x178, bytes
    block_extra: int  # 0x17c, bytes in front of each block
    blocks: int  # 0x180
    blocks_allocated: int  # 0x184
    image_id: bytes  # 0x188
    modification_id: bytes  # 0x198
    parent_id: bytes  # 0x1a8
    parent_modification_id: bytes  # 0x1b8
    cylinders: int  # 0x1c8
    heads: int  # 0x1cc
    sectors: int  # 0x1d0
    logical_sector_size: int  # 0x1d4, bytes


assert Header.LAYOUT.size == 0x48 + HEADER_SIZE
