"""From the name of an output to the sink that writes it."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import sleep

from imgconv.errors import Cancelled, OutputExists, OutputRefused, UnsupportedCombination
from imgconv.sinks.base import Sink

STDOUT = "-"
_NOTICE_SECONDS = 0.1


@contextmanager
def open_sink(
    path: str, format_name: str, size: int, *, clobber: bool, cancelled: Callable[[], bool]
) -> Iterator[Sink]:
    """Open the sink for `path` and abort it on the way out unless it was committed.

    "-" is standard output; a FIFO or character device is streamed to; a block device
    is overwritten in place, by raw only; everything else is a file. `size` is the virtual
    size in bytes. Raises SinkErrors, and UnsupportedCombination for another format on a
    block device.
    """
    mode = _mode_of(path)
    descriptor = -1
    if is_stdout(path):
        sink: Sink = _stream(_stdout(), "standard output", cancelled)
    elif stat.S_ISDIR(mode):
        raise OutputRefused(f"{path}: is a folder")
    elif stat.S_ISBLK(mode):
        if format_name != "raw":
            raise UnsupportedCombination(
                f"{path}: a block device takes raw only, not {format_name}; say -O raw"
            )
        if not clobber:
            raise OutputExists(f"{path}: is a device, which is overwritten, not created")
        from imgconv.sinks.device import DeviceSink

        sink = DeviceSink(path, size)
    elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        descriptor = _open_stream(path, cancelled)
        sink = _stream(descriptor, path, cancelled)
    else:
        _refuse_strange_name(path)
        from imgconv.sinks.file import FileSink

        sink = FileSink(path, clobber=clobber)
    try:
        yield sink
    except BaseException as error:
        _abort(sink, error)
        raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _stream(fd: int, name: str, cancelled: Callable[[], bool]) -> Sink:
    from imgconv.sinks.stream import StreamSink

    return StreamSink(fd, name, cancelled)


def _abort(sink: Sink, error: BaseException) -> None:
    try:
        sink.abort()
    except Exception as failure:  # the first error is the one that matters
        error.add_note(f"and cleaning up failed: {failure}")


def is_stdout(path: str) -> bool:
    """Say whether the name stands for our standard output, by "-" or by any other way."""
    try:
        return path == STDOUT or os.path.samestat(os.stat(path), os.fstat(1))
    except (OSError, ValueError):
        return False


def is_stream(path: str) -> bool:
    """Say whether what is written there is gone: standard output, a pipe, a terminal."""
    mode = _mode_of(path)
    return is_stdout(path) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _refuse_strange_name(path: str) -> None:
    """Refuse what can only be a slip of the keyboard."""
    if not path or path.endswith("/"):
        raise OutputRefused(f"{path!r}: is not the name of a file")
    try:
        folder = os.path.realpath(os.path.dirname(path))
    except (OSError, ValueError):
        return  # creating it will tell
    if f"{folder}/".startswith("/dev/") and not f"{folder}/".startswith("/dev/shm/"):
        raise OutputRefused(f"{path}: there is no such device")


def _mode_of(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError):
        return 0  # not there, or not for us to see: creating it will tell


def _stdout() -> int:
    if os.isatty(1):
        raise OutputRefused("standard output is a terminal; redirect it or name a file")
    return 1


def _open_stream(path: str, cancelled: Callable[[], bool]) -> int:
    """Open a FIFO, waiting for its reader, or a character device that is no terminal."""
    while True:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            break
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(_mode_of(path)):
                raise OutputRefused(f"{path}: {error.strerror}") from error
        if cancelled():
            raise Cancelled(f"cancelled while {path} had no reader")
        sleep(_NOTICE_SECONDS)
    if os.isatty(fd):
        os.close(fd)
        raise OutputRefused(f"{path}: is a terminal")
    return fd
