"""VHDX: all it says of itself, and whether every block has a place of its own.

Of an image with a log to be replayed, what would be there afterwards is checked.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from imgconv.checks.findings import Told
from imgconv.checks.inspection import Inspection
from imgconv.checks.placement import Placement
from imgconv.checks.report import Usage
from imgconv.checks.vhdx_front import (
    Disk,
    check_apart,
    check_headers,
    check_log,
    check_metadata,
    check_regions,
)
from imgconv.ondisk import vhdx as ondisk
from imgconv.ranges import Column, Mask, Ranges
from imgconv.units import MiB

_ENTRY = 8
_PIECE = 4 * MiB
_PLACE = ~0xFFFFF  # of an entry
_RESERVED = 0xFFFF8


def check_vhdx(inspection: Inspection) -> Usage:
    """Check a VHDX; raises what reading the file raises."""
    header = check_headers(inspection)
    if header is not None and header.version != ondisk.VERSION:
        text = f"a VHDX of version {header.version}; only 1 is known"
        inspection.error("unsupported", ondisk.HEADERS_AT[0], text)
        return Usage()
    inspection = replace(inspection, image=check_log(inspection, header))
    areas = check_regions(inspection, header)
    disk = None if areas.metadata is None else check_metadata(inspection, areas.metadata)
    if areas.table is None or disk is None:
        return Usage()
    return _check_table(inspection, areas.table, areas.taken, disk)


def _check_table(
    inspection: Inspection,
    region: ondisk.Region,
    others: tuple[tuple[int, int], ...],
    disk: Disk,
) -> Usage:
    blocks, room, at = disk.blocks, region.length, region.offset
    entries = blocks.entries_over_parent if disk.layered else blocks.entries
    text = f"the block table has {room} bytes, but the disk has {entries} entries"
    if not inspection.require(_ENTRY * entries <= room, "map-size", at, text):
        return Usage()
    inside = inspection.holds(at, _ENTRY * entries)
    if not inspection.require(inside, "map-beyond-end", at, "the block table"):
        return Usage()
    table = _Table(inspection, blocks, at, entries, disk.layered)
    table.check()
    # QEMU leaves room before the blocks.
    taken = _merged([(0, max(table.first, ondisk.ALIGNMENT)), *others[1:]])
    bitmaps = [(low, low + ondisk.BITMAP_SIZE) for low in table.bitmaps]
    check_apart(inspection, [*_merged(others), *bitmaps], at)
    places = _merged([*taken, *bitmaps])
    placement = Placement(inspection, table.walk, blocks.block_size, places, "a block")
    placement.check()
    placement.leak_until(inspection.size)
    return Usage(
        total_clusters=blocks.count,
        allocated_clusters=table.allocated,
        image_end_offset=placement.end,
    )


def _merged(places: Iterable[tuple[int, int]]) -> Ranges:
    """Put ranges in order, and those together that touch."""
    start, stop = (np.array(column) for column in zip(*sorted(places), strict=True))
    return Ranges(start, stop).merged()


@dataclass(slots=True, eq=False)
class _Table:
    """The block table, read in pieces; `bitmaps` are where those of chunks are."""

    inspection: Inspection
    blocks: ondisk.Blocks
    start: int
    entries: int
    layered: bool
    allocated: int = field(default=0, init=False)
    bitmaps: list[int] = field(default_factory=list, init=False)
    _partly: set[int] = field(default_factory=set, init=False)  # numbers of chunks
    _told: set[int] = field(default_factory=set, init=False)

    def _pieces(self) -> Iterator[tuple[Column, Column, Mask, Column]]:
        """Yield the numbers of entries, these, which are of blocks, and where they are."""
        step = _PIECE // _ENTRY
        for first in range(0, self.entries, step):
            self.inspection.stop.check()
            count = min(step, self.entries - first)
            raw = self.inspection.read(self.start + _ENTRY * first, _ENTRY * count)
            index = np.arange(first, first + count)
            chunk, place = np.divmod(index, self.blocks.ratio + 1)
            number = chunk * self.blocks.ratio + place
            of_block = (place < self.blocks.ratio) & (number < self.blocks.count)
            entry = np.frombuffer(raw, dtype="<u8").astype(np.int64)
            yield number, entry, of_block, self.start + _ENTRY * index

    @property
    def first(self) -> int:
        """Where the first block is in the file; 0 if there is none."""
        return min((int(where.min()) for where, _ in self.walk() if len(where)), default=0)

    def walk(self) -> Iterator[tuple[Column, Column]]:
        """Yield the blocks whose beginning is in the file."""
        for _, entry, of_block, at in self._pieces():
            where = entry & _PLACE
            stored = of_block & ((entry & ondisk.STATE_BITS) >= ondisk.PRESENT)
            stored &= (where >= 0) & (where < self.inspection.size)
            yield where[stored], at[stored]

    def check(self) -> None:
        """Check each entry by itself."""
        inspection, blocks = self.inspection, self.blocks
        inspection.tally.begin("check", _ENTRY * self.entries)
        for number, entry, of_block, at in self._pieces():
            state, where = entry & ondisk.STATE_BITS, entry & _PLACE
            inspection.warnings(
                "entry-reserved", (entry & _RESERVED) != 0, at, Told("an entry {:#x}", entry)
            )
            inspection.corruptions(
                "entry-state", self._wrong(state, of_block), at, Told("state {}", state)
            )
            stored = of_block & (state >= ondisk.PRESENT)
            self.allocated += int(stored.sum())
            cut = blocks.disk_size % blocks.block_size or blocks.block_size
            need = np.where(number == blocks.count - 1, cut, blocks.block_size)
            beyond = stored & ((where < 0) | (where > inspection.size - need))
            inspection.corruptions("block-beyond-end", beyond, at, Told("a block at {}", where))
            chunk = number // blocks.ratio
            self._partly.update(chunk[of_block & (state == ondisk.PARTLY_PRESENT)].tolist())
            there = ~of_block & (state == ondisk.PRESENT)
            self._told.update((chunk[there] - 1).tolist())
            self._check_bitmaps(there, where, at)
            inspection.tally.advance(_ENTRY * len(entry))
        self._check_told()

    def _check_told(self) -> None:
        """Check that there are bitmaps for all blocks that need one."""
        ratio = self.blocks.ratio
        for chunk in sorted(self._partly - self._told) if self.layered else ():
            at = self.start + _ENTRY * (chunk * (ratio + 1) + ratio)
            text = "blocks are there in part, but no bitmap is"
            self.inspection.corruption("bitmap", at, text)

    def _wrong(self, state: Column, of_block: Mask) -> Mask:
        """Say which entries are in a state that they cannot be in."""
        block: Mask = state == 4
        bitmap: Mask = state != ondisk.NOT_PRESENT
        if self.layered:
            bitmap &= state != ondisk.PRESENT
        else:
            block |= state == ondisk.PARTLY_PRESENT
        wrong: Mask = np.where(of_block, block, bitmap)
        return wrong

    def _check_bitmaps(self, there: Mask, where: Column, at: Column) -> None:
        if self.layered:
            beyond = where > self.inspection.size - ondisk.BITMAP_SIZE
            beyond = there & (beyond | (where < 0))
            self.inspection.corruptions(
                "block-beyond-end", beyond, at, Told("a bitmap at {}", where)
            )
            self.bitmaps += where[there & ~beyond].tolist()
