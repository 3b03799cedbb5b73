"""Raw as the one member of a tar archive in gzip: what Google Cloud imports, and the form
in which Alibaba Cloud exports.

Source: https://cloud.google.com/compute/docs/import/import-existing-image (member disk.raw,
old GNU format, size a multiple of 1 GiB).
"""

import tarfile
from dataclasses import dataclass
from typing import ClassVar

from imgconv.codecs import choose_level
from imgconv.errors import OptionError
from imgconv.formats.base import Disk, EncodingWriter
from imgconv.formats.raw_gz import (
    MAX_SIZE,
    Wrapping,
    compress_option,
    level_option,
    make_writer,
    members_option,
)
from imgconv.options import check_fields, switch_option, text_option
from imgconv.units import SECTOR, GiB, KiB, round_up

MEMBER = "disk.raw"
MAX_NAME = 100  # bytes in an old GNU header
_RECORD = 10 * KiB  # archives are a multiple of it by custom
_END = 2 * SECTOR  # of zeros


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTarGz:
    """Options of raw output in a tar archive in gzip."""

    name: ClassVar[str] = "raw.tar.gz"

    member: str = text_option(MEMBER, "NAME", "name of the disk in the archive")
    google: bool = switch_option(
        False, "round the size up to whole GiB, as Compute Engine asks"
    )
    compress: str | None = compress_option()
    compression_level: int | None = level_option()
    members: str = members_option()

    def __post_init__(self) -> None:
        check_fields(self)
        choose_level("zlib", self.compress, self.compression_level)
        if not _is_plain(self.member):
            raise OptionError(
                f"member={self.member!r}: must be the bare name of a file, of at most "
                f"{MAX_NAME} bytes"
            )
        if self.google and self.member != MEMBER:
            raise OptionError(f"google=on: the member must be {MEMBER}, not {self.member}")

    @property
    def max_size(self) -> int:
        """That of gzip; tar's own is beyond."""
        return MAX_SIZE

    def writer(self, disk: Disk) -> EncodingWriter:
        """Return a writer of the archive; its member is as old as the disk."""
        size = round_up(disk.size, GiB) if self.google else disk.size
        archive = round_up(SECTOR + size + _END, _RECORD)
        front = _header(self.member, size, disk.identity.timestamp)
        level = choose_level("zlib", self.compress, self.compression_level)
        wrapping = Wrapping(front, size, archive - SECTOR - size)
        return make_writer(disk.size, level, self.members, wrapping)


def _header(name: str, size: int, modified: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o644, max(modified, 0)
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _is_plain(name: str) -> bool:
    """Say whether the name is one that unpacks to a file in the folder it is unpacked in."""
    size = len(name.encode("utf-8", "surrogateescape"))
    return (
        0 < size <= MAX_NAME
        and name.isprintable()
        and "/" not in name
        and name not in (".", "..")
    )
