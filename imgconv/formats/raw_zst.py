"""Raw in zstd, seekable: a frame for every unit and every piece of zeros, and their table.

Any zstd unpacks it; readers that know the table find the frame of an offset without
unpacking what precedes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from imgconv.codecs import WORDS, choose_level, zstd
from imgconv.errors import OutputTooLarge
from imgconv.formats.base import Disk, EncodingWriter
from imgconv.formats.raw_packed import PackedWriter
from imgconv.formats.tables import table
from imgconv.ondisk import zstd as ondisk
from imgconv.options import check_fields, choice_option, number_option
from imgconv.ranges import Column
from imgconv.segments import Meta, Segments
from imgconv.units import KiB, MiB, TiB, div_ceil

_GATHER = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RawZst:
    """Options of raw output in zstd."""

    name: ClassVar[str] = "raw.zst"

    compress: str | None = choice_option(None, WORDS, "for speed or for size (balanced)")
    compression_level: int | None = number_option(None, "1..19", "this level instead of a word")

    def __post_init__(self) -> None:
        check_fields(self)
        choose_level("zstd", self.compress, self.compression_level)

    @property
    def max_size(self) -> int:
        """What a table of all frames it may have covers."""
        return 64 * TiB

    def writer(self, disk: Disk) -> EncodingWriter:
        """Return a writer for one disk."""
        return FramesWriter(
            disk.size, choose_level("zstd", self.compress, self.compression_level)
        )


class FramesWriter(PackedWriter):
    """Frames with checksums, and the sizes of each as the table has them."""

    unit = 512 * KiB
    largest = 64 * MiB

    def __init__(self, size: int, level: int):
        super().__init__(size, size)
        self._compress = zstd(level, self.unit, checksum=True)
        self._entries: list[Column] = []  # of the table, some in each
        self._recent: list[Column] = []
        self._count = 0

    def encode(self, start: int, content: memoryview) -> bytes:
        """Return the unit's frame."""
        return self._compress(content)

    def bound(self, count: int) -> int:
        """Return what `count` units need that do not shrink, with a gap before each."""
        frame = self.unit + self.unit // 256 + 64
        zeros = div_ceil(self.size, MiB) * len(self._make_zeros(MiB))
        rests = (count + 2) * 12 * (len(self._make_zeros(MiB // 2)) + 8)
        return count * (frame + 8) + zeros + rests

    def _make_zeros(self, length: int) -> bytes:
        return self._compress(memoryview(bytes(length)))

    def _enter(self, sizes: Column, lengths: Column, checks: Column) -> None:
        self._append(np.column_stack((lengths, sizes)))

    def _enter_zeros(self, size: int, length: int, count: int) -> None:
        self._append(np.tile(np.array([[length, size]]), (count, 1)))

    def _append(self, frames: Column) -> None:
        self._recent.append(frames.astype("<u4"))
        self._count += len(frames)
        if len(self._recent) == _GATHER:
            self._gather()
        if self._count > ondisk.MAX_FRAMES:
            raise OutputTooLarge(f"raw.zst cannot have more than {ondisk.MAX_FRAMES} frames")

    def _gather(self) -> None:
        if self._recent:
            self._entries.append(np.concatenate(self._recent).ravel())
            self._recent = []

    def _end(self) -> Iterator[Segments]:
        self._gather()
        footer = ondisk.SeekTableFooter(frames=self._count).pack()
        size = sum(entries.nbytes for entries in self._entries) + len(footer)
        yield Segments.of(
            [Meta.of(ondisk.SkippableHeader(ondisk.SKIPPABLE_MAGIC, size).pack())]
        )
        for entries in self._entries:
            yield from table(entries)
        yield Segments.of([Meta.of(footer)])
