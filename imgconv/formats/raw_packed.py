"""Raw in a compressed stream: units encoded one by one, and zeros that cost next to nothing.

A stretch of zeros is the same few pieces again and again, some large, some of a mebibyte
and of powers of two below it, each made once. They refer to nothing outside themselves, as
units do, so that anything can stand behind anything.
"""

from abc import abstractmethod
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from imgconv.formats.base import EncodingWriter
from imgconv.ranges import Column
from imgconv.segments import META, Meta, Segments, data
from imgconv.units import SECTOR, MiB

_SIZES = tuple(MiB >> halvings for halvings in range(12))  # down to a sector
_ROWS = 1024  # pieces in one answer


class PackedWriter(EncodingWriter):
    """Places units at the end of the stream, and the zeros that lie between them.

    `size` is what the output declares, of which the last may be beyond the `guest`;
    `largest` is how many zeros the largest piece stands for.
    """

    head_size = 0
    largest: int

    def __init__(self, guest: int, size: int):
        self._guest, self.size = guest, size
        self._at = 0  # how much of the guest is in the stream
        self._pieces: dict[int, Meta] = {}

    @abstractmethod
    def _make_zeros(self, length: int) -> bytes:
        """Return what stands for so many zeros: `largest`, a power of two from a sector to
        a mebibyte, or less than a sector."""

    @abstractmethod
    def _enter(self, sizes: Column, lengths: Column, checks: Column) -> None:
        """Note units that are placed: their own sizes, stored lengths, and checks."""

    @abstractmethod
    def _enter_zeros(self, size: int, length: int, count: int) -> None:
        """Note `count` pieces, each of `length` bytes for `size` zeros."""

    def place(self, units: Column, lengths: Column, checks: Column) -> Segments:
        """Append encoded units, and before each the zeros that precede it."""
        sizes = np.minimum(self.unit, self._guest - units)
        gaps = units - np.concatenate(([self._at], units[:-1] + sizes[:-1]))
        ends = np.cumsum(lengths)
        cuts = [*np.flatnonzero(gaps).tolist(), len(units)]
        placed = [self._place(slice(0, cuts[0]), sizes, lengths, ends, checks)]
        for low, high in pairwise(cuts):
            placed += self._zeros(int(gaps[low]))
            placed.append(self._place(slice(low, high), sizes, lengths, ends, checks))
        self._at = int(units[-1] + sizes[-1])
        return Segments.concat(placed)

    def _place(
        self, rows: slice, sizes: Column, lengths: Column, ends: Column, checks: Column
    ) -> Segments:
        self._enter(sizes[rows], lengths[rows], checks[rows])
        return data(ends[rows] - lengths[rows], lengths[rows])

    def _zeros(self, length: int) -> Iterator[Segments]:
        """Yield what stands for so many zeros."""
        for size, count in self._ladder(length):
            piece = self._piece(size)
            self._enter_zeros(size, piece.length, count)
            for first in range(0, count, _ROWS):
                rows = min(_ROWS, count - first)
                yield Segments(
                    np.full(rows, META, dtype=np.uint8),
                    np.full(rows, piece.length, dtype=np.int64),
                    np.zeros(rows, dtype=np.int64),
                    (piece,),
                )

    def _ladder(self, length: int) -> Iterator[tuple[int, int]]:
        """Yield which pieces so many zeros are made of, and how many of each."""
        for size in (self.largest, *_SIZES, length % SECTOR):
            count = length // size if size else 0
            if count:
                yield size, count
                length -= count * size

    def _piece(self, size: int) -> Meta:
        if size not in self._pieces:
            self._pieces[size] = Meta.of(self._make_zeros(size))
        return self._pieces[size]

    def finish(self) -> Iterator[Segments]:
        """The zeros up to the end, and what the container ends with."""
        yield from self._zeros(self.size - self._at)
        yield from self._end()

    @abstractmethod
    def _end(self) -> Iterator[Segments]:
        """Return what follows the guest."""

    def head(self) -> Iterator[Segments]:
        """Nothing is left for last."""
        return iter(())
