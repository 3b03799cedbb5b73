"""Content of zstd: frames behind one another (RFC 8878), and what lies between them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from imgconv.codecs import FrameDecoder, FrameHeader, frame_header
from imgconv.errors import ImageUnsupported
from imgconv.ondisk import zstd as ondisk
from imgconv.sources.checked import ImageFile
from imgconv.sources.feed import Feed
from imgconv.sources.options import MAX_PIECES
from imgconv.sources.survey import Point
from imgconv.units import SECTOR, MiB

MAX_WINDOW = 32 * MiB  # history of one frame, which is memory; `zstd --long` takes 128 MiB
_HISTORIES = 64 * MiB  # of all frames that are decoded at once
_TINY = 1 << 14  # things that hold next to nothing, more than any tool makes


class FrameBytes:
    """The bytes of one frame, from the file: its blocks say where it ends."""

    def __init__(self, image: ImageFile, feed: Feed, max_window: int = MAX_WINDOW):
        self._image, self._feed, self.where = image, feed, feed.where
        try:
            self.header = frame_header(feed.peek(ondisk.MAX_HEADER))
        except ValueError as error:
            raise image.error(self.where, f"frame header: {error}") from error
        self._left = self.header.length  # of what can be read before the next block's header
        self.ended = False  # whether the rest is the last block
        self._tiny = 0
        self._check_kind(self.header, max_window)

    def _check_kind(self, header: FrameHeader, max_window: int) -> None:
        name = self._image.file.name
        if header.dictionary:
            raise ImageUnsupported(f"{name}: needs the dictionary it was compressed with")
        if header.window > max_window:
            raise ImageUnsupported(
                f"{name}: needs a history of {header.window} bytes at {self.where}; "
                f"at most {max_window} are kept"
            )

    @property
    def is_read(self) -> bool:
        """Whether nothing of the frame is left."""
        return self.ended and not self._left

    def read(self, size: int) -> bytes:
        """Return some of what comes next, nothing at the frame's end."""
        self._reach_block()
        piece = self._feed.ahead(min(size, self._left))
        self._pass(len(piece))
        return bytes(piece)

    def skip(self) -> None:
        """Go to the frame's end without reading what is on the way."""
        while not self.is_read:
            self._reach_block()
            self._pass(min(self._left, self._feed.left))

    def _reach_block(self) -> None:
        if self._left or self.ended:
            return
        where, raw = self._feed.where, self._feed.peek(ondisk.BlockHeader.SIZE)
        check = self._image.check
        check(len(raw) == ondisk.BlockHeader.SIZE, where, "ends in the middle of a frame")
        block = ondisk.BlockHeader.unpack(raw)
        check(block.kind != ondisk.BlockHeader.RESERVED, where, "has a block of no kind")
        self._tiny += block.is_tiny
        check(self._tiny < _TINY, where, "is in blocks that hold next to nothing")
        self._left, self.ended = ondisk.BlockHeader.SIZE + block.stored, block.last
        if block.last and self.header.checksum:
            self._left += ondisk.CHECKSUM_SIZE

    def _pass(self, length: int) -> None:
        if self._left:
            self._image.check(length > 0, self._feed.where, "ends in the middle of a frame")
        self._feed.skip(length)
        self._left -= length


def next_frame(image: ImageFile, feed: Feed) -> bool:
    """Go to the next frame that has content; say whether there is one.

    Behind the last one there may be what the end of a sector lacks.
    """
    for _ in range(_TINY):
        if not feed.left:
            return False
        where, front = feed.where, feed.peek(ondisk.SkippableHeader.LAYOUT.size)
        magic = int.from_bytes(front[:4], "little")
        if magic == ondisk.FRAME_MAGIC:
            return True
        if magic in ondisk.SKIPPABLE and len(front) == ondisk.SkippableHeader.LAYOUT.size:
            size = ondisk.SkippableHeader.unpack(front).size
            image.check_inside(where + len(front), size, where, "a frame to skip")
            feed.skip(len(front) + size)
            continue
        rest = feed.left < SECTOR and not any(feed.peek(feed.left))
        image.check(rest, where, "there is no zstd frame")
        return False
    raise ImageUnsupported(f"{image.file.name}: has {_TINY} frames to skip in a row")


