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
    "vmdk": imgconv.Vmdk(),
    "vmdk-ide": imgconv.Vmdk(adapter_type="ide"),
    "vmdk-stream": imgconv.Vmdk(subformat="streamOptimized"),
    "qcow2": imgconv.Qcow2(),
    "qcow2-v2": imgconv.Qcow2(compat="0.10"),
    "qcow2-v2-512": imgconv.Qcow2(compat="0.10", cluster_size=512),
    **{
        f"qcow2-{size}": imgconv.Qcow2(cluster_size=size)
        for size in (512, 1 * KiB, 4 * KiB, 32 * KiB, 2 * MiB)
    },
    **{
        f"qcow2-refcount{bits}": imgconv.Qcow2(refcount_bits=bits, cluster_size=4 * KiB)
        for bits in (1, 2, 4, 8, 32, 64)
    },
}

# One of each layout, for tests over many sizes.
MAIN = (
    "raw",
    "vhd",
    "vhd-fixed",
    "vdi",
    "vdi-fixed",
    "vmdk",
    "vmdk-stream",
    "qcow2",
    "qcow2-v2",
    "qcow2-512",
    "qcow2-2097152",
)
