"""How large a compressed output would be, from a sample of its units.

The units that may hold data are cut into as many stretches of equal length as there are
samples, and of each stretch one unit is read and encoded. The writer then places all units
as if each were like its stretch's sample, so that tables and markers are counted, too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import sqrt

import numpy as np

from imgconv.formats.base import EncodingWriter
from imgconv.native import is_zero
from imgconv.ranges import Column, Ranges
from imgconv.segments import ZEROS, Segments
from imgconv.sources.base import Source
from imgconv.tally import Tally
from imgconv.units import MiB
from imgconv.workers import Stop, Turn, run

_VOLUME = 128 * MiB  # of samples, unless that would be too few or too many
_FEWEST, _MOST = 256, 4096
_CERTAIN = 1.96  # standard deviations, for 95 %
_STEP = 1 << 16  # units placed at once


@dataclass(frozen=True, slots=True)
class Estimate:
    """The output as it would be if the sample tells all; in bytes.

    The true `size` lies within `error` of this one in 95 of 100 cases.
    """

    size: int
    allocated: int
    data: int
    error: int


class _Units:
    """The units of a disk that may hold data, by number in ascending order."""

    def __init__(self, source: Source, unit: int):
        extents = (group.aligned(unit, source.size) for group in source.extents())
        self._ranges = Ranges.concat(extents).merged()
        self._unit = unit
        self._ends = np.cumsum(-(-self._ranges.length // unit))
        self.count = int(self._ends[-1]) if len(self._ranges) else 0

    def offsets(self, numbers: Column) -> Column:
        """Where in the guest they begin."""
        rows = np.searchsorted(self._ends, numbers, side="right")
        beyond = self._ends[rows] - numbers  # units from this one to the end of its range
        count = -(-self._ranges.length[rows] // self._unit)
        found: Column = self._ranges.start[rows] + (count - beyond) * self._unit
        return found


def sample_size(unit: int) -> int:
    """Return how many units of that many bytes are enough."""
    return min(max(_VOLUME // unit, _FEWEST), _MOST)


def estimate(
    source: Source, writer: EncodingWriter, *, threads: int, stop: Stop, tally: Tally
) -> Estimate | None:
    """Estimate the output; uses up the writer. None if the disk is not worth a sample, so
    that encoding all of it takes hardly longer.

    The result does not depend on the number of threads.
    """
    units = _Units(source, writer.unit)
    samples = sample_size(writer.unit)
    if units.count <= 2 * samples:
        return None
    edges = np.arange(samples + 1) * units.count // samples
    numbers = np.random.default_rng(0).integers(edges[:-1], edges[1:])
    offsets = units.offsets(numbers)
    tally.begin("scan", samples * writer.unit)
    lengths = _encoded_lengths(source, writer, offsets, threads, stop, tally)
    chances = np.diff(edges)
    error = _error(lengths, chances)
    placed = allocated = 0
    for segments in _placed(writer, units, lengths, edges):
        placed += segments.size
        allocated += int(segments.length[segments.kind != ZEROS].sum())
    data = int(chances[lengths > 0].sum()) * writer.unit
    return Estimate(writer.head_size + placed, writer.head_size + allocated, data, error)


def _encoded_lengths(
    source: Source,
    writer: EncodingWriter,
    offsets: Column,
    threads: int,
    stop: Stop,
    tally: Tally,
) -> Column:
    """Return how long each unit is as it is stored, 0 for one of zeros."""
    lengths = np.zeros(len(offsets), dtype=np.int64)

    def encode(buffer: memoryview, row: int, turn: Turn) -> None:
        at = int(offsets[row])
        content = buffer[: min(writer.unit, source.size - at)]
        source.read_into(at, content)
        if not is_zero(content):
            lengths[row] = len(writer.encode(at, content))
        tally.advance(writer.unit)

    def make_worker() -> Callable[[int, Turn], None]:
        return partial(encode, memoryview(bytearray(writer.unit)))

    run(range(len(offsets)), make_worker, threads=threads, stop=stop)
    return lengths


def _error(lengths: Column, chances: Column) -> int:
    """Return how far the sum of all lengths may be off.

    One sample of a stretch tells nothing of how they vary in it, but neighbouring stretches
    do: at least as much, if what is near is alike.
    """
    variance = float((np.diff(lengths.astype(float)) ** 2).sum()) / 2 / (len(lengths) - 1)
    unseen = 1 - len(lengths) / float(chances.sum())
    return int(_CERTAIN * float(chances.sum()) * sqrt(variance * unseen / len(lengths)))


def _placed(
    writer: EncodingWriter, units: _Units, lengths: Column, edges: Column
) -> Iterator[Segments]:
    yield from writer.begin()
    for first in range(0, units.count, _STEP):
        numbers = np.arange(first, min(first + _STEP, units.count))
        like = lengths[np.searchsorted(edges, numbers, side="right") - 1]
        numbers, like = numbers[like > 0], like[like > 0]
        if len(numbers):
            yield writer.place(units.offsets(numbers), like, np.zeros_like(like))
    yield from writer.finish()
