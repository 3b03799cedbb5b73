"""VDI: header, block map, and whether every block has a place of its own."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from imgconv.checks.findings import Told
from imgconv.checks.inspection import Inspection
from imgconv.checks.placement import Placement
from imgconv.checks.report import Usage
from imgconv.ondisk import vdi as ondisk
from imgconv.ranges import Column, Ranges
from imgconv.sources.vdi import BLOCK_SIZES, DIFFERENCING, UNDO, ZERO
from imgconv.units import SECTOR, GiB, MiB, div_ceil, is_power_of_two

_OLD_HEADER = 384
_KNOWN_FLAGS = 0x0103  # zero expand, and what VirtualBox keeps of a disk being made
_PIECE = 4 * MiB
_MAX_MAP = 4 * GiB


def check_vdi(inspection: Inspection) -> Usage:
    """Check a VDI; raises what reading the file raises."""
    header = ondisk.Header.unpack(inspection.read(0, ondisk.Header.LAYOUT.size))
    if not _can_go_on(inspection, header):
        return Usage()
    _check_fields(inspection, header)
    block_map = _Map(inspection, header)
    block_map.check()
    taken = Ranges.of([(0, 0x48 + header.header_size), block_map.place])
    taken = Ranges.of([(0, max(header.data_offset, int(taken.stop[-1])))])
    stride = header.block_size + header.block_extra
    placement = Placement(inspection, block_map.walk, stride, taken, "a block")
    placement.check()
    placement.leak_until(inspection.size)
    return Usage(
        total_clusters=header.blocks,
        allocated_clusters=block_map.allocated,
        image_end_offset=placement.end,
    )


def _can_go_on(inspection: Inspection, header: ondisk.Header) -> bool:
    """Check what the map depends on."""
    require = inspection.require
    if not require(header.signature == ondisk.SIGNATURE, "header-magic", 0x40, "no signature"):
        return False
    if header.version != ondisk.VERSION:
        inspection.error("header-version", 0x44, f"version {header.version:#x} is not known")
        return False
    smallest, largest = BLOCK_SIZES
    possible = is_power_of_two(header.block_size) and smallest <= header.block_size <= largest
    text = f"blocks of {header.block_size} bytes"
    good = require(possible, "block-size", 0x178, text)
    text = f"{header.block_extra} bytes before each block"
    good &= require(header.block_extra % SECTOR == 0, "block-size", 0x17C, text)
    good &= require(header.disk_size > 0, "disk-size", 0x170, "the disk has no size")
    text = f"a map of {header.blocks} blocks at {header.map_offset}"
    inside = inspection.holds(header.map_offset, 4 * header.blocks)
    good &= require(inside, "map-beyond-end", 0x154, text)
    if 4 * header.blocks > _MAX_MAP:
        inspection.error("too-large", 0x180, f"a map of {header.blocks} blocks")
        return False
    return good


def _check_fields(inspection: Inspection, header: ondisk.Header) -> None:
    """Check what nothing else depends on."""
    require, advise = inspection.require, inspection.advise
    size = header.header_size
    require(size >= _OLD_HEADER, "header-length", 0x48, f"a header of {size} bytes")
    known = ondisk.DYNAMIC <= header.image_type <= DIFFERENCING
    require(known, "image-type", 0x4C, f"there is no type {header.image_type}")
    flags = header.flags
    advise(not flags & ~_KNOWN_FLAGS, "header-flags", 0x50, f"flags {flags:#x}")
    require(header.sector_size == SECTOR, "sector-size", 0x168, f"{header.sector_size} bytes")
    if size >= ondisk.HEADER_SIZE:
        logical = header.logical_sector_size
        require(logical == SECTOR, "sector-size", 0x1D4, f"{logical} bytes")
    whole = header.disk_size % SECTOR == 0
    advise(whole, "disk-size", 0x170, f"{header.disk_size} bytes are no whole sectors")
    needed = div_ceil(header.disk_size, header.block_size)
    text = f"{header.blocks} blocks, but the disk has {needed}"
    require(header.blocks >= needed, "map-size", 0x180, text)
    for at, start in ((0x154, header.map_offset), (0x158, header.data_offset)):
        advise(start % SECTOR == 0, "misaligned", at, f"{start} is not where a sector begins")
    end = 0x48 + min(size, ondisk.HEADER_SIZE)
    require(header.map_offset >= end, "metadata-overlap", 0x154, "the map is in the header")
    end = header.map_offset + 4 * header.blocks
    text = f"blocks begin at {header.data_offset}, before the map ends at {end}"
    require(header.data_offset >= end, "metadata-overlap", 0x158, text)
    for at, name in ((0x188, header.image_id), (0x198, header.modification_id)):
        advise(any(name), "null-id", at, "a null id, which VirtualBox refuses")
    child = header.image_type in (UNDO, DIFFERENCING)
    text = "the type and the parent's id do not agree"
    require(child == any(header.parent_id), "parent", 0x1A8, text)
    alone = child or not any(header.parent_modification_id)
    require(alone, "parent", 0x1B8, "a base image with a parent's id")


@dataclass(slots=True, eq=False)
class _Map:
    """The block map, read in pieces."""

    inspection: Inspection
    header: ondisk.Header
    allocated: int = field(default=0, init=False)

    @property
    def place(self) -> tuple[int, int]:
        """Where in the file it is."""
        start = self.header.map_offset
        return start, start + 4 * self.header.blocks

    def _entries(self) -> Iterator[tuple[Column, Column, Column]]:
        """Yield the numbers of stored blocks, their indices, and where these are told."""
        start, stop = self.place
        for at in range(start, stop, _PIECE):
            self.inspection.stop.check()
            raw = self.inspection.read(at, min(_PIECE, stop - at))
            entries = np.frombuffer(raw, dtype="<u4")
            used = np.flatnonzero(entries < ZERO)
            yield (at - start) // 4 + used, entries[used].astype(np.int64), at + 4 * used

    def walk(self) -> Iterator[tuple[Column, Column]]:
        """Yield the blocks whose beginning is in the file."""
        for _, index, at in self._entries():
            start = self._start(index)
            inside = start < self.inspection.size
            yield start[inside], at[inside]

    def _start(self, index: Column) -> Column:
        header = self.header
        return header.data_offset + index * (header.block_size + header.block_extra)

    def check(self) -> None:
        """Check each entry by itself, and the number of all."""
        header, last = self.header, div_ceil(self.header.disk_size, self.header.block_size) - 1
        stride = header.block_size + header.block_extra
        missing = header.block_size - (
            header.disk_size % header.block_size or header.block_size
        )
        self.inspection.tally.begin("check", 4 * header.blocks)
        for number, index, at in self._entries():
            within = index < header.blocks
            self.inspection.corruptions(
                "index-out-of-range", ~within, at, Told("index {}", index)
            )
            self.allocated += int(within.sum())
            need = stride - np.where(number == last, missing, 0)
            beyond = within & (self._start(index) + need > self.inspection.size)
            self.inspection.corruptions("block-beyond-end", beyond, at, Told("index {}", index))
            if header.image_type == ondisk.FIXED:
                self.inspection.warnings(
                    "not-in-place", within & (index != number), at, lambda _: "of a fixed disk"
                )
            self.inspection.tally.advance(min(_PIECE, 4 * header.blocks))
        stored = header.blocks_allocated
        text = f"{stored} blocks are said to be stored, but {self.allocated} are"
        self.inspection.require(stored == self.allocated, "blocks-allocated", 0x184, text)
