"""Raw in gzip: one member, made in parallel, or a member for every unit."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from imgconv.codecs import WORDS, choose_level
from imgconv.deflating import deflate_blocks, gzip_member
from imgconv.formats.base import Disk, EncodingWriter
from imgconv.formats.raw_packed import PackedWriter
from imgconv.native import CRC32, data_runs
from imgconv.ondisk import gzip as ondisk
from imgconv.options import check_fields, choice_option, number_option
from imgconv.ranges import Column
from imgconv.segments import Meta, Segments
from imgconv.units import GiB, KiB, MiB, TiB, div_ceil

MEMBERS = ("one", "many")
MAX_SIZE = 1024 * TiB  # of whose zeros alone deflate makes a tebibyte
LEVEL_OF_ZEROS = 9
_GRANULE, _WORTH = 4 * KiB, 16 * KiB


def compress_option() -> str | None:
    """Return the field of the word for a level."""
    option: str | None = choice_option(None, WORDS, "for speed or for size (balanced)")
    return option


def level_option() -> int | None:
    """Return the field of the level."""
    option: int | None = number_option(None, "1..9", "this level instead of a word")
    return option


def members_option() -> str:
    """Return the field that says how the stream is cut."""
    option: str = choice_option(
        "one",
        MEMBERS,
        "gzip members: one, or one for every 256 KiB, which can be unpacked in parallel",
    )
    return option


@dataclass(frozen=True, slots=True, kw_only=True)
class RawGz:
    """Options of raw output in gzip."""

    name: ClassVar[str] = "raw.gz"

    compress: str | None = compress_option()
    compression_level: int | None = level_option()
    members: str = members_option()

    def __post_init__(self) -> None:
        check_fields(self)
        choose_level("zlib", self.compress, self.compression_level)

    @property
    def max_size(self) -> int:
        """A limit of ours: gzip has none, but zeros do take room."""
        return MAX_SIZE

    def writer(self, disk: Disk) -> EncodingWriter:
        """Return a writer of the kind of stream."""
        level = choose_level("zlib", self.compress, self.compression_level)
        return make_writer(disk.size, level, self.members, Wrapping(b"", disk.size, 0))


@dataclass(frozen=True, slots=True)
class Wrapping:
    """What else is in the stream: bytes before the guest, and after its `size` so many
    zeros."""

    front: bytes
    size: int
    back: int


def make_writer(guest: int, level: int, members: str, wrapping: Wrapping) -> "GzipWriter":
    """Return the writer for a guest of so many bytes."""
    kind = OneMember if members == "one" else ManyMembers
    return kind(guest, level, wrapping)


class GzipWriter(PackedWriter):
    """What both kinds share."""

    unit = 256 * KiB
    largest = GiB

    def __init__(self, guest: int, level: int, wrapping: Wrapping):
        super().__init__(guest, wrapping.size)
        self._front, self._back = wrapping.front, wrapping.back

    def bound(self, count: int) -> int:
        """Return what `count` units need that do not shrink, with a gap before each."""
        zeros = div_ceil(self.size, MiB) * len(self._make_zeros(MiB))
        rests = (count + 2) * 12 * len(self._make_zeros(MiB // 2))
        return count * ondisk.stored_size(self.unit) + zeros + rests + len(self._front) + 64


class OneMember(GzipWriter):
    """A single member: every unit and every stretch of zeros is a few deflate blocks that
    end at a byte, and the checksum of all is combined from theirs."""

    def __init__(self, guest: int, level: int, wrapping: Wrapping):
        super().__init__(guest, level, wrapping)
        self._deflate = deflate_blocks(level)
        self._crc = self._total = 0

    def begin(self) -> Iterator[Segments]:
        """The member's header, and `front`."""
        self._crc, self._total = CRC32.update(self._front), len(self._front)
        front = ondisk.stored(self._front)
        yield Segments.of([Meta.of(ondisk.Header().pack() + front)])

    def encode(self, start: int, content: memoryview) -> bytes:
        """Return deflate blocks; long zeros among the data cost no more than elsewhere."""
        pieces, at = [], 0
        for low, high in data_runs(content, _GRANULE).merged(apart=_WORTH):
            pieces += [self._zero_blocks(low - at), self._blocks(content[low:high])]
            at = high
        return b"".join([*pieces, self._zero_blocks(len(content) - at)])

    def _blocks(self, content: memoryview) -> bytes:
        """Return content as deflate blocks, stored ones if those are not longer."""
        blocks = self._deflate(content)
        if len(blocks) < ondisk.stored_size(len(content)):
            return blocks
        return ondisk.stored(content)

    def _zero_blocks(self, length: int) -> bytes:
        pieces = [bytes(self._piece(size).render()) * n for size, n in self._ladder(length)]
        return b"".join(pieces)

    def check(self, content: memoryview) -> int:
        """Return the unit's CRC-32."""
        return CRC32.update(content)

    def _make_zeros(self, length: int) -> bytes:
        if length > MiB:
            return self._make_zeros(MiB) * (length // MiB)
        deflater = zlib.compressobj(LEVEL_OF_ZEROS, zlib.DEFLATED, -zlib.MAX_WBITS)
        return deflater.compress(bytes(length)) + deflater.flush(zlib.Z_FULL_FLUSH)

    def _enter(self, sizes: Column, lengths: Column, checks: Column) -> None:
        for size, crc in zip(sizes.tolist(), checks.tolist(), strict=True):
            self._crc = CRC32.combine(self._crc, crc, size)
            self._total += size

    def _enter_zeros(self, size: int, length: int, count: int) -> None:
        self._crc = CRC32.zeros(self._crc, size * count)
        self._total += size * count

    def _end(self) -> Iterator[Segments]:
        yield from self._zeros(self._back)
        trailer = ondisk.Trailer(crc=self._crc, size=self._total % (1 << 32))
        yield Segments.of([Meta.of(ondisk.LAST_BLOCK + trailer.pack())])


class ManyMembers(GzipWriter):
    """A member for every unit and every piece of zeros, one behind the other."""

    def __init__(self, guest: int, level: int, wrapping: Wrapping):
        super().__init__(guest, level, wrapping)
        self._compress, self._compress_zeros = gzip_member(level), gzip_member(LEVEL_OF_ZEROS)

    def begin(self) -> Iterator[Segments]:
        """`front`, if there is one."""
        if self._front:
            yield Segments.of([Meta.of(self._compress(memoryview(self._front)))])

    def encode(self, start: int, content: memoryview) -> bytes:
        """Return the unit's member."""
        return self._compress(content)

    def _make_zeros(self, length: int) -> bytes:
        if length > MiB:
            return self._make_zeros(MiB) * (length // MiB)
        return self._compress_zeros(memoryview(bytes(length)))

    def _enter(self, sizes: Column, lengths: Column, checks: Column) -> None:
        """Each member has its own checksum."""

    def _enter_zeros(self, size: int, length: int, count: int) -> None:
        """Each member has its own checksum."""

    def _end(self) -> Iterator[Segments]:
        yield from self._zeros(self._back)
