"""Disks of which units are stored compressed, and others as they are or not at all."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from imgconv.found import Found
from imgconv.ranges import Column, Ranges
from imgconv.sources.checked import ImageFile
from imgconv.sources.mapped import GROUP, MappedSource, Mapping
from imgconv.sources.scanning import read_and_scan
from imgconv.workers import PerThread

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
        for row, stream in zip(rows, self._streams(rows), strict=True):
            start, stop = int(guest.start[row]), int(guest.stop[row])
            low, high = max(start, offset), min(stop, end)
            whole = high - low == stop - start
            unit = self._decoded(row, stream) if whole else self._remembered(row, stream)
            buffer[low - offset : high - offset] = unit[low - start : high - start]

    def _streams(self, rows: range) -> Iterator[memoryview]:
        """Yield streams, of which those that lie together are read together."""
        where = self._packed.where[rows.start : rows.stop]
        ends = where + self._packed.length[rows.start : rows.stop]
        first, last = (int(where.min()), int(ends.max())) if rows else (0, 0)
        together = last - first <= 2 * int((ends - where).sum())
        around = self._read(first, last) if together else None
        for low, high in zip(where.tolist(), ends.tolist(), strict=True):
            if around is not None:
                yield around[low - first : high - first]
            else:
                yield self._read(low, high)

    def _read(self, start: int, stop: int) -> memoryview:
        content = memoryview(bytearray(stop - start))
        self.file.read_into(start, content)
        return content

    def read_runs(self, extents: Ranges, granule: int, buffer: memoryview) -> Found:
        """Read extents and find their nonzero granules; errors as of `read_into`."""
        if len(extents) and self._packed.rows(int(extents.start[0]), int(extents.stop[-1])):
            return read_and_scan(self, extents, granule, buffer)
        return super().read_runs(extents, granule, buffer)

    def _remembered(self, row: int, stream: memoryview) -> memoryview:
        recent: tuple[int, memoryview] | None = getattr(self._recent, "unit", None)
        if recent is None or recent[0] != row:
            recent = self._recent.unit = row, self._decoded(row, stream)
        return recent[1]

    def _decoded(self, row: int, stream: memoryview) -> memoryview:
        start, stop = int(self._packed.guest.start[row]), int(self._packed.guest.stop[row])
        try:
            return self._unpack(stream, start, stop - start)
        except ValueError as error:
            where = int(self._packed.where[row])
            raise self._image.error(where, f"compressed data: {error}") from error

    def _packed_ranges(self) -> Ranges:
        return self._packed.guest

    def extents(self) -> Iterator[Ranges]:
        """Yield what is mapped, but for holes in the file, or packed."""
        packed, plain = self._packed.guest, self._held()
        at = 0
        for group in packed.groups(GROUP):
            reach = int(group.stop[-1])
            yield group.union(plain.window(at, reach))
            at = reach
        yield from plain.window(at, self.size).groups(GROUP)
