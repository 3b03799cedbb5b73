"""The library's functions that make outputs: wiring, no logic of their own."""

import os
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from imgconv.conversion import Conversion, format_of
from imgconv.formats.base import EncodingWriter, Format, PlannedWriter
from imgconv.guest import GuestDisk
from imgconv.opening import Location, opened
from imgconv.outputs import STDOUT
from imgconv.pipeline import rehearse, stream
from imgconv.progress import Watcher
from imgconv.report import Report
from imgconv.sinks.base import Sink
from imgconv.sources.base import Source
from imgconv.sources.options import ReadOptions
from imgconv.tally import Tally
from imgconv.targets import completed, open_target, refuse_same_file, verification_of
from imgconv.workers import Stop, thread_count

if TYPE_CHECKING:  # what only some calls need is loaded there
    from imgconv.measurement import Measurement
    from imgconv.stores import Store
    from imgconv.upload.options import UploadOptions


def convert(
    source: Location | Source | GuestDisk,
    target: Location,
    *,
    options: Format | str | None = None,
    source_format: str | None = None,
    read: ReadOptions | None = None,
    identity: str | None = None,
    threads: int | None = None,
    clobber: bool | None = None,
    store: "Store | None" = None,
    upload: "UploadOptions | None" = None,
    verify: bool = False,
    progress: Watcher | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Report:
    """Convert a disk into another format, in one pass where the target allows it.

    Example:
        >>> imgconv.convert("in.raw", "out.qcow2", options=imgconv.Qcow2(cluster_size=4096))

    Args:
        source: the path or URL of an image, a raw file or a block device, what `imgconv.open`
            returned, or an object that fulfils `imgconv.sources.base.Source` (both stay the
            caller's to close).
        target: a file, which appears under its name only when it is whole and flushed;
            "-" for standard output; a FIFO; a block device, which takes raw only; or the
            URL of an object, s3://bucket/key or oss://bucket/key.
        options: the output format and its options: Raw(), RawGz(), RawZst(), RawTarGz(),
            Vhd(), Qcow2(), Vmdk(), Vdi() or Vhdx(); or the name of a format. Default: what
            the end of the name of `target` stands for.
        source_format: the format of the source, such as "raw"; default: what both its name
            and its content say.
        read: what to believe of an image, and which files it may need (see ReadOptions).
        identity: a text that names the disk; UUIDs and the like derive from it. Default:
            the source's base name, size and modification time.
        threads: how many workers; the output does not depend on it. Default: the number
            of processors.
        clobber: whether an existing target may be replaced (at the end, in one moment).
            Default: a file may, an object may not.
        store: how to reach an object store: S3(), Oss() or another store's options.
        upload: how to send: part size, concurrency, resuming (see UploadOptions).
        verify: read the output back and compare it with the source: a file before it gets
            its name, an object when it is there, and it is removed if it is wrong.
        progress: called with an `imgconv.Progress` after every piece of work.
        cancelled: asked often; when it returns true, everything stops.

    Returns:
        A Report: sizes in bytes, and how they came about.

    Raises:
        UsageError: it cannot be done as asked (OptionError, LimitExceeded, ...).
        SourceError: the source cannot be read, shrank or changed.
        SinkError: the target cannot be written, or fails to be verified.
        StoreError: the object store failed or refused.
        Cancelled: `cancelled` said so.

    Nothing is left of a failed conversion, except on a block device, in a pipe, or of an
    upload that is to be resumed.
    """
    started = monotonic()
    path = os.fsdecode(target)
    workers = thread_count(threads)
    with opened(source, source_format, read, store, cancelled) as (disk, format_name):
        refuse_same_file(disk, path)
        conversion = Conversion.of(disk, options, identity, path)
        stop, tally = Stop(cancelled), Tally(progress)
        check = verification_of(conversion, workers, stop, tally) if verify else None
        with open_target(conversion, clobber, store, upload, stop, tally) as sink:
            size, passes = _drive(conversion, sink, workers, stop, tally)
            if check is not None:
                check.check_sink(sink, size)
            disk.verify()
            sink.commit(size)
        if check is not None:
            check.check_object(sink, store)
        report = conversion.report(
            tally,
            source_format=format_name,
            size=size,
            passes=passes,
            threads=workers,
            seconds=monotonic() - started,
            verified=verify,
        )
    return completed(report, sink, store, upload)


def measure(
    source: Location | Source | GuestDisk,
    options: Format | str,
    *,
    exact: bool = False,
    source_format: str | None = None,
    read: ReadOptions | None = None,
    threads: int | None = None,
    store: "Store | None" = None,
    progress: Watcher | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> "Measurement":
    """Compute the size of an output without writing it.

    `options` is a format or the name of one. The source is read and scanned, as zeros are
    told from data by content. A compressed output is estimated from a sample, unless it
    is small or must be `exact`, for which all is compressed. Other arguments and errors are
    those of `convert`.
    """
    from imgconv.estimate import Estimate, estimate
    from imgconv.measurement import Measurement
    from imgconv.sinks.null import NullSink

    output = format_of(options)
    with opened(source, source_format, read, store, cancelled) as (disk, _):
        conversion = Conversion(disk, output, disk.identity, STDOUT)
        workers, stop, tally = thread_count(threads), Stop(cancelled), Tally(progress)
        writer = conversion.writer()
        found = None
        if isinstance(writer, EncodingWriter) and not exact:
            found = estimate(disk, writer, threads=workers, stop=stop, tally=tally)
        if found is None:
            size = stream(disk, writer, NullSink(), threads=workers, stop=stop, tally=tally)
            found = Estimate(size, tally.written, tally.data, 0)
        disk.verify()
        return Measurement(
            format=output.name,
            virtual_size=writer.size,
            data_bytes=found.data,
            size=found.size,
            allocated=found.allocated,
            error=found.error,
            warnings=disk.warnings,
        )


def _drive(
    conversion: Conversion, sink: Sink, threads: int, stop: Stop, tally: Tally
) -> tuple[int, int]:
    """Choose the driver; return the output's size and the number of passes."""
    disk, writer = conversion.disk, conversion.writer()
    if writer.head_size == 0 or sink.late_head:
        return stream(disk, writer, sink, threads=threads, stop=stop, tally=tally), 1
    if isinstance(writer, PlannedWriter):
        from imgconv.planning import emit, plan

        layout = plan(disk, writer, threads=threads, stop=stop, tally=tally)
        return emit(layout, disk, sink, threads=threads, stop=stop, tally=tally), 2
    head = rehearse(disk, writer, threads=threads, stop=stop, tally=tally)
    writer = conversion.writer()
    return stream(disk, writer, sink, threads=threads, stop=stop, tally=tally, head=head), 2
