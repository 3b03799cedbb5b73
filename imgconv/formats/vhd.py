"""VHD (Virtual PC, Hyper-V, Azure, XenServer): dynamic and fixed.

A dynamic file is a footer copy, a dynamic header, the block table, the blocks in guest
order, and the footer. Blocks stand where their data begin at a multiple of 4 KiB, as
Hyper-V wants on hosts with 4 KiB sectors; the footer follows the last block directly, as
XenServer's streaming import expects. Each stored block's bitmap is all ones: some
readers drop sectors whose bit is clear.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from imgconv.errors import OptionError
from imgconv.formats.base import Disk, PlannedWriter
from imgconv.formats.body import FlatBody
from imgconv.formats.tables import Table, mapped_table
from imgconv.identity import Identity
from imgconv.ondisk import vhd as ondisk
from imgconv.options import check_fields, choice_option, switch_option
from imgconv.ranges import Ranges
from imgconv.segments import DATA, META, ZEROS, Meta, Segments, Zeros
from imgconv.units import SECTOR, GiB, KiB, MiB, TiB, div_ceil, round_up

BLOCK = 2 * MiB
BITMAP = Meta.of(b"\xff" * (BLOCK // SECTOR // 8))
PAGE = 4 * KiB
GAP = PAGE - BITMAP.length  # between blocks, so that the data are page aligned
STRIDE = PAGE + BLOCK
TABLE_OFFSET = ondisk.Footer.LAYOUT.size + ondisk.DynamicHeader.LAYOUT.size

MAX_DYNAMIC = 2040 * GiB  # sector numbers of 32 bits; qemu, Hyper-V, XenServer
MIN_AZURE, MAX_FIXED = 20 * MiB, 32 * TiB  # what Azure takes as a managed disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Vhd:
    """VHD output options."""

    name: ClassVar[str] = "vhd"

    subformat: str = choice_option(
        "dynamic", ("dynamic", "fixed"), "store only blocks with data, or the whole disk"
    )
    azure: bool = switch_option(
        False,
        "round the disk up to a whole MiB, at least 20, as Azure wants (subformat=fixed only)",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.azure and self.subformat != "fixed":
            raise OptionError("azure=on needs subformat=fixed: Azure takes no dynamic VHD")

    @property
    def max_size(self) -> int:
        """2040 GiB for a dynamic disk, 32 TiB for a fixed one."""
        return MAX_FIXED if self.subformat == "fixed" else MAX_DYNAMIC

    def writer(self, disk: Disk) -> PlannedWriter:
        """Return the writer of the subformat."""
        if self.subformat == "dynamic":
            return DynamicWriter(disk)
        size = max(round_up(disk.size, MiB), MIN_AZURE) if self.azure else disk.size
        return FixedWriter(disk._replace(size=size))


def make_footer(size: int, identity: Identity, disk_type: int) -> ondisk.Footer:
    """Return the sealed footer of a disk.

    The creator is Hyper-V's, for which every reader takes the exact size and none the
    rounded one of the geometry.
    """
    geometry = ondisk.Geometry.of(size // SECTOR)
    return ondisk.Footer(
        cookie=ondisk.COOKIE,
        features=2,
        version=0x00010000,
        data_offset=ondisk.NO_OFFSET
        if disk_type == ondisk.FIXED
        else ondisk.Footer.LAYOUT.size,
        timestamp=min(max(identity.timestamp - ondisk.EPOCH, 0), 0xFFFFFFFF),
        creator_application=b"win ",
        creator_version=0x000A0000,
        creator_host_os=b"Wi2k",
        original_size=size,
        current_size=size,
        cylinders=geometry.cylinders,
        heads=geometry.heads,
        sectors=geometry.sectors,
        disk_type=disk_type,
        checksum=0,
        unique_id=identity.uuid("vhd"),
        saved_state=0,
        reserved=bytes(427),
    ).sealed()


class FixedWriter(PlannedWriter):
    """The guest's bytes, then the footer."""

    head_size = 0
    unit = PAGE

    def __init__(self, disk: Disk):
        self.size = disk.size
        self._footer = make_footer(disk.size, disk.identity, ondisk.FIXED)
        self._body = FlatBody()

    def place(self, runs: Ranges) -> Segments:
        """Put runs at their own offsets."""
        return self._body.place(runs)

    def finish(self) -> Iterator[Segments]:
        """Fill up to the disk's size and add the footer."""
        yield self._body.finish(self.size)
        yield Segments.of([Meta.of(self._footer.pack())])

    def head(self) -> Iterator[Segments]:
        """A fixed VHD has none."""
        return iter(())


class DynamicWriter(PlannedWriter):
    """Blocks of 2 MiB in guest order behind the block table."""

    unit = BLOCK

    def __init__(self, disk: Disk):
        self.size = disk.size
        self._blocks = div_ceil(disk.size, BLOCK)
        # Bitmap sector numbers; 0 stands for "absent" until the table is rendered, so
        # that the pages of a sparse table are never touched. Whole sectors of entries.
        self._table = np.zeros(round_up(self._blocks, SECTOR // 4), dtype=np.uint32)
        self.head_size = TABLE_OFFSET + self._table.nbytes
        self._at = self.head_size
        self._footer = make_footer(disk.size, disk.identity, ondisk.DYNAMIC)

    def place(self, runs: Ranges) -> Segments:
        """Append a gap, a bitmap and the data of every block touched."""
        blocks = runs.units(BLOCK)
        count = len(blocks)
        if not count:
            return Segments.of(())
        first_gap = -(self._at + BITMAP.length) % PAGE
        first_bitmap = self._at + first_gap
        self._table[blocks] = (first_bitmap + STRIDE * np.arange(count)) // SECTOR
        self._at = first_bitmap + STRIDE * count - GAP
        length = np.minimum(BLOCK, self.size - blocks * BLOCK)
        rows = np.zeros((3, count, 3), dtype=np.int64)  # kind, length, ref
        rows[0] = ZEROS, META, DATA
        rows[1] = np.column_stack((np.full((count, 2), (GAP, BITMAP.length)), length))
        rows[1, 0, 0] = first_gap
        rows[2, :, 2] = blocks * BLOCK
        kind, lengths, refs = rows.reshape(3, -1)
        placed = Segments(kind.astype(np.uint8), lengths, refs, (BITMAP,))
        return Segments.concat([placed, Segments.of([Zeros(BLOCK - int(length[-1]))])])

    def finish(self) -> Iterator[Segments]:
        """Add the footer."""
        yield Segments.of([Meta.of(self._footer.pack())])

    def head(self) -> Iterator[Segments]:
        """Footer copy, dynamic header, block table."""
        header = ondisk.DynamicHeader(
            cookie=ondisk.DYNAMIC_COOKIE,
            data_offset=ondisk.NO_OFFSET,
            table_offset=TABLE_OFFSET,
            version=0x00010000,
            max_table_entries=self._blocks,
            block_size=BLOCK,
            checksum=0,
            parent_id=bytes(16),
            parent_timestamp=0,
            reserved=0,
            parent_name=bytes(512),
            parent_locators=bytes(192),
            reserved_end=bytes(256),
        ).sealed()
        yield Segments.of([Meta.of(self._footer.pack() + header.pack())])
        yield from mapped_table(self._table, _encode_table)


def _encode_table(piece: Table) -> Table:
    return np.where(piece == 0, ondisk.UNALLOCATED, piece).astype(">u4")
