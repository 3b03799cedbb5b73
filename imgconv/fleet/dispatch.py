"""Errands: handed out, repeated when a worker is lost, given up when something is wrong.

What an errand raises comes back as a value. So whatever a future raises is the executor's
doing: a worker died, a connection broke, a result cannot be sent. That is worth another
try; what our own code raised is not.
"""

import os
import pickle
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from imgconv.errors import ImgconvError, WorkersLost
from imgconv.fleet.executors import Submits
from imgconv.workers import Stop

IN_FLIGHT = 1024  # errands at once; an executor queues what it has no worker for
MOST_LOSSES = 5  # in a row, with nothing done in between
_PAUSE_SECONDS = 0.25  # after a loss: others that broke with it are still being told
_NOTICE_SECONDS = 0.1
_LEAVE_SECONDS = 10.0  # how long errands that cannot be cancelled are waited for

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Errand(Protocol[Result_co]):
    """Work for somebody elsewhere; can be pickled, and repeated without harm."""

    def run(self) -> Result_co:
        """Do it; the result can be pickled."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Outcome(Generic[Result]):
    """What became of an errand: exactly one of `result` and `error` counts."""

    worker: str
    result: Result | None = None
    error: Exception | None = None

    def take(self) -> Result:
        """Return the result, or raise the error with a note of where it happened."""
        if self.error is not None:
            self.error.add_note(f"on worker {self.worker}")
            raise self.error
        assert self.result is not None
        return self.result


def perform(errand: Errand[Result]) -> Outcome[Result]:
    """Carry an errand out, in the process of a worker."""
    worker = f"{os.uname().nodename}:{os.getpid()}"
    try:
        return Outcome(worker, errand.run())
    except Exception as error:
        return Outcome(worker, error=_sendable(error))


def _sendable(error: Exception) -> Exception:
    """Return the error, or its text if it cannot be pickled; our own all can."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class Dispatcher:
    """Hands errands to an executor; `workers` are those that have done any so far.

    `check` is called often and raises when there is no point in going on.
    """

    def __init__(self, executor: Submits, stop: Stop, check: Callable[[], None]):
        self._executor, self._stop, self._check = executor, stop, check
        self.workers: set[str] = set()

    def results(
        self,
        errands: Iterable[Errand[Result]],
        again: Callable[[Errand[Result]], Errand[Result]],
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield (number, result) of each errand, as they come in.

        `again` makes the errand that takes the place of one that was lost. Raises what an
        errand raised first, and WorkersLost. Close it if not all are wanted.
        """
        batch: _Batch[Result] = _Batch(self._executor)
        numbered = enumerate(errands)
        losses = 0
        try:
            while True:
                for number, errand in islice(numbered, IN_FLIGHT - len(batch.pending)):
                    batch.submit(number, errand)
                if not batch.pending:
                    return
                lost = []
                for number, errand, outcome in self._finished(batch):
                    if isinstance(outcome, BaseException):
                        lost.append((number, errand, outcome))
                        continue
                    self.workers.add(outcome.worker)
                    losses = 0
                    yield number, outcome.take()
                losses += bool(lost)
                for number, errand, cause in lost:
                    if losses > MOST_LOSSES:
                        raise _lost(cause)
                    batch.submit(number, again(errand))
        finally:
            batch.leave()

    def _finished(
        self, batch: "_Batch[Result]"
    ) -> Iterator[tuple[int, Errand[Result], Outcome[Result] | BaseException]]:
        """Wait for errands to end; those that a broken executor loses together are one
        loss."""
        pause = _PAUSE_SECONDS
        while (future := batch.next()) is None:
            self._check()
        while future is not None:
            self._check()
            number, errand = batch.pending.pop(future)
            outcome = _outcome(future)
            yield number, errand, outcome
            if isinstance(outcome, BaseException) and pause:
                self._stop.wait(pause)
                pause = 0.0
            future = batch.next(wait=False)


class _Batch(Generic[Result]):
    """Errands under way, and those of them that have ended, in that order."""

    def __init__(self, executor: Submits):
        self._executor = executor
        self._ended: SimpleQueue[Future[Outcome[Result]]] = SimpleQueue()
        self.pending: dict[Future[Outcome[Result]], tuple[int, Errand[Result]]] = {}

    def submit(self, number: int, errand: Errand[Result]) -> None:
        try:
            future: Future[Outcome[Result]] = self._executor.submit(perform, errand)
        except (BrokenExecutor, RuntimeError) as error:
            raise _lost(error) from error
        self.pending[future] = number, errand
        future.add_done_callback(self._ended.put)

    def next(self, *, wait: bool = True) -> Future[Outcome[Result]] | None:
        try:
            return self._ended.get(timeout=_NOTICE_SECONDS) if wait else self._ended.get(False)
        except Empty:
            return None

    def leave(self) -> None:
        """Cancel what has not begun, and wait for the rest as long as is decent."""
        for future in self.pending:
            future.cancel()
        wait(self.pending, timeout=_LEAVE_SECONDS)


def _outcome(future: "Future[Outcome[Result]]") -> Outcome[Result] | BaseException:
    """Return what came back, or why nothing did."""
    try:
        error = future.exception()
    except CancelledError as cancelled:  # by the executor: we cancel only when we leave
        return cancelled
    return future.result() if error is None else error


def _lost(cause: BaseException) -> ImgconvError:
    reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:500]
    error = WorkersLost(f"no worker could do it: {reason}")
    error.__cause__ = cause
    return error
