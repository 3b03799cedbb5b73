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

from imgconv.errors import Cancelled, OutOfResources

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


class _Crew:
    """Threads that can be waited for again after the wait was interrupted.

    An interrupted `Thread.join` may take the thread for finished (Python 3.11), so each
    thread says itself when it begins and ends.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._expected: set[int] = set()
        self._begun: set[int] = set()

    def start(self, loop: Callable[[], None], threads: int) -> None:
        """Start the threads, or as many as the system allows; at least one."""
        for i in range(threads):
            thread = threading.Thread(target=self._run, args=(i, loop), name=f"imgconv-{i}")
            self._expected.add(i)
            try:
                thread.start()
            except RuntimeError as error:
                self._forget(i)
                if i == 0:
                    raise OutOfResources(f"cannot start a thread: {error}") from error
                return
            except BaseException:
                self._forget(i)
                raise

    def _forget(self, i: int) -> None:
        """Expect a thread no more, unless it is running: it may still be about to."""
        with self._condition:
            if i not in self._begun:
                self._expected.discard(i)

    def _run(self, i: int, loop: Callable[[], None]) -> None:
        with self._condition:
            if i not in self._expected:
                return
            self._begun.add(i)
        try:
            loop()
        finally:
            with self._condition:
                self._expected.discard(i)
                self._condition.notify_all()

    def wait(self) -> None:
        """Return when no thread is at work any more."""
        with self._condition:
            while self._expected:
                self._condition.wait()


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
    gate, queue, crew = _Gate(stop), _Tasks(tasks), _Crew()
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

    interrupted: BaseException | None = None
    try:
        crew.start(loop, threads)
    except BaseException as error:
        interrupted = error
    while True:
        if interrupted is not None:
            stop.set()
            gate.wake()
        try:
            crew.wait()
            break
        except BaseException as error:  # a second Ctrl-C leaves no thread behind either
            interrupted = interrupted or error
    if interrupted is not None:
        raise interrupted
    if errors:
        raise errors[0]
    if stop.is_set():
        raise Cancelled("cancelled")
