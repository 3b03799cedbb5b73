"""Sparse extents of ESX: COWD, and the space-efficient ones. Both are parts of a disk."""

from dataclasses import dataclass

import numpy as np

from imgconv.errors import ImageUnsupported
from imgconv.ondisk import vmdk_esx as ondisk
from imgconv.ranges import Column, Mask, Ranges
from imgconv.sources.checked import ImageFile
from imgconv.sources.layered import Layer
from imgconv.sources.mapped import MappedSource
from imgconv.sources.vmdk_grains import Decode, Tables, check_grains, read_grains
from imgconv.units import SECTOR, div_ceil

MAX_COWD_GRAIN = 2048  # sectors
MAX_TABLES = 1 << 22
_ZERO, _UNMAPPED, _STORED = 2, 1, 3  # types of space-efficient grains


def open_cowd(image: ImageFile) -> Layer:
    """Return what a COWD extent says of its part of a disk.

    Raises ImageMalformed, and what reading the file raises.
    """
    header = ondisk.CowdHeader.unpack(
        image.read(0, ondisk.CowdHeader.LAYOUT.size, "the header")
    )
    image.check(header.magic == ondisk.COWD_MAGIC, 0, "no signature of a COWD extent")
    image.check(header.version == 1, 4, f"version {header.version}")
    image.check(header.capacity > 0, 12, "the disk has no size")
    grain = header.grain_size
    image.check(0 < grain <= MAX_COWD_GRAIN, 16, f"grains of {grain} sectors")
    count = div_ceil(header.capacity, grain * ondisk.COWD_TABLE_ENTRIES)
    there = header.directory_entries
    image.check(there >= count, 24, f"{there} grain tables, but the disk has {count}")
    start, length = header.directory_offset * SECTOR, 4 * count
    image.check(start >= SECTOR, 20, "the grain directory is in the header")
    image.check_inside(start, length, 20, "the grain directory")
    raw = image.read(start, length, "the grain directory")
    sectors = np.frombuffer(raw, dtype="<u4").astype(np.int64)
    used = np.flatnonzero(sectors)
    tables = Tables(
        number=used,
        where=sectors[used] * SECTOR,
        entries=ondisk.COWD_TABLE_ENTRIES,
        kind="<u4",
        grain=grain * SECTOR,
    )
    _check_tables(image, tables, start, 4)
    fixed = Ranges.of([(0, SECTOR), (start, start + length)])
    return _layer(image, header.capacity * SECTOR, tables, fixed, _decode_sectors, start)


def _decode_sectors(entries: Column) -> tuple[Column, Mask, Mask]:
    every = np.ones(len(entries), dtype=np.bool_)
    return entries * SECTOR, every, ~every


