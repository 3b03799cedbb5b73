"""A disk over another one, which shows through where the upper one says nothing."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from imgconv.identity import Identity
from imgconv.ranges import Ranges
from imgconv.sources.base import Source
from imgconv.sources.located import ABSENT, ZEROS, Files, Located, Walk, located
from imgconv.sources.mapped import GROUP


class Layer(NamedTuple):
    """A disk, and the guest ranges, ascending and apart, of which it says what is there.

    Elsewhere it reads as zeros, unless there is another one below.
    """

    source: Source
    own: Ranges

    def over(self, below: Source) -> "LayeredSource":
        """Put it over another disk, both of which it then owns."""
        return LayeredSource(self.source, self.own, below)


class LayeredSource:
    """Reads what the upper disk says and elsewhere the lower one, past whose end are zeros."""

    def __init__(self, upper: Source, own: Ranges, lower: Source):
        self.upper, self.own, self.lower = upper, own, lower
        self.size = upper.size

    @property
    def name(self) -> str:
        """The upper disk's."""
        return self.upper.name

    @property
    def identity(self) -> Identity:
        """The upper disk's."""
        return self.upper.identity

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of both disks."""
        return self.upper.warnings + self.lower.warnings

    @property
    def parts(self) -> tuple[Source, ...]:
        """Both disks."""
        return self.upper, self.lower

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer; errors are those of the disk whose part it is."""
        end, at = offset + len(buffer), offset
        for start, stop in self.own.window(offset, end):
            self._read_lower(at, buffer[at - offset : start - offset])
            self.upper.read_into(start, buffer[start - offset : stop - offset])
            at = stop
        self._read_lower(at, buffer[at - offset :])

    def _read_lower(self, at: int, buffer: memoryview) -> None:
        there = max(min(len(buffer), self.lower.size - at), 0)
        if there:
            self.lower.read_into(at, buffer[:there])
        buffer[there:] = bytes(len(buffer) - there)

    def extents(self) -> Iterator[Ranges]:
        """Yield what holds data in the upper disk, or in the lower one where that shows."""
        at, data = 0, Ranges.concat(self.upper.extents())
        for group in self.lower.extents():
            stop = min(int(group.stop[-1]), self.size) if len(group) else at
            shown = group.window(at, stop).without(self.own.window(at, stop))
            yield from shown.union(data.window(at, stop)).groups(GROUP)
            at = max(at, stop)
        yield from data.window(at, self.size).groups(GROUP)

    def located(self, files: Files) -> Iterator[Located]:
        """Yield what is known of the upper disk, and of the lower one where that shows."""
        upper, lower, at = Walk(located(self.upper, files)), Walk(self._below(files)), 0
        while at < self.size:
            reach = min(upper.reach(), lower.reach(), self.size)
            yield self._over(upper.take(at, reach), lower.take(at, reach).deeper())
            at = reach

    def _below(self, files: Files) -> Iterator[Located]:
        """Yield the lower disk's rows, and, of what it has not, one of the upper disk."""
        yield from located(self.lower, files)
        beyond = Located.single(self.lower.size, self.size, ABSENT)
        if len(beyond.kind):
            yield replace(beyond, depth=beyond.depth - 1)

    def _over(self, upper: Located, lower: Located) -> Located:
        silent = upper.rows(upper.kind == ABSENT)
        shown = lower.within(silent.guest.without(self.own))
        said = silent.within(self.own)
        zeros = replace(said, kind=np.full_like(said.kind, ZEROS))
        return Located.sorted([upper.rows(upper.kind != ABSENT), zeros, shown])

    def verify(self) -> None:
        """Raise SourceChanged if a file of one of them was modified since it was opened."""
        self.upper.verify()
        self.lower.verify()

    def close(self) -> None:
        """Close both."""
        self.upper.close()
        self.lower.close()
