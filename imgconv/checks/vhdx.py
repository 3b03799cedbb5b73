"""VHDX: both headers and region tables, and whether every block has a place of its own.

Of an image with a log to be replayed, what would be there afterwards is checked. Headers,
regions and metadata are read as for opening, so that the first thing wrong with them ends the
check; block tables are looked through to the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from imgconv.checks.findings import Told
from imgconv.checks.inspection import Inspection
from imgconv.checks.placement import Placement
from imgconv.checks.report import Usage
from imgconv.errors import ImageMalformed, ImageUnsupported
from imgconv.ondisk import vhdx as ondisk
from imgconv.ranges import Column, Mask, Ranges
from imgconv.sources.vhdx_log import replayed
from imgconv.sources.vhdx_metadata import Kind, Regions, read_header, read_kind, read_regions
from imgconv.units import MiB

_ENTRY = 8
_PIECE = 4 * MiB
_PLACE = ~0xFFFFF  # of an entry
_RESERVED = 0xFFFF8


def check_vhdx(inspection: Inspection) -> Usage:
    """Check a VHDX; raises what reading the file raises."""
    try:
        header = read_header(inspection.image)
        _check_copies(inspection)
        present = replayed(inspection.image, header)
        inspection.advise(
            present is inspection.image, "dirty", header.log_offset, "a log to be replayed"
        )
        inspection = replace(inspection, image=present)
        regions = read_regions(present, header)
        kind = read_kind(present, regions.metadata)
    except ImageMalformed as error:
        inspection.corruption("structure", error.offset, error.reason)
        return Usage()
    except ImageUnsupported as error:
        inspection.error("unsupported", 0, str(error))
        return Usage()
    return _check_table(inspection, regions, kind)


def _check_copies(inspection: Inspection) -> None:
    """Check what the file has twice; while it is in use, one header is as it should be."""
    for at in ondisk.HEADERS_AT:
        header = ondisk.Header.unpack(inspection.read(at, ondisk.Header.LAYOUT.size))
        right = header.signature == ondisk.HEADER and header == header.sealed()
        inspection.advise(right, "header-copy", at, "a header whose checksum is wrong")
    tables = [inspection.read(at, ondisk.TABLE_SIZE) for at in ondisk.REGIONS_AT]
    for at, raw in zip(ondisk.REGIONS_AT, tables, strict=True):
        right = ondisk.RegionTable.unpack(raw).checksum == ondisk.checksum(raw)
        inspection.advise(right, "region-copy", at, "a region table whose checksum is wrong")
    same = tables[0] == tables[1]
    inspection.advise(same, "region-copy", ondisk.REGIONS_AT[1], "the region tables differ")


def _check_table(inspection: Inspection, regions: Regions, kind: Kind) -> Usage:
    layered = kind.locator is not None
    entries = kind.blocks.entries_over_parent if layered else kind.blocks.entries
    room, at = regions.table.length, regions.table.offset
    text = f"the block table has {room} bytes, but the disk has {entries} entries"
    if not inspection.require(_ENTRY * entries <= room, "map-size", at, text):
        return Usage()
    inside = inspection.holds(at, _ENTRY * entries)
    if not inspection.require(inside, "map-beyond-end", at, "the block table"):
        return Usage()
    table = _Table(inspection, kind.blocks, at, entries, layered)
    table.check()
    taken = [*regions.taken, *((low, low + ondisk.BITMAP_SIZE) for low in table.bitmaps)]
    taken[0] = (0, max(table.first, ondisk.ALIGNMENT))  # QEMU leaves room before the blocks
    length = kind.blocks.block_size
    start, stop = (np.array(column) for column in zip(*taken, strict=True))
    placement = Placement(inspection, table.walk, length, Ranges(start, stop), "a block")
    placement.check()
    placement.leak_until(inspection.size)
    return Usage(
        total_clusters=kind.blocks.count,
        allocated_clusters=table.allocated,
        image_end_offset=placement.end,
    )


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
            self._check_bitmaps(~of_block & (state == ondisk.PRESENT), where, at)
            inspection.tally.advance(_ENTRY * len(entry))

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
            beyond = there & (where > self.inspection.size - ondisk.BITMAP_SIZE)
            self.inspection.corruptions(
                "block-beyond-end", beyond, at, Told("a bitmap at {}", where)
            )
            self.bitmaps += where[there & ~beyond].tolist()
