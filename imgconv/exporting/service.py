"""The export worker's functions: wiring, no logic of their own."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from time import time

from imgconv.errors import ImgconvError
from imgconv.exporting.callbacks import called_by
from imgconv.exporting.codes import raise_in_service_terms
from imgconv.exporting.destination import check_bucket, destination_of
from imgconv.exporting.events import Event, Listener, nobody, now
from imgconv.exporting.ledger import Ledger, default_state
from imgconv.exporting.owner import our_mark
from imgconv.exporting.plan import ExportSettings, Plan, make_plan
from imgconv.exporting.request import Disks, ExportLimits, ExportRequest, disks_of
from imgconv.exporting.state import TaskState
from imgconv.exporting.task import ExportTask
from imgconv.fleet.executors import Submits
from imgconv.progress import Watcher
from imgconv.stores import Store

_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


def export(
    request: ExportRequest,
    disks: Disks,
    *,
    store: Store | str,
    store_options: str = "",
    settings: ExportSettings | None = None,
    limits: ExportLimits | None = None,
    state: str | PathLike[str] | None = None,
    executor: Submits | None = None,
    wait: bool = True,
    progress: Watcher | None = None,
    listener: Listener = nobody,
    on_beat: Callable[[TaskState], object] | None = None,
    on_accepted: Callable[[ExportTask], object] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> ExportTask:
    """Export the disks of an image into a bucket: all of them, or none.

    Example:
        >>> request = imgconv.ExportRequest(image_id="m-1", bucket="exports")
        >>> task = imgconv.export(
        ...     request, {"system": "disk.raw"}, store="oss://oss-cn-hangzhou.aliyuncs.com"
        ... )
        >>> task.objects["system"]
        'oss://exports/m-1_system.raw'

    Args:
        request: what to export, in which format, into which bucket.
        disks: paths or URLs by "system", "data:xvdb", ...
        store: S3(), Oss(), or text: oss://ENDPOINT, s3://ENDPOINT, file:///FOLDER.
        store_options: with such a text, more options of the store, "key=value,...".
        settings: how to carry it out.
        limits: what an image may amount to, and how many tasks may run at once.
        state: the file that remembers tasks; default: one in the user's state folder.
        executor: have its workers convert the disks, as `imgconv.distribute` does; by itself,
            this process converts what cannot be shared out: formats that compress, disks
            in gzip or zstd.
        wait: carry the task out before returning; otherwise in the background, for
            `task.wait()` to end.
        progress: called with an `imgconv.Progress` of all disks together.
        listener: called with an Event for whatever happens.
        on_beat: called with the task's state twice a second.
        on_accepted: called with the task when its request is accepted, before it begins.
        cancelled: asked often, while waiting; when it returns true, everything stops.

    Returns:
        The task. Its objects' names are known at once, its end by `status`.

    Raises:
        ExportError: an answer of the service, by `code` and `http_status`.
        UsageError: a mistake in what the service does not know, such as options.
        Cancelled: somebody asked to stop; nothing is left.
    """
    request = replace(request, request_id=request.request_id or _new_request_id())
    limits, settings = limits or ExportLimits(), settings or ExportSettings()
    plan = _accepted(request, disks, store, store_options, limits, settings)
    ledger = Ledger(os.fspath(state) if state is not None else default_state())
    task = _registered(ledger, plan, limits)
    _tell_waiting(called_by(task.task_id, listener), task, plan)
    if on_accepted is not None:
        called_by(task.task_id, on_accepted)(task)
    beat = on_beat or (lambda state: None)
    if wait:
        task.run(
            progress=progress,
            listener=listener,
            on_beat=beat,
            cancelled=cancelled,
            executor=executor,
        )
    else:
        task.start(progress=progress, listener=listener, on_beat=beat, executor=executor)
    return task


def _accepted(
    request: ExportRequest,
    disks: Disks,
    store: Store | str,
    store_options: str,
    limits: ExportLimits,
    settings: ExportSettings,
) -> Plan:
    try:
        destination = destination_of(request, store, store_options)
        plan = make_plan(request, disks_of(disks), destination, limits, settings)
        for bucket in plan.keys_by_bucket():
            place = destination.bucket_called(bucket)
            check_bucket(place, request.region, settings.upload.backoff)
        return plan
    except ImgconvError as error:
        raise_in_service_terms(error)


def _registered(ledger: Ledger, plan: Plan, limits: ExportLimits) -> ExportTask:
    """Lock the names, and remove what workers that are gone have left under them."""
    task_id, mark = _new_task_id(), our_mark()
    earlier = ledger.add(task_id, plan, mark, limits.exports)
    task = ExportTask(task_id, ledger, mark=mark)
    try:
        for other in earlier:
            ExportTask(other, ledger, mark=mark).supersede(task_id)
    except ImgconvError as error:
        task.give_up(error)
        raise_in_service_terms(error)
    return task


def _tell_waiting(listener: Listener, task: ExportTask, plan: Plan) -> None:
    listener(
        Event(
            time=now(),
            event="waiting",
            task=task.task_id,
            request=plan.request.request_id or "",
            image=plan.request.image_id,
            total=plan.total,
        )
    )


def _new_task_id() -> str:
    return "tsk-" + "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(20))


def _new_request_id() -> str:
    digits = os.urandom(16).hex().upper()
    return re.sub("(.{8})(.{4})(.{4})(.{4})(.{12})", r"\1-\2-\3-\4-\5", digits)


def export_task(task_id: str, *, state: str | PathLike[str] | None = None) -> ExportTask:
    """Return a task by its id, to see how it stands, to cancel or to `run` (resume) it.

    Raises UsageError when there is none.
    """
    return ExportTask(task_id, Ledger(os.fspath(state) if state else default_state()))


def export_tasks(*, state: str | PathLike[str] | None = None) -> list[TaskState]:
    """Return all tasks that are remembered, the oldest first."""
    return Ledger(os.fspath(state) if state else default_state()).all()


def forget_export_tasks(*, older_than: float, state: str | PathLike[str] | None = None) -> int:
    """Forget tasks that have been Finished or Cancelled for so many seconds, for a minute at
    least; return how many.

    Their objects stay. Those that failed are remembered until they are cancelled.
    """
    ledger = Ledger(os.fspath(state) if state else default_state())
    return ledger.forget_before(time() - older_than)
