"""The front of a VHDX: headers, region tables, an empty log, metadata and the block table."""

import struct
from collections.abc import Iterator
from functools import partial

import numpy as np

from imgconv.formats.base import Disk
from imgconv.formats.tables import PIECE, Table, padding
from imgconv.ondisk import vhdx as ondisk
from imgconv.segments import Meta, Segments
from imgconv.units import KiB, MiB, round_up

LOG_AT, METADATA_AT, TABLE_AT = 1 * MiB, 2 * MiB, 3 * MiB
LOG_SIZE = METADATA_SIZE = MiB
ITEMS_AT = ondisk.TABLE_SIZE  # in the metadata region
PHYSICAL_SECTOR = 4 * KiB  # what Hyper-V tells the guest of any disk
CREATOR = "imgconv".encode("utf-16-le").ljust(512, b"\0")
ENTRY = 8  # bytes of the block table


def data_offset(blocks: ondisk.Blocks) -> int:
    """Return where the first block begins."""
    return TABLE_AT + _table_size(blocks)


def _table_size(blocks: ondisk.Blocks) -> int:
    return round_up(ENTRY * blocks.entries, MiB)


def head(
    disk: Disk, blocks: ondisk.Blocks, slots: Table | None, flags: int
) -> Iterator[Segments]:
    """Yield all that lies in front of the blocks.

    `slots` holds, of each block, 1 more than the number of its place, and 0 if it has none;
    without it every block is at its own. `flags` are those of the file parameters.
    """
    at = 0
    for offset, piece in (*_fixed_parts(disk, blocks), *_metadata(disk, blocks, flags)):
        yield padding(offset - at)
        yield Segments.of([Meta.of(piece)])
        at = offset + len(piece)
    yield padding(TABLE_AT - at)
    step = PIECE // ENTRY
    for first in range(0, blocks.entries, step):
        count = min(step, blocks.entries - first)
        render = partial(_table_piece, blocks, slots, first, count)
        yield Segments.of([Meta(ENTRY * count, render)])
    yield padding(_table_size(blocks) - ENTRY * blocks.entries)


def _fixed_parts(disk: Disk, blocks: ondisk.Blocks) -> Iterator[tuple[int, bytes]]:
    """Yield what stands at places of its own, of which there are two against damage."""
    yield 0, ondisk.FileIdentifier(ondisk.SIGNATURE, CREATOR).pack()
    for sequence, at in enumerate(ondisk.HEADERS_AT, start=1):
        yield at, _header(disk, sequence).pack()
    table = ondisk.RegionTable(ondisk.REGIONS, 0, 2, 0).pack() + b"".join(
        ondisk.Region(kind, offset, length, ondisk.REQUIRED_REGION).pack()
        for kind, offset, length in (
            (ondisk.TABLE_REGION, TABLE_AT, _table_size(blocks)),
            (ondisk.METADATA_REGION, METADATA_AT, METADATA_SIZE),
        )
    )
    regions = ondisk.sealed(table.ljust(ondisk.TABLE_SIZE, b"\0"))[: len(table)]
    for at in ondisk.REGIONS_AT:
        yield at, regions


def _header(disk: Disk, sequence: int) -> ondisk.Header:
    return ondisk.Header(
        signature=ondisk.HEADER,
        checksum=0,
        sequence=sequence,
        file_write_id=ondisk.swapped(disk.identity.uuid("vhdx file")),
        data_write_id=ondisk.swapped(disk.identity.uuid("vhdx data")),
        log_id=ondisk.NO_ID,
        log_version=ondisk.LOG_VERSION,
        version=ondisk.VERSION,
        log_length=LOG_SIZE,
        log_offset=LOG_AT,
        reserved=bytes(4016),
    ).sealed()


def _metadata(disk: Disk, blocks: ondisk.Blocks, flags: int) -> Iterator[tuple[int, bytes]]:
    """Yield the table of items, and the items."""
    of_disk = ondisk.DISK_ITEM | ondisk.REQUIRED_ITEM
    parameters = ondisk.FileParameters(blocks.block_size, flags).pack()
    items = (
        (ondisk.FILE_PARAMETERS, ondisk.REQUIRED_ITEM, parameters),
        (ondisk.DISK_SIZE, of_disk, struct.pack("<Q", disk.size)),
        (ondisk.DISK_ID, of_disk, ondisk.swapped(disk.identity.uuid("vhdx disk"))),
        (ondisk.LOGICAL_SECTOR, of_disk, struct.pack("<I", blocks.sector_size)),
        (ondisk.PHYSICAL_SECTOR, of_disk, struct.pack("<I", PHYSICAL_SECTOR)),
    )
    table, at = ondisk.MetadataTable(ondisk.METADATA, 0, len(items), bytes(20)).pack(), ITEMS_AT
    for kind, item_flags, content in items:
        table += ondisk.Item(kind, at, len(content), item_flags, 0).pack()
        at += len(content)
    yield METADATA_AT, table
    yield METADATA_AT + ITEMS_AT, b"".join(content for _, _, content in items)


def _table_piece(blocks: ondisk.Blocks, slots: Table | None, first: int, count: int) -> bytes:
    """Return entries of the block table, among which those of bitmaps are empty."""
    index = np.arange(first, first + count, dtype=np.int64)
    chunk, place = np.divmod(index, blocks.ratio + 1)
    is_bitmap = place == blocks.ratio
    number = np.minimum(index - chunk, blocks.count - 1)
    slot = number if slots is None else slots[number].astype(np.int64) - 1
    where = data_offset(blocks) + slot * blocks.block_size
    entry = np.where(slot < 0, ondisk.ZERO, where | ondisk.PRESENT)
    return np.where(is_bitmap, ondisk.NOT_PRESENT, entry).astype("<u8").tobytes()
