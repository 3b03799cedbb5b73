"""VHD images: fixed, dynamic and differencing, of every creator."""

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from imgconv.errors import ImageUnsupported, one_line
from imgconv.ondisk import vhd as ondisk
from imgconv.ranges import Column, Ranges
from imgconv.sources.base import Source
from imgconv.sources.checked import ImageFile
from imgconv.sources.description import PARENT, Description, Options, Reference
from imgconv.sources.layered import Layer
from imgconv.sources.mapped import MappedSource, Mapping
from imgconv.sources.references import open_reference
from imgconv.sources.vhd_parent import parent_name
from imgconv.units import SECTOR, GiB, KiB, div_ceil, is_power_of_two, round_up

FOOTER = ondisk.Footer.LAYOUT.size
BLOCK_SIZES = 4 * KiB, GiB
# Programs whose disks have the size that their geometry tells, and not the one beside it.
GEOMETRY_COUNTS = (b"vpc ", b"qemu")
_GATHER = 64 * KiB  # of bitmaps that are taken apart at once
_SUBFORMATS = {
    ondisk.FIXED: "fixed",
    ondisk.DYNAMIC: "dynamic",
    ondisk.DIFFERENCING: "differencing",
}
_LARGEST_GEOMETRY = ondisk.Geometry(65535, 16, 255)
BitRows: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]


def open_vhd(image: ImageFile) -> Source:
    """Read footer, header and block table, and return the disk.

    Raises ImageMalformed, ImageUnsupported for one that is too large or needs a parent that
    is not allowed or not the right one, and what reading a file raises.
    """
    footer, at = _find_footer(image)
    known = footer.disk_type in (ondisk.FIXED, ondisk.DYNAMIC, ondisk.DIFFERENCING)
    image.check(known, at + 60, f"there is no type {footer.disk_type}")
    size = round_up(_disk_size(footer), SECTOR)
    image.check(size > 0, at + 48, "the disk has no size")
    image.check_size(size)
    warnings = _warnings(image, footer, at)
    if footer.disk_type == ondisk.FIXED:
        image.check(at >= size, at + 48, f"{size} bytes of disk, but the file has {at} of them")
        whole = Mapping(Ranges.single(0, size), np.zeros(1, np.int64), full=True)
        return MappedSource(image.file, size, whole, warnings)
    header = _read_header(image, footer, at)
    mapping = _read_blocks(image, footer, header, at, size)
    if footer.disk_type == ondisk.DYNAMIC:
        return MappedSource(image.file, size, replace(mapping, full=True), warnings)
    disk = MappedSource(image.file, size, mapping, warnings)
    return Layer(disk, mapping.guest.merged()).over(_open_parent(image, header))


def _open_parent(image: ImageFile, header: ondisk.DynamicHeader) -> Source:
    """Open the disk that shows where this one was never written."""
    what = "its parent"
    file = open_reference(image, parent_name(image, header), what)
    try:
        parent = image.needed(file)
        footer, _ = _find_footer(parent)
        if footer.unique_id != header.parent_id:
            raise ImageUnsupported(
                f"{image.file.name}: needs another parent: {file.name} has the id "
                f"{footer.unique_id.hex()}, not {header.parent_id.hex()}"
            )
        return open_vhd(parent)
    except BaseException:
        file.close()
        raise


def describe_vhd(image: ImageFile) -> Description:
    """Say what footer and header tell.

    Raises ImageMalformed, and what reading the file raises.
    """
    footer, at = _find_footer(image)
    kind = footer.disk_type
    found: Options = {"subformat": _SUBFORMATS.get(kind, f"type {kind}")}
    parent = tuple[Reference, ...]()
    if kind in (ondisk.DYNAMIC, ondisk.DIFFERENCING):
        header = _read_header(image, footer, at)
        found["block_size"] = header.block_size
        if kind == ondisk.DIFFERENCING:
            name = one_line(parent_name(image, header))
            parent = (Reference(role=PARENT, name=name, format="vhd"),)
    return Description(
        virtual_size=round_up(_disk_size(footer), SECTOR),
        version=f"{footer.version >> 16}.{footer.version & 0xFFFF}",
        options=found,
        references=parent,
        warnings=_warnings(image, footer, at),
    )


def _find_footer(image: ImageFile) -> tuple[ondisk.Footer, int]:
    """Return the footer, or of a dynamic disk that has lost it the copy in front, and where
    it is."""
    size = image.file.size
    image.check(size >= FOOTER, 0, "the file is too short for a footer")
    for at in (size - FOOTER, 0):
        footer = ondisk.Footer.unpack(image.read(at, FOOTER, "the footer"))
        if footer.cookie != ondisk.COOKIE:
            continue
        if footer == footer.sealed() and (at > 0 or footer.disk_type != ondisk.FIXED):
            return footer, at
    raise image.error(size - FOOTER, "there is no footer whose checksum is right")


