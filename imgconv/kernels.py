"""Which of the compiled kernels is used. Imports no numpy, so that reading can begin early.

A kernel is a named set of implementations for one instruction set; all give the same
results. The best one that this machine runs is used, unless the environment variable
IMGCONV_KERNEL names one: that is a demand, and a demand that cannot be met is an error,
because a test or a benchmark that silently fell back has measured something else.
"""

import os
from collections.abc import Mapping

from imgconv._native import ffi, lib
from imgconv.errors import KernelUnavailable


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


KERNEL = choose_kernel(os.environ)


def kernel() -> str:
    """Name of the kernel in use."""
    return kernel_names()[KERNEL]
