"""VMDK options, and what both of its subformats share: descriptor and geometry."""

from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

from imgconv.codecs import WORDS, choose_level
from imgconv.errors import OptionError
from imgconv.formats.base import Disk, Writer
from imgconv.formats.vmdk_sparse import MAX_SPARSE, SparseWriter
from imgconv.ondisk import vmdk as ondisk
from imgconv.options import check_fields, choice_option, number_option, text_option
from imgconv.units import SECTOR, TiB, div_ceil

MAX_STREAM = 62 * TiB  # vSphere's largest virtual disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Vmdk:
    """VMDK output options."""

    name: ClassVar[str] = "vmdk"

    subformat: str = choice_option(
        "monolithicSparse",
        ("monolithicSparse", "streamOptimized"),
        "for hosted products, or compressed for ESXi, OVA and AWS",
    )
    adapter_type: str = choice_option(
        "lsilogic", ("lsilogic", "buslogic", "ide", "legacyESX"), "virtual disk adapter"
    )
    extent_name: str | None = text_option(
        None, "NAME", "file name in the descriptor; default: the output's own"
    )

    compress: str | None = choice_option(
        None, WORDS, "streamOptimized: for speed or for size (balanced unless said)"
    )
    compression_level: int | None = number_option(
        None, "1..9", "streamOptimized: compress with this level instead of a word"
    )

    def __post_init__(self) -> None:
        check_fields(self)
        choose_level("zlib", self.compress, self.compression_level)
        if self.subformat != "streamOptimized" and (self.compress, self.compression_level) != (
            None,
            None,
        ):
            raise OptionError(
                f"{self.subformat} is not compressed; add subformat=streamOptimized"
            )
        if self.extent_name is not None and not _is_plain(self.extent_name):
            raise OptionError(
                f"extent_name={self.extent_name!r}: must be a bare file name of at most "
                "255 ASCII characters without quotes or colons"
            )

    @property
    def max_size(self) -> int:
        """Below 2 TiB for monolithicSparse, 62 TiB for streamOptimized."""
        return MAX_SPARSE if self.subformat == "monolithicSparse" else MAX_STREAM

    def writer(self, disk: Disk) -> Writer:
        """Return the writer of the subformat."""
        descriptor = make_descriptor(disk, self).text().encode()
        if self.subformat == "streamOptimized":
            from imgconv.formats.vmdk_stream import StreamWriter

            level = choose_level("zlib", self.compress, self.compression_level)
            return StreamWriter(disk.size, descriptor, level)
        return SparseWriter(disk.size, descriptor)


def _is_plain(name: str) -> bool:
    """Say whether every reader takes the name for a file's: OpenStack wants ASCII, and a
    colon makes some take it for a protocol or a drive."""
    return (
        0 < len(name) <= 255
        and name.isascii()
        and name.isprintable()
        and name == name.strip()
        and name not in (".", "..")
        and not set('/\\":') & set(name)
    )


def make_descriptor(disk: Disk, options: Vmdk) -> ondisk.Descriptor:
    """Return the descriptor of a disk."""
    # A name that would break the extent line is replaced, not refused: the user chose
    # the output's name, not this copy of it, which readers of embedded ones ignore.
    own_name = disk.output_name if _is_plain(disk.output_name) else "disk.vmdk"
    sectors = disk.size // SECTOR
    heads, per_track, most = (
        (16, 63, 16383) if options.adapter_type == "ide" else (255, 63, 65535)
    )
    content_id = disk.identity.content_id("vmdk")
    return ondisk.Descriptor(
        content_id=content_id,
        long_content_id=disk.identity.uuid("vmdk content")[:12] + content_id.to_bytes(4, "big"),
        create_type=options.subformat,
        extent_name=options.extent_name or own_name,
        sectors=sectors,
        adapter_type=options.adapter_type,
        cylinders=min(div_ceil(sectors, heads * per_track), most),
        heads=heads,
        sectors_per_track=per_track,
        image_id=str(UUID(bytes=disk.identity.uuid("vmdk image"))),
        modification_id=str(UUID(bytes=disk.identity.uuid("vmdk modification"))),
    )
