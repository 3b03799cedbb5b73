"""Columns of half-open byte ranges: the currency of extents and runs.

A terabyte disk has millions of clusters and may have as many runs, so ranges live in
two numpy columns and every operation here works on whole columns at once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

# Spelt out: numpy.typing would be one more import.
Column: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """Ranges [start, stop) in bytes: ascending, disjoint, none empty.

    They may touch; `merged` joins those that do. Columns are shared, never written to.
    """

    start: Column
    stop: Column

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]]) -> "Ranges":
        """Make ranges from (start, stop) pairs that ascend and do not overlap."""
        table = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
        return cls(table[:, 0].copy(), table[:, 1].copy())

    @classmethod
    def single(cls, start: int, stop: int) -> "Ranges":
        """Make one range, or none when it would be empty."""
        return cls.of([(start, stop)] if start < stop else [])

    @classmethod
    def concat(cls, parts: Iterable["Ranges"]) -> "Ranges":
        """Chain ranges whose order ascends from part to part."""
        parts = list(parts)
        if not parts:
            return cls.of([])
        return cls(
            np.concatenate([p.start for p in parts]), np.concatenate([p.stop for p in parts])
        )

    def __len__(self) -> int:
        return len(self.start)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.start.tolist(), self.stop.tolist(), strict=True)

    def same(self, other: "Ranges") -> bool:
        """Say whether they are those of `other`, one by one."""
        if len(self) != len(other):
            return False
        return bool((self.start == other.start).all() and (self.stop == other.stop).all())

    @property
    def length(self) -> Column:
        """Length of each range in bytes."""
        return self.stop - self.start

    @property
    def total(self) -> int:
        """Sum of all lengths in bytes."""
        return int(self.length.sum())

    def where(self, chosen: Mask) -> "Ranges":
        """Return those ranges for which `chosen` is true."""
        return Ranges(self.start[chosen], self.stop[chosen])

    def slice(self, first: int, last: int) -> "Ranges":
        """Return the ranges numbered first to last - 1."""
        return Ranges(self.start[first:last], self.stop[first:last])

    def groups(self, size: int) -> Iterator["Ranges"]:
        """Yield the ranges, so many at once."""
        for first in range(0, len(self), size):
            yield self.slice(first, first + size)

    def window(self, start: int, stop: int) -> "Ranges":
        """Return the parts of the ranges that lie in [start, stop)."""
        first = int(self.stop.searchsorted(start, side="right"))
        last = int(self.start.searchsorted(stop, side="left"))
        if start >= stop or first >= last:
            return Ranges.of([])
        return Ranges(
            np.maximum(self.start[first:last], start), np.minimum(self.stop[first:last], stop)
        )

    def merged(self, apart: int = 1) -> "Ranges":
        """Join ranges less than `apart` bytes from each other, so those that touch or overlap
        (starts must ascend)."""
        if len(self) < 2:
            return self
        reach = np.maximum.accumulate(self.stop)
        start, stop = self.start[1:], reach[:-1]
        gap = start - stop >= apart
        return Ranges(
            np.concatenate((self.start[:1], start[gap])),
            np.concatenate((stop[gap], reach[-1:])),
        )

    def union(self, other: "Ranges") -> "Ranges":
        """Join two columns, each ascending or not."""
        start = np.concatenate((self.start, other.start))
        order = start.argsort(kind="stable")
        return Ranges(start[order], np.concatenate((self.stop, other.stop))[order]).merged()

    def without(self, other: "Ranges") -> "Ranges":
        """Return the parts that no range of `other` covers (both ascend, nothing overlaps)."""
        if not len(self) or not len(other):
            return self
        first, last = np.minimum(self.start[:1], 0), self.stop[-1:]
        start = np.concatenate((first, other.stop))
        stop = np.maximum(np.concatenate((other.start, last)), start)
        return overlaps(self, Ranges(start, stop))[2]

    def aligned(self, unit: int, limit: int) -> "Ranges":
        """Widen every range to multiples of `unit`, but not past `limit`, and merge."""
        return Ranges(
            self.start // unit * unit, np.minimum(-(-self.stop // unit) * unit, limit)
        ).merged()

    def split(self, span: int) -> "Ranges":
        """Cut the ranges at every multiple of `span`."""
        first = self.start // span
        count = (self.stop - 1) // span - first + 1
        if len(self) == int(count.sum()):
            return self
        owner = np.arange(len(self)).repeat(count)
        slot = first[owner] + counting(count)
        return Ranges(
            np.maximum(self.start[owner], slot * span),
            np.minimum(self.stop[owner], (slot + 1) * span),
        )

    def units(self, unit: int) -> Column:
        """Return the number of every unit touched; the starts must be multiples of `unit`."""
        first = self.start // unit
        count = -(-self.stop // unit) - first
        return first.repeat(count) + counting(count)


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """Guest ranges, and the file offset at which the content of each begins."""

    guest: Ranges
    where: Column

    def window(self, start: int, stop: int) -> "Pieces":
        """Return the pieces of which something lies in [start, stop), as a whole."""
        first = int(self.guest.stop.searchsorted(start, side="right"))
        last = int(self.guest.start.searchsorted(stop, side="left"))
        return self.slice(first, last)

    def slice(self, first: int, last: int) -> "Pieces":
        """Return the pieces numbered first to last - 1."""
        return Pieces(self.guest.slice(first, last), self.where[first:last])

    def held(self, data: Ranges) -> Ranges:
        """Return the guest ranges whose content lies in `data`, ranges of the file; no two
        pieces lie on one another."""
        order = self.where.argsort()
        where = self.where[order]
        piece, _, shared = overlaps(Ranges(where, where + self.guest.length[order]), data)
        shift = (self.guest.start[order] - where)[piece]
        order = (shared.start + shift).argsort()
        return Ranges((shared.start + shift)[order], (shared.stop + shift)[order]).merged()


def counting(count: Column) -> Column:
    """Return 0, 1, .., count[0] - 1, 0, 1, .., count[1] - 1, and so on."""
    total = int(count.sum())
    return np.arange(total, dtype=np.int64) - (count.cumsum() - count).repeat(count)


def firsts(values: Column) -> Column:
    """Return the index at which each stretch of equal values begins."""
    return np.flatnonzero(np.diff(values, prepend=values[:1] - 1))


def overlaps(a: Ranges, b: Ranges) -> tuple[Column, Column, Ranges]:
    """Intersect two columns of ranges.

    Returns, for every overlap in ascending order, the index in `a`, the index in `b`,
    and the overlapping range.
    """
    first = b.stop.searchsorted(a.start, side="right")
    last = b.start.searchsorted(a.stop, side="left")
    count = np.maximum(last - first, 0)
    in_a = np.arange(len(a)).repeat(count)
    in_b = first.repeat(count) + counting(count)
    shared = Ranges(
        np.maximum(a.start[in_a], b.start[in_b]), np.minimum(a.stop[in_a], b.stop[in_b])
    )
    return in_a, in_b, shared