@dataclass(frozen=True, slots=True)
class Bound:
    """Where frames must end: in the content, and in the file."""

    at: int
    where: int


class Frames:
    """Decodes frames, one behind another, up to a bound or else the end of the file.

    A frame is verified by its checksum, if it has one, as soon as its last byte is read,
    where the length of its content is known or there is a bound.
    """

    def __init__(
        self,
        image: ImageFile,
        where: int,
        at: int = 0,
        bound: Bound | None = None,
        max_window: int = MAX_WINDOW,
    ):
        self._image, self._feed, self._bound = image, Feed(image.file, where), bound
        self.at, self._max_window = at, max_window
        self._frame: FrameBytes | None = None
        self._decoder: FrameDecoder | None = None
        self._end: int | None = None  # of the frame's content, if that is known
        self._begun, self._where = at, where  # the frame that was begun last
        self._frames = 0

    def fork(self) -> Point:
        """Return a point for the beginning of this frame."""
        return Point(self._begun, partial(Frames, self._image, self._where, self._begun))

    def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer, at most up to a frame's end; errors are the file's, ImageMalformed
        and ImageUnsupported."""
        while self._frame is not None or self._begin():
            if length := self._decode(buffer):
                self.at += length
                if self._bound is not None and self.at >= self._bound.at:
                    self._end = self.at
                if self.at == self._end:
                    self._finish()
                return length
            self._finish()
        return 0

    def _begin(self) -> bool:
        if self._bound is not None and self.at >= self._bound.at:
            return False
        if not next_frame(self._image, self._feed):
            return False
        self._begun, self._where = self.at, self._feed.where
        self._frame = FrameBytes(self._image, self._feed, self._max_window)
        self._decoder = FrameDecoder(self._frame, self._max_window)
        content = self._frame.header.content
        self._end = None if content is None else self.at + content
        self._frames += 1
        check_count(self._image, self._frames, self.at)
        return True

    def _decode(self, buffer: memoryview) -> int:
        assert self._frame is not None
        assert self._decoder is not None
        try:
            return self._decoder.read_into(buffer)
        except ValueError as error:
            where = self._frame.where
            raise self._image.error(where, f"compressed data: {error}") from error

    def _finish(self) -> None:
        """Check that the frame ends here, and where it should."""
        assert self._frame is not None
        where, check = self._frame.where, self._image.check
        check(not self._decode(memoryview(bytearray(1))), where, "a frame holds too much")
        check(self._frame.is_read, where, "a frame goes on behind its content")
        check(self._end in (None, self.at), where, "a frame holds too little")
        self._frame = self._decoder = None
        if self._bound is not None and self.at == self._bound.at:
            ends = self._ends_at(self._bound.where)
            check(ends, where, f"the frames do not end at {self._bound.where}, as they should")

    def _ends_at(self, where: int) -> bool:
        """Pass frames without content; say whether the last one ends there."""
        feed = self._feed
        if feed.where > where:
            return False
        while feed.where < where and next_frame(self._image, feed) and feed.where < where:
            frame = FrameBytes(self._image, feed, self._max_window)
            if frame.header.content != 0:
                return False
            frame.skip()
        return feed.where >= where


def check_count(image: ImageFile, frames: int, content: int) -> None:
    """Refuse a file that is more frames than content."""
    if frames > _TINY + content // SECTOR:
        raise ImageUnsupported(
            f"{image.file.name}: has {frames} frames that hold next to nothing"
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a frame is, and how long its content, if it says so."""

    where: int
    content: int | None
    window: int


def walk(image: ImageFile) -> Iterator[Frame]:
    """Yield all frames of the file without decoding any; ImageMalformed where it is none."""
    feed = Feed(image.file, 0)
    for _ in range(MAX_PIECES):
        if not next_frame(image, feed):
            return
        frame = FrameBytes(image, feed)
        frame.skip()
        yield Frame(frame.where, frame.header.content, frame.header.window)
    raise ImageUnsupported(f"{image.file.name}: is more than {MAX_PIECES} frames")


def live(window: int) -> int:
    """Return how many frames with such a history may be decoded at once."""
    return max(_HISTORIES // max(window, MiB), 1)
