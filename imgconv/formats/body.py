"""How guest data lies in an output: packed unit after unit, or flat at its own offsets."""

import numpy as np

from imgconv.ranges import Column, Ranges
from imgconv.segments import DATA, ZEROS, Segments, Zeros, data


def packed(runs: Ranges, unit: int) -> Segments:
    """Return the runs back to back; a unit that the end of the disk cut short is padded."""
    body = data(runs.start, runs.length)
    short = -int(runs.stop[-1]) % unit if len(runs) else 0
    return Segments.concat([body, Segments.of([Zeros(short)])]) if short else body


class FlatBody:
    """Guest data at its own offsets, or at others that ascend, all between being zeros."""

    def __init__(self) -> None:
        self._at = 0

    def place(self, runs: Ranges, where: Column | None = None) -> Segments:
        """Return the gaps and the runs up to the end of the last run.

        `where` is at which offset of the body each run begins, if not at its own.
        """
        if not len(runs):
            return Segments.of(())
        start = runs.start if where is None else where
        stop = start + runs.length
        gap = start - np.concatenate(([self._at], stop[:-1]))
        self._at = int(stop[-1])
        kind = np.full((len(runs), 2), (ZEROS, DATA), dtype=np.uint8)
        length, ref = np.zeros((2, len(runs), 2), dtype=np.int64)
        length[:, 0], length[:, 1], ref[:, 1] = gap, runs.length, runs.start
        keep = length > 0
        return Segments(kind[keep], length[keep], ref[keep])

    def finish(self, size: int) -> Segments:
        """Return the zeros from the last run to `size`."""
        return Segments.of([Zeros(size - self._at)])
