"""The library's functions that look at disks and images: wiring, no logic of their own."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from imgconv.errors import OptionError
from imgconv.guest import GuestDisk
from imgconv.inspection import Info, inspect
from imgconv.opening import Location, open_location, opened, opened_by_content, opened_file
from imgconv.progress import Watcher
from imgconv.sources.base import Source
from imgconv.sources.options import ReadOptions
from imgconv.tally import Tally
from imgconv.workers import Stop, thread_count

if TYPE_CHECKING:  # what only some calls need is loaded there
    from imgconv.checks.report import CheckReport
    from imgconv.comparison import Comparison
    from imgconv.digest import Checksum
    from imgconv.stores import Store


def open_disk(
    source: Location,
    *,
    source_format: str | None = None,
    read: ReadOptions | None = None,
    store: "Store | None" = None,
) -> GuestDisk:
    """Open a disk image for reading; use it with `with`.

    It may be a file, a block device, or the URL of an object (s3, oss, http, https), in
    the `store` with those options. Raises SourceError and StoreError.
    """
    disk, name, file = open_location(os.fsdecode(source), source_format, read, store, None)
    return GuestDisk(disk, file, name)


def info(
    source: Location | Source | GuestDisk,
    *,
    source_format: str | None = None,
    store: "Store | None" = None,
) -> Info:
    """Tell what an image is, from its headers: format, sizes, options, snapshots, flags.

    None of the files that it names is opened, so that they may be missing; nor need it be
    one that can be read: it may be encrypted, corrupt or in need of a parent. Without a
    `source_format` its content alone decides. Raises SourceError for headers that cannot
    be, and StoreError.
    """
    if isinstance(source, GuestDisk):
        return source.info
    if not isinstance(source, (str, bytes, os.PathLike)):
        return inspect(source, "raw")
    location = os.fsdecode(source)
    with opened_by_content(location, source_format, store) as (file, name, remarks):
        found = inspect(file, name)
        return replace(found, warnings=remarks + found.warnings)


def compare(
    first: Location | Source | GuestDisk,
    second: Location | Source | GuestDisk,
    *,
    strict: bool = False,
    source_format: str | None = None,
    other_format: str | None = None,
    read: ReadOptions | None = None,
    threads: int | None = None,
    store: "Store | None" = None,
    progress: Watcher | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> "Comparison":
    """Compare the content of two disks, wherever they are.

    If one is larger the rest of it must be zero, and with `strict` there must be no rest.
    The first is of the `source_format`, and read in the snapshot that `read` names, the second
    of the `other_format`; if both are objects, they are in the same `store`. Other arguments
    and errors are those of `convert`.
    """
    from imgconv.comparison import compare as compare_sources

    present = None if read is None else replace(read, snapshot=None)
    with (
        opened(first, source_format, read, store, cancelled) as (one, _),
        opened(second, other_format, present, store, cancelled) as (other, _),
    ):
        found = compare_sources(
            one,
            other,
            threads=thread_count(threads),
            stop=Stop(cancelled),
            tally=Tally(progress),
            strict=strict,
        )
        one.verify()
        other.verify()
        return found


def checksum(
    source: Location | Source | GuestDisk,
    *,
    source_format: str | None = None,
    read: ReadOptions | None = None,
    threads: int | None = None,
    store: "Store | None" = None,
    progress: Watcher | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> "Checksum":
    """Compute a digest of what a disk holds, the same whatever format it is stored in.

    Arguments and errors are those of `convert`.
    """
    from imgconv.digest import checksum as checksum_source

    with opened(source, source_format, read, store, cancelled) as (disk, _):
        workers, stop, tally = thread_count(threads), Stop(cancelled), Tally(progress)
        found = checksum_source(disk, threads=workers, stop=stop, tally=tally)
        disk.verify()
        return found


def check(
    source: Location,
    *,
    data: bool = True,
    limit: int = 20,
    source_format: str | None = None,
    read: ReadOptions | None = None,
    threads: int | None = None,
    store: "Store | None" = None,
    progress: Watcher | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> "CheckReport":
    """Check the structure of an image, as far as its format has any.

    What is wrong is not raised but told, `limit` findings of each rule and the number of the
    others; without `data`, what is compressed is not decoded. Files that the image names are
    not opened but for extents that `read` allows. Raises CheckUnsupported for a raw disk, and
    what reading the file raises. Other arguments are those of `convert`.
    """
    from imgconv.checks import check_image
    from imgconv.checks.findings import Findings
    from imgconv.checks.inspection import Inspection
    from imgconv.sources.checked import ImageFile

    if limit < 1:
        raise OptionError(f"limit={limit}: must be positive")
    with opened_file(os.fsdecode(source), source_format, store, cancelled) as (file, name):
        inspection = Inspection(
            image=ImageFile(file, name, read or ReadOptions(), cancelled=cancelled),
            findings=Findings(limit),
            data=data,
            threads=thread_count(threads),
            stop=Stop(cancelled),
            tally=Tally(progress),
        )
        report = check_image(inspection)
        file.verify()
        return report
