"""imgconv converts disk images: raw in; raw, VHD, QCOW2, VMDK and VDI out.

    >>> import imgconv
    >>> report = imgconv.convert("in.raw", "out.vmdk")
    >>> imgconv.measure("in.raw", "vhd").size
    >>> with imgconv.open("in.raw") as disk:
    ...     disk.read(0, 512)

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from imgconv.version import __version__

if TYPE_CHECKING:
    from imgconv.api import convert, measure
    from imgconv.api import open_disk as open
    from imgconv.errors import (
        Cancelled,
        FormatMismatch,
        ImgconvError,
        KernelUnavailable,
        LimitExceeded,
        OptionError,
        OutOfResources,
        OutputExists,
        OutputRefused,
        OutputTooLarge,
        ReaderGone,
        ReadFailed,
        SinkError,
        SourceChanged,
        SourceError,
        SourceTruncated,
        SourceUnreadable,
        UnsupportedCombination,
        UsageError,
        WriteFailed,
    )
    from imgconv.formats.base import Format
    from imgconv.formats.qcow2 import Qcow2
    from imgconv.formats.raw import Raw
    from imgconv.formats.vdi import Vdi
    from imgconv.formats.vhd import Vhd
    from imgconv.formats.vmdk import Vmdk
    from imgconv.guest import GuestDisk
    from imgconv.progress import Progress
    from imgconv.report import Measurement, Report

__all__ = [
    "Cancelled",
    "Format",
    "FormatMismatch",
    "GuestDisk",
    "ImgconvError",
    "KernelUnavailable",
    "LimitExceeded",
    "Measurement",
    "OptionError",
    "OutOfResources",
    "OutputExists",
    "OutputRefused",
    "OutputTooLarge",
    "Progress",
    "Qcow2",
    "Raw",
    "ReadFailed",
    "ReaderGone",
    "Report",
    "SinkError",
    "SourceChanged",
    "SourceError",
    "SourceTruncated",
    "SourceUnreadable",
    "UnsupportedCombination",
    "UsageError",
    "Vdi",
    "Vhd",
    "Vmdk",
    "WriteFailed",
    "__version__",
    "convert",
    "measure",
    "open",
]

_HOMES = {
    "imgconv.api": ("convert", "measure"),
    "imgconv.errors": (
        "Cancelled",
        "FormatMismatch",
        "ImgconvError",
        "KernelUnavailable",
        "LimitExceeded",
        "OptionError",
        "OutOfResources",
        "OutputExists",
        "OutputRefused",
        "OutputTooLarge",
        "ReadFailed",
        "ReaderGone",
        "SinkError",
        "SourceChanged",
        "SourceError",
        "SourceTruncated",
        "SourceUnreadable",
        "UnsupportedCombination",
        "UsageError",
        "WriteFailed",
    ),
    "imgconv.formats.base": ("Format",),
    "imgconv.formats.qcow2": ("Qcow2",),
    "imgconv.formats.raw": ("Raw",),
    "imgconv.formats.vdi": ("Vdi",),
    "imgconv.formats.vhd": ("Vhd",),
    "imgconv.formats.vmdk": ("Vmdk",),
    "imgconv.guest": ("GuestDisk",),
    "imgconv.progress": ("Progress",),
    "imgconv.report": ("Measurement", "Report"),
}


def __getattr__(name: str) -> Any:
    if name == "open":  # the library may have a name that its modules had better not
        return import_module("imgconv.api").open_disk
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'imgconv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
