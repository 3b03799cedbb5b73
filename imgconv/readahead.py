"""Reading a file before the program that wants it is loaded.

Loading numpy takes as long as reading half a gigabyte from the page cache. So the command
begins to read and scan the source, in threads of C, as soon as it knows its name; the file
source takes over what was found. All of it is a hint, like the ones a kernel takes: whatever
goes wrong here goes wrong again, and is told, where the file is really read.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from imgconv._native import ffi, lib
from imgconv.errors import OutOfResources
from imgconv.kernels import KERNEL
from imgconv.pages import page_buffer
from imgconv.units import SECTOR, MiB, round_up

ROOM = 16 * MiB  # of data that may wait to be taken over; more made nothing faster
GRANULE: int = lib.IC_AHEAD_GRANULE  # bytes; what zeros are told from data by
FULL_BYTES = 64 * MiB  # a smaller file is walked in no time
PROBES = 64


def seems_full(fd: int, status: os.stat_result, length: int) -> bool:
    """Say whether a walk of a file's extents would find nothing but data.

    Looks here and there, as some file systems walk page by page, in a tenth of the time of
    reading. A file that is allocated to its end may still have holes where nothing was
    written; should all probes miss them, they are read as the zeros they are.
    """
    if status.st_blocks * 512 < length or length < FULL_BYTES:
        return False
    try:
        probes = range(0, length, length // PROBES)
        return all(os.lseek(fd, at, os.SEEK_DATA) == at for at in probes)
    except OSError:
        return False


class ReadAhead:
    """A regular file that is being read from its front. Raises OSError when it cannot be."""

    def __init__(self, path: str):
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self._ahead = ffi.NULL
        try:
            self._status = os.fstat(self._fd)
            if not stat.S_ISREG(self._status.st_mode):
                raise OSError("not a regular file")
            self._arena = page_buffer(ROOM)
            self._begin()
        except BaseException:
            if self._ahead != ffi.NULL:  # interrupted: nobody may read on into freed memory
                lib.ic_ahead_end(self._ahead)
                lib.ic_ahead_free(self._ahead)
            os.close(self._fd)
            raise

    def _begin(self) -> None:
        length = self._status.st_size
        # The program that is being loaded has a processor to itself.
        threads = max(1, min(len(os.sched_getaffinity(0)) - 1, 4))
        self._ahead = lib.ic_ahead_begin(
            KERNEL,
            self._fd,
            length,
            self.size,
            seems_full(self._fd, self._status, length),
            threads,
            ffi.from_buffer(self._arena),
            ROOM,
        )
        if self._ahead == ffi.NULL:
            raise OSError("no memory or no thread")

    @property
    def size(self) -> int:
        """Bytes of the file, in whole sectors."""
        return round_up(self._status.st_size, SECTOR)

    def is_of(self, status: os.stat_result) -> bool:
        """Say whether it reads the file of this status, unchanged since."""
        names = "st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns"
        return all(getattr(status, name) == getattr(self._status, name) for name in names)

    def end(self) -> tuple[int, bytes, memoryview]:
        """Stop reading; return how far it came, the data found, and the memory it is in.

        The data are rows of three 64-bit integers: file offsets of start and stop of a run,
        and where in the memory it begins.
        """
        count = ffi.new("size_t *")
        reach = lib.ic_ahead_end(self._ahead)
        rows = lib.ic_ahead_runs(self._ahead, count)
        table = bytes(ffi.buffer(rows, count[0] * ffi.sizeof("struct ic_run")))
        lib.ic_ahead_free(self._ahead)
        os.close(self._fd)
        return reach, table, self._arena


_waiting: list[ReadAhead] = []


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Read a file ahead, if it is one, until it is claimed or the context ends."""
    with suppress(OSError, ValueError, OutOfResources):
        _waiting.append(ReadAhead(path))
    try:
        yield
    finally:
        while _waiting:
            _waiting.pop().end()


def claim(status: os.stat_result) -> ReadAhead | None:
    """Hand over the reading of the very file that has this status; it must be ended."""
    if _waiting and _waiting[0].is_of(status):
        return _waiting.pop(0)
    return None
