"""Sources: positional readers of guest disks.

Raw bytes come from `file.py` and `remote.py`; what is an image is opened over one of these by
the function that the table names. What an image says of itself `description.py` has told by
other functions, from its headers alone, which need not be such that the disk could be read.
"""

from collections.abc import Callable

from imgconv.errors import OptionError
from imgconv.loading import load
from imgconv.sources.base import Source
from imgconv.sources.options import Budget, ReadOptions

SNAPSHOTS = "qcow2"  # the only format with snapshots inside
TABLE = {
    "vhd": "imgconv.sources.vhd:open_vhd",
    "qcow2": "imgconv.sources.qcow2:open_qcow2",
    "vdi": "imgconv.sources.vdi:open_vdi",
    "vmdk": "imgconv.sources.vmdk:open_vmdk",
    "vhdx": "imgconv.sources.vhdx:open_vhdx",
    "raw.gz": "imgconv.sources.raw_gz:open_raw_gz",
    "raw.zst": "imgconv.sources.raw_zst:open_raw_zst",
    "raw.tar.gz": "imgconv.sources.raw_tar_gz:open_raw_tar_gz",
}


def open_image(
    file: Source,
    format_name: str,
    options: ReadOptions | None = None,
    chain: tuple[Source, ...] = (),
    cancelled: Callable[[], bool] | None = None,
    budget: Budget | None = None,
) -> Source:
    """Return the disk in an image of a format, "raw" being the file itself.

    `chain` are the files of images that need this one, with which it shares a budget. Raises
    SourceErrors, Cancelled as soon as `cancelled` says so, and OptionError when a snapshot is
    wanted of what has none; the file is still the caller's to close then.
    """
    if options is not None and options.snapshot is not None and format_name != SNAPSHOTS:
        raise OptionError(f"snapshot={options.snapshot}: a {format_name} has no snapshots")
    if format_name == "raw":
        return file
    from imgconv.sources.checked import ImageFile

    opened: Callable[[ImageFile], Source] = load(TABLE[format_name])
    options, budget = options or ReadOptions(), budget or Budget()
    return opened(ImageFile(file, format_name, options, chain, cancelled, budget))
