"""What runs functions elsewhere, as far as we need to know."""

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from types import TracebackType
from typing import Protocol, Self, TypeVar

from imgconv.workers import Lock

Result = TypeVar("Result")


class Submits(Protocol):
    """Any `concurrent.futures.Executor`, as far as it is needed."""

    def submit(
        self, function: Callable[..., Result], /, *arguments: object
    ) -> "Future[Result]":
        """Have the function called with the arguments, by and by and somewhere."""
        ...


class LastingExecutor:
    """An executor that is made anew when it breaks; safe for use by many threads.

    A ProcessPoolExecutor of which one process dies takes no more work. Here, the next
    call gets a fresh one:

        >>> with imgconv.LastingExecutor(partial(ProcessPoolExecutor, 4)) as executor:
        ...     imgconv.distribute("in.raw", "s3://bucket/out.vhd", executor)
    """

    def __init__(self, make: Callable[[], Executor]):
        self._make = make
        self._executor: Executor | None = None
        self._lock = Lock()

    def submit(
        self, function: Callable[..., Result], /, *arguments: object
    ) -> "Future[Result]":
        """Hand the call to the executor, or to a new one if it is broken."""
        with self._lock:
            if self._executor is None:
                self._executor = self._make()
            try:
                return self._executor.submit(function, *arguments)
            except BrokenExecutor:
                self._executor.shutdown(wait=False)
                self._executor = self._make()
                return self._executor.submit(function, *arguments)

    def close(self) -> None:
        """Wait for what runs and end the workers; harmless when repeated."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
