"""VMDK records (VMware "Virtual Disk Format 5.0", open-vmdk `vmware_vmdk.h`); little endian."""

import struct
from dataclasses import dataclass
from typing import ClassVar

from imgconv.ondisk.record import Record

MAGIC = b"KDMV"
TEXT_MAGICS = (  # what the text begins with, all of which VirtualBox takes (`VMDK.cpp`)
    b"# Disk DescriptorFile",
    b"# Disk Descriptor File",
    b"#Disk DescriptorFile",
    b"#Disk Descriptor File",
)
GRAIN_SIZE = 64 << 10
TABLE_ENTRIES = 512  # grains per grain table
TABLE_SIZE = 4 * TABLE_ENTRIES
TABLE_SPAN = GRAIN_SIZE * TABLE_ENTRIES  # guest bytes per grain table
DESCRIPTOR_SECTOR, DESCRIPTOR_SECTORS = 1, 20

FLAG_NEWLINE_TEST = 1 << 0
FLAG_REDUNDANT_TABLE = 1 << 1
FLAG_ZEROED_GRAINS = 1 << 2  # an entry of 1 is a grain of zeros
FLAG_COMPRESSED = 1 << 16
FLAG_MARKERS = 1 << 17
DIRECTORY_AT_END = 0xFFFFFFFFFFFFFFFF
DEFLATE = 1
NEWLINE_TEST = b"\n \r\n"

MARKER_TABLE, MARKER_DIRECTORY, MARKER_FOOTER = 1, 2, 3
END_OF_STREAM = bytes(512)


@dataclass(frozen=True, slots=True)
class SparseHeader(Record):
    """The first sector of a sparse extent, and the footer of a streamed one."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<4sIIQQQQIQQQB4sH433s")

    magic: bytes  # 0
    version: int  # 4
    flags: int  # 8
    capacity: int  # 12, sectors
    grain_size: int  # 20, sectors
    descriptor_offset: int  # 28, sectors
    descriptor_size: int  # 36, sectors
    table_entries: int  # 44
    redundant_directory_offset: int  # 48, sectors
    directory_offset: int  # 56, sectors
    overhead: int  # 64, sectors before the first grain
    unclean_shutdown: int  # 72
    newline_test: bytes  # 73
    compression: int  # 77
    padding: bytes  # 79


@dataclass(frozen=True, slots=True)
class GrainMarker(Record):
    """Stands in front of a compressed grain, whose data follow at byte 12."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QI")

    sector: int  # 0, of the guest
    length: int  # 8, bytes


@dataclass(frozen=True, slots=True)
class MetadataMarker(Record):
    """A sector in front of a grain table, grain directory or footer."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QII496s")

    sectors: int  # 0, of what follows
    zero: int  # 8, tells a metadata marker from a grain
    marker_type: int  # 12
    padding: bytes  # 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """The text that names the disk; embedded in sparse files from sector 1 on."""

    content_id: int
    long_content_id: bytes
    create_type: str
    extent_name: str
    sectors: int
    adapter_type: str
    cylinders: int
    heads: int
    sectors_per_track: int
    image_id: str
    modification_id: str

    def text(self) -> str:
        """Return the descriptor's lines, each ended by a line feed."""
        null = "00000000-0000-0000-0000-000000000000"
        return "\n".join(
            [
                "# Disk DescriptorFile",
                "version=1",
                'encoding="UTF-8"',
                f"CID={self.content_id:08x}",
                "parentCID=ffffffff",
                f'createType="{self.create_type}"',
                "",
                "# Extent description",
                f'RW {self.sectors} SPARSE "{self.extent_name}"',
                "",
                "# The Disk Data Base",
                "#DDB",
                "",
                'ddb.virtualHWVersion = "4"',
                f'ddb.adapterType = "{self.adapter_type}"',
                f'ddb.geometry.cylinders = "{self.cylinders}"',
                f'ddb.geometry.heads = "{self.heads}"',
                f'ddb.geometry.sectors = "{self.sectors_per_track}"',
                f'ddb.longContentID = "{self.long_content_id.hex()}"',
                'ddb.toolsInstallType = "4"',
                'ddb.toolsVersion = "2147483647"',
                f'ddb.uuid.image = "{self.image_id}"',
                f'ddb.uuid.modification = "{self.modification_id}"',
                f'ddb.uuid.parent = "{null}"',
                f'ddb.uuid.parentmodification = "{null}"',
                "",
            ]
        )


assert SparseHeader.LAYOUT.size == 512
assert GrainMarker.LAYOUT.size == 12
assert MetadataMarker.LAYOUT.size == 512
