"""VHDX records (Microsoft [MS-VHDX], version 1); little endian.

Ids lie on disk as Windows keeps them: the first three fields of the text with their bytes
reversed.
"""

import struct
from dataclasses import dataclass, replace
from typing import ClassVar

from imgconv.native import CRC32C
from imgconv.ondisk.record import Record
from imgconv.units import KiB, MiB, TiB, div_ceil

SIGNATURE = b"vhdxfile"
HEADER, REGIONS, METADATA = b"head", b"regi", b"metadata"
LOG_ENTRY, LOG_DATA = b"loge", b"data"
CHANGE_DATA, CHANGE_ZEROS = b"desc", b"zero"
VERSION = 1
LOG_VERSION = 0

HEADERS_AT = 64 * KiB, 128 * KiB
REGIONS_AT = 192 * KiB, 256 * KiB
TABLE_SIZE = 64 * KiB  # of regions, and of metadata items
MAX_ENTRIES = 2047  # of either
MAX_ITEM = MiB
ALIGNMENT = MiB  # of all that lies behind the first MiB, and of its length
LOG_SECTOR = 4 * KiB
BLOCK_SIZES = MiB, 256 * MiB
SECTOR_SIZES = 512, 4096
MAX_SIZE = 64 * TiB

REQUIRED_REGION = 1
USER_ITEM, DISK_ITEM, REQUIRED_ITEM = 1, 2, 4
LEAVE_ALLOCATED, HAS_PARENT = 1, 2

# What the three lowest bits of a block's entry say; 4 stands for nothing.
NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, UNMAPPED_IN_DRAFTS = 0, 1, 2, 3, 5
PRESENT, PARTLY_PRESENT = 6, 7
STATE_BITS = 7
BITMAP_SIZE = MiB  # of the block that tells which sectors of a chunk are in this file
BITMAP_SECTORS = 8 * BITMAP_SIZE


def guid(text: str) -> bytes:
    """Return the bytes on disk of an id written as "2DC27766-F623-...", perhaps in braces."""
    return swapped(bytes.fromhex(text.strip("{}").replace("-", "")))


def guid_text(raw: bytes) -> str:
    """Write an id that was read from disk."""
    digits = swapped(raw).hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def swapped(raw: bytes) -> bytes:
    """Turn the order of an id in text and hashes (RFC 9562) into that on disk, and back."""
    return raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:16]


