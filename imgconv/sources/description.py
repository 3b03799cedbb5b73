"""What an image says of itself in its headers: nothing that it names is ever opened."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from imgconv.loading import load
from imgconv.sources import open_image
from imgconv.sources.base import Source
from imgconv.sources.checked import ImageFile
from imgconv.sources.options import LARGEST, ReadOptions

Options: TypeAlias = dict[str, int | str | bool]

BACKING, DATA, EXTENT, PARENT = "backing", "data", "extent", "parent"

TABLE = {
    "vhd": "imgconv.sources.vhd:describe_vhd",
    "qcow2": "imgconv.sources.qcow2_description:describe_qcow2",
    "vdi": "imgconv.sources.vdi:describe_vdi",
    "vmdk": "imgconv.sources.vmdk_description:describe_vmdk",
    "vhdx": "imgconv.sources.vhdx_description:describe_vhdx",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A file that an image names.

    `role` is what the image needs it for: "backing", "data", "extent" or "parent". `name`
    is text to show, in one line, not a path to open; `format` what the image says of
    its format.
    """

    role: str
    name: str
    format: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerSnapshot:
    """A snapshot inside an image; `date` is in seconds since 1970, sizes are in bytes."""

    id: str
    name: str
    date: int
    vm_state_size: int
    disk_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What an image's headers say; sizes in bytes.

    `options` are those it could be made with again, by the names that imgconv has for them,
    and others that its format knows. `dirty` (not closed properly) and `corrupt` are None
    where a format has no mark for that. `warnings` are one-line remarks.
    """

    virtual_size: int
    version: str | None = None
    options: Options = field(default_factory=dict)
    references: tuple[Reference, ...] = ()
    encryption: str | None = None
    dirty: bool | None = None
    corrupt: bool | None = None
    snapshots: tuple[InnerSnapshot, ...] = ()
    warnings: tuple[str, ...] = ()


def describe_image(file: Source, format_name: str) -> Description:
    """Return what the headers of an image say, without opening what it names.

    Of a format without a function for that, and of "raw", it is the size of the disk. Raises
    SourceErrors; the file stays the caller's to close.
    """
    if format_name not in TABLE:
        disk = open_image(file, format_name)
        return Description(virtual_size=disk.size, warnings=disk.warnings)
    options = ReadOptions(max_virtual_size=LARGEST)
    described: Callable[[ImageFile], Description] = load(TABLE[format_name])
    return described(ImageFile(file, format_name, options))
