"""The only module with threads: workers that take tasks in order and keep that order.

Each worker takes the next task, does its work, waits for its turn for the short part
that must happen in task order, and goes on in parallel. The first error stops everybody
and is the one that is raised; all threads are joined before `run` returns or raises.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

from imgconv.errors import Cancelled

Task = TypeVar("Task")
Lock = threading.Lock

_NOTICE_SECONDS = 0.1  # how soon a waiting worker sees that the caller cancelled


def default_threads() -> int:
    """Return how many workers to use when nobody says: the processors we may run on."""
    return min(len(os.sched_getaffinity(0)), 16)


class Stop:
    """Says whether the conversion should end: it failed, or its caller cancelled it."""

    def __init__(self, cancelled: Callable[[], bool] | None = None):
        self._event = threading.Event()
        self._cancelled = cancelled

    def set(self) -> None:
        """Ask everybody to stop."""
        self._event.set()

    def is_set(self) -> bool:
        """Say whether somebody asked."""
        return self._event.is_set() or (self._cancelled is not None and self._cancelled())


class _Gate:
    """Lets numbered visitors through one at a time, in order."""

    def __init__(self, stop: Stop):
        self._stop = stop
        self._next = 0
        self._condition = threading.Condition()

    def enter(self, number: int) -> None:
        with self._condition:
            while self._next != number:
                if self._stop.is_set():
                    raise Cancelled("cancelled")
                self._condition.wait(_NOTICE_SECONDS)
        if self._stop.is_set():
            raise Cancelled("cancelled")

    def leave(self) -> None:
        with self._condition:
            self._next += 1
            self._condition.notify_all()

    def wake(self) -> None:
        with self._condition:
            self._condition.notify_all()


class Turn:
    """`with turn:` holds the part of a task that happens in task order; once per task."""

    def __init__(self, gate: _Gate, number: int):
        self._gate, self._number = gate, number
        self.taken = False

    def __enter__(self) -> None:
        self._gate.enter(self._number)
        self.taken = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:  # after a failure nobody may follow
            self._gate.leave()


class _Tasks(Generic[Task]):
    """Numbers the tasks and hands them out to many threads."""

    def __init__(self, tasks: Iterable[Task]):
        self._tasks: Iterator[Task] = iter(tasks)
        self._number = 0
        self._lock = threading.Lock()

    def take(self) -> tuple[int, Task] | None:
        with self._lock:
            for task in self._tasks:
                self._number += 1
                return self._number - 1, task
        return None


def run(
    tasks: Iterable[Task],
    make_worker: Callable[[], Callable[[Task, Turn], None]],
    *,
    threads: int,
    stop: Stop,
) -> None:
    """Carry out every task on `threads` threads.

    `make_worker` is called once in each thread and returns the function that does a
    task there, so that a worker's buffers are its own. Raises the first error, or
    Cancelled when `stop` was set from outside.
    """
    gate, queue = _Gate(stop), _Tasks(tasks)
    errors: list[BaseException] = []

    def loop() -> None:
        try:
            work = make_worker()
            while not stop.is_set() and (taken := queue.take()) is not None:
                number, task = taken
                turn = Turn(gate, number)
                work(task, turn)
                if not turn.taken:
                    with turn:
                        pass
        except BaseException as error:
            errors.append(error)
            stop.set()
            gate.wake()

    names = [f"imgconv-{i}" for i in range(threads)]
    pool = [threading.Thread(target=loop, name=name) for name in names]
    try:
        for thread in pool:
            thread.start()
        for thread in pool:
            thread.join()
    except BaseException:
        stop.set()
        gate.wake()
        for thread in pool:
            if thread.ident is not None:
                thread.join()
        raise
    if errors:
        raise errors[0]
    if stop.is_set():
        raise Cancelled("cancelled")
