"""The device sink: raw bytes onto a block device, in place."""

import fcntl
import os
import struct

from imgconv.body import zero_views
from imgconv.errors import OutputRefused, WriteFailed
from imgconv.sinks.base import reread_path, write_pieces
from imgconv.stretch import Stretch

BLKZEROOUT = 0x127F  # linux/fs.h: make a range read as zeros, by discarding where that does


class DeviceSink:
    """Overwrites the front of a block device; there is no way back, so nothing to abort.

    The device must not be in use (O_EXCL) and must hold `size` bytes. What lies behind
    the image is left alone.
    """

    parallel = True
    late_head = True

    def __init__(self, path: str, size: int):
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            raise OutputRefused(f"{path}: {error.strerror}") from error
        room = os.lseek(self._fd, 0, os.SEEK_END)
        if room < size:
            self.abort()
            raise OutputRefused(f"{path}: holds {room} bytes, the image needs {size}")

    def put(self, stretch: Stretch) -> None:
        """Write the pieces, and zero what is between them."""
        write_pieces(self._fd, self._path, stretch)
        for offset, length in stretch.gaps():
            self._zero(offset, length)

    def _zero(self, offset: int, length: int) -> None:
        """Zero a range, by discarding where the device guarantees zeros then."""
        try:
            fcntl.ioctl(self._fd, BLKZEROOUT, struct.pack("QQ", offset, length))
        except OSError:  # not supported, or not whole sectors of this device
            for view in zero_views(length):
                write_pieces(self._fd, self._path, Stretch.of(offset, [view]))
                offset += len(view)

    def readable(self, size: int) -> str:
        """Flush."""
        return reread_path(self._fd, self._path)

    def prepare(self, size: int) -> None:
        """Flush."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise WriteFailed(self._path, error.strerror or str(error)) from error

    def commit(self, size: int) -> None:
        """Flush, and let go of the device."""
        self.prepare(size)
        self.abort()

    def abort(self) -> None:
        """Close the device."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
