"""From what the user calls a disk to an open source."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

from imgconv.guest import GuestDisk
from imgconv.names import of_file
from imgconv.sources import open_image
from imgconv.sources.base import CompositeSource, Source
from imgconv.sources.file import FileSource
from imgconv.sources.options import ReadOptions
from imgconv.sources.probe import READABLE, check_inside, choose_format, detect
from imgconv.urls import scheme_of

if TYPE_CHECKING:
    from imgconv.stores import Store

Location: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]


@contextmanager
def opened(
    source: Location | Source | GuestDisk,
    source_format: str | None,
    read: ReadOptions | None,
    store: "Store | None",
    cancelled: Callable[[], bool] | None,
) -> Iterator[tuple[Source, str]]:
    """Open a path, check its format, and close it; what is open already passes through."""
    if isinstance(source, GuestDisk):
        source = source.source
    if not isinstance(source, (str, bytes, PathLike)):
        yield source, "raw"
        return
    disk, name, _ = open_location(os.fsdecode(source), source_format, read, store, cancelled)
    try:
        yield disk, name
    finally:
        disk.close()


@contextmanager
def opened_file(
    location: str,
    source_format: str | None,
    store: "Store | None",
    cancelled: Callable[[], bool] | None,
) -> Iterator[tuple[Source, str]]:
    """Open the file an image is in, whatever the image says, and close it; its format's name
    comes with it."""
    file = _file(location, store, cancelled)
    try:
        yield file, choose_format(file, source_format)
    finally:
        file.close()


def open_location(
    location: str,
    source_format: str | None,
    read: ReadOptions | None,
    store: "Store | None",
    cancelled: Callable[[], bool] | None,
) -> tuple[Source, str, Source]:
    """Open a path or URL; return the disk in it, the name of the format it is in, and the
    file, which belongs to the disk.

    Raises SourceError, StoreError, and OptionError for a format that is not read.
    """
    file = _file(location, store, cancelled)
    try:
        name = choose_format(file, source_format)
        disk = open_image(file, name, read, cancelled=cancelled)
        if source_format is None:
            check_inside(disk, name)
        return disk, name, file
    except BaseException:
        file.close()
        raise


@contextmanager
def opened_by_content(
    location: str, source_format: str | None, store: "Store | None"
) -> Iterator[tuple[Source, str, tuple[str, ...]]]:
    """Open a path or URL as it is; yield it, the format it seems to be in, and remarks on
    that.

    For looking at headers, which does no harm, content alone may say the format. Raises
    SourceError, StoreError, and OptionError for a format that is not read.
    """
    file = _file(location, store, None)
    try:
        found, named = detect(file), of_file(file.name)
        if source_format is not None or len(found) != 1 or found[0] not in READABLE:
            yield file, choose_format(file, source_format), ()
        elif named in (None, found[0]):
            yield file, found[0], ()
        else:
            remark = f"{file.name}: looks like {found[0]} but is named like {named}"
            yield file, found[0], (remark,)
    finally:
        file.close()


def _file(location: str, store: "Store | None", cancelled: Callable[[], bool] | None) -> Source:
    if scheme_of(location) is None:
        return FileSource(location)
    from imgconv.objects import open_object

    return open_object(location, store, cancelled)


def files_of(disk: Source) -> Iterator[FileSource]:
    """Yield all files that a disk is read from."""
    if isinstance(disk, FileSource):
        yield disk
    if isinstance(disk, CompositeSource):
        for part in disk.parts:
            yield from files_of(part)
