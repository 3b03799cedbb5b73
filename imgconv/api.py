"""The library's functions: wiring, no logic of their own."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from time import monotonic
from typing import TypeAlias

from imgconv import native
from imgconv.errors import OptionError, UnsupportedCombination, UsageError
from imgconv.formats import check_size, format_class, format_names
from imgconv.formats.base import Disk, Format, PlannedWriter, Writer
from imgconv.guest import GuestDisk
from imgconv.identity import Identity
from imgconv.names import of_extension
from imgconv.outputs import STDOUT, is_stdout, open_sink
from imgconv.pipeline import emit, plan, stream
from imgconv.progress import Watcher
from imgconv.report import Measurement, Report
from imgconv.sinks.base import Sink
from imgconv.sinks.null import NullSink
from imgconv.sources.base import Source
from imgconv.sources.file import FileSource
from imgconv.sources.probe import check_format
from imgconv.tally import Tally
from imgconv.workers import Stop, default_threads

Location: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]


def convert(
    source: Location | Source | GuestDisk,
    target: Location,
    *,
    options: Format | str | None = None,
    source_format: str | None = None,
    identity: str | None = None,
    threads: int | None = None,
    clobber: bool = True,
    progress: Watcher | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Report:
    """Convert a disk into another format, in one pass where the target allows it.

    Example:
        >>> imgconv.convert("in.raw", "out.qcow2", options=imgconv.Qcow2(cluster_size=4096))

    Args:
        source: the path of a raw file or block device, what `imgconv.open` returned, or an
            object that fulfils `imgconv.sources.base.Source` (both stay the caller's to
            close).
        target: a file, which appears under its name only when it is whole and flushed;
            "-" for standard output; a FIFO; or a block device, which takes raw only.
        options: the output format and its options: Raw(), Vhd(), Qcow2(), Vmdk() or Vdi();
            or the name of a format. Default: what the extension of `target` stands for.
        source_format: the format of the source, "raw"; default: raw, provided that
            neither its name nor its content says otherwise.
        identity: a text that names the disk; UUIDs and the like derive from it. Default:
            the source's base name, size and modification time.
        threads: how many workers; the output does not depend on it. Default: the number
            of processors.
        clobber: whether an existing target may be replaced (at the end, in one moment).
        progress: called with an `imgconv.Progress` after every piece of work.
        cancelled: asked often; when it returns true, everything stops.

    Returns:
        A Report: sizes in bytes, and how they came about.

    Raises:
        UsageError: it cannot be done as asked (OptionError, LimitExceeded, ...).
        SourceError: the source cannot be read, shrank or changed.
        SinkError: the target cannot be written.
        Cancelled: `cancelled` said so.

    Nothing is left of a failed conversion, except on a block device or in a pipe.
    """
    started = monotonic()
    path = os.fsdecode(target)
    workers = _thread_count(threads)
    with _opened(source, source_format) as (disk, format_name):
        output = format_for(path) if options is None else _format(options)
        _refuse_same_file(disk, path)
        named = _identity(disk, identity)
        writer = _make_writer(disk, output, named, path)
        stop, tally = Stop(cancelled), Tally(progress)
        with open_sink(
            path, output.name, writer.size, clobber=clobber, cancelled=stop.is_set
        ) as sink:
            size, passes = _drive(disk, writer, sink, workers, stop, tally)
            disk.verify()
            sink.commit(size)
        return Report(
            source=disk.name,
            source_format=format_name,
            output=path,
            format=output.name,
            identity=named.text,
            virtual_size=writer.size,
            data_bytes=tally.data,
            output_size=size,
            written_bytes=tally.written,
            passes=passes,
            threads=workers,
            kernel=native.kernel(),
            seconds=monotonic() - started,
            warnings=disk.warnings,
        )


def measure(
    source: Location | Source | GuestDisk,
    options: Format | str,
    *,
    source_format: str | None = None,
    threads: int | None = None,
    progress: Watcher | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Measurement:
    """Compute the exact size of an output without writing it.

    `options` is a format or the name of one. The source is read and scanned, as zeros are
    told from data by content; compressed formats are compressed. Other arguments and
    errors are those of `convert`.
    """
    output = _format(options)
    with _opened(source, source_format) as (disk, _):
        writer = _make_writer(disk, output, disk.identity, STDOUT)
        tally = Tally(progress)
        size = stream(
            disk,
            writer,
            NullSink(),
            threads=_thread_count(threads),
            stop=Stop(cancelled),
            tally=tally,
        )
        disk.verify()
        return Measurement(
            format=output.name,
            virtual_size=writer.size,
            data_bytes=tally.data,
            size=size,
            allocated=tally.written,
            warnings=disk.warnings,
        )


def open_disk(source: Location, *, source_format: str | None = None) -> GuestDisk:
    """Open a disk image for reading; raw for now. Raises SourceError; use it with `with`."""
    disk = FileSource(os.fsdecode(source))
    try:
        check_format(disk, source_format)
    except BaseException:
        disk.close()
        raise
    return GuestDisk(disk)


def format_for(path: str) -> Format:
    """Return the format that a file name's extension stands for, with default options.

    Raises UsageError, listing the formats, when it stands for none.
    """
    name = of_extension(os.path.splitext(path)[1])
    if name is None:
        choice = ", ".join(format_names())
        raise UsageError(f"{path}: its name does not tell the format; choose one: {choice}")
    return format_class(name)()


@contextmanager
def _opened(
    source: Location | Source | GuestDisk, source_format: str | None
) -> Iterator[tuple[Source, str]]:
    """Open a path, check its format, and close it; what is open already passes through."""
    if isinstance(source, GuestDisk):
        source = source.source
    if not isinstance(source, (str, bytes, PathLike)):
        yield source, "raw"
        return
    disk = FileSource(os.fsdecode(source))
    try:
        yield disk, check_format(disk, source_format)
    finally:
        disk.close()


def _format(options: Format | str) -> Format:
    """Return the options object, default options where only a name was given."""
    if isinstance(options, type):
        raise OptionError(f"options={options.__name__}: call it: {options.__name__}()")
    return format_class(options)() if isinstance(options, str) else options


def _identity(disk: Source, text: str | None) -> Identity:
    """Return what the user calls the disk, or else what it is called anyway."""
    if text is None:
        return disk.identity
    if not text:
        raise OptionError("identity='': an empty name would be every disk's")
    return Identity(text)


def _make_writer(disk: Source, output: Format, identity: Identity, path: str) -> Writer:
    check_size(output, disk.size)
    name = f"disk.{output.name}" if is_stdout(path) else os.path.basename(path)
    return output.writer(Disk(disk.size, identity, name))


def _drive(
    disk: Source, writer: Writer, sink: Sink, threads: int, stop: Stop, tally: Tally
) -> tuple[int, int]:
    """Choose the driver; return the output's size and the number of passes."""
    if writer.head_size == 0 or sink.late_head:
        return stream(disk, writer, sink, threads=threads, stop=stop, tally=tally), 1
    if not isinstance(writer, PlannedWriter):
        raise UnsupportedCombination("this format cannot be streamed")
    layout = plan(disk, writer, threads=threads, stop=stop, tally=tally)
    return emit(layout, disk, sink, threads=threads, stop=stop, tally=tally), 2


def _thread_count(threads: int | None) -> int:
    if threads is None:
        return default_threads()
    if not 1 <= threads <= 256:
        raise OptionError(f"threads={threads}: must be from 1 to 256")
    return threads


def _refuse_same_file(disk: Source, path: str) -> None:
    if not isinstance(disk, FileSource):
        return
    try:
        status = os.fstat(1) if is_stdout(path) else os.stat(path)
    except (OSError, ValueError):
        return
    if disk.same_file(status):
        raise UsageError(f"{path}: is the input itself")
