"""Strict validators of disk image files, an independent second opinion.

They are written from the rules of the image consumers (qemu, VirtualBox, VMware,
Hyper-V, XenServer, Azure, OpenStack) and share no code with any image writer. They are
as strict as the strictest consumer, so a file that some readers accept may well fail.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from . import qcow2, vdi, vhd, vhdx, vmdk

_VALIDATORS: dict[str, Callable[[str | os.PathLike[str]], list[str]]] = {
    "vhd": vhd.problems,
    "qcow2": qcow2.problems,
    "vmdk": vmdk.problems,
    "vdi": vdi.problems,
    "vhdx": vhdx.problems,
}


def problems(path: str | os.PathLike[str], format_name: str) -> list[str]:
    """Return one sentence for each rule the image breaks; an empty list means valid."""
    try:
        validator = _VALIDATORS[format_name]
    except KeyError:
        raise ValueError(f"no validator for the format {format_name!r}") from None
    return validator(path)


__all__ = ["problems"]
