"""VHD: footer, its copy, header, block table, and every block's bitmap."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from imgconv.checks.findings import Told
from imgconv.checks.inspection import Inspection
from imgconv.checks.placement import Placement
from imgconv.checks.report import Usage
from imgconv.native import is_zero
from imgconv.ondisk import vhd as ondisk
from imgconv.ranges import Column, Ranges
from imgconv.sources.vhd import BLOCK_SIZES, FOOTER
from imgconv.units import SECTOR, GiB, MiB, div_ceil, is_power_of_two, round_up

_VERSION = 0x00010000
_HEADER = ondisk.DynamicHeader.LAYOUT.size
_PIECE = 4 * MiB
_MAX_TABLE = 4 * GiB
_BATMAP = b"tdbatmap"
_LARGEST = ondisk.Geometry(65535, 16, 255)


def check_vhd(inspection: Inspection) -> Usage:
    """Check a VHD; raises what reading the file raises."""
    at = inspection.size - FOOTER
    footer = _read_footer(inspection, at)
    copy = ondisk.Footer.unpack(inspection.read(0, FOOTER))
    if footer is None:
        footer = _stand_in(inspection, copy, at)
        if footer is None:
            return Usage()
    else:
        _check_footer(inspection, footer, at)
    if footer.disk_type == ondisk.FIXED:
        return _check_fixed(inspection, footer, at)
    if footer.disk_type not in (ondisk.DYNAMIC, ondisk.DIFFERENCING):
        inspection.corruption("disk-type", at + 60, f"there is no type {footer.disk_type}")
        return Usage()
    if copy.pack() != footer.pack():
        first = next(
            i for i, (a, b) in enumerate(zip(copy.pack(), footer.pack(), strict=True)) if a != b
        )
        inspection.corruption("footer-copy", first, "the copy is not what the footer is")
    return _check_dynamic(inspection, footer, at)


def _read_footer(inspection: Inspection, at: int) -> ondisk.Footer | None:
    """Return the footer if there is one, whatever it says."""
    if at < 0:
        inspection.corruption("footer-missing", 0, "the file is too short for a footer")
        return None
    footer = ondisk.Footer.unpack(inspection.read(at, FOOTER))
    return footer if footer.cookie == ondisk.COOKIE else None


def _stand_in(inspection: Inspection, copy: ondisk.Footer, at: int) -> ondisk.Footer | None:
    """Return the copy in place of a footer that is not there."""
    inspection.corruption("footer-missing", max(at, 0), "there is no footer at the end")
    if copy.cookie != ondisk.COOKIE or copy.disk_type == ondisk.FIXED:
        return None
    _check_footer(inspection, copy, 0)
    return copy


def _check_footer(inspection: Inspection, footer: ondisk.Footer, at: int) -> None:
    """Check each field by itself."""
    require, advise = inspection.require, inspection.advise
    require(footer == footer.sealed(), "checksum", at + 64, "the footer's checksum is wrong")
    require(footer.version == _VERSION, "header-version", at + 12, f"{footer.version:#x}")
    advise(bool(footer.features & 2), "footer-features", at + 8, f"{footer.features:#x}")
    advise(not footer.features & ~3, "footer-features", at + 8, f"{footer.features:#x}")
    advise(any(footer.unique_id), "null-id", at + 68, "a null id")
    advise(footer.saved_state == 0, "saved-state", at + 84, "the machine's state was saved")
    advise(not any(footer.reserved), "footer-reserved", at + 85, "reserved bytes are in use")
    size = footer.current_size
    require(size > 0 and size % SECTOR == 0, "disk-size", at + 48, f"{size} bytes")
    fixed = footer.disk_type == ondisk.FIXED
    nowhere = footer.data_offset == ondisk.NO_OFFSET
    text = f"a header at {footer.data_offset:#x}"
    advise(not fixed or nowhere, "data-offset", at + 16, text)
    geometry = ondisk.Geometry(footer.cylinders, footer.heads, footer.sectors)
    told = geometry.cylinders * geometry.heads * geometry.sectors * SECTOR
    right = geometry in (_LARGEST, ondisk.Geometry.of(size // SECTOR)) or told == size
    advise(right, "geometry", at + 56, f"it tells {told} bytes, and the size beside it {size}")


def _check_fixed(inspection: Inspection, footer: ondisk.Footer, at: int) -> Usage:
    size = round_up(footer.current_size, SECTOR)
    text = f"{size} bytes of disk, but the file has {at} of them"
    if inspection.require(at >= size, "block-beyond-end", at + 48, text):
        inspection.advise(
            at == size, "trailing-data", size, f"{at - size} bytes more than disk"
        )
    return Usage(image_end_offset=inspection.size)


@dataclass(slots=True, eq=False)
class _Blocks:
    """The block table, read in pieces."""

    inspection: Inspection
    table: int
    entries: int
    block: int
    needed: int
    allocated: int = 0

    @property
    def bitmap(self) -> int:
        """Bytes of a bitmap with its padding."""
        return round_up(div_ceil(self.block // SECTOR, 8), SECTOR)

    def read(self) -> Iterator[tuple[Column, Column, Column]]:
        """Yield the numbers of stored blocks, where they are, and where that is told."""
        for first in range(0, self.entries, _PIECE // 4):
            self.inspection.stop.check()
            at, count = self.table + 4 * first, min(_PIECE // 4, self.entries - first)
            values = np.frombuffer(self.inspection.read(at, 4 * count), dtype=">u4")
            used = np.flatnonzero(values != ondisk.UNALLOCATED)
            yield first + used, values[used].astype(np.int64) * SECTOR, at + 4 * used

    def walk(self) -> Iterator[tuple[Column, Column]]:
        """Yield the blocks whose beginning is in the file, behind the disk's end or not."""
        for number, start, at in self.read():
            inside = (start < self.inspection.size) & (number < self.needed)
            yield start[inside], at[inside]

    def check(self) -> None:
        """Check each entry by itself."""
        length, size = self.bitmap + self.block, self.inspection.size
        for number, start, at in self.read():
            late = number >= self.needed
            self.inspection.warnings("entry-past-end", late, at, lambda _: "behind the disk")
            beyond = ~late & (start + length > size)
            self.inspection.corruptions(
                "block-beyond-end", beyond, at, Told("a block at {}", start)
            )
            self.allocated += int((~late).sum())
            self.inspection.tally.advance(_PIECE)


