"""Reading a batch and finding what in it is not zero."""

from dataclasses import dataclass

import numpy as np

from imgconv.batches import Batch
from imgconv.native import data_runs
from imgconv.ranges import Column, Ranges, overlaps
from imgconv.sources.base import Source


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The data of a batch: guest ranges, and where in `buffer` the bytes of each begin."""

    data: Ranges
    where: Column
    buffer: memoryview


def scan(source: Source, batch: Batch, buffer: memoryview, granule: int) -> Found:
    """Read a batch's extents back to back into `buffer` and find their nonzero granules."""
    extents = batch.extents
    ends = np.cumsum(extents.length)
    packed = Ranges(ends - extents.length, ends)
    for (start, _), (low, high) in zip(extents, packed, strict=True):
        source.read_into(start, buffer[low:high])
    used = buffer[: extents.total]
    runs = data_runs(used, granule)
    # A run may cross from one extent into the next, which are neighbours only here.
    owner, _, where = overlaps(packed, runs)
    shift = extents.start[owner] - packed.start[owner]
    return Found(Ranges(where.start + shift, where.stop + shift), where.start, used)
