"""Sources: positional readers of guest disks.

Raw bytes come from `file.py` and `remote.py`; what is an image is opened over one of these by
the function that the table names.
"""

from collections.abc import Callable
from importlib import import_module

from imgconv.errors import OptionError
from imgconv.sources.base import Source
from imgconv.sources.options import ReadOptions

SNAPSHOTS = "qcow2"  # the only format with snapshots inside
TABLE = {
    "vhd": "imgconv.sources.vhd:open_vhd",
    "qcow2": "imgconv.sources.qcow2:open_qcow2",
    "vdi": "imgconv.sources.vdi:open_vdi",
    "vmdk": "imgconv.sources.vmdk:open_vmdk",
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
) -> Source:
    """Return the disk in an image of a format, "raw" being the file itself.

    `chain` are the files of images that need this one. Raises SourceErrors, Cancelled as soon
    as `cancelled` says so, and OptionError when a snapshot is wanted of what has none; the file
    is still the caller's to close then.
    """
    if options is not None and options.snapshot is not None and format_name != SNAPSHOTS:
        raise OptionError(f"snapshot={options.snapshot}: a {format_name} has no snapshots")
    if format_name == "raw":
        return file
    from imgconv.sources.checked import ImageFile

    module, _, function = TABLE[format_name].partition(":")
    opened: Callable[[ImageFile], Source] = getattr(import_module(module), function)
    return opened(ImageFile(file, format_name, options or ReadOptions(), chain, cancelled))
