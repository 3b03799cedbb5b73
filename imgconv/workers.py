"""The only module with threads: workers that keep tasks in order, and a pool that need not.

In `run`, each worker takes the next task, does its work, waits for its turn for the short
part that must happen in task order, and goes on in parallel. The first error stops everybody
and is the one that is raised; all threads are joined before `run` returns or raises. A
`Pool` does what comes up beside that: uploads, and reading ahead.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from types import TracebackType
from typing import Generic, TypeVar

from imgconv.errors import Cancelled, OptionError, OutOfResources
from imgconv.pages import page_buffer

Task = TypeVar("Task")
Lock = threading.Lock
Condition = threading.Condition
PerThread = threading.local

_NOTICE_SECONDS = 0.1  # how soon a waiting worker sees that the caller cancelled


class Room:
    """Memory of every thread's own, which has what was put there last."""

    def __init__(self) -> None:
        self._own = PerThread()

    def of(self, size: int) -> memoryview:
        """Return `size` bytes, for this thread until it asks again. Raises OutOfResources."""
        memory: memoryview | None = getattr(self._own, "memory", None)
        if memory is None or len(memory) < size:
            self._own.memory = memory = page_buffer(1 << size.bit_length())
        return memory[:size]


def default_threads() -> int:
    """Return how many workers to use when nobody says: the processors we may run on."""
    return min(len(os.sched_getaffinity(0)), 16)


def thread_count(wanted: int | None) -> int:
    """Return how many workers to use, by default one per processor; OptionError for absurd
    numbers."""
    if wanted is None:
        return default_threads()
    if not 1 <= wanted <= 256:
        raise OptionError(f"threads={wanted}: must be from 1 to 256")
    return wanted


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

    def check(self) -> None:
        """Raise Cancelled if somebody asked."""
        if self.is_set():
            raise Cancelled("cancelled")

    def wait(self, seconds: float) -> None:
        """Sleep that long; raises Cancelled as soon as somebody asks."""
        end = monotonic() + seconds
        self.check()
        while (left := end - monotonic()) > 0:
            self._event.wait(min(left, _NOTICE_SECONDS))
            self.check()


class _Gate:
    """Lets numbered visitors through one at a time, in order."""

    def __init__(self, stop: Stop):
        self._stop = stop
        self._next = 0
        self._condition = threading.Condition()

    def enter(self, number: int) -> None:
        with self._condition:
            while self._next != number:
                self._stop.check()
                self._condition.wait(_NOTICE_SECONDS)
        self._stop.check()

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


class Pool:
    """Threads in the background that take tasks in the order they come; started on demand.

    A task must not raise: it has nobody to raise to.
    """

    def __init__(self, threads: int, name: str):
        self._threads, self._name = threads, name
        self._changed = threading.Condition()
        self._tasks: deque[Callable[[], None]] = deque()
        self._alive = self._idle = 0
        self._closed = False

    def submit(self, task: Callable[[], None]) -> None:
        """Have the task done soon; a pool that is closed forgets it."""
        with self._changed:
            if self._closed:
                return
            self._tasks.append(task)
            if self._idle < len(self._tasks) and self._alive < self._threads:
                self._start()
            self._changed.notify()

    def _start(self) -> None:
        # A daemon: a request that hangs in the network must not keep a process from ending.
        thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if self._alive == 0:
                raise OutOfResources(f"cannot start a thread: {error}") from error
        else:
            self._alive += 1

    def _loop(self) -> None:
        try:
            while (task := self._next()) is not None:
                task()
        finally:
            with self._changed:
                self._alive -= 1
                self._changed.notify_all()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._idle += 1
            while not self._tasks and not self._closed:
                self._changed.wait()
            self._idle -= 1
            if self._tasks:
                return self._tasks.popleft()
            return None

    def close(self, patience: float | None = None) -> bool:
        """Drop what has not begun and wait for what has, `patience` seconds at most.

        Returns whether everything has ended; harmless when repeated.
        """
        end = None if patience is None else monotonic() + patience
        with self._changed:
            self._closed = True
            self._tasks.clear()
            self._changed.notify_all()
            while self._alive:
                left = None if end is None else end - monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)
        return True


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
    stop.check()
