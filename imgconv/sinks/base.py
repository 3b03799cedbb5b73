"""The contract of a sink, and what sinks over file descriptors share."""

import os
from typing import Protocol, runtime_checkable

from imgconv import native
from imgconv.errors import WriteFailed
from imgconv.stretch import Stretch


class Sink(Protocol):
    """Takes an output's bytes stretch by stretch, and publishes them in one moment.

    Every byte is given exactly once, except that a sink on which `late_head` is true gets
    the first bytes, up to the head's size, after all others. With `parallel` false,
    stretches come from one thread at a time in ascending order (the late head again
    apart); with true, from several, in any order. Memory belongs to the caller again
    when a call returns. Errors are SinkErrors.
    """

    @property
    def parallel(self) -> bool:
        """Whether calls may come from several threads, in any order."""
        ...

    @property
    def late_head(self) -> bool:
        """Whether the head may come last."""
        ...

    def put(self, stretch: Stretch) -> None:
        """Store the pieces of a stretch and make all between them read as zeros."""
        ...

    def prepare(self, size: int) -> None:
        """Do all that can fail for an output of `size` bytes, but for publishing it.

        `commit` sees to it where nobody has; of several outputs all are prepared first.
        """
        ...

    def commit(self, size: int) -> None:
        """Publish an output of `size` bytes, durably; the only moment it becomes visible."""
        ...

    def abort(self) -> None:
        """Throw everything away; harmless after commit and when repeated."""
        ...


@runtime_checkable
class ReadableSink(Sink, Protocol):
    """A sink of which the output can be read before it is published."""

    def readable(self, size: int) -> str:
        """Finish an output of `size` bytes; return a path from which it is read while open.

        What is read then comes from where it is stored, as far as the system allows that.
        """
        ...


@runtime_checkable
class RetractableSink(Sink, Protocol):
    """A sink that can take back what it has published."""

    def replaces(self) -> bool:
        """Say whether there is something that the output will replace.

        Whoever takes the output back then leaves neither.
        """
        ...

    def retract(self) -> str | None:
        """Remove what was published, if it is still ours; return what became of it, None if
        there is nothing.

        A `commit` that failed may have published it. It is taken back because an output
        failed, so that error is the one that counts: nothing is raised.
        """
        ...


def reread_path(fd: int, path: str) -> str:
    """Flush a file and drop what memory holds of it; return a path that leads to it."""
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        raise WriteFailed(path, error.strerror or str(error)) from error
    return f"/proc/self/fd/{fd}"


def write_pieces(fd: int, path: str, stretch: Stretch) -> None:
    """Write the pieces of a stretch at their offsets; leave the rest as it is."""
    try:
        native.write_pieces(fd, stretch)
    except native.FileFailed as error:
        raise WriteFailed(path, error.reason, error.offset) from error
