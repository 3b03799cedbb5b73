"""The append sink: bytes in order, and the head at the end.

Many stores let a writer append and then set the first bytes once (a multipart upload
that sends part 1 last is one). Such a store needs only the two methods of `Appendable`;
this adapter makes a sink of it.
"""

from collections.abc import Sequence
from typing import Protocol

from imgconv.sinks.base import zero_pieces


class Appendable(Protocol):
    """A store that takes the body in order, then the head, then publishes both."""

    def append(self, buffers: Sequence[memoryview]) -> None:
        """Add bytes at the end of the body."""
        ...

    def patch_head(self, buffers: Sequence[memoryview]) -> None:
        """Add bytes at the end of the head, which was reserved in front of the body."""
        ...

    def commit(self, size: int) -> None:
        """Publish `size` bytes."""
        ...

    def abort(self) -> None:
        """Throw everything away; harmless when repeated."""
        ...


class AppendSink:
    """Turns offsets into appends and head patches."""

    parallel = False
    late_head = True

    def __init__(self, store: Appendable, head_size: int):
        self._store = store
        self._head_size = head_size
        self._body_at = head_size
        self._head_at = 0

    def write(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Append to the body, or to the head when `offset` lies in it."""
        length = sum(len(view) for view in buffers)
        if offset < self._head_size:
            assert offset == self._head_at, f"head is at {self._head_at}, not at {offset}"
            self._head_at += length
            self._store.patch_head(buffers)
        else:
            assert offset == self._body_at, f"body is at {self._body_at}, not at {offset}"
            self._body_at += length
            self._store.append(buffers)

    def zeros(self, offset: int, length: int) -> None:
        """Append zero bytes."""
        for at, piece in zero_pieces(offset, length):
            self.write(at, [piece])

    def commit(self, size: int) -> None:
        """Publish, once head and body are whole."""
        assert (self._head_at, self._body_at) == (self._head_size, size)
        self._store.commit(size)

    def abort(self) -> None:
        """Throw everything away."""
        self._store.abort()
