"""Disks of which units are stored compressed, and others as they are or not at all."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from imgconv.ranges import Column, Ranges
from imgconv.sources.checked import ImageFile
from imgconv.sources.mapped import GROUP, MappedSource, Mapping
from imgconv.workers import PerThread

# Takes a stream, the guest offset of its unit, and how many bytes are wanted; returns as
# many, or raises ValueError with the reason.
Unpack: TypeAlias = Callable[[memoryview, int, int], bytes | memoryview]


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Units stored compressed, each a guest range of its own, which the disk's end may cut.

    `where` is the file offset of each stream, `length` how many bytes at most belong to it.
    """

    guest: Ranges
    where: Column
    length: Column


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
        super().read_into(offset, buffer)
        end, guest = offset + len(buffer), self._packed.guest
        first = int(np.searchsorted(guest.stop, offset, side="right"))
        last = int(np.searchsorted(guest.start, end, side="left"))
        for row in range(first, last):
            start, stop = int(guest.start[row]), int(guest.stop[row])
            low, high = max(start, offset), min(stop, end)
            whole = high - low == stop - start
            unit = self._decoded(row) if whole else self._remembered(row)
            buffer[low - offset : high - offset] = unit[low - start : high - start]

    def _remembered(self, row: int) -> bytes | memoryview:
        recent: tuple[int, bytes | memoryview] | None = getattr(self._recent, "unit", None)
        if recent is None or recent[0] != row:
            recent = self._recent.unit = row, self._decoded(row)
        return recent[1]

    def _decoded(self, row: int) -> bytes | memoryview:
        where = int(self._packed.where[row])
        stream = bytearray(int(self._packed.length[row]))
        self.file.read_into(where, memoryview(stream))
        start, stop = int(self._packed.guest.start[row]), int(self._packed.guest.stop[row])
        try:
            return self._unpack(memoryview(stream), start, stop - start)
        except ValueError as error:
            raise self._image.error(where, f"compressed data: {error}") from error

    def _packed_ranges(self) -> Ranges:
        return self._packed.guest

    def extents(self) -> Iterator[Ranges]:
        """Yield what is mapped or packed."""
        packed = self._packed.guest
        at = 0
        for group in packed.groups(GROUP):
            reach = int(group.stop[-1])
            yield group.union(self._guest.window(at, reach))
            at = reach
        yield from self._guest.window(at, self.size).groups(GROUP)
