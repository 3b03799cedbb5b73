"""How much at once: concurrency that backs off when throttled, and a rate limit."""

from collections.abc import Callable
from time import monotonic

from imgconv.workers import Condition, Lock

_NOTICE_SECONDS = 0.1
_GROW_AFTER = 8  # good requests, before one more at once is tried again


class Window:
    """Lets a number of requests through at once: halved on throttling, regained slowly.

    `check` is called while waiting, and raises when there is no point in it any more.
    """

    def __init__(self, most: int, check: Callable[[], None]):
        self.limit = self._most = most
        self._active = self._good = 0
        self._check = check
        self._changed = Condition()

    def __enter__(self) -> None:
        with self._changed:
            while self._active >= self.limit:
                self._check()
                self._changed.wait(_NOTICE_SECONDS)
            self._active += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._active -= 1
            self._changed.notify()

    def succeeded(self) -> None:
        """Count a request that went well."""
        with self._changed:
            self._good += 1
            if self._good >= _GROW_AFTER and self.limit < self._most:
                self._good = 0
                self.limit += 1
                self._changed.notify()

    def throttled(self) -> None:
        """Halve what may run at once, down to one."""
        with self._changed:
            self._good = 0
            self.limit = max(1, self.limit // 2)


class RateLimit:
    """Holds senders back so that together they send `rate` bytes a second on average."""

    def __init__(self, rate: int, wait: Callable[[float], None]):
        self._rate = rate
        self._wait = wait
        self._lock = Lock()
        self._free_at = 0.0

    def __call__(self, count: int) -> None:
        """Wait until `count` more bytes may go."""
        with self._lock:
            now = monotonic()
            start = max(self._free_at, now)
            self._free_at = start + count / self._rate
        self._wait(start - now)
