"""Sources: positional readers of guest disks.

Raw bytes come from `file.py` and `remote.py`; what is an image is opened over one of these by
the function that the table names. What an image says of itself another function tells, from
its headers alone, which need not be such that the disk could be read.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from imgconv.errors import OptionError
from imgconv.sources.base import Source
from imgconv.sources.description import Description
from imgconv.sources.options import Budget, ReadOptions

SNAPSHOTS = "qcow2"  # the only format with snapshots inside
TABLE = {
    "vhd": "imgconv.sources.vhd:open_vhd",
    "qcow2": "imgconv.sources.qcow2:open_qcow2",
    "vdi": "imgconv.sources.vdi:open_vdi",
    "vmdk": "imgconv.sources.vmdk:open_vmdk",
    "vhdx": "imgconv.sources.vhdx:open_vhdx",
}
DESCRIPTIONS = {
    "vhd": "imgconv.sources.vhd:describe_vhd",
    "qcow2": "imgconv.sources.qcow2_description:describe_qcow2",
    "vdi": "imgconv.sources.vdi:describe_vdi",
    "vmdk": "imgconv.sources.vmdk_description:describe_vmdk",
}
_ANY_SIZE = 1 << 63


def open_image(
    file: Source,
    format_name: str,
    options: ReadOptions | None = None,
    chain: tuple[Source, ...] = (),
    budget: Budget | None = None,
) -> Source:
    """Return the disk in an image of a format, "raw" being the file itself.

    `chain` are the files of images that need this one, with which it shares a budget. Raises
    SourceErrors, and OptionError when a snapshot is wanted of what has none; the file is still
    the caller's to close then.
    """
    if options is not None and options.snapshot is not None and format_name != SNAPSHOTS:
        raise OptionError(f"snapshot={options.snapshot}: a {format_name} has no snapshots")
    if format_name == "raw":
        return file
    from imgconv.sources.checked import ImageFile

    opened: Callable[[ImageFile], Source] = _function(TABLE[format_name])
    options, budget = options or ReadOptions(), budget or Budget()
    return opened(ImageFile(file, format_name, options, chain, budget))


def describe_image(file: Source, format_name: str) -> Description:
    """Return what the headers of an image say, without opening what it names.

    Of a format without a function for that, and of "raw", it is the size of the disk. Raises
    SourceErrors; the file stays the caller's to close.
    """
    from imgconv.sources.checked import ImageFile

    options = ReadOptions(max_virtual_size=_ANY_SIZE)
    if format_name not in DESCRIPTIONS:
        disk = open_image(file, format_name, options)
        return Description(virtual_size=disk.size, warnings=disk.warnings)
    described: Callable[[ImageFile], Description] = _function(DESCRIPTIONS[format_name])
    return described(ImageFile(file, format_name, options))


def _function(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
