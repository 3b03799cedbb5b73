"""What a task looks like from outside, in the words of the service."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """Where a task stands."""

    WAITING = "Waiting"
    PROCESSING = "Processing"
    FINISHED = "Finished"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it by itself."""
        return self not in (Status.WAITING, Status.PROCESSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskState:
    """A sub-task: one disk, one object. A disk in several formats is as many of them, which
    go on together.

    `done` of `total` bytes of the disk are converted, `wire` were handed to the network,
    repeated ones included; `parts` are held by the store, `retries` are requests that were
    repeated, and `rate` is in bytes of disk a second, lately. `result` tells of the object
    once it is there.
    """

    name: str
    format: str
    bucket: str
    key: str
    total: int
    status: Status
    done: int = 0
    wire: int = 0
    parts: int = 0
    retries: int = 0
    rate: float = 0.0
    result: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """A moment of a task; times are in seconds since 1970.

    `active` says that a worker is at it: one that is Processing and not active was cut off,
    and may be resumed. `target` is the URL of the manifest, the last object to appear.
    `code` and `message` say why it failed.
    """

    task_id: str
    request_id: str
    image_id: str
    target: str
    status: Status
    active: bool
    cancelling: bool
    code: str
    message: str
    created: float
    changed: float
    disks: tuple[DiskState, ...]

    @property
    def done(self) -> int:
        """Bytes of the disks that are converted."""
        return sum(disk.done for disk in self.disks)

    @property
    def total(self) -> int:
        """Bytes of all disks."""
        return sum(disk.total for disk in self.disks)

    @property
    def process(self) -> str:
        """The service's TaskProcess: 100% only when every object is there."""
        if self.status is Status.FINISHED:
            return "100%"
        return f"{min(99, 100 * self.done // max(self.total, 1))}%"
