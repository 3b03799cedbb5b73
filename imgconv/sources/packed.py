"""Disks of which units are stored compressed, and others as they are or not at all."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, TypeAlias

import numpy as np

from imgconv.found import Found
from imgconv.ranges import Column, Ranges
from imgconv.sources.checked import ImageFile
from imgconv.sources.mapped import GROUP, MappedSource, Mapping, held
from imgconv.sources.scanning import read_and_scan
from imgconv.units import KiB, MiB
from imgconv.workers import PerThread, Room

TOGETHER = 4 * MiB  # of streams that are read, and of units that are decoded, at once
GAP = 64 * KiB  # that is read along: another read takes as long
MOST = 4096  # units that are thought of at once

# Takes a stream, the guest offset of its unit, and how many bytes are wanted; returns as
# many, or raises ValueError with the reason.
Unpack: TypeAlias = Callable[[memoryview, int, int], memoryview]


class Unit(NamedTuple):
    """A unit, [start, stop) of the guest, and its stream, `length` bytes from `where` on."""

    start: int
    stop: int
    where: int
    length: int


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

    def whole(self, rows: range, start: int, stop: int) -> range:
        """Return those of the units that lie in [start, stop) from end to end."""
        first, last = rows.start, rows.stop
        if first < last and self.guest.start[first] < start:
            first += 1
        if first < last and self.guest.stop[last - 1] > stop:
            last -= 1
        return range(first, last)

    def units(self, rows: range) -> Iterator[Unit]:
        """Yield units by where in the file they are."""
        some = slice(rows.start, rows.stop)
        order = np.argsort(self.where[some], kind="stable")
        columns = self.guest.start, self.guest.stop, self.where, self.length
        return map(Unit, *(column[some][order].tolist() for column in columns))

    def neighbours(self, rows: range) -> Iterator[list[Unit]]:
        """Yield units whose streams lie together: parallel writers leave them in any order."""
        for low in range(rows.start, rows.stop, MOST):
            some, begin, reach = list[Unit](), 0, 0
            for unit in self.units(rows[low - rows.start :][:MOST]):
                stop = unit.where + unit.length
                if some and (unit.where > reach + GAP or stop > begin + TOGETHER):
                    yield some
                    some = []
                begin, reach = (begin, max(reach, stop)) if some else (unit.where, stop)
                some.append(unit)
            yield some


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
        self._room, self._own = Room(), PerThread()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer; errors are the file's, and ImageMalformed for a broken stream."""
        end, guest = offset + len(buffer), self._packed.guest
        rows = self._packed.rows(offset, end)
        if guest.window(offset, end).total < len(buffer):
            super().read_into(offset, buffer)
        whole = self._packed.whole(rows, offset, end)
        for row in chain(range(rows.start, whole.start), range(whole.stop, rows.stop)):
            unit, content = self._remembered(row)
            low, high = max(unit.start, offset), min(unit.stop, end)
            buffer[low - offset : high - offset] = content[low - unit.start : high - unit.start]
        for units in self._packed.neighbours(whole):
            first, streams = self._streams(units)
            for unit in units:
                content = self._decoded(unit, first, streams)
                buffer[unit.start - offset : unit.stop - offset] = content

    def read_runs(self, extents: Ranges, granule: int, buffer: memoryview) -> Found:
        """Read extents and find their nonzero granules; errors as of `read_into`."""
        if len(extents) and self._packed.rows(int(extents.start[0]), int(extents.stop[-1])):
            return read_and_scan(self, extents, granule, buffer, TOGETHER)
        return super().read_runs(extents, granule, buffer)

    def _streams(self, units: list[Unit]) -> tuple[int, memoryview]:
        """Read streams at once; return where in the file that begins, and the bytes, which stay
        so until the thread reads others."""
        first = units[0].where
        last = max(unit.where + unit.length for unit in units)
        content = self._room.of(last - first)
        self.file.read_into(first, content)
        return first, content

    def _remembered(self, row: int) -> tuple[Unit, memoryview]:
        """Decode a unit of which a reader wants only a part, and most likely the rest next."""
        (unit,) = self._packed.units(range(row, row + 1))
        recent: tuple[Unit, memoryview] | None = getattr(self._own, "unit", None)
        if recent is None or recent[0] != unit:
            recent = self._own.unit = unit, self._decoded(unit, *self._streams([unit]))
        return recent

    def _decoded(self, unit: Unit, first: int, content: memoryview) -> memoryview:
        """Decode a unit, whose stream is in the content of the file from `first` on."""
        start, stop, where, length = unit
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
