"""What happens to tasks, as structured lines of a log: one JSON object each."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import time
from typing import TypeAlias

from imgconv.errors import WriteFailed
from imgconv.workers import Lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened; `time` is in seconds since 1970, counts are in bytes.

    `event` is one of "waiting", "processing", "disk-processing", "disk-finished",
    "progress", "finished", "failed", "cancelled". `disk`, `format` and `key` are there for
    what concerns one object of one disk, `code` and `message` for what failed.
    """

    time: float
    event: str
    task: str
    request: str
    image: str
    disk: str | None = None
    format: str | None = None
    key: str | None = None
    done: int | None = None
    total: int | None = None
    wire: int | None = None
    retries: int | None = None
    code: str | None = None
    message: str | None = None

    def line(self) -> str:
        """Return it as JSON, without what is not there."""
        found = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps(found)


Listener: TypeAlias = Callable[[Event], object]
"""Called with every event, from any thread; must be quick."""


def nobody(event: Event) -> None:
    """Listen to nothing."""


def now() -> float:
    """Return the time that events carry."""
    return time()


class EventLog:
    """A file of events, one JSON object a line; several processes may append to one.

    An export does not fail because its log cannot be written: `failed` says why not.
    """

    def __init__(self, path: str):
        self.failed: str | None = None
        self._path = path
        self._lock = Lock()
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o644)
        except OSError as error:
            raise WriteFailed(path, error.strerror or str(error)) from error

    def __call__(self, event: Event) -> None:
        """Append an event."""
        try:
            with self._lock:
                os.write(self._fd, f"{event.line()}\n".encode())
        except OSError as error:
            self.failed = f"{self._path}: {error.strerror}"

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
