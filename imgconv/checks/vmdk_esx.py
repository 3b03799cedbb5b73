"""Sparse extents of ESX: COWD, and the space-efficient ones."""

from collections.abc import Iterator

import numpy as np

from imgconv.checks.inspection import Inspection
from imgconv.checks.placement import Placement
from imgconv.checks.report import Usage
from imgconv.checks.vmdk_grains import (
    Decode,
    Tables,
    check_metadata,
    read_directory,
    tables_within,
    walk,
)
from imgconv.ondisk import vmdk_esx as ondisk
from imgconv.ranges import Column, Mask, Ranges
from imgconv.sources.vmdk_esx import MAX_COWD_GRAIN, MAX_TABLES
from imgconv.units import SECTOR, div_ceil

_UNMAPPED, _ZERO, _STORED = 1, 2, 3


def check_cowd(inspection: Inspection) -> Usage:
    """Check a COWD extent."""
    header = ondisk.CowdHeader.unpack(inspection.read(0, SECTOR))
    require, grain = inspection.require, header.grain_size
    if header.version != 1:
        inspection.error("header-version", 4, f"version {header.version} is not known")
        return Usage()
    good = require(header.capacity > 0, "disk-size", 12, "the disk has no size")
    possible = 0 < grain <= MAX_COWD_GRAIN
    if not good & require(possible, "grain-size", 16, f"grains of {grain} sectors"):
        return Usage()
    count = div_ceil(header.capacity, grain * ondisk.COWD_TABLE_ENTRIES)
    text = f"{header.directory_entries} grain tables, but the disk has {count}"
    require(header.directory_entries >= count, "directory-size", 24, text)
    start = header.directory_offset * SECTOR
    read = read_directory(inspection, start, 20, count, "<u4")
    if read is None:
        return Usage()
    at = start + 4 * read[0]
    where = read[1] * SECTOR
    fixed = Ranges.of([(0, SECTOR), (start, start + 4 * count)])
    return _check_grains(
        inspection, read[0], where, at, "<u4", grain, header.capacity, _sectors, fixed
    )


def _sectors(entries: Column) -> tuple[Column, Mask, Mask]:
    every = np.ones(len(entries), dtype=np.bool_)
    return entries * SECTOR, every, ~every


def check_sesparse(inspection: Inspection) -> Usage:
    """Check a space-efficient extent."""
    raw = inspection.read(0, ondisk.SeSparseHeader.LAYOUT.size)
    header = ondisk.SeSparseHeader.unpack(raw)
    if not _check_header(inspection, header):
        return Usage()
    count = div_ceil(header.capacity, ondisk.SESPARSE_GRAIN * ondisk.SESPARSE_TABLE_ENTRIES)
    start = header.directory_offset * SECTOR
    text = f"a grain directory of {header.directory_size} sectors for {count} tables"
    enough = header.directory_size * SECTOR >= 8 * count
    inspection.require(enough, "directory-size", 136, text)
    if count > MAX_TABLES:
        inspection.error("too-large", 16, f"{count} grain tables")
        return Usage()
    read = read_directory(inspection, start, 128, count, "<u8")
    if read is None:
        return Usage()
    number, entries = read
    at, index = start + 8 * number, entries & 0xFFFFFFFF
    known = entries >> 32 == ondisk.SESPARSE_USED_TABLE
    known &= index < header.tables_size // ondisk.SESPARSE_TABLE
    inspection.corruptions("directory-entry", ~known, at, lambda n: f"{int(entries[n]):#x}")
    number, at, index = number[known], at[known], index[known]
    where = (header.tables_offset + index * ondisk.SESPARSE_TABLE) * SECTOR
    decode = _decode_types(inspection, header)
    fixed = Ranges.of([(0, SECTOR), (start, start + 8 * count)])
    return _check_grains(
        inspection,
        number,
        where,
        at,
        "<u8",
        ondisk.SESPARSE_GRAIN,
        header.capacity,
        decode,
        fixed,
    )