NO_ID = bytes(16)
TABLE_REGION = guid("2DC27766-F623-4200-9D64-115E9BFD4A08")
METADATA_REGION = guid("8B7CA206-4790-4B9A-B8FE-575F050F886E")
FILE_PARAMETERS = guid("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
DISK_SIZE = guid("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
DISK_ID = guid("BECA12AB-B2E6-4523-93EF-C309E000C746")
LOGICAL_SECTOR = guid("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
PHYSICAL_SECTOR = guid("CDA348C7-445D-4471-9CC9-E9885251C556")
PARENT_LOCATOR = guid("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
VHDX_LOCATOR = guid("B04AEFB7-D19E-4A81-B789-25B8E9445913")


def checksum(raw: bytes | memoryview) -> int:
    """CRC-32C of a structure that has it at byte 4, where zeros are taken to be."""
    return CRC32C.update(raw[8:], CRC32C.update(bytes(4), CRC32C.update(raw[:4])))


def sealed(raw: bytes) -> bytes:
    """Return a structure with its checksum, which goes to byte 4."""
    return raw[:4] + struct.pack("<I", checksum(raw)) + raw[8:]


@dataclass(frozen=True, slots=True)
class FileIdentifier(Record):
    """The first bytes of the file."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<8s512s")

    signature: bytes  # 0
    creator: bytes  # 8, UTF-16


@dataclass(frozen=True, slots=True)
class Header(Record):
    """One of two; the valid one with the higher sequence number counts."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<4sIQ16s16s16sHHIQ4016s")

    signature: bytes  # 0
    checksum: int  # 4
    sequence: int  # 8
    file_write_id: bytes  # 16, new whenever the file is written to
    data_write_id: bytes  # 32, new whenever the disk is
    log_id: bytes  # 48, of entries to be replayed; null when there are none
    log_version: int  # 64
    version: int  # 66
    log_length: int  # 68, bytes
    log_offset: int  # 72, bytes
    reserved: bytes  # 80

    def sealed(self) -> "Header":
        """Return the header with the checksum of its own content."""
        return replace(self, checksum=checksum(self.pack()))


@dataclass(frozen=True, slots=True)
class RegionTable(Record):
    """In front of the entries of a region table, all of whose 64 KiB the checksum covers."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<4sIII")

    signature: bytes  # 0
    checksum: int  # 4
    count: int  # 8
    reserved: int  # 12


@dataclass(frozen=True, slots=True)
class Region(Record):
    """A part of the file."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<16sQII")

    kind: bytes  # 0
    offset: int  # 16, bytes
    length: int  # 24, bytes
    flags: int  # 28


@dataclass(frozen=True, slots=True)
class MetadataTable(Record):
    """In front of the entries of the metadata region."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<8sHH20s")

    signature: bytes  # 0
    reserved: int  # 8
    count: int  # 10
    reserved_end: bytes  # 12


@dataclass(frozen=True, slots=True)
class Item(Record):
    """A piece of metadata."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<16sIIII")

    kind: bytes  # 0
    offset: int  # 16, bytes, counted from the region's start
    length: int  # 20, bytes
    flags: int  # 24
    reserved: int  # 28


@dataclass(frozen=True, slots=True)
class FileParameters(Record):
    """The item that says what kind of VHDX this is."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<II")

    block_size: int  # 0, bytes
    flags: int  # 4


@dataclass(frozen=True, slots=True)
class LogEntry(Record):
    """The front of a log entry: descriptors follow, and from the next 4 KiB on their data."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<4sIIIQII16sQQ")

    signature: bytes  # 0
    checksum: int  # 4, of the whole entry
    length: int  # 8, bytes
    tail: int  # 12, bytes from the log's start to the first entry to be replayed with this
    sequence: int  # 16, not 0
    count: int  # 24, of descriptors
    reserved: int  # 28
    log_id: bytes  # 32, as in the header
    flushed_size: int  # 48, bytes of the file that were safe when the entry was written
    last_size: int  # 56, bytes that the file must have in the end

    @property
    def descriptor_sectors(self) -> int:
        """How many sectors of the log the entry and its descriptors take."""
        return div_ceil(self.LAYOUT.size + self.count * Change.LAYOUT.size, LOG_SECTOR)


@dataclass(frozen=True, slots=True)
class Change(Record):
    """A descriptor: what a stretch of the file is to become.

    Of zeros, `length` says how many bytes. Of data, which are always 4 KiB and a sector of
    the log, it holds their first 8 bytes and `trailing` their last 4, in whose place the
    sector has a mark and its sequence number.
    """

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<4s4sQQQ")

    signature: bytes  # 0
    trailing: bytes  # 4
    length: int  # 8, bytes
    offset: int  # 16, bytes
    sequence: int  # 24


@dataclass(frozen=True, slots=True)
class Locator(Record):
    """In front of the entries of a parent locator."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<16sHH")

    kind: bytes  # 0
    reserved: int  # 16
    count: int  # 18


@dataclass(frozen=True, slots=True)
class LocatorEntry(Record):
    """Where in the locator a key and its value are, both UTF-16."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<IIHH")

    key_offset: int  # 0, bytes
    value_offset: int  # 4, bytes
    key_length: int  # 8, bytes
    value_length: int  # 10, bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How a disk is cut into blocks, and where in the block table each has its entry.

    Behind the entries of a chunk of blocks stands one of its sector bitmap; a disk without
    a parent has no use for it.
    """

    disk_size: int
    block_size: int
    sector_size: int = 512

    @property
    def count(self) -> int:
        """Blocks of the disk."""
        return div_ceil(self.disk_size, self.block_size)

    @property
    def ratio(self) -> int:
        """Blocks of a chunk."""
        return BITMAP_SECTORS * self.sector_size // self.block_size

    @property
    def entries(self) -> int:
        """Entries of the table, of a disk without a parent."""
        return self.count + (self.count - 1) // self.ratio

    @property
    def entries_over_parent(self) -> int:
        """Entries of the table, of a disk that has one."""
        return div_ceil(self.count, self.ratio) * (self.ratio + 1)


assert FileIdentifier.LAYOUT.size == 520
assert Header.LAYOUT.size == 4096
assert RegionTable.LAYOUT.size == 16
assert Region.LAYOUT.size == MetadataTable.LAYOUT.size == Item.LAYOUT.size == 32
assert LogEntry.LAYOUT.size == 64
assert Change.LAYOUT.size == 32
assert Locator.LAYOUT.size == 20
assert LocatorEntry.LAYOUT.size == 12
