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

# Takes streams, where in them each begins and how many bytes belong to it at most, a buffer,
# and where in that the content of each goes and how long it is; returns how many it decoded
# before one that is a case for `Unpack`.
UnpackMany: TypeAlias = Callable[[memoryview, Column, Column, memoryview, Column, Column], int]


def one_by_one(*_: object) -> int:
    """Decode none of many."""
    return 0


class Unit(NamedTuple):
    """A unit, [start, stop) of the guest, and its stream, `length` bytes from `where` on."""

    start: int
    stop: int
    where: int
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Units as columns, in the order of their streams in the file."""

    start: Column
    stop: Column
    where: Column
    length: Column

    def __len__(self) -> int:
        return len(self.where)

    def __iter__(self) -> Iterator[Unit]:
        columns = self.start, self.stop, self.where, self.length
        return map(Unit, *(column.tolist() for column in columns))

    def slice(self, first: int, last: int) -> "Units":
        """Return those from `first` to before `last`."""
        some = slice(first, last)
        return Units(self.start[some], self.stop[some], self.where[some], self.length[some])


class Packed(NamedTuple):
    """Units stored compressed, each a guest range of its own, which the disk's end may cut.

    `where` is the file offset of each stream, `length` how many bytes at most belong to it.
    """

    guest: Ranges
    where: Column
    length: Column

    def rows(self, start: int, stop: int) -> range:
        """Return the numbers of the units of which something lies in [start, stop)."""
        first = int(self.guest.stop.searchsorted(start, side="right"))
        return range(first, int(self.guest.start.searchsorted(stop, side="left")))

    def whole(self, rows: range, start: int, stop: int) -> range:
        """Return those of the units that lie in [start, stop) from end to end."""
        first, last = rows.start, rows.stop
        if first < last and self.guest.start[first] < start:
            first += 1
        if first < last and self.guest.stop[last - 1] > stop:
            last -= 1
        return range(first, last)

    def units(self, rows: range) -> Units:
        """Return units by where in the file they are."""
        some = slice(rows.start, rows.stop)
        by_where = self.where[some].argsort(kind="stable")
        columns = self.guest.start, self.guest.stop, self.where, self.length
        return Units(*(column[some][by_where] for column in columns))

    def portions(self, rows: range) -> Iterator[Units]:
        """Yield units whose streams are read, and are in memory, at the same time."""
        for low in range(rows.start, rows.stop, MOST):
            units = self.units(rows[low - rows.start :][:MOST])
            ends = units.where + units.length
            if int(ends.max()) - int(units.where[0]) <= TOGETHER:
                yield units  # as for most batches
                continue
            reach = np.maximum.accumulate(ends)
            before = np.concatenate((units.where[:1], reach[:-1]))
            gap = units.where - before
            read = (reach - before - np.where(gap > GAP, gap, 0)).cumsum()
            first = 0
            while first < len(units):
                most = TOGETHER + (int(read[first - 1]) if first else 0)
                last = max(int(read.searchsorted(most, side="right")), first + 1)
                yield units.slice(first, last)
                first = last


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
        unpack_many: UnpackMany = one_by_one,
    ):
        super().__init__(image.file, size, mapping, warnings)
        self._image, self._packed = image, packed
        self._unpack, self._unpack_many = unpack, unpack_many
        self._room, self._own = Room(), PerThread()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer; errors are the file's, and ImageMalformed for a broken stream."""
        end = offset + len(buffer)
        rows = self._packed.rows(offset, end)
        packed = self._packed.guest.window(offset, end)
        if packed.total < len(buffer):
            for start, stop in Ranges.single(offset, end).without(packed.merged()):
                super().read_into(start, buffer[start - offset : stop - offset])
        whole = self._packed.whole(rows, offset, end)
        for row in chain(range(rows.start, whole.start), range(whole.stop, rows.stop)):
            unit, content = self._remembered(row)
            low, high = max(unit.start, offset), min(unit.stop, end)
            buffer[low - offset : high - offset] = content[low - unit.start : high - unit.start]
        for units in self._packed.portions(whole):
            self._read_units(units, offset, buffer)

    def _read_units(self, units: Units, offset: int, buffer: memoryview) -> None:
        streams, at = self._streams(units)
        place, size = units.start - offset, units.stop - units.start
        done = self._unpack_many(streams, at, units.length, buffer, place, size)
        for unit, begin in zip(units.slice(done, len(units)), at[done:].tolist(), strict=True):
            content = self._decoded(unit, streams[begin : begin + unit.length])
            buffer[unit.start - offset : unit.stop - offset] = content

    def read_runs(self, extents: Ranges, granule: int, buffer: memoryview) -> Found:
        """Read extents and find their nonzero granules; errors as of `read_into`."""
        if len(extents) and self._packed.rows(int(extents.start[0]), int(extents.stop[-1])):
            return read_and_scan(self, extents, granule, buffer, TOGETHER)
        return super().read_runs(extents, granule, buffer)

    def _streams(self, units: Units) -> tuple[memoryview, Column]:
        """Read streams, those that are near each other at once: parallel writers leave them in
        any order. Return them, which stay so until the thread reads others, and where in that
        each begins."""
        there = Ranges(units.where, units.where + units.length).merged(apart=GAP + 1)
        content, base = self._room.of(there.total), there.length.cumsum() - there.length
        for (start, stop), at in zip(there, base.tolist(), strict=True):
            self.file.read_into(start, content[at : at + stop - start])
        which = there.start.searchsorted(units.where, side="right") - 1
        return content, units.where - there.start[which] + base[which]

    def _remembered(self, row: int) -> tuple[Unit, memoryview]:
        """Decode a unit of which a reader wants only a part, and most likely the rest next."""
        units = self._packed.units(range(row, row + 1))
        (unit,) = units
        recent: tuple[Unit, memoryview] | None = getattr(self._own, "unit", None)
        if recent is None or recent[0] != unit:
            stream, _ = self._streams(units)
            recent = self._own.unit = unit, self._decoded(unit, stream)
        return recent

    def _decoded(self, unit: Unit, stream: memoryview) -> memoryview:
        start, stop, where, _ = unit
        try:
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
