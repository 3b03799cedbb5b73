"""Disks inside a compressed stream, which can be decoded only forward, from some points on.

What lies between two points is a segment, and one decoder at a time, its reel, goes through
it. What a reel passes on its way to a reader is kept for those that come a little later, as
the workers of a conversion do; zeros take no room. So a conversion decodes everything once,
each segment in another thread, and a read elsewhere costs a segment at most.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from imgconv.found import Found
from imgconv.native import is_zero
from imgconv.ranges import Column, Ranges
from imgconv.sources.checked import ImageFile
from imgconv.sources.mapped import MappedSource, Mapping
from imgconv.sources.scanning import read_and_scan
from imgconv.units import SECTOR, KiB, MiB, round_up
from imgconv.workers import Condition, Lock

KEPT = 64 * MiB  # what workers may have read at once, all together
_STEP = 256 * KiB  # what is passed is kept in pieces of this size


class Decoder(Protocol):
    """Goes through a stream's content; for one thread at a time."""

    @property
    def at(self) -> int:
        """The offset in the content, in bytes, of what comes next."""
        ...

    def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer, or the front of it; return how far, 0 only at the stream's end.

        Raises ImageMalformed for a broken stream, and the file's errors.
        """
        ...


class _Room:
    """Counts bytes that all reels of a stream keep."""

    def __init__(self, size: int):
        self._left, self._lock = size, Lock()

    def take(self, size: int) -> bool:
        """Reserve so many bytes; say whether there were as many."""
        with self._lock:
            if self._left < size:
                return False
            self._left -= size
            return True

    def give(self, size: int) -> None:
        """Return so many."""
        with self._lock:
            self._left += size


@dataclass(frozen=True, slots=True)
class _Kept:
    """A piece of content; without bytes it is zeros."""

    start: int
    stop: int
    content: bytearray | None

    @property
    def room(self) -> int:
        """Bytes it takes in memory."""
        return 0 if self.content is None else len(self.content)


class _Reel:
    """A decoder on its way through a segment, and what it passed that nobody has read."""

    def __init__(self, image: ImageFile, restart: Callable[[], Decoder], room: _Room):
        self._image, self._restart, self._room = image, restart, room
        self._decoder: Decoder | None = None
        self._kept: list[_Kept] = []
        self._lock = Lock()
        self.users = 0

    def read(self, offset: int, buffer: memoryview) -> int:
        """Fill the buffer, or the front of it; return how far, 0 for what is gone."""
        with self._lock:
            if copied := self._copy(offset, buffer):
                return copied
            if self._decoder is None:
                self._decoder = self._restart()
            if offset < self._decoder.at:
                return 0
            while self._decoder.at < offset:
                self._pass(self._decoder, offset)
            return self._decode(self._decoder, buffer)

    def _decode(self, decoder: Decoder, buffer: memoryview) -> int:
        length = decoder.read_into(buffer)
        self._image.check(length > 0, 0, f"the content ends at {decoder.at}, before it should")
        return length

    def _pass(self, decoder: Decoder, offset: int) -> None:
        start = decoder.at
        content = bytearray(min(offset - start, _STEP))
        length = self._decode(decoder, memoryview(content))
        del content[length:]
        empty = is_zero(content)
        while not empty and not self._room.take(length):
            if not any(kept.room for kept in self._kept):
                return
            self._drop(0)
        self._kept.append(_Kept(start, decoder.at, None if empty else content))

    def _copy(self, offset: int, buffer: memoryview) -> int:
        """Take from what is kept; what has been read to its end is kept no longer."""
        row = bisect_right(self._kept, offset, key=lambda kept: kept.start) - 1
        if row < 0 or self._kept[row].stop <= offset:
            return 0
        kept = self._kept[row]
        length = min(kept.stop - offset, len(buffer))
        if kept.content is None:
            buffer[:length] = bytes(length)
        else:
            low = offset - kept.start
            buffer[:length] = memoryview(kept.content)[low : low + length]
        if offset + length == kept.stop:
            self._drop(row)
        return length

    def _drop(self, row: int) -> None:
        self._room.give(self._kept.pop(row).room)

    def is_done(self, stop: int) -> bool:
        """Say whether nothing up to `stop` can be had from it any more."""
        return self._decoder is not None and self._decoder.at >= stop and not self._kept

    def clear(self) -> None:
        """Let go of everything; nobody uses it any more."""
        while self._kept:
            self._drop(-1)


class Stream:
    """The content of a compressed stream, `size` bytes.

    `starts` are the offsets of the points, of which the first is 0, and `restart` returns a
    decoder that begins at the point of a number. There are no more than `live` of them at
    once. All outside of `data` is zeros.
    """

    def __init__(
        self,
        image: ImageFile,
        size: int,
        data: Ranges,
        starts: Column,
        restart: Callable[[int], Decoder],
        live: int,
    ):
        self.size, self.data = size, data
        self._image, self._restart, self._live = image, restart, live
        self._bounds = np.append(starts, size)
        self._reels: OrderedDict[int, _Reel] = OrderedDict()  # the last used is last
        self._room = _Room(KEPT)
        self._changed = Condition()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer; safe for many threads. Errors are those of the decoders."""
        at, end = offset, offset + len(buffer)
        while at < end:
            row = int(np.searchsorted(self._bounds, at, side="right")) - 1
            stop = min(int(self._bounds[row + 1]), end)
            at += self._read(row, at, buffer[at - offset : stop - offset])

    def _read(self, row: int, offset: int, buffer: memoryview) -> int:
        past = None
        while True:
            with self._lent(row, past) as reel:
                if length := reel.read(offset, buffer):
                    return length
            past = reel

    @contextmanager
    def _lent(self, row: int, past: _Reel | None) -> Iterator[_Reel]:
        """Lend the reel of a segment; if that is `past` what is wanted, another one."""
        with self._changed:
            if past is not None and self._reels.get(row) is past:
                self._forget(row)
            while (reel := self._reels.get(row)) is None and not self._make_room():
                self._changed.wait()
            if reel is None:
                reel = self._reels[row] = _Reel(
                    self._image, partial(self._restart, row), self._room
                )
            self._reels.move_to_end(row)
            reel.users += 1
        failed = True
        try:
            yield reel
            failed = False
        finally:
            with self._changed:
                reel.users -= 1
                current = self._reels.get(row) is reel
                if current and (failed or reel.is_done(int(self._bounds[row + 1]))):
                    self._forget(row)
                elif not current and not reel.users:
                    reel.clear()
                self._changed.notify_all()

    def _make_room(self) -> bool:
        """Say whether there may be another reel; one that nobody uses may have to go."""
        if len(self._reels) < self._live:
            return True
        for row, reel in self._reels.items():
            if not reel.users:
                self._forget(row)
                return True
        return False

    def _forget(self, row: int) -> None:
        reel = self._reels.pop(row)
        if not reel.users:
            reel.clear()


