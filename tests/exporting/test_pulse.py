"""The pulse of a running task: what it writes is so, and what happens to it is heard of."""

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from support.exporting import BUCKET

import imgconv
from imgconv.exporting.events import Event
from imgconv.exporting.ledger import Ledger
from imgconv.exporting.monitor import Monitor
from imgconv.exporting.owner import our_mark
from imgconv.exporting.plan import Plan
from imgconv.exporting.state import DiskState, Status
from imgconv.exporting.task import ExportTask
from imgconv.progress import Progress
from imgconv.stores.local import LocalStore

SLOWLY = imgconv.ExportSettings(upload=imgconv.UploadOptions(rate_limit=500_000))


@pytest.fixture
def export(
    pair: dict[str, Path], state: Path, folder: Path
) -> Callable[..., imgconv.ExportTask]:
    """Export the pair into the folder."""
    request = imgconv.ExportRequest(image_id="m-1", bucket=BUCKET)
    return partial(imgconv.export, request, pair, store=f"file://{folder}", state=state)


def test_a_listener_that_fails_ends_the_export(
    export: Callable[..., imgconv.ExportTask], state: Path, folder: Path
) -> None:
    """With its own error, and nothing left."""

    def on_beat(task: imgconv.TaskState) -> None:
        raise ValueError("the listener's own")

    def listener(event: Event) -> None:
        if event.event == "failed":
            raise OSError("the second error is of no interest")

    with pytest.raises(ValueError, match="the listener's own"):
        export(settings=SLOWLY, listener=listener, on_beat=on_beat)
    assert [*folder.rglob("*")] == [folder / BUCKET]
    (task,) = imgconv.export_tasks(state=state)
    assert (task.status, task.active, task.message) == ("Failed", False, "the listener's own")


class Unfair(Ledger):
    """Whose first writer has to wait until a second one has written, if that one may."""

    def __init__(self, path: str):
        super().__init__(path)
        self.begun, self.overtaken = threading.Event(), threading.Event()

    def beat(self, task: str, mark: str, disks: dict[int, DiskState]) -> bool:
        if not self.begun.is_set():
            self.begun.set()
            self.overtaken.wait(0.3)
            return super().beat(task, mark, disks)
        asked = super().beat(task, mark, disks)
        self.overtaken.set()
        return asked


def test_an_older_note_never_replaces_a_newer(state: Path, plan: Plan) -> None:
    ledger, mark = Unfair(str(state)), our_mark()
    ledger.add("tsk-1", plan, mark, None)
    task = ledger.get("tsk-1")
    monitor = Monitor(
        ledger, task, mark, cancelled=None, progress=None, on_beat=lambda state: None
    )
    monitor.watch(0)(Progress("convert", 1, task.total, 1, 1))
    pulse = threading.Thread(target=monitor.beat)
    pulse.start()
    ledger.begun.wait()
    monitor.note(0, replace(monitor.status(0, Status.FINISHED), done=2))
    pulse.join()
    found = ledger.get("tsk-1").disks[0]
    assert (found.status, found.done) == ("Finished", 2)


@pytest.mark.parametrize("forgotten", [False, True])
def test_whoever_lost_its_task_leaves_the_others_upload(
    export: Callable[..., imgconv.ExportTask], state: Path, folder: Path, forgotten: bool
) -> None:
    """Even when it fails of something else before its pulse hears of that."""
    store = LocalStore(str(folder / BUCKET))
    uploads = []

    def taken_over(event: Event) -> None:
        if event.event == "disk-processing":
            ledger = Ledger(str(state))
            ledger.supersede(event.task, "tsk-2")
            if forgotten:
                ledger.forget(event.task)
            uploads.append(store.begin("m-1_system.raw", {}))
            raise OSError("woken after a long sleep")

    with pytest.raises(OSError, match="woken"):
        export(listener=taken_over)
    assert [upload.id for upload in store.list_uploads("m-1")] == [uploads[0].id]


@pytest.mark.parametrize("where", ["on_beat", "progress", "listener", "on_accepted"])
def test_what_a_task_calls_may_cancel_it(
    export: Callable[..., imgconv.ExportTask], state: Path, folder: Path, where: str
) -> None:
    """It is not waited for then, as it would wait in turn."""

    def cancel(*told: object) -> None:
        (task,) = imgconv.export_tasks(state=state)
        if not task.cancelling:
            found = imgconv.export_task(task.task_id, state=state).cancel()
            assert (found.active, found.cancelling) == (True, True)

    with pytest.raises(imgconv.Cancelled):
        export(settings=SLOWLY, **{where: cancel})
    assert [*folder.rglob("*")] == [folder / BUCKET]
    (task,) = imgconv.export_tasks(state=state)
    assert task.status == "Cancelled"


class Unheard(Ledger):
    """Whose wish to cancel comes too late for the worker, which has failed by then."""

    def __init__(self, path: str):
        super().__init__(path)
        self.asked = threading.Event()

    def ask_to_cancel(self, task: str) -> None:
        self.asked.set()


def test_cancelling_what_fails_by_itself_leaves_nothing(
    export: Callable[..., imgconv.ExportTask], state: Path, folder: Path
) -> None:
    """Not even what it was to keep."""
    ledger = Unheard(str(state))

    def fail(event: Event) -> None:
        if event.event == "disk-processing" and event.disk == "data_xvdb":
            ledger.asked.wait()
            raise OSError("by itself")

    task = export(settings=imgconv.ExportSettings(keep=True), listener=fail, wait=False)
    assert ExportTask(task.task_id, ledger).cancel().status == "Cancelled"
    with pytest.raises(OSError, match="by itself"):
        task.wait()
    assert [*folder.rglob("*")] == [folder / BUCKET]
