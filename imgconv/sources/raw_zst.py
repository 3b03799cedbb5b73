"""Raw disks in zstd: seekable, or one frame or many behind one another."""

from array import array
from functools import partial

import numpy as np

from imgconv.ranges import Ranges
from imgconv.sources.base import Source
from imgconv.sources.checked import ImageFile
from imgconv.sources.feed import Feed
from imgconv.sources.streams import Decoder, Stream, whole_disk
from imgconv.sources.survey import Point, Points, survey
from imgconv.sources.zstd_frames import FrameBytes, Frames, check_count, live, next_frame, walk
from imgconv.sources.zstd_table import Table, read_index
from imgconv.units import MiB

_POINTS = 1 << 16
_SEGMENT = MiB  # frames are joined up to it, so that there are not too many
_WINDOW = 4 * MiB  # history that any frame in a table may need


def open_raw_zst(image: ImageFile) -> Source:
    """Open the disk in a zstd file.

    By its table if it has one; otherwise by what its frames say of their sizes; only if one
    does not is everything decoded once. Raises SourceErrors.
    """
    table = Table.find(image)
    return whole_disk(image, _plain(image) if table is None else _seekable(image, table))


def _seekable(image: ImageFile, table: Table) -> Stream:
    index = read_index(image, table)
    window = _window(image)

    def restart(number: int) -> Decoder:
        where, at = int(index.where[number]), int(index.at[number])
        return Frames(image, where, at, index.bound(number), window)

    size = int(index.at[-1])
    return Stream(image, size, index.data, index.at[:-1], restart, live(window))


def _window(image: ImageFile) -> int:
    """Return the history that frames of a table may need, which are not looked at before they
    are read: as much as the first one."""
    feed = Feed(image.file, 0)
    if not next_frame(image, feed):
        return _WINDOW
    return max(FrameBytes(image, feed).header.window, _WINDOW)


def _plain(image: ImageFile) -> Stream:
    starts, places, size, window = array("q"), array("q"), 0, 1
    known = True
    for count, frame in enumerate(walk(image), 1):
        known = known and frame.content is not None
        if known and (not starts or size - starts[-1] >= _SEGMENT):
            starts.append(size)
            places.append(frame.where)
        size, window = size + (frame.content or 0), max(window, frame.window)
        image.check_size(size)
        if known:
            check_count(image, count, size)
    if not known:
        return _surveyed(image, window)

    def restart(number: int) -> Decoder:
        return Frames(image, places[number], starts[number])

    data, begins = Ranges.single(0, size), np.array(starts, dtype=np.int64)
    return Stream(image, size, data, begins, restart, live(window))


def _surveyed(image: ImageFile, window: int) -> Stream:
    frames = Frames(image, 0)
    points = Points(Point(0, partial(Frames, image, 0)), _POINTS)
    data = survey(image, frames, points)
    return Stream(image, frames.at, data, points.starts, points.resume, live(window))
