"""VDI (VirtualBox): dynamic and fixed.

Header, block map at 1 MiB, blocks of 1 MiB from the next MiB on, in guest order and
without gaps in their numbering: VirtualBox demands the map before the data and dense
indices. All ids are set; VirtualBox refuses null ones, and two disks with the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from imgconv.formats.base import Disk, PlannedWriter
from imgconv.formats.body import FlatBody, packed
from imgconv.formats.tables import PIECE, Table, mapped_table, padding
from imgconv.ondisk import vdi as ondisk
from imgconv.options import check_fields, choice_option
from imgconv.ranges import Ranges
from imgconv.segments import Meta, Segments
from imgconv.units import KiB, MiB, div_ceil, round_up

BLOCK = ondisk.BLOCK_SIZE
MAP_OFFSET = MiB
MAX_BLOCKS = 0x1FFFFF80  # qemu's limit, about 512 TiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Vdi:
    """VDI output options."""

    name: ClassVar[str] = "vdi"

    subformat: str = choice_option(
        "dynamic", ("dynamic", "fixed"), "store only blocks with data, or the whole disk"
    )

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def max_size(self) -> int:
        """About 512 TiB: 0x1fffff80 blocks of 1 MiB."""
        return MAX_BLOCKS * BLOCK

    def writer(self, disk: Disk) -> PlannedWriter:
        """Return the writer of the subformat."""
        return DynamicWriter(disk) if self.subformat == "dynamic" else FixedWriter(disk)


def _data_offset(blocks: int) -> int:
    return round_up(MAP_OFFSET + 4 * blocks, MiB)


def _make_header(disk: Disk, image_type: int, allocated: int) -> ondisk.Header:
    blocks = div_ceil(disk.size, BLOCK)
    return ondisk.Header(
        text=ondisk.TEXT,
        signature=ondisk.SIGNATURE,
        version=ondisk.VERSION,
        header_size=ondisk.HEADER_SIZE,
        image_type=image_type,
        flags=0,
        comment=bytes(256),
        map_offset=MAP_OFFSET,
        data_offset=_data_offset(blocks),
        legacy_cylinders=0,
        legacy_heads=0,
        legacy_sectors=0,
        sector_size=512,
        unused=0,
        disk_size=disk.size,
        block_size=BLOCK,
        block_extra=0,
        blocks=blocks,
        blocks_allocated=allocated,
        image_id=disk.identity.uuid("vdi image"),
        modification_id=disk.identity.uuid("vdi modification"),
        parent_id=bytes(16),
        parent_modification_id=bytes(16),
        cylinders=0,
        heads=0,
        sectors=0,
        logical_sector_size=512,
    )


def _head(header: ondisk.Header, block_map: Iterator[Segments]) -> Iterator[Segments]:
    """Header and map, each padded to where the next part begins."""
    yield Segments.of([Meta.of(header.pack())])
    yield padding(MAP_OFFSET - header.LAYOUT.size)
    yield from block_map
    yield padding(header.data_offset - MAP_OFFSET - 4 * header.blocks)


def _encode_map(piece: Table) -> Table:
    # Unsigned wrap-around turns 0 into FREE.
    return (piece - np.uint32(1)).astype("<u4")


def _identity_map(blocks: int) -> Iterator[Segments]:
    """The map of a fixed disk, made piece by piece: block n is stored as number n."""
    for first in range(0, blocks, PIECE // 4):
        count = min(PIECE // 4, blocks - first)
        yield Segments.of([Meta(4 * count, partial(_counting_piece, first, count))])


def _counting_piece(first: int, count: int) -> bytes:
    return np.arange(first, first + count, dtype="<u4").tobytes()


class DynamicWriter(PlannedWriter):
    """Only the blocks that hold data, in guest order."""

    unit = BLOCK

    def __init__(self, disk: Disk):
        self.size = disk.size
        self._disk = disk
        # Block n is kept as n + 1 and "free" as 0, so that the pages of a sparse map are
        # never touched.
        self._map = np.zeros(div_ceil(disk.size, BLOCK), dtype=np.uint32)
        self._allocated = 0
        self.head_size = _data_offset(len(self._map))

    def place(self, runs: Ranges) -> Segments:
        """Append blocks and number them."""
        blocks = runs.units(BLOCK)
        self._map[blocks] = self._allocated + 1 + np.arange(len(blocks))
        self._allocated += len(blocks)
        return packed(runs, BLOCK)

    def finish(self) -> Iterator[Segments]:
        """Nothing follows the blocks."""
        return iter(())

    def head(self) -> Iterator[Segments]:
        """Header and block map."""
        header = _make_header(self._disk, ondisk.DYNAMIC, self._allocated)
        yield from _head(header, mapped_table(self._map, _encode_map))


class FixedWriter(PlannedWriter):
    """Every block, at its own place; all metadata is known from the start."""

    head_size = 0
    unit = 4 * KiB

    def __init__(self, disk: Disk):
        self.size = disk.size
        self._disk = disk
        self._blocks = div_ceil(disk.size, BLOCK)
        self._body = FlatBody()

    def begin(self) -> Iterator[Segments]:
        """Header and the identity map."""
        header = _make_header(self._disk, ondisk.FIXED, self._blocks)
        yield from _head(header, _identity_map(self._blocks))

    def place(self, runs: Ranges) -> Segments:
        """Put runs at their own offsets behind the map."""
        return self._body.place(runs)

    def finish(self) -> Iterator[Segments]:
        """Fill up the last block."""
        yield self._body.finish(self._blocks * BLOCK)

    def head(self) -> Iterator[Segments]:
        """Nothing is left for last."""
        return iter(())