def open_sesparse(image: ImageFile) -> Layer:
    """Return what a space-efficient extent says of its part of a disk.

    Raises ImageMalformed, ImageUnsupported when its journal is in use, and what reading the
    file raises.
    """
    raw = image.read(0, ondisk.SeSparseHeader.LAYOUT.size, "the header")
    header = ondisk.SeSparseHeader.unpack(raw)
    _check_header(image, header)
    _check_journal(image, header)
    count = div_ceil(header.capacity, ondisk.SESPARSE_GRAIN * ondisk.SESPARSE_TABLE_ENTRIES)
    start = header.directory_offset * SECTOR
    image.check(count <= MAX_TABLES, 16, f"{count} grain tables")
    image.check(
        header.directory_size * SECTOR >= 8 * count, 136, "the grain directory is too short"
    )
    image.check_inside(start, 8 * count, 128, "the grain directory")
    entries = np.frombuffer(image.read(start, 8 * count, "the grain directory"), dtype="<u8")
    used = np.flatnonzero(entries)
    known = entries[used] >> np.uint64(32) == ondisk.SESPARSE_USED_TABLE
    for row in used[~known][:1].tolist():
        raise image.error(start + 8 * row, "no entry of a grain directory")
    index = (entries[used] & np.uint64(0xFFFFFFFF)).astype(np.int64)
    for row in used[index >= header.tables_size // ondisk.SESPARSE_TABLE][:1].tolist():
        raise image.error(start + 8 * row, "a grain table outside the place for them")
    tables = Tables(
        number=used,
        where=(header.tables_offset + index * ondisk.SESPARSE_TABLE) * SECTOR,
        entries=ondisk.SESPARSE_TABLE_ENTRIES,
        kind="<u8",
        grain=ondisk.SESPARSE_GRAIN * SECTOR,
    )
    _check_tables(image, tables, start, 8)
    fixed = Ranges.of([(0, SECTOR), (start, start + 8 * count)])
    decode = _SpaceEfficient(image, header.grains_offset, header.grains_size)
    return _layer(image, header.capacity * SECTOR, tables, fixed, decode, start)


def _check_header(image: ImageFile, header: ondisk.SeSparseHeader) -> None:
    image.check(header.magic == ondisk.SESPARSE_MAGIC, 0, "no signature of such an extent")
    image.check(header.version == ondisk.SESPARSE_VERSION, 8, f"version {header.version:#x}")
    image.check(header.capacity > 0, 16, "the disk has no size")
    image.check_size(header.capacity * SECTOR)
    image.check(header.grain_size == ondisk.SESPARSE_GRAIN, 24, "grains are not of 4 KiB")
    image.check(header.table_size == ondisk.SESPARSE_TABLE, 32, "tables are not of 32 KiB")
    image.check(header.flags == 0, 40, f"unknown flags {header.flags:#x}")
    reserved = (header.reserved_1, header.reserved_2, header.reserved_3, header.reserved_4)
    image.check(not any(reserved), 48, "reserved fields are in use")
    sectors = image.file.size // SECTOR
    for at, offset, length in (
        (128, header.directory_offset, header.directory_size),
        (144, header.tables_offset, header.tables_size),
        (192, header.grains_offset, 0),  # more room for grains is reserved than there is
    ):
        inside = offset > 0 and offset + length <= sectors
        image.check(inside, at, f"{length} sectors from {offset} on are not in the file")


def _check_journal(image: ImageFile, header: ondisk.SeSparseHeader) -> None:
    start, kind = header.volatile_header_offset * SECTOR, ondisk.SeSparseVolatileHeader
    image.check_inside(start, kind.LAYOUT.size, 80, "the volatile header")
    found = kind.unpack(image.read(start, kind.LAYOUT.size, "the volatile header"))
    image.check(found.magic == kind.MAGIC, start, "no signature of a volatile header")
    if found.replay_journal:
        raise ImageUnsupported(f"{image.file.name}: its journal was not replayed")


@dataclass(frozen=True, slots=True)
class _SpaceEfficient:
    """Entries have a type in their first digit, and a number turned by twelve bits."""

    image: ImageFile
    grains_offset: int
    grains_size: int

    def __call__(self, entries: Column) -> tuple[Column, Mask, Mask]:
        kind = entries >> 60 & 15
        known = (kind == _STORED) | (kind == _ZERO) | (kind == _UNMAPPED)
        at = self.grains_offset * SECTOR
        for _ in entries[~known][:1].tolist():
            raise self.image.error(at, "a grain of an unknown type")
        index = (entries & 0x0FFF << 48) >> 48 | (entries & (1 << 48) - 1) << 12
        stored = kind == _STORED
        sectors = self.image.file.size // SECTOR
        last = min(self.grains_size, sectors) // ondisk.SESPARSE_GRAIN
        for number in index[stored & (index >= last)][:1].tolist():
            raise self.image.error(at, f"grain {number} is outside the place for them")
        return (self.grains_offset + index * ondisk.SESPARSE_GRAIN) * SECTOR, stored, ~stored


def _check_tables(image: ImageFile, tables: Tables, start: int, entry: int) -> None:
    beyond = tables.where + tables.length > image.file.size
    for row in tables.number[beyond][:1].tolist():
        raise image.error(start + entry * row, "a grain table beyond the end of the file")
    image.check_apart(tables.places, start)  # before they are read many times


def _layer(
    image: ImageFile,
    size: int,
    tables: Tables,
    fixed: Ranges,
    decode: Decode,
    start: int,
) -> Layer:
    image.check_size(size)
    grains = read_grains(image, tables, size, decode)
    places = tables.places
    metadata = Ranges(
        np.concatenate((fixed.start, places.start)), np.concatenate((fixed.stop, places.stop))
    )
    check_grains(image, grains.mapping, metadata, start)
    return Layer(MappedSource(image.file, size, grains.mapping), grains.own)
