"""QCOW2 (QEMU, KVM, OpenStack): version 3 and version 2, plain or compressed."""

from dataclasses import dataclass
from typing import ClassVar

from imgconv.codecs import WORDS, choose_level
from imgconv.errors import OptionError
from imgconv.formats.base import Disk, Writer
from imgconv.formats.qcow2_tables import ENTRY, Geometry
from imgconv.ondisk import qcow2 as ondisk
from imgconv.options import (
    check_fields,
    choice_option,
    number_option,
    size_option,
)
from imgconv.units import KiB, is_power_of_two


@dataclass(frozen=True, slots=True, kw_only=True)
class Qcow2:
    """QCOW2 output options."""

    name: ClassVar[str] = "qcow2"

    cluster_size: int = size_option(64 * KiB, "512..2M", "allocation unit, a power of two")
    refcount_bits: int = number_option(16, "1..64", "width of a refcount, a power of two")
    compat: str = choice_option(
        "1.1", ("1.1", "0.10", "v3", "v2"), "version 3 (QEMU 1.1) or 2 (older readers)"
    )

    compress: str | None = choice_option(None, WORDS, "compress: for speed or for size")
    compression_type: str | None = choice_option(
        None, ondisk.CODECS, "compress with this (zlib unless said; zstd needs QEMU 5.1)"
    )
    compression_level: int | None = number_option(
        None, "1..9, zstd 1..19", "compress with this level instead of a word"
    )

    def __post_init__(self) -> None:
        check_fields(self)
        smallest, largest = 1 << ondisk.MIN_CLUSTER_BITS, 1 << ondisk.MAX_CLUSTER_BITS
        if not is_power_of_two(self.cluster_size) or not (
            smallest <= self.cluster_size <= largest
        ):
            raise OptionError(
                f"cluster_size={self.cluster_size}: must be a power of two from 512 to 2M"
            )
        if not is_power_of_two(self.refcount_bits) or self.refcount_bits > 64:
            raise OptionError(
                f"refcount_bits={self.refcount_bits}: must be a power of two from 1 to 64"
            )
        if self.version == 2 and self.refcount_bits != 16:
            raise OptionError(f"refcount_bits={self.refcount_bits}: compat=0.10 has only 16")
        if self.codec is not None:
            self._check_compression()

    def _check_compression(self) -> None:
        choose_level(self.codec or "", self.compress, self.compression_level)
        if self.version == 2 and self.codec == "zstd":
            raise OptionError("compression_type=zstd: compat=0.10 has only zlib")
        if self.refcount_bits < 16:  # how many streams may begin in one cluster
            raise OptionError(
                f"refcount_bits={self.refcount_bits}: compressed clusters need 16 or more"
            )

    @property
    def codec(self) -> str | None:
        """What clusters are compressed with, if they are: any of the three options asks
        for it."""
        if self.compress is None and self.compression_level is None:
            return self.compression_type
        return self.compression_type or "zlib"

    @property
    def version(self) -> int:
        """Version number in the header, 2 or 3."""
        return 2 if self.compat in ("0.10", "v2") else 3

    @property
    def max_size(self) -> int:
        """What an L1 table of 32 MiB, QEMU's limit, can map."""
        l2_span = self.cluster_size // ENTRY * self.cluster_size
        return min(ondisk.MAX_L1_BYTES // ENTRY * l2_span, (1 << 63) - 512)

    def writer(self, disk: Disk) -> Writer:
        """Return a writer for one disk."""
        geometry = Geometry.of(disk.size, self.cluster_size, self.refcount_bits)
        if self.codec is None:
            from imgconv.formats.qcow2_plain import PlainWriter

            return PlainWriter(disk.size, geometry, self.version)
        from imgconv.formats.qcow2_compressed import CompressedWriter

        level = choose_level(self.codec, self.compress, self.compression_level)
        return CompressedWriter(disk.size, geometry, self.version, self.codec, level)
