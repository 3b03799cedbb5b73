"""The zstd seekable format: frames on their own, and a table of their sizes at the end.

Source: contrib/seekable_format/zstd_seekable_compression_format.md of the zstd project.
Decoders that do not know it skip the table.
"""

import struct
from dataclasses import dataclass
from typing import ClassVar

from imgconv.ondisk.record import Record

FRAME_MAGIC = 0xFD2FB528
MAX_HEADER = 18  # bytes of a frame's header, with its magic
CHECKSUM_SIZE = 4
SKIPPABLE_MAGIC = 0x184D2A5E  # of the table
SKIPPABLE = range(0x184D2A50, 0x184D2A60)  # magics of frames that decoders skip
SEEKABLE_MAGIC = 0x8F92EAB1
MAX_FRAMES = 0x8000000


@dataclass(frozen=True, slots=True)
class SkippableHeader(Record):
    """Begins the seek table, as a frame that decoders skip; `size` is of what follows."""

    LAYOUT: ClassVar = struct.Struct("<II")

    magic: int
    size: int


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """Begins each block of a frame: three bytes, of which the low bit marks the last one."""

    SIZE: ClassVar = 3
    REPEATED: ClassVar = 1
    RESERVED: ClassVar = 3

    last: bool
    kind: int
    size: int

    @classmethod
    def unpack(cls, raw: bytes) -> "BlockHeader":
        """Read it from the front of `raw`, which has three bytes."""
        value = int.from_bytes(raw[: cls.SIZE], "little")
        return cls(bool(value & 1), value >> 1 & 3, value >> 3)

    @property
    def is_tiny(self) -> bool:
        """Whether it certainly has hardly any content."""
        return self.kind <= self.REPEATED and self.size < 16 and not self.last

    @property
    def stored(self) -> int:
        """Bytes of the file that follow: of a repeated byte there is one."""
        return 1 if self.kind == self.REPEATED else self.size


@dataclass(frozen=True, slots=True)
class SeekTableFooter(Record):
    """Ends the seek table, and the file; without flags the table holds no checksums."""

    CHECKSUMS: ClassVar = 0x80
    RESERVED: ClassVar = 0x7C

    LAYOUT: ClassVar = struct.Struct("<IBI")

    frames: int
    flags: int = 0
    magic: int = SEEKABLE_MAGIC

    @property
    def entry(self) -> int:
        """Bytes of an entry: sizes of a frame and of its content, and perhaps a checksum."""
        return 12 if self.flags & self.CHECKSUMS else 8
