"""Disks whose content lies in pieces somewhere in a file: what most formats come down to."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from imgconv.found import Found
from imgconv.identity import Identity
from imgconv.ranges import Column, Pieces, Ranges
from imgconv.sources.base import MappableSource, Source
from imgconv.sources.located import ABSENT, DATA, PACKED, ROWS, ZEROS, Files, Located
from imgconv.sources.scanning import read_and_scan
from imgconv.units import SECTOR

GROUP = 4096  # ranges handed on at once
MOST_HOLES = 1 << 20  # in an image's file that are worth knowing
MANY = 8  # so many times what is to be read of it, a file takes longer to search for holes


@dataclass(frozen=True, slots=True, eq=False)
class Mapping:
    """Guest ranges that hold data, and the file offset at which each begins.

    All else reads as zeros: of `zeros` the image says so; of what is left it does if `full`,
    and else it says nothing.
    """

    guest: Ranges
    where: Column
    zeros: Ranges = field(default_factory=partial(Ranges.of, ()))
    full: bool = False

    @classmethod
    def of_blocks(cls, numbers: Column, where: Column, block: int, size: int) -> "Mapping":
        """Map blocks by number, ascending, of which the disk's end may cut the last short;
        those that follow one another here and there become one range."""
        start = numbers * block
        stop = np.minimum(start + block, size)
        follows = (start[1:] == stop[:-1]) & (where[1:] == where[:-1] + block)
        first = np.flatnonzero(np.concatenate(([True], ~follows))[: len(start)])
        last = np.append(first[1:], len(start))[: len(first)] - 1
        return cls(Ranges(start[first], stop[last]), where[first])


def _after(ranges: Ranges, at: int, size: int) -> int:
    """Return where so many ranges from `at` on have ended as are handed on at once."""
    last = int(ranges.stop.searchsorted(at, side="right")) + ROWS - 1
    return int(ranges.stop[last]) if last < len(ranges) else size


def held(pieces: Pieces, data: Ranges | None) -> Ranges:
    """Return what is mapped to `data` of the file, or at all if there is no more to know."""
    return pieces.guest if data is None else pieces.held(data)


class MappedSource:
    """Reads by a mapping; owns the file it reads.

    Remarks are about the image: that its file ends in the middle of a sector is none.
    """

    def __init__(
        self, file: Source, size: int, mapping: Mapping, warnings: tuple[str, ...] = ()
    ):
        self.file, self.size, self.warnings = file, size, warnings
        self._pieces = Pieces(mapping.guest, mapping.where)
        self._mappable = file if isinstance(file, MappableSource) else None
        self._zeros, self._full = mapping.zeros, mapping.full

    @property
    def name(self) -> str:
        """The file's."""
        return self.file.name

    @property
    def parts(self) -> tuple[Source, ...]:
        """The file."""
        return (self.file,)

    @property
    def identity(self) -> Identity:
        """The file's."""
        return self.file.identity

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer, where nothing is mapped with zeros; errors are the file's."""
        end = offset + len(buffer)
        row = int(self._pieces.guest.stop.searchsorted(offset, side="right"))
        at = offset
        while at < end:
            start = int(self._pieces.guest.start[row]) if row < len(self._pieces.guest) else end
            if start > at:
                stop = min(start, end)
                buffer[at - offset : stop - offset] = bytes(stop - at)
            else:
                stop = min(int(self._pieces.guest.stop[row]), end)
                where = int(self._pieces.where[row]) + at - start
                self._read_mapped(where, buffer[at - offset : stop - offset])
                row += 1
            at = stop

    def _read_mapped(self, where: int, buffer: memoryview) -> None:
        """Fill the buffer from where the mapping says that it is."""
        self.file.read_into(where, buffer)

    def read_runs(self, extents: Ranges, granule: int, buffer: memoryview) -> Found:
        """Read extents and find their nonzero granules; errors as of `read_into`."""
        if self._mappable is None or not len(extents):
            return read_and_scan(self, extents, granule, buffer)
        pieces = self._pieces.window(int(extents.start[0]), int(extents.stop[-1]))
        return self._mappable.read_pieces(pieces, extents, granule, buffer)

    def extents(self) -> Iterator[Ranges]:
        """Yield what is mapped, but for holes in the file: images may be sparse files."""
        data = self._data()
        for first in range(0, len(self._pieces.where), GROUP):
            yield held(self._pieces.slice(first, first + GROUP), data)

    def _data(self) -> Ranges | None:
        """Return where the file holds data, behind very many ranges all of it; None if there
        are no holes, or next to nothing of it is to be read as it is."""
        if self._pieces.guest.total * MANY < self.file.size:
            return None
        found, count = [], 0
        for group in self.file.extents():
            found.append(group)
            count += len(group)
            if count > MOST_HOLES:
                found.append(Ranges.single(int(group.stop[-1]), self.file.size))
                break
        data = Ranges.concat(found).merged()
        whole = len(data) == 1 and data.total >= self.file.size - SECTOR
        return None if whole else data

    def located(self, files: Files) -> Iterator[Located]:
        """Yield what is mapped, what is packed, what is zeros, and what is left."""
        number, at = len(files), 0
        files.append(self.file.name)
        tables = [
            Located.of(self._pieces.guest, DATA, self._pieces.where, number),
            Located.of(self._packed_ranges(), PACKED),
            Located.of(self._zeros, ZEROS),
        ]
        while at < self.size:
            reach = min(_after(table.guest, at, self.size) for table in tables)
            found = Located.sorted(table.window(at, reach) for table in tables)
            yield found.filled(at, reach, ZEROS if self._full else ABSENT)
            at = reach

    def _packed_ranges(self) -> Ranges:
        return Ranges.of(())

    def verify(self) -> None:
        """Raise SourceChanged if the file was modified since it was opened."""
        self.file.verify()

    def close(self) -> None:
        """Close the file."""
        self.file.close()