def _check_header(inspection: Inspection, header: ondisk.SeSparseHeader) -> bool:
    require = inspection.require
    if header.version != ondisk.SESPARSE_VERSION:
        inspection.error("header-version", 8, f"version {header.version:#x} is not known")
        return False
    good = require(0 < header.capacity < 1 << 53, "disk-size", 16, f"{header.capacity} sectors")
    grain, table = header.grain_size, header.table_size
    possible = grain == ondisk.SESPARSE_GRAIN
    good &= require(possible, "grain-size", 24, f"grains of {grain} sectors")
    possible = table == ondisk.SESPARSE_TABLE
    good &= require(possible, "table-entries", 32, f"tables of {table} sectors")
    reserved = (header.reserved_1, header.reserved_2, header.reserved_3, header.reserved_4)
    clear = header.flags == 0 and not any(reserved)
    require(clear, "header-reserved", 40, "flags and reserved fields are in use")
    sectors = inspection.size // SECTOR
    for at, offset, length in (
        (128, header.directory_offset, header.directory_size),
        (144, header.tables_offset, header.tables_size),
        (192, header.grains_offset, 0),  # more room for grains is reserved than there is
    ):
        inside = offset > 0 and offset + length <= sectors
        text = f"{length} sectors from {offset} on"
        good &= require(inside, "area-beyond-end", at, text)
    start, kind = header.volatile_header_offset * SECTOR, ondisk.SeSparseVolatileHeader
    inside = inspection.holds(start, kind.LAYOUT.size)
    if require(inside, "area-beyond-end", 80, f"the volatile header at {start}"):
        found = kind.unpack(inspection.read(start, kind.LAYOUT.size))
        require(found.magic == kind.MAGIC, "header-magic", start, "no volatile header")
        replayed = not found.replay_journal
        require(replayed, "journal", start + 24, "its journal was not replayed")
    return good


def _decode_types(inspection: Inspection, header: ondisk.SeSparseHeader) -> Decode:
    """Entries have a type in their first digit, and a number turned by twelve bits."""
    last = min(header.grains_size, inspection.size) // ondisk.SESPARSE_GRAIN

    def decode(entries: Column) -> tuple[Column, Mask, Mask]:
        kind = entries >> 60 & 15
        known = (kind == _STORED) | (kind == _ZERO) | (kind == _UNMAPPED)
        index = (entries & 0x0FFF << 48) >> 48 | (entries & (1 << 48) - 1) << 12
        stored = kind == _STORED
        wrong = ~known | (stored & (index >= last))
        index = np.where(wrong, 0, index)
        return (header.grains_offset + index * ondisk.SESPARSE_GRAIN) * SECTOR, stored, wrong

    return decode


def _check_grains(
    inspection: Inspection,
    number: Column,
    where: Column,
    at: Column,
    kind: str,
    grain: int,
    capacity: int,
    decode: Decode,
    fixed: Ranges,
) -> Usage:
    length = np.dtype(kind).itemsize * ondisk.COWD_TABLE_ENTRIES
    inside = tables_within(inspection, where, at, length)
    tables = Tables(
        number=number[inside],
        where=where[inside],
        said_at=at[inside],
        entries=ondisk.COWD_TABLE_ENTRIES,
        kind=kind,
        grain=grain * SECTOR,
        size=capacity * SECTOR,
        decode=decode,
    )
    pieces = Ranges.concat([fixed, tables.places])
    said_at = np.concatenate((fixed.start, tables.said_at))
    taken = check_metadata(inspection, pieces, said_at)

    def places() -> Iterator[tuple[Column, Column]]:
        for found in walk(inspection, tables):
            yield found.start, found.said_at

    allocated = sum(len(found.number) for found in walk(inspection, tables, report=True))
    placement = Placement(inspection, places, tables.grain, taken, "a grain")
    for _ in placement.windows():
        pass
    return Usage(
        total_clusters=div_ceil(capacity, grain),
        allocated_clusters=allocated,
        image_end_offset=placement.end,
    )
