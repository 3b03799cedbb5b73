"""Carrying a task out: every disk into its object, then the manifest; or nothing of it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from imgconv.errors import Cancelled, ImgconvError, OutputExists
from imgconv.exporting.cleanup import TASK, abort_unheard, clean_up, is_ours, journal_path
from imgconv.exporting.codes import in_service_terms, raise_in_service_terms
from imgconv.exporting.destination import client_of
from imgconv.exporting.elsewhere import can_be_shared, convert_elsewhere
from imgconv.exporting.errors import (
    ExportError,
    ExportImageFailed,
    ImageIsExporting,
    IncorrectImageStatus,
)
from imgconv.exporting.events import Event, Listener, now
from imgconv.exporting.ledger import Ledger
from imgconv.exporting.manifest import manifest_content
from imgconv.exporting.monitor import Monitor
from imgconv.exporting.plan import DiskPlan, Plan
from imgconv.exporting.results import found_again, result_of
from imgconv.exporting.state import Status, TaskState
from imgconv.fanout import STAYS, Output, fan_out
from imgconv.fleet.executors import Submits
from imgconv.objects import KEPT
from imgconv.objectstore import ObjectInfo
from imgconv.opening import opened
from imgconv.progress import Watcher
from imgconv.report import Report
from imgconv.sources.base import Source
from imgconv.workers import Stop, Turn, run


class Work:
    """A task that this process has locked, by `mark`."""

    def __init__(
        self,
        ledger: Ledger,
        task: TaskState,
        plan: Plan,
        mark: str,
        *,
        cancelled: Callable[[], bool] | None,
        progress: Watcher | None,
        listener: Listener,
        on_beat: Callable[[TaskState], object],
        executor: Submits | None,
    ):
        self._ledger, self._plan, self._mark = ledger, plan, mark
        self._id, self._task = task.task_id, task
        self._listener, self._on_beat = listener, on_beat
        self._executor = executor
        self._told = 0
        self._monitor = Monitor(
            ledger,
            task,
            mark,
            cancelled=cancelled,
            progress=progress,
            on_beat=self._beat,
        )

    def carry_out(self) -> None:
        """Export all disks, or none; raises why not, in the service's terms."""
        self._ledger.set_status(self._id, self._mark, Status.PROCESSING)
        try:
            self._tell("processing", total=self._task.total)
            with self._monitor:
                self._refuse_existing()
                self._export_disks()
                self._put_manifest()
        except BaseException as error:
            cause = self._monitor.error or error
            try:
                self._settle(cause)
            except BaseException as hurry:  # a second Ctrl-C
                hurry.add_note(self._remedy())
                raise
            if not isinstance(error, ImgconvError):
                raise
            if not isinstance(cause, ImgconvError):  # a listener's, for which we stopped
                raise cause from cause.__cause__
            raise_in_service_terms(cause)
        self._ledger.set_status(self._id, self._mark, Status.FINISHED)
        self._tell("finished", total=self._task.total)
        self._on_beat(self._ledger.get(self._id, brief=True))

    def _refuse_existing(self) -> None:
        """Raise OutputExists before any disk is read, if one of the names is taken."""
        plan = self._plan
        if plan.settings.overwrite:
            return
        for bucket, keys in plan.keys_by_bucket().items():
            place = plan.destination.bucket_called(bucket)
            with place.opened() as store:
                client = client_of(store, plan.settings.upload.backoff, self._monitor.is_set)
                for key in keys:
                    found = client.request(partial(store.head, key))
                    if found is not None and not is_ours(found, self._id):
                        raise OutputExists(f"{place.url(key)}: exists already")

    def _export_disks(self) -> None:
        stop = Stop(self._monitor.is_set)
        by_disk: dict[str, list[int]] = {}
        for number, disk in enumerate(self._plan.disks):
            by_disk.setdefault(disk.name, []).append(number)

        def make_worker() -> Callable[[list[int], Turn], None]:
            return lambda numbers, _: self._export_disk(numbers, stop)

        threads = min(self._plan.settings.disks_at_once, len(by_disk))
        run(by_disk.values(), make_worker, threads=threads, stop=stop)

    def _export_disk(self, numbers: list[int], stop: Stop) -> None:
        """Make the objects of one disk, which are the sub-tasks of these numbers."""
        missing = []
        for number in numbers:
            result = self._made_before(number)
            if result is None:
                missing.append(number)
            else:
                self._finished(number, result)
        if not missing:
            return
        for number in missing:
            disk = self._plan.disks[number]
            self._monitor.note(number, self._monitor.status(number, Status.PROCESSING))
            self._tell("disk-processing", disk, total=disk.size)
        try:
            reports = self._convert(missing, stop)
        except BaseException as error:
            over = Status.CANCELLED if isinstance(error, Cancelled) else Status.FAILED
            with suppress(ImgconvError):  # the error at hand is the one that matters
                for number in missing:
                    self._monitor.note(number, self._monitor.status(number, over))
            raise
        for number, report in zip(missing, reports, strict=True):
            self._finished(number, result_of(report))

    def _finished(self, number: int, result: dict[str, Any]) -> None:
        disk, state = self._plan.disks[number], self._monitor.status(number, Status.FINISHED)
        self._monitor.note(number, replace(state, done=disk.size, result=result, rate=0.0))
        self._tell(
            "disk-finished", disk, total=disk.size, wire=state.wire, retries=state.retries
        )

    def _convert(self, numbers: list[int], stop: Stop) -> tuple[Report, ...]:
        """Convert a disk into all objects that are missing, in one pass over it."""
        plan, settings = self._plan, self._plan.settings
        disk = plan.disks[numbers[0]]
        outputs = [self._output(number) for number in numbers]
        with self._opened(disk, stop) as source:
            if self._executor is not None and can_be_shared(plan, disk, source, outputs):
                reports = convert_elsewhere(plan, disk, outputs, self._executor, stop)
                with self._opened(disk, stop):  # for it was opened there anew
                    return reports
            return fan_out(
                source,
                outputs,
                identity=plan.identity(disk),
                threads=settings.threads,
                cancelled=stop.is_set,
            )

    @contextmanager
    def _opened(self, disk: DiskPlan, stop: Stop) -> Iterator[Source]:
        """Open a disk, which has to be the one that it was."""
        store = self._plan.source_store(disk.source)
        how = disk.source, disk.source_format, self._plan.settings.read, store
        with opened(*how, stop.is_set) as (source, _):
            if source.identity.text != disk.identity:
                raise IncorrectImageStatus(
                    f"{source.name}: was changed since its export was asked for"
                )
            yield source

    def _output(self, number: int) -> Output:
        plan, disk, settings = self._plan, self._plan.disks[number], self._plan.settings
        upload = replace(
            settings.upload,
            resume=True,
            adopt=False,  # another task's would carry that task's id
            journal=journal_path(self._ledger.path, self._id, disk),
            metadata={**settings.upload.metadata, TASK: self._id},
        )
        return Output(
            plan.url(disk),
            options=plan.output(disk),
            clobber=settings.overwrite,
            store=plan.destination.store,
            upload=upload,
            progress=self._monitor.watch(number),
        )

    def _made_before(self, number: int) -> dict[str, Any] | None:
        """Return what is known of a disk's object when an earlier worker has made it.

        One that died between completing an object and noting that has left its journal, or
        at least its mark on the object.
        """
        if self._task.status is Status.WAITING:
            return None
        plan, disk = self._plan, self._plan.disks[number]
        recorded = self._monitor.disks[number].result
        journal = journal_path(self._ledger.path, self._id, disk)
        with plan.place(disk).opened() as store:
            client = client_of(store, plan.settings.upload.backoff, self._monitor.is_set)
            if os.path.exists(journal):
                client.request(lambda: abort_unheard(store, disk.key, journal))
                return None  # regenerating takes it up again, and tells all
            found = client.request(lambda: store.head(disk.key))
            if found is None or not is_ours(found, self._id):
                return None
            if recorded is not None and found.etag == recorded["etag"]:
                return recorded
            if found.crc is not None:
                return found_again(plan, disk, store, found)
            client.request(lambda: store.delete(disk.key))
            return None

    def _put_manifest(self) -> None:
        plan, results = self._plan, [disk.result for disk in self._monitor.disks]
        known = [result for result in results if result is not None]
        content = manifest_content(plan, self._id, known)
        metadata, exclusive = {TASK: self._id}, not plan.settings.overwrite
        with plan.destination.opened() as store:
            client = client_of(store, plan.settings.upload.backoff, self._monitor.is_set)

            def put(exclusive: bool) -> ObjectInfo:
                return store.put(plan.manifest, content, metadata, exclusive=exclusive)

            try:
                client.request(lambda: put(exclusive and store.limits.exclusive))
            except OutputExists:  # perhaps by us, and the answer was lost
                found = client.request(lambda: store.head(plan.manifest))
                if found is None or not is_ours(found, self._id):
                    raise
                client.request(lambda: put(False))

    def _settle(self, error: BaseException) -> None:
        """Leave nothing behind, or what is to be kept; note how it ended."""
        try:
            self._hold()
            keep = self._plan.settings.keep and not self._monitor.asked
            left = [] if keep else clean_up(self._plan, self._id, self._ledger.path, self._hold)
        except ImageIsExporting:  # whoever has taken over sees to all that
            return
        stopped = isinstance(error, Cancelled) or not isinstance(error, Exception)
        _correct_notes(error, self._id if keep else None)
        if not keep and not left:
            with suppress(ImgconvError):  # nobody believes them without the objects
                self._ledger.forget_results(self._id, self._mark)
        for what in left:
            error.add_note(f"and something is left: {what}")
        if left:
            error.add_note(self._remedy())
        gone = stopped and not keep and not left
        status = Status.CANCELLED if gone else Status.FAILED
        code, message = ("", "") if status is Status.CANCELLED else _told(error, stopped)
        try:
            self._ledger.set_status(self._id, self._mark, status, code=code, message=message)
        except ImgconvError as failure:
            error.add_note(f"and the task's end could not be noted: {failure}")
        event = "cancelled" if status is Status.CANCELLED else "failed"
        with suppress(Exception):  # the error at hand is the one that matters
            self._tell(event, code=code or None, message=message or None)
            self._on_beat(self._ledger.get(self._id, brief=True))

    def _remedy(self) -> str:
        return f"imgconv tasks cancel {self._id} removes what is left"

    def _hold(self) -> None:
        """Renew the lease, if that can be; ImageIsExporting when the task is another's."""
        try:
            self._monitor.beat()
        except ImgconvError:
            if self._monitor.lost:
                raise

    def _beat(self, state: TaskState) -> None:
        """Tell of progress when there is another whole percent."""
        percent = 100 * state.done // max(state.total, 1)
        if percent != self._told:
            self._told = percent
            self._tell(
                "progress",
                done=state.done,
                total=state.total,
                wire=sum(disk.wire for disk in state.disks),
                retries=sum(disk.retries for disk in state.disks),
            )
        self._on_beat(state)

    def _tell(
        self,
        event: str,
        disk: DiskPlan | None = None,
        *,
        done: int | None = None,
        total: int | None = None,
        wire: int | None = None,
        retries: int | None = None,
        code: str | None = None,
        message: str | None = None,
    ) -> None:
        self._listener(
            Event(
                time=now(),
                event=event,
                task=self._id,
                request=self._task.request_id,
                image=self._task.image_id,
                disk=disk.name if disk else None,
                format=disk.format if disk else None,
                key=disk.key if disk else None,
                done=done,
                total=total,
                wire=wire,
                retries=retries,
                code=code,
                message=message,
            )
        )


def _correct_notes(error: BaseException, kept: str | None) -> None:
    """Say what is true of the task, not of one upload: that it can be resumed, if it can."""
    told = getattr(error, "__notes__", ())
    notes = [note for note in told if note != KEPT and not note.endswith(STAYS)]
    if kept is not None:
        notes.append(f"what was sent is kept: imgconv tasks resume {kept} goes on from there")
    error.__notes__ = notes


def _told(error: BaseException, stopped: bool) -> tuple[str, str]:
    """Return code and message of what made a task fail."""
    if stopped or not isinstance(error, ImgconvError):
        what = str(error) or type(error).__name__
        return ExportImageFailed.code, f"interrupted: {what}" if stopped else what
    told = in_service_terms(error)
    return told.code, told.reason if isinstance(told, ExportError) else str(told)
