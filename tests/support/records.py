"""Records of small sound images, whose fields a test replaces."""

from imgconv.ondisk import vdi, vhd
from imgconv.units import SECTOR


def vhd_footer(size: int) -> vhd.Footer:
    """Of a dynamic disk of `size` bytes, not sealed."""
    return vhd.Footer(
        cookie=vhd.COOKIE,
        features=2,
        version=0x10000,
        data_offset=SECTOR,
        timestamp=0,
        creator_application=b"win ",
        creator_version=0xA0000,
        creator_host_os=b"Wi2k",
        original_size=size,
        current_size=size,
        cylinders=10,
        heads=4,
        sectors=17,
        disk_type=vhd.DYNAMIC,
        checksum=0,
        unique_id=b"u" * 16,
        saved_state=0,
        reserved=bytes(427),
    )


def vhd_header(block: int) -> vhd.DynamicHeader:
    """Of three blocks of `block` bytes, their table at 1536, not sealed."""
    return vhd.DynamicHeader(
        cookie=vhd.DYNAMIC_COOKIE,
        data_offset=vhd.NO_OFFSET,
        table_offset=1536,
        version=0x10000,
        max_table_entries=3,
        block_size=block,
        checksum=0,
        parent_id=bytes(16),
        parent_timestamp=0,
        reserved=0,
        parent_name=bytes(512),
        parent_locators=bytes(192),
        reserved_end=bytes(256),
    )


def vdi_header(size: int, block: int) -> vdi.Header:
    """Of three blocks of `block` bytes, two of them stored; map at 512, data at 1024."""
    return vdi.Header(
        text=vdi.TEXT,
        signature=vdi.SIGNATURE,
        version=vdi.VERSION,
        header_size=400,
        image_type=vdi.DYNAMIC,
        flags=0,
        comment=bytes(256),
        map_offset=512,
        data_offset=1024,
        legacy_cylinders=0,
        legacy_heads=0,
        legacy_sectors=0,
        sector_size=512,
        unused=0,
        disk_size=size,
        block_size=block,
        block_extra=0,
        blocks=3,
        blocks_allocated=2,
        image_id=b"i" * 16,
        modification_id=b"m" * 16,
        parent_id=bytes(16),
        parent_modification_id=bytes(16),
        cylinders=0,
        heads=0,
        sectors=0,
        logical_sector_size=512,
    )
