"""The compiled leaf functions: zero detection and checksums.

The only importer of `imgconv._native`. Each call crosses into C once per buffer and
releases the interpreter lock while it runs.

A kernel is a named set of implementations for one instruction set; all give the same
results. The best one that this machine runs is used, unless the environment variable
IMGCONV_KERNEL names one: that is a demand, and a demand that cannot be met is an error,
because a test or a benchmark that silently fell back has measured something else.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from imgconv._native import ffi, lib
from imgconv.errors import KernelUnavailable
from imgconv.ranges import Ranges

Buffer: TypeAlias = bytes | bytearray | memoryview


def kernel_names() -> tuple[str, ...]:
    """Names of all kernels this version knows, the scalar reference first."""
    return tuple(
        ffi.string(lib.ic_kernel_name(i)).decode() for i in range(lib.ic_kernel_count())
    )


def usable_kernels() -> tuple[str, ...]:
    """Names of the kernels that run on this machine, best last."""
    return tuple(
        name
        for i, name in enumerate(kernel_names())
        if lib.ic_kernel_status(i) == lib.IC_KERNEL_USABLE
    )


def choose_kernel(environment: Mapping[str, str]) -> int:
    """Return the id of the demanded kernel, or of the best one when none is demanded.

    Raises KernelUnavailable, with one of three reasons: unknown, not built for this
    architecture, or not run by this processor and operating system.
    """
    names = kernel_names()
    demand = environment.get("IMGCONV_KERNEL")
    if not demand:
        return names.index(usable_kernels()[-1])
    if demand not in names:
        raise KernelUnavailable(
            f"IMGCONV_KERNEL={demand}: no such kernel; known are {', '.join(names)}"
        )
    status = lib.ic_kernel_status(names.index(demand))
    if status == lib.IC_KERNEL_NOT_BUILT:
        raise KernelUnavailable(
            f"IMGCONV_KERNEL={demand}: not built for this machine's architecture"
        )
    if status == lib.IC_KERNEL_CPU_LACKS:
        raise KernelUnavailable(
            f"IMGCONV_KERNEL={demand}: this processor or operating system does not support it"
        )
    return names.index(demand)


_KERNEL = choose_kernel(os.environ)


def kernel() -> str:
    """Name of the kernel in use."""
    return kernel_names()[_KERNEL]


def is_zero(buffer: Buffer) -> bool:
    """Say whether every byte of the buffer is zero (true when there is none)."""
    return bool(lib.ic_is_zero(_KERNEL, ffi.from_buffer(buffer), len(buffer)))


def data_runs(buffer: Buffer, granule: int) -> Ranges:
    """Find the maximal runs of granules that hold a nonzero byte.

    `granule` is in bytes, > 0; the last granule may be short. Returns offsets in the
    buffer.
    """
    if granule <= 0:
        raise ValueError(f"granule must be positive, not {granule}")
    room = len(buffer) // granule // 2 + 2
    starts, stops = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64)
    count = lib.ic_data_runs(
        _KERNEL,
        ffi.from_buffer(buffer),
        len(buffer),
        granule,
        ffi.from_buffer("int64_t[]", starts),
        ffi.from_buffer("int64_t[]", stops),
    )
    return Ranges(starts[:count], stops[:count])


@dataclass(frozen=True, slots=True)
class Checksum:
    """One of the CRCs; values are finished ones, 0 for no bytes, so calls chain."""

    name: str
    crc_id: int
    width: int

    def update(self, data: Buffer, value: int = 0) -> int:
        """Return the checksum of what `value` covers followed by `data`."""
        return int(
            lib.ic_crc_update(_KERNEL, self.crc_id, value, ffi.from_buffer(data), len(data))
        )

    def combine(self, first: int, second: int, second_length: int) -> int:
        """Return the checksum of two pieces from theirs; O(log second_length)."""
        return int(lib.ic_crc_combine(self.crc_id, first, second, second_length))

    def zeros(self, value: int, length: int) -> int:
        """Return the checksum of what `value` covers followed by zeros; O(log length)."""
        return int(lib.ic_crc_zeros(self.crc_id, value, length))


CRC32C = Checksum("CRC-32C", lib.IC_CRC32C, 32)
CRC64_XZ = Checksum("CRC-64/XZ", lib.IC_CRC64_XZ, 64)
CRC64_NVME = Checksum("CRC-64/NVME", lib.IC_CRC64_NVME, 64)