def _disk_size(footer: ondisk.Footer) -> int:
    """Return what readers take for the disk's size, in bytes."""
    geometry = ondisk.Geometry(footer.cylinders, footer.heads, footer.sectors)
    told = geometry.cylinders * geometry.heads * geometry.sectors * SECTOR
    counts = footer.creator_application in GEOMETRY_COUNTS and geometry != _LARGEST_GEOMETRY
    return told if counts and 0 < told < footer.current_size else footer.current_size


def _warnings(image: ImageFile, footer: ondisk.Footer, at: int) -> tuple[str, ...]:
    """Return remarks: on a footer that is lost, a size that is in doubt, and a running
    machine, from which something may be missing."""
    found, size, other = list[str](), _disk_size(footer), footer.current_size
    if at == 0:
        found.append("its footer is lost or damaged; the copy in front is used")
    if size < other:
        found.append(
            f"its geometry, which counts for its creator, tells {size} bytes, and the size "
            f"beside it {other}; what is behind {size} is left out"
        )
    if footer.saved_state:
        found.append("its machine was saved while it ran; what it had yet to write is missing")
    return tuple(f"{image.file.name}: {remark}" for remark in found)


def _read_header(
    image: ImageFile, footer: ondisk.Footer, footer_at: int
) -> ondisk.DynamicHeader:
    at = footer.data_offset
    image.check(at % SECTOR == 0, footer_at + 16, "the header does not begin at a sector")
    raw = image.read(at, ondisk.DynamicHeader.LAYOUT.size, "the header")
    header = ondisk.DynamicHeader.unpack(raw)
    image.check(header.cookie == ondisk.DYNAMIC_COOKIE, at, "no header of a dynamic disk")
    image.check(header == header.sealed(), at + 36, "the header's checksum is wrong")
    block = header.block_size
    smallest, largest = BLOCK_SIZES
    possible = is_power_of_two(block) and smallest <= block <= largest
    image.check(possible, at + 32, f"blocks of {block} bytes")
    return header


def _read_blocks(
    image: ImageFile,
    footer: ondisk.Footer,
    header: ondisk.DynamicHeader,
    footer_at: int,
    size: int,
) -> Mapping:
    """Return where the sectors are that were ever written."""
    at, block = footer.data_offset, header.block_size
    needed, table = div_ceil(size, block), header.table_offset
    image.check(
        header.max_table_entries >= needed,
        at + 28,
        f"{header.max_table_entries} blocks, but the disk has {needed}",
    )
    image.check(table % SECTOR == 0, at + 16, "the block table does not begin at a sector")
    number, sector = image.stored_blocks(
        table, needed, ">u4", ondisk.UNALLOCATED, "the block table"
    )
    bitmaps = sector * SECTOR
    bitmap = round_up(block // SECTOR // 8, SECTOR)
    metadata = [
        (0, FOOTER),
        (at, at + ondisk.DynamicHeader.LAYOUT.size),
        (table, table + 4 * needed),
        (footer_at, footer_at + FOOTER),
    ]
    image.check_blocks(number, bitmaps, block, size, metadata, table, front=bitmap)
    return _written_sectors(image, number, bitmaps, block, size)


def _written_sectors(
    image: ImageFile, number: Column, bitmaps: Column, block: int, size: int
) -> Mapping:
    """Leave out of the blocks what their bitmaps say was never written, which is zeros."""
    length, room = block // SECTOR // 8, round_up(block // SECTOR // 8, SECTOR)
    pieces, step = [np.empty((3, 0), np.int64)], max(_GATHER // length, 1)
    for low in range(0, len(number), step):
        rows = slice(low, low + step)
        raw = image.read_tables(bitmaps[rows], length)
        first = np.stack((number[rows] * block, bitmaps[rows] + room))
        pieces.append(_written(np.frombuffer(raw, np.uint8).reshape(-1, length), first, block))
        image.spend(pieces[-1].shape[1])
    found = np.concatenate(pieces, axis=1)
    del pieces
    found = found[:, found[0] < size]  # the last block may have more sectors than the disk
    start, stop, where = found[:, np.argsort(found[0])]
    return Mapping(Ranges(start, np.minimum(stop, size)), where)


def _written(bitmaps: BitRows, first: Column, block: int) -> Column:
    """Return where runs of set bits start and stop in the guest, and start in the file, in a
    row each; `first` has where the blocks start in the guest and in the file."""
    whole = (bitmaps == 0xFF).all(axis=1)
    some = np.flatnonzero(bitmaps.any(axis=1) & ~whole)
    bits = np.unpackbits(bitmaps[some], axis=1).astype(np.int8)
    edge = np.diff(bits, axis=1, prepend=np.int8(0), append=np.int8(0))
    row, start = np.nonzero(edge == 1)
    stop = np.nonzero(edge == -1)[1]
    guest, file = first[:, some][:, row]
    start, stop = start * SECTOR, stop * SECTOR
    partly = np.stack((guest + start, guest + stop, file + start))
    guest, file = first[:, whole]
    return np.concatenate((np.stack((guest, guest + block, file)), partly), axis=1)
