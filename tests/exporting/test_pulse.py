"""The pulse of a running task: whatever happens to it, the task hears of it."""

from pathlib import Path

import pytest
from support.exporting import BUCKET

import imgconv
from imgconv.exporting.events import Event


def test_a_listener_that_fails_ends_the_export(
    pair: dict[str, Path], state: Path, folder: Path
) -> None:
    """With its own error, and nothing left."""

    def on_beat(task: imgconv.TaskState) -> None:
        raise ValueError("the listener's own")

    def listener(event: Event) -> None:
        if event.event == "failed":
            raise OSError("the second error is of no interest")

    slowly = imgconv.ExportSettings(upload=imgconv.UploadOptions(rate_limit=500_000))
    with pytest.raises(ValueError, match="the listener's own"):
        imgconv.export(
            imgconv.ExportRequest(image_id="m-1", bucket=BUCKET),
            pair,
            store=f"file://{folder}",
            state=state,
            settings=slowly,
            listener=listener,
            on_beat=on_beat,
        )
    assert [*folder.rglob("*")] == [folder / BUCKET]
    (task,) = imgconv.export_tasks(state=state)
    assert (task.status, task.active, task.message) == ("Failed", False, "the listener's own")
