"""A planned output: every segment of it, at its offset, before any byte is written.

A layout is a value. It holds columns and late-rendered metadata, no guest data, so it
stays small, can be pickled, and can be rendered (see render.py) in any order, by any
number of workers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from imgconv.ranges import Column
from imgconv.segments import ZEROS, Data, Meta, Segment, Segments, Zeros


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Segments and the output offset at which each begins; `size` is the output's, in bytes."""

    segments: Segments
    start: Column
    size: int

    @classmethod
    def of(cls, parts: Iterable[Segments]) -> "Layout":
        """Lay segments out from offset 0 in the order given."""
        segments = Segments.concat(parts)
        ends = segments.length.cumsum()
        return cls(segments, ends - segments.length, segments.size)

    def window(self, start: int, stop: int) -> Iterator[tuple[int, Segment]]:
        """Yield (output offset, segment) for all that lies in [start, stop), cut to fit."""
        rows = self._rows(start, stop)
        found = self.segments.rows(rows)
        for at, segment in zip(self.start[rows].tolist(), found, strict=True):
            low, high = max(at, start), min(at + segment.length, stop)
            if low < high:
                yield low, _cut(segment, low - at, high - at)

    def _rows(self, start: int, stop: int) -> slice:
        """Return which segments touch [start, stop)."""
        first = int(self.start.searchsorted(start, side="right")) - 1
        return slice(max(first, 0), int(self.start.searchsorted(stop, side="left")))

    def is_zero(self, start: int, stop: int) -> bool:
        """Say whether there is nothing but Zeros in [start, stop)."""
        return bool((self.segments.kind[self._rows(start, stop)] == ZEROS).all())

    def piece(self, start: int, stop: int) -> "Layout":
        """Return a layout with what lies in [start, stop) alone, at the same offsets.

        It is what somebody needs who is to render that window, and no more.
        """
        rows = self._rows(start, stop)
        return Layout(self.segments.rows(rows).compacted(), self.start[rows], self.size)


class LayoutBuilder:
    """Collects segments in stream order.

    Engines append a little at a time, so what has gathered is joined now and then: the
    finished layout costs memory by the run, not by the batch.
    """

    _GATHER = 256

    def __init__(self) -> None:
        self._joined: list[Segments] = []
        self._loose: list[Segments] = []

    def append(self, segments: Segments) -> None:
        """Add what comes next."""
        self._loose.append(segments)
        if len(self._loose) >= self._GATHER:
            self._join()

    def _join(self) -> None:
        self._joined.append(Segments.concat(self._loose).coalesced())
        self._loose = []

    def build(self, head: Iterable[Segments]) -> Layout:
        """Return the layout: the head, then all that was appended."""
        self._join()
        return Layout.of([*head, *self._joined])


def _cut(segment: Segment, low: int, high: int) -> Segment:
    if high - low == segment.length:
        return segment
    match segment:
        case Meta():
            return Meta(high - low, partial(_render_part, segment, low, high))
        case Data(start):
            return Data(start + low, high - low)
        case Zeros():
            return Zeros(high - low)


def _render_part(meta: Meta, low: int, high: int) -> bytes | memoryview:
    return meta.render()[low:high]
