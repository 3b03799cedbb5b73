"""Requests to a store, repeated when that helps and given up when nobody waits for them."""

from collections.abc import Callable
from dataclasses import replace
from time import sleep
from typing import TypeVar

from imgconv.errors import StoreError, StoreThrottled
from imgconv.objectstore import PartStore
from imgconv.upload.retry import Backoff, Retry
from imgconv.upload.state import Meter
from imgconv.upload.window import Window
from imgconv.workers import Stop

Result = TypeVar("Result")

_FIRST_SECONDS = 20.0
_CLEAN_UP_SECONDS = 10.0


class Client:
    """A store, with patience; safe for many threads.

    `cancelled` is asked often. Each attempt that is repeated is counted by `meter`. With
    a store that has not answered yet there is less patience: its name may be mistyped.
    """

    def __init__(
        self,
        store: PartStore,
        backoff: Backoff,
        *,
        concurrency: int,
        cancelled: Callable[[], bool] | None,
        meter: Meter,
    ):
        self.store = store
        self.stop = Stop(cancelled)
        self.window = Window(min(concurrency, store.limits.concurrency), self.stop.check)
        self._meter = meter
        self._backoff = backoff
        self._answered = False

    def request(self, request: Callable[[], Result]) -> Result:
        """Carry out a request, patiently. Raises StoreErrors, and Cancelled."""
        patience = self._backoff.patience
        if not self._answered:
            patience = min(_FIRST_SECONDS, patience)
        retry = Retry(
            replace(self._backoff, patience=patience),
            wait=self.stop.wait,
            renew=self.store.renew,
            on_failure=self._failed,
        )
        result = retry(request)
        self._answered = True
        return result

    def send(self, request: Callable[[], Result]) -> Result:
        """The same for requests with bodies, of which only so many may run at once."""

        def attempt() -> Result:
            with self.window:
                result = request()
            self.window.succeeded()
            return result

        return self.request(attempt)

    def clean_up(self, request: Callable[[], None]) -> None:
        """Carry out a request after the end, when everything else has been cancelled."""
        patience = min(_CLEAN_UP_SECONDS, self._backoff.patience)
        brief = Backoff(base=self._backoff.base, most=1.0, patience=patience)
        Retry(brief, wait=sleep, renew=self.store.renew, on_failure=self._failed)(request)

    def _failed(self, error: StoreError) -> None:
        if isinstance(error, StoreThrottled):
            self.window.throttled()
        self._meter.count(retries=1)