def _check_dynamic(inspection: Inspection, footer: ondisk.Footer, at: int) -> Usage:
    start = footer.data_offset
    text = f"a header at {start}"
    inside = start % SECTOR == 0 and start >= FOOTER and inspection.holds(start, _HEADER)
    if not inspection.require(inside, "data-offset", 16, text):
        return Usage()
    header = ondisk.DynamicHeader.unpack(inspection.read(start, _HEADER))
    if not _check_header(inspection, footer, header, start):
        return Usage()
    block, size = header.block_size, footer.current_size
    needed = div_ceil(size, block)
    entries, table = header.max_table_entries, header.table_offset
    blocks = _Blocks(inspection, table, entries, block, needed)
    inspection.tally.begin("check", 4 * entries)
    blocks.check()
    end = table + 4 * entries
    places = [(0, FOOTER), (start, start + _HEADER), (table, end), _batmap(inspection, end)]
    if inspection.read(at, 8) == ondisk.COOKIE:
        places.append((at, at + FOOTER))
    places = sorted(p for p in places if p[0] < p[1])
    taken = Ranges.of(places)
    for (_, stop), (first, _) in pairwise(places):
        inspection.require(stop <= first, "metadata-overlap", first, "metadata on metadata")
    length = blocks.bitmap + block
    placement = Placement(inspection, blocks.walk, length, taken, "a block")
    placement.check()
    _find_footer(inspection, placement.end, at)
    if inspection.data:
        _check_bitmaps(inspection, blocks)
    return Usage(
        total_clusters=needed,
        allocated_clusters=blocks.allocated,
        image_end_offset=placement.end,
    )


