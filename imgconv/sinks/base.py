"""The contract of a sink, and what sinks over file descriptors share."""

import errno
import os
from collections.abc import Iterator, Sequence
from typing import Protocol

from imgconv.errors import WriteFailed
from imgconv.units import MiB

MAX_VECTORS = 1024  # IOV_MAX of Linux
_ZEROS = memoryview(bytes(MiB))


class Sink(Protocol):
    """Takes an output's bytes by offset, and publishes them in one moment.

    Every byte is given exactly once, by `write` or by `zeros`, except that a sink on
    which `late_head` is true gets the first bytes, up to the head's size, after all
    others. With `parallel` false, calls come from one thread at a time in ascending
    order (the late head again apart); with true, from several, in any order. Buffers
    belong to the caller again when a call returns. Errors are SinkErrors.
    """

    @property
    def parallel(self) -> bool:
        """Whether calls may come from several threads, in any order."""
        ...

    @property
    def late_head(self) -> bool:
        """Whether the head may come last."""
        ...

    def write(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Store the buffers, back to back, from `offset` on."""
        ...

    def zeros(self, offset: int, length: int) -> None:
        """Make `length` bytes from `offset` on read as zeros."""
        ...

    def commit(self, size: int) -> None:
        """Publish an output of `size` bytes, durably; the only moment it becomes visible."""
        ...

    def abort(self) -> None:
        """Throw everything away; harmless after commit and when repeated."""
        ...


def zero_pieces(offset: int, length: int) -> Iterator[tuple[int, memoryview]]:
    """Yield (offset, zero bytes) until `length` bytes from `offset` on are covered."""
    end = offset + length
    while offset < end:
        piece = _ZEROS[: end - offset]
        yield offset, piece
        offset += len(piece)


def write_all(fd: int, path: str, offset: int, buffers: Sequence[memoryview]) -> None:
    """Write every byte of the buffers at `offset` or raise WriteFailed."""
    for first in range(0, len(buffers), MAX_VECTORS):
        views = [view for view in buffers[first : first + MAX_VECTORS] if len(view)]
        while views:
            try:
                count = os.pwritev(fd, views, offset)
            except OSError as error:
                raise WriteFailed(path, error.strerror or str(error), offset) from error
            if count == 0:
                raise WriteFailed(path, os.strerror(errno.EIO), offset)
            offset += count
            views = unwritten(views, count)


def unwritten(views: list[memoryview], count: int) -> list[memoryview]:
    """Return what is left of the views once `count` bytes of them are written."""
    for i, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[i + 1 :]]
        count -= len(view)
    return []
