"""The block table of a VHDX: which parts of the disk are where in the file."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from imgconv.ondisk import vhdx as ondisk
from imgconv.ranges import Column, Mask, Ranges
from imgconv.sources.checked import ImageFile
from imgconv.sources.mapped import Mapping
from imgconv.sources.vhdx_metadata import Regions
from imgconv.units import MiB

_ENTRY = 8
_PIECE = MiB // _ENTRY  # entries read at once
_GATHER = 1024
_OFFSET_BITS = ~0xFFFFF


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """What the table says: numbers of blocks, and where they begin in the file.

    `partly` marks those of which the bitmap of their chunk says which sectors are there.
    `zeros` are parts of the disk that this image says to be zeros, of interest only if it
    has a parent; so are the bitmaps.
    """

    number: Column
    where: Column
    partly: Mask
    chunk: Column
    bitmap: Column
    zeros: Ranges


def read_blocks(
    image: ImageFile, blocks: ondisk.Blocks, regions: Regions, *, layered: bool
) -> tuple[Mapping, Ranges]:
    """Return where data are, and which parts of the disk this image says something of.

    The latter matter only if it is `layered`: has a parent. Raises ImageMalformed, and
    ImageUnsupported for too many blocks.
    """
    start = regions.table.offset
    entries = blocks.entries_over_parent if layered else blocks.entries
    image.check(
        _ENTRY * entries <= regions.table.length,
        start,
        f"the block table has {regions.table.length} bytes, but the disk has {entries} entries",
    )
    image.check_inside(start, _ENTRY * entries, start, "the block table")
    parts = list[_Table]()
    for first in range(0, entries, _PIECE):
        count = min(_PIECE, entries - first)
        parts.append(_read_piece(image, blocks, start, first, count, layered))
        image.spend(len(parts[-1].number) + len(parts[-1].zeros))
    table = _joined(parts)
    _check_places(image, blocks, regions, table)
    full = ~table.partly
    mapping = Mapping.of_blocks(
        table.number[full], table.where[full], blocks.block_size, blocks.disk_size
    )
    if table.partly.any():
        sectors = _sectors(image, blocks, table, start)
        mapping = _with_sectors(mapping, sectors, blocks.disk_size)
    return mapping, mapping.guest.union(table.zeros)


def _read_piece(
    image: ImageFile, blocks: ondisk.Blocks, start: int, first: int, count: int, layered: bool
) -> _Table:
    raw = image.read(start + _ENTRY * first, _ENTRY * count, "the block table")
    entry = np.frombuffer(raw, dtype="<u8").astype(np.int64)
    chunk, place = np.divmod(np.arange(first, first + count), blocks.ratio + 1)
    state, where = entry & ondisk.STATE_BITS, entry & _OFFSET_BITS
    is_block = place < blocks.ratio
    number = chunk * blocks.ratio + place
    is_block &= number < blocks.count  # over a parent the last chunk has entries to spare
    wrong = is_block & (state == 4)
    if not layered:
        wrong |= is_block & (state == ondisk.PARTLY_PRESENT)
    for row in np.flatnonzero(wrong)[:1].tolist():
        at = start + _ENTRY * (first + row)
        raise image.error(at, f"a block in state {int(state[row])}")
    stored = is_block & (state >= ondisk.PRESENT)
    bitmap = (place == blocks.ratio) & (state == ondisk.PRESENT) if layered else place < 0
    absent = is_block & (state != ondisk.NOT_PRESENT) & ~stored
    return _Table(
        number[stored],
        where[stored],
        state[stored] == ondisk.PARTLY_PRESENT,
        chunk[bitmap],
        where[bitmap],
        _spans(number[absent], blocks) if layered else Ranges.of([]),
    )


def _spans(number: Column, blocks: ondisk.Blocks) -> Ranges:
    """Return which part of the disk blocks are."""
    start = number * blocks.block_size
    return Ranges(start, np.minimum(start + blocks.block_size, blocks.disk_size)).merged()


def _joined(parts: list[_Table]) -> _Table:
    return _Table(
        np.concatenate([part.number for part in parts]),
        np.concatenate([part.where for part in parts]),
        np.concatenate([part.partly for part in parts]),
        np.concatenate([part.chunk for part in parts]),
        np.concatenate([part.bitmap for part in parts]),
        Ranges.concat([part.zeros for part in parts]).merged(),
    )


def _check_places(
    image: ImageFile, blocks: ondisk.Blocks, regions: Regions, table: _Table
) -> None:
    """Refuse blocks and bitmaps that are not in the file, or lie on anything else."""
    at, size = regions.table.offset, ondisk.BITMAP_SIZE
    image.check_places(table.bitmap, size, regions.taken, at)
    taken = [*regions.taken, *((low, low + size) for low in table.bitmap.tolist())]
    # QEMU lets the file of a fixed disk end with the disk, within its last block.
    image.check_blocks(
        table.number, table.where, blocks.block_size, blocks.disk_size, taken, at
    )


def _sectors(
    image: ImageFile, blocks: ondisk.Blocks, table: _Table, at: int
) -> Iterator[Column]:
    """Yield where sectors that are there start and stop on the disk, and start in the file,
    in a row each, of many blocks at once. The table is at `at`."""
    length = blocks.block_size // blocks.sector_size // 8
    number, where = table.number[table.partly], table.where[table.partly]
    chunk, place = np.divmod(number, blocks.ratio)
    row = np.searchsorted(table.chunk, chunk)
    has_bitmap = np.append(table.chunk, -1)[row] == chunk
    for missing in number[~has_bitmap][:1].tolist():
        raise image.error(at, f"block {missing} is there in part, but no bitmap says which")
    recent = list[Column]()
    columns = (number * blocks.block_size, where, table.bitmap[row] + place * length)
    for first, stored, bitmap in zip(*(column.tolist() for column in columns), strict=True):
        raw = image.read(bitmap, length, "a sector bitmap")
        base = np.array([[first], [first], [stored]])
        recent.append(base + _set_bits(raw) * blocks.sector_size)
        image.spend(recent[-1].shape[1])
        if len(recent) == _GATHER:  # a small array costs ten times what is in it
            yield np.concatenate(recent, axis=1)
            recent = []
    if recent:
        yield np.concatenate(recent, axis=1)


def _set_bits(bitmap: bytes) -> Column:
    """Return where runs of set bits start, stop, and start, in a row each."""
    bits = np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8), bitorder="little")
    ends = np.flatnonzero(np.diff(bits.astype(np.int8), prepend=0, append=0))
    start, stop = ends.reshape(-1, 2).T
    return np.stack((start, stop, start)).astype(np.int64)


def _with_sectors(mapping: Mapping, sectors: Iterator[Column], size: int) -> Mapping:
    """Put sectors among the blocks; the last block may have more of them than the disk."""
    whole = np.stack((mapping.guest.start, mapping.guest.stop, mapping.where))
    found = np.concatenate([whole, *sectors], axis=1)
    found = found[:, found[0] < size]
    start, stop, where = found[:, np.argsort(found[0])]
    return Mapping(Ranges(start, np.minimum(stop, size)), where)
