"""The stream sink: standard output, a pipe, a FIFO, a character device."""

import os
import select
import stat
from collections.abc import Callable

from imgconv.body import zero_views
from imgconv.errors import Cancelled, OutputRefused, ReaderGone, WriteFailed
from imgconv.stretch import Stretch

_POLL_MILLISECONDS = 100
MAX_VECTORS = 1024  # IOV_MAX of Linux


def _send_some(fd: int, views: list[memoryview]) -> int:
    """Write to a socket what it takes now."""
    import socket  # takes milliseconds, and most streams are pipes

    with socket.socket(fileno=os.dup(fd)) as own:
        return own.sendmsg(views, [], socket.MSG_DONTWAIT)


def _write_atom(fd: int, views: list[memoryview]) -> int:
    """Write so little to a pipe with room in it that the write cannot block."""
    return os.write(fd, views[0][: select.PIPE_BUF])


class StreamSink:
    """Writes bytes in order to a descriptor, which stays the caller's to close.

    A slow reader must not keep a cancelled conversion waiting, so a pipe is reopened for
    non-blocking writes of our own: changing the descriptor we were given would change it
    for every process that shares it.
    """

    parallel = False
    late_head = False

    def __init__(self, fd: int, name: str, cancelled: Callable[[], bool]):
        self._name = name
        self._cancelled = cancelled
        self._at = 0
        self._own_fd: int | None = None
        try:
            mode = os.fstat(fd).st_mode
        except OSError as error:
            raise OutputRefused(f"{name}: {error.strerror}") from error
        self._fd = fd
        self._write: Callable[[int, list[memoryview]], int] = os.writev
        if stat.S_ISSOCK(mode):
            self._write = _send_some
        elif stat.S_ISFIFO(mode):
            self._reopen()

    def _reopen(self) -> None:
        try:
            path = f"/proc/self/fd/{self._fd}"
            self._own_fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._fd = self._own_fd
        except OSError:
            self._write = _write_atom

    def put(self, stretch: Stretch) -> None:
        """Write the next bytes; ReaderGone when nobody reads them any more."""
        assert stretch.offset == self._at, f"stream is at {self._at}, not {stretch.offset}"
        for _, length, views in stretch:
            if views:
                self._write_all(views)
            else:
                for view in zero_views(length):
                    self._write_all([view])

    def _write_all(self, views: list[memoryview]) -> None:
        while views:
            count = self._write_some(views[:MAX_VECTORS])
            self._at += count
            views = unwritten(views, count)

    def _write_some(self, views: list[memoryview]) -> int:
        try:
            self._wait_for_room()
            return self._write(self._fd, views)
        except BlockingIOError:
            return 0
        except BrokenPipeError as error:
            raise ReaderGone(f"{self._name}: its reader closed it") from error
        except OSError as error:
            raise WriteFailed(self._name, error.strerror or str(error), self._at) from error

    def _wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while not poll.poll(_POLL_MILLISECONDS):
            if self._cancelled():
                raise Cancelled("cancelled while waiting for the reader")

    def prepare(self, size: int) -> None:
        """All is written."""

    def commit(self, size: int) -> None:
        """Let go of the stream; what a reader has seen is its own."""
        assert size == self._at, f"stream ends at {self._at}, not at {size}"
        self.abort()

    def abort(self) -> None:
        """Close our own descriptor, if there is one."""
        fd, self._own_fd = self._own_fd, None
        if fd is not None:
            os.close(fd)


def unwritten(views: list[memoryview], count: int) -> list[memoryview]:
    """Return what is left of the views once `count` bytes of them are written."""
    for i, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[i + 1 :]]
        count -= len(view)
    return []
