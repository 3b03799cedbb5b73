"""One disk over many workers: wiring, no logic of its own."""

import os
from collections.abc import Callable
from time import monotonic

from imgconv.conversion import Conversion
from imgconv.errors import UnsupportedCombination
from imgconv.fleet.coordinate import Delivery, Shares, plan_elsewhere
from imgconv.fleet.dispatch import Dispatcher
from imgconv.fleet.errands import Address
from imgconv.fleet.executors import Submits
from imgconv.formats.base import Format, PlannedWriter
from imgconv.objects import open_object_sink, with_upload
from imgconv.opening import Location, opened
from imgconv.progress import Watcher
from imgconv.report import Report
from imgconv.sources.options import ReadOptions
from imgconv.sources.probe import PACKED
from imgconv.stores import ObjectUrl, Store, parse_url
from imgconv.tally import Tally
from imgconv.upload.options import UploadOptions
from imgconv.urls import scheme_of
from imgconv.workers import Stop


def distribute(
    source: Location,
    target: str,
    executor: Submits,
    *,
    options: Format | str | None = None,
    source_format: str | None = None,
    read: ReadOptions | None = None,
    identity: str | None = None,
    clobber: bool = False,
    store: Store | None = None,
    upload: UploadOptions | None = None,
    shares: Shares | None = None,
    progress: Watcher | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Report:
    """Convert a disk into an object, the work being done by many processes or machines.

    Workers scan the disk, this process plans the output, and workers render its parts and
    send them in one multipart upload. The bytes are those of `convert`. A worker that dies
    loses nothing: somebody else does its part again. Several disks may be under way on one
    executor, each in a thread of its own.

    Example:
        >>> executor = distributed.Client("scheduler:8786").get_executor()
        >>> imgconv.distribute("/images/in.raw", "s3://bucket/out.qcow2", executor)

    Args:
        source: the path or URL of a disk, which every worker can open; a worker whose copy
            is of another size or time fails the conversion.
        target: the URL of an object: s3://bucket/key, oss://bucket/key, or file:///folder/name
            in a folder that all workers share.
        executor: any `concurrent.futures.Executor`; one that breaks when a worker dies, as
            ProcessPoolExecutor does, inside a `LastingExecutor`. It stays the caller's.
        options: the output format; none that compresses, as its layout cannot be planned.
        store: how to reach the store; workers take credentials from their own environment.
        upload: how to send: memory, concurrency and rate are those of each worker.
        shares: how much work each call is.
        source_format, read, identity, clobber, progress, cancelled: as in `convert`.

    Returns:
        A Report; `workers` says who took part.

    Raises:
        WorkersLost: workers died again and again, or the executor is broken.
        UnsupportedCombination: the format compresses, the disk is in gzip or zstd, or the
            target is no object.
        ImgconvError: what `convert` raises, with a note that names the worker.
    """
    started = monotonic()
    url, location = _object_url(target), _everywhere(source)
    shares, stop, tally = shares or Shares(), Stop(cancelled), Tally(progress)
    near = store if store and store.scheme == scheme_of(location) else None
    with opened(location, source_format, read, near, cancelled) as (disk, format_name):
        _refuse_packed(disk.name, format_name)
        conversion = Conversion.of(disk, options, identity, target)
        writer = _planned(conversion)
        address = Address(
            location=location,
            source_format=source_format,
            read=read,
            store=near,
            size=disk.size,
            identity=disk.identity,
        )
        with open_object_sink(conversion, clobber, store, upload, stop, tally) as sink:
            crew = Dispatcher(executor, stop, sink.uploader.check)
            layout = plan_elsewhere(disk, address, writer, crew, share=shares.scan, tally=tally)
            Delivery(
                layout=layout,
                address=address,
                url=url,
                store=store,
                uploader=sink.uploader,
                share=shares.send,
            ).deliver(crew, tally)
            disk.verify()
            sink.commit(layout.size)
        report = conversion.report(
            tally,
            source_format=format_name,
            size=layout.size,
            passes=2,
            threads=len(crew.workers),
            workers=tuple(sorted(crew.workers)),
            seconds=monotonic() - started,
        )
    return with_upload(report, sink, store, upload)


def _object_url(target: str) -> ObjectUrl:
    if scheme_of(target) is None:
        raise UnsupportedCombination(
            f"{target}: many workers write to objects only; "
            "file:///FOLDER/NAME is one, in a folder that all of them share"
        )
    return parse_url(target)


def _everywhere(source: Location) -> str:
    """Return what a worker in another folder calls the source."""
    location = os.fsdecode(source)
    return location if scheme_of(location) else os.path.abspath(location)


def _refuse_packed(name: str, format_name: str) -> None:
    if format_name in PACKED:
        raise UnsupportedCombination(
            f"{name}: {format_name}, which every errand would have to decode anew; "
            "have one worker convert it, or unpack it"
        )


def _planned(conversion: Conversion) -> PlannedWriter:
    writer = conversion.writer()
    if isinstance(writer, PlannedWriter):
        return writer
    raise UnsupportedCombination(
        f"{conversion.output.name}: compressed, so where its parts lie is known only when all "
        "is done; have one worker convert it, or leave it uncompressed"
    )