def _find_footer(inspection: Inspection, end: int, at: int) -> None:
    """Say where the footer is if it follows the last block, but is not at the end."""
    if end < at and inspection.read(end, 8) == ondisk.COOKIE:
        text = f"{inspection.size - end - FOOTER} bytes behind the footer, which is at {end}"
        inspection.corruption("trailing-data", end + FOOTER, text)


def _check_header(
    inspection: Inspection, footer: ondisk.Footer, header: ondisk.DynamicHeader, at: int
) -> bool:
    """Check the header; return whether the block table can be found."""
    require, advise = inspection.require, inspection.advise
    if not require(header.cookie == ondisk.DYNAMIC_COOKIE, "header-magic", at, "no header"):
        return False
    require(header == header.sealed(), "checksum", at + 36, "the header's checksum is wrong")
    require(header.version == _VERSION, "header-version", at + 24, f"{header.version:#x}")
    unused = header.data_offset == ondisk.NO_OFFSET
    advise(unused, "data-offset", at + 8, f"{header.data_offset:#x}")
    clear = not header.reserved and not any(header.reserved_end)
    advise(clear, "header-reserved", at + 60, "reserved bytes are in use")
    child = footer.disk_type == ondisk.DIFFERENCING
    alone = not any(header.parent_id)
    require(child != alone, "parent", at + 40, "the type and the parent's id do not agree")
    block, table = header.block_size, header.table_offset
    smallest, largest = BLOCK_SIZES
    possible = is_power_of_two(block) and smallest <= block <= largest
    if not require(possible, "block-size", at + 32, f"blocks of {block} bytes"):
        return False
    entries, needed = header.max_table_entries, div_ceil(footer.current_size, block)
    text = f"{entries} blocks, but the disk has {needed}"
    require(entries >= needed, "map-size", at + 28, text)
    text = f"the block table at {table}"
    require(table % SECTOR == 0, "misaligned", at + 16, text)
    inside = inspection.holds(table, 4 * entries)
    if not require(inside, "map-beyond-end", at + 16, text):
        return False
    if 4 * entries > _MAX_TABLE:
        inspection.error("too-large", at + 28, f"a table of {entries} blocks")
        return False
    return True


def _batmap(inspection: Inspection, end: int) -> tuple[int, int]:
    """Return where XenServer keeps a map of full blocks, behind the table, if it does."""
    start = round_up(end, SECTOR)
    raw = inspection.read(start, SECTOR)
    if not raw.startswith(_BATMAP):
        return 0, 0
    offset, sectors = int.from_bytes(raw[8:16], "big"), int.from_bytes(raw[16:20], "big")
    stop = offset + sectors * SECTOR
    good = start < stop <= inspection.size
    inspection.advise(good, "batmap", start + 8, f"a map of full blocks up to {stop}")
    return start, stop if good else start + SECTOR


def _check_bitmaps(inspection: Inspection, blocks: _Blocks) -> None:
    """Find data that bitmaps say were never written: of two readers one returns them."""
    length = div_ceil(blocks.block // SECTOR, 8)
    full = b"\xff" * length
    for number, starts, _ in blocks.read():
        inside = (starts + blocks.bitmap + blocks.block <= inspection.size) & (
            number < blocks.needed
        )
        for start in starts[inside].tolist():
            raw = inspection.read(start, length)
            if raw != full:
                _check_unwritten(inspection, raw, start, start + blocks.bitmap)


def _check_unwritten(inspection: Inspection, raw: bytes, at: int, data: int) -> None:
    bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8)).astype(np.int8)
    edges = np.flatnonzero(np.diff(1 - bits, prepend=0, append=0)).reshape(-1, 2) * SECTOR
    for low, high in edges.tolist():
        for start in range(low, high, MiB):
            inspection.stop.check()
            if not is_zero(inspection.read(data + start, min(MiB, high - start))):
                text = f"data at {data + start} that the bitmap says were never written"
                inspection.warning("bitmap", at, text)
                return
