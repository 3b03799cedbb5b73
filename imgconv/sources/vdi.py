"""VDI images: dynamic and fixed, as VirtualBox and QEMU write them."""

from dataclasses import replace
from uuid import UUID

from imgconv.errors import ImageUnsupported
from imgconv.ondisk import vdi as ondisk
from imgconv.ranges import Column
from imgconv.sources.base import Source
from imgconv.sources.checked import ImageFile
from imgconv.sources.description import PARENT, Description, Reference
from imgconv.sources.mapped import MappedSource, Mapping
from imgconv.units import SECTOR, KiB, MiB, div_ceil, is_power_of_two

BLOCK_SIZES = 128 * KiB, 128 * MiB  # what VirtualBox opens
UNDO, DIFFERENCING = 3, 4
ZERO = 0xFFFFFFFE  # an entry of this and above stands for no block
_SUBFORMATS = {
    ondisk.DYNAMIC: "dynamic",
    ondisk.FIXED: "fixed",
    UNDO: "undo",
    DIFFERENCING: "differencing",
}
_OLD_HEADER = 384  # bytes from the size field on, before there was a logical geometry


def open_vdi(image: ImageFile) -> Source:
    """Read header and block map, and return the disk.

    Raises ImageMalformed, ImageUnsupported for one that needs a parent or is too large, and
    what reading the file raises.
    """
    header = _read_header(image)
    _check_header(image, header)
    size, warnings = image.rounded(header.disk_size)
    image.check_size(size)
    numbers, where = _read_map(image, header)
    mapping = Mapping.of_blocks(numbers, where, header.block_size, size)
    return MappedSource(image.file, size, replace(mapping, full=True), warnings)


def describe_vdi(image: ImageFile) -> Description:
    """Say what the header tells, also of an image that needs a parent.

    Raises ImageMalformed, ImageUnsupported for other versions, and what reading raises.
    """
    header = _read_header(image)
    parent = tuple[Reference, ...]()
    if any(header.parent_id):
        parent = (Reference(role=PARENT, name=str(UUID(bytes_le=header.parent_id))),)
    kind = header.image_type
    size, warnings = image.rounded(header.disk_size)
    return Description(
        virtual_size=size,
        version="1.1",
        options={
            "subformat": _SUBFORMATS.get(kind, f"type {kind}"),
            "block_size": header.block_size,
        },
        references=parent,
        warnings=warnings,
    )


def _read_header(image: ImageFile) -> ondisk.Header:
    header = ondisk.Header.unpack(image.read(0, ondisk.Header.LAYOUT.size, "the header"))
    image.check(header.signature == ondisk.SIGNATURE, 0x40, "no signature of a VDI")
    if header.version != ondisk.VERSION:
        raise ImageUnsupported(
            f"{image.file.name}: a VDI of version {header.version >> 16}."
            f"{header.version & 0xFFFF}; only 1.1 is known"
        )
    return header


def _check_header(image: ImageFile, header: ondisk.Header) -> None:
    """Refuse what cannot be, and what would need another image."""
    image.check(header.header_size >= _OLD_HEADER, 0x48, "the header is too short")
    if header.image_type in (UNDO, DIFFERENCING) or any(header.parent_id):
        raise ImageUnsupported(f"{image.file.name}: a VDI that needs its parent image")
    known = header.image_type in (ondisk.DYNAMIC, ondisk.FIXED)
    image.check(known, 0x4C, f"there is no type {header.image_type}")
    image.check(header.sector_size == SECTOR, 0x168, "sectors are not of 512 bytes")
    smallest, largest = BLOCK_SIZES
    image.check(
        is_power_of_two(header.block_size) and smallest <= header.block_size <= largest,
        0x178,
        f"blocks of {header.block_size} bytes",
    )
    image.check(header.block_extra % SECTOR == 0, 0x17C, "blocks do not begin at sectors")
    image.check(header.block_extra <= largest, 0x17C, f"{header.block_extra} bytes before each")
    image.check(header.disk_size > 0, 0x170, "the disk has no size")
    needed = div_ceil(header.disk_size, header.block_size)
    image.check(
        header.blocks >= needed, 0x180, f"{header.blocks} blocks, but the disk has {needed}"
    )
    end_of_header = 0x48 + min(header.header_size, ondisk.HEADER_SIZE)
    image.check(header.map_offset >= end_of_header, 0x154, "the block map is in the header")
    map_end = header.map_offset + 4 * needed
    image.check(header.data_offset >= map_end, 0x158, "blocks begin before the map ends")


def _read_map(image: ImageFile, header: ondisk.Header) -> tuple[Column, Column]:
    """Return the numbers of stored blocks, and where their content begins."""
    needed = div_ceil(header.disk_size, header.block_size)
    number, index = image.stored_blocks(header.map_offset, needed, "<u4", ZERO, "the block map")
    stride = header.block_size + header.block_extra
    last = (image.file.size - header.data_offset) // stride  # so that nothing overflows
    for slot in index[index > last][:1].tolist():
        start = header.data_offset + slot * stride
        image.check_inside(start, stride, header.map_offset, "a block")
    where = header.data_offset + index * stride
    # Blocks lie in slots behind the map, so that only one another can be in their way.
    image.check_blocks(
        number,
        where,
        header.block_size,
        header.disk_size,
        (),
        header.map_offset,
        front=header.block_extra,
    )
    return number, where + header.block_extra
