"""Raw disks in regular files and block devices."""

import errno
import os
import stat
from collections.abc import Iterator

import numpy as np

from imgconv import native
from imgconv.errors import ReadFailed, SourceChanged, SourceTruncated, SourceUnreadable
from imgconv.found import Found
from imgconv.identity import Identity
from imgconv.ranges import Pieces, Ranges
from imgconv.readahead import claim, seems_full
from imgconv.sources.prefix import Prefix
from imgconv.units import SECTOR, MiB, round_up

# Extents are handed on in groups, so that work begins before a fragmented file has been
# walked to its end, and a file with millions of holes needs little memory.
GROUP_EXTENTS = 1024
GROUP_BYTES = 64 * MiB
MAX_LENGTH = (1 << 63) - MiB  # so that no offset in an output overflows either

_ITSELF = Pieces(Ranges.single(0, (1 << 63) - 1), np.zeros(1, np.int64))


class FileSource:
    """A raw disk; whatever lies past the end of a file whose length is no multiple of
    512 reads as zeros.

    With `within`, a descriptor of the path's folder, it is what has that name there, and no
    link, wherever the path may lead by now.
    """

    def __init__(self, path: str, *, within: int | None = None):
        self.name = path
        self._prefix = Prefix(None)
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        name, flags = path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        if within is not None:
            name, flags = os.path.basename(path), flags | os.O_NOFOLLOW
        try:
            self._fd = os.open(name, flags, dir_fd=within)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise SourceUnreadable(f"{path}: {reason}") from error
        try:
            self._base_name = os.path.basename(os.path.realpath(path))
            self._status = os.fstat(self._fd)
            self._length = self._measure()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise SourceUnreadable(f"{path}: {error.strerror}") from error
            raise
        self.size = round_up(self._length, SECTOR)
        self._prefix = Prefix(claim(self._status))

    def _measure(self) -> int:
        mode = self._status.st_mode
        if stat.S_ISDIR(mode):
            raise SourceUnreadable(f"{self.name}: is a folder, not a disk image")
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise SourceUnreadable(
                f"{self.name}: is neither a file nor a block device; "
                "a disk must be readable at any offset"
            )
        length = os.lseek(self._fd, 0, os.SEEK_END)
        if length == 0:
            raise SourceUnreadable(f"{self.name}: is empty; a disk has at least one sector")
        if length > MAX_LENGTH:
            raise SourceUnreadable(f"{self.name}: {length} bytes are more than a disk may have")
        return length

    @property
    def warnings(self) -> tuple[str, ...]:
        """Say so when the last sector is not whole."""
        if self._length == self.size:
            return ()
        return (
            f"{self.name}: length {self._length} is not a multiple of 512; "
            f"padded with {self.size - self._length} zero bytes",
        )

    @property
    def identity(self) -> Identity:
        """Base name, size and, of a file, its modification time."""
        modified = 0 if stat.S_ISBLK(self._status.st_mode) else self._status.st_mtime_ns
        return Identity(
            f"{self._base_name}:{self._length}:{modified}", modified // 1_000_000_000
        )

    @property
    def length(self) -> int:
        """Bytes of the file or device."""
        return self._length

    @property
    def allocated(self) -> int | None:
        """Bytes the file takes; of a device that is unknown."""
        return None if stat.S_ISBLK(self._status.st_mode) else self._status.st_blocks * SECTOR

    @property
    def inode(self) -> tuple[int, int]:
        """What the file is known by to the system: its device and its number there."""
        return self._status.st_dev, self._status.st_ino

    def is_same(self, other: object) -> bool:
        """Say whether another source reads this very file."""
        return isinstance(other, FileSource) and self.same_file(other._status)

    def same_file(self, status: os.stat_result) -> bool:
        """Say whether `status` is of the very file or device this source reads."""
        if stat.S_ISBLK(self._status.st_mode) and stat.S_ISBLK(status.st_mode):
            return self._status.st_rdev == status.st_rdev
        return os.path.samestat(self._status, status)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from `offset` on; ReadFailed or SourceTruncated otherwise."""
        filled = 0
        while filled < len(buffer):
            at = offset + filled
            try:
                count = os.preadv(self._fd, [buffer[filled:]], at)
            except OSError as error:
                raise ReadFailed(self.name, at, error.strerror or str(error)) from error
            if count == 0:
                if at < self._length:
                    raise SourceTruncated(self.name, at, self._length)
                buffer[filled:] = bytes(len(buffer) - filled)
                return
            filled += count

    def read_runs(self, extents: Ranges, granule: int, buffer: memoryview) -> Found:
        """Read extents and find their nonzero granules; errors as of `read_into`."""
        return self.read_pieces(_ITSELF, extents, granule, buffer)

    def read_pieces(
        self, pieces: Pieces, extents: Ranges, granule: int, buffer: memoryview
    ) -> Found:
        """Read extents of a disk that is in the file; errors as of `read_into`."""
        known = self._prefix.find(pieces, extents, granule)
        if known is not None:
            return known
        try:
            return native.read_runs(self._fd, self._length, pieces, extents, granule, buffer)
        except native.FileFailed as error:
            raise ReadFailed(self.name, error.offset, error.reason) from error
        except native.FileEnded as error:
            raise SourceTruncated(self.name, error.offset, self._length) from error

    def extents(self) -> Iterator[Ranges]:
        """Walk the file's data ranges; one that knows no holes is all data."""
        if seems_full(self._fd, self._status, self._length):
            yield Ranges.single(0, self._length)
            return
        at = 0
        while at < self._length:
            try:
                found, at = native.file_extents(
                    self._fd, at, self._length, room=GROUP_EXTENTS, volume=GROUP_BYTES
                )
            except native.FileFailed as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ESPIPE):
                    raise ReadFailed(self.name, error.offset, error.reason) from error
                found, at = Ranges.single(error.offset, self._length), self._length
            yield found

    def verify(self) -> None:
        """Raise SourceChanged if the file was written to or resized since it was opened."""
        now = os.fstat(self._fd)
        length = os.lseek(self._fd, 0, os.SEEK_END)
        if length != self._length:
            raise SourceChanged(
                f"{self.name}: changed from {self._length} to {length} bytes while it was read"
            )
        if stat.S_ISREG(now.st_mode) and now.st_mtime_ns != self._status.st_mtime_ns:
            raise SourceChanged(f"{self.name}: was written to while it was read")

    def close(self) -> None:
        """Close the file."""
        self._prefix.close()
        fd, self._fd = getattr(self, "_fd", -1), -1
        if fd >= 0:
            os.close(fd)
