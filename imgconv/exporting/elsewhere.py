"""Having a disk converted by many workers, where that is possible."""

from dataclasses import replace

from imgconv.conversion import Conversion
from imgconv.distribution import distribute
from imgconv.exporting.plan import DiskPlan, Plan
from imgconv.fleet.executors import Submits
from imgconv.formats.base import PlannedWriter
from imgconv.progress import Progress, Watcher
from imgconv.report import Report
from imgconv.sources.base import Source
from imgconv.upload.options import UploadOptions
from imgconv.workers import Stop

_PACKED = ("raw.gz", "raw.tar.gz", "raw.zst")  # which every errand would decode anew


def can_be_shared(plan: Plan, disk: DiskPlan, source: Source) -> bool:
    """Say whether many workers can convert a disk: it is read, and written, at any offset."""
    url, output = plan.destination.url(disk.key), plan.request.output(disk.name)
    writer = Conversion.of(source, output, plan.identity(disk), url).writer()
    return isinstance(writer, PlannedWriter) and disk.source_format not in _PACKED


def convert_elsewhere(
    plan: Plan,
    disk: DiskPlan,
    upload: UploadOptions,
    executor: Submits,
    *,
    progress: Watcher,
    stop: Stop,
) -> Report:
    """Have it done by the workers of an executor; raises what `imgconv.distribute` does."""
    return distribute(
        disk.source,
        plan.destination.url(disk.key),
        executor,
        options=plan.request.output(disk.name),
        source_format=disk.source_format,
        read=plan.settings.read,
        identity=plan.identity(disk),
        clobber=plan.settings.overwrite,
        store=plan.destination.store,
        upload=upload,
        progress=_as_one_pass(progress, disk.size),
        cancelled=stop.is_set,
    )


def _as_one_pass(watch: Watcher, size: int) -> Watcher:
    """Scanning is the first half of a disk, sending the second, so that no progress is lost."""
    half = size // 2

    def watch_both(now: Progress) -> None:
        before, span = (0, half) if now.phase == "scan" else (half, size - half)
        done = before + span * now.done // max(now.total, 1)
        watch(replace(now, phase="convert", done=done, total=size))

    return watch_both
