"""Where a disk's content is, as far as metadata tell: in which file, at which offset, stored
how, and how far down a chain of images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from imgconv.ranges import Column, Ranges, overlaps
from imgconv.sources.base import Source, StoredSource

# Stored as it is, stored compressed, said to be zeros, or nothing said.
DATA, PACKED, ZEROS, ABSENT = range(4)
NOWHERE = -1
ROWS = 16384  # handed on at once
Kinds: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
Files: TypeAlias = list[str]


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """Pieces of a disk, each beginning where the one before ends.

    `where` is the offset in a file at which a piece's content begins, or NOWHERE; `file` the
    number of that file, `depth` that of the image in a chain that says it.
    """

    guest: Ranges
    kind: Kinds
    where: Column
    file: Column
    depth: Column

    @classmethod
    def of(
        cls, guest: Ranges, kind: int, where: Column | int = NOWHERE, file: int = 0
    ) -> "Located":
        """Make rows of one kind, of the first image of a chain."""
        rows = len(guest)
        return cls(
            guest,
            np.full(rows, kind, dtype=np.uint8),
            np.full(rows, where, dtype=np.int64),
            np.full(rows, file, dtype=np.int64),
            np.zeros(rows, dtype=np.int64),
        )

    @classmethod
    def single(cls, start: int, stop: int, kind: int) -> "Located":
        """Make one row, or none when it would be empty."""
        return cls.of(Ranges.single(start, stop), kind)

    @classmethod
    def sorted(cls, parts: "Iterable[Located]") -> "Located":
        """Put rows in order that do not overlap."""
        parts = [part for part in parts if len(part.kind)]
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.single(0, 0, ABSENT)
        columns = [part._columns() for part in parts]
        whole = [np.concatenate(column) for column in zip(*columns, strict=True)]
        return cls._of_columns(whole).rows(whole[0].argsort(kind="stable"))

    def _columns(self) -> list[Any]:
        return [self.guest.start, self.guest.stop, self.kind, self.where, self.file, self.depth]

    @classmethod
    def _of_columns(cls, columns: list[Any]) -> "Located":
        start, stop, kind, where, file, depth = columns
        return cls(Ranges(start, stop), kind, where, file, depth)

    def rows(self, chosen: Any) -> "Located":
        """Return the rows that a mask or a column of numbers chooses."""
        return self._of_columns([column[chosen] for column in self._columns()])

    @property
    def stop(self) -> int:
        """Where the last one ends."""
        return int(self.guest.stop[-1])

    def within(self, ranges: Ranges) -> "Located":
        """Return what of the rows lies in ranges."""
        index, _, shared = overlaps(self.guest, ranges)
        found = self.rows(index)
        moved = found.where + shared.start - found.guest.start
        where = np.where(found.where == NOWHERE, NOWHERE, moved)
        return Located(shared, found.kind, where, found.file, found.depth)

    def window(self, start: int, stop: int) -> "Located":
        """Return what of the rows lies in [start, stop)."""
        first = int(self.guest.stop.searchsorted(start, side="right"))
        last = int(self.guest.start.searchsorted(stop, side="left"))
        return self.rows(slice(first, max(first, last))).within(Ranges.single(start, stop))

    def shifted(self, distance: int) -> "Located":
        """Move the rows in the guest."""
        guest = Ranges(self.guest.start + distance, self.guest.stop + distance)
        return Located(guest, self.kind, self.where, self.file, self.depth)

    def deeper(self) -> "Located":
        """Return the rows as those of an image one further down."""
        return Located(self.guest, self.kind, self.where, self.file, self.depth + 1)

    def filled(self, start: int, stop: int, kind: int, *, at_place: bool = False) -> "Located":
        """Put rows of a kind into the gaps that are between those there from start to stop.

        With `at_place` their file offset is that in the guest.
        """
        gaps = Ranges.single(start, stop).without(self.guest.merged())
        where = gaps.start if at_place else NOWHERE
        return Located.sorted([self, Located.of(gaps, kind, where, self._only_file())])

    def _only_file(self) -> int:
        return int(self.file[0]) if len(self.file) else 0

    def merged(self) -> "Located":
        """Make one of those that continue one another."""
        kind, where, length = self.kind, self.where, self.guest.length
        same = (kind[1:] == kind[:-1]) & (self.depth[1:] == self.depth[:-1])
        same &= self.guest.start[1:] == self.guest.stop[:-1]
        nowhere = (where[1:] == NOWHERE) & (where[:-1] == NOWHERE)
        follows = (where[1:] == where[:-1] + length[:-1]) & (where[:-1] != NOWHERE)
        same &= nowhere | (follows & (self.file[1:] == self.file[:-1]))
        first = np.flatnonzero(np.concatenate(([True], ~same))[: len(kind)])
        last = np.append(first[1:], len(kind))[: len(first)] - 1
        found = self.rows(first)
        guest = Ranges(found.guest.start, self.guest.stop[last])
        return Located(guest, found.kind, found.where, found.file, found.depth)


@runtime_checkable
class LocatingSource(Source, Protocol):
    """A source that knows where its content is."""

    def located(self, files: Files) -> Iterator[Located]:
        """Yield rows for the whole disk, in order, some of them at once.

        The names of the files they are in are appended to `files`.
        """
        ...


def located(source: Source, files: Files) -> Iterator[Located]:
    """Yield rows for the whole of a disk; of one that does not know more, what may be data.

    Each group of rows goes on where the one before ended; the last one ends with the disk.
    """
    if isinstance(source, LocatingSource):
        yield from source.located(files)
        return
    number, is_file, at = len(files), isinstance(source, StoredSource), 0
    files.append(source.name)
    for group in source.extents():
        if len(group):
            where = group.start if is_file else NOWHERE
            data = Located.of(group, DATA, where, number)
            yield data.filled(at, data.stop, ZEROS, at_place=is_file)
            at = data.stop
    if at < source.size:
        rest = Ranges.single(at, source.size)
        yield Located.of(rest, ZEROS, rest.start if is_file else NOWHERE, number)


class Walk:
    """Rows that are taken as far as one wants."""

    def __init__(self, groups: Iterator[Located]):
        self._groups = groups
        self._pending = Located.single(0, 0, ABSENT)

    def reach(self) -> int:
        """Return how far what is known already goes; take more rows if all were taken."""
        while not len(self._pending.kind):
            self._pending = next(self._groups)
        return self._pending.stop

    def take(self, start: int, stop: int) -> Located:
        """Return the rows of a stretch within reach, and forget what is before its end."""
        taken = self._pending.window(start, stop)
        self._pending = self._pending.window(stop, self._pending.stop)
        return taken
