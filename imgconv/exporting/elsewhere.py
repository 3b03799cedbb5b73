"""Having a disk converted by many workers, where that is possible."""

import os
from collections.abc import Sequence
from dataclasses import replace

from imgconv.conversion import Conversion
from imgconv.distribution import distribute
from imgconv.exporting.plan import DiskPlan, Plan
from imgconv.fanout import Output
from imgconv.fleet.executors import Submits
from imgconv.formats.base import PlannedWriter, Writer
from imgconv.progress import Progress, Watcher
from imgconv.report import Report
from imgconv.sources.base import Source
from imgconv.sources.probe import PACKED
from imgconv.workers import Stop


def can_be_shared(
    plan: Plan, disk: DiskPlan, source: Source, outputs: Sequence[Output]
) -> bool:
    """Say whether many workers can convert a disk: it is read, and written, at any offset."""
    return disk.source_format not in PACKED and all(
        isinstance(_writer(plan, disk, source, output), PlannedWriter) for output in outputs
    )


def _writer(plan: Plan, disk: DiskPlan, source: Source, output: Output) -> Writer:
    target = os.fsdecode(output.target)
    return Conversion.of(source, output.options, plan.identity(disk), target).writer()


def convert_elsewhere(
    plan: Plan,
    disk: DiskPlan,
    outputs: Sequence[Output],
    executor: Submits,
    stop: Stop,
) -> tuple[Report, ...]:
    """Have it done by the workers of an executor, one output after the other.

    Raises what `imgconv.distribute` does.
    """

    def convert(output: Output) -> Report:
        return distribute(
            disk.source,
            os.fsdecode(output.target),
            executor,
            options=output.options,
            source_format=disk.source_format,
            read=plan.settings.read,
            identity=plan.identity(disk),
            clobber=bool(output.clobber),
            store=output.store,
            upload=output.upload,
            progress=output.progress and _as_one_pass(output.progress, disk.size),
            cancelled=stop.is_set,
        )

    return tuple(map(convert, outputs))


def _as_one_pass(watch: Watcher, size: int) -> Watcher:
    """Scanning is the first half of a disk, sending the second, so that no progress is lost."""
    half = size // 2

    def watch_both(now: Progress) -> None:
        before, span = (0, half) if now.phase == "scan" else (half, size - half)
        done = before + span * now.done // max(now.total, 1)
        watch(replace(now, phase="convert", done=done, total=size))

    return watch_both
