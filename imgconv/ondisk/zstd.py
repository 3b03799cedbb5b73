"""The zstd seekable format: frames on their own, and a table of their sizes at the end.

Source: contrib/seekable_format/zstd_seekable_compression_format.md of the zstd project.
Decoders that do not know it skip the table.
"""

import struct
from dataclasses import dataclass
from typing import ClassVar

from imgconv.ondisk.record import Record

SKIPPABLE_MAGIC = 0x184D2A5E
SEEKABLE_MAGIC = 0x8F92EAB1
MAX_FRAMES = 0x8000000
MAX_FRAME = 0x40000000  # bytes of content


@dataclass(frozen=True, slots=True)
class SkippableHeader(Record):
    """Begins the seek table, as a frame that decoders skip; `size` is of what follows."""

    LAYOUT: ClassVar = struct.Struct("<II")

    magic: int = SKIPPABLE_MAGIC
    size: int


@dataclass(frozen=True, slots=True)
class SeekTableFooter(Record):
    """Ends the seek table, and the file; no flags: the table holds no checksums."""

    LAYOUT: ClassVar = struct.Struct("<IBI")

    frames: int
    flags: int = 0
    magic: int = SEEKABLE_MAGIC
