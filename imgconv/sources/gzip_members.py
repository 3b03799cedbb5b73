"""Content of gzip: one member, or many behind one another (RFC 1952)."""

from functools import partial

from imgconv.codecs import Inflater
from imgconv.errors import ImageUnsupported
from imgconv.native import CRC32, is_zero
from imgconv.ondisk import gzip as ondisk
from imgconv.sources.checked import ImageFile
from imgconv.sources.feed import Feed
from imgconv.sources.streams import Stream
from imgconv.sources.survey import Point, Points, survey
from imgconv.units import SECTOR, KiB, MiB

_FED = 16 * KiB  # given to the inflater at once; a copy of it keeps what it did not take
_TEXT = 64 * KiB  # of a name or a comment; longer ones are nobody's
_TINY = 1 << 14  # members that hold less than a sector, more than any tool makes
_POINTS = 640  # of about 50 KiB each
_LIVE = 64


class Members:
    """Decodes members, one behind another, up to the end of the file.

    Each is verified by its checksum and its length, but one that is entered in the middle.
    Anything but zeros behind the last is an error: it may be a member that was damaged.
    """

    def __init__(
        self, image: ImageFile, where: int, at: int = 0, inflater: Inflater | None = None
    ):
        self._image, self._feed = image, Feed(image.file, where)
        self.at, self._inflater = at, inflater
        self._crc: int | None = None
        self._begun = at  # where in the content the member begins
        self._members = 0

    def fork(self) -> Point:
        """Return a point for here."""
        inflater = None if self._inflater is None else self._inflater.copy()
        return Point(
            self.at, partial(_resume, self._image, self._feed.where, self.at, inflater)
        )

    def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer, at most up to the end of a member; errors are the file's, and
        ImageMalformed."""
        while self._inflater is not None or self._begin():
            if filled := self._fill(buffer):
                return filled
        return 0

    def _fill(self, buffer: memoryview) -> int:
        filled = 0
        while self._inflater is not None and filled < len(buffer):
            content = self._inflate(self._inflater, len(buffer) - filled)
            buffer[filled : filled + len(content)] = content
            filled += len(content)
        return filled

    def _inflate(self, inflater: Inflater, most: int) -> bytes:
        where, fed = self._feed.where, self._feed.ahead(_FED)
        self._image.check(len(fed) > 0, where, "ends in the middle of a member")
        try:
            content, used = inflater.decode(fed, most)
        except ValueError as error:
            raise self._image.error(where, f"compressed data: {error}") from error
        self._feed.skip(used)
        self.at += len(content)
        if self._crc is not None:
            self._crc = CRC32.update(content, self._crc)
        if inflater.ended:
            self._end()
        return content

    def _begin(self) -> bool:
        """Read the header of the next member; say whether there is one."""
        where, front = self._feed.where, self._feed.peek(ondisk.Header.LAYOUT.size)
        if where and not any(front):
            self._check_zeros()
            return False
        read_header(self._image, self._feed)
        self._inflater, self._crc, self._begun = Inflater(), 0, self.at
        self._members += 1
        if self._members > _TINY + self.at // SECTOR:
            raise ImageUnsupported(
                f"{self._image.file.name}: {self._members} members hold next to nothing"
            )
        return True

    def _end(self) -> None:
        """Compare what came with what the member says at its end."""
        where, raw = self._feed.where, self._feed.take(ondisk.Trailer.LAYOUT.size)
        whole = len(raw) == ondisk.Trailer.LAYOUT.size
        self._image.check(whole, where, "ends in the middle of a member")
        trailer, length = ondisk.Trailer.unpack(raw), self.at - self._begun
        if self._crc is not None:
            right = trailer.crc == self._crc
            self._image.check(right, where, "the content is not that of the CRC-32")
            right = trailer.size == length % (1 << 32)
            self._image.check(right, where + 4, f"holds {length} bytes, but says otherwise")
        self._inflater = self._crc = None

    def _check_zeros(self) -> None:
        """Refuse a file of which anything but zeros is left."""
        buffer = memoryview(bytearray(MiB))
        file = self._image.file
        for at in range(self._feed.where, file.size, MiB):
            rest = buffer[: file.size - at]
            file.read_into(at, rest)
            self._image.check(is_zero(rest), at, "what follows the last member is none")


def read_header(image: ImageFile, feed: Feed) -> None:
    """Take the header of a member from the feed; ImageMalformed for one that cannot be."""
    where, front = feed.where, feed.peek(ondisk.Header.LAYOUT.size)
    begins = front[:2] == ondisk.MAGIC and len(front) == ondisk.Header.LAYOUT.size
    image.check(begins, where, "there is no gzip member")
    header, check = ondisk.Header.unpack(front), image.check
    check(header.method == ondisk.DEFLATE, where + 2, f"has no method {header.method}")
    check(not header.flags & ondisk.RESERVED, where + 3, "uses flags nobody knows")
    raw = feed.take(ondisk.Header.LAYOUT.size)
    if header.flags & ondisk.HAS_EXTRA:
        length = feed.take(2)
        raw += length + feed.take(int.from_bytes(length, "little"))
    for flag in (ondisk.HAS_NAME, ondisk.HAS_COMMENT):
        if header.flags & flag:
            raw += _text(image, feed)
    if header.flags & ondisk.HAS_CRC:
        at, crc = feed.where, int.from_bytes(feed.take(2), "little")
        check(crc == CRC32.update(raw) & 0xFFFF, at, "the header's checksum is wrong")


def _text(image: ImageFile, feed: Feed) -> bytes:
    where, front = feed.where, feed.peek(_TEXT)
    end = front.find(b"\0")
    image.check(end >= 0, where, "a name or comment does not end")
    return feed.take(end + 1)


def _resume(image: ImageFile, where: int, at: int, inflater: Inflater | None) -> Members:
    return Members(image, where, at, None if inflater is None else inflater.copy())


def open_gzip(image: ImageFile) -> Stream:
    """Decode all of a gzip once; return its content.

    Raises ImageMalformed, ImageUnsupported for more than is believed, and the file's errors.
    """
    members = Members(image, 0)
    points = Points(members.fork(), _POINTS)
    data = survey(image, members, points)
    return Stream(image, members.at, data, points.starts, points.resume, _LIVE)
