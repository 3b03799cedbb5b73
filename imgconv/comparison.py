"""Comparing what two disks hold, by content: how it is stored does not matter."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, TypeAlias

import numpy as np

from imgconv.batches import Pace, batch_capacity, batches
from imgconv.errors import ImgconvError
from imgconv.native import is_zero
from imgconv.ranges import Column, Mask, Ranges, firsts
from imgconv.sources.base import Source
from imgconv.tally import Tally
from imgconv.workers import Stop, Turn, run

Buffer: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How two disks compare; all in bytes of the guest.

    `first_difference` is the lowest offset at which they differ, None when they do not, or
    when a strict comparison ended at their sizes. `compared` counts what had to be read of
    at least one disk, up to the first difference; the rest is known to be zero in both.
    """

    identical: bool
    first_difference: int | None
    first_size: int
    second_size: int
    compared: int


def compare(
    first: Source,
    second: Source,
    *,
    threads: int,
    stop: Stop,
    tally: Tally,
    strict: bool = False,
) -> Comparison:
    """Compare two disks; the result does not depend on the number of threads.

    Disks of different sizes are identical when the rest of the larger one is zero, but not
    if `strict`. Raises SourceError for what cannot be read, unless there is a difference
    before it, and Cancelled.
    """
    found = _Findings(first, second)
    size = max(first.size, second.size)
    tally.begin("compare", size)
    unequal = strict and first.size != second.size
    if not unequal:
        tasks = takewhile(lambda _: found.difference is None, _tasks(first, second, size))
        run(tasks, partial(_make_worker, found, tally), threads=threads, stop=stop)
    return Comparison(
        identical=not unequal and found.difference is None,
        first_difference=found.difference,
        first_size=first.size,
        second_size=second.size,
        compared=found.compared,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """A stretch of both disks, and where in it each may hold data."""

    start: int
    stop: int
    first: Ranges
    second: Ranges


class _Extents:
    """The extents of a source, walked as far as they are needed."""

    def __init__(self, source: Source):
        self._groups = source.extents()
        self._pending = Ranges.of([])
        self.reach = 0

    def walk(self) -> None:
        """Take the next group; all extents below `reach` are known then."""
        for group in self._groups:
            if len(group):
                self._pending = Ranges.concat([self._pending, group])
                self.reach = int(group.stop[-1])
                return
        self.reach = sys.maxsize

    def window(self, start: int, stop: int) -> Ranges:
        """Return the extents in a stretch below `reach`."""
        return self._pending.window(start, stop)

    def take(self, start: int, stop: int) -> Ranges:
        """Return the extents in a stretch and forget all before its end."""
        taken = self._pending.window(start, stop)
        self._pending = self._pending.window(stop, sys.maxsize)
        return taken


def _tasks(first: Source, second: Source, size: int) -> Iterator[_Task]:
    a, b = _Extents(first), _Extents(second)
    for batch in batches(_union(a, b, size), size, 1, 1, Pace(1, 1)):
        start, stop = batch.start, batch.stop
        yield _Task(start, stop, a.take(start, stop), b.take(start, stop))


def _union(a: _Extents, b: _Extents, size: int) -> Iterator[Ranges]:
    """Yield, group by group, where at least one of the disks may hold data."""
    at = 0
    while at < size:
        (a if a.reach <= b.reach else b).walk()
        known = min(a.reach, b.reach, size)
        if known > at:
            yield a.window(at, known).union(b.window(at, known))
            at = known


def _pieces(first: Ranges, second: Ranges) -> Iterator[tuple[int, int, bool, bool]]:
    """Yield (start, stop, in first, in second) wherever there is data in either."""
    edges = np.concatenate([first.start, first.stop, second.start, second.stop])
    edges.sort()
    edges = edges[firsts(edges)]
    in_first, in_second = (_inside(edges[:-1], ranges) for ranges in (first, second))
    used = np.flatnonzero(in_first | in_second)
    columns = edges[used], edges[used + 1], in_first[used], in_second[used]
    yield from zip(*(column.tolist() for column in columns), strict=True)


def _inside(offsets: Column, ranges: Ranges) -> Mask:
    begun = np.searchsorted(ranges.start, offsets, side="right")
    ended = np.searchsorted(ranges.stop, offsets, side="right")
    return np.asarray(begun > ended)


def _make_worker(found: "_Findings", tally: Tally) -> Callable[[_Task, Turn], None]:
    buffers = np.empty((2, batch_capacity(1)), dtype=np.uint8)

    def work(task: _Task, turn: Turn) -> None:
        found.take(task, buffers[0], buffers[1], turn)
        tally.advance(task.stop - task.start)

    return work


class _Findings:
    """What the workers have found, put together in the order of the disk."""

    def __init__(self, first: Source, second: Source):
        self._first, self._second = first, second
        self.difference: int | None = None
        self.compared = 0

    def take(
        self,
        task: _Task,
        buffer: Buffer,
        other: Buffer,
        turn: Turn,
    ) -> None:
        """Compare a stretch; what lies behind the first difference is of no moment."""
        failure, difference, compared = None, None, 0
        try:
            difference, compared = self._compare(task, buffer, other)
        except ImgconvError as error:
            failure = error
        with turn:
            if self.difference is None:
                if failure is not None:
                    raise failure
                self.difference = difference
                self.compared += compared

    def _compare(self, task: _Task, buffer: Buffer, other: Buffer) -> tuple[int | None, int]:
        """Return where the stretch differs, and how many bytes were equal before that."""
        compared = 0
        for start, stop, in_first, in_second in _pieces(task.first, task.second):
            piece = buffer[: stop - start]
            (self._first if in_first else self._second).read_into(start, piece.data)
            if in_first and in_second:
                self._second.read_into(start, other[: stop - start].data)
                np.bitwise_xor(piece, other[: stop - start], out=piece)
            if not is_zero(piece.data):  # in one disk alone there must be zeros
                equal = int(np.argmax(piece != 0))
                return start + equal, compared + equal
            compared += stop - start
        return None, compared
