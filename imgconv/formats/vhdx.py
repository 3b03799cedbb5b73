"""VHDX (Hyper-V): dynamic and fixed.

Headers, region tables, an empty log, metadata and the block table, each at a MiB of its own,
then the blocks in guest order. What holds no data is said to be zero: of a block that is
merely absent a reader may return anything.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from imgconv.errors import OptionError
from imgconv.formats.base import Disk, PlannedWriter
from imgconv.formats.body import FlatBody
from imgconv.formats.vhdx_head import data_offset, head
from imgconv.ondisk import vhdx as ondisk
from imgconv.options import check_fields, choice_option, size_option
from imgconv.ranges import Ranges
from imgconv.segments import Segments
from imgconv.units import KiB, MiB, is_power_of_two

USUAL_BLOCKS = 1 << 20  # at most, unless the user says otherwise: a block table of 8 MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Vhdx:
    """VHDX output options."""

    name: ClassVar[str] = "vhdx"

    subformat: str = choice_option(
        "dynamic", ("dynamic", "fixed"), "store only blocks with data, or the whole disk"
    )
    block_size: int | None = size_option(
        None, "1M..256M", "a power of two; by default 1M up to 1 TiB, 2M up to 2 TiB, and so on"
    )

    def __post_init__(self) -> None:
        check_fields(self)
        smallest, largest = ondisk.BLOCK_SIZES
        block = self.block_size
        if block is not None and not (is_power_of_two(block) and smallest <= block <= largest):
            raise OptionError(
                f"block_size={block}: must be a power of two from {smallest} to {largest}"
            )

    @property
    def max_size(self) -> int:
        """64 TiB."""
        return ondisk.MAX_SIZE

    def writer(self, disk: Disk) -> PlannedWriter:
        """Return the writer of the subformat."""
        block_size = self.block_size or usual_block_size(disk.size)
        blocks = ondisk.Blocks(disk_size=disk.size, block_size=block_size)
        writer = DynamicWriter if self.subformat == "dynamic" else FixedWriter
        return writer(disk, blocks)


def usual_block_size(size: int) -> int:
    """Return the smallest block with which the table of a disk stays short."""
    block = MiB
    while size > block * USUAL_BLOCKS:
        block *= 2
    return block


class DynamicWriter(PlannedWriter):
    """Only the blocks that hold data, in guest order.

    A unit is no block but a piece of one, as blocks may be larger than what fits into memory
    for every thread.
    """

    unit = MiB

    def __init__(self, disk: Disk, blocks: ondisk.Blocks):
        self.size = disk.size
        self.head_size = data_offset(blocks)
        self._disk, self._blocks = disk, blocks
        # The place of block n is kept as one more than its number and "none" as 0, so that
        # the pages of a sparse table are never touched.
        self._slots = np.zeros(blocks.count, dtype=np.uint32)
        self._used, self._last = 0, -1
        self._body = FlatBody()

    def place(self, runs: Ranges) -> Segments:
        """Put runs into the blocks they belong to, of which new ones are the next ones."""
        if not len(runs):
            return Segments.of(())
        block = self._blocks.block_size
        pieces = runs.split(block)
        number = pieces.start // block
        is_new = np.diff(number, prepend=self._last) > 0
        slot = self._used + np.cumsum(is_new)
        self._slots[number] = slot
        self._used, self._last = int(slot[-1]), int(number[-1])
        return self._body.place(pieces, (slot - 1) * block + pieces.start % block)

    def finish(self) -> Iterator[Segments]:
        """Fill up the last block."""
        yield self._body.finish(self._used * self._blocks.block_size)

    def head(self) -> Iterator[Segments]:
        """All metadata."""
        return head(self._disk, self._blocks, self._slots, flags=0)


class FixedWriter(PlannedWriter):
    """Every block, at its own place; all metadata is known from the start."""

    head_size = 0
    unit = 4 * KiB

    def __init__(self, disk: Disk, blocks: ondisk.Blocks):
        self.size = disk.size
        self._disk, self._blocks = disk, blocks
        self._body = FlatBody()

    def begin(self) -> Iterator[Segments]:
        """All metadata."""
        return head(self._disk, self._blocks, None, flags=ondisk.LEAVE_ALLOCATED)

    def place(self, runs: Ranges) -> Segments:
        """Put runs at their own offsets behind the metadata."""
        return self._body.place(runs)

    def finish(self) -> Iterator[Segments]:
        """Fill up the last block."""
        yield self._body.finish(self._blocks.count * self._blocks.block_size)

    def head(self) -> Iterator[Segments]:
        """Nothing is known late."""
        return iter(())
