"""Every format with every subformat and option that changes its bytes."""

import imgconv
from imgconv.formats.base import Format
from imgconv.units import KiB, MiB

VARIANTS: dict[str, Format] = {
    "raw": imgconv.Raw(),
    "vhd": imgconv.Vhd(),
    "vhd-fixed": imgconv.Vhd(subformat="fixed"),
    "vhd-azure": imgconv.Vhd(subformat="fixed", azure=True),
    "vdi": imgconv.Vdi(),
    "vdi-fixed": imgconv.Vdi(subformat="fixed"),
    "vhdx": imgconv.Vhdx(),
    "vhdx-fixed": imgconv.Vhdx(subformat="fixed"),
    "vhdx-8m": imgconv.Vhdx(block_size=8 * MiB),
    "vhdx-256m": imgconv.Vhdx(block_size=256 * MiB),
    "vmdk": imgconv.Vmdk(),
    "vmdk-ide": imgconv.Vmdk(adapter_type="ide"),
    "vmdk-stream": imgconv.Vmdk(subformat="streamOptimized"),
    "qcow2": imgconv.Qcow2(),
    "qcow2-v2": imgconv.Qcow2(compat="0.10"),
    "qcow2-v2-512": imgconv.Qcow2(compat="0.10", cluster_size=512),
    "vmdk-stream-fast": imgconv.Vmdk(subformat="streamOptimized", compress="fast"),
    "vmdk-stream-small": imgconv.Vmdk(subformat="streamOptimized", compress="small"),
    **{f"qcow2-{word}": imgconv.Qcow2(compress=word) for word in ("fast", "balanced", "small")},
    "qcow2-zstd": imgconv.Qcow2(compression_type="zstd"),
    "qcow2-zstd-small-2m": imgconv.Qcow2(
        compression_type="zstd", compress="small", cluster_size=2 * MiB
    ),
    "qcow2-v2-fast": imgconv.Qcow2(compat="0.10", compress="fast"),
    "qcow2-fast-512": imgconv.Qcow2(compress="fast", cluster_size=512, refcount_bits=64),
    "qcow2-level5-4k": imgconv.Qcow2(
        compression_level=5, cluster_size=4 * KiB, refcount_bits=32
    ),
    **{
        f"qcow2-{size}": imgconv.Qcow2(cluster_size=size)
        for size in (512, 1 * KiB, 4 * KiB, 32 * KiB, 2 * MiB)
    },
    **{
        f"qcow2-refcount{bits}": imgconv.Qcow2(refcount_bits=bits, cluster_size=4 * KiB)
        for bits in (1, 2, 4, 8, 32, 64)
    },
}

# Raw in containers, which no reader of disk images takes.
PACKED: dict[str, Format] = {
    "gz": imgconv.RawGz(),
    "gz-fast": imgconv.RawGz(compress="fast"),
    "gz-small": imgconv.RawGz(compress="small"),
    "gz-many": imgconv.RawGz(members="many"),
    "zst": imgconv.RawZst(),
    "zst-small": imgconv.RawZst(compress="small"),
    "tar.gz": imgconv.RawTarGz(),
    "tar.gz-named": imgconv.RawTarGz(member="system.raw", compression_level=5),
    "tar.gz-many": imgconv.RawTarGz(members="many", compress="fast"),
    "tar.gz-google": imgconv.RawTarGz(google=True, compression_level=2),
}
EVERY = VARIANTS | PACKED

# Those whose bytes depend on how well content compresses.
COMPRESSED = tuple(
    name
    for name, options in VARIANTS.items()
    if (isinstance(options, imgconv.Qcow2) and options.codec is not None)
    or (isinstance(options, imgconv.Vmdk) and options.subformat == "streamOptimized")
)

# One of each layout, for tests over many sizes.
MAIN = (
    "raw",
    "vhd",
    "vhd-fixed",
    "vdi",
    "vdi-fixed",
    "vhdx",
    "vhdx-fixed",
    "vhdx-8m",
    "vmdk",
    "vmdk-stream",
    "qcow2",
    "qcow2-v2",
    "qcow2-512",
    "qcow2-2097152",
    "qcow2-balanced",
    "qcow2-zstd",
)
