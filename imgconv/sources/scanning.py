"""Reading a batch and finding what in it is not zero."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np

from imgconv.found import Found
from imgconv.native import data_runs
from imgconv.ranges import Ranges
from imgconv.sources.base import ScanningSource, Source
from imgconv.units import MiB

PIECE = MiB  # read at once; of nothing but zeros, it is forgotten at once

Scan: TypeAlias = Callable[[Ranges, int, memoryview], Found]


def scanner(source: Source) -> Scan:
    """Return what reads extents into a buffer and finds their nonzero granules.

    Takes the extents, multiples of a granule but for the end of the disk, the granule in
    bytes, and a buffer with room for them all. A source may have its own way.
    """
    if isinstance(source, ScanningSource):
        return source.read_runs
    return partial(read_and_scan, source)


def read_and_scan(
    source: Source, extents: Ranges, granule: int, buffer: memoryview, piece: int = PIECE
) -> Found:
    """Do so with any source, `piece` bytes at once."""
    used, data, where = 0, list[Ranges](), [np.empty(0, dtype=np.int64)]
    for start, stop in _pieces(extents, max(piece // granule, 1) * granule):
        content = buffer[used : used + stop - start]
        source.read_into(start, content)
        runs = data_runs(content, granule)
        if len(runs):
            data.append(Ranges(runs.start + start, runs.stop + start))
            where.append(runs.start + used)
            used += stop - start
    return Found(Ranges.concat(data), np.concatenate(where), buffer)


def _pieces(extents: Ranges, step: int) -> Iterator[tuple[int, int]]:
    for start, stop in extents:
        for at in range(start, stop, step):
            yield at, min(at + step, stop)


def refined(found: Found, granule: int) -> Found:
    """Look again, by finer granules, at what was found by coarser ones; reads nothing.

    Runs begin at multiples of the coarser granule, of which `granule` is a divisor.
    """
    data, where = [Ranges.of([])], [np.empty(0, dtype=np.int64)]
    for (start, stop), low in zip(found.data, found.where.tolist(), strict=True):
        runs = data_runs(found.buffer[low : low + stop - start], granule)
        data.append(Ranges(runs.start + start, runs.stop + start))
        where.append(runs.start + low)
    return Found(Ranges.concat(data), np.concatenate(where), found.buffer)
