"""Sources: positional readers of guest disks.

Raw bytes come from `file.py` and `remote.py`; what is an image is opened over one of these by
the function that the table names.
"""

from collections.abc import Callable
from importlib import import_module

from imgconv.sources.base import Source

TABLE = {
    "vhd": "imgconv.sources.vhd:open_vhd",
    "qcow2": "imgconv.sources.qcow2:open_qcow2",
    "vdi": "imgconv.sources.vdi:open_vdi",
}


def open_image(file: Source, format_name: str) -> Source:
    """Return the disk in an image of a format, "raw" being the file itself.

    Raises SourceErrors; the file is still the caller's to close then.
    """
    if format_name == "raw":
        return file
    module, _, function = TABLE[format_name].partition(":")
    opened: Callable[[Source], Source] = getattr(import_module(module), function)
    return opened(file)
