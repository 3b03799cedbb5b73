"""A stretch of an output on its way to a sink: pieces of memory, and zeros between them.

Columns again, as a batch of a fragmented disk has a hundred pieces: a sink that can hands
them to the system in one go, any other iterates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from imgconv.ranges import Column


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """`length` bytes of an output from `offset` on.

    Piece i goes to output offset `at[i]` and is the `size[i]` bytes that begin at
    `where[i]` in `contents[origin[i]]`. Pieces ascend and are not empty; all between them
    is zeros.
    """

    offset: int
    length: int
    at: Column
    size: Column
    where: Column
    origin: Column
    contents: tuple[memoryview, ...]

    @classmethod
    def of(cls, offset: int, views: Sequence[memoryview]) -> "Stretch":
        """Make a stretch of nothing but pieces, back to back."""
        views = [view for view in views if len(view)]
        size = np.array([len(view) for view in views], dtype=np.int64)
        ends = offset + size.cumsum()
        length = int(size.sum())
        where, origin = np.zeros_like(size), np.arange(len(size))
        return cls(offset, length, ends - size, size, where, origin, tuple(views))

    @classmethod
    def zeros(cls, offset: int, length: int) -> "Stretch":
        """Make a stretch of nothing but zeros."""
        none = np.empty(0, dtype=np.int64)
        return cls(offset, length, none, none, none, none, ())

    @property
    def written(self) -> int:
        """Bytes in pieces."""
        return int(self.size.sum())

    def gaps(self) -> Iterator[tuple[int, int]]:
        """Yield (offset, length) of the zeros."""
        starts = np.append(self.offset, self.at + self.size)
        lengths = np.append(self.at, self.offset + self.length) - starts
        rows = np.flatnonzero(lengths)
        yield from zip(starts[rows].tolist(), lengths[rows].tolist(), strict=True)

    def __iter__(self) -> Iterator[tuple[int, int, list[memoryview]]]:
        """Yield (offset, length, views) in order; no views mean zeros."""
        at, views = self.offset, list[memoryview]()
        begun = at
        for start, size, where, origin in zip(
            self.at.tolist(),
            self.size.tolist(),
            self.where.tolist(),
            self.origin.tolist(),
            strict=True,
        ):
            if start > at:
                if views:
                    yield begun, at - begun, views
                yield at, start - at, []
                begun, views = start, []
            views.append(self.contents[origin][where : where + size])
            at = start + size
        if views:
            yield begun, at - begun, views
        if at < self.offset + self.length:
            yield at, self.offset + self.length - at, []
