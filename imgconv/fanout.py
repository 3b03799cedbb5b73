"""Fan-out: several outputs of one disk, in one pass over it; all of them, or none."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from time import monotonic

from imgconv import pipeline
from imgconv.conversion import Conversion
from imgconv.errors import UnsupportedCombination, UsageError
from imgconv.formats.base import Format
from imgconv.guest import GuestDisk
from imgconv.lanes import Lane
from imgconv.opening import Location, opened
from imgconv.outputs import STDOUT, is_stdout, is_stream
from imgconv.progress import Watcher
from imgconv.report import Report
from imgconv.sinks.base import RetractableSink
from imgconv.sources.base import Source
from imgconv.sources.options import ReadOptions
from imgconv.stores import Store
from imgconv.tally import Joint, Tally
from imgconv.targets import completed, open_target, refuse_same_file, verification_of
from imgconv.units import MiB
from imgconv.upload.options import UploadOptions
from imgconv.urls import scheme_of, split_url
from imgconv.verification import Verification
from imgconv.workers import Stop, thread_count

STAYS = "was complete before that, and stays"
_LEAST_MEMORY = 8 * MiB  # of an upload


@dataclass(frozen=True, slots=True)
class Output:
    """One of several outputs of a disk; all fields mean what they mean for `convert`.

    `progress` is told of this output alone.
    """

    target: Location
    options: Format | str | None = None
    clobber: bool | None = None
    store: Store | None = None
    upload: UploadOptions | None = None
    progress: Watcher | None = None


def fan_out(
    source: Location | Source | GuestDisk,
    outputs: Sequence[Output],
    *,
    source_format: str | None = None,
    read: ReadOptions | None = None,
    identity: str | None = None,
    threads: int | None = None,
    store: Store | None = None,
    verify: bool = False,
    progress: Watcher | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[Report, ...]:
    """Convert a disk into several outputs in one pass over it: all of them, or none.

    Example:
        >>> reports = imgconv.fan_out(
        ...     "disk.raw", [imgconv.Output("disk.qcow2"), imgconv.Output("s3://b/disk.vhd")]
        ... )

    Args:
        source: as for `convert`.
        outputs: where to, and in which formats; each has the bytes that `convert` would
            have written there.
        source_format: as for `convert`.
        read: as for `convert`.
        identity: as for `convert`; it is that of the disk, so all outputs have the same.
        threads: as for `convert`.
        store: how to reach the source, where it is an object.
        verify: read every output back; a file before any has its name.
        progress: told of all outputs together.
        cancelled: as for `convert`.

    Returns:
        A Report for each output, in their order.

    Raises:
        What `convert` does. UnsupportedCombination for a stream whose format has a head,
        which comes first but is known last: that takes two passes, and a `convert` of its
        own.

    No output appears before every one is complete. Then they appear one after the other,
    objects before files, and what has appeared is removed when another cannot (but for what
    replaced a file or an object, and for uploads that are to be resumed). Only a process that
    is killed in that moment leaves some of them.

    Outputs share the memory, and uploads the rate, that one upload would have alone.
    """
    started = monotonic()
    workers, stop, joint = thread_count(threads), Stop(cancelled), Joint(progress)
    with opened(source, source_format, read, store, cancelled) as (disk, format_name):
        jobs = [
            _Job(disk, output, identity, joint.of(number, output.progress))
            for number, output in enumerate(_shared_out(outputs))
        ]
        _refuse_twice(jobs)
        if verify:
            for job in jobs:
                job.check = verification_of(job.conversion, workers, stop, job.tally)
        with ExitStack() as stack:
            lanes = [job.open(stack, stop) for job in jobs]
            pipeline.fan_out(disk, lanes, threads=workers, stop=stop)
            _publish(disk, jobs)
        seconds = monotonic() - started
        reports = [job.report(format_name, workers, seconds) for job in jobs]
    return tuple(job.completed(report) for job, report in zip(jobs, reports, strict=True))


class _Job:
    """An output from its name to its report."""

    lane: Lane

    def __init__(self, disk: Source, output: Output, identity: str | None, watcher: Watcher):
        self.target = os.fsdecode(output.target)
        self.conversion = Conversion.of(disk, output.options, identity, self.target)
        self.tally = Tally(watcher)
        self.check: Verification | None = None
        self.replaces = self.published = False
        self._output = output
        refuse_same_file(disk, self.target)
        if not self.is_object and is_stream(self.target) and self.conversion.writer().head_size:
            name = self.conversion.output.name
            raise UnsupportedCombination(
                f"{self.target}: {name} in a stream takes two passes, as its head comes first; "
                "convert it by itself"
            )

    @property
    def is_object(self) -> bool:
        return scheme_of(self.target) is not None

    @property
    def place(self) -> str:
        """What no two outputs may have in common; a file has one, by path or by URL."""
        scheme, path = split_url(self.target) or ("file", self.target)
        if scheme != "file":
            return self.target
        return STDOUT if is_stdout(path) else os.path.realpath(path)

    @property
    def journal(self) -> str | None:
        upload = self._output.upload
        path = upload.journal if upload is not None else None
        return None if path is None else os.path.realpath(path)

    @property
    def keeps(self) -> bool:
        """Whether what was sent is to be kept if the fan-out fails."""
        upload = self._output.upload
        return self.is_object and upload is not None and upload.resume

    def open(self, stack: ExitStack, stop: Stop) -> Lane:
        output = self._output
        sink = stack.enter_context(
            open_target(
                self.conversion, output.clobber, output.store, output.upload, stop, self.tally
            )
        )
        self.lane = Lane(self.conversion.writer(), sink, self.tally)
        if not self.keeps and isinstance(sink, RetractableSink):
            self.replaces = sink.replaces()
        return self.lane

    def prepare(self) -> None:
        """Do all that can fail but for publishing."""
        if self.check is not None:
            self.check.check_sink(self.lane.sink, self.lane.at)
        self.lane.sink.prepare(self.lane.at)

    def publish(self) -> None:
        self.lane.sink.commit(self.lane.at)
        self.published = True

    def verify_published(self) -> None:
        if self.check is not None:
            self.check.check_object(self.lane.sink, self._output.store)

    def retract(self) -> str | None:
        """Take back what has appeared, as not all could; return what became of it.

        Publishing this very one may be what failed; then it may have appeared all the same.
        """
        sink = self.lane.sink
        if self.keeps or not isinstance(sink, RetractableSink):
            return f"{self.target}: {STAYS}" if self.published else None
        if self.replaces:  # the old one would not come back
            what = "was replaced before that" if self.published else "may have been replaced"
            return f"{self.target}: {what}"
        return sink.retract()

    def report(self, source_format: str, threads: int, seconds: float) -> Report:
        return self.conversion.report(
            self.tally,
            source_format=source_format,
            size=self.lane.at,
            passes=1,
            threads=threads,
            seconds=seconds,
            verified=self.check is not None,
        )

    def completed(self, report: Report) -> Report:
        return completed(report, self.lane.sink, self._output.store, self._output.upload)


def _publish(disk: Source, jobs: Sequence[_Job]) -> None:
    """Let all outputs appear, or none: those first that may still fail."""
    for job in jobs:
        job.prepare()
    disk.verify()
    begun: list[_Job] = []
    try:
        for objects in (True, False):
            chosen = [job for job in jobs if job.is_object is objects]
            for job in chosen:
                begun.append(job)
                job.publish()
            for job in chosen:
                job.verify_published()
    except BaseException as error:
        for note in filter(None, [job.retract() for job in begun]):
            error.add_note(note)
        raise


def _shared_out(outputs: Sequence[Output]) -> list[Output]:
    """Return the outputs with uploads that need no more together than one alone does.

    Memory is shared with all other outputs, which need some as well.
    """
    if not outputs:
        raise UsageError("a fan-out needs an output")
    uploads = sum(scheme_of(os.fsdecode(output.target)) is not None for output in outputs)
    return [
        replace(output, upload=_share(output.upload or UploadOptions(), len(outputs), uploads))
        for output in outputs
    ]


def _share(upload: UploadOptions, outputs: int, uploads: int) -> UploadOptions:
    rate = upload.rate_limit
    return replace(
        upload,
        memory=max(upload.memory // outputs, _LEAST_MEMORY),
        rate_limit=None if rate is None else max(rate // max(uploads, 1), 1),
    )


def _refuse_twice(jobs: Sequence[_Job]) -> None:
    seen = set[str]()
    for job in jobs:
        for place in filter(None, (job.place, job.journal)):
            if place in seen:
                raise UsageError(f"{place}: is given twice")
            seen.add(place)
