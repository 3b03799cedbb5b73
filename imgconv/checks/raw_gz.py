"""gzip: every member, as far as the end of one tells where the next begins."""

from imgconv.checks.inspection import Inspection
from imgconv.checks.report import Usage
from imgconv.codecs import Inflater
from imgconv.errors import ImageMalformed
from imgconv.native import CRC32, is_zero
from imgconv.ondisk import gzip as ondisk
from imgconv.sources.feed import Feed
from imgconv.sources.gzip_members import read_header
from imgconv.units import SECTOR, KiB, MiB

_FED = 16 * KiB  # given to the inflater at once; a copy of it keeps what it did not take
_PIECE = MiB


def check_raw_gz(inspection: Inspection) -> Usage:
    """Check a gzip; without its data, the header of the first member only.

    Raises what reading the file raises.
    """
    inspection.tally.begin("check", inspection.size)
    walk = _Walk(inspection)
    if not walk.to_end():
        return Usage()
    inspection.require(walk.content > 0, "disk-size", 0, "holds no byte")
    whole = walk.content % SECTOR == 0
    text = f"{walk.content} bytes are no whole sectors"
    inspection.advise(whole, "disk-size", 0, text)
    return Usage(image_end_offset=walk.end)


class _Walk:
    """Goes from member to member; `content` is how much they held, `end` where the last of
    them ends."""

    def __init__(self, inspection: Inspection):
        self._inspection, self._feed = inspection, Feed(inspection.file, 0)
        self.content = self.end = 0

    def to_end(self) -> bool:
        """Check all members; say whether none keeps us from the next one."""
        while self._feed.left:
            front = self._feed.peek(ondisk.Header.LAYOUT.size)
            if self.end and not any(front):
                self._check_rest()
                return True
            try:
                read_header(self._inspection.image, self._feed)
            except ImageMalformed as error:
                known = not self.end or front[:2] == ondisk.MAGIC
                rule = "member-header" if known else "trailing-data"
                self._inspection.corruption(rule, error.offset, error.reason)
                return False
            if not self._inspection.data or not self._member():
                return False
        return True

    def _member(self) -> bool:
        """Decode what follows a header; say whether it ends."""
        inflater, crc, length = Inflater(), 0, 0
        most = self._inspection.image.options.max_virtual_size
        while not inflater.ended:
            self._inspection.stop.check()
            where, fed = self._feed.where, self._feed.ahead(_FED)
            try:
                if not fed:
                    raise ValueError("ends in the middle of a member")
                content, used = inflater.decode(fed, _PIECE)
            except ValueError as error:
                self._inspection.corruption("stream", where, f"compressed data: {error}")
                return False
            self._feed.skip(used)
            self._inspection.tally.advance(used)
            crc, length = CRC32.update(content, crc), length + len(content)
            if self.content + length > most:
                self._inspection.error("too-large", where, f"holds more than {most} bytes")
                return False
        self.content += length
        return self._trailer(crc, length)

    def _trailer(self, crc: int, length: int) -> bool:
        where, raw = self._feed.where, self._feed.take(ondisk.Trailer.LAYOUT.size)
        require, self.end = self._inspection.require, self._feed.where
        self._inspection.decoded += 1
        whole = len(raw) == ondisk.Trailer.LAYOUT.size
        if not require(whole, "stream", where, "ends in the middle of a member"):
            return False
        trailer = ondisk.Trailer.unpack(raw)
        text = f"the content has the CRC-32 {crc:08x}, not {trailer.crc:08x}"
        require(trailer.crc == crc, "member-checksum", where, text)
        text = f"holds {length} bytes, but says {trailer.size}"
        require(trailer.size == length % (1 << 32), "member-size", where + 4, text)
        return True

    def _check_rest(self) -> None:
        """Check that nothing but zeros follows."""
        for at in range(self._feed.where, self._inspection.size, _PIECE):
            self._inspection.stop.check()
            rest = self._inspection.read(at, min(_PIECE, self._inspection.size - at))
            text = "what follows the last member is none"
            if not self._inspection.require(is_zero(rest), "trailing-data", at, text):
                return