class StreamedDisk(MappedSource):
    """A disk whose content lies in the content of a stream; owns the file that is in.

    What lies past the end of a disk whose `length` is no multiple of 512 reads as zeros.
    """

    def __init__(self, image: ImageFile, length: int, mapping: Mapping, stream: Stream):
        size = round_up(length, SECTOR)
        remarks: tuple[str, ...] = ()
        if size != length:
            remarks = (
                f"{image.file.name}: the disk's length {length} is not a multiple of 512; "
                f"padded with {size - length} zero bytes",
            )
        super().__init__(image.file, size, mapping, remarks)
        self._stream = stream

    def _read_mapped(self, where: int, buffer: memoryview) -> None:
        self._stream.read_into(where, buffer)

    def _data(self) -> None:
        """Pieces are in the content, not in the file."""

    def read_runs(self, extents: Ranges, granule: int, buffer: memoryview) -> Found:
        """Read extents and find their nonzero granules; errors as of `read_into`."""
        return read_and_scan(self, extents, granule, buffer)


def whole_disk(image: ImageFile, stream: Stream) -> StreamedDisk:
    """Return the disk that a stream's content is; ImageMalformed when there is none."""
    image.check(stream.size > 0, 0, "holds no byte; a disk has at least one sector")
    return StreamedDisk(image, stream.size, Mapping(stream.data, stream.data.start), stream)
