"""Cutting a disk into batches: the pieces of work that the engine hands to its workers."""

from collections.abc import Iterable, Iterator
from math import lcm
from typing import NamedTuple

from imgconv.ranges import Ranges
from imgconv.units import KiB, MiB

CAPACITY = 4 * MiB  # guest data per batch, unless a unit is larger
AHEAD = 64 * MiB  # guest data that all workers together may have read
MAX_EXTENTS = 4096  # and extents, so that tiny ones do not make a batch endless
EVEN = 64 * KiB  # what images compress at once: if cut in two, it is decoded twice


class Batch(NamedTuple):
    """Extents of the guest that are read and scanned together.

    `start` to `stop` is the stretch of guest the batch answers for; all of it outside
    `extents` is known to be zero. Batches follow one another without gaps, and no
    allocation unit belongs to two of them.
    """

    start: int
    stop: int
    extents: Ranges


class Pace:
    """How many bytes of extents a batch may have: `least`, and up to `most` among zeros.

    Zeros are forgotten as they are read, so that long batches of them cost no memory and
    save what every batch takes beside the reading: `least` is for the data in a batch. Any
    thread may tell what was found: it is of no consequence for the output how a disk is cut.
    """

    def __init__(self, unit: int, threads: int):
        self.least = batch_capacity(unit)
        self.most = max(self.least, AHEAD // threads)
        self.capacity = self.least

    def note(self, extents: Ranges, data: Ranges) -> None:
        """Learn what was found in the extents of a batch."""
        wanted = self.least * extents.total // max(data.total, 1)
        self.capacity = max(self.least, min(wanted, 2 * self.capacity, self.most))


def batch_capacity(unit: int) -> int:
    """Return how many bytes of guest data a batch should hold."""
    return max(CAPACITY, 2 * unit)


def batches(
    groups: Iterable[Ranges], size: int, unit: int, granule: int, pace: Pace
) -> Iterator[Batch]:
    """Cut the extents of a disk of `size` bytes into batches.

    Extents are widened to multiples of `granule`, which divides `unit`; cuts are at
    multiples of `unit`, and of EVEN where that leaves something.
    """
    at, pending = 0, Ranges.of([])
    for group in groups:
        pending = Ranges.concat([pending, group.aligned(granule, size)]).merged()
        while (cut := _cut(pending, unit, pace.capacity)) is not None:
            yield Batch(at, cut, pending.window(at, cut))
            at, pending = cut, pending.window(cut, size)
    yield Batch(at, size, pending)


def _cut(pending: Ranges, unit: int, capacity: int) -> int | None:
    """Return where the first full batch of the extents ends, None when they fill none.

    It holds at least one whole unit, because a batch has room for two.
    """
    filled = pending.length.cumsum()
    last = min(int(filled.searchsorted(capacity, side="right")), MAX_EXTENTS)
    if last >= len(pending):
        return None
    before = int(filled[last - 1]) if last else 0
    cut = min(int(pending.start[last]) + capacity - before, int(pending.stop[last]))
    even = lcm(unit, EVEN)
    return cut // even * even if cut - int(pending.start[0]) >= even else cut // unit * unit
