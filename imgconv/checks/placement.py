"""Pieces of one length that tables put into a file: do they lie on one another, and what lies
between them? The file is gone through window by window, so that memory is that of a window.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from imgconv.checks.inspection import Inspection
from imgconv.checks.report import LEAK
from imgconv.ranges import Column, Mask, Ranges

CAPACITY = 1 << 21  # pieces of a window
_BUCKETS = 4096
_NONE = np.empty(0, dtype=np.int64)

# Yields where pieces begin, and where in the file each is told, both by the file's tables;
# all pieces begin within the file.
Walk = Callable[[], Iterable[tuple[Column, Column]]]


class Placement:
    """Pieces of `length` bytes, each called `what`, beside `taken`, which is for other uses."""

    def __init__(
        self, inspection: Inspection, walk: Walk, length: int, taken: Ranges, what: str
    ):
        self._inspection, self._walk, self._what = inspection, walk, what
        self.length = length
        order = np.argsort(taken.start, kind="stable")
        self._taken = Ranges(taken.start[order], taken.stop[order]).merged()
        self._reach = 0  # where the pieces so far end
        self._used = 0  # where all that is used so far ends
        self.end = int(self._taken.stop[-1]) if len(self._taken) else 0

    def windows(self) -> Iterator[Column]:
        """Check all; yield, ascending, where the pieces of each window begin, each once."""
        for low, high in self._bounds():
            self._inspection.stop.check()
            yield self._check(low, high)

    def check(self) -> None:
        """Check all, and record what lies unused between them, if pieces fit there."""
        self._used = int(self._taken.stop[0]) if len(self._taken) else 0
        for low, high in self._bounds():
            self._inspection.stop.check()
            start = self._check(low, high)
            self._find_gaps(start, self._taken.window(low, high))

    def _bounds(self) -> Iterator[tuple[int, int]]:
        """Cut the file so that there is room for the pieces of each window."""
        size = self._inspection.size
        bucket = -(-size // _BUCKETS)
        counts = np.zeros(_BUCKETS, dtype=np.int64)
        for start, _ in self._walk():
            counts += np.bincount(start // bucket, minlength=_BUCKETS)
        low, total = 0, 0
        for number, count in enumerate(counts.tolist()):
            if total and total + count > CAPACITY:
                yield low, number * bucket
                low, total = number * bucket, 0
            total += count
        yield low, size

    def _check(self, low: int, high: int) -> Column:
        start, at = self._gather(low, high)
        if not len(start):
            return start
        before = np.maximum.accumulate(start + self.length)
        before = np.concatenate(([self._reach], before[:-1]))
        self._record("overlap", start < before, start, at, "lies on another one")
        if len(self._taken):
            row = np.searchsorted(self._taken.stop, start, side="right")
            inside = row < len(self._taken)
            first = self._taken.start[np.where(inside, row, 0)]
            hit = inside & (first < start + self.length)
            self._record("metadata-overlap", hit, start, at, "lies on metadata")
        self._reach = max(self._reach, int(start[-1]) + self.length)
        self.end = max(self.end, self._reach)
        return start[np.concatenate(([True], np.diff(start) > 0))]

    def _gather(self, low: int, high: int) -> tuple[Column, Column]:
        """Return the pieces that begin in a window; of many at one place, some are said to be
        too many at once."""
        starts, ats, count = [_NONE], [_NONE], 0
        for start, at in self._walk():
            inside = (start >= low) & (start < high)
            starts.append(start[inside])
            ats.append(at[inside])
            count += len(starts[-1])
            if count > 2 * CAPACITY:
                start, at = self._distinct(np.concatenate(starts), np.concatenate(ats))
                starts, ats, count = [start], [at], len(start)
        start, at = np.concatenate(starts), np.concatenate(ats)
        order = np.argsort(start, kind="stable")
        return start[order], at[order]

    def _distinct(self, start: Column, at: Column) -> tuple[Column, Column]:
        kept = np.unique(start, return_index=True)[1]
        again = np.ones(len(start), dtype=np.bool_)
        again[kept] = False
        self._record("overlap", again, start, at, "lies on another one")
        return start[kept], at[kept]

    def _record(self, rule: str, wrong: Mask, start: Column, at: Column, text: str) -> None:
        self._inspection.corruptions(
            rule, wrong, at, lambda row: f"{self._what} at {start[row]} {text}"
        )

    def _find_gaps(self, start: Column, taken: Ranges) -> None:
        used = Ranges(start, start + self.length).union(taken)
        if not len(used):
            return
        before = np.concatenate(([self._used], used.stop[:-1]))
        self._leaks(before, used.start)
        self._used = max(self._used, int(used.stop[-1]))

    def leak_until(self, stop: int) -> None:
        """Record what lies unused behind all pieces, up to `stop`."""
        self._leaks(np.array([max(self._used, self.end)]), np.array([stop]))

    def _leaks(self, start: Column, stop: Column) -> None:
        units = (stop - start) // self.length
        rows = np.flatnonzero(units > 0)
        if len(rows):
            self._inspection.findings.add_all(
                LEAK,
                "unused",
                start[rows],
                lambda n: (
                    f"nothing uses {stop[rows[n]] - start[rows[n]]} bytes, "
                    f"room for {self._what}"
                ),
                total=int(units[rows].sum()),
            )
