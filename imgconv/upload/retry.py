"""When a request is repeated, and how long after: transient faults, with jitter."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from imgconv.errors import (
    ContentDamaged,
    CredentialsExpired,
    StoreError,
    StoreThrottled,
    StoreUnavailable,
)

Result = TypeVar("Result")

TRANSIENT = (StoreUnavailable, StoreThrottled, ContentDamaged)
MAX_DAMAGED = 3  # a fourth time it is not the network


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waiting times grow from `base` by twos up to `most`; all in seconds.

    A request is repeated until `patience` seconds have gone by since it first failed.
    """

    base: float = 0.2
    most: float = 20.0
    patience: float = 300.0

    def pause(self, failures: int) -> float:
        """Return a random time: clients that failed together should not return together."""
        return random.uniform(0, min(self.most, self.base * 2 ** min(failures, 30)))


class Retry:
    """Carries out requests until they succeed, or fail for good.

    `wait` sleeps, or raises when there is no point any more. `renew` fetches credentials.
    `on_failure` hears of every failed attempt that will be repeated.
    """

    def __init__(
        self,
        backoff: Backoff,
        *,
        wait: Callable[[float], None],
        renew: Callable[[], bool],
        on_failure: Callable[[StoreError], None] = lambda _: None,
    ):
        self._backoff = backoff
        self._wait, self._renew, self._on_failure = wait, renew, on_failure

    def __call__(self, request: Callable[[], Result]) -> Result:
        """Return what the request returns; raises its last StoreError otherwise."""
        failures = damaged = 0
        renewed = False
        since: float | None = None
        while True:
            try:
                return request()
            except CredentialsExpired as error:
                if renewed or not self._renew():
                    raise
                renewed = True
                self._on_failure(error)
                self._wait(0)  # it may be that nobody wants it any more
            except TRANSIENT as error:
                since = monotonic() if since is None else since
                damaged += isinstance(error, ContentDamaged)
                pause = self._pause(error, failures)
                late = monotonic() + pause - since > self._backoff.patience
                if late or damaged >= MAX_DAMAGED:
                    raise
                self._on_failure(error)
                self._wait(pause)
                failures += 1

    def _pause(self, error: StoreError, failures: int) -> float:
        asked = error.retry_after if isinstance(error, StoreThrottled) else 0.0
        return max(self._backoff.pause(failures), min(asked, self._backoff.patience))
