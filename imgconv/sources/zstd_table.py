"""The table of the zstd seekable format: which frame holds which content."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from imgconv.native import is_zero
from imgconv.ondisk import zstd as ondisk
from imgconv.ranges import Column, Mask, Ranges
from imgconv.sources.checked import ImageFile
from imgconv.sources.survey import DataMap
from imgconv.sources.zstd_frames import Bound, Frames
from imgconv.units import SECTOR, KiB, MiB, div_ceil

_ROWS = 1 << 16  # entries read at once
_POINTS = 1 << 20
_ZEROS = 256 * KiB  # content of a frame that may be worth knowing to be zeros
_SHRUNK = 1000  # times at least, if it is zeros
_DIFFERENT = 32  # frames that look like zeros are decoded, for each table


@dataclass(frozen=True, slots=True)
class Table:
    """Where the table's entries are, how many, of how many bytes, and where it begins."""

    first: int
    frames: int
    entry: int
    where: int

    @classmethod
    def find(cls, image: ImageFile) -> "Table | None":
        """Look for a table at the end of the file; ImageMalformed for one that cannot be."""
        length = min(SECTOR + ondisk.SeekTableFooter.LAYOUT.size, image.file.size)
        start = image.file.size - length
        end = image.read(start, length, "the end").rstrip(b"\0")  # what fills up the sector
        raw = end[-ondisk.SeekTableFooter.LAYOUT.size :]
        if len(raw) < ondisk.SeekTableFooter.LAYOUT.size:
            return None
        footer = ondisk.SeekTableFooter.unpack(raw)
        if footer.magic != ondisk.SEEKABLE_MAGIC:
            return None
        at = start + len(end) - len(raw)
        image.check(not footer.flags & footer.RESERVED, at + 4, "a table of an unknown kind")
        image.check(footer.frames <= ondisk.MAX_FRAMES, at, f"lists {footer.frames} frames")
        first = at - footer.frames * footer.entry
        where = first - ondisk.SkippableHeader.LAYOUT.size
        front = image.read(where, ondisk.SkippableHeader.LAYOUT.size, "the table")
        header = ondisk.SkippableHeader.unpack(front)
        known = header.magic == ondisk.SKIPPABLE_MAGIC
        right = known and where + len(front) + header.size == start + len(end)
        image.check(right, at, f"lists {footer.frames} frames, but no table has as many")
        return cls(first, footer.frames, footer.entry, where)

    def rows(self, image: ImageFile) -> Iterator[Column]:
        """Yield groups of entries: lengths of frames and of their content, in columns."""
        for first in range(0, self.frames, _ROWS):
            count = min(_ROWS, self.frames - first)
            at = self.first + first * self.entry
            raw = image.read(at, count * self.entry, "the table")
            words = np.frombuffer(raw, dtype="<u4").reshape(count, -1)
            yield words[:, :2].astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """Where segments begin, in the content and in the file; with the end of the last one.

    All outside of `data` is zeros.
    """

    at: Column
    where: Column
    data: Ranges

    def bound(self, number: int) -> Bound:
        """Return where a segment must end."""
        return Bound(int(self.at[number + 1]), int(self.where[number + 1]))


def read_index(image: ImageFile, table: Table) -> Index:
    """Read a table, of which a segment is one frame or, if they are many, several.

    Raises ImageMalformed unless the frames are all that is before the table.
    """
    step, ends = div_ceil(max(table.frames, 1), _POINTS), np.zeros((1, 2), dtype=np.int64)
    kept, data, zeros = [ends], DataMap(), _Zeros(image)
    for number, rows in enumerate(table.rows(image)):
        stops = ends + np.cumsum(rows, axis=0)
        where, at = (stops - rows).T
        image.check_inside(0, int(stops[-1, 0]), table.first, "a frame")
        image.check_size(int(stops[-1, 1]))
        is_data = (rows[:, 1] > 0) & ~zeros.among(rows, where)
        data.note(Ranges(at, stops[:, 1]).where(is_data).merged())
        count = np.arange(1, len(rows) + 1) + number * _ROWS
        kept.append(stops[(count % step == 0) | (count == table.frames)])
        ends = stops[-1:]
    reason = f"its frames end at {ends[0, 0]}, but the table is at {table.where}"
    image.check(int(ends[0, 0]) == table.where, table.first, reason)
    places = np.concatenate(kept)
    # Frames without content belong to what precedes them.
    last = np.append(np.flatnonzero(np.diff(places[:, 1])), len(places) - 1)
    return Index(places[last, 1], places[last, 0], data.ranges(int(ends[0, 1])))


class _Zeros:
    """Knows which frames are nothing but zeros: those that are written like one that is."""

    def __init__(self, image: ImageFile):
        self._image = image
        self._known: dict[bytes, bool] = {}

    def among(self, rows: Column, where: Column) -> Mask:
        """Say which frames, of those lengths and at those places, are zeros."""
        stored, content = rows[:, 0], rows[:, 1]
        found = np.zeros(len(rows), dtype=np.bool_)
        likely = (content >= _ZEROS) & (stored * _SHRUNK < content) & (stored <= 64 * KiB)
        for row in np.flatnonzero(likely).tolist():
            frame = int(stored[row]), int(content[row])
            found[row] = self._is_zero(int(where[row]), *frame)
        return found

    def _is_zero(self, where: int, stored: int, content: int) -> bool:
        key = self._image.read(where, stored, "a frame") + content.to_bytes(8, "little")
        if key not in self._known:
            if len(self._known) == _DIFFERENT:
                return False
            self._known[key] = self._decodes_to_zeros(where, stored, content)
        return self._known[key]

    def _decodes_to_zeros(self, where: int, stored: int, content: int) -> bool:
        frames = Frames(self._image, where, bound=Bound(content, where + stored))
        buffer = memoryview(bytearray(MiB))
        while frames.at < content:
            length = frames.read_into(buffer[: content - frames.at])
            if not length or not is_zero(buffer[:length]):
                return False
        return True
