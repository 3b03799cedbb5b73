"""Going through a stream once, from end to end, before anything of it is believed.

That is the only way to learn how much a gzip holds. On the way are noted where there is
nothing but zeros, which is not decoded again, and points to begin at later.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from imgconv.native import data_runs, is_zero
from imgconv.ranges import Column, Ranges
from imgconv.sources.checked import ImageFile
from imgconv.sources.streams import Decoder
from imgconv.units import KiB, MiB

_PIECE = MiB
_SPACING = 4 * MiB  # as much as a worker reads at once, so that segments fall to different ones
_GATHER = 1024


@dataclass(frozen=True, slots=True)
class Point:
    """Where decoding can begin: an offset in the content, and what does begin there."""

    at: int
    resume: Callable[[], Decoder]


class Forking(Decoder, Protocol):
    """A decoder that can begin again where it is."""

    def fork(self) -> Point:
        """Return a point for here, or the last before it where it can begin."""
        ...


class Points:
    """Points before data, `room` of them at most: when there are more every other one goes."""

    def __init__(self, first: Point, room: int):
        self._points, self._room, self._spacing = [first], room, _SPACING
        self._recent = first  # behind it there may have been only zeros

    def offer(self, decoder: Forking) -> None:
        """Remember where the decoder is, if the last point is far enough."""
        if decoder.at - self._recent.at >= _SPACING:
            self._recent = decoder.fork()

    def use(self) -> None:
        """There is data behind the point remembered last: it becomes one of those to keep."""
        if self._recent.at - self._points[-1].at >= self._spacing:
            self._points.append(self._recent)
            if len(self._points) > self._room:
                self._points = self._points[::2]
                self._spacing *= 2

    @property
    def starts(self) -> Column:
        """The offsets of all points."""
        return np.array([point.at for point in self._points], dtype=np.int64)

    def resume(self, number: int) -> Decoder:
        """Return a decoder that begins at a point."""
        return self._points[number].resume()


class DataMap:
    """Ranges that hold data, found in ascending order; in multiples of 64 KiB, which double
    when there are too many of them."""

    MOST = 1 << 19

    def __init__(self) -> None:
        self.granule = 64 * KiB
        self._parts: list[Ranges] = []

    def note(self, data: Ranges) -> None:
        """Add ranges behind all others."""
        if len(data):
            self._parts.append(data)
        if len(self._parts) >= _GATHER:
            self._gather()

    def _gather(self) -> None:
        whole = self._aligned()
        while len(whole) > self.MOST:
            self.granule *= 2
            self._parts = [whole]
            whole = self._aligned()
        # The older part is large and at rest: it is not touched each time.
        self._parts = [whole]

    def _aligned(self) -> Ranges:
        found = Ranges.concat(self._parts)
        return found.aligned(self.granule, np.iinfo(np.int64).max)

    def ranges(self, size: int) -> Ranges:
        """Return what was found in the first `size` bytes."""
        self._gather()
        return self._parts[0].window(0, size)


def survey(image: ImageFile, decoder: Forking, points: Points) -> Ranges:
    """Take the decoder to the end; return where there is data, and gather points.

    Raises ImageUnsupported as soon as there is more content than is believed, Cancelled, and
    what the decoder does.
    """
    buffer, data = memoryview(bytearray(_PIECE)), DataMap()
    ended = False
    while not ended:
        start, filled = decoder.at, 0
        room = _PIECE - start % _PIECE
        while filled < room and not ended:
            points.offer(decoder)
            length = decoder.read_into(buffer[filled:room])
            if not is_zero(buffer[filled : filled + length]):
                points.use()
            filled, ended = filled + length, not length
        image.check_size(decoder.at)
        image.check_wanted()
        runs = data_runs(buffer[:filled], data.granule)
        data.note(Ranges(runs.start + start, runs.stop + start))
    return data.ranges(decoder.at)
