"""The bytes of a part on their way to a store, sent from memory as they lie there."""

import io
from collections.abc import Callable, Iterator, Sequence

from imgconv.units import MiB

_ZEROS = memoryview(bytes(MiB))


def zero_views(length: int) -> Iterator[memoryview]:
    """Yield views of one shared zero buffer, `length` bytes in all."""
    while length > 0:
        view = _ZEROS[:length]
        yield view
        length -= len(view)


class Body:
    """Buffers back to back; any number of readers may go over them, one after another.

    `before_view` is called with the length of each buffer just before a reader hands it
    out: the place to hold a sender back, or to stop it by raising.
    """

    def __init__(
        self, views: Sequence[memoryview], before_view: Callable[[int], object] | None = None
    ):
        self._views = [view for view in views if len(view)]  # an empty one would end it
        self._before_view = before_view
        self._length = sum(map(len, views))

    def __len__(self) -> int:
        return self._length

    def views(self) -> Iterator[memoryview]:
        """Yield the buffers in order."""
        for view in self._views:
            if self._before_view is not None:
                self._before_view(len(view))
            yield view

    def reader(self) -> "BodyReader":
        """Return a file-like object at the beginning of the body."""
        return BodyReader(self)


class BodyReader:
    """What an HTTP library takes as the body of a request: read, seek, tell and a length.

    `read` returns the next buffer whole, whatever size it was asked for: HTTP libraries
    ask for 8 to 16 KiB at a time, and one system call per MiB is cheaper than 64.
    """

    def __init__(self, body: Body):
        self._body = body
        self._left: Iterator[memoryview] = body.views()
        self._at = 0

    def __len__(self) -> int:
        return len(self._body)

    def read(self, size: int = -1) -> memoryview | bytes:
        """Return the next buffer, b"" at the end."""
        view = next(self._left, None)
        if view is None:
            return b""
        self._at += len(view)
        return view

    def tell(self) -> int:
        """Return how many bytes were handed out."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go back to the beginning, or to the end to learn the length."""
        if (offset, whence) == (0, io.SEEK_END):
            self._left, self._at = iter(()), len(self._body)
        elif (offset, whence) == (0, io.SEEK_SET):
            self._left, self._at = self._body.views(), 0
        elif (offset, whence) != (self._at, io.SEEK_SET):
            raise io.UnsupportedOperation("a body is read from its beginning")
        return self._at
