"""Disks of which units are stored compressed, and others as they are or not at all."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from imgconv.found import Found
from imgconv.ranges import Column, Ranges
from imgconv.sources.checked import ImageFile
from imgconv.sources.mapped import GROUP, MappedSource, Mapping, held
from imgconv.sources.scanning import read_and_scan
from imgconv.units import SECTOR, MiB
from imgconv.workers import PerThread

TOGETHER = 64  # streams, and bytes of them, that are read at once
MOST_TOGETHER = 4 * MiB

# Takes a stream, the guest offset of its unit, and how many bytes are wanted; returns as
# many, or raises ValueError with the reason.
Unpack: TypeAlias = Callable[[memoryview, int, int], memoryview]


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Units stored compressed, each a guest range of its own, which the disk's end may cut.

    `where` is the file offset of each stream, `length` how many bytes at most belong to it.
    """

    guest: Ranges
    where: Column
    length: Column

    def rows(self, start: int, stop: int) -> range:
        """Return the numbers of the units of which something lies in [start, stop)."""
        first = int(np.searchsorted(self.guest.stop, start, side="right"))
        return range(first, int(np.searchsorted(self.guest.start, stop, side="left")))


class PackedSource(MappedSource):
    """Reads what is plain by a mapping, and decodes the rest a unit at a time."""

    def __init__(
        self,
        image: ImageFile,
        size: int,
        mapping: Mapping,
        packed: Packed,
        unpack: Unpack,
        warnings: tuple[str, ...] = (),
    ):
        super().__init__(image.file, size, mapping, warnings)
        self._image, self._packed, self._unpack = image, packed, unpack
        self._recent = PerThread()  # a unit that a reader takes piece by piece

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer; errors are the file's, and ImageMalformed for a broken stream."""
        end, guest = offset + len(buffer), self._packed.guest
        rows = self._packed.rows(offset, end)
        if guest.window(offset, end).total < len(buffer):
            super().read_into(offset, buffer)
        for row, unit in zip(rows, self._units(rows, offset, end), strict=True):
            start, stop = int(guest.start[row]), int(guest.stop[row])
            low, high = max(start, offset), min(stop, end)
            buffer[low - offset : high - offset] = unit[low - start : high - start]

    def _units(self, rows: range, offset: int, end: int) -> Iterator[memoryview]:
        """Yield units, remembering one of which only a part is wanted."""
        guest = self._packed.guest
        for first in range(rows.start, rows.stop, TOGETHER):
            some = range(first, min(first + TOGETHER, rows.stop))
            around = self._around(some) if len(some) > 1 else None
            for row in some:
                whole = offset <= guest.start[row] and guest.stop[row] <= end
                yield self._decoded(row, around) if whole else self._remembered(row)

    def _around(self, rows: range) -> tuple[int, memoryview] | None:
        """Read streams that lie together at once; return where that begins, and what it is."""
        where = self._packed.where[rows.start : rows.stop]
        length = self._packed.length[rows.start : rows.stop]
        first, last, total = int(where.min()), int((where + length).max()), int(length.sum())
        if last - first > min(total + len(rows) * SECTOR, MOST_TOGETHER):
            return None
        return first, self._read(first, last)

    def _read(self, start: int, stop: int) -> memoryview:
        content = memoryview(bytearray(stop - start))
        self.file.read_into(start, content)
        return content

    def read_runs(self, extents: Ranges, granule: int, buffer: memoryview) -> Found:
        """Read extents and find their nonzero granules; errors as of `read_into`."""
        if len(extents) and self._packed.rows(int(extents.start[0]), int(extents.stop[-1])):
            return read_and_scan(self, extents, granule, buffer)
        return super().read_runs(extents, granule, buffer)

    def _remembered(self, row: int) -> memoryview:
        recent: tuple[int, memoryview] | None = getattr(self._recent, "unit", None)
        if recent is None or recent[0] != row:
            recent = self._recent.unit = row, self._decoded(row, None)
        return recent[1]

    def _decoded(self, row: int, around: tuple[int, memoryview] | None) -> memoryview:
        """Decode a unit, whose stream may be in what was read `around` it."""
        where, length = int(self._packed.where[row]), int(self._packed.length[row])
        first, content = around or (where, self._read(where, where + length))
        start, stop = int(self._packed.guest.start[row]), int(self._packed.guest.stop[row])
        try:
            stream = content[where - first : where - first + length]
            return self._unpack(stream, start, stop - start)
        except ValueError as error:
            raise self._image.error(where, f"compressed data: {error}") from error

    def _packed_ranges(self) -> Ranges:
        return self._packed.guest

    def extents(self) -> Iterator[Ranges]:
        """Yield what is mapped, but for holes in the file, or packed."""
        data, at = self._data(), 0
        for group in self._packed.guest.groups(GROUP):
            reach = int(group.stop[-1])
            plain = held(self._pieces.window(at, reach), data)
            yield group.union(plain.window(at, reach))
            at = reach
        rest = self._pieces.window(at, self.size)
        for first in range(0, len(rest.where), GROUP):
            yield held(rest.slice(first, first + GROUP), data).window(at, self.size)
