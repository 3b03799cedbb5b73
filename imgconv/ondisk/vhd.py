"""VHD records (Microsoft "Virtual Hard Disk Image Format Specification", 2006); big endian."""

import struct
from dataclasses import dataclass, replace
from typing import ClassVar

from imgconv.ondisk.record import Record

COOKIE = b"conectix"
DYNAMIC_COOKIE = b"cxsparse"
EPOCH = 946684800  # 2000-01-01 00:00:00 UTC in Unix seconds
NO_OFFSET = 0xFFFFFFFFFFFFFFFF
UNALLOCATED = 0xFFFFFFFF
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4

# CHS cannot describe more sectors than this; readers that use CHS switch to the exact
# size here.
MAX_CHS_SECTORS = 65535 * 16 * 255


def checksum(raw: bytes) -> int:
    """One's complement of the byte sum, the checksum field itself being zero."""
    return ~sum(raw) & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Geometry:
    """Cylinders, heads and sectors per track."""

    cylinders: int
    heads: int
    sectors: int

    @classmethod
    def of(cls, total_sectors: int) -> "Geometry":
        """Compute CHS from a size in sectors (specification, appendix "CHS Calculation")."""
        total = min(total_sectors, MAX_CHS_SECTORS)
        if total >= 65535 * 16 * 63:
            return cls(total // 255 // 16, 16, 255)
        sectors, tracks = 17, total // 17
        heads = max(4, -(-tracks // 1024))
        if tracks >= heads * 1024 or heads > 16:
            sectors, heads, tracks = 31, 16, total // 31
        if tracks >= heads * 1024:
            sectors, heads, tracks = 63, 16, total // 63
        return cls(tracks // heads, heads, sectors)


@dataclass(frozen=True, slots=True)
class Footer(Record):
    """The last 512 bytes of every VHD, and a copy in front of a dynamic one."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427s")

    cookie: bytes  # 0
    features: int  # 8, bit 1 always set
    version: int  # 12
    data_offset: int  # 16, of the dynamic header
    timestamp: int  # 24, seconds since 2000
    creator_application: bytes  # 28
    creator_version: int  # 32
    creator_host_os: bytes  # 36
    original_size: int  # 40, bytes
    current_size: int  # 48, bytes
    cylinders: int  # 56
    heads: int  # 58
    sectors: int  # 59
    disk_type: int  # 60
    checksum: int  # 64
    unique_id: bytes  # 68
    saved_state: int  # 84
    reserved: bytes  # 85

    def sealed(self) -> "Footer":
        """Return the footer with the checksum of its own content."""
        return replace(self, checksum=checksum(replace(self, checksum=0).pack()))


@dataclass(frozen=True, slots=True)
class DynamicHeader(Record):
    """Follows the footer copy of a dynamic disk and points at the block table."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">8sQQIIII16sII512s192s256s")

    cookie: bytes  # 0
    data_offset: int  # 8, unused
    table_offset: int  # 16, bytes
    version: int  # 24
    max_table_entries: int  # 28
    block_size: int  # 32, bytes
    checksum: int  # 36
    parent_id: bytes  # 40
    parent_timestamp: int  # 56
    reserved: int  # 60
    parent_name: bytes  # 64, UTF-16BE
    parent_locators: bytes  # 576, eight of 24 bytes
    reserved_end: bytes  # 768

    def sealed(self) -> "DynamicHeader":
        """Return the header with the checksum of its own content."""
        return replace(self, checksum=checksum(replace(self, checksum=0).pack()))


assert Footer.LAYOUT.size == 512
assert DynamicHeader.LAYOUT.size == 1024
