"""A real part store with somebody looking over its shoulder, who may also trip it up."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from imgconv.objectstore import PartStore

Hook = Callable[[str, tuple[Any, ...]], None]


def _nothing(name: str, arguments: tuple[Any, ...]) -> None:
    pass


class Watched:
    """Notes each call to the store; `before` and `after` run around it and may raise.

    `after` runs when the store has done its work, so what it raises is a lost reply.
    """

    def __init__(self, store: PartStore, *, before: Hook = _nothing, after: Hook = _nothing):
        self._store = store
        self.before, self.after = before, after
        self.limits = store.limits
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self._lock = threading.Lock()

    def limit(self, **changes: Any) -> "Watched":
        self.limits = replace(self.limits, **changes)
        return self

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                self.calls.append((name, arguments))
            self.before(name, arguments)
            answer = found(*arguments, **named)
            self.after(name, arguments)
            return answer

        return call

    def sent(self) -> list[int]:
        """Numbers of the parts that were put, in the order they were."""
        return [a[1] for name, a in self.calls if name == "put_part" and a[0].key == "k"]

    def count(self, name: str) -> int:
        return sum(called == name for called, _ in self.calls)
