"""zstd: every frame, and the table of the seekable format, if there is one."""

from array import array
from dataclasses import dataclass, field

import numpy as np

from imgconv.checks.findings import Told
from imgconv.checks.inspection import Inspection
from imgconv.checks.report import Usage
from imgconv.codecs import FrameDecoder
from imgconv.errors import ImageMalformed, ImageUnsupported
from imgconv.sources.feed import Feed
from imgconv.sources.options import MAX_PIECES
from imgconv.sources.zstd_frames import MAX_WINDOW, FrameBytes, live, next_frame
from imgconv.sources.zstd_table import Table
from imgconv.units import SECTOR, MiB
from imgconv.workers import Turn, run

_ANY_WINDOW = 1 << 62
_PIECE = MiB


def check_raw_zst(inspection: Inspection) -> Usage:
    """Check a zstd file; without its data, how frames and table are built.

    Raises what reading the file raises.
    """
    frames = _Frames(inspection)
    whole = frames.walk()
    if inspection.data:
        frames.decode()
    if not whole or not frames.is_known:
        return Usage(image_end_offset=frames.end)
    size = sum(frames.held)
    inspection.require(size > 0, "disk-size", 0, "holds no byte")
    text = f"{size} bytes are no whole sectors"
    inspection.advise(size % SECTOR == 0, "disk-size", 0, text)
    with inspection.noting("table", 0):
        if (table := Table.find(inspection.image)) is not None:
            _check_table(inspection, table, frames)
    return Usage(image_end_offset=frames.end)


@dataclass(slots=True, eq=False)
class _Frames:
    """Where frames begin and end in the file, and how much each holds, -1 if nobody knows."""

    inspection: Inspection
    begins: "array[int]" = field(default_factory=lambda: array("q"), init=False)
    ends: "array[int]" = field(default_factory=lambda: array("q"), init=False)
    held: "array[int]" = field(default_factory=lambda: array("q"), init=False)
    window: int = field(default=0, init=False)

    @property
    def is_known(self) -> bool:
        """Whether it is known of all of them how much they hold."""
        return min(self.held, default=0) >= 0

    @property
    def end(self) -> int:
        """Where the last one ends."""
        return self.ends[-1] if self.ends else 0

    def walk(self) -> bool:
        """Find all frames, without decoding any; say whether that came to the file's end."""
        inspection, feed = self.inspection, Feed(self.inspection.file, 0)
        with inspection.noting("frame", 0):
            while next_frame(inspection.image, feed):
                inspection.stop.check()
                frame = FrameBytes(inspection.image, feed, _ANY_WINDOW)
                frame.skip()
                if len(self.begins) == MAX_PIECES:
                    text = f"more than {MAX_PIECES} frames"
                    inspection.error("too-large", frame.where, text)
                    return False
                content = frame.header.content
                self.begins.append(frame.where)
                self.ends.append(feed.where)
                self.held.append(-1 if content is None else content)
                self.window = max(self.window, frame.header.window)
            return True
        return False

    def decode(self) -> None:
        """Decode all of them, in as many threads as their histories leave room for."""
        inspection = self.inspection
        inspection.tally.begin("check", inspection.size)
        threads = min(inspection.threads, live(min(self.window, MAX_WINDOW)))
        tasks = range(len(self.begins))
        run(tasks, lambda: self._attempt, threads=threads, stop=inspection.stop)

    def _attempt(self, number: int, turn: Turn) -> None:
        length, wrong = -1, None
        try:
            length = self._decoded(number)
        except (ImageMalformed, ImageUnsupported) as error:
            wrong = error
        with turn:
            if wrong is None:
                self.inspection.decoded += 1
                self.held[number] = length
            else:
                with self.inspection.noting("stream", self.begins[number]):
                    raise wrong
            self.inspection.tally.advance(self.ends[number] - self.begins[number])

    def _decoded(self, number: int) -> int:
        """Return how much a frame holds. Raises ImageMalformed and ImageUnsupported."""
        image, where, length = self.inspection.image, self.begins[number], 0
        frame = FrameBytes(image, Feed(image.file, where))
        decoder, buffer = FrameDecoder(frame, MAX_WINDOW), memoryview(bytearray(_PIECE))
        try:
            while count := decoder.read_into(buffer):
                self.inspection.stop.check()
                length += count
                image.check_size(length)
        except ValueError as error:
            raise image.error(where, f"compressed data: {error}") from error
        image.check(frame.is_read, where, "a frame goes on behind its content")
        return length


def _check_table(inspection: Inspection, table: Table, frames: _Frames) -> None:
    """Hold a table against the frames that are there; an entry may stand for several."""
    begins, ends = np.array(frames.begins), np.array(frames.ends)
    before = np.concatenate(([0], np.cumsum(np.array(frames.held))))  # content before each
    last, number = np.zeros(2, dtype=np.int64), 0
    for rows in table.rows(inspection.image):
        inspection.stop.check()
        stops = last + np.cumsum(rows, axis=0)
        where, at = (stops - rows).T
        following = np.searchsorted(begins, where)
        inside = (following > 0) & (ends[following - 1] > where)
        wrong = inside | (before[following] != at)
        said_at = table.first + table.entry * np.arange(number, number + len(rows))
        told = Told("a frame at {} that is not", where)
        inspection.corruptions("table-entry", wrong, said_at, told)
        last, number = stops[-1], number + len(rows)
    where, held = last.tolist()
    text = f"its frames end at {where}, but the table is at {table.where}"
    inspection.require(where == table.where, "table-size", table.first, text)
    text = f"its frames hold {held} bytes, but there are {before[-1]}"
    inspection.require(held == before[-1], "table-size", table.first, text)
