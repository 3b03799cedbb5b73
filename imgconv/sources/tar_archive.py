"""What is in a tar archive: which member is the disk, and where its bytes are.

Names serve to choose and to be told, nothing is ever opened or made by them.
"""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, replace

from imgconv.errors import ImageMalformed, ImageUnsupported
from imgconv.names import of_file
from imgconv.ondisk import tar as ondisk
from imgconv.sources.checked import ImageFile
from imgconv.sources.streams import Stream
from imgconv.units import KiB, MiB, round_up

_MEMBERS = 1000  # an archive with more is no disk's
_SHOWN = 10  # names in a message
_EXTENDED = 256 * KiB  # of all pax headers and long names
_PIECE = MiB  # of a sparse map that is read at once at most


class Archive:
    """The unpacked archive; offsets in messages are in it, as those of the file say little."""

    def __init__(self, image: ImageFile, stream: Stream):
        self._image, self.content = image, stream

    @property
    def name(self) -> str:
        """The file's."""
        return self._image.file.name

    def error(self, at: int, reason: str) -> ImageMalformed:
        """Return what to raise for what is at an offset of the unpacked archive."""
        return self._image.error(at, f"{reason} (in the archive, unpacked)")

    def check(self, condition: bool, at: int, reason: str) -> None:
        """Refuse the archive unless the condition holds."""
        if not condition:
            raise self.error(at, reason)

    def read(self, at: int, length: int, what: str) -> bytes:
        """Return bytes that must be there."""
        self.check(at + length <= self.content.size, at, f"ends in the middle of {what}")
        buffer = bytearray(length)
        self.content.read_into(at, memoryview(buffer))
        return bytes(buffer)

    def number(self, field: bytes, at: int) -> int:
        """Read a number of a header."""
        try:
            return ondisk.number(field)
        except ValueError as error:
            raise self.error(at, str(error)) from error

    def decimal(self, text: str, at: int) -> int:
        """Read a number of a pax record."""
        digits = text.isascii() and text.isdigit() and len(text) < 20
        self.check(digits, at, f"a size {text[:20]!a}")
        return int(text)

    def extensions(self, at: int, header: bytes) -> Iterator[bytes]:
        """Yield the blocks, many at once, in which the sparse map of the header at `at` goes
        on."""
        if not ondisk.goes_on(header):
            return
        start, length, last = at + ondisk.BLOCK, ondisk.BLOCK, -1
        while last < 0:
            self.check(start < at + ondisk.MAX_MAP, at, "a sparse map does not end")
            room = (self.content.size - start) // ondisk.BLOCK * ondisk.BLOCK
            blocks = self.read(start, min(length, max(room, ondisk.BLOCK)), "a sparse map")
            last = ondisk.last_extension(blocks)
            yield blocks if last < 0 else blocks[: (last + 1) * ondisk.BLOCK]
            start += len(blocks)
            length = min(2 * length, _PIECE)  # most maps are short, and going back costs time

    def check_size(self, size: int) -> None:
        """Refuse a disk larger than anybody's."""
        self._image.check_size(size)


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in the archive.

    `pax` is what extended headers say; `size` bytes are stored from `start` on, in front of
    which, if it is sparse in the old GNU way, the map may go on for some blocks.
    """

    at: int
    block: bytes
    kind: bytes
    name: str
    pax: dict[str, str]
    start: int
    size: int

    @property
    def is_disk(self) -> bool:
        """Whether its name is one of a raw disk, and not of what a Mac puts beside one."""
        base = posixpath.basename(self.name)
        return of_file(base) == "raw" and not base.startswith("._")


@dataclass(frozen=True, slots=True)
class _Words:
    """What headers before a member say of it."""

    pax: dict[str, str]
    long_name: str | None = None

    def name(self, header: ondisk.Header) -> str:
        for key in ("GNU.sparse.name", "path"):
            if key in self.pax:
                return self.pax[key]
        return _text(header.name) if self.long_name is None else self.long_name


def members(archive: Archive) -> Iterator[Member]:
    """Yield all regular files of an archive, up to the block of zeros that ends it."""
    shared: dict[str, str] = {}
    words = _Words({})
    at = extended = 0
    for _ in range(_MEMBERS):
        block = _header(archive, at)
        if block is None:
            return
        header = ondisk.Header.unpack(block)
        size, start = _size(archive, at, header, words), at + ondisk.BLOCK
        if header.kind in ondisk.EXTENDED:
            extended += size
            reason = f"extended headers of {extended} bytes"
            archive.check(extended <= _EXTENDED, start, reason)
        if header.kind in ondisk.PAX:
            words = replace(words, pax=words.pax | _records(archive, start, size))
        elif header.kind in ondisk.PAX_GLOBAL:
            shared |= _records(archive, start, size)
            words = replace(words, pax=shared | words.pax)
        elif header.kind in ondisk.LONG_NAME:
            words = replace(words, long_name=_text(_extended(archive, start, size)))
        elif header.kind not in ondisk.LONG_LINK:
            start += ondisk.BLOCK * _extensions(archive, at, block)
            _end(archive, at, start, size)
            name = words.name(header)
            if header.kind in ondisk.REGULAR + ondisk.SPARSE:
                yield Member(at, block, header.kind, name, words.pax, start, size)
            words = _Words(shared)
        at = _end(archive, at, start, size)
    raise ImageUnsupported(f"{archive.name}: has more than {_MEMBERS} members")


def _header(archive: Archive, at: int) -> bytes | None:
    """Return the header of the next member, None at the end."""
    if at >= archive.content.size:
        return None
    block = archive.read(at, ondisk.BLOCK, "a header")
    if not any(block):
        return None
    archive.check(ondisk.is_header(block), at, "there is no header of a member")
    return block


def _size(archive: Archive, at: int, header: ondisk.Header, words: _Words) -> int:
    """Return how many bytes are stored behind a header."""
    if header.kind in ondisk.EMPTY:
        return 0
    if "size" in words.pax and header.kind not in ondisk.EXTENDED:
        return archive.decimal(words.pax["size"], at)
    return archive.number(header.size, at + 124)


def _end(archive: Archive, at: int, start: int, size: int) -> int:
    """Return where the next header is."""
    stop = start + size
    reason = f"a member ends at {stop}, but there are {archive.content.size} bytes"
    archive.check(stop <= archive.content.size, at + 124, reason)
    return round_up(stop, ondisk.BLOCK)


def _extensions(archive: Archive, at: int, block: bytes) -> int:
    """Count the blocks in which an old GNU sparse map goes on."""
    if block[156:157] != ondisk.SPARSE:
        return 0
    return sum(map(len, archive.extensions(at, block))) // ondisk.BLOCK


def _extended(archive: Archive, start: int, size: int) -> bytes:
    return archive.read(start, size, "an extended header")


def _records(archive: Archive, start: int, size: int) -> dict[str, str]:
    """Read the records "LENGTH KEY=VALUE" of a pax header."""
    raw, at, found = _extended(archive, start, size), 0, {}
    while at < len(raw) and raw[at]:
        space = raw.find(b" ", at, at + 12)
        digits = raw[at:space] if space > at else b"?"
        archive.check(digits.isdigit(), start + at, "a pax record has no length")
        end = at + int(digits)
        key, equals, value = raw[space + 1 : end - 1].partition(b"=")
        whole = space < end <= len(raw) and raw[end - 1 : end] == b"\n" and equals == b"="
        archive.check(whole, start + at, "a pax record is not whole")
        text = value.decode("utf-8", "surrogateescape")
        found[key.decode("utf-8", "surrogateescape")] = text
        at = end
    return found


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "surrogateescape")


def choose_member(archive: Archive) -> Member:
    """Return the disk: the only file that is not empty, or the only one named like a disk.

    Raises ImageUnsupported, with their names, when that says not which.
    """
    found = [
        member for member in members(archive) if member.size or member.kind == ondisk.SPARSE
    ]
    named = [member for member in found if member.is_disk]
    for candidates in (found, named):
        if len(candidates) == 1:
            return candidates[0]
    names = [ascii(member.name) for member in (named or found)[:_SHOWN]]
    if not names:
        raise ImageUnsupported(f"{archive.name}: there is no file in the archive")
    more = len(named or found) - len(names)
    raise ImageUnsupported(
        f"{archive.name}: which file in the archive is the disk? "
        f"{', '.join(names)}{f' and {more} more' if more else ''}"
    )
