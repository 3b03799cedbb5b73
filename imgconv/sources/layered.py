"""A disk over another one, which shows through where the upper one says nothing."""

from collections.abc import Iterator
from dataclasses import dataclass

from imgconv.identity import Identity
from imgconv.ranges import Ranges
from imgconv.sources.base import Source
from imgconv.sources.mapped import GROUP


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
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

    def verify(self) -> None:
        """Raise SourceChanged if a file of one of them was modified since it was opened."""
        self.upper.verify()
        self.lower.verify()

    def close(self) -> None:
        """Close both."""
        self.upper.close()
        self.lower.close()
