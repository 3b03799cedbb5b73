"""What is asked for: an image, its disks, a bucket, a format; checked as the service does."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from imgconv.errors import OptionError, UsageError
from imgconv.exporting.errors import (
    InvalidImageFormat,
    InvalidImageName,
    InvalidPrefix,
)
from imgconv.formats import format_from_text
from imgconv.formats.base import Format
from imgconv.formats.raw_tar_gz import MAX_NAME
from imgconv.names import NAMES
from imgconv.units import GiB
from imgconv.urls import scheme_of

SYSTEM = "system"
IMAGE_FORMATS = ("raw", "vhd", "qcow2", "vmdk", "vdi")
_PREFIX = re.compile("[0-9A-Za-z]{1,30}")
_IMAGE = re.compile("[A-Za-z][0-9A-Za-z.:_-]{1,127}")
_DEVICE = re.compile("[0-9a-z]{1,32}")
_CONTAINERS = {None: ".raw", "tar.gz": ".raw.tar.gz"}


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A format that disks are exported in: raw, vhd, qcow2, vmdk or vdi.

    `options` are more of the format, "key=value,..."; `bucket` takes the objects, None that
    of the request. Raises InvalidImageFormat.
    """

    name: str
    options: str = ""
    bucket: str | None = None

    def __post_init__(self) -> None:
        if self.name not in IMAGE_FORMATS:
            choice = ", ".join(IMAGE_FORMATS)
            raise InvalidImageFormat(f"{self.name!r}: must be one of {choice}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """A request to export an image, with the parameters of the service's ExportImage.

    Args:
        image_id: ImageId, 2 to 128 letters, digits and . : _ -, beginning with a letter.
        bucket: OSSBucket, that of the store which takes the objects.
        prefix: OSSPrefix, 1 to 30 digits and letters, with which all names begin.
        image_format: ImageFormat: raw, vhd, qcow2, vmdk or vdi.
        role: RoleName, the RAM role whose credentials the instance hands out.
        region: RegionId, where the image is and the bucket has to be.
        raw_container: "tar.gz" delivers raw as the service does, None as it is.
        format_options: more options of the format, "key=value,...".
        also: more formats, each another one, made in the same pass over each disk.
        request_id: RequestId, by which the caller knows the request.

    Raises InvalidImageName, InvalidPrefix, InvalidImageFormat, UsageError and OptionError.
    """

    image_id: str
    bucket: str
    prefix: str | None = None
    image_format: str = "raw"
    role: str | None = None
    region: str | None = None
    raw_container: str | None = None
    format_options: str = ""
    also: tuple[ExportFormat, ...] = ()
    request_id: str | None = None

    def __post_init__(self) -> None:
        _check_image(self.image_id)
        if self.prefix is not None and not _PREFIX.fullmatch(self.prefix):
            raise InvalidPrefix(f"{self.prefix!r}: must be 1 to 30 digits and letters")
        formats = self.formats
        if self.raw_container not in _CONTAINERS:
            raise OptionError(f"raw_container={self.raw_container}: must be tar.gz, or none")
        names = [kind.name for kind in formats]
        if self.raw_container is not None and "raw" not in names:
            raise OptionError(f"raw_container={self.raw_container}: is for raw only")
        if len(set(names)) < len(names):
            raise UsageError(f"a format is given twice: {', '.join(names)}")
        for kind in formats:
            self.output("", kind)

    @property
    def formats(self) -> tuple[ExportFormat, ...]:
        """All formats, that of the service's parameter first."""
        return ExportFormat(self.image_format, self.format_options), *self.also

    def bucket_of(self, kind: ExportFormat) -> str:
        """Return the bucket that takes the objects of a format."""
        return self.bucket if kind.bucket is None else kind.bucket

    def extension(self, kind: ExportFormat) -> str:
        """Return the end of the names of a format's objects."""
        if kind.name == "raw":
            return _CONTAINERS[self.raw_container]
        return NAMES[kind.name].extensions[0]

    def output(self, disk: str, kind: ExportFormat) -> Format:
        """Return the format of a disk's object; OptionError for a bad option.

        In an archive the disk is named after the image, where tar has room for the name.
        """
        if kind.name != "raw" or self.raw_container is None:
            return format_from_text(kind.name, kind.options)
        member = f"{self.image_id}_{disk}.raw"
        options = [kind.options] if kind.options else []
        if disk and "member=" not in kind.options and len(member) <= MAX_NAME:
            options.append(f"member={member}")
        return format_from_text("raw.tar.gz", ",".join(options))

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "ExportRequest":
        """Return the request that `dataclasses.asdict` made a record of."""
        also = tuple(ExportFormat(**kind) for kind in record["also"])
        return cls(**{**record, "also": also})


def _check_image(name: str) -> None:
    """Hold an image's name against the rules of the service's page."""
    lower = name.lower()
    if _IMAGE.fullmatch(name) is None or lower.startswith(("acs:", "aliyun")):
        raise InvalidImageName(
            f"{name!r}: must be 2 to 128 letters, digits and . : _ -, begin with a letter, "
            "and neither with acs: nor with aliyun"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportLimits:
    """What an export may amount to; sizes in bytes, None for no limit.

    `data_disks`: how many there may be beside the system disk. `data_disk_size`: of each.
    `exports`: how many tasks may run at once with the same state file.
    """

    data_disks: int | None = 4
    data_disk_size: int | None = 500 * GiB
    exports: int | None = 8


@dataclass(frozen=True, slots=True)
class ExportDisk:
    """A disk of the image: "system" or "data_xvdb", and the path or URL it is read from."""

    name: str
    source: str


Disks = Mapping[str, str | PathLike[str]]
"""Disks by what they are: "system", "data:xvdb", "data:/dev/xvdc", ..."""


def disks_of(disks: Disks) -> tuple[ExportDisk, ...]:
    """Return the disks, the system's first; UsageError for names that cannot be."""
    found = [ExportDisk(_disk_name(name), _absolute(path)) for name, path in disks.items()]
    names = [disk.name for disk in found]
    if len(set(names)) < len(names):
        raise UsageError(f"a disk is given twice: {', '.join(names)}")
    if SYSTEM not in names:
        raise UsageError("which one is the system disk? Give one as system")
    return tuple(sorted(found, key=lambda disk: (disk.name != SYSTEM, disk.name)))


def _disk_name(text: str) -> str:
    role, _, device = text.partition(":")
    if text == SYSTEM:
        return SYSTEM
    device = device.removeprefix("/dev/")
    if role != "data" or not _DEVICE.fullmatch(device):
        raise UsageError(f"{text!r}: a disk is called system, or data:DEVICE as in data:xvdb")
    return f"data_{device}"


def _absolute(source: str | PathLike[str]) -> str:
    """Return a path that another process, in another folder, understands as well."""
    text = os.fspath(source)
    return text if scheme_of(text) else os.path.abspath(text)
