"""Tasks as metrics, in the text format of Prometheus."""

import os
from collections.abc import Callable, Iterable, Iterator

from imgconv.errors import WriteFailed
from imgconv.exporting.state import DiskState, Status, TaskState

_OF_DISKS: tuple[tuple[str, str, str, Callable[[DiskState], float]], ...] = (
    ("disk_bytes", "gauge", "Size of the disk.", lambda d: d.total),
    ("converted_bytes_total", "counter", "Bytes of the disk converted.", lambda d: d.done),
    ("sent_bytes_total", "counter", "Bytes handed to the network.", lambda d: d.wire),
    ("parts_total", "counter", "Parts that the store holds.", lambda d: d.parts),
    ("retries_total", "counter", "Requests that were repeated.", lambda d: d.retries),
    ("rate_bytes_per_second", "gauge", "Bytes of disk a second, lately.", lambda d: d.rate),
)
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def metrics_text(tasks: Iterable[TaskState]) -> str:
    """Return metrics of tasks: their numbers by status, and of each disk how far it is."""
    return "".join(f"{line}\n" for line in _lines(list(tasks)))


def _lines(tasks: list[TaskState]) -> Iterator[str]:
    yield from _head("tasks", "gauge", "Tasks by their status.")
    for status in Status:
        count = sum(task.status is status for task in tasks)
        yield f"imgconv_export_tasks{_labels(status=status)} {count}"
    yield from _head("interrupted_tasks", "gauge", "Unfinished tasks that no worker is at.")
    cut_off = sum(not task.status.over and not task.active for task in tasks)
    yield f"imgconv_export_interrupted_tasks {cut_off}"
    for name, kind, about, value in _OF_DISKS:
        yield from _head(name, kind, about)
        for task in tasks:
            for disk in task.disks:
                of = _labels(
                    task=task.task_id,
                    image=task.image_id,
                    disk=disk.name,
                    format=disk.format,
                )
                yield f"imgconv_export_{name}{of} {value(disk):.15g}"


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP imgconv_export_{name} {about}"
    yield f"# TYPE imgconv_export_{name} {kind}"


def _labels(
    *,
    status: str | None = None,
    task: str | None = None,
    image: str | None = None,
    disk: str | None = None,
    format: str | None = None,
) -> str:
    given = {"status": status, "task": task, "image": image, "disk": disk, "format": format}
    shown = [f'{n}="{v.translate(_ESCAPES)}"' for n, v in given.items() if v is not None]
    return "{" + ",".join(shown) + "}"


def write_metrics(path: str, tasks: Iterable[TaskState]) -> None:
    """Replace a file by metrics in one moment, as collectors of text files want it."""
    passing = f"{path}.{os.getpid()}.tmp"
    try:
        with open(passing, "w", encoding="utf-8") as file:
            file.write(metrics_text(tasks))
        os.replace(passing, path)
    except OSError as error:
        raise WriteFailed(path, error.strerror or str(error)) from error
